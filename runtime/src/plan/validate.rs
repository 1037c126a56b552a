//! What the specification demands of a configuration, checked all at once.

use oci_spec::runtime::{Hook, LinuxIdMapping, LinuxNamespaceType, Process, Spec};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: a JSON pointer (RFC 6901), or the name of the file, for all of it.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub what: String,
}

impl Problem {
    /// A problem of the value at `pointer`.
    pub fn new(pointer: impl Into<String>, what: impl Into<String>) -> Self {
        Problem { pointer: pointer.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.what)
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub struct Check {
    /// What was found so far.
    pub problems: Vec<Problem>,
}

impl Check {
    /// Notes a problem unless `good`.
    pub fn that(&mut self, good: bool, pointer: &str, what: impl FnOnce() -> String) {
        if !good {
            self.problems.push(Problem::new(pointer, what()));
        }
    }

    /// Notes a problem.
    pub fn problem(&mut self, pointer: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem::new(pointer, what));
    }

    /// The value, or the problem noted.
    pub fn value<T, E: fmt::Display>(&mut self, pointer: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problem(pointer, error.to_string())).ok()
    }
}

/// Checks a configuration for `create`, as far as that needs no translation.
pub fn spec(spec: &Spec, check: &mut Check) {
    version(spec.version(), check);
    match spec.root() {
        None => check.problem("/root", "is missing: give the root file system's path"),
        Some(root) => check.that(!root.path().as_os_str().is_empty(), "/root/path", || "is empty".into()),
    }
    if let Some(process) = spec.process() {
        self::process("/process", process, check);
    }
    if let Some(name) = spec.hostname() {
        check.that(name.len() <= 64, "/hostname", || "is longer than 64 bytes".into());
    }
    if let Some(name) = spec.domainname() {
        check.that(name.len() <= 64, "/domainname", || "is longer than 64 bytes".into());
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let pointer = format!("/mounts/{index}/destination");
        check.that(!mount.destination().as_os_str().is_empty(), &pointer, || "is empty".into());
    }
    namespaces(spec, check);
    all_hooks(spec, check);
    linux_paths(spec, check);
}

fn version(version: &str, check: &mut Check) {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core.split('.').map(|part| part.parse().ok()).collect();
    let good = matches!(numbers.as_slice(), [Some(1), Some(_), Some(_)]);
    check.that(good, "/ociVersion", || format!("{version:?} is not a version 1.x.y of the specification"));
}

/// Checks a process, of the configuration or of `exec`.
pub fn process(pointer: &str, process: &Process, check: &mut Check) {
    let args = process.args().as_deref().unwrap_or_default();
    check.that(!args.is_empty(), &format!("{pointer}/args"), || "is empty: name a program".into());
    let program_named = args.first().is_none_or(|name| !name.is_empty());
    check.that(program_named, &format!("{pointer}/args/0"), || "is empty: name a program".into());
    for (index, arg) in args.iter().enumerate() {
        check.that(!arg.contains('\0'), &format!("{pointer}/args/{index}"), || "has a NUL character".into());
    }
    for (index, entry) in process.env().iter().flatten().enumerate() {
        let place = format!("{pointer}/env/{index}");
        check.that(!entry.contains('\0'), &place, || "has a NUL character".into());
        check.that(!entry.starts_with('='), &place, || format!("{entry:?} has no name before the ="));
    }
    check.that(process.cwd().is_absolute(), &format!("{pointer}/cwd"), || {
        format!("{:?} is not an absolute path", process.cwd())
    });
    let mut seen = HashSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let place = format!("{pointer}/rlimits/{index}");
        check
            .that(seen.insert(limit.typ().to_string()), &place, || format!("{} is there twice", limit.typ()));
        check.that(limit.soft() <= limit.hard(), &place, || "soft is above hard".into());
    }
    if let Some(score) = process.oom_score_adj() {
        check.that((-1000..=1000).contains(&score), &format!("{pointer}/oomScoreAdj"), || {
            format!("{score} is not between -1000 and 1000")
        });
    }
}

