//! What CRIU would refuse to save, told beforehand: a pure function of what was seen.

use super::dump::Dump;
use super::look::{Connection, File, Process, Seen};
use super::rpc::NetworkLock;
use ctr_isolation::mountinfo::Point;
use serde::Serialize;
use std::collections::BTreeSet;

/// Something that keeps a container from being saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// Its kind, in a word.
    pub kind: &'static str,
    /// The process that has it, where one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The name of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The descriptor that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<i32>,
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is needed to tell.
type Found = (&'static str, String, String);

/// Anonymous files that CRIU saves, as their links name them.
const ANONYMOUS: [&str; 8] =
    ["[eventfd]", "[eventpoll]", "inotify", "[inotify]", "[fanotify]", "[signalfd]", "[timerfd]", "bpf-map"];

/// The first CRIU that saves process descriptors.
const PIDFD: (i32, i32) = (4, 1);

/// Protocols of sockets that CRIU saves, as the kernel names them.
const PROTOCOLS: [&str; 12] = [
    "TCP",
    "TCPv6",
    "UDP",
    "UDPv6",
    "UDP-Lite",
    "UDPLITEv6",
    "RAW",
    "RAWv6",
    "UNIX",
    "UNIX-STREAM",
    "NETLINK",
    "PACKET",
];

/// File systems that CRIU mounts anew.
const FILE_SYSTEMS: [&str; 19] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "binfmt_misc",
    "tmpfs",
    "devpts",
    "simfs",
    "btrfs",
    "pstore",
    "mqueue",
    "securityfs",
    "fusectl",
    "debugfs",
    "tracefs",
    "cgroup",
    "cgroup2",
    "aufs",
    "overlay",
    "autofs",
];

/// All that is in the way of saving what was seen as `wanted`.
pub(super) fn judge(seen: &Seen, wanted: &Dump) -> Vec<Blocker> {
    let mut blockers: Vec<Blocker> = Vec::new();
    let bare = |(kind, what, remedy): Found| Blocker {
        kind,
        pid: None,
        command: None,
        descriptor: None,
        what,
        remedy,
    };
    blockers.extend(seen.criu.as_ref().err().map(|error| bare(("criu", error.clone(), String::new()))));
    let by_iptables = matches!(wanted.common.network_lock, None | Some(NetworkLock::Iptables));
    blockers.extend((seen.no_iptables && by_iptables).then(|| {
        let what = "CRIU holds up traffic with iptables-restore, which is not on PATH";
        bare((
            "network-lock",
            what.into(),
            "`apt install iptables`, or give --network-lock nftables or skip".into(),
        ))
    }));
    blockers.extend(mounts(seen).map(bare));
    let sockets: BTreeSet<u64> =
        seen.processes.iter().flat_map(|process| &process.files).map(|file| file.inode).collect();
    for process in &seen.processes {
        let of = |found: Found| Blocker {
            pid: Some(process.pid),
            command: Some(process.command.clone()),
            ..bare(found)
        };
        blockers.extend(whole(process).map(of));
        for file in &process.files {
            let found = self::file(seen, file, &sockets, wanted);
            blockers.extend(found.map(|found| Blocker { descriptor: Some(file.fd), ..of(found) }));
        }
    }
    blockers
}

fn mounts(seen: &Seen) -> impl Iterator<Item = Found> {
    let is_own = |device: &str| {
        let mut known = seen.mounts.iter().filter(|mount| seen.outside.contains(&mount.id) || is_root(mount));
        known.any(|mount| mount.device == device)
    };
    let strange = seen.mounts.iter().filter(move |mount| {
        !is_root(mount)
            && !seen.outside.contains(&mount.id)
            && !FILE_SYSTEMS.contains(&mount.kind.as_str())
            && !is_own(&mount.device)
    });
    strange.map(|mount| {
        let what = format!("a file system of the type {} mounted at {}", mount.kind, mount.target.display());
        ("mount", what, "unmount it, or make it a bind mount of config.json".to_owned())
    })
}

fn is_root(mount: &Point) -> bool {
    mount.target == std::path::Path::new("/")
}

/// What concerns a process as a whole.
fn whole(process: &Process) -> impl Iterator<Item = Found> {
    let traced = (process.tracer != 0).then(|| {
        ("traced", format!("process {} traces it", process.tracer), "let the debugger detach".to_owned())
    });
    let nested = process.nested.iter().map(|kind| {
        let what = format!("it is in a {kind} namespace that was made inside the container");
        ("namespace", what, format!("end it: CRIU saves no nested {kind} namespaces"))
    });
    let mapped = process.mappings.iter().map(|path| {
        let kind = if path.contains("io_uring") { "io_uring" } else { "mapping" };
        (
            kind,
            format!("it has {path} mapped into its memory"),
            "CRIU cannot save it: let the program do without".to_owned(),
        )
    });
    traced.into_iter().chain(nested).chain(mapped)
}

