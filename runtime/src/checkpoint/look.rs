//! Looking at the processes of a container without touching them.

use super::blockers::{Blocker, judge};
use super::criu::{self, Start};
use super::dump::Dump;
use super::mounts;
use crate::container::Container;
use crate::error::Result;
use crate::plan::ns;
use ctr_isolation::mountinfo::{self, Point};
use ctr_isolation::root::Root;
use ctr_isolation::sockets::{self, Unix};
use ctr_isolation::sys::fs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// The version of CRIU, or why there is none.
    pub(super) criu: std::result::Result<(i32, i32), String>,
    /// It would hold up traffic with iptables, and that is missing.
    pub(super) no_iptables: bool,
    pub(super) processes: Vec<Process>,
    /// The mounts of the container, and which of them are not its own.
    pub(super) mounts: Vec<Point>,
    pub(super) outside: BTreeSet<i32>,
    /// Sockets, by inode.
    pub(super) connections: BTreeMap<u64, Connection>,
}

#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) command: String,
    /// The process that traces it, or 0.
    pub(super) tracer: i32,
    /// Kinds of namespaces of its own, in which the first process is not.
    pub(super) nested: Vec<&'static str>,
    /// What is mapped that is neither memory nor a plain file.
    pub(super) mappings: Vec<String>,
    pub(super) files: Vec<File>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) fd: i32,
    pub(super) link: String,
    /// Its type, as in `st_mode`.
    pub(super) kind: u32,
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) links: u64,
    pub(super) size: u64,
    pub(super) mount: Option<i32>,
    pub(super) locked: bool,
    /// The protocol of a socket.
    pub(super) protocol: Option<String>,
}

/// A socket that somebody may be at the other end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Established, or one that listens and has some waiting.
    Tcp { waiting: bool },
    /// Connected to the socket with the inode `peer`.
    Unix { peer: u64, stream: bool, named: bool },
}

impl Container {
    /// What would keep it from being saved as `wanted`. Nothing is touched.
    ///
    /// # Errors
    /// [`Error::WrongStatus`](crate::Error::WrongStatus) unless it runs or is paused; what of it cannot be looked at.
    pub fn blockers(&self, wanted: &Dump) -> Result<Vec<Blocker>> {
        self.check_status("checkpoint")?;
        Ok(judge(&self.look()?, wanted))
    }

    fn look(&self) -> Result<Seen> {
        let first = self.record.pid;
        let bundle = self.bundle()?;
        let plan = self.plan_again(&bundle)?;
        let mounts = mountinfo::points(&first.to_string())?;
        let root = Root::open(Path::new(&format!("/proc/{first}/root")))?;
        let at = |path: &Path| mountinfo::mount_of(root.resolve(path).ok()?.as_fd());
        let named = mounts::saved(&plan, &mounts, &mountinfo::points("self")?, &at);
        let is_named = |point: &&Point| named.iter().any(|known| Path::new(&known.key) == point.target);
        let outside = mounts.iter().filter(is_named).map(|point| point.id).collect();
        let mut pids = self.processes()?;
        pids.sort_unstable();
        let processes: Vec<Process> = pids.into_iter().filter_map(|pid| process(pid, first)).collect();
        let connections = connections(&processes);
        let joined = plan.launch.join.iter().fold(0, |all, (kind, _)| all | kind);
        let has_network = (plan.launch.new | joined) & ns::NETWORK != 0;
        let no_iptables = has_network && criu::find("iptables-restore").is_none();
        Ok(Seen { criu: version(), no_iptables, processes, mounts, outside, connections })
    }
}

fn version() -> std::result::Result<(i32, i32), String> {
    criu::Criu::start(&Start::default()).map(|criu| criu.version).map_err(|error| error.to_string())
}

/// Kinds of namespaces that CRIU knows one of.
const SINGLE: [&str; 4] = ["pid", "user", "ipc", "time"];

fn process(pid: i32, first: i32) -> Option<Process> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
        status.lines().find_map(of).unwrap_or_default()
    };
    let namespace = |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let nested = SINGLE.into_iter().filter(|kind| {
        namespace(pid, kind).is_some_and(|own| namespace(first, kind).is_some_and(|theirs| own != theirs))
    });
    Some(Process {
        pid,
        command: field("Name"),
        tracer: field("TracerPid").parse().unwrap_or_default(),
        nested: nested.collect(),
        mappings: mappings(&read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()),
        files: files(pid),
    })
}

/// The strange ones of a `maps` file, each once.
fn mappings(maps: &str) -> Vec<String> {
    let is_strange = |path: &&str| {
        path.starts_with("anon_inode:")
            || path.starts_with("/dev/") && !path.starts_with("/dev/shm/") && !path.starts_with("/dev/zero")
    };
    // Five columns, and blanks before the path.
    let path = |line: &'_ str| line.splitn(6, ' ').nth(5).map(|path| path.trim_start().to_owned());
    let all: BTreeSet<String> =
        maps.lines().filter_map(path).filter(|path| is_strange(&path.as_str())).collect();
    all.into_iter().collect()
}

