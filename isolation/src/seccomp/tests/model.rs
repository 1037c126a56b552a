//! The compiled program against a naive reading of the same profile.

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::names::multiplexed;
use super::*;

// ---- A naive reading of a profile -------------------------------------------------------------------------------

fn action_value(action: Action, errno_ret: Option<u32>) -> u32 {
    action.as_u32(errno_ret)
}

fn holds(arg: &LinuxSeccompArg, wide: bool, args: [u64; 6]) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let (actual, value) = (cut(args[arg.index()]), cut(arg.value()));
    match arg.op() {
        Operator::ScmpCmpNe => actual != value,
        Operator::ScmpCmpLt => actual < value,
        Operator::ScmpCmpLe => actual <= value,
        Operator::ScmpCmpEq => actual == value,
        Operator::ScmpCmpGe => actual >= value,
        Operator::ScmpCmpGt => actual > value,
        Operator::ScmpCmpMaskedEq => actual & value == cut(arg.value_two().unwrap_or(0)) & value,
    }
}

/// The alternatives of a rule: with two conditions on one argument, each condition is a rule.
fn alternatives(syscall: &LinuxSyscall) -> Vec<Vec<LinuxSeccompArg>> {
    let args = syscall.args().clone().unwrap_or_default();
    let twice = args.iter().any(|a| args.iter().filter(|b| b.index() == a.index()).count() > 1);
    if twice { args.into_iter().map(|arg| vec![arg]).collect() } else { vec![args] }
}

/// (conditions, action) of all rules for a number, in the order of the profile.
fn rules_for(profile: &LinuxSeccomp, arch: Arch, number: u32) -> Vec<(Vec<LinuxSeccompArg>, u32)> {
    let default = action_value(profile.default_action(), profile.default_errno_ret());
    let mut found = Vec::new();
    for syscall in profile.syscalls().iter().flatten() {
        let action = action_value(syscall.action(), syscall.errno_ret());
        if action == default {
            continue;
        }
        for name in syscall.names() {
            for conditions in alternatives(syscall) {
                if Syscall::named(name).and_then(|call| call.number(arch)) == Some(number) {
                    found.push((conditions.clone(), action));
                }
                if let (Arch::I386, Some((through, selector))) = (arch, multiplexed(name))
                    && Syscall::named(through).and_then(|call| call.number(arch)) == Some(number)
                {
                    let mut behind: Vec<_> = conditions.into_iter().filter(|arg| arg.index() != 0).collect();
                    behind.push(arg(0, Operator::ScmpCmpEq, selector));
                    found.push((behind, action));
                }
            }
        }
    }
    found
}

fn newest(profile: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    let syscalls = profile.syscalls().iter().flatten();
    let names = syscalls.flat_map(|syscall| syscall.names().iter().map(String::as_str));
    names
        .filter_map(|name| Syscall::named(name)?.number(arch))
        .filter(|number| *number < 0x0f_0000 || *number >= X32_BIT)
        .max()
}

fn expected(profile: &LinuxSeccomp, native: Arch, audit: Arch, number: u32, args: [u64; 6]) -> u32 {
    let default = action_value(profile.default_action(), profile.default_errno_ret());
    let x86 = matches!(audit, Arch::X86_64 | Arch::X32);
    let arch = if x86 { if number & 0xc000_0000 == 0 { Arch::X86_64 } else { Arch::X32 } } else { audit };
    let listed = profile.architectures().iter().flatten().filter_map(|arch| Arch::from_oci(*arch, native));
    if arch != native && !listed.into_iter().any(|listed| listed == arch && native.family().contains(&arch)) {
        return if arch == Arch::X32 && native == Arch::X86_64 && number == u32::MAX {
            default
        } else {
            KILL_PROCESS
        };
    }
    // x32 calls below 512 are x86_64's; those x86_64 alone has do not exist for the kernel, whatever we say.
    if arch == Arch::X32 && number - X32_BIT < 512 {
        return expected(profile, native, Arch::X86_64, number - X32_BIT, args);
    }
    let rules = rules_for(profile, arch, number);
    let always = |conditions: &[LinuxSeccompArg]| {
        let nothing = |arg: &LinuxSeccompArg| {
            arg.op() == Operator::ScmpCmpMaskedEq
                && (if arch.wide() { arg.value() } else { arg.value() as u32 as u64 }) == 0
        };
        conditions.iter().all(nothing)
    };
    if let Some((_, action)) = rules.iter().find(|(conditions, _)| always(conditions)) {
        return *action;
    }
    if let Some((_, action)) =
        rules.iter().find(|(conditions, _)| conditions.iter().all(|arg| holds(arg, arch.wide(), args)))
    {
        return *action;
    }
    let lenient =
        matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    match newest(profile, arch) {
        Some(newest) if !lenient && rules.is_empty() && number > newest => ENOSYS,
        _ => default,
    }
}

