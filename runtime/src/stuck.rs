//! What the processes of a container wait for, as `/proc` tells.
//!
//! Only what is told without waiting is read: a command line or an environment is in the memory of the process, and whoever
//! reads it can be held up by the same thing as the process itself.

use crate::container::Container;
use crate::error::Result;
use ctr_isolation::cgroup::Cgroup;
use ctr_isolation::mountinfo;
use ctr_isolation::seccomp::{self, Arch};
use ctr_isolation::sys::fs;
use serde::Serialize;
use std::path::Path;

/// A container, and what each of its processes waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stuck {
    /// The cgroup whose freezing holds them all, its own or one above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_by: Option<String>,
    /// Its processes, and of those with several threads each that cannot be interrupted.
    pub tasks: Vec<Task>,
}

/// A process or one of its threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The process, as seen outside.
    pub pid: i32,
    /// The thread, which for the first one is the process.
    pub thread: i32,
    /// The name of the thread (`comm`).
    pub name: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z` or another letter of proc_pid_stat(5).
    pub state: char,
    /// In words, what it waits for.
    pub waits_for: String,
    /// It has been killed, and has not ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
    /// The system call that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The file or socket of that call, and the file system that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The function of the kernel in which it sleeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The functions that led there, for who may see them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
}

/// What a name of a kernel's function has in it, and what who sleeps there waits for; the first that fits is meant.
const SLEEPS: &[(&str, &str)] = &[
    ("request_wait_answer", "the program behind a FUSE file system"),
    ("fuse_", "the program behind a FUSE file system"),
    ("nfs", "the server of a network file system"),
    ("rpc_wait", "the server of a network file system"),
    ("cifs", "the server of a network file system"),
    ("p9_client", "the server of a network file system"),
    ("ceph_", "the server of a network file system"),
    ("freezer", "its cgroup to be thawed"),
    ("wait_for_vfork_done", "a child made by vfork(2) to execute a program or end"),
    ("vfork", "a child made by vfork(2) to execute a program or end"),
    ("zap_pid_ns_processes", "the other processes of its PID namespace to end"),
    ("mem_cgroup_oom", "memory of its cgroup, which is used up"),
    ("mem_cgroup_handle_over_high", "memory: its cgroup is above memory.high"),
    ("throttle_direct_reclaim", "memory of the machine"),
    ("coredump", "its core dump to be written"),
    ("dump_emit", "its core dump to be written"),
    ("jbd2", "a disk"),
    ("xlog", "a disk"),
    ("btrfs", "a disk"),
    ("io_schedule", "a disk"),
    ("folio_wait", "a disk"),
    ("wait_on_page", "a disk"),
    ("blk", "a disk"),
    ("submit_bio", "a disk"),
    ("writeback", "a disk"),
    ("rwsem_", "a lock of the kernel that another has"),
    ("mutex_lock", "a lock of the kernel that another has"),
    ("synchronize_", "the kernel's processors to pass a point (RCU)"),
    ("drm_", "a device"),
    ("usb_", "a device"),
    ("scsi_", "a device"),
    ("nvme_", "a device"),
    ("locks_lock", "a lock on a file"),
    ("flock", "a lock on a file"),
    ("anon_pipe_read", "somebody to write into a pipe"),
    ("pipe_read", "somebody to write into a pipe"),
    ("pipe_write", "somebody to read from a pipe"),
    ("fifo_open", "somebody to open the other end of a FIFO"),
    ("wait_for_partner", "somebody to open the other end of a FIFO"),
    ("unix_stream", "the other end of a socket"),
    ("unix_dgram", "the other end of a socket"),
    ("datagram", "the other end of a socket"),
    ("accept", "a connection"),
    ("sk_wait", "the network"),
    ("tcp_", "the network"),
    ("n_tty_read", "input from a terminal"),
    ("n_tty", "a terminal"),
    ("tty_", "a terminal"),
    ("futex", "another thread (futex)"),
    ("do_wait", "a child to end"),
    ("ptrace_stop", "its tracer"),
    ("do_signal_stop", "SIGCONT"),
    ("sigtimedwait", "a signal"),
    ("sigsuspend", "a signal"),
    ("pause", "a signal"),
    ("nanosleep", "time to pass"),
    ("hrtimer", "time to pass"),
    ("ep_poll", "one of several files or sockets"),
    ("poll", "one of several files or sockets"),
    ("select", "one of several files or sockets"),
    ("io_cqring", "an operation of io_uring"),
    ("io_uring", "an operation of io_uring"),
];

/// Calls whose first argument is a file descriptor.
const ON_A_FILE: &[&str] = &[
    "accept",
    "accept4",
    "connect",
    "epoll_pwait",
    "epoll_wait",
    "fallocate",
    "fcntl",
    "fdatasync",
    "flock",
    "fstat",
    "fsync",
    "ftruncate",
    "getdents64",
    "ioctl",
    "newfstatat",
    "openat",
    "pread64",
    "preadv",
    "pwrite64",
    "pwritev",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "sendfile",
    "sendmsg",
    "sendto",
    "splice",
    "statx",
    "syncfs",
    "write",
    "writev",
];

impl Container {
    /// What its processes wait for, those included that outlive its first one.
    ///
    /// # Errors
    /// When it has neither a cgroup nor a PID namespace of its own.
    pub fn stuck(&self) -> Result<Stuck> {
        let cgroup = self.cgroup().filter(Cgroup::exists);
        let pids = match &cgroup {
            Some(cgroup) => cgroup.processes()?,
            None => self.processes()?,
        };
        let frozen_by = cgroup.and_then(|cgroup| cgroup.frozen_by());
        let frozen_by = frozen_by.map(|found| found.dir().display().to_string());
        Ok(Stuck { tasks: pids.into_iter().flat_map(tasks).collect(), frozen_by })
    }
}

/// In a few words, what keeps `pids` from ending.
pub fn reason(pids: &[i32]) -> String {
    let mut tasks: Vec<Task> = pids.iter().copied().flat_map(tasks).collect();
    tasks.sort_by_key(|task| task.state != 'D');
    let words = tasks.iter().take(3).map(|task| {
        let Task { thread, name, state, waits_for, file, .. } = task;
        let file = file.as_ref().map(|file| format!(", {file}")).unwrap_or_default();
        format!("process {thread} ({name}) is in state {state} and waits for {waits_for}{file}")
    });
    let mut text = words.collect::<Vec<_>>().join("; ");
    if tasks.len() > 3 {
        text += &format!("; and {} more", tasks.len() - 3);
    }
    text
}

/// The first thread of a process, and those of the others that cannot be interrupted or are stopped.
fn tasks(pid: i32) -> Vec<Task> {
    let names = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads: Vec<i32> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    threads.sort_unstable();
    let all = threads.into_iter().filter_map(|thread| task(pid, thread));
    all.filter(|task| task.thread == pid || matches!(task.state, 'D' | 'T' | 't')).collect()
}

fn task(pid: i32, thread: i32) -> Option<Task> {
    let read = |file: &str| fs::read_small(Path::new(&format!("/proc/{pid}/task/{thread}/{file}"))).ok();
    let stat = read("stat")?;
    // The name in brackets may hold anything, brackets and blanks included.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = after.split_whitespace();
    let (state, parent) = (fields.next()?.chars().next()?, fields.next()?.to_owned());
    let kernel =
        read("wchan").filter(|text| !matches!(text.trim(), "" | "0")).map(|text| text.trim().to_owned());
    let stack: Vec<String> = read("stack").map(|text| functions(&text)).unwrap_or_default();
    let (call, descriptor) = read("syscall").map(|text| system_call(&text)).unwrap_or_default();
    let file = descriptor.and_then(|number| file(pid, number));
    let waits_for = waits_for(state, &parent, kernel.as_deref(), &stack, call.as_deref());
    let killed = read("status").is_some_and(|text| is_killed(&text));
    Some(Task { pid, thread, name, state, waits_for, killed, call, file, kernel, stack })
}

/// The functions of `/proc/PID/stack`, the innermost first: `[<0>] name+0x10/0x20`.
fn functions(text: &str) -> Vec<String> {
    let name = |line: &str| Some(line.split_once("] ")?.1.split(['+', ' ']).next()?.to_owned());
    text.lines().filter_map(name).collect()
}

/// The name of the call in `/proc/PID/syscall`, and the descriptor that it is about.
fn system_call(text: &str) -> (Option<String>, Option<u64>) {
    let mut words = text.split_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    let Some(name) = number.and_then(|number| seccomp::name_of(Arch::NATIVE, number)) else {
        return (None, None);
    };
    let first = words.next().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    // AT_FDCWD and such are none.
    let descriptor = first.filter(|number| ON_A_FILE.contains(&name) && *number < 1 << 20);
    (Some(name.to_owned()), descriptor)
}

/// What the descriptor leads to, and where that is.
fn file(pid: i32, number: u64) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
    let link = link.display().to_string();
    if !link.starts_with('/') {
        return Some(link);
    }
    let info = fs::read_small(Path::new(&format!("/proc/{pid}/fdinfo/{number}"))).ok()?;
    let mount = mountinfo::mount_id(&info)?;
    let points = mountinfo::points(&pid.to_string()).unwrap_or_default();
    Some(match points.iter().find(|point| point.id == mount) {
        Some(point) => format!("{link} on {} ({})", point.kind, point.source),
        None => link,
    })
}

/// Whether SIGKILL, the ninth, is pending for the process or the thread.
pub(crate) fn is_killed(status: &str) -> bool {
    let pending = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 1 << 8 != 0)
    };
    pending("SigPnd:") || pending("ShdPnd:")
}

fn waits_for(
    state: char,
    parent: &str,
    kernel: Option<&str>,
    stack: &[String],
    call: Option<&str>,
) -> String {
    match state {
        'R' => return "nothing: it runs".into(),
        'Z' | 'X' => return format!("its parent, process {parent}, to reap it: it has ended"),
        'T' => return "SIGCONT: a signal has stopped it".into(),
        't' => return "its tracer, which has stopped it".into(),
        _ => {}
    }
    let places = || kernel.into_iter().chain(stack.iter().map(String::as_str));
    // Whom the file system asks counts for more than how it sleeps meanwhile.
    let meant = SLEEPS.iter().find(|(part, _)| places().any(|place| place.contains(part)));
    match (meant, kernel, call) {
        (Some((_, words)), ..) => (*words).to_owned(),
        (None, Some(kernel), _) => format!("what {kernel} of the kernel does"),
        (None, None, Some(call)) => format!("what {call}(2) does"),
        (None, None, None) => "something that is hidden from us".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(state: char, kernel: &str, stack: &[&str]) -> String {
        let stack: Vec<String> = stack.iter().map(ToString::to_string).collect();
        waits_for(state, "7", Some(kernel).filter(|name| !name.is_empty()), &stack, Some("read"))
    }

    #[test]
    fn a_sleep_is_told_by_where_it_is() {
        for (state, kernel, stack, part) in [
            ('D', "request_wait_answer", &["request_wait_answer", "fuse_lookup"][..], "FUSE"),
            ('D', "io_schedule", &["io_schedule", "folio_wait_bit", "nfs_read_folio"], "network file system"),
            ('D', "folio_wait_bit_common", &[], "a disk"),
            ('S', "do_freezer_trap", &[], "thawed"),
            ('S', "anon_pipe_read", &[], "pipe"),
            ('Z', "", &[], "process 7, to reap"),
            ('T', "do_signal_stop", &[], "SIGCONT"),
            ('R', "", &[], "it runs"),
            ('S', "quite_new", &[], "quite_new of the kernel"),
            ('S', "", &[], "read(2)"),
        ] {
            assert!(words(state, kernel, stack).contains(part), "{kernel}: {}", words(state, kernel, stack));
        }
    }

    #[test]
    fn proc_s_texts_are_read() {
        assert_eq!(functions("[<0>] a_b+0x1/0x2\n[<0>] c+0x3/0x4 [nfs]\n"), ["a_b", "c"]);
        assert!(is_killed("SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
        assert!(is_killed("ShdPnd:\t0000000000000100\n") && !is_killed("SigPnd:\t0000000000000200\n"));
        assert_eq!(system_call("running\n"), (None, None));
    }

    /// proc_pid_syscall(5), of a child of our own.
    #[test]
    fn a_process_that_waits_for_a_pipe_is_told_of() {
        let mut child =
            std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id() as i32;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let found = loop {
            let found = tasks(pid);
            let waits = found.iter().any(|task| task.waits_for.contains("pipe"));
            if waits || std::time::Instant::now() > until {
                break found;
            }
        };
        drop(child.stdin.take());
        child.wait().unwrap();
        let [task] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((task.pid, task.thread, task.name.as_str()), (pid, pid, "cat"));
        assert_eq!(task.call.as_deref(), Some("read"));
        assert!(task.file.as_ref().unwrap().starts_with("pipe:["), "{task:?}");
        assert!(reason(&[pid]).is_empty(), "it is gone");
    }
}