fn namespaces(spec: &Spec, check: &mut Check) {
    let Some(linux) = spec.linux() else { return };
    let mut seen = HashSet::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let place = format!("/linux/namespaces/{index}");
        check.that(seen.insert(namespace.typ()), &place, || format!("{} is there twice", namespace.typ()));
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            check.that(path.is_absolute(), &format!("{place}/path"), || {
                format!("{path:?} is not an absolute path")
            });
        }
    }
    let new = |kind: LinuxNamespaceType| {
        linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind && is_new(namespace))
    };
    let has = |kind: LinuxNamespaceType| linux.namespaces().iter().flatten().any(|found| found.typ() == kind);
    let needs = |check: &mut Check, good: bool, pointer: &str, kind: &str| {
        check.that(good, pointer, || format!("needs a {kind} namespace in /linux/namespaces"));
    };
    let mappings = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let (uids, gids) = (mappings(linux.uid_mappings()), mappings(linux.gid_mappings()));
    if new(LinuxNamespaceType::User) {
        check.that(uids, "/linux/uidMappings", || "is empty, and a new user namespace needs it".into());
        check.that(gids, "/linux/gidMappings", || "is empty, and a new user namespace needs it".into());
    } else if !has(LinuxNamespaceType::User) {
        needs(check, !uids, "/linux/uidMappings", "user");
        needs(check, !gids, "/linux/gidMappings", "user");
    }
    needs(check, spec.hostname().is_none() || has(LinuxNamespaceType::Uts), "/hostname", "uts");
    needs(check, spec.domainname().is_none() || has(LinuxNamespaceType::Uts), "/domainname", "uts");
    let offsets = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    needs(check, !offsets || new(LinuxNamespaceType::Time), "/linux/timeOffsets", "new time");
    let devices = linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty());
    needs(check, !devices || has(LinuxNamespaceType::Network), "/linux/netDevices", "network");
    let mount = has(LinuxNamespaceType::Mount);
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    needs(check, mount || !some(linux.masked_paths()), "/linux/maskedPaths", "mount");
    needs(check, mount || !some(linux.readonly_paths()), "/linux/readonlyPaths", "mount");
    sysctl(linux, &has, check);
}

/// A namespace without a path is a new one.
pub fn is_new(namespace: &oci_spec::runtime::LinuxNamespace) -> bool {
    namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
}

/// Kernel parameters of the host's own namespaces are not a container's to set.
fn sysctl(linux: &oci_spec::runtime::Linux, has: &dyn Fn(LinuxNamespaceType) -> bool, check: &mut Check) {
    const IPC: &[&str] = &[
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    for name in linux.sysctl().iter().flat_map(|map| map.keys()) {
        let pointer = format!("/linux/sysctl/{}", name.replace('~', "~0").replace('/', "~1"));
        let path = sysctl_path(name);
        let needs = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            LinuxNamespaceType::Ipc
        } else if path.starts_with("net/") {
            LinuxNamespaceType::Network
        } else if path == "kernel/hostname" {
            check.problem(&pointer, "is not allowed: /hostname says it");
            continue;
        } else if path == "kernel/domainname" {
            LinuxNamespaceType::Uts
        } else if path.starts_with("user/") {
            LinuxNamespaceType::User
        } else {
            check.problem(&pointer, format!("{name} is not separate for a container: set it on the host"));
            continue;
        };
        check.that(!path.split('/').any(|part| matches!(part, "" | "." | "..")), &pointer, || {
            "is no name".into()
        });
        check.that(has(needs), &pointer, || format!("needs a {needs} namespace in /linux/namespaces"));
    }
}

/// The file below `/proc/sys` of a kernel parameter. Names come with dots or with slashes; in a name with slashes
/// dots are part of it (an interface `eth0.1`), and in one with dots a slash stands for such a dot (sysctl(8)).
pub fn sysctl_path(name: &str) -> String {
    match (name.find('.'), name.find('/')) {
        (Some(dot), Some(slash)) if slash < dot => name.to_owned(),
        (None, _) => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

fn all_hooks(spec: &Spec, check: &mut Check) {
    let Some(hooks) = spec.hooks() else { return };
    hook_list("prestart", prestart(hooks), check);
    hook_list("createRuntime", hooks.create_runtime().as_deref(), check);
    hook_list("createContainer", hooks.create_container().as_deref(), check);
    hook_list("startContainer", hooks.start_container().as_deref(), check);
    hook_list("poststart", hooks.poststart().as_deref(), check);
    hook_list("poststop", hooks.poststop().as_deref(), check);
}

/// `prestart` is deprecated in the specification and still demanded by it.
#[allow(deprecated)]
pub fn prestart(hooks: &oci_spec::runtime::Hooks) -> Option<&[Hook]> {
    hooks.prestart().as_deref()
}

fn hook_list(kind: &str, hooks: Option<&[Hook]>, check: &mut Check) {
    for (index, hook) in hooks.unwrap_or_default().iter().enumerate() {
        let place = format!("/hooks/{kind}/{index}");
        check.that(hook.path().is_absolute(), &format!("{place}/path"), || {
            format!("{:?} is not an absolute path", hook.path())
        });
        check.that(hook.timeout().is_none_or(|timeout| timeout > 0), &format!("{place}/timeout"), || {
            "is not above 0 seconds".into()
        });
    }
}

fn linux_paths(spec: &Spec, check: &mut Check) {
    let Some(linux) = spec.linux() else { return };
    for (key, list) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        for (index, path) in list.iter().flatten().enumerate() {
            check.that(Path::new(path).is_absolute(), &format!("/linux/{key}/{index}"), || {
                format!("{path:?} is not an absolute path")
            });
        }
    }
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        check.that(device.path().is_absolute(), &format!("/linux/devices/{index}/path"), || {
            format!("{:?} is not an absolute path", device.path())
        });
    }
}
