//! The end of a container: what was observed of it, and what that says.
//!
//! Pure. Facts are either observed or absent, and a [`Verdict`] is no more than they allow: whoever asks why a container
//! died is not helped by a guess.

use crate::error::Error;
use ctr_isolation::sys::process::Ended;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Seconds and nanoseconds since 1970.
pub type Time = (u64, u32);

/// What was observed of the end of one life of a container. It holds no arguments and no environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Death {
    /// The container's name.
    pub name: String,
    /// The state directory that the name is in.
    pub root: PathBuf,
    /// When it was made.
    pub began: Time,
    /// When it ended; when its end was noticed, where we did not reap it.
    pub ended: Time,
    /// We reaped it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reaped: bool,
    /// How its program ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why its program was never started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// It had a PID namespace of its own, whose first process no signal ends that the kernel does not force on it, but
    /// SIGKILL from outside (pid_namespaces(7)).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_pids: bool,
    /// Signals that we sent it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<Sent>,
    /// What it used.
    pub usage: Usage,
    /// That was seen before its end, for its cgroup was gone then: more may have been counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
    /// What happened meanwhile above its cgroup, where that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<Above>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// By this signal, and left a core dump.
    Dumped(i32),
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(status) => Exit::Status(status),
            Ended::Signaled(signal) => Exit::Signal(signal),
            Ended::Dumped(signal) => Exit::Dumped(signal),
        }
    }
}

impl Exit {
    /// From the words of wait(2), as `/proc/PID/stat` has them of a process that nobody has reaped yet.
    pub fn from_wait(status: i32) -> Self {
        match (status & 0x7f, status & 0x80) {
            (0, _) => Exit::Status(status >> 8 & 0xff),
            (signal, 0) => Exit::Signal(signal),
            (signal, _) => Exit::Dumped(signal),
        }
    }

    /// The signal, if one ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Exit::Status(_) => None,
            Exit::Signal(signal) | Exit::Dumped(signal) => Some(signal),
        }
    }
}

/// A signal of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Which.
    pub signal: i32,
    /// When.
    pub at: Time,
    /// The verb that sent it.
    pub by: String,
}

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How far it came.
    pub phase: String,
    /// What was said of it, with what a hook printed.
    pub error: String,
}

/// What a container used of what can be limited: at its end, or over several lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Amount>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Amount>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Refused huge pages, by size.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub huge_pages: BTreeMap<String, u64>,
    /// Microseconds that some process waited, and that all did, for `cpu`, `memory` and `io`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pressure: BTreeMap<String, (u64, u64)>,
}

/// Memory (`memory.*` of its cgroup).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Its limit, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most it had, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// How often it came to a limit of its own or one below and had to give something back first.
    pub reached: u64,
    /// How often that was of no use.
    pub exhausted: u64,
    /// The same of its own limit alone.
    pub exhausted_own: u64,
    /// Processes of it that the kernel killed for want of memory.
    pub killed: u64,
    /// How many of them its first process was seen to outlive.
    #[serde(skip_serializing_if = "is_zero")]
    pub outlived: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref)] // serde's wish.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is counted in pieces or bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Amount {
    /// Its limit, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// How often it was refused more.
    pub refused: u64,
    /// The same by its own limit alone, where the kernel tells (since Linux 6.11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_own: Option<u64>,
}

/// Processors (`cpu.stat`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Time it had, in microseconds.
    pub used: u64,
    /// How often it had used up its quota.
    pub throttled: u64,
    /// How long it then waited, in microseconds.
    pub throttled_time: u64,
}

/// The cgroups above a container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Above {
    /// Those where something was counted from its beginning to its end, the nearest first.
    pub risen: Vec<Level>,
    /// There are more that we do not see, as in a container.
    pub hidden: bool,
}

/// What a cgroup above a container's counts by its own limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Level {
    /// Its directory.
    pub cgroup: PathBuf,
    /// How often its memory was used up.
    pub exhausted: u64,
    /// How often it refused a process.
    pub refused: u64,
}

/// What the facts say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In a word.
    pub cause: Cause,
    /// Who ended it by a signal.
    pub killer: Option<Killer>,
    /// Whose limit of memory, or of pids, did.
    pub limit: Option<Whose>,
}

