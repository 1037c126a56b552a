//! From a plan to a process: clone, ids, and handing over. The parent's side of [`protocol`](crate::protocol).

use crate::facts::Facts;
use crate::init::{self, Handles};
use crate::plan::create::needs_helper;
use crate::plan::{IdMaps, Idmap, Init, Launch, Plan, Prepare, ns};
use crate::protocol::Channel;
use ctr_isolation::attempt::attempt;
use ctr_isolation::mount;
use ctr_isolation::sys::fs::{self, Proc};
use ctr_isolation::sys::mount::{self as call, Change, attr};
use ctr_isolation::sys::process::{self, Cloned, Ended};
use ctr_isolation::sys::socket;
use ctr_isolation::{Context, Error, Result};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// What the child gets from us.
#[derive(Debug, Default)]
pub struct Io {
    /// Where it waits for `start`; without it, it goes on at once.
    pub start: Option<OwnedFd>,
    /// Where the master of its terminal goes; without it, to us.
    pub console: Option<OwnedFd>,
    /// The agent of the system call filter.
    pub listener: Option<OwnedFd>,
}

/// The first process of a container, or one more, waiting to be let go.
#[derive(Debug)]
pub struct Launched {
    /// Its pid, as we see it.
    pub pid: i32,
    /// A descriptor for it.
    pub pidfd: OwnedFd,
    /// The conversation with it.
    pub channel: Channel,
}

/// Makes the process. It waits for [`Channel::go`] before it does anything, and takes `io` with it.
///
/// # Errors
/// The kernel's; `io` is whole then, for another try.
pub fn spawn(plan: &Plan, io: &mut Io, state: &str, cgroup: Option<BorrowedFd<'_>>) -> Result<Launched> {
    let launch = &plan.launch;
    if let Some(cpus) = &launch.affinity {
        process::sched_setaffinity(cpus).doing(|| "set the initial CPU affinity")?;
    }
    let proc = Proc::open()?;
    let mut joins = open_namespaces(launch)?;
    let (ours, theirs) = Channel::pair()?;
    let joins_user = joins.iter().any(|(kinds, _)| kinds & ns::USER != 0);
    let cloned = if joins_user {
        join_then_clone(launch, &mut joins, cgroup)?
    } else {
        join_pid(&mut joins)?;
        process::clone(launch.new as u32 as u64, cgroup)
            .map_err(explain_clone)
            .doing(|| "make the container's first process")?
    };
    match cloned {
        Cloned::Parent { pid, pidfd } => Ok(Launched { pid, pidfd, channel: ours }),
        Cloned::Child => {
            drop(ours);
            let Io { start, console, listener } = std::mem::take(io);
            let handles = Handles { channel: theirs, proc, joins, start, console, listener, let_go: false };
            init::run(&plan.init, handles, state)
        }
    }
}

/// Every kernel that we support has clone3(2): where it seems not to, a container's filter hides it.
pub(crate) fn explain_clone(error: Error) -> Error {
    match error.errno {
        libc::EAGAIN => error.under(
            "no process more is allowed: pids.max of the cgroup or of one above it is reached, or the user's \
             RLIMIT_NPROC",
        ),
        libc::ENOSYS => error.under(
            "the system call filter of the container that we are in forbids it (give that one CAP_SYS_ADMIN, or \
             seccomp=unconfined)",
        ),
        _ => error,
    }
}

/// The namespaces to be joined, opened while we are still outside.
fn open_namespaces(launch: &Launch) -> Result<Vec<(i32, OwnedFd)>> {
    if let Some((pid, kinds)) = launch.join_process {
        return Ok(if kinds == 0 { Vec::new() } else { vec![(kinds, process::pidfd_open(pid)?)] });
    }
    launch
        .join
        .iter()
        .map(|(kind, path)| {
            let file = fs::open(path, 0).doing(|| format!("open the namespace {}", path.display()))?;
            Ok((*kind, file))
        })
        .collect()
}

/// A PID namespace is joined for children only, so it is joined by us.
fn join_pid(joins: &mut Vec<(i32, OwnedFd)>) -> Result<()> {
    for (kinds, namespace) in joins.iter_mut().filter(|(kinds, _)| kinds & ns::PID != 0) {
        process::setns(namespace.as_fd(), ns::PID).doing(|| "join the PID namespace")?;
        *kinds &= !ns::PID;
    }
    joins.retain(|(kinds, _)| *kinds != 0);
    Ok(())
}

