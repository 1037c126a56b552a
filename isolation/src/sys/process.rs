//! Processes, namespaces, credentials and scheduling.

use super::check;
use crate::{Context, Error, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// The child's or the parent's side of a [`clone`].
#[derive(Debug)]
pub enum Cloned {
    /// We are the new process.
    Child,
    /// We made it.
    Parent {
        /// Its pid in our pid namespace.
        pid: i32,
        /// A descriptor for it, readable when it has ended.
        pidfd: OwnedFd,
    },
}

/// Makes a new process as clone3(2) does, with a pidfd, and with `SIGCHLD` at its end unless it becomes a
/// sibling (`CLONE_PARENT`).
///
/// The caller must be single-threaded: the child goes on in a copy of the whole address space, and a lock held
/// by another thread would stay locked in it.
///
/// # Errors
/// The kernel's: `EPERM` without privilege for a namespace, `ENOSPC` when a limit of namespaces is reached,
/// `EBUSY` when the cgroup has children with controllers, `EINVAL` for flags that exclude each other.
pub fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let sibling = flags & libc::CLONE_PARENT as u64 != 0;
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64 | into,
        pidfd: &raw mut pidfd as u64,
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args` and the pidfd it points to outlive the call; without CLONE_VM the child has its own copy of
    // our memory and, since we are single-threaded, no lock in it is held by anyone else.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match check(ret, || format!("clone3({flags:#x})"))? {
        0 => Ok(Cloned::Child),
        // SAFETY: the kernel has just opened this descriptor for us.
        pid => Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends this process at once, without the exit handlers of a program it is only a copy of.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Opens a descriptor for the process `pid` (pidfd_open(2)).
///
/// # Errors
/// `ESRCH` when there is none.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }, || format!("pidfd_open({pid})"))?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` to the process of `pidfd` (pidfd_send_signal(2)); 0 only checks.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM` when it is not ours.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means what kill(2) would fill in.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) };
    check(ret, || format!("pidfd_send_signal({signal})")).map(drop)
}

/// Sends `signal` to the process `pid` (kill(2)).
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM` when it is not ours.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::kill(pid, signal) }, || format!("kill({pid}, {signal})")).map(drop)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// This signal killed it, and it left a core dump.
    Dumped(i32),
}

impl Ended {
    /// The status a shell gives it: the program's own, or 128 + signal.
    pub fn status(self) -> i32 {
        match self {
            Ended::Exited(status) => status,
            Ended::Signaled(signal) | Ended::Dumped(signal) => 128 + signal,
        }
    }
}

/// Waits for our child of `pidfd` and reaps it (waitid(2) with `P_PIDFD`).
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended> {
    loop {
        match wait_id(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, 0) {
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error),
            Ok(Some((_, ended))) => return Ok(ended),
            Ok(None) => {}
        }
    }
}

/// Reaps any one child that has ended, without waiting: its pid and how it ended, or `None`.
///
/// # Errors
/// `ECHILD` when there are no children.
pub fn reap_any() -> Result<Option<(i32, Ended)>> {
    wait_id(libc::P_ALL, 0, libc::WNOHANG)
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> Result<Option<(i32, Ended)>> {
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call. __WALL: a sibling made with CLONE_PARENT may have no exit signal.
    let ret = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::__WALL | flags) };
    check(ret, || format!("waitid({kind}, {id})"))?;
    // SAFETY: for a child's end the kernel fills in the child part of the union; zero means none had ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let ended = match info.si_code {
        libc::CLD_EXITED => Ended::Exited(status),
        libc::CLD_DUMPED => Ended::Dumped(status),
        _ => Ended::Signaled(status),
    };
    Ok((pid != 0).then_some((pid, ended)))
}

/// Waits until one of `fds` is readable or has been hung up; `None` when `timeout` has passed.
/// Returns for each descriptor whether there is something to read or its other end is gone.
///
/// # Errors
/// The kernel's; an interrupted wait is taken up again with the same timeout.
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Option<Vec<bool>>> {
    let mut polls: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let wait = timeout.map_or(-1, |timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
    loop {
        // SAFETY: the array outlives the call and its length is given.
        let ret = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, wait) };
        match check(ret, || "poll()") {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(polls.iter().map(|poll| poll.revents != 0).collect())),
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// Joins the namespaces `kinds` (`CLONE_NEW*`) that `fd` stands for: one namespace, or, for a pidfd, any number
/// of that process's at once (setns(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over them, `EINVAL` when the descriptor is of another kind.
pub fn setns(fd: BorrowedFd<'_>, kinds: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }, || format!("setns({kinds:#x})")).map(drop)
}

/// Leaves the given namespaces (`CLONE_NEW*`) for new ones (unshare(2)).
///
/// # Errors
/// `EPERM` without privilege, `ENOSPC` when a limit of namespaces is reached.
pub fn unshare(kinds: i32) -> Result<()> {
    // SAFETY: takes no pointers, and namespaces do not touch memory.
    check(unsafe { libc::unshare(kinds) }, || format!("unshare({kinds:#x})")).map(drop)
}

/// Our pid.
pub fn getpid() -> i32 {
    std::process::id() as i32
}

/// Our effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: cannot fail and takes no pointers.
    unsafe { libc::geteuid() }
}

