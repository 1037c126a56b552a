//! From an OCI profile to plain rules: checked, named actions turned into return values, names into numbers.
//!
//! Where the specification is silent the behaviour is runc's (libcontainer/seccomp, patchbpf) over libseccomp.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::arch::Arch;
use super::names::{self, Syscall};
use crate::problem::Problems;

/// `errno` values the kernel passes on unchanged: 0 to MAX_ERRNO (include/linux/err.h).
const MAX_ERRNO: u32 = 4095;
/// System calls have at most six arguments.
const ARGUMENTS: u8 = 6;
/// How many pairs of a call and a rule we take on: far more than a program of 4096 instructions can tell apart, and
/// few enough that no profile, however made, costs more than a moment.
const MOST_ENTRIES: usize = 500_000;

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument: 0 to 5.
    pub(super) index: u8,
    pub(super) operator: Operator,
    /// What to compare with; the mask for `SCMP_CMP_MASKED_EQ`.
    pub(super) value: u64,
    /// What the mask must leave, for `SCMP_CMP_MASKED_EQ`.
    pub(super) value_two: u64,
}

/// What to return when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    /// A `SECCOMP_RET_*` value with its data.
    pub(super) action: u32,
}

impl Rule {
    /// Whether it holds for every call: no condition, or only masks that select no bit of the argument.
    pub(super) fn always(&self, wide: bool) -> bool {
        self.conditions.iter().all(|condition| {
            let mask = if wide { condition.value } else { condition.value & u64::from(u32::MAX) };
            condition.operator == Operator::ScmpCmpMaskedEq && mask == 0
        })
    }
}

/// The rules for one architecture.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) arch: Arch,
    /// (system call number, index into [`Profile::rules`]), sorted by number, then by place in the profile.
    pub(super) entries: Vec<(u32, usize)>,
    /// The highest number the profile names, if it names any: beyond it a call is new, not forbidden.
    pub(super) newest: Option<u32>,
}

/// A profile ready for code generation.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) default: u32,
    pub(super) rules: Vec<Rule>,
    /// One for each architecture that is filtered; a call from any other is fatal.
    pub(super) sections: Vec<Section>,
    pub(super) notify: bool,
    pub(super) warnings: Vec<String>,
}

impl Profile {
    fn entries(&self) -> usize {
        self.sections.iter().map(|section| section.entries.len()).sum()
    }
}

/// Reads a profile for a kernel whose own architecture is `native`.
pub(super) fn read(seccomp: &LinuxSeccomp, native: Arch) -> Result<Profile, Problems> {
    let mut problems = Problems::default();
    let default = default_action(seccomp, &mut problems);
    let mut warnings = Vec::new();
    let sections = architectures(seccomp, native, &mut warnings);
    let mut profile = Profile { default, rules: Vec::new(), sections, notify: false, warnings };
    for (i, syscall) in seccomp.syscalls().iter().flatten().enumerate() {
        add(&mut profile, syscall, &format!("/syscalls/{i}"), &mut problems);
        if profile.entries() > MOST_ENTRIES {
            break;
        }
    }
    if profile.notify && seccomp.listener_path().as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
        problems.add(
            "/listenerPath",
            "missing: a rule says SCMP_ACT_NOTIFY, so there must be a socket to notify",
        );
    }
    for section in &mut profile.sections {
        // By number, and for one number by rule.
        section.entries.sort_unstable();
    }
    problems.or(profile)
}

fn default_action(seccomp: &LinuxSeccomp, problems: &mut Problems) -> u32 {
    // runc: the listener could then never be handed over, since that takes calls which would notify.
    if seccomp.default_action() == Action::ScmpActNotify {
        problems.add("/defaultAction", "SCMP_ACT_NOTIFY cannot be the default action");
    }
    action(seccomp.default_action(), seccomp.default_errno_ret(), "/defaultErrnoRet", problems)
}

/// The native architecture always, and of those listed the ones whose programs this kernel can run. The filter
/// needs no code for others: their calls cannot occur.
fn architectures(seccomp: &LinuxSeccomp, native: Arch, warnings: &mut Vec<String>) -> Vec<Section> {
    let mut found = vec![native];
    for &listed in seccomp.architectures().iter().flatten() {
        match Arch::from_oci(listed, native).filter(|arch| native.family().contains(arch)) {
            Some(arch) if found.contains(&arch) => {}
            Some(arch) => found.push(arch),
            None => {
                warnings.push(format!("seccomp architecture {listed} cannot occur on this kernel, ignored"))
            }
        }
    }
    found.into_iter().map(|arch| Section { arch, entries: Vec::new(), newest: None }).collect()
}

