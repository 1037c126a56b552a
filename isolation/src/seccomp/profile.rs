//! The profile of `run --image` (`--security-opt seccomp=default`): what an ordinary program needs, and no more.
//!
//! An allow-list in the manner of the common container profiles. Every call of our table is either in [`ALLOWED`],
//! granted by a condition below, or in [`WITHHELD`], with the capability that gives it back; a test holds the two
//! complete, so that a call of a new kernel is a decision, not an accident.

use caps::Capability::{self, *};
use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::arch::Arch;

/// Calls open to every container, by what they are about.
#[rustfmt::skip]
pub(super) const ALLOWED: &[&[&str]] = &[
    // Files by path.
    &["access", "chdir", "chmod", "chown", "chown32", "creat", "faccessat", "faccessat2", "fchmodat", "fchmodat2",
      "fchownat", "fstatat64", "futimesat", "getcwd", "lchown", "lchown32", "link", "linkat", "lstat", "lstat64",
      "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat", "oldlstat", "oldstat", "open",
      "openat", "openat2", "readlink", "readlinkat", "rename", "renameat", "renameat2", "rmdir", "stat", "stat64",
      "statfs", "statfs64", "statx", "symlink", "symlinkat", "truncate", "truncate64", "unlink", "unlinkat", "utime",
      "utimensat", "utimensat_time64", "utimes"],
    // Open files.
    &["_llseek", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fadvise64", "fadvise64_64",
      "fallocate", "fchdir", "fchmod", "fchown", "fchown32", "fcntl", "fcntl64", "fdatasync", "flock", "fstat",
      "fstat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "getdents", "getdents64", "ioctl",
      "lseek", "oldfstat", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
      "readdir", "readv", "sendfile", "sendfile64", "splice", "sync", "sync_file_range", "syncfs", "tee", "umask",
      "vmsplice", "write", "writev", "arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2"],
    // Their extended attributes and flags.
    &["fgetxattr", "file_getattr", "file_setattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr",
      "getxattrat", "lgetxattr", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lsetxattr",
      "removexattr", "removexattrat", "setxattr", "setxattrat"],
    // Waiting for input and events.
    &["_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
      "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init",
      "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
      "io_pgetevents_time64", "io_setup", "io_submit", "pipe", "pipe2", "poll", "ppoll", "ppoll_time64", "pselect6",
      "pselect6_time64", "select", "signalfd", "signalfd4"],
    // Memory.
    &["brk", "cachestat", "madvise", "map_shadow_stack", "memfd_create", "memfd_secret", "mincore", "mlock",
      "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall",
      "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages"],
    // Processes and threads. ptrace cannot escape a filter since Linux 4.8.
    &["arch_prctl", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_time64",
      "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getpgid", "getpgrp", "getpid",
      "getppid", "getpriority", "getsid", "gettid", "ioprio_get", "ioprio_set", "membarrier", "modify_ldt", "nice",
      "pause", "pidfd_open", "prctl", "process_vm_readv", "process_vm_writev", "ptrace", "restart_syscall", "rseq",
      "rseq_slice_yield", "set_robust_list", "set_thread_area", "set_tid_address", "setpgid", "setpriority", "setsid",
      "uprobe", "uretprobe", "vfork", "wait4", "waitid", "waitpid", "breakpoint", "cacheflush", "get_tls", "set_tls"],
    // Scheduling.
    &["getcpu", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
      "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
      "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield"],
    // Signals.
    &["kill", "pidfd_send_signal", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
      "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sgetmask",
      "sigaction", "sigaltstack", "signal", "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "ssetmask",
      "tgkill", "tkill"],
    // Identity, limits, and giving up privileges.
    &["capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
      "getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getuid",
      "getuid32", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "prlimit64", "seccomp",
      "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32",
      "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32",
      "setrlimit", "setuid", "setuid32", "ugetrlimit"],
    // Time. Setting the clock through adjtimex takes CAP_SYS_TIME in any case.
    &["adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
      "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday",
      "nanosleep", "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
      "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime",
      "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times"],
    // Sockets that exist already or are made by `socket`, which has a rule of its own.
    &["accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv",
      "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt",
      "shutdown", "socketcall", "socketpair"],
    // System V and POSIX IPC: the container has a namespace of its own for it.
    &["ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
      "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
      "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget"],
    // No kernel we run on has these any more. It says so itself (ENOSYS), which is truer than EPERM, and a number
    // once used is never given to another call.
    &["_sysctl", "afs_syscall", "bdflush", "break", "create_module", "ftime", "get_kernel_syms", "getpmsg",
      "gtty", "idle", "lock", "mpx", "nfsservctl", "prof", "profil", "putpmsg", "query_module", "security",
      "stty", "tuxcall", "ulimit", "vserver"],
    // Looking around.
    &["getrandom", "listmount", "olduname", "oldolduname", "statmount", "sysinfo", "uname"],
];