// ---- Random profiles --------------------------------------------------------------------------------------------

fn arg(index: usize, op: Operator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default().index(index).op(op).value(value).build().unwrap()
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => select(vec![0, 1, 2, 40, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX, u64::MAX - 1, 1 << 63, 0x7e02_0000]),
        1 => any::<u64>(),
        1 => 0..64_u64,
    ]
}

fn condition() -> impl Strategy<Value = LinuxSeccompArg> {
    let operator = select(vec![
        Operator::ScmpCmpNe,
        Operator::ScmpCmpLt,
        Operator::ScmpCmpLe,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpGe,
        Operator::ScmpCmpGt,
        Operator::ScmpCmpMaskedEq,
    ]);
    (0..6_usize, operator, value(), proptest::option::of(value())).prop_map(|(index, op, value, two)| {
        let built = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
        match two {
            Some(two) => built.value_two(two),
            None => built,
        }
        .build()
        .unwrap()
    })
}

fn an_action(notify: bool) -> impl Strategy<Value = (Action, Option<u32>)> {
    let plain = vec![
        Action::ScmpActKill,
        Action::ScmpActKillThread,
        Action::ScmpActKillProcess,
        Action::ScmpActTrap,
        Action::ScmpActLog,
        Action::ScmpActAllow,
        if notify { Action::ScmpActNotify } else { Action::ScmpActAllow },
    ];
    prop_oneof![
        2 => select(plain).prop_map(|action| (action, None)),
        2 => (select(vec![Action::ScmpActErrno, Action::ScmpActTrace]), proptest::option::of(0..100_u32)),
        1 => Just((Action::ScmpActErrno, Some(38))),
    ]
}

/// Few names, so that rules meet on the same call; or many, so that the tree is deep.
fn names() -> impl Strategy<Value = Vec<String>> {
    let few = select(vec![
        "clone",
        "personality",
        "socket",
        "semop",
        "ipc",
        "read",
        "execve",
        "cacheflush",
        "no_such",
        "uretprobe",
    ]);
    prop_oneof![
        3 => proptest::collection::vec(few.prop_map(str::to_owned), 1..4),
        1 => proptest::collection::vec(any::<Index>().prop_map(|i| i.get(TABLE).0.to_owned()), 1..120),
    ]
}

fn syscall() -> impl Strategy<Value = LinuxSyscall> {
    (names(), an_action(true), proptest::collection::vec(condition(), 0..4)).prop_map(
        |(mut names, (action, errno), args)| {
            if action == Action::ScmpActNotify {
                names.retain(|name| name != "write");
            }
            let built = LinuxSyscallBuilder::default().names(names).action(action).args(args);
            match errno {
                Some(errno) => built.errno_ret(errno),
                None => built,
            }
            .build()
            .unwrap()
        },
    )
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let arches = select(vec![
        OciArch::ScmpArchX86_64,
        OciArch::ScmpArchX86,
        OciArch::ScmpArchX32,
        OciArch::ScmpArchAarch64,
        OciArch::ScmpArchArm,
        OciArch::ScmpArchNative,
        OciArch::ScmpArchS390x,
    ]);
    let rules = prop_oneof![6 => proptest::collection::vec(syscall(), 0..6), 1 => proptest::collection::vec(syscall(), 6..60)];
    (an_action(false), proptest::collection::vec(arches, 0..4), rules).prop_map(
        |((action, errno), arches, syscalls)| {
            let built = LinuxSeccompBuilder::default()
                .default_action(action)
                .architectures(arches)
                .syscalls(syscalls);
            let built = built.listener_path("/run/agent");
            match errno {
                Some(errno) => built.default_errno_ret(errno),
                None => built,
            }
            .build()
            .unwrap()
        },
    )
}

