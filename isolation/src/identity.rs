//! Who the container's program is: user, groups, capabilities, and what it may never gain.

use crate::sys::hop::Call;
use crate::sys::process::{self, CapabilitySets};
use crate::{Context, Result};

/// Capability sets as bit masks by number (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// May ever be gained by exec.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept across exec of files that inherit them.
    pub inheritable: u64,
    /// Kept across exec of any program.
    pub ambient: u64,
}

impl Capabilities {
    /// The same without what is not in `held`.
    #[must_use]
    pub fn limited_to(self, held: u64) -> Self {
        Capabilities {
            bounding: self.bounding & held,
            effective: self.effective & held,
            permitted: self.permitted & held,
            inheritable: self.inheritable & held,
            ambient: self.ambient & held,
        }
    }
}

/// Credentials of a program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups; `None` where setgroups(2) is denied and none were asked for.
    pub groups: Option<Vec<u32>>,
    /// File creation mask; `None` leaves it.
    pub umask: Option<u32>,
    /// Capabilities; `None` leaves what the change of user leaves.
    pub capabilities: Option<Capabilities>,
    /// Never gain privileges by exec.
    pub no_new_privileges: bool,
    /// The highest capability the kernel knows.
    pub last_capability: u8,
}

const PR_CAP_AMBIENT: i32 = 47;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_LOWER: u64 = 3;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;

impl Identity {
    /// Takes on the identity.
    ///
    /// # Errors
    /// The kernel's: an id that is not mapped, a capability we do not have.
    pub fn take(&self) -> Result<()> {
        // Root stays root, with all that root may have: nothing to keep over the change.
        let keep = self.capabilities.is_some() && self.uid != 0;
        if let Some(capabilities) = &self.capabilities {
            drop_bounding(capabilities.bounding, self.last_capability)?;
        }
        if keep {
            // Else the change to another user would clear what is to be permitted.
            process::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
        }
        if let Some(groups) = &self.groups {
            process::setgroups(groups).doing(|| "set the supplementary groups")?;
        }
        process::setgid(self.gid).doing(|| format!("become group {}", self.gid))?;
        process::setuid(self.uid).doing(|| format!("become user {}", self.uid))?;
        if let Some(mask) = self.umask {
            process::umask(mask);
        }
        if let Some(capabilities) = &self.capabilities {
            if keep {
                process::prctl(libc::PR_SET_KEEPCAPS, 0, 0)?;
            }
            apply(capabilities, self.last_capability).doing(|| "set the capabilities")?;
        }
        if self.no_new_privileges {
            process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        }
        Ok(())
    }
}

/// Capabilities that the program's execve(2) may need, kept across the execve(2) of the hop before it: a file that only
/// root may execute runs as another user with `CAP_DAC_OVERRIDE`, though the program does not have it any more then.
#[derive(Debug)]
pub struct Carried {
    numbers: Vec<u64>,
    inheritable: u64,
    /// Takes them out of the ambient set; for the hop.
    pub calls: Vec<Call>,
    /// What the hop is to have then.
    pub sets: CapabilitySets,
}

impl Identity {
    /// What is to be carried; `None` where that is nothing.
    pub fn carried(&self) -> Option<Carried> {
        const BY_EXECVE: u64 = 1 << 1 | 1 << 2; // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        let want = self.capabilities.filter(|_| self.uid != 0)?;
        let carried = BY_EXECVE & want.effective & want.permitted & want.bounding & !want.ambient;
        let numbers: Vec<_> = (0..64_u64).filter(|number| carried >> number & 1 == 1).collect();
        let lower = |number: &u64| Call {
            number: libc::SYS_prctl,
            arguments: [PR_CAP_AMBIENT as u64, PR_CAP_AMBIENT_LOWER, *number, 0, 0],
        };
        let calls = numbers.iter().map(lower).collect();
        // Of another user than root execve(2) leaves the ambient set alone in force.
        let held = want.ambient | carried;
        let sets = CapabilitySets { effective: held, permitted: held, inheritable: want.inheritable };
        (carried != 0).then_some(Carried { numbers, inheritable: want.inheritable | carried, calls, sets })
    }
}

impl Carried {
    /// Makes them ambient: the last thing before the hop.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&self) -> Result<()> {
        let now = process::capget()?;
        process::capset(CapabilitySets { inheritable: self.inheritable, ..now })?;
        for number in &self.numbers {
            process::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, *number)?;
        }
        Ok(())
    }
}

fn drop_bounding(keep: u64, last: u8) -> Result<()> {
    for number in (0..=u64::from(last)).filter(|number| keep >> number & 1 == 0) {
        process::prctl(libc::PR_CAPBSET_DROP, number, 0)
            .doing(|| "drop a capability from the bounding set")?;
    }
    Ok(())
}

fn apply(want: &Capabilities, last: u8) -> Result<()> {
    // Only what the kernel and our own namespace have can be had; what runc cannot set it leaves out, too.
    let all = (1_u64 << (last + 1)) - 1;
    process::capset(CapabilitySets {
        effective: want.effective & all,
        permitted: want.permitted & all,
        inheritable: want.inheritable & all,
    })?;
    process::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for number in (0..=u64::from(last)).filter(|number| want.ambient >> number & 1 == 1) {
        process::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)?;
    }
    Ok(())
}

/// The highest capability number the kernel knows.
pub fn last_capability() -> u8 {
    // Asking for a number it does not know fails: 40 was the last one when this was written.
    let known = |number: u8| process::prctl(libc::PR_CAPBSET_READ, u64::from(number), 0).is_ok();
    (40..63)
        .take_while(|number| known(*number))
        .last()
        .or_else(|| (0..40).rev().find(|n| known(*n)))
        .unwrap_or(0)
}