/// Calls a capability opens; without one in the list, nothing does.
#[rustfmt::skip]
pub(super) const WITHHELD: &[(&[Capability], &[&str])] = &[
    // Mounts, namespaces and the rest of administration.
    (&[CAP_SYS_ADMIN],
     &["clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "listns", "lookup_dcookie",
       "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
       "open_tree", "open_tree_attr", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "umount",
       "umount2", "unshare"]),
    (&[CAP_SYS_ADMIN, CAP_BPF], &["bpf"]),
    (&[CAP_SYS_ADMIN, CAP_PERFMON], &["perf_event_open"]),
    (&[CAP_SYS_ADMIN, CAP_SYSLOG], &["syslog"]),
    // Reaches files by handle, past every directory and mount (the "shocker" escape of 2014).
    (&[CAP_DAC_READ_SEARCH], &["open_by_handle_at"]),
    (&[CAP_SYS_BOOT], &["kexec_file_load", "kexec_load", "reboot"]),
    (&[CAP_SYS_CHROOT], &["chroot"]),
    (&[CAP_SYS_MODULE], &["delete_module", "finit_module", "init_module"]),
    (&[CAP_SYS_NICE], &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"]),
    (&[CAP_SYS_PACCT], &["acct"]),
    (&[CAP_SYS_PTRACE], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&[CAP_SYS_RAWIO], &["ioperm", "iopl", "pciconfig_iobase", "pciconfig_read", "pciconfig_write"]),
    (&[CAP_SYS_TIME], &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (&[CAP_SYS_TTY_CONFIG], &["vhangup"]),
    // For nobody: large or unused parts of the kernel, and what no namespace divides (keyrings, swap).
    (&[],
     &["add_key", "io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl", "pivot_root",
       "request_key", "swapoff", "swapon", "sysfs", "uselib", "userfaultfd", "usr26", "usr32", "ustat", "vm86",
       "vm86old"]),
];

/// Calls granted for some arguments only; see [`default_profile`].
#[cfg(test)]
pub(super) const CONDITIONAL: &[&str] = &["clone", "personality", "socket"];

/// clone(2): all namespaces it can make. CLONE_NEWTIME is not among them, its bit being part of the exit signal.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// personality(2): Linux, 32-bit Linux, each also with the version number of Linux 2.6, and "which is it?".
/// Not ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC and the like, which take hardening away.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The default profile for a container whose bounding set is `capabilities`, a mask by number (capabilities(7)).
///
/// What is not allowed returns EPERM; `clone3`, whose flags no filter can see, returns ENOSYS, so that libc falls
/// back to `clone`. Sockets of AF_VSOCK (it reaches the hypervisor's host) and AF_ALG (kernel cryptography:
/// CVE-2026-31431) are refused.
#[must_use]
pub fn default_profile(capabilities: u64) -> LinuxSeccomp {
    let has = |capability: &Capability| capabilities & capability.bitmask() != 0;
    let mut names: Vec<&str> = ALLOWED.concat();
    for (openers, calls) in WITHHELD {
        if openers.iter().any(has) {
            names.extend(*calls);
        }
    }
    let mut rules = vec![allow(&names, &[])];
    if has(&CAP_SYS_ADMIN) {
        rules.push(allow(&["clone"], &[]));
    } else {
        rules.push(allow(&["clone"], &[(Operator::ScmpCmpMaskedEq, NEW_NAMESPACES)]));
        rules.push(refuse("clone3", libc::ENOSYS));
    }
    // Two conditions on one argument would be alternatives, so "neither 38 nor 40" is said in three rules.
    let (alg, vsock) = (libc::AF_ALG as u64, libc::AF_VSOCK as u64);
    for family in [(Operator::ScmpCmpLt, alg), (Operator::ScmpCmpEq, alg + 1), (Operator::ScmpCmpGt, vsock)] {
        rules.push(allow(&["socket"], &[family]));
    }
    rules.extend(PERSONALITIES.map(|value| allow(&["personality"], &[(Operator::ScmpCmpEq, value)])));
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .architectures(Arch::NATIVE.family().iter().map(|arch| oci(*arch)).collect::<Vec<_>>())
        .syscalls(rules)
        .build()
        .expect("every field has a default")
}

fn allow(names: &[&str], first_argument: &[(Operator, u64)]) -> LinuxSyscall {
    let args: Vec<LinuxSeccompArg> =
        first_argument.iter().map(|(operator, value)| condition(*operator, *value)).collect();
    let rule = LinuxSyscallBuilder::default().action(Action::ScmpActAllow).args(args);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    rule.names(names).build().expect("every field has a default")
}

fn refuse(name: &str, errno: i32) -> LinuxSyscall {
    let rule = LinuxSyscallBuilder::default().action(Action::ScmpActErrno).errno_ret(errno.unsigned_abs());
    rule.names(vec![name.to_owned()]).build().expect("every field has a default")
}

fn condition(operator: Operator, value: u64) -> LinuxSeccompArg {
    let condition = LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value);
    condition.build().expect("every field has a default")
}

fn oci(arch: Arch) -> OciArch {
    match arch {
        Arch::X86_64 => OciArch::ScmpArchX86_64,
        Arch::I386 => OciArch::ScmpArchX86,
        Arch::X32 => OciArch::ScmpArchX32,
        Arch::Aarch64 => OciArch::ScmpArchAarch64,
        Arch::Arm => OciArch::ScmpArchArm,
    }
}