/// Our effective user and group id.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: these cannot fail and take no pointers.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Starts a session of our own (setsid(2)).
///
/// # Errors
/// `EPERM` when we lead a process group already.
pub fn setsid() -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setsid() }, || "setsid()").map(drop)
}

/// Sets real, effective and saved group id, raw: for this, the only, thread.
///
/// # Errors
/// `EPERM` without `CAP_SETGID`, `EINVAL` when the id is not mapped.
pub fn setgid(gid: u32) -> Result<()> {
    if gid == u32::MAX {
        // To the kernel: leave it as it is.
        return Err(Error::call("setresgid(gid)".to_owned(), libc::EINVAL));
    }
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }, || format!("setresgid({gid})"))
        .map(drop)
}

/// Sets real, effective and saved user id, raw: for this, the only, thread.
///
/// # Errors
/// `EPERM` without `CAP_SETUID`, `EINVAL` when the id is not mapped.
pub fn setuid(uid: u32) -> Result<()> {
    if uid == u32::MAX {
        // To the kernel: leave it as it is.
        return Err(Error::call("setresuid(uid)".to_owned(), libc::EINVAL));
    }
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, || format!("setresuid({uid})"))
        .map(drop)
}

/// Sets the supplementary groups.
///
/// # Errors
/// `EPERM` without `CAP_SETGID` or where `/proc/self/setgroups` says deny.
pub fn setgroups(gids: &[u32]) -> Result<()> {
    // SAFETY: pointer and length are of one slice.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) };
    check(ret, || format!("setgroups({gids:?})")).map(drop)
}

/// Our supplementary groups.
///
/// # Errors
/// None that a correct call can meet.
pub fn getgroups() -> Result<Vec<u32>> {
    // SAFETY: a size of 0 writes nothing.
    let count = check(unsafe { libc::getgroups(0, std::ptr::null_mut()) }, || "getgroups(0)")?;
    let mut gids = vec![0; count as usize];
    // SAFETY: the buffer has room for `count` ids.
    let count = check(unsafe { libc::getgroups(count as i32, gids.as_mut_ptr()) }, || "getgroups()")?;
    gids.truncate(count as usize);
    Ok(gids)
}

/// The three capability sets of capset(2), as bit masks by capability number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

impl CapabilitySets {
    /// What capset(2) reads: the header of version 3, for the caller itself, and behind it two structs of three u32.
    pub(super) fn words(self) -> [u32; 8] {
        const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
        let CapabilitySets { effective: e, permitted: p, inheritable: i } = self;
        let high = |set: u64| (set >> 32) as u32;
        [CAPABILITY_VERSION_3, 0, e as u32, p as u32, i as u32, high(e), high(p), high(i)]
    }
}

/// Sets our effective, permitted and inheritable capabilities (capset(2)).
///
/// # Errors
/// `EPERM` when one is to be gained that is not permitted.
pub fn capset(sets: CapabilitySets) -> Result<()> {
    let CapabilitySets { effective: e, permitted: p, inheritable: i } = sets;
    let words = sets.words();
    // SAFETY: version 3 reads a header of two u32 and two structs of three u32 each, which `words` is.
    let ret = unsafe { libc::syscall(libc::SYS_capset, words.as_ptr(), words[2..].as_ptr()) };
    check(ret, || format!("capset(effective={e:#x}, permitted={p:#x}, inheritable={i:#x})")).map(drop)
}

/// Our effective, permitted and inheritable capabilities (capget(2)).
///
/// # Errors
/// None that a correct call can meet.
pub fn capget() -> Result<CapabilitySets> {
    let mut words = CapabilitySets::default().words();
    let (header, data) = words.split_at_mut(2);
    // SAFETY: version 3 reads a header of two u32 and writes two structs of three u32 each, which `data` has room for.
    let ret = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    check(ret, || "capget()")?;
    let join = |at: usize| u64::from(data[at]) | u64::from(data[at + 3]) << 32;
    Ok(CapabilitySets { effective: join(0), permitted: join(1), inheritable: join(2) })
}

