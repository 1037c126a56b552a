//! Plain rules to a BPF program.
//!
//! The numbers of each architecture are cut into ranges of equal verdict; a binary tree of comparisons finds the
//! range. Single numbers that stand out of a range are tested where the tree ends, one instruction each. The kernel
//! walks this tree once for every system call when the filter is loaded (its bitmap of calls that are always
//! allowed, Linux 5.11), so a shallow tree pays at start, not only at run time.

use oci_spec::runtime::LinuxSeccompOperator as Operator;
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::arch::{Arch, X32_BIT};
use super::assemble::{AND, ARCH, ARGS, Assembler, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, NR, RETURN, Target};
use super::rules::{Condition, Profile, Rule, Section};
use crate::sys::seccomp::Instruction;

/// Numbers tested one after the other before the tree divides them again.
const SINGLES: usize = 4;
/// Values of one argument tested in one run; each takes an instruction, and a jump must cross the run.
const VALUES: usize = 200;
/// Calls of an architecture the profile does not list end the process. libseccomp's default ends the thread; for
/// the single-threaded the same, and a process with one thread missing helps nobody.
const FOREIGN: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// From here on all architectures give a call the same number (Linux 5.1).
const UNIFORM: u32 = 424;
/// From here on, the bit aside, x32 has numbers of its own.
const X32_OWN: u32 = 512;

/// What happens to a system call number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// Look at the arguments: an index into [`Compiler::chains`].
    Chain(usize),
}

/// Rules to try in order.
struct Chain<'a> {
    rules: Vec<&'a Rule>,
    wide: bool,
    code: Option<Target>,
}

/// Numbers from `start` up to the next range's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    verdict: Verdict,
}

/// Ranges again, with the single numbers that stand out of them.
struct Segment {
    start: u32,
    verdict: Verdict,
    singles: Vec<(u32, Verdict)>,
}

struct Compiler<'a> {
    profile: &'a Profile,
    chains: Vec<Chain<'a>>,
    /// Code for the numbers from [`UNIFORM`] on, to use again where another architecture decides the same.
    uniform: Vec<(Vec<Range>, Target)>,
    out: Assembler,
}

/// The program for a profile, whatever its length.
pub(super) fn program(profile: &Profile) -> Vec<Instruction> {
    let mut compiler =
        Compiler { profile, chains: Vec::new(), uniform: Vec::new(), out: Assembler::default() };
    // The native architecture is first in the profile; written last, it stands first in the program.
    let filtered = profile.sections.iter().rev().filter(|section| section.arch != Arch::X32);
    let entries: Vec<(u32, Target)> =
        filtered.map(|section| (section.arch.audit(), compiler.section(section))).collect();
    let mut otherwise = Target::Return(FOREIGN);
    for (audit, target) in entries {
        otherwise = Target::Code(compiler.out.branch(JUMP_EQUAL, audit, target, otherwise));
    }
    compiler.out.push(LOAD, ARCH);
    compiler.out.finish()
}

impl<'a> Compiler<'a> {
    /// Code that loads the number and decides, for one audit architecture.
    fn section(&mut self, section: &'a Section) -> Target {
        let ranges = self.ranges(section, 0);
        let mut target = self.numbers(&ranges);
        if section.arch == Arch::X86_64 {
            let x32 = self.x32(target);
            target = Target::Code(self.out.branch(JUMP_AT_LEAST, X32_BIT, x32, target));
        }
        match target {
            Target::Code(place) => {
                self.out.continue_at(place);
                Target::Code(self.out.push(LOAD, NR))
            }
            always @ Target::Return(_) => always,
        }
    }

    /// What becomes of numbers from [`X32_BIT`] on, given the code for those of x86_64: x32 comes under the same
    /// audit architecture. Not listed in the profile, it is foreign.
    ///
    /// Below 512 an x32 call either has x86_64's number and hence its rules, or does not exist and is answered
    /// ENOSYS by the kernel whatever we say; so x86_64's code serves for both.
    fn x32(&mut self, x86_64: Target) -> Target {
        let profile = self.profile;
        let Some(section) = profile.sections.iter().find(|section| section.arch == Arch::X32) else {
            // -1 is what a tracer leaves behind to skip a call; libseccomp does not call that foreign.
            let skipped = Target::Return(profile.default);
            return Target::Code(self.out.branch(JUMP_EQUAL, u32::MAX, skipped, Target::Return(FOREIGN)));
        };
        let own = self.ranges(section, X32_BIT | X32_OWN);
        let own: Vec<Range> =
            own.iter().map(|range| Range { start: range.start & !X32_BIT, ..*range }).collect();
        let own = self.tree(&segments(&own));
        self.out.branch(JUMP_AT_LEAST, X32_OWN, own, x86_64);
        Target::Code(self.out.push(AND, !X32_BIT))
    }