/// Why, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its program ended with status 0.
    Ended,
    /// Its program ended with another status.
    Failed,
    /// A signal ended it.
    Signal,
    /// The kernel killed it, or a process whose end was its own, for want of memory.
    OutOfMemory,
    /// It failed after it was refused a process.
    PidsExhausted,
    /// Its program never started.
    NotStarted,
    /// Nobody of ours saw how.
    NotObserved,
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Killer {
    /// The kernel.
    Kernel,
    /// This program, asked to.
    Ctr,
    /// Another program, outside of the container.
    Outside,
    /// One of those, or the program itself.
    NotObserved,
}

/// Whose limit it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Its own.
    Own,
    /// One that was made inside the container.
    Inside,
    /// That of a cgroup above.
    Ancestor(PathBuf),
    /// None: the host had no more.
    Host,
    /// That of a cgroup above, which one is not known, or, of memory, the host's.
    Hidden,
    /// It was not looked at in time.
    NotObserved,
}

impl Death {
    /// What the facts say.
    pub fn verdict(&self) -> Verdict {
        let (cause, killer) = self.cause();
        let limit = match cause {
            Cause::PidsExhausted => Some(self.whose_pids()),
            _ if self.killed() > 0 => Some(self.whose_memory()),
            _ => None,
        };
        Verdict { cause, killer, limit }
    }

    fn cause(&self) -> (Cause, Option<Killer>) {
        let refused = self.usage.pids.as_ref().map_or(0, |pids| pids.refused);
        match self.exit {
            _ if self.failure.is_some() => (Cause::NotStarted, None),
            None => (Cause::NotObserved, None),
            Some(Exit::Status(0)) => (Cause::Ended, None),
            Some(Exit::Status(_)) if self.killed() > 0 => (Cause::OutOfMemory, None),
            Some(Exit::Status(_)) if refused > 0 => (Cause::PidsExhausted, None),
            Some(Exit::Status(_)) => (Cause::Failed, None),
            Some(Exit::Signal(signal) | Exit::Dumped(signal)) => self.signaled(signal),
        }
    }

    fn signaled(&self, signal: i32) -> (Cause, Option<Killer>) {
        let killer = match signal {
            _ if self.sent.iter().any(|sent| sent.signal == signal) => Killer::Ctr,
            libc::SIGKILL if self.killed() > self.outlived() => match self.reaped || self.was_alone() {
                true => return (Cause::OutOfMemory, Some(Killer::Kernel)),
                // It was one of its processes; which one, and whether the signal came later, nobody has seen.
                false => Killer::NotObserved,
            },
            // Where nobody counts to the end, it may have been for want of memory.
            libc::SIGKILL if self.usage.memory.is_some() && !self.early => Killer::Outside,
            libc::SIGKILL => Killer::NotObserved,
            _ if self.own_pids => Killer::Kernel,
            _ => Killer::NotObserved,
        };
        (Cause::Signal, Some(killer))
    }

    fn killed(&self) -> u64 {
        self.usage.memory.as_ref().map_or(0, |memory| memory.killed)
    }

    fn outlived(&self) -> u64 {
        self.usage.memory.as_ref().map_or(0, |memory| memory.outlived)
    }

    /// There never was another process beside its first one.
    fn was_alone(&self) -> bool {
        self.usage.pids.as_ref().is_some_and(|pids| pids.peak == Some(1))
    }

    /// Whose limit made the kernel kill. It counts the want where the limit is, and the killing where the process was.
    fn whose_memory(&self) -> Whose {
        match &self.usage.memory {
            Some(memory) if memory.exhausted_own > 0 => Whose::Own,
            Some(memory) if memory.exhausted > 0 => Whose::Inside,
            _ => self.whose_above(),
        }
    }

    /// The nearest cgroup above whose limit was used up meanwhile.
    fn whose_above(&self) -> Whose {
        let Some(above) = &self.above else { return Whose::NotObserved };
        match above.risen.iter().find(|level| level.exhausted > 0) {
            Some(level) => Whose::Ancestor(level.cgroup.clone()),
            None if above.hidden => Whose::Hidden,
            None => Whose::Host,
        }
    }

    /// Whose limit refused a process. Until Linux 6.11 that was counted where the process was, whosever the limit.
    fn whose_pids(&self) -> Whose {
        match &self.usage.pids {
            Some(Amount { refused_own: Some(1..), .. }) => Whose::Own,
            Some(Amount { refused_own: Some(0), .. }) => Whose::Inside,
            Some(Amount { limit: Some(limit), peak: Some(peak), .. }) if peak >= limit => Whose::Own,
            Some(Amount { peak: Some(_), .. }) => Whose::Hidden,
            _ => Whose::NotObserved,
        }
    }

