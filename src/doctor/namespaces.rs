//! Namespaces: whether the caller may make each kind, and whether ordinary users may.

use ctr_isolation::{
    Error, Result,
    attempt::{attempt, map_root},
    sys::{mount, process},
};

use super::{
    Finding,
    host::{Host, read_number},
};

/// What every container has, by name.
const NEEDED: [(&str, i32); 5] = [
    ("mount", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("network", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
];

/// Since Linux 5.6; libc has no name for it on all targets.
const CLONE_NEWTIME: i32 = 0x80;

pub(super) fn probe(host: &Host) -> Vec<Finding> {
    vec![
        user(host),
        needed(host),
        other(host, "cgroup", libc::CLONE_NEWCGROUP, "what hides the cgroups of the host from containers"),
        other(host, "time", CLONE_NEWTIME, "timeOffsets: a container's own boot time and monotonic clock"),
    ]
}

/// Makes a user namespace and does in it what needs its root: AppArmor lets it be made, and takes that.
fn use_user_namespace(uid: u32, gid: u32) -> Result<()> {
    let kinds = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let mounts =
        || mount::FsContext::open("tmpfs").and_then(|tmpfs| tmpfs.mount(0)).map(|_mount| String::new());
    attempt(kinds, None, |pid| map_root(pid, uid, gid), mounts).map(drop)
}

/// The user and group that nobody's files belong to.
const NOBODY: u32 = 65534;

/// The same as an ordinary user, when we are root.
fn use_as_nobody() -> Result<()> {
    let as_nobody = || {
        process::setgroups(&[])?;
        process::setgid(NOBODY)?;
        process::setuid(NOBODY)?;
        // Else what /proc has of our children would be root's.
        process::prctl(libc::PR_SET_DUMPABLE, 1, 0)?;
        use_user_namespace(NOBODY, NOBODY).map(|()| String::new())
    };
    attempt(0, None, |_| Ok(()), as_nobody).map(drop)
}

fn user(host: &Host) -> Finding {
    let what = "made a user namespace and mounted a tmpfs in it";
    // Who is root of a user namespace may have no other user to become.
    if !host.is_root() || host.facts.in_user_namespace {
        return match use_user_namespace(host.facts.uid, host.facts.gid) {
            Ok(()) => Finding::ok("user", what, format!("{} may make and use them", host.user)),
            Err(error) => {
                let loses = "every container of an ordinary user";
                let found = format!("{} may not use them", host.user);
                Finding::problem("user", what, found, loses, allow(host, &error)).because(why(&error))
            }
        };
    }
    let own = use_user_namespace(host.facts.uid, host.facts.gid);
    let tried = format!("{what}, as root and as user {NOBODY}");
    match (own, use_as_nobody()) {
        (Ok(()), Ok(())) => Finding::ok("user", tried, "root and ordinary users may make and use them"),
        (Err(error), _) => {
            let (found, loses) =
                ("root may not use them", "user namespaces of containers, and rootless ones");
            Finding::problem("user", tried, found, loses, allow(host, &error)).because(why(&error))
        }
        (Ok(()), Err(error)) => {
            let (found, loses) = ("root may use them, ordinary users may not", "rootless containers");
            Finding::warning("user", tried, found, loses, Some(allow(host, &error))).because(why(&error))
        }
    }
}

/// The kernel's reason, with the setting behind it.
fn why(error: &Error) -> String {
    match restriction() {
        Some((name, value)) => format!("{error} ({name} is {value})"),
        None => error.to_string(),
    }
}

/// What keeps users from user namespaces where it has this value.
const RESTRICTIONS: [(&str, u64); 4] = [
    ("user.max_user_namespaces", 0),
    ("user.max_mnt_namespaces", 0),
    ("kernel.unprivileged_userns_clone", 0),
    ("kernel.apparmor_restrict_unprivileged_userns", 1),
];

/// The first of them that is in force.
fn restriction() -> Option<(&'static str, u64)> {
    let value = |name: &str| read_number(&format!("/proc/sys/{}", name.replace('.', "/")));
    RESTRICTIONS.into_iter().find(|(name, wrong)| value(name) == Some(*wrong))
}

/// Lets us make namespaces, which `error` kept us from.
pub(super) fn allow(host: &Host, error: &Error) -> String {
    match restriction() {
        Some((name, 0)) if name.starts_with("user.") => return host.sysctl(&format!("{name}=15000")),
        Some((name, wrong)) => return host.sysctl(&format!("{name}={}", 1 - wrong)),
        None => {}
    }
    match () {
        () if host.container.is_some() => more_for_container(host),
        // The limit may be that of a namespace around ours.
        () if error.errno == libc::ENOSPC => host.sysctl("user.max_user_namespaces=15000"),
        // Some service took CAP_SYS_ADMIN from us; systemd starts what has it.
        () if host.is_root() && host.has_systemd => {
            format!("systemd-run --pty --wait {} doctor", host.program)
        }
        () if host.is_root() => more_for_container(host),
        () => host.sysctl("kernel.unprivileged_userns_clone=1"),
    }
}

/// Whether it is namespaces that `error` is about, whatever was to be done in them.
pub(super) fn is_about_namespaces(error: &Error) -> bool {
    error.layers.last().is_some_and(|call| call.starts_with("clone3(") || call.ends_with("id_map"))
}

/// Starts the container that we are in with enough for containers in it.
pub(super) fn more_for_container(host: &Host) -> String {
    match host.container.as_deref() {
        Some("docker") => "docker run --privileged --cgroupns=private ...".to_owned(),
        _ => "podman run --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
              --security-opt unmask=ALL ..."
            .to_owned(),
    }
}

fn make(host: &Host, kind: i32) -> Result<()> {
    let kinds = host.namespaces(kind);
    attempt(kinds, None, |pid| host.map(kinds, pid), || Ok(String::new())).map(drop)
}

fn needed(host: &Host) -> Finding {
    let names = NEEDED.map(|(name, _)| name).join(", ");
    let tried = format!("made one of each kind: {names}");
    let failed = NEEDED.iter().find_map(|(name, kind)| Some((name, make(host, *kind).err()?)));
    let Some((name, error)) = failed else { return Finding::ok("namespaces", tried, names) };
    let found = format!("no {name} namespace can be made");
    let mend = match error.errno {
        libc::ENOSPC => host.sysctl(&format!("user.max_{}_namespaces=15000", setting(name))),
        _ => allow(host, &error),
    };
    Finding::problem("namespaces", tried, found, "every container", mend).because(error)
}

/// The word for a kind of namespace in the names of sysctls.
fn setting(name: &str) -> &str {
    match name {
        "mount" => "mnt",
        "network" => "net",
        other => other,
    }
}

fn other(host: &Host, name: &'static str, kind: i32, loses: &str) -> Finding {
    let tried = format!("made a {name} namespace");
    match make(host, kind) {
        Ok(()) => Finding::ok(name, tried, "can be made"),
        Err(error) => {
            // A kernel that has no such kind says EINVAL.
            let mend = (error.errno != libc::EINVAL).then(|| allow(host, &error));
            Finding::warning(name, tried, "cannot be made", loses, mend).because(error)
        }
    }
}
