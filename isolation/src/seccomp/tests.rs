//! The promises one by one; the whole against a naive reading of random profiles is in `model`.

mod model;

use oci_spec::runtime::LinuxSeccomp;

use super::table::TABLE;
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL_THREAD: u32 = libc::SECCOMP_RET_KILL_THREAD;
const KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = errno(libc::EPERM);
const ENOSYS: u32 = errno(libc::ENOSYS);

const fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

fn parse(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

/// Asks the compiled profile on x86_64: (architecture, name, arguments) and the answer.
fn check(profile: &str, answers: &[(Arch, &str, [u64; 6], u32)]) {
    let filter = compile_for(&parse(profile), Arch::X86_64).unwrap();
    for (arch, name, args, answer) in answers {
        let number = Syscall::named(name).and_then(|call| call.number(*arch)).unwrap();
        let got = simulate(&filter.program, *arch, number, *args);
        assert_eq!(got, *answer, "{arch:?} {name} {args:x?}: {got:#x}, not {answer:#x}");
    }
}

/// The problems of a profile, one a line.
fn problems(profile: &str) -> String {
    let found = compile_for(&parse(profile), Arch::X86_64).unwrap_err();
    found.iter().map(|problem| format!("{problem}\n")).collect()
}

const NONE: [u64; 6] = [0; 6];
const X64: Arch = Arch::X86_64;

/// runtime-spec config-linux.md, seccomp.syscalls.action: every action reaches the kernel as its own value.
#[test]
fn each_action_has_its_value() {
    for (action, value) in [
        ("KILL", 0),
        ("KILL_THREAD", 0),
        ("KILL_PROCESS", 0x8000_0000),
        ("TRAP", 0x0003_0000),
        ("ERRNO", 0x0005_0001),
        ("TRACE", 0x7ff0_0001),
        ("LOG", 0x7ffc_0000),
        ("NOTIFY", 0x7fc0_0000),
    ] {
        let profile = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s","syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_{action}"}}]}}"#
        );
        check(&profile, &[(X64, "mkdir", NONE, value), (X64, "rmdir", NONE, ALLOW)]);
    }
}

/// runtime-spec: "if not specified then its default value is EPERM", for the default action and for each rule.
#[test]
fn errno_is_eperm_unless_given() {
    check(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["read","writev"],"action":"SCMP_ACT_ALLOW"}]}"#,
        &[(X64, "mkdir", NONE, errno(13)), (X64, "read", NONE, ALLOW), (X64, "open", NONE, EPERM)],
    );
    check(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":2,"syscalls":[{"names":["file_setattr"],"action":"SCMP_ACT_ALLOW"}]}"#,
        &[(X64, "open", NONE, errno(2))],
    );
}

/// runtime-spec: "when the action doesn't support an errno, the runtime MUST print and error and fail".
#[test]
fn errno_where_none_is_returned_is_refused() {
    let found = problems(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1,"syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_KILL","errnoRet":1},
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":4096}]}"#,
    );
    assert_eq!(
        found,
        "/defaultErrnoRet: SCMP_ACT_ALLOW does not return an errno\n\
         /syscalls/0/errnoRet: SCMP_ACT_KILL does not return an errno\n\
         /syscalls/1/errnoRet: 4096 is too high: SCMP_ACT_ERRNO takes at most 4095\n"
    );
}

