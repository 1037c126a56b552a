//! Which devices a container may make, read and write: OCI rules as an eBPF program for its cgroup.
//!
//! The rules are read as the devices controller of cgroup v1 reads them (the kernel's devices.rst), the way runc
//! does on v2 as well: a list is either closed with exceptions that allow, or open with exceptions that deny.

use crate::problem::{Problem, Problems};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::fmt;

/// Kinds of device, numbered as `BPF_DEVCG_DEV_*` (linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Block devices.
    Block = 1,
    /// Character devices.
    Char = 2,
}

/// A set of accesses, bits as `BPF_DEVCG_ACC_*` (linux/bpf.h); never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Make the node (mknod(2)).
    pub const MAKE: Access = Access(1);
    /// Open for reading.
    pub const READ: Access = Access(2);
    /// Open for writing.
    pub const WRITE: Access = Access(4);
    /// All of them.
    pub const ALL: Access = Access(7);

    /// From the bits of `BPF_DEVCG_ACC_*`; `None` for no access and for unknown bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Access> {
        if bits == 0 || bits > 7 { None } else { Some(Access(bits)) }
    }

    /// From letters among `rwm`.
    fn parse(letters: &str) -> Option<Access> {
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= match letter {
                'r' => Self::READ.0,
                'w' => Self::WRITE.0,
                'm' => Self::MAKE.0,
                _ => return None,
            };
        }
        Access::from_bits(bits)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MAKE, "m")];
        letters
            .iter()
            .filter(|(access, _)| self.0 & access.0 != 0)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// A set of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Devices {
    kind: Kind,
    /// `None` is any.
    major: Option<u32>,
    /// `None` is any.
    minor: Option<u32>,
}

impl Devices {
    /// Whether every device of `other` is one of these.
    fn cover(self, other: Devices) -> bool {
        let number = |mine: Option<u32>, others: Option<u32>| mine.is_none() || mine == others;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = if self.kind == Kind::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// Allowed in every container, after the rules of its configuration, as runc does (`AllowedDevices`; it cannot be
/// refused): make any node, though without leave to open it; use null, zero, full, random, urandom, tty, the
/// terminals of devpts, ptmx and /dev/net/tun.
const DEFAULTS: &[(Devices, Access)] = &[
    (Devices { kind: Kind::Char, major: None, minor: None }, Access::MAKE),
    (Devices { kind: Kind::Block, major: None, minor: None }, Access::MAKE),
    (char(1, 3), Access::ALL),
    (char(1, 5), Access::ALL),
    (char(1, 7), Access::ALL),
    (char(1, 8), Access::ALL),
    (char(1, 9), Access::ALL),
    (char(5, 0), Access::ALL),
    (char(5, 2), Access::ALL),
    (char(10, 200), Access::ALL),
    (Devices { kind: Kind::Char, major: Some(136), minor: None }, Access::ALL),
];

const fn char(major: u32, minor: u32) -> Devices {
    Devices { kind: Kind::Char, major: Some(major), minor: Some(minor) }
}

/// What all rules together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What holds for a device that no exception names.
    open: bool,
    exceptions: Vec<(Devices, Access)>,
    /// Rules that do less or more than they seem to, with pointers relative to the list.
    pub warnings: Vec<Problem>,
}

impl Filter {
    /// Reads `/linux/resources/devices`; to begin with everything is denied. `defaults` adds what every container
    /// of ours is allowed.
    ///
    /// # Errors
    /// Types other than a, b and c, accesses other than combinations of r, w and m, negative numbers other than -1;
    /// and, as runc, a rule that takes back part of what a wildcard rule gave, which v1 would silently ignore. With
    /// pointers relative to the list.
    pub fn new(rules: &[LinuxDeviceCgroup], defaults: bool) -> Result<Filter, Problems> {
        let mut filter = Filter { open: false, exceptions: Vec::new(), warnings: Vec::new() };
        let mut problems = Problems::default();
        for (i, rule) in rules.iter().enumerate() {
            filter.add(rule, &format!("/{i}"), &mut problems);
        }
        let defaults = if defaults { DEFAULTS } else { &[] };
        for (devices, access) in defaults {
            // They widen a closed list. Of an open one they undo what denies the very same; a wider denial stays,
            // where runc would give up.
            if filter.open { filter.take(*devices, *access) } else { filter.insert(*devices, *access) }
        }
        problems.or(filter)
    }

    /// Whether nothing is denied, so that no program is needed.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.open && self.exceptions.is_empty()
    }