/// With a user namespace to join, the new namespaces must be made from inside it, and we want to stay outside. So a
/// process between joins, makes the child as its sibling, tells us and ends.
fn join_then_clone(
    launch: &Launch,
    joins: &mut Vec<(i32, OwnedFd)>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Cloned> {
    let (ours, theirs) = socket::pair()?;
    let Cloned::Parent { pidfd: between, .. } = process::clone(0, None)? else {
        drop(ours);
        return clone_from_inside(launch, joins, cgroup, theirs);
    };
    drop(theirs);
    let answer = socket::receive(ours.as_fd(), 4096);
    process::wait(between.as_fd())?;
    let (bytes, mut fds) = answer?;
    match (<[u8; 4]>::try_from(bytes.as_slice()), fds.pop()) {
        (Ok(pid), Some(pidfd)) => Ok(Cloned::Parent { pid: i32::from_ne_bytes(pid), pidfd }),
        _ => Err(Error::new(String::from_utf8_lossy(&bytes).into_owned()).under("join the user namespace")),
    }
}

fn clone_from_inside(
    launch: &Launch,
    joins: &mut Vec<(i32, OwnedFd)>,
    cgroup: Option<BorrowedFd<'_>>,
    answer: OwnedFd,
) -> Result<Cloned> {
    let mut inside = || -> Result<Cloned> {
        let parent = libc::CLONE_PARENT as u32 as u64;
        if launch.join_process.is_some() {
            for (kinds, process) in joins.iter_mut() {
                // Seen from the container's cgroup namespace, the way from our cgroup into its one does not exist.
                process::setns(process.as_fd(), *kinds & !ns::CGROUP)?;
                *kinds &= ns::CGROUP;
            }
            joins.retain(|(kinds, _)| *kinds != 0);
        } else {
            for (kind, namespace) in joins.iter().filter(|(kind, _)| kind & (ns::USER | ns::PID) != 0) {
                process::setns(namespace.as_fd(), *kind)?;
            }
            joins.retain(|(kind, _)| kind & (ns::USER | ns::PID) == 0);
        }
        process::clone(launch.new as u32 as u64 | parent, cgroup)
    };
    match inside() {
        Ok(Cloned::Child) => Ok(Cloned::Child),
        Ok(Cloned::Parent { pid, pidfd }) => {
            let sent = socket::send(answer.as_fd(), &pid.to_ne_bytes(), &[pidfd.as_fd()]);
            process::exit(i32::from(sent.is_err()))
        }
        Err(error) => {
            let _ = socket::send(answer.as_fd(), error.to_string().as_bytes(), &[]);
            process::exit(1)
        }
    }
}

/// Writes the id maps of the process `pid`, with newuidmap(1) and newgidmap(1) where we may not ourselves.
///
/// # Errors
/// The kernel's; or what the two programs say.
pub fn map_ids(pid: i32, ids: &IdMaps, facts: &Facts) -> Result<()> {
    if needs_helper(ids, facts) {
        return map_with_helpers(pid, ids).doing(|| "map the ids of the user namespace");
    }
    if !facts.is_root() {
        // Else an ordinary user could drop a group that is denied something (user_namespaces(7)).
        write_map(pid, "setgroups", "deny")?;
    }
    write_map(pid, "gid_map", &map_text(&ids.gids))?;
    write_map(pid, "uid_map", &map_text(&ids.uids))
}

/// Does `act` in a process that is root of a user namespace with every id that the caller may use. It ends with us.
///
/// # Errors
/// That of making the namespace, or of `act`.
pub fn as_root_inside(act: impl FnOnce() -> Result<String>) -> Result<String> {
    let facts = Facts::read();
    let maps = own_maps(&facts);
    attempt(
        libc::CLONE_NEWUSER,
        None,
        |pid| map_ids(pid, &maps, &facts),
        || {
            process::setgid(0)?;
            process::setuid(0)?;
            process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)?;
            act()
        },
    )
}