/// All faults at once, each with its place.
#[test]
fn all_problems_are_reported_together() {
    let found = problems(
        r#"{"defaultAction":"SCMP_ACT_NOTIFY","syscalls":[
            {"names":["read","","write"],"action":"SCMP_ACT_NOTIFY"},
            {"names":["open"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(
        found,
        "/defaultAction: SCMP_ACT_NOTIFY cannot be the default action\n\
         /syscalls/0/names/1: empty: not the name of a system call\n\
         /syscalls/0/names/2: SCMP_ACT_NOTIFY cannot be used for write\n\
         /syscalls/1/args/0/index: 6: a system call has arguments 0 to 5\n\
         /listenerPath: missing: a rule says SCMP_ACT_NOTIFY, so there must be a socket to notify\n"
    );
}

/// runc (libcontainer/seccomp: matchCall): conditions on different arguments must all hold.
#[test]
fn conditions_on_different_arguments_are_anded() {
    check(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[
            {"index":0,"value":2,"op":"SCMP_CMP_EQ"},{"index":1,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
        &[
            (X64, "socket", [2, 1, 0, 0, 0, 0], EPERM),
            (X64, "socket", [2, 2, 0, 0, 0, 0], ALLOW),
            (X64, "socket", [1, 1, 0, 0, 0, 0], ALLOW),
        ],
    );
}

/// runc (libcontainer/seccomp: matchCall): two conditions on one argument become a rule each.
#[test]
fn conditions_on_the_same_argument_are_ored() {
    check(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["file_setattr"],"action":"SCMP_ACT_ALLOW"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":8,"op":"SCMP_CMP_EQ"},
            {"index":1,"value":5,"op":"SCMP_CMP_EQ"}]}]}"#,
        &[
            (X64, "personality", [0, 0, 0, 0, 0, 0], ALLOW),
            (X64, "personality", [8, 0, 0, 0, 0, 0], ALLOW),
            (X64, "personality", [1, 5, 0, 0, 0, 0], ALLOW),
            (X64, "personality", [1, 0, 0, 0, 0, 0], EPERM),
        ],
    );
}

/// runtime-spec: SCMP_CMP_MASKED_EQ compares `valueTwo` with what the mask `value` leaves of the argument, 64 bits.
#[test]
fn masked_equality_sees_all_64_bits() {
    check(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ERRNO","args":[
            {"index":0,"value":9223372041149743104,"valueTwo":9223372036854775808,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        &[
            (X64, "clone", [1 << 63, 0, 0, 0, 0, 0], EPERM),
            (X64, "clone", [(1 << 63) | 0xffff, 0, 0, 0, 0, 0], EPERM),
            (X64, "clone", [(1 << 63) | (1 << 32), 0, 0, 0, 0, 0], ALLOW),
            (X64, "clone", [0, 0, 0, 0, 0, 0], ALLOW),
        ],
    );
}

/// libseccomp (db_rule_add): a rule without conditions covers those with, whichever comes first.
#[test]
fn unconditional_rule_covers_conditional_ones() {
    let conditional =
        r#"{"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#;
    let always = r#"{"names":["kill"],"action":"SCMP_ACT_TRAP"}"#;
    for rules in [format!("{conditional},{always}"), format!("{always},{conditional}")] {
        let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}]}}"#);
        check(&profile, &[(X64, "kill", [1, 0, 0, 0, 0, 0], libc::SECCOMP_RET_TRAP)]);
    }
}

/// libseccomp (seccomp_init): the native architecture is always part of the filter, listed or not; calls of one that
/// is not part of it are fatal.
#[test]
fn native_always_filtered_and_unlisted_architectures_killed() {
    let rule = r#""syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]"#;
    for architectures in
        ["", r#""architectures":[],"#, r#""architectures":["SCMP_ARCH_S390X","SCMP_ARCH_X86_64"],"#]
    {
        let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{architectures}{rule}}}"#);
        check(
            &profile,
            &[
                (X64, "mkdir", NONE, EPERM),
                (X64, "rmdir", NONE, ALLOW),
                (Arch::I386, "rmdir", NONE, KILL_PROCESS),
                (Arch::X32, "rmdir", NONE, KILL_PROCESS),
                (Arch::Arm, "rmdir", NONE, KILL_PROCESS),
            ],
        );
    }
    let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],{rule}}}"#);
    check(&profile, &[(X64, "mkdir", NONE, EPERM), (Arch::I386, "mkdir", NONE, EPERM)]);
}

/// An x32 call must not slip through a filter that lists x86_64 alone: same audit architecture, other numbers.
#[test]
fn x32_numbers_do_not_bypass() {
    let denied = r#""syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]"#;
    let profile =
        format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],{denied}}}"#);
    check(&profile, &[(Arch::X32, "mount", NONE, KILL_PROCESS)]);
    let profile =
        format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X32"],{denied}}}"#);
    check(&profile, &[(Arch::X32, "mount", NONE, EPERM), (Arch::X32, "umount2", NONE, ALLOW)]);
}

