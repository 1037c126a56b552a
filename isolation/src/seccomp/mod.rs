//! Seccomp: an OCI profile as a BPF program, and what that program will answer.
//!
//! [`compile`] is pure; installing the program is the business of `sys`. The semantics are the runtime
//! specification's (config-linux.md, "Seccomp"); where that is silent they are runc's over libseccomp, because
//! profiles are written against those.

mod arch;
mod assemble;
mod compile;
mod names;
mod profile;
mod rules;
mod simulate;
mod table;
#[cfg(test)]
mod tests;

pub use arch::{Arch, X32_BIT};
pub use names::{Syscall, name_of};
pub use profile::default_profile;
pub use simulate::simulate;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag as Flag};

use crate::problem::Problems;
use crate::sys::seccomp::Instruction;

/// A compiled profile, ready for seccomp(2) with SECCOMP_SET_MODE_FILTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program: at most 4096 instructions.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`, among them NEW_LISTENER when a rule notifies.
    pub flags: u32,
    /// Whether a rule notifies: seccomp(2) then returns a listener for the socket at `listenerPath`.
    pub notify: bool,
    /// What was passed over, for the log at debug level: names and architectures unknown here.
    pub warnings: Vec<String>,
}

/// Compiles a profile for this machine.
///
/// # Errors
/// All faults of the profile, with pointers relative to `/linux/seccomp`.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Filter, Problems> {
    compile_for(seccomp, Arch::NATIVE)
}

/// Compiles a profile for a kernel whose own architecture is `native`.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(seccomp: &LinuxSeccomp, native: Arch) -> Result<Filter, Problems> {
    let mut profile = rules::read(seccomp, native)?;
    let program = compile::program(&profile);
    let mut problems = Problems::default();
    if program.len() > MOST_INSTRUCTIONS {
        let message = format!(
            "the filter takes {} instructions, the kernel at most {MOST_INSTRUCTIONS}",
            program.len()
        );
        problems.add("/syscalls", message);
    }
    let flags = flags(seccomp, profile.notify, &mut profile.warnings);
    problems.or(Filter { program, flags, notify: profile.notify, warnings: profile.warnings })
}

/// BPF_MAXINSNS, linux/bpf_common.h.
const MOST_INSTRUCTIONS: usize = 4096;

/// The flags for seccomp(2).
fn flags(seccomp: &LinuxSeccomp, notify: bool, warnings: &mut Vec<String>) -> u32 {
    let Some(listed) = seccomp.flags() else {
        // runc and crun: no list at all, as opposed to an empty one, means SPEC_ALLOW.
        return narrow(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) | listener(notify);
    };
    let mut flags = listener(notify);
    for flag in listed {
        flags |= match flag {
            Flag::SeccompFilterFlagLog => narrow(libc::SECCOMP_FILTER_FLAG_LOG),
            Flag::SeccompFilterFlagSpecAllow => narrow(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
            // With a listener both would want the return value: the kernel insists that TSYNC then reports by errno.
            Flag::SeccompFilterFlagTsync if notify => {
                narrow(libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH)
            }
            Flag::SeccompFilterFlagTsync => narrow(libc::SECCOMP_FILTER_FLAG_TSYNC),
            Flag::SeccompFilterFlagWaitKillableRecv if notify => {
                narrow(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
            }
            // The kernel refuses it where nothing can be received.
            Flag::SeccompFilterFlagWaitKillableRecv => {
                warnings.push("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV ignored: no rule notifies".to_owned());
                0
            }
        };
    }
    flags
}

fn listener(notify: bool) -> u32 {
    if notify { narrow(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER) } else { 0 }
}

/// libc has the flags as `unsigned long`; the system call takes an `unsigned int`.
const fn narrow(flag: libc::c_ulong) -> u32 {
    flag as u32
}

/// The actions a profile may name, sorted, for `ctr features`.
pub const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The comparisons a condition may make, sorted, for `ctr features`.
pub const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The architectures whose calls a filter of ours can tell apart, sorted, for `ctr features`.
pub const ARCHITECTURES: &[&str] =
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// The flags a profile may name, sorted, for `ctr features`.
pub const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