    /// What the program answers: whether `access`, all of it, is allowed to a device.
    #[must_use]
    pub fn allows(&self, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let device = Devices { kind, major: Some(major), minor: Some(minor) };
        let named = self.exceptions.iter().any(|(devices, granted)| {
            // An exception that allows must allow the whole access, one that denies forbids any part of it.
            let concerned = if self.open { access.0 & granted.0 != 0 } else { access.0 & !granted.0 == 0 };
            concerned && devices.cover(device)
        });
        named != self.open
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup, pointer: &str, problems: &mut Problems) {
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => None,
            LinuxDeviceType::B => Some(Kind::Block),
            LinuxDeviceType::C => Some(Kind::Char),
            other => {
                let message = format!("{:?}: a device rule is for a, b or c", other.as_str());
                return problems.add(format!("{pointer}/type"), message);
            }
        };
        let letters = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(letters).ok_or_else(|| {
            problems
                .add(format!("{pointer}/access"), format!("{letters:?}: must be letters among r, w and m"));
        });
        let major = number(rule.major(), "major", pointer, problems);
        let minor = number(rule.minor(), "minor", pointer, problems);
        let (Ok(access), Ok(major), Ok(minor)) = (access, major, minor) else { return };
        let Some(kind) = kind else {
            if access != Access::ALL || major.is_some() || minor.is_some() {
                self.warn(pointer, "type a means every device and every access, whatever else the rule says");
            }
            self.open = rule.allow();
            self.exceptions.clear();
            return;
        };
        let devices = Devices { kind, major, minor };
        match self.apply(rule.allow(), devices, access) {
            Err(Refusal::Hole(within, given)) => {
                let verb = if rule.allow() { "denied" } else { "allowed" };
                let message =
                    format!("cannot take {devices} {access} out of {within} {given}, {verb} before");
                problems.add(pointer, message);
            }
            Err(Refusal::Narrower(kept)) => {
                let message =
                    format!("does not change the rule for {kept} given before, which stays in force");
                self.warn(pointer, &message);
            }
            Ok(()) => {}
        }
    }

    fn warn(&mut self, pointer: &str, message: &str) {
        self.warnings.push(Problem { pointer: pointer.to_owned(), message: message.to_owned() });
    }

    fn apply(&mut self, allow: bool, devices: Devices, access: Access) -> Result<(), Refusal> {
        if allow == self.open {
            return self.remove(devices, access);
        }
        self.insert(devices, access);
        Ok(())
    }

    fn insert(&mut self, devices: Devices, access: Access) {
        match self.exceptions.iter_mut().find(|(known, _)| *known == devices) {
            Some((_, granted)) => granted.0 |= access.0,
            None => self.exceptions.push((devices, access)),
        }
    }

    fn take(&mut self, devices: Devices, access: Access) {
        for (_, granted) in self.exceptions.iter_mut().filter(|(known, _)| *known == devices) {
            granted.0 &= !access.0;
        }
        self.exceptions.retain(|(_, granted)| granted.0 != 0);
    }

    /// Takes an exception back. Only the very same set of devices can be, as in v1.
    fn remove(&mut self, devices: Devices, access: Access) -> Result<(), Refusal> {
        let overlaps = |granted: &Access| granted.0 & access.0 != 0;
        let others =
            || self.exceptions.iter().filter(|(known, granted)| *known != devices && overlaps(granted));
        if let Some((within, granted)) = others().find(|(known, _)| known.cover(devices)) {
            return Err(Refusal::Hole(*within, *granted));
        }
        let kept = others().find(|(known, _)| devices.cover(*known)).map(|(known, _)| *known);
        self.take(devices, access);
        kept.map_or(Ok(()), |kept| Err(Refusal::Narrower(kept)))
    }

    /// The program for `BPF_PROG_TYPE_CGROUP_DEVICE`, one instruction in each word (`struct bpf_insn`,
    /// little-endian). It returns 1 to allow and 0 to deny.
    #[must_use]
    pub fn program(&self) -> Vec<u64> {
        let exceptions = self.essential();
        if exceptions.is_empty() {
            return vec![MOVE_RESULT | immediate(u32::from(self.open)), EXIT];
        }
        let mut program = vec![
            MOVE_RESULT | immediate(u32::from(!self.open)),
            // struct bpf_cgroup_dev_ctx: access in the high and kind in the low half of a word; major; minor.
            load(KIND, 0),
            copy(ACCESS, KIND),
            AND | register(KIND) | immediate(0xffff),
            SHIFT_RIGHT | register(ACCESS) | immediate(16),
            load(MAJOR, 4),
            load(MINOR, 8),
        ];
        for kind in exceptions.chunk_by(|a, b| a.0.kind == b.0.kind) {
            let body = self.majors(kind);
            program.push(unless_equal(KIND, kind[0].0.kind as u32, body.len()));
            program.extend(body);
        }
        program.push(MOVE_RESULT | immediate(u32::from(self.open)));
        program.push(EXIT);
        let end = program.len() - 1;
        for (at, instruction) in program.iter_mut().enumerate() {
            if *instruction & 0xffff_0000 == TO_END {
                *instruction = *instruction & !0xffff_0000 | offset(end - at - 1);
            }
        }
        program
    }

    /// The exceptions in order, less those another one covers: behind that one they would be code nothing reaches,
    /// which the kernel's verifier refuses.
    fn essential(&self) -> Vec<(Devices, Access)> {
        let covered = |one: &(Devices, Access)| {
            let by = |other: &&(Devices, Access)| other.0.cover(one.0) && one.1.0 & !other.1.0 == 0;
            self.exceptions.iter().filter(|other| *other != one).any(|other| by(&other))
        };
        let mut essential: Vec<_> = self.exceptions.iter().filter(|one| !covered(one)).copied().collect();
        essential.sort_by_key(|(devices, _)| *devices);
        essential
    }

    /// Code for exceptions of one kind.
    fn majors(&self, exceptions: &[(Devices, Access)]) -> Vec<u64> {
        let mut code = Vec::new();
        for group in exceptions.chunk_by(|a, b| a.0.major == b.0.major) {
            let mut body = Vec::new();
            for (devices, access) in group {
                body.extend(self.exception(devices.minor, *access));
            }
            if let Some(major) = group[0].0.major {
                code.push(unless_equal(MAJOR, major, body.len()));
            }
            code.extend(body);
        }
        code
    }

    /// Code that ends the program if minor number and access are an exception's.
    fn exception(&self, minor: Option<u32>, access: Access) -> Vec<u64> {
        let missing = Access::ALL.0 & !access.0;
        let mut code = match (self.open, missing) {
            (_, 0) => vec![END],
            (true, _) => vec![IF_ANY | register(ACCESS) | immediate(u32::from(access.0)) | TO_END],
            (false, _) => vec![IF_ANY | register(ACCESS) | immediate(u32::from(missing)) | offset(1), END],
        };
        match (minor, code.as_slice()) {
            (Some(minor), [END]) => {
                code = vec![IF_EQUAL | register(MINOR) | immediate(minor) | TO_END];
            }
            (Some(minor), _) => code.insert(0, unless_equal(MINOR, minor, code.len())),
            (None, _) => {}
        }
        code
    }
}