pub(super) fn files(pid: i32) -> Vec<File> {
    let names = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut fds: Vec<i32> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    fds.sort_unstable();
    fds.into_iter().filter_map(|fd| file(pid, fd)).collect()
}

fn file(pid: i32, fd: i32) -> Option<File> {
    let path = format!("/proc/{pid}/fd/{fd}");
    let link = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
    let stat = std::fs::metadata(&path).ok()?;
    let info = read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
    let kind = stat.mode() & libc::S_IFMT;
    let is_socket = kind == libc::S_IFSOCK;
    Some(File {
        fd,
        link,
        kind,
        device: (libc::major(stat.rdev()), libc::minor(stat.rdev())),
        inode: stat.ino(),
        links: stat.nlink(),
        size: stat.size(),
        mount: mountinfo::mount_id(&info),
        locked: info.lines().any(|line| line.starts_with("lock:")),
        protocol: if is_socket { fs::attribute(Path::new(&path), c"system.sockprotoname") } else { None },
    })
}

/// What is at the other end of the sockets of `processes`: of each network namespace among them once.
fn connections(processes: &[Process]) -> BTreeMap<u64, Connection> {
    let mut all = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for process in processes {
        if !process.files.iter().any(|file| file.kind == libc::S_IFSOCK) {
            continue;
        }
        let path = format!("/proc/{}/ns/net", process.pid);
        let Ok(stat) = std::fs::metadata(&path) else { continue };
        if !seen.insert(stat.ino()) {
            continue;
        }
        for table in ["tcp", "tcp6"] {
            let text = read_to_string(format!("/proc/{}/net/{table}", process.pid)).unwrap_or_default();
            all.extend(text.lines().skip(1).filter_map(tcp));
        }
        let unix = fs::open(Path::new(&path), 0).and_then(|namespace| sockets::unix(namespace.as_fd()));
        let connection = |socket: &Unix| {
            let peer = socket.peer.filter(|peer| *peer != 0)?;
            let stream = socket.kind != libc::SOCK_DGRAM;
            Some((socket.inode, Connection::Unix { peer, stream, named: false }))
        };
        let unix = unix.unwrap_or_default();
        let is_named = |inode: u64| unix.iter().any(|socket| socket.inode == inode && socket.named);
        for (inode, found) in unix.iter().filter_map(connection) {
            let Connection::Unix { peer, stream, .. } = found else { continue };
            all.insert(inode, Connection::Unix { peer, stream, named: is_named(peer) });
        }
    }
    all
}

/// A line of `/proc/net/tcp` (proc_pid_net(5)).
fn tcp(line: &str) -> Option<(u64, Connection)> {
    const ESTABLISHED: u32 = 1;
    const LISTEN: u32 = 10;
    const CLOSE: u32 = 7;
    const TIME_WAIT: u32 = 6;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = u32::from_str_radix(fields.get(3)?, 16).ok()?;
    let queue = fields.get(4)?.split_once(':')?.1;
    let inode = fields.get(9)?.parse().ok().filter(|inode| *inode != 0)?;
    match state {
        CLOSE | TIME_WAIT => None,
        LISTEN => {
            (u64::from_str_radix(queue, 16).ok()? > 0).then_some((inode, Connection::Tcp { waiting: true }))
        }
        ESTABLISHED.. => Some((inode, Connection::Tcp { waiting: false })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let line = |state: &str, queue: &str, inode: u32| {
            format!(
                "   0: 0100007F:1F90 00000000:0000 {state} 00000000:{queue} 00:00000000 00000000     0        0 {inode} 1"
            )
        };
        assert_eq!(tcp(&line("01", "00000000", 7)), Some((7, Connection::Tcp { waiting: false })));
        assert_eq!(tcp(&line("0A", "00000000", 7)), None);
        assert_eq!(tcp(&line("0A", "00000001", 7)), Some((7, Connection::Tcp { waiting: true })));
        assert_eq!(tcp(&line("06", "00000000", 0)), None);
        let maps = "7f0 r--p 00000000 fe:00 1                          /usr/lib/x y.so\n\
                    7f1 rw-s 00000000 00:0e 12                         anon_inode:[io_uring]\n\
                    7f2 rw-s 10000000 00:0e 12                         anon_inode:[io_uring]\n\
                    7f3 rw-s 00000000 00:05 9                          /dev/dri/card0\n\
                    7f4 rw-s 00000000 00:05 9                          /dev/shm/x\n\
                    7f5 rw-p 00000000 00:00 0\n";
        assert_eq!(mappings(maps), ["/dev/dri/card0", "anon_inode:[io_uring]"]);
    }
}