/// prctl(2) with plain integer arguments.
///
/// # Errors
/// The kernel's, with the option's number.
pub fn prctl(option: i32, arg2: u64, arg3: u64) -> Result<i64> {
    // SAFETY: only options that take integers are passed here; the callers are the constants of this crate.
    let ret = unsafe { libc::syscall(libc::SYS_prctl, option, arg2, arg3, 0, 0) };
    check(ret, || format!("prctl({option}, {arg2}, {arg3})"))
}

/// Sets the file mode creation mask and returns the one before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail and takes no pointers.
    unsafe { libc::umask(mask) }
}

/// Sets a resource limit (prlimit(2)) of process `pid`, 0 being ourselves.
///
/// # Errors
/// `EPERM` when the hard limit is raised without `CAP_SYS_RESOURCE`, `EINVAL` when soft is above hard.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call and the old limit is not asked for.
    let ret = unsafe { libc::prlimit(pid, resource as _, &raw const limit, std::ptr::null_mut()) };
    check(ret, || format!("prlimit({resource}, soft={soft}, hard={hard})")).map(drop)
}

/// Our hard limit of `resource`.
///
/// # Errors
/// `EINVAL` for a resource the kernel does not have.
pub fn hard_limit(resource: u32) -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is given, and `limit` outlives the call.
    let ret = unsafe { libc::prlimit(0, resource as _, std::ptr::null(), &raw mut limit) };
    check(ret, || format!("prlimit({resource})"))?;
    Ok(limit.rlim_max)
}

/// Raises the hard limit of `resource` of the process `pid` to `hard`, if it is lower.
///
/// # Errors
/// `EPERM` without `CAP_SYS_RESOURCE` in the initial user namespace.
pub fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<()> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `old` outlives the call and no new limit is given.
    let ret = unsafe { libc::prlimit(pid, resource as _, std::ptr::null(), &raw mut old) };
    check(ret, || format!("prlimit({resource})"))?;
    if old.rlim_max < hard { prlimit(pid, resource, old.rlim_cur, hard) } else { Ok(()) }
}

/// Sets the execution domain (personality(2)).
///
/// # Errors
/// `EINVAL` when the kernel does not have it.
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::personality(persona as libc::c_ulong) }, || format!("personality({persona:#x})"))
        .map(drop)
}

/// Sets the I/O class and priority of the calling process (ioprio_set(2)).
///
/// # Errors
/// `EPERM` for the real-time class without `CAP_SYS_ADMIN` or `CAP_SYS_NICE`.
pub fn ioprio_set(class: u32, priority: u32) -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    let value = class << 13 | priority;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }, || {
        format!("ioprio_set(class={class}, priority={priority})")
    })
    .map(drop)
}

/// What sched_setattr(2) takes; times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedAttr {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`.
    pub period: u64,
}

/// Sets the scheduling policy of the calling process (sched_setattr(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` where the policy needs it, `EINVAL` for values the policy does not take.
pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let raw = Raw {
        size: size_of::<Raw>() as u32,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
    };
    // SAFETY: `raw` is the kernel's struct sched_attr in its first version (48 bytes) and says so in `size`.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) };
    check(ret, || format!("sched_setattr({attr:?})")).map(drop)
}

/// Pins the calling process to `cpus` (sched_setaffinity(2)).
///
/// # Errors
/// `EINVAL` when none of them can be used here.
pub fn sched_setaffinity(cpus: &[usize]) -> Result<()> {
    let mut mask = vec![0_u64; cpus.iter().max().map_or(1, |max| max / 64 + 1)];
    for cpu in cpus {
        mask[cpu / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: pointer and length in bytes are of one slice.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr()) };
    check(ret, || format!("sched_setaffinity({cpus:?})")).map(drop)
}

/// Sets the memory policy of the calling process (set_mempolicy(2)) over the NUMA `nodes`.
///
/// # Errors
/// `EINVAL` for a mode, flag or node the kernel does not have, `ENOSYS` without NUMA.
pub fn set_mempolicy(mode: u32, nodes: &[usize]) -> Result<()> {
    let mut mask = vec![0_u64; nodes.iter().max().map_or(1, |max| max / 64 + 1)];
    for node in nodes {
        mask[node / 64] |= 1 << (node % 64);
    }
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), mask.len() * 64 + 1) };
    // SAFETY: the kernel reads `bits - 1` bits from the mask, which has as many.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    check(ret, || format!("set_mempolicy({mode:#x}, {nodes:?})")).map(drop)
}