    /// Code that decides about the number in the accumulator.
    fn numbers(&mut self, ranges: &[Range]) -> Target {
        let (low, high) = split(ranges, UNIFORM);
        let high = match self.uniform.iter().find(|(known, _)| *known == high) {
            Some((_, target)) => *target,
            None => {
                let target = self.tree(&segments(&high));
                self.uniform.push((high, target));
                target
            }
        };
        let low = self.tree(&segments(&low));
        if low == high { low } else { Target::Code(self.out.branch(JUMP_AT_LEAST, UNIFORM, high, low)) }
    }

    /// What happens to each number from `start` on by one architecture's rules.
    fn ranges(&mut self, section: &'a Section, start: u32) -> Vec<Range> {
        let mut ranges = Vec::new();
        let default = self.profile.default;
        let end = section.newest.filter(|_| new_calls_are_absent(default)).map(|newest| newest + 1);
        let gap = |ranges: &mut Vec<Range>, from: u32| match end {
            Some(end) if from >= end => push(ranges, from, Verdict::Return(enosys())),
            Some(end) => {
                push(ranges, from, Verdict::Return(default));
                push(ranges, end, Verdict::Return(enosys()));
            }
            None => push(ranges, from, Verdict::Return(default)),
        };
        let first = section.entries.partition_point(|(number, _)| *number < start);
        let mut next = start;
        for group in section.entries[first..].chunk_by(|a, b| a.0 == b.0) {
            let number = group[0].0;
            if next < number {
                gap(&mut ranges, next);
            }
            let verdict = self.verdict(group, section.arch.wide());
            push_over(&mut ranges, number, verdict);
            next = number + 1;
        }
        gap(&mut ranges, next);
        ranges
    }

    /// libseccomp: a rule without conditions covers all others for its call, whichever came first; of two such the
    /// first counts. Among rules with conditions libseccomp's order depends on its tree; ours is the profile's.
    fn verdict(&mut self, group: &[(u32, usize)], wide: bool) -> Verdict {
        let profile = self.profile;
        let rules = group.iter().map(|(_, rule)| &profile.rules[*rule]);
        if let Some(rule) = rules.clone().find(|rule| rule.always(wide)) {
            return Verdict::Return(rule.action);
        }
        let rules: Vec<&Rule> = rules.collect();
        let known = self.chains.iter().position(|chain| chain.wide == wide && chain.rules == rules);
        Verdict::Chain(known.unwrap_or_else(|| {
            self.chains.push(Chain { rules, wide, code: None });
            self.chains.len() - 1
        }))
    }

    fn tree(&mut self, segments: &[Segment]) -> Target {
        if let [only] = segments {
            return self.leaf(only);
        }
        let (low, high) = segments.split_at(middle(segments));
        let then = self.tree(high);
        let otherwise = self.tree(low);
        Target::Code(self.out.branch(JUMP_AT_LEAST, high[0].start, then, otherwise))
    }

    fn leaf(&mut self, segment: &Segment) -> Target {
        let mut otherwise = self.target(segment.verdict);
        for (number, verdict) in segment.singles.iter().rev() {
            let then = self.target(*verdict);
            otherwise = Target::Code(self.out.branch(JUMP_EQUAL, *number, then, otherwise));
        }
        otherwise
    }

    fn target(&mut self, verdict: Verdict) -> Target {
        let chain = match verdict {
            Verdict::Return(value) => return Target::Return(value),
            Verdict::Chain(chain) => chain,
        };
        if let Some(code) = self.chains[chain].code {
            return code;
        }
        let code = self.chain(chain);
        self.chains[chain].code = Some(code);
        code
    }

    /// Code that tries rules in order and returns the default when none holds.
    fn chain(&mut self, chain: usize) -> Target {
        let wide = self.chains[chain].wide;
        let rules = std::mem::take(&mut self.chains[chain].rules);
        let mut place = self.out.push(RETURN, self.profile.default);
        for run in runs(&rules, wide).into_iter().rev() {
            place = match run {
                [rule] => self.rule(rule, wide),
                run => self.values(run, wide),
            };
        }
        self.chains[chain].rules = rules;
        Target::Code(place)
    }

    /// One rule, its conditions encoded by seccompiler. Its code begins with two jumps, one over the other, that
    /// nothing leads to but the start; without them the rule is the same. A condition that fails leads past the
    /// instruction behind the code.
    fn rule(&mut self, rule: &Rule, wide: bool) -> super::assemble::Place {
        let conditions = rule.conditions.iter().map(|condition| encode(*condition, wide)).collect();
        let rule_code = SeccompRule::new(conditions).expect("a rule in a chain has conditions");
        let code: BpfProgram = rule_code.into();
        let mut place = self.out.push(RETURN, rule.action);
        for i in code[2..].iter().rev() {
            place = self.out.push_raw(Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k });
        }
        place
    }

    /// Several rules with one outcome that ask whether the same argument equals this or that value.
    fn values(&mut self, run: &[&Rule], wide: bool) -> super::assemble::Place {
        let argument = run[0].conditions[0];
        let offset = ARGS + 8 * u32::from(argument.index);
        let count = u8::try_from(run.len()).expect("at most VALUES");
        self.out.push(RETURN, run[0].action);
        let jump = |jt, jf, k| Instruction { code: JUMP_EQUAL, jt, jf, k };
        for (after, rule) in (0..count).zip(run.iter().rev()) {
            let missed = u8::from(after == 0);
            self.out.push_raw(jump(after, missed, halves(rule.conditions[0].value).1));
        }
        let low = self.out.push(LOAD, offset);
        if !wide {
            return low;
        }
        self.out.push_raw(jump(0, count + 2, halves(argument.value).0));
        self.out.push(LOAD, offset + 4)
    }
}