/// Why a rule does not do what it says.
enum Refusal {
    /// It would take part of a wider rule back.
    Hole(Devices, Access),
    /// It leaves a narrower one in force.
    Narrower(Devices),
}

fn number(given: Option<i64>, name: &str, pointer: &str, problems: &mut Problems) -> Result<Option<u32>, ()> {
    match given {
        // runtime-spec: unset or -1 is all.
        None | Some(-1) => Ok(None),
        Some(given) => u32::try_from(given).map(Some).map_err(|_| {
            let message = format!("{given} is no device number; -1 means all");
            problems.add(format!("{pointer}/{name}"), message);
        }),
    }
}

// eBPF (the kernel's bpf/standardization/instruction-set.rst): operation in the low byte, destination and source
// register in the next, then a 16-bit jump and a 32-bit value. 32-bit comparisons exist since Linux 5.1.
const MOVE_RESULT: u64 = 0xb7; // r0 = value
const AND: u64 = 0x54; // 32 bits
const SHIFT_RIGHT: u64 = 0x74; // 32 bits
const IF_EQUAL: u64 = 0x16;
const UNLESS_EQUAL: u64 = 0x56;
const IF_ANY: u64 = 0x46; // any of the value's bits set
const EXIT: u64 = 0x95;
/// Stands for the distance to the last instruction until that is known; no real distance is negative.
const TO_END: u64 = 0xffff_0000;
/// An unconditional jump there.
const END: u64 = 0x05 | TO_END;

const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn register(number: u8) -> u64 {
    (number as u64) << 8
}

const fn immediate(value: u32) -> u64 {
    (value as u64) << 32
}

const fn offset(instructions: usize) -> u64 {
    ((instructions & 0x7fff) as u64) << 16
}

const fn load(to: u8, at: usize) -> u64 {
    0x61 | register(to) | register(CONTEXT) << 4 | offset(at)
}

const fn copy(to: u8, from: u8) -> u64 {
    0xbc | register(to) | register(from) << 4
}

const fn unless_equal(number: u8, value: u32, skip: usize) -> u64 {
    UNLESS_EQUAL | register(number) | immediate(value) | offset(skip)
}

#[cfg(test)]
mod tests;