/// Makes every descriptor from `first` on close at the next exec (close_range(2)).
///
/// # Errors
/// The kernel's; `ENOSYS` before Linux 5.11.
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: sets a flag only; no descriptor that Rust owns is closed.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    check(ret, || format!("close_range({first}.., CLOEXEC)")).map(drop)
}

/// Closes every descriptor from `first` on that is not close-on-exec: all of ours are, so that it was handed down to
/// this program.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn close_inherited(first: RawFd) -> Result<()> {
    let names = std::fs::read_dir("/proc/self/fd").doing(|| "read /proc/self/fd")?;
    let numbers: Vec<RawFd> =
        names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number >= first) {
        // SAFETY: takes no pointers; that it is no longer open (the list's own) is an error, not undefined.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == 0 {
            // SAFETY: whatever in this program owns a descriptor has opened it close-on-exec.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// Gives back to the kernel, as who stays for long should, memory that is free, what lies beyond the end of the stack,
/// and the pages of this program that it can read from its file again.
pub fn trim_memory() {
    // SAFETY: touches only what malloc(3) has free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let (here, mappings) = (&raw const text as usize, unchanged_mappings(&text));
    if let Some(start) = start_of_stack(&text) {
        let end = (here & !4095).saturating_sub(BELOW).max(start);
        // SAFETY: it lies farther from the frame of this function than any call from here will reach meanwhile, so
        // that nothing in it is in use.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    for (start, end) in mappings {
        // SAFETY: the mapping is of a file, not writable, and has no page that differs from the file's: whatever is
        // read in it next is the same as before.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        // For a page that is read next the kernel maps 64 KiB around it too, but not beyond the mapping: so that is
        // cut, by a flag that every other part gets.
        for part in (start..end).step_by(2 * PART) {
            // SAFETY: changes what a core dump would hold.
            unsafe { libc::madvise(part as *mut libc::c_void, PART.min(end - part), libc::MADV_DONTDUMP) };
        }
    }
}

/// The parts that a program's text is cut into, to be read in one by one.
const PART: usize = 16384;

/// How much of the stack below a frame is left alone.
const BELOW: usize = 8192;

/// Where the mapping of the stack starts, in the text of `/proc/self/smaps`.
fn start_of_stack(text: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.ends_with("[stack]"))?;
    usize::from_str_radix(line.split_once('-')?.0, 16).ok()
}

/// The mappings of files, among those of the text of `/proc/self/smaps`, that are not writable and wholly the file's.
fn unchanged_mappings(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [range, rights, _, _, _, path, ..] if range.contains('-') => {
                let wanted = path.starts_with('/') && !rights.contains('w') && rights.ends_with('p');
                let number = |text| usize::from_str_radix(text, 16).ok();
                let ends = range.split_once('-').and_then(|(start, end)| number(start).zip(number(end)));
                current = ends.filter(|_| wanted);
            }
            [range, _, _, _, _] if range.contains('-') => current = None,
            ["Anonymous:", "0", "kB"] => found.extend(current.take()),
            _ => {}
        }
    }
    found
}

/// Makes `fd` the descriptor number `target`, open across exec (dup2(2)).
///
/// # Errors
/// The kernel's.
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: changes the flag of a descriptor that is borrowed, hence open.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) }, || format!("fcntl({target})"))
            .map(drop);
    }
    // SAFETY: whoever owns `target` expects it to be replaced: only 0, 1, 2 and passed-on numbers are.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }, || format!("dup2(.., {target})")).map(drop)
}

/// Keeps descriptor number `fd`, which was handed to this program, open across exec.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn keep_across_exec(fd: RawFd) -> Result<()> {
    // SAFETY: takes no pointers; a descriptor that is not open is an error, not undefined.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, || format!("fcntl({fd}, F_SETFD)")).map(drop)
}

/// Our standard input, output and error, which this program never closes.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: descriptors that nobody closes; were one not open, calls on it would say so.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Takes over descriptor number `fd`, which was handed to this program and which nothing in it owns.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }, || format!("fcntl({fd}, F_GETFD)"))?;
    // SAFETY: it is open, and the caller vouches that it was inherited and has no other owner here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// NUL-terminated strings and the array of pointers to them that execve(2) takes.
#[derive(Debug)]
pub struct CStrings {
    strings: Vec<CString>,
}

impl CStrings {
    /// Takes the strings.
    pub fn new(strings: Vec<CString>) -> Self {
        CStrings { strings }
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        self.strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    }
}

