//! The `process` part of a configuration: who the program is and what it starts with. Shared by `create` and `exec`.

use crate::facts::Facts;
use crate::plan::annotations;
use crate::plan::validate::Check;
use crate::plan::{Program, Request};
use ctr_isolation::console::Console;
use ctr_isolation::identity::{Capabilities, Identity};
use ctr_isolation::schedule::{self, Rlimit, Schedule};
use ctr_isolation::seccomp::{self, Filter};
use ctr_isolation::sys::process::SchedAttr;
use ctr_isolation::{capabilities, rlimit};
use oci_spec::runtime::{
    Capability, IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler, Spec,
};

/// What becomes of supplementary groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// They are set to those of the configuration.
    Set,
    /// They cannot be set.
    Denied,
    /// Ours are kept.
    Kept,
}

/// What becomes of them where setgroups(2) is `allowed` or not.
pub fn groups(spec: &Spec, allowed: bool) -> Groups {
    match (annotations::keeps_groups(spec), allowed) {
        (true, _) => Groups::Kept,
        (false, true) => Groups::Set,
        (false, false) => Groups::Denied,
    }
}

/// Credentials. `groups_allowed` is false where setgroups(2) is denied.
///
/// In a new user namespace every capability can be had; outside only those that we hold, and a warning names the
/// others (runtime-spec config.md: what cannot be granted is warned of).
pub fn identity(
    process: &Process,
    facts: &Facts,
    groups: Groups,
    user_namespace: bool,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> Identity {
    let held = if user_namespace { u64::MAX } else { facts.capabilities };
    let wanted = capability_sets(process, facts);
    let missing = (wanted.bounding | wanted.permitted | wanted.inheritable) & !held;
    if missing != 0 {
        let names = capabilities::names(missing).join(", ");
        warnings.push(format!("/process/capabilities: {names}: we do not have them ourselves; left out"));
    }
    let user = process.user();
    let wanted_groups = user.additional_gids().clone().unwrap_or_default();
    // To setresuid(2) it means "leave as it is": root.
    for (id, name) in [(user.uid(), "uid"), (user.gid(), "gid")] {
        check.that(id != u32::MAX, &format!("/process/user/{name}"), || format!("{id} is no id"));
    }
    check.that(groups != Groups::Denied || wanted_groups.is_empty(), "/process/user/additionalGids", || {
        "supplementary groups cannot be set in a user namespace that an ordinary user made with one group: \
         give the user a range in /etc/subgid"
            .into()
    });
    Identity {
        uid: user.uid(),
        gid: user.gid(),
        groups: (groups == Groups::Set).then_some(wanted_groups),
        umask: user.umask(),
        capabilities: Some(wanted.limited_to(held)),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        last_capability: facts.last_capability,
    }
}

/// No capabilities named means none, as in runc.
fn capability_sets(process: &Process, facts: &Facts) -> Capabilities {
    let Some(sets) = process.capabilities() else { return Capabilities::default() };
    let mask = |set: &Option<oci_spec::runtime::Capabilities>| {
        let names = set.iter().flatten().map(ToString::to_string);
        capabilities::read(names, facts.last_capability).mask
    };
    let (permitted, inheritable) = (mask(sets.permitted()), mask(sets.inheritable()));
    Capabilities {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()) & permitted,
        permitted,
        inheritable,
        // The kernel raises only what is both permitted and inheritable (capabilities(7)); runc warns and goes on.
        ambient: mask(sets.ambient()) & permitted & inheritable,
    }
}

/// Whether the process, or what it executes, may hold `CAP_SYS_PTRACE`.
pub fn may_trace(process: &Process) -> bool {
    process.capabilities().as_ref().is_some_and(|sets| {
        let all = [sets.bounding(), sets.permitted(), sets.inheritable(), sets.ambient()];
        all.into_iter().flatten().any(|set| set.contains(&Capability::SysPtrace))
    })
}

/// Resource limits.
pub fn rlimits(process: &Process) -> Vec<Rlimit> {
    let limits = process.rlimits().iter().flatten();
    limits
        .map(|limit| Rlimit { resource: rlimit::number(limit.typ()), soft: limit.soft(), hard: limit.hard() })
        .collect()
}

