//! What confines a program beside namespaces: security modules, and filters of system calls.

use std::path::Path;

use ctr_isolation::{
    Result,
    attempt::attempt,
    sys::{
        lsm,
        process::prctl,
        seccomp::{Instruction, install},
    },
};

use super::{
    Finding,
    host::{Host, read},
};

pub(super) fn probe(host: &Host) -> Vec<Finding> {
    vec![modules(host), filter(host), notification(host)]
}

/// `LSM_ID_*` of linux/lsm.h, from 100 on.
const MODULES: [&str; 14] = [
    "capability",
    "selinux",
    "smack",
    "tomoyo",
    "apparmor",
    "yama",
    "loadpin",
    "safesetid",
    "lockdown",
    "bpf",
    "landlock",
    "ima",
    "evm",
    "ipe",
];

/// The names of security modules by their numbers.
fn names(ids: &[u64]) -> String {
    let name = |id: &u64| {
        let known = id.checked_sub(100).and_then(|number| MODULES.get(usize::try_from(number).ok()?));
        known.map_or_else(|| id.to_string(), ToString::to_string)
    };
    ids.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn modules(host: &Host) -> Finding {
    let (tried, list) = match lsm::list_modules() {
        Ok(ids) => ("lsm_list_modules(2)", names(&ids)),
        // Older than Linux 6.8.
        Err(_) => {
            ("read /sys/kernel/security/lsm", read("/sys/kernel/security/lsm").trim().replace(',', ", "))
        }
    };
    let active = [("apparmor", host.facts.apparmor), ("selinux", host.facts.selinux)];
    let active: Vec<&str> = active.into_iter().filter_map(|(name, is_on)| is_on.then_some(name)).collect();
    let list = if list.is_empty() { "unknown".to_owned() } else { list };
    if active.is_empty() {
        let found = format!("neither AppArmor nor SELinux is on; there is: {list}");
        let loses = "a second wall around containers: --security-opt apparmor= and label=";
        // A module that is not built in cannot be had by booting with it.
        let is_built =
            ["/sys/module/apparmor", "/sys/module/selinux"].iter().any(|path| Path::new(path).exists());
        let mend = is_built.then(|| host.boot_with("apparmor=1"));
        return Finding::warning("lsm", tried, found, loses, mend);
    }
    let own = read("/proc/self/attr/current");
    let own = own.trim_end_matches(['\0', '\n']);
    let confined =
        if own.is_empty() || own == "unconfined" { String::new() } else { format!("; we run as {own}") };
    Finding::ok("lsm", tried, format!("{} ({list}){confined}", active.join(", ")))
}

/// A filter that lets all pass.
const ALLOW_ALL: [Instruction; 1] = [Instruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];

/// Installs the filter in a process that is given up for it.
fn try_filter(flags: u32) -> Result<()> {
    let act = || {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        install(&ALLOW_ALL, flags).map(|_listener| String::new())
    };
    attempt(0, None, |_| Ok(()), act).map(drop)
}

fn filter(host: &Host) -> Finding {
    let tried = "installed a filter of system calls in a process of our own";
    match try_filter(0) {
        Ok(()) => Finding::ok("seccomp", tried, "works"),
        Err(error) => {
            let loses = "the filter of system calls: containers with one, which is the default, do not start";
            let mend = match host.container {
                Some(_) => super::namespaces::more_for_container(host),
                None => format!("{} run --security-opt seccomp=unconfined ...", host.program),
            };
            Finding::problem("seccomp", tried, "does not work", loses, mend).because(error)
        }
    }
}

fn notification(host: &Host) -> Finding {
    let tried = "installed a filter with a listener in a process of our own";
    match try_filter(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32) {
        Ok(()) => Finding::ok("seccomp-notify", tried, "works"),
        Err(error) => {
            let loses = "SCMP_ACT_NOTIFY: agents that answer system calls in a container's place";
            // A process has one listener; ours may be that of the container that we are in.
            let mend = host.container.is_some().then(|| super::namespaces::more_for_container(host));
            Finding::warning("seccomp-notify", tried, "does not work", loses, mend).because(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_names() {
        assert_eq!(names(&[100, 110, 104, 109]), "capability, landlock, apparmor, bpf");
        assert_eq!(names(&[99, 113, 114]), "99, ipe, 114");
    }
}