    /// Two of the same life are one: of what was observed, the most.
    #[must_use]
    pub fn join(self, other: Death) -> Death {
        let (more, less) =
            if other.completeness() > self.completeness() { (other, self) } else { (self, other) };
        let usage = if more.usage == Usage::default() { less.usage } else { more.usage };
        let sent = if more.sent.len() < less.sent.len() { less.sent } else { more.sent };
        Death { usage, sent, above: more.above.or(less.above), ..more }
    }

    fn completeness(&self) -> u8 {
        u8::from(self.reaped) * 4 + u8::from(self.failure.is_some()) * 2 + u8::from(self.exit.is_some())
    }
}

impl Usage {
    /// What is known of it, or else from an earlier look.
    #[must_use]
    pub fn or(self, earlier: Usage) -> Usage {
        Usage {
            memory: both(self.memory, earlier.memory, |now, then| Memory {
                limit: now.limit.or(then.limit),
                peak: now.peak.or(then.peak),
                ..now
            }),
            swap: both(self.swap, earlier.swap, Amount::or),
            pids: both(self.pids, earlier.pids, Amount::or),
            cpu: self.cpu.or(earlier.cpu),
            huge_pages: if self.huge_pages.is_empty() { earlier.huge_pages } else { self.huge_pages },
            pressure: if self.pressure.is_empty() { earlier.pressure } else { self.pressure },
        }
    }

    /// That of two lives together: peaks are the higher, counts are summed, limits are the later one's.
    #[must_use]
    pub fn and(self, later: Usage) -> Usage {
        let mut huge_pages = self.huge_pages;
        for (size, refused) in later.huge_pages {
            *huge_pages.entry(size).or_default() += refused;
        }
        let mut pressure = self.pressure;
        for (kind, (some, full)) in later.pressure {
            let sum = pressure.entry(kind).or_default();
            *sum = (sum.0 + some, sum.1 + full);
        }
        Usage {
            memory: both(self.memory, later.memory, Memory::and),
            swap: both(self.swap, later.swap, Amount::and),
            pids: both(self.pids, later.pids, Amount::and),
            cpu: both(self.cpu, later.cpu, Cpu::and),
            huge_pages,
            pressure,
        }
    }
}

fn both<T>(one: Option<T>, other: Option<T>, and: impl Fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(and(one, other)),
        (one, other) => one.or(other),
    }
}

impl Memory {
    fn and(self, later: Memory) -> Memory {
        Memory {
            limit: later.limit,
            peak: self.peak.max(later.peak),
            reached: self.reached + later.reached,
            exhausted: self.exhausted + later.exhausted,
            exhausted_own: self.exhausted_own + later.exhausted_own,
            killed: self.killed + later.killed,
            outlived: self.outlived + later.outlived,
        }
    }
}

impl Amount {
    fn or(self, earlier: Amount) -> Amount {
        Amount { limit: self.limit.or(earlier.limit), peak: self.peak.or(earlier.peak), ..self }
    }

    fn and(self, later: Amount) -> Amount {
        Amount {
            limit: later.limit,
            peak: self.peak.max(later.peak),
            refused: self.refused + later.refused,
            refused_own: both(self.refused_own, later.refused_own, |one, other| one + other),
        }
    }
}

impl Cpu {
    fn and(self, later: Cpu) -> Cpu {
        Cpu {
            used: self.used + later.used,
            throttled: self.throttled + later.throttled,
            throttled_time: self.throttled_time + later.throttled_time,
        }
    }
}

/// The most that is kept of what was said of a failed start: a hook may say much.
const ERROR_MAX: usize = 6 * 1024;