/// libseccomp (abi_rule_add): i386 reaches sockets and System V IPC through one call each, so rules must follow.
#[test]
fn i386_socketcall_and_ipc_follow_the_rules() {
    check(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[
            {"names":["socket","shmat"],"action":"SCMP_ACT_ERRNO"}]}"#,
        &[
            (Arch::I386, "socket", NONE, EPERM),
            (Arch::I386, "socketcall", [1, 0, 0, 0, 0, 0], EPERM),
            (Arch::I386, "socketcall", [2, 0, 0, 0, 0, 0], ALLOW),
            (Arch::I386, "ipc", [21, 0, 0, 0, 0, 0], EPERM),
            (Arch::I386, "ipc", [22, 0, 0, 0, 0, 0], ALLOW),
        ],
    );
}

/// runc (patchbpf): what is newer than the newest call the profile names returns ENOSYS instead of the default.
#[test]
fn calls_newer_than_the_profile_return_enosys() {
    let allow = r#""syscalls":[{"names":["read","statx","no_such_call"],"action":"SCMP_ACT_ALLOW"}]"#;
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"] {
        let profile = format!(r#"{{"defaultAction":"{default}",{allow}}}"#);
        check(
            &profile,
            &[(X64, "statx", NONE, ALLOW), (X64, "rseq", NONE, ENOSYS), (X64, "clone3", NONE, ENOSYS)],
        );
    }
    let killed = format!(r#"{{"defaultAction":"SCMP_ACT_KILL",{allow}}}"#);
    check(&killed, &[(X64, "write", NONE, KILL_THREAD)]);
    for (default, value) in [("LOG", 0x7ffc_0000), ("TRACE", 0x7ff0_0001)] {
        let profile = format!(r#"{{"defaultAction":"SCMP_ACT_{default}",{allow}}}"#);
        check(&profile, &[(X64, "clone3", NONE, value)]);
    }
}

/// runc: without `flags` SPEC_ALLOW is set; an empty list means none. crun: TSYNC and WAIT_KILLABLE_RECV are known.
#[test]
fn flags_and_listener() {
    let flags = |json: &str| compile(&parse(json)).unwrap().flags;
    assert_eq!(flags(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#), 4);
    assert_eq!(flags(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#), 0);
    let all = r#""flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    assert_eq!(flags(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{all}}}"#)), 0b111);
    let notify = r#""listenerPath":"/s","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]"#;
    let filter = compile(&parse(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{all},{notify}}}"#))).unwrap();
    assert!(filter.notify);
    assert_eq!(filter.flags, 0b11_1111);
}

/// runc: a name unknown here is passed over, so that one profile serves many kernels and machines.
#[test]
fn unknown_names_are_warnings() {
    let filter = compile(&parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_MIPS"],"syscalls":[{"names":["s390_guarded_storage","mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#,
    ));
    assert_eq!(
        filter.unwrap().warnings,
        [
            "seccomp architecture SCMP_ARCH_MIPS cannot occur on this kernel, ignored",
            "unknown seccomp syscall \"s390_guarded_storage\" ignored",
        ]
    );
}

/// seccomp(2): at most 4096 instructions; more is refused here, with the reason, not by the kernel without one.
#[test]
fn a_program_too_long_is_refused() {
    let rule = |value: u32| {
        format!(
            r#"{{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","errnoRet":{},"args":[{{"index":1,"value":{value},"op":"SCMP_CMP_GT"}}]}}"#,
            value % 4000
        )
    };
    let rules: Vec<String> = (0..1000).map(rule).collect();
    let found =
        problems(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(",")));
    assert!(found.starts_with("/syscalls: the filter takes 6"), "{found}");
}

/// A hostile profile is refused within a moment, not compiled for minutes: conditions times names.
#[test]
fn a_profile_without_measure_is_refused() {
    let condition = |value: usize| format!(r#"{{"index":1,"value":{value},"op":"SCMP_CMP_EQ"}}"#);
    let conditions: Vec<String> = (0..20_000).map(condition).collect();
    let names: Vec<String> = TABLE.iter().map(|(name, _)| format!("{name:?}")).collect();
    let rule = format!(
        r#"{{"names":[{}],"action":"SCMP_ACT_KILL","args":[{}]}}"#,
        names.join(","),
        conditions.join(",")
    );
    let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule},{rule},{rule}]}}"#);
    let found = problems(&profile);
    assert_eq!(found, "/syscalls/0: with this rule the profile has more than any filter can hold\n");
}

/// The table is sorted, each name is found, and the numbers are libc's where libc knows the call on this machine.
#[test]
fn table_is_sorted_and_agrees_with_libc() {
    assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    let found = |name: &str, arch| Syscall::named(name).and_then(|call| call.number(arch));
    for (name, numbers) in TABLE {
        assert_eq!(
            found(name, Arch::Aarch64),
            Some(numbers[3]).filter(|n| *n != u16::MAX).map(u32::from),
            "{name}"
        );
    }
    #[cfg(target_arch = "x86_64")]
    for (name, number) in [
        ("uselib", libc::SYS_uselib),
        ("futex_waitv", libc::SYS_futex_waitv),
        ("mseal", libc::SYS_mseal),
        ("fchmodat2", libc::SYS_fchmodat2),
    ] {
        let found = Syscall::named(name).and_then(|call| call.number(Arch::NATIVE)).map(i64::from);
        assert_eq!(found, Some(number), "{name}");
    }
    assert_eq!(name_of(Arch::I386, 102), Some("socketcall"));
    assert_eq!(name_of(Arch::X32, X32_BIT | 520), Some("execve"));
    assert_eq!(name_of(Arch::Arm, 0x0f_0005), Some("set_tls"));
}

// ---- The default profile ----------------------------------------------------------------------------------------

/// Every call of the table is decided in the default profile, exactly once.
#[test]
fn default_profile_decides_every_call() {
    let mut decided: Vec<&str> = profile::ALLOWED.concat();
    decided.extend(profile::WITHHELD.iter().flat_map(|(_, names)| *names));
    decided.extend(profile::CONDITIONAL);
    decided.sort_unstable();
    let twice: Vec<_> = decided.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "decided twice: {twice:?}");
    let open: Vec<_> =
        TABLE.iter().filter(|(name, _)| decided.binary_search(name).is_err()).map(|(name, _)| name).collect();
    assert!(open.is_empty(), "undecided: {open:?}");
    let unknown: Vec<_> = decided.iter().filter(|name| Syscall::named(name).is_none()).collect();
    assert!(unknown.is_empty(), "no such call: {unknown:?}");
}