/// The maps of a user namespace with every id that the caller may use: its own as root, and its ranges of
/// /etc/subuid and /etc/subgid above.
pub fn own_maps(facts: &Facts) -> IdMaps {
    let name = std::fs::read_to_string("/etc/passwd").unwrap_or_default().lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == facts.uid.to_string()).then(|| name.to_owned())
    });
    let list = |file: &str, own: u32| {
        let mut maps = vec![mapping(0, own, 1)];
        let mut inside = 1_u32;
        for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
            let mut fields = line.split(':');
            let owner = fields.next().unwrap_or_default();
            let number = |field: Option<&str>| field.and_then(|text| text.trim().parse::<u32>().ok());
            let (Some(first), Some(count)) = (number(fields.next()), number(fields.next())) else { continue };
            if name.as_deref() == Some(owner) || owner == facts.uid.to_string() {
                maps.push(mapping(inside, first, count));
                inside = inside.saturating_add(count);
            }
        }
        maps
    };
    IdMaps { uids: list("/etc/subuid", facts.uid), gids: list("/etc/subgid", facts.gid) }
}

fn mapping(inside: u32, outside: u32, size: u32) -> LinuxIdMapping {
    let builder = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size);
    builder.build().unwrap_or_default()
}

fn map_text(list: &[LinuxIdMapping]) -> String {
    let line = |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
    list.iter().map(line).collect()
}

fn write_map(pid: i32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text).doing(|| format!("write {:?} to {path}", text.trim_end()))
}

fn map_with_helpers(pid: i32, ids: &IdMaps) -> Result<()> {
    let start = |program: &str, list: &[LinuxIdMapping]| {
        let numbers = list.iter().flat_map(|map| [map.container_id(), map.host_id(), map.size()]);
        Command::new(program)
            .arg(pid.to_string())
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .doing(|| format!("start {program} (install it with `apt install uidmap`)"))
    };
    // Side by side: each costs a start of a set-user-ID program.
    let both = [("newuidmap", start("newuidmap", &ids.uids)?), ("newgidmap", start("newgidmap", &ids.gids)?)];
    for (program, child) in both {
        let output = child.wait_with_output().doing(|| format!("wait for {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("{program}: {} ({})", said.trim(), output.status)));
        }
    }
    Ok(())
}

/// Makes room for the limits that the process `pid` will set: from inside a user namespace it cannot raise them.
pub fn raise_limits(pid: i32, init: &Init) {
    let limits = if init.own_user_namespace { init.rlimits.as_slice() } else { &[] };
    for limit in limits {
        // What we may not do either, the process tells when it tries.
        if let Err(error) = process::raise_hard_limit(pid, limit.resource, limit.hard) {
            tracing::debug!("{error}");
        }
    }
}

/// Makes the detached mounts that the child of `pid` attaches.
///
/// # Errors
/// The kernel's.
pub fn prepare_mounts(pid: i32, list: &[Prepare]) -> Result<Vec<OwnedFd>> {
    list.iter()
        .map(|wanted| prepare(pid, wanted).doing(|| format!("prepare {}", wanted.source.display())))
        .collect()
}

fn prepare(pid: i32, wanted: &Prepare) -> Result<OwnedFd> {
    let tree = mount::open_source(&wanted.source, wanted.recursive, wanted.links)?;
    // What is mounted on the host later may come in; nothing goes back.
    let change = Change { propagation: libc::MS_SLAVE, recursive: true, ..Change::default() };
    call::set_attributes(tree.as_fd(), change)?;
    let (namespace, recursive) = match &wanted.idmap {
        None => return Ok(tree),
        Some(Idmap::Container { recursive }) => {
            (fs::open(Path::new(&format!("/proc/{pid}/ns/user")), 0)?, *recursive)
        }
        Some(Idmap::Own { maps, recursive }) => (user_namespace(maps)?, *recursive),
    };
    let change = Change { set: attr::IDMAP, idmap: Some(namespace.as_fd()), recursive, ..Change::default() };
    call::set_attributes(tree.as_fd(), change)
        .doing(|| "shift the owners (the file system may not support it)")?;
    Ok(tree)
}

/// A user namespace with `maps`, held by nothing but its descriptor.
fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    match process::clone(ns::USER as u32 as u64, None)? {
        Cloned::Child => {
            drop(ours);
            let _ = socket::receive(theirs.as_fd(), 1);
            process::exit(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let made = write_map(pid, "gid_map", &map_text(&maps.gids))
                .and_then(|()| write_map(pid, "uid_map", &map_text(&maps.uids)))
                .and_then(|()| fs::open(Path::new(&format!("/proc/{pid}/ns/user")), 0));
            drop(ours);
            let _: Ended = process::wait(pidfd.as_fd())?;
            made
        }
    }
}