/// What concerns one open file.
fn file(seen: &Seen, file: &File, inside: &BTreeSet<u64>, wanted: &Dump) -> Option<Found> {
    let flag = |name: &str| format!("give {name}, now and on restore");
    let link = file.link.as_str();
    if file.locked && !wanted.common.file_locks {
        return Some(("file-lock", format!("a lock on {link}"), flag("--file-locks")));
    }
    if let Some(name) = link.strip_prefix("anon_inode:") {
        let knows_pidfd = seen.criu.as_ref().is_ok_and(|version| *version >= PIDFD);
        return match name {
            name if ANONYMOUS.contains(&name) => None,
            "[pidfd]" if knows_pidfd => None,
            "[io_uring]" => Some((
                "io_uring",
                "an io_uring".into(),
                "CRIU cannot save one: let the program use epoll instead, as most can be told to".into(),
            )),
            _ => Some(("anonymous", name.to_owned(), "CRIU cannot save it: let the program close it".into())),
        };
    }
    match file.kind {
        libc::S_IFSOCK => socket(seen, file, inside, wanted),
        libc::S_IFCHR if is_terminal(file.device) => {
            let is_foreign = !file.mount.is_some_and(|mount| has(seen, mount));
            (is_foreign && !wanted.common.shell_job).then(|| {
                let what = format!("the terminal {link}, which is the host's");
                (
                    "terminal",
                    what,
                    "give --shell-job, or start the container with a terminal of its own".into(),
                )
            })
        }
        libc::S_IFCHR | libc::S_IFBLK if !is_plain_device(file) => {
            let (major, minor) = file.device;
            let what = format!("the device {link} ({major}:{minor})");
            Some(("device", what, "CRIU cannot save what a driver knows: let the program close it".into()))
        }
        _ if link.starts_with('/') => on_disk(seen, file, wanted),
        _ => None,
    }
}

fn has(seen: &Seen, mount: i32) -> bool {
    seen.mounts.iter().any(|point| point.id == mount)
}

/// A file with a name.
fn on_disk(seen: &Seen, file: &File, wanted: &Dump) -> Option<Found> {
    let link = file.link.as_str();
    let is_memory =
        ["/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage"].iter().any(|name| link.starts_with(name));
    if is_memory {
        return None;
    }
    if !file.mount.is_some_and(|mount| has(seen, mount)) {
        let is_null = file.kind == libc::S_IFCHR && file.device == (1, 3);
        return (!is_null).then(|| {
            let what = format!("{link}, a file of the host that is not mounted in the container");
            let remedy = if file.fd < 3 {
                "start the container with a pipe there, as `| cat` makes one, or write to a file inside"
            } else {
                "close it, or bind mount it and open it by its name inside"
            };
            ("host-file", what, remedy.to_owned())
        });
    }
    let removed = link.strip_suffix(" (deleted)")?;
    match file.links {
        0 if file.size > u64::from(super::GHOST_LIMIT) => {
            let what = format!("{removed}, which is removed and has {} MiB", file.size >> 20);
            Some(("removed-file", what, "close it: what is removed is saved up to 1 GiB".to_owned()))
        }
        0 => None,
        _ if wanted.link_remap => None,
        _ => Some((
            "removed-file",
            format!("{removed}, removed under that name"),
            "give --link-remap".to_owned(),
        )),
    }
}

/// CRIU's list: two are virtual consoles, two pseudo-terminals.
fn is_terminal((major, minor): (u32, u32)) -> bool {
    match major {
        4 => minor < 64,
        5 => minor <= 2,
        128..=143 => true,
        _ => false,
    }
}

/// Devices that keep nothing of who has them open, and two that CRIU knows.
fn is_plain_device(file: &File) -> bool {
    const TUN: u32 = 200;
    const AUTOFS: u32 = 235;
    file.kind == libc::S_IFCHR && matches!(file.device, (1, _) | (10, TUN | AUTOFS))
}