impl Failure {
    /// Of the error `error`, whose whole text is `text`.
    pub fn of(error: Option<&Error>, text: &str) -> Self {
        let text = match error {
            Some(Error::Invalid(problems)) => {
                let places = problems.iter().map(|problem| {
                    let is_secret = SECRET.iter().any(|place| problem.pointer.starts_with(place));
                    if is_secret { problem.pointer.clone() } else { problem.to_string() }
                });
                format!("invalid configuration: {}", places.collect::<Vec<_>>().join("; "))
            }
            _ => text.to_owned(),
        };
        let mut end = text.len().min(ERROR_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let phase = match error {
            Some(Error::Invalid(_)) => "configuration".to_owned(),
            _ => phase(&text),
        };
        Failure { phase, error: text[..end].to_owned() }
    }
}

/// What is wrong there is not to be kept word by word.
const SECRET: [&str; 3] = ["/process/env", "/process/args", "/annotations"];

/// What our own words say of how far a start came: the outermost of them counts.
const PHASES: &[(&str, &[&str])] = &[
    ("exec", &["exec: ", "start the container's program"]),
    ("configuration", &["invalid configuration", "read the configuration", "the only image so far"]),
    ("cgroup", &["cgroup", "systemd", "device filter", "the limit needs"]),
    ("user namespace", &["user namespace", "map the ids", "_map", "newuidmap", "newgidmap"]),
    ("first process", &["first process ended before"]),
    ("namespaces", &["namespace", "clone3("]),
    ("terminal", &["terminal", "console"]),
    ("system call filter", &["system call filter", "seccomp"]),
    ("kernel parameters", &["kernel parameter"]),
    ("identity", &["become user", "become group", "capabilit", "has no user", "has no group"]),
    ("working directory", &["working directory"]),
    ("mounts", &["mount", "root file system", "pivot_root", "prepare ", "mask ", "read-only", "make device"]),
];

fn phase(text: &str) -> String {
    if text.starts_with("--") {
        return "configuration".to_owned();
    }
    if let Some((before, _)) = text.split_once(" hook ")
        && let Some((_, kind)) = before.rsplit_once("run ")
    {
        return format!("hook {kind}");
    }
    let first = |words: &[&str]| words.iter().filter_map(|word| text.find(word)).min();
    let found = PHASES.iter().filter_map(|(phase, words)| Some((first(words)?, *phase))).min();
    found.map_or("making", |(_, phase)| phase).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::validate::Problem;

    fn memory(exhausted_own: u64, exhausted: u64, killed: u64) -> Usage {
        let memory = Memory { exhausted_own, exhausted, killed, ..Memory::default() };
        Usage { memory: Some(memory), ..Usage::default() }
    }

    fn outlived(outlived: u64, killed: u64) -> Option<Memory> {
        Some(Memory { exhausted_own: 1, exhausted: 1, killed, outlived, ..Memory::default() })
    }

    fn pids(limit: Option<u64>, peak: u64, refused: u64, refused_own: Option<u64>) -> Usage {
        let pids = Amount { limit, peak: Some(peak), refused, refused_own };
        Usage { pids: Some(pids), ..memory(0, 0, 0) }
    }

    fn death(exit: Exit, usage: Usage) -> Death {
        let above = Some(Above::default());
        Death { reaped: true, exit: Some(exit), usage, own_pids: true, above, ..Death::default() }
    }

    fn below(exhausted: u64, death: Death) -> Death {
        let level = |name: &str, exhausted| Level { cgroup: name.into(), exhausted, refused: 0 };
        Death {
            above: Some(Above { risen: vec![level("/near", 0), level("/far", exhausted)], hidden: false }),
            ..death
        }
    }

    fn sent(signal: i32, death: Death) -> Death {
        Death { sent: vec![Sent { signal, at: (1, 0), by: "kill".into() }], ..death }
    }

    /// cgroup-v2.rst, "Memory Interface Files" and "PID"; pid_namespaces(7).
    #[test]
    fn verdicts() {
        use Cause::*;
        let killed = Exit::Signal(libc::SIGKILL);
        let case = |exit, usage| death(exit, usage);
        let verdict = |cause, killer, limit| Verdict { cause, killer, limit };
        let kernel = |limit| verdict(OutOfMemory, Some(Killer::Kernel), Some(limit));
        for (what, death, expected) in [
            ("in order", case(Exit::Status(0), memory(0, 0, 0)), verdict(Ended, None, None)),
            (
                "in order, a child killed",
                case(Exit::Status(0), memory(1, 1, 1)),
                verdict(Ended, None, Some(Whose::Own)),
            ),
            ("exit 3", case(Exit::Status(3), memory(0, 0, 0)), verdict(Failed, None, None)),
            ("own limit", case(killed, memory(1, 1, 1)), kernel(Whose::Own)),
            ("a limit inside", case(killed, memory(0, 2, 1)), kernel(Whose::Inside)),
            (
                "an ancestor's",
                below(1, case(killed, memory(0, 0, 1))),
                kernel(Whose::Ancestor("/far".into())),
            ),
            ("a neighbour's want meanwhile", below(1, case(killed, memory(1, 1, 1))), kernel(Whose::Own)),
            ("the host's", below(0, case(killed, memory(0, 0, 1))), kernel(Whose::Host)),
            (
                "the host's or above what we see",
                Death {
                    above: Some(Above { hidden: true, ..Above::default() }),
                    ..case(killed, memory(0, 0, 1))
                },
                kernel(Whose::Hidden),
            ),
            (
                "nobody looked above",
                Death { above: None, ..case(killed, memory(0, 0, 1)) },
                kernel(Whose::NotObserved),
            ),
            (
                "a shell whose child was killed",
                case(Exit::Status(137), memory(1, 1, 1)),
                verdict(OutOfMemory, None, Some(Whose::Own)),
            ),
            (
                "SIGKILL by another",
                case(killed, memory(0, 0, 0)),
                verdict(Signal, Some(Killer::Outside), None),
            ),
            (
                "a full limit kills nobody",
                case(killed, memory(3, 3, 0)),
                verdict(Signal, Some(Killer::Outside), None),
            ),
            (
                "SIGKILL where nobody counts",
                case(killed, Usage::default()),
                verdict(Signal, Some(Killer::NotObserved), None),
            ),
            (
                "SIGKILL where nobody counts to the end",
                Death { early: true, ..case(killed, memory(0, 0, 0)) },
                verdict(Signal, Some(Killer::NotObserved), None),
            ),
            (
                "by us",
                sent(libc::SIGKILL, case(killed, memory(0, 0, 0))),
                verdict(Signal, Some(Killer::Ctr), None),
            ),
            (
                "SIGKILL by another, after one that it has outlived",
                case(killed, Usage { memory: outlived(1, 1), ..Usage::default() }),
                verdict(Signal, Some(Killer::Outside), Some(Whose::Own)),
            ),
            (
                "one outlived, and then its own",
                case(killed, Usage { memory: outlived(1, 2), ..Usage::default() }),
                kernel(Whose::Own),
            ),
            (
                "one of its processes, as a zombie tells",
                Death { reaped: false, ..case(killed, memory(1, 1, 1)) },
                verdict(Signal, Some(Killer::NotObserved), Some(Whose::Own)),
            ),
            (
                "its only process, as a zombie tells",
                Death {
                    reaped: false,
                    ..case(killed, Usage { memory: outlived(0, 1), ..pids(None, 1, 0, None) })
                },
                kernel(Whose::Own),
            ),
            (
                "by us, one killed before",
                sent(libc::SIGKILL, case(killed, memory(1, 1, 1))),
                verdict(Signal, Some(Killer::Ctr), Some(Whose::Own)),
            ),
            (
                "asked by us to end, killed by another",
                sent(libc::SIGTERM, case(killed, memory(0, 0, 0))),
                verdict(Signal, Some(Killer::Outside), None),
            ),
            (
                "segfault",
                case(Exit::Dumped(libc::SIGSEGV), memory(0, 0, 0)),
                verdict(Signal, Some(Killer::Kernel), None),
            ),
            (
                "segfault, or a signal of that name",
                Death { own_pids: false, ..case(Exit::Signal(libc::SIGSEGV), memory(0, 0, 0)) },
                verdict(Signal, Some(Killer::NotObserved), None),
            ),
            (
                "pids, new kernel",
                case(Exit::Status(2), pids(Some(5), 5, 4, Some(4))),
                verdict(PidsExhausted, None, Some(Whose::Own)),
            ),
            (
                "pids below, new kernel",
                case(Exit::Status(2), pids(None, 9, 4, Some(0))),
                verdict(PidsExhausted, None, Some(Whose::Inside)),
            ),
            (
                "pids, old kernel",
                case(Exit::Status(2), pids(Some(5), 5, 4, None)),
                verdict(PidsExhausted, None, Some(Whose::Own)),
            ),
            (
                "pids of a cgroup above, old kernel",
                case(Exit::Status(2), pids(Some(9), 5, 4, None)),
                verdict(PidsExhausted, None, Some(Whose::Hidden)),
            ),
            (
                "pids refused, and all well",
                case(Exit::Status(0), pids(Some(5), 5, 4, None)),
                verdict(Ended, None, None),
            ),
            (
                "another reaped it",
                Death { exit: None, ..case(killed, memory(1, 1, 1)) },
                verdict(NotObserved, None, Some(Whose::Own)),
            ),
            (
                "not started",
                Death {
                    exit: None,
                    failure: Some(Failure { phase: "exec".into(), error: "exec: x".into() }),
                    ..Death::default()
                },
                verdict(NotStarted, None, None),
            ),
        ] {
            assert_eq!(death.verdict(), expected, "{what}");
        }
    }

    #[test]
    fn the_words_of_wait() {
        for (status, exit) in [
            (0, Exit::Status(0)),
            (0x300, Exit::Status(3)),
            (9, Exit::Signal(9)),
            (0x8b, Exit::Dumped(11)),
            (0xff00, Exit::Status(255)),
        ] {
            assert_eq!(Exit::from_wait(status), exit);
        }
    }

    /// The texts are those of tests/errors.rs.
    #[test]
    fn how_far_a_start_came() {
        for (text, expected) in [
            ("exec: \"no-such-program\": executable file not found in $PATH", "exec"),
            ("exec: start the container's program: exec format error", "exec"),
            (
                "run createRuntime hook 0 \"/nowhere\": start it: no such file or directory",
                "hook createRuntime",
            ),
            ("run prestart hook 1 \"/h\": exit status: 1, stderr: mount cgroup", "hook prestart"),
            ("read the configuration /b/config.json: no such file or directory", "configuration"),
            ("--volume nowhere:/x: \"nowhere\" is not a path", "configuration"),
            ("image \"debian:13\": the only image so far is `host`; or use --rootfs DIR", "configuration"),
            ("mount cgroup2 on /sys/fs/cgroup: operation not permitted", "mounts"),
            (
                "mount the root file system \"/b/nowhere\": open(\"/b/nowhere\"): no such file or directory",
                "mounts",
            ),
            ("make cgroup /sys/fs/cgroup/x: permission denied", "cgroup"),
            (
                "the limit needs the cgroup controller memory, which is not available here: write \"1\" to /m",
                "cgroup",
            ),
            ("cgroups are read-only here, as in a container (use --cgroup-manager disabled)", "cgroup"),
            ("open the namespace /nowhere: open(\"/nowhere\"): no such file or directory", "namespaces"),
            ("connect to the console socket: connect(\"nowhere\"): no such file or directory", "terminal"),
            ("the container's first process ended before it was ready, killed by SIGKILL", "first process"),
            ("no space left on device", "making"),
        ] {
            assert_eq!(phase(text), expected, "{text}");
        }
    }

    #[test]
    fn no_secret_is_kept_of_a_wrong_configuration() {
        let error = Error::Invalid(vec![
            Problem::new("/process/env/3", "\"=hunter2\" has no name before the ="),
            Problem::new("/process/cwd", "\"x\" is not an absolute path"),
        ]);
        let failure = Failure::of(Some(&error), &error.to_string());
        assert_eq!(failure.phase, "configuration");
        assert_eq!(
            failure.error,
            "invalid configuration: /process/env/3; /process/cwd: \"x\" is not an absolute path"
        );
        assert_eq!(Failure::of(None, &"ä".repeat(9999)).error.len(), ERROR_MAX);
    }

    #[test]
    fn of_two_observations_the_most_is_kept() {
        let seen = Death { usage: memory(1, 1, 1), sent: Vec::new(), ..Death::default() };
        let reaped = Death { reaped: true, exit: Some(Exit::Signal(9)), ..Death::default() };
        for joined in [seen.clone().join(reaped.clone()), reaped.clone().join(seen.clone())] {
            assert_eq!((joined.exit, &joined.usage), (Some(Exit::Signal(9)), &seen.usage));
        }
    }

    #[test]
    fn lives_add_up() {
        let mut one = memory(1, 1, 1);
        one.memory.as_mut().unwrap().peak = Some(9);
        one.huge_pages.insert("2MB".into(), 2);
        one.pressure.insert("io".into(), (5, 1));
        let mut two = pids(Some(5), 3, 2, None);
        two.memory.as_mut().unwrap().peak = Some(4);
        two.pressure.insert("io".into(), (1, 1));
        let both = one.and(two);
        let memory = both.memory.unwrap();
        assert_eq!((memory.peak, memory.killed), (Some(9), 1));
        assert_eq!((both.pids.unwrap().refused, both.huge_pages["2MB"], both.pressure["io"]), (2, 2, (6, 2)));
    }
}