/// The value the filter returns for an action (seccomp(2)); `errnoRet` where the action takes one, else EPERM.
fn action(action: Action, errno: Option<u32>, pointer: &str, problems: &mut Problems) -> u32 {
    let takes = match action {
        Action::ScmpActErrno => Some(MAX_ERRNO),
        Action::ScmpActTrace => Some(libc::SECCOMP_RET_DATA),
        _ => None,
    };
    match (takes, errno) {
        (None, Some(_)) => problems.add(pointer, format!("{action} does not return an errno")),
        (Some(most), Some(errno)) if errno > most => {
            problems.add(pointer, format!("{errno} is too high: {action} takes at most {most}"));
        }
        _ => {}
    }
    let data = errno.unwrap_or(libc::EPERM.unsigned_abs()) & libc::SECCOMP_RET_DATA;
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE | data,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    }
}

fn add(profile: &mut Profile, syscall: &LinuxSyscall, pointer: &str, problems: &mut Problems) {
    let returned = action(syscall.action(), syscall.errno_ret(), &format!("{pointer}/errnoRet"), problems);
    let notifies = syscall.action() == Action::ScmpActNotify;
    profile.notify |= notifies && !syscall.names().is_empty();
    if syscall.names().is_empty() {
        profile.warnings.push(format!("seccomp rule {pointer} names no system call"));
    }
    let alternatives = conditions(syscall, pointer, problems);
    let first = profile.rules.len();
    // runc: a rule whose action is the default one is left out, so it hides no other.
    if returned != profile.default {
        let rules = alternatives.into_iter().map(|conditions| Rule { conditions, action: returned });
        profile.rules.extend(rules);
    }
    let added = first..profile.rules.len();
    for (i, name) in syscall.names().iter().enumerate() {
        if name.is_empty() {
            problems.add(format!("{pointer}/names/{i}"), "empty: not the name of a system call");
            continue;
        }
        // runc: reporting the listener takes a write, which would wait for that listener for ever.
        if notifies && name == "write" {
            problems.add(format!("{pointer}/names/{i}"), "SCMP_ACT_NOTIFY cannot be used for write");
        }
        let Some(call) = Syscall::named(name) else {
            profile.warnings.push(format!("unknown seccomp syscall \"{name}\" ignored"));
            continue;
        };
        for section in 0..profile.sections.len() {
            number(profile, section, call, added.clone());
            multiplex(profile, section, name, added.clone());
        }
        if profile.entries() > MOST_ENTRIES {
            problems.add(pointer, "with this rule the profile has more than any filter can hold");
            return;
        }
    }
}

/// The argument conditions of one OCI rule as alternatives, each a list of which all must hold.
///
/// All of a rule's conditions must hold; but when two concern the same argument, runc makes each condition a rule
/// of its own ("revert to old behavior" in libcontainer/seccomp), and profiles rely on it.
fn conditions(syscall: &LinuxSyscall, pointer: &str, problems: &mut Problems) -> Vec<Vec<Condition>> {
    let mut all: Vec<Condition> = Vec::new();
    let mut seen = [false; ARGUMENTS as usize];
    let mut twice = false;
    for (i, arg) in syscall.args().iter().flatten().enumerate() {
        let Some(index) = u8::try_from(arg.index()).ok().filter(|index| *index < ARGUMENTS) else {
            let message = format!("{}: a system call has arguments 0 to 5", arg.index());
            problems.add(format!("{pointer}/args/{i}/index"), message);
            continue;
        };
        twice |= std::mem::replace(&mut seen[usize::from(index)], true);
        let value_two = arg.value_two().unwrap_or(0);
        all.push(Condition { index, operator: arg.op(), value: arg.value(), value_two });
    }
    if twice { all.into_iter().map(|condition| vec![condition]).collect() } else { vec![all] }
}

fn number(profile: &mut Profile, section: usize, call: Syscall, rules: std::ops::Range<usize>) {
    let section = &mut profile.sections[section];
    let Some(number) = call.number(section.arch) else { return };
    // ARM's private calls lie so far above the table that they say nothing about its end.
    if !call.is_arm_private() {
        section.newest = section.newest.max(Some(number));
    }
    section.entries.extend(rules.map(|rule| (number, rule)));
}

/// On i386 a socket or System V call can also be made through `socketcall` or `ipc`. As libseccomp does, the rule
/// then holds there too, with the call's number in place of a condition on argument 0: what the call's own
/// arguments are, no filter can see, for they are behind a pointer.
fn multiplex(profile: &mut Profile, section: usize, name: &str, rules: std::ops::Range<usize>) {
    if profile.sections[section].arch != Arch::I386 {
        return;
    }
    let Some((through, selector)) = names::multiplexed(name) else { return };
    let Some(number) = Syscall::named(through).and_then(|call| call.number(Arch::I386)) else { return };
    for rule in rules {
        let selected = Condition { index: 0, operator: Operator::ScmpCmpEq, value: selector, value_two: 0 };
        let mut conditions = vec![selected];
        conditions.extend(profile.rules[rule].conditions.iter().filter(|condition| condition.index != 0));
        let action = profile.rules[rule].action;
        profile.sections[section].entries.push((number, profile.rules.len()));
        profile.rules.push(Rule { conditions, action });
    }
}