/// What the common container profiles promise: no namespaces, mounts, modules or keyrings without the capability;
/// clone3 absent; no AF_VSOCK or AF_ALG; only harmless personalities.
#[test]
#[cfg(target_arch = "x86_64")]
fn default_profile_keeps_its_promises() {
    let json = serde_json::to_string(&default_profile(0)).unwrap();
    let one = |value| [value, 0, 0, 0, 0, 0];
    for arch in [Arch::X86_64, Arch::I386, Arch::X32] {
        check(
            &json,
            &[
                (arch, "read", NONE, ALLOW),
                (arch, "execve", NONE, ALLOW),
                (arch, "mount", NONE, EPERM),
                (arch, "unshare", NONE, EPERM),
                (arch, "keyctl", NONE, EPERM),
                (arch, "io_uring_setup", NONE, EPERM),
                (arch, "clone", one(0x0123_8f00 & !0x0002_0000), ALLOW),
                (arch, "clone", one(0x1000_0011), EPERM),
                (arch, "clone3", NONE, ENOSYS),
                (arch, "socket", one(2), ALLOW),
                (arch, "socket", one(38), EPERM),
                (arch, "socket", one(39), ALLOW),
                (arch, "socket", one(40), EPERM),
                (arch, "personality", one(0xffff_ffff), ALLOW),
                (arch, "personality", one(0x0004_0000), EPERM),
            ],
        );
    }
    let admin = serde_json::to_string(&default_profile(1 << 21)).unwrap();
    check(&admin, &[(X64, "mount", NONE, ALLOW), (X64, "clone3", NONE, ALLOW), (X64, "reboot", NONE, EPERM)]);
}

/// performance.md: a compact program is what makes a container with a profile start fast.
#[test]
#[cfg(target_arch = "x86_64")]
fn default_profile_is_compact() {
    let profile = default_profile(0);
    let names: usize = profile.syscalls().iter().flatten().map(|rule| rule.names().len()).sum();
    let program = compile(&profile).unwrap().program;
    println!("{names} names, {} instructions", program.len());
    assert!(program.len() <= 180, "{} instructions", program.len());
}