/// Numbers the profile names and their neighbours, and the ends of the number space.
fn questions(profile: &LinuxSeccomp, seed: &[Index]) -> Vec<(Arch, u32)> {
    let mut numbers =
        vec![0, 1, 511, 512, 1023, X32_BIT - 1, X32_BIT, X32_BIT + 1, u32::MAX - 1, u32::MAX, 1 << 31];
    for name in profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names) {
        let arches = [Arch::X86_64, Arch::I386, Arch::X32, Arch::Aarch64, Arch::Arm];
        let found = arches.into_iter().filter_map(|arch| Syscall::named(name)?.number(arch));
        numbers.extend(found.flat_map(|number| [number.wrapping_sub(1), number, number + 1]));
    }
    numbers.extend([102, 117, 102 | X32_BIT, 117 | X32_BIT]);
    let audits = [Arch::X86_64, Arch::I386, Arch::Aarch64, Arch::Arm];
    seed.iter().flat_map(|index| audits.map(|audit| (audit, *index.get(&numbers)))).collect()
}

fn arguments(profile: &LinuxSeccomp) -> Vec<u64> {
    let conditions =
        profile.syscalls().iter().flatten().flat_map(|syscall| syscall.args().clone().unwrap_or_default());
    let values = conditions.flat_map(|arg| [arg.value(), arg.value_two().unwrap_or(0)]);
    let near = values.flat_map(|value| {
        [
            value,
            value.wrapping_add(1),
            value.wrapping_sub(1),
            value ^ (1 << 32),
            value & 0xffff_ffff,
            value | 1 << 63,
        ]
    });
    near.chain([0, 1, 12, 21, u64::MAX]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The program says what a naive reading of the profile says, for every architecture, number and argument.
    #[test]
    fn program_agrees_with_profile(
        profile in profile(),
        numbers in proptest::collection::vec(any::<Index>(), 40),
        picks in proptest::collection::vec(any::<[Index; 6]>(), 8),
        native in select(vec![Arch::X86_64, Arch::Aarch64]),
    ) {
        let Ok(filter) = compile_for(&profile, native) else {
            // Only its length may be against it.
            prop_assert!(profile.syscalls().iter().flatten().count() > 5);
            return Ok(());
        };
        let values = arguments(&profile);
        for (audit, number) in questions(&profile, &numbers) {
            for pick in &picks {
                let args = pick.map(|index| *index.get(&values));
                prop_assert_eq!(
                    simulate(&filter.program, audit, number, args),
                    expected(&profile, native, audit, number, args),
                    "{:?} {} {:?}", audit, number, args
                );
            }
        }
        prop_assert!(filter.program.iter().enumerate().all(|(at, i)| lands(&filter.program, at, i)));
    }
}

/// Whether the kernel's checker would accept the instruction's jumps (net/core/filter.c, bpf_check_classic).
fn lands(program: &[Instruction], at: usize, instruction: &Instruction) -> bool {
    let left = program.len() - at - 1;
    match instruction.code {
        assemble::JUMP => (instruction.k as usize) < left,
        assemble::JUMP_EQUAL | assemble::JUMP_AT_LEAST | assemble::JUMP_GREATER | assemble::JUMP_SET => {
            usize::from(instruction.jt) < left && usize::from(instruction.jf) < left
        }
        assemble::RETURN => true,
        _ => left > 0,
    }
}