/// Replaces this program by the one at `path`. Returns only on failure.
pub fn execve(path: &CStr, args: &CStrings, env: &CStrings) -> Error {
    let (argv, envp) = (args.pointers(), env.pointers());
    // SAFETY: both arrays end with null and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Error::last(format!("execve({path:?})"))
}

/// Replaces this program by the one `fd` has open. Returns only on failure.
pub fn fexecve(fd: BorrowedFd<'_>, args: &CStrings, env: &CStrings) -> Error {
    let (argv, envp) = (args.pointers(), env.pointers());
    // SAFETY: as for execve; an empty path with AT_EMPTY_PATH means the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last("execveat()")
}

/// Sets the host name of our UTS namespace (sethostname(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over it, `EINVAL` when longer than 64 bytes.
pub fn sethostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length are of one string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }, || format!("sethostname({name:?})"))
        .map(drop)
}

/// Sets the NIS domain name of our UTS namespace (setdomainname(2)).
///
/// # Errors
/// As [`sethostname`].
pub fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length are of one string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }, || {
        format!("setdomainname({name:?})")
    })
    .map(drop)
}

/// Joins a new session keyring called `name` (keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`), which others of the same user may
/// search, as with runc: who is in the container by another way shall find its keys.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` when the user has too many keys.
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    const KEYCTL_SETPERM: i32 = 5;
    // keyrings(7): what a new one grants (all to who possesses it; to its user view, read and link), and search.
    const PERMISSIONS: u32 = 0x3f1b_0000;
    // SAFETY: the name outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let keyring = check(ret, || format!("keyctl(JOIN_SESSION_KEYRING, {name:?})"))?;
    // SAFETY: takes numbers alone.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, keyring, PERMISSIONS) };
    check(ret, || format!("keyctl(SETPERM, {name:?})")).map(drop)
}

/// Brings the loopback interface of our network namespace up.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over it.
pub fn loopback_up() -> Result<()> {
    let socket = super::socket::inet_datagram()?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads the ifreq, which outlives the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(ret, || "ioctl(SIOCSIFFLAGS, lo, up)").map(drop)
}

/// Blocks `signals` for this process and opens a descriptor that tells of them (signalfd(2)).
///
/// # Errors
/// The kernel's.
pub fn signalfd(signals: &[i32]) -> Result<OwnedFd> {
    let set = sigset(signals);
    // SAFETY: `set` outlives the call, the old mask is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    check(ret, || "sigprocmask()")?;
    // SAFETY: `set` outlives the call.
    let fd = check(
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) },
        || "signalfd()",
    )?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The number of the next signal waiting in `signalfd`, if there is one.
pub fn next_signal(signalfd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: all-zero is a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has `size` bytes.
    let read = unsafe { libc::read(signalfd.as_raw_fd(), (&raw mut info).cast(), size) };
    (read == size as isize).then_some(info.ssi_signo as i32)
}

/// Gives a program that is about to be executed the signals it expects: none blocked, and SIGPIPE, which Rust's
/// runtime ignores in us, at its default. execve(2) resets handlers by itself.
pub fn reset_signals() {
    // SAFETY: SIG_DFL installs no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    unblock_signals();
}

/// Blocks no signal.
pub fn unblock_signals() {
    let none = sigset(&[]);
    // SAFETY: `none` outlives the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

fn sigset(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all-zero is a valid sigset_t, and sigemptyset initialises it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid; a signal that does not exist only makes sigaddset fail.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_the_file_still_has_is_given_back() {
        let text = "00400000-00401000 r--p 00000000 fe:00 1    /bin/x y\nRss: 4 kB\nAnonymous: 0 kB\n\
                    00401000-00402000 r-xp 00001000 fe:00 1    /bin/x y\nAnonymous: 0 kB\n\
                    00402000-00403000 r--p 00002000 fe:00 1    /bin/x y\nAnonymous: 4 kB\n\
                    00403000-00404000 rw-p 00003000 fe:00 1    /bin/x y\nAnonymous: 0 kB\n\
                    00404000-00405000 r--s 00003000 fe:00 1    /file\nAnonymous: 0 kB\n\
                    00500000-00501000 r--p 00000000 00:00 0\nAnonymous: 0 kB\n\
                    7ff00000-7ff01000 r-xp 00000000 00:00 0    [vdso]\nAnonymous: 0 kB\n";
        assert_eq!(super::unchanged_mappings(text), [(0x40_0000, 0x40_1000), (0x40_1000, 0x40_2000)]);
    }

    #[test]
    fn the_stack_is_found() {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(super::start_of_stack(&text).is_some_and(|start| start % 4096 == 0));
    }
}