/// The program, with the variables of socket activation; a container's `first` process may have its working directory made.
pub fn program(process: &Process, request: &Request, first: bool) -> Program {
    let mut env = process.env().clone().unwrap_or_default();
    if let Some((count, names)) = &request.listen {
        env.push(format!("LISTEN_FDS={count}"));
        env.push("LISTEN_PID=1".into());
        env.extend(names.iter().map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Program {
        args: process.args().clone().unwrap_or_default(),
        env,
        cwd: process.cwd().clone(),
        may_make_cwd: first,
        keep_fds: request.keep_fds + request.listen.as_ref().map_or(0, |(count, _)| *count),
    }
}

/// The system call filter, of the container's first process and of each that follows.
pub fn filter(linux: &Linux, check: &mut Check) -> Option<Filter> {
    match seccomp::compile(linux.seccomp().as_ref()?) {
        Ok(filter) => Some(filter),
        Err(problems) => {
            for problem in &problems {
                check.problem(format!("/linux/seccomp{}", problem.pointer), &problem.message);
            }
            None
        }
    }
}

/// The terminal, when the process wants one.
pub fn console(process: &Process) -> Option<Console> {
    let small = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    process.terminal().unwrap_or(false).then(|| Console {
        size: process.console_size().map(|size| (small(size.height()), small(size.width()))),
        uid: process.user().uid(),
    })
}

/// Labels of security modules: files below `/proc` and values.
pub fn labels(process: &Process, facts: &Facts, check: &mut Check) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|profile| !profile.is_empty()) {
        check.that(facts.apparmor, "/process/apparmorProfile", || {
            "AppArmor is not enabled on this host".into()
        });
        labels.push(("self/attr/apparmor/exec".into(), format!("exec {profile}")));
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|label| !label.is_empty()) {
        check.that(facts.selinux, "/process/selinuxLabel", || "SELinux is not enabled on this host".into());
        labels.push(("self/attr/exec".into(), label.clone()));
    }
    labels
}

/// Scheduling.
pub fn schedule(process: &Process, memory: Option<&LinuxMemoryPolicy>, check: &mut Check) -> Schedule {
    Schedule {
        cpu: process.scheduler().as_ref().map(|scheduler| self::scheduler(scheduler, check)),
        io: process.io_priority().as_ref().map(|priority| io_priority(priority, check)),
        memory: memory.and_then(|policy| memory_policy(policy, check)),
    }
}

fn scheduler(scheduler: &Scheduler, check: &mut Check) -> SchedAttr {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let (nice, priority) = (scheduler.nice().unwrap_or(0), scheduler.priority().unwrap_or(0));
    check.that((-20..=19).contains(&nice), "/process/scheduler/nice", || {
        format!("{nice} is not between -20 and 19")
    });
    check.that(priority >= 0, "/process/scheduler/priority", || format!("{priority} is below 0"));
    check.that(priority == 0 || matches!(policy, 1 | 2), "/process/scheduler/priority", || {
        "is only for SCHED_FIFO and SCHED_RR".into()
    });
    let deadline = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
    let used = deadline.iter().any(|value| value.unwrap_or(0) != 0);
    check.that(!used || policy == 6, "/process/scheduler", || {
        "runtime, deadline and period are only for SCHED_DEADLINE".into()
    });
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    SchedAttr {
        policy,
        flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, flag| all | flag),
        nice,
        priority: priority.unsigned_abs(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }
}

fn io_priority(priority: &LinuxIOPriority, check: &mut Check) -> (u32, u32) {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = priority.priority();
    check.that((0..=7).contains(&level), "/process/ioPriority/priority", || {
        format!("{level} is not between 0 and 7")
    });
    (class, u32::try_from(level).unwrap_or(0))
}

fn memory_policy(policy: &LinuxMemoryPolicy, check: &mut Check) -> Option<(u32, Vec<usize>)> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags: u32 = policy.flags().iter().flatten().map(flag).fold(0, |all, flag| all | flag);
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    let nodes = check.value("/linux/memoryPolicy/nodes", schedule::cpu_list(nodes))?;
    Some((mode | flags, nodes))
}

/// The two lists of `execCPUAffinity`: while the process is made and for the program.
pub fn affinity(process: &Process, check: &mut Check) -> (Option<Vec<usize>>, Option<Vec<usize>>) {
    let Some(affinity) = process.exec_cpu_affinity() else { return (None, None) };
    let mut read = |text: &Option<String>, name: &str| {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        check.value(&format!("/process/execCPUAffinity/{name}"), schedule::cpu_list(text))
    };
    (read(affinity.initial(), "initial"), read(affinity.cpu_affinity_final(), "final"))
}