fn socket(seen: &Seen, file: &File, inside: &BTreeSet<u64>, wanted: &Dump) -> Option<Found> {
    let protocol = file.protocol.as_deref().unwrap_or_default();
    if !protocol.is_empty() && !PROTOCOLS.contains(&protocol) {
        let what = format!("a socket of the protocol {protocol}");
        return Some(("socket", what, "CRIU cannot save one: let the program close it".into()));
    }
    match seen.connections.get(&file.inode)? {
        Connection::Tcp { waiting: true } if !wanted.tcp_skip_in_flight => Some((
            "tcp",
            "a listening TCP socket with connections that are not yet accepted".into(),
            "give --tcp-skip-in-flight, which leaves them out, or wait".into(),
        )),
        Connection::Tcp { waiting: false } if !wanted.common.tcp_established => Some((
            "tcp",
            "an established TCP connection".into(),
            "give --tcp-established, now and on restore".into(),
        )),
        Connection::Unix { peer, stream, named } if !inside.contains(peer) => match (stream, named) {
            (false, true) if wanted.common.external_unix_sockets => None,
            (false, true) => Some((
                "unix-socket",
                "a Unix socket connected to another outside of the container".into(),
                "give --ext-unix-sk, now and on restore".into(),
            )),
            _ => Some((
                "unix-socket",
                "a Unix socket connected to another outside of the container".into(),
                "CRIU cannot save half of such a connection: let the program close it".into(),
            )),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: i32 = 7;

    fn seen(file: File) -> Seen {
        let processes =
            vec![Process { pid: 12, command: "x".into(), files: vec![file], ..Process::default() }];
        let mounts = vec![Point { id: INSIDE, target: "/".into(), kind: "ext4".into(), ..Point::default() }];
        Seen {
            criu: Ok((4, 1)),
            no_iptables: false,
            processes,
            mounts,
            outside: BTreeSet::new(),
            connections: std::collections::BTreeMap::new(),
        }
    }

    fn kinds(seen: &Seen, wanted: &Dump) -> Vec<&'static str> {
        judge(seen, wanted).iter().map(|blocker| blocker.kind).collect()
    }

    fn kind(file: File, wanted: &Dump) -> Vec<&'static str> {
        kinds(&seen(file), wanted)
    }

    fn named(link: &str) -> File {
        File {
            fd: 4,
            link: link.into(),
            kind: libc::S_IFREG,
            mount: Some(INSIDE),
            links: 1,
            ..File::default()
        }
    }

    fn device(major: u32, minor: u32, mount: i32) -> File {
        File { kind: libc::S_IFCHR, device: (major, minor), mount: Some(mount), ..named("/dev/x") }
    }

    #[test]
    fn files_that_criu_cannot_save_are_told() {
        let none = Dump::default();
        for (file, expected) in [
            (named("/etc/passwd"), None),
            (named("/memfd:x (deleted)"), None),
            (named("pipe:[12]"), None),
            (named("anon_inode:[eventpoll]"), None),
            (named("anon_inode:[pidfd]"), None),
            (named("anon_inode:[io_uring]"), Some("io_uring")),
            (named("anon_inode:[perf_event]"), Some("anonymous")),
            (File { mount: Some(99), ..named("/home/log") }, Some("host-file")),
            (File { mount: Some(99), fd: 0, ..device(1, 3, 99) }, None),
            (device(1, 5, INSIDE), None),
            (device(10, 200, INSIDE), None),
            (device(10, 232, INSIDE), Some("device")),
            (device(136, 0, INSIDE), None),
            (device(136, 0, 99), Some("terminal")),
            (File { locked: true, ..named("/f") }, Some("file-lock")),
            (named("/f (deleted)"), Some("removed-file")),
            (File { links: 0, ..named("/f (deleted)") }, None),
            (File { links: 0, size: 2 << 30, ..named("/f (deleted)") }, Some("removed-file")),
        ] {
            assert_eq!(kind(file.clone(), &none), Vec::from_iter(expected), "{file:?}");
        }
    }

    #[test]
    fn what_a_flag_allows_is_not_in_the_way() {
        let mut all = Dump { tcp_skip_in_flight: true, link_remap: true, ..Dump::default() };
        all.common.shell_job = true;
        all.common.file_locks = true;
        all.common.tcp_established = true;
        all.common.external_unix_sockets = true;
        for file in [device(136, 0, 99), File { locked: true, ..named("/f") }, named("/f (deleted)")] {
            assert_eq!(kind(file.clone(), &all), Vec::<&str>::new(), "{file:?}");
        }
        let socket =
            File { kind: libc::S_IFSOCK, inode: 5, protocol: Some("TCP".into()), ..named("socket:[5]") };
        for (connection, without, with) in [
            (Connection::Tcp { waiting: false }, Some("tcp"), None),
            (Connection::Tcp { waiting: true }, Some("tcp"), None),
            (Connection::Unix { peer: 5, stream: true, named: false }, None, None),
            (Connection::Unix { peer: 6, stream: false, named: true }, Some("unix-socket"), None),
            (
                Connection::Unix { peer: 6, stream: true, named: true },
                Some("unix-socket"),
                Some("unix-socket"),
            ),
        ] {
            let mut seen = seen(socket.clone());
            seen.connections.insert(5, connection);
            assert_eq!(kinds(&seen, &Dump::default()), Vec::from_iter(without), "{connection:?}");
            assert_eq!(kinds(&seen, &all), Vec::from_iter(with), "{connection:?}");
        }
        let strange = File { protocol: Some("VSOCK".into()), ..socket };
        assert_eq!(kind(strange, &all), ["socket"]);
    }

    #[test]
    fn processes_and_mounts_can_be_in_the_way() {
        let mut seen = seen(named("/f"));
        seen.processes[0].tracer = 9;
        seen.processes[0].nested = vec!["pid"];
        seen.processes[0].mappings = vec!["/dev/dri/card0".into()];
        seen.mounts.push(Point {
            id: 8,
            device: "0:9".into(),
            target: "/x".into(),
            kind: "fuse.x".into(),
            ..Point::default()
        });
        seen.criu = Err("no criu".into());
        seen.no_iptables = true;
        assert_eq!(
            kinds(&seen, &Dump::default()),
            ["criu", "network-lock", "mount", "traced", "namespace", "mapping"]
        );
        seen.outside.insert(8);
        assert!(!kinds(&seen, &Dump::default()).contains(&"mount"));
    }
}