/// Rules in a row that [`Compiler::values`] can test together; the others one by one.
fn runs<'r, 'a>(rules: &'r [&'a Rule], wide: bool) -> Vec<&'r [&'a Rule]> {
    let alike = |a: &&Rule, b: &&Rule| match (a.conditions.as_slice(), b.conditions.as_slice()) {
        ([one], [other]) => {
            a.action == b.action
                && one.operator == Operator::ScmpCmpEq
                && other.operator == Operator::ScmpCmpEq
                && one.index == other.index
                && (!wide || halves(one.value).0 == halves(other.value).0)
        }
        _ => false,
    };
    rules.chunk_by(alike).flat_map(|run| run.chunks(VALUES)).collect()
}

/// High and low 32 bits.
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn encode(condition: Condition, wide: bool) -> SeccompCondition {
    let Condition { index, operator, value, value_two } = condition;
    // A mask without high bits need not look at them.
    let low_only = operator == Operator::ScmpCmpMaskedEq && halves(value).0 == 0;
    let length = if wide && !low_only { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    let (operator, value) = match operator {
        Operator::ScmpCmpNe => (SeccompCmpOp::Ne, value),
        Operator::ScmpCmpLt => (SeccompCmpOp::Lt, value),
        Operator::ScmpCmpLe => (SeccompCmpOp::Le, value),
        Operator::ScmpCmpEq => (SeccompCmpOp::Eq, value),
        Operator::ScmpCmpGe => (SeccompCmpOp::Ge, value),
        Operator::ScmpCmpGt => (SeccompCmpOp::Gt, value),
        Operator::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(value), value_two),
    };
    SeccompCondition::new(index, length, operator, value).expect("rules::read() let no index above 5 through")
}

/// runc (patchbpf): calls newer than any the profile names return ENOSYS, so that programs fall back to older
/// ones, unless the default action lets calls through.
fn new_calls_are_absent(default: u32) -> bool {
    let action = default & libc::SECCOMP_RET_ACTION_FULL;
    !matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE)
}

fn enosys() -> u32 {
    libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()
}

/// Adds a range, unless it only continues the last.
fn push(ranges: &mut Vec<Range>, start: u32, verdict: Verdict) {
    if ranges.last().is_none_or(|last| last.verdict != verdict) {
        ranges.push(Range { start, verdict });
    }
}

/// Adds a range at a number the last range may already have begun at or gone beyond.
fn push_over(ranges: &mut Vec<Range>, start: u32, verdict: Verdict) {
    while ranges.last().is_some_and(|last| last.start >= start) {
        ranges.pop();
    }
    push(ranges, start, verdict);
}

/// The ranges below a number and those from it on.
fn split(ranges: &[Range], at: u32) -> (Vec<Range>, Vec<Range>) {
    let first = ranges.partition_point(|range| range.start < at);
    let mut high = ranges[first..].to_vec();
    if let Some(over) = ranges[..first].last()
        && high.first().is_none_or(|range| range.start != at)
    {
        high.insert(0, Range { start: at, verdict: over.verdict });
    }
    (ranges[..first].to_vec(), high)
}

/// Takes single numbers between two ranges of the same verdict out of the way.
fn segments(ranges: &[Range]) -> Vec<Segment> {
    let single = |i: usize| ranges.get(i + 1).is_some_and(|next| next.start == ranges[i].start + 1);
    let mut segments: Vec<Segment> = Vec::new();
    let mut i = 0;
    while i < ranges.len() {
        let Range { start, verdict } = ranges[i];
        let mut segment = Segment { start, verdict, singles: Vec::new() };
        i += 1;
        loop {
            let mut after = i;
            while after < ranges.len() && ranges[after].verdict != verdict && single(after) {
                after += 1;
            }
            let again = ranges.get(after).is_some_and(|range| range.verdict == verdict);
            if !again || segment.singles.len() + after - i > SINGLES {
                break;
            }
            segment.singles.extend(ranges[i..after].iter().map(|range| (range.start, range.verdict)));
            i = after + 1;
        }
        segments.push(segment);
    }
    segments
}

/// Where to divide: half the tests on each side.
fn middle(segments: &[Segment]) -> usize {
    let weight = |segment: &Segment| 1 + segment.singles.len();
    let total: usize = segments.iter().map(weight).sum();
    let mut before = 0;
    let at = segments.iter().position(|segment| {
        before += weight(segment);
        2 * before >= total
    });
    at.map_or(1, |at| at + 1).clamp(1, segments.len() - 1)
}
