//! What `run` reports of a program, and whether that is as expected: for tests of what a program needs.
//!
//! [`Report`] is what `run --report` writes, and what [`crate::container`] gives to programs that call us.

use std::fmt::Write as _;
use std::str::FromStr;

use ctr_runtime::death::{Death, Exit};
use serde::{Deserialize, Serialize};

use crate::size::Size;
use crate::time;

/// What a container's program did and used. What was not observed is absent, never 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The container.
    pub name: String,
    /// Its program and arguments.
    pub command: Vec<String>,
    /// Its exit status; absent when a signal ended it or it never began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it never began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Whether `--timeout` ended it.
    pub timed_out: bool,
    /// How long it ran.
    pub seconds: f64,
    /// The most memory it used at one time, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// The most swap it used at one time, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_peak: Option<u64>,
    /// The most processes and threads it had at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_peak: Option<u64>,
    /// How often a process or thread was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_refused: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Seconds of processors that it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Seconds that it was kept from running by its limit of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_seconds: Option<f64>,
    /// What was expected, in the order of the flags.
    pub expectations: Vec<Judged>,
    /// Whether all of it was so, and the program began and ended with status 0 in time.
    pub passed: bool,
}

/// An expectation and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// The expectation, as it was given.
    pub expected: String,
    /// What was found; absent when nobody could observe it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Whether it is so.
    pub passed: bool,
}

impl Judged {
    /// What is not so.
    pub fn reason(&self) -> Option<String> {
        let nothing = "nothing that could be observed (no cgroup, or no controller for it)";
        let found = self.found.as_deref().unwrap_or(nothing);
        (!self.passed).then(|| format!("expected {}, found {found}", self.expected))
    }
}

/// Something that is expected of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    text: String,
    what: What,
    how: How,
    than: f64,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    MemoryPeak,
    SwapPeak,
    PidsPeak,
    CpuTime,
    Throttled,
    Time,
    Oom,
    Refused,
}

/// How it is to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
}

const NAMES: [(&str, What); 8] = [
    ("memory.peak", What::MemoryPeak),
    ("swap.peak", What::SwapPeak),
    ("pids.peak", What::PidsPeak),
    ("cpu.time", What::CpuTime),
    ("cpu.throttled", What::Throttled),
    ("time", What::Time),
    ("oom", What::Oom),
    ("pids.refused", What::Refused),
];

/// Longer ones first: `<=` begins with `<`.
const SIGNS: [(&str, How); 6] = [
    ("<=", How::LessOrEqual),
    (">=", How::MoreOrEqual),
    ("==", How::Equal),
    ("<", How::Less),
    (">", How::More),
    ("=", How::Equal),
];

/// Short words for what is expected most.
const WORDS: [(&str, What); 4] = [
    ("no-oom", What::Oom),
    ("no-throttle", What::Throttled),
    ("no-swap", What::SwapPeak),
    ("no-refused", What::Refused),
];

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // After a comma people write a blank.
        let text = text.trim();
        if let Some((_, what)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(Expectation { text: text.into(), what: *what, how: How::Equal, than: 0.0 });
        }
        let known = || {
            let names: Vec<&str> =
                NAMES.iter().map(|(name, _)| *name).chain(WORDS.iter().map(|(word, _)| *word)).collect();
            format!(
                "{text:?} is no expectation, as memory.peak<48M or no-oom; known are {}",
                names.join(", ")
            )
        };
        let (at, sign, how) = SIGNS
            .iter()
            .filter_map(|(sign, how)| Some((text.find(sign)?, *sign, *how)))
            .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())))
            .ok_or_else(known)?;
        let (name, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        let (_, what) = NAMES.iter().find(|(found, _)| *found == name).ok_or_else(known)?;
        let than = match what {
            What::MemoryPeak | What::SwapPeak => value.parse::<Size>()?.0 as f64,
            What::CpuTime | What::Throttled | What::Time => {
                if value == "0" {
                    0.0
                } else {
                    time::duration(value)?.as_secs_f64()
                }
            }
            _ => value.parse::<u64>().map_err(|_| format!("{text:?}: {value:?} is not a number"))? as f64,
        };
        Ok(Expectation { text: text.into(), what: *what, how, than })
    }
}

impl Expectation {
    /// Whether only a cgroup tells.
    pub fn needs_cgroup(&self) -> bool {
        self.what != What::Time
    }

    fn judge(&self, report: &Report) -> Judged {
        let count = |value: Option<u64>| value.map(|value| value as f64);
        let found = match self.what {
            What::MemoryPeak => count(report.memory_peak),
            What::SwapPeak => count(report.swap_peak),
            What::PidsPeak => count(report.pids_peak),
            What::CpuTime => report.cpu_seconds,
            What::Throttled => report.throttled_seconds,
            What::Time => Some(report.seconds),
            What::Oom => count(report.oom_kills),
            What::Refused => count(report.pids_refused),
        };
        let passed = found.is_some_and(|found| match self.how {
            How::Less => found < self.than,
            How::LessOrEqual => found <= self.than,
            How::More => found > self.than,
            How::MoreOrEqual => found >= self.than,
            How::Equal => found == self.than,
        });
        let words = |found: f64| match self.what {
            What::MemoryPeak | What::SwapPeak => {
                format!("{} ({found} bytes)", crate::size::short(found as u64))
            }
            What::CpuTime | What::Throttled | What::Time => format!("{found:.3}s"),
            _ => format!("{found}"),
        };
        Judged { expected: self.text.clone(), found: found.map(words), passed }
    }
}

impl Report {
    /// What is to be said of a container that has ended, of which `expectations` were had.
    pub fn new(death: &Death, command: &[String], timed_out: bool, expectations: &[Expectation]) -> Report {
        let usage = &death.usage;
        let (status, signal) = match death.exit {
            Some(Exit::Status(status)) => (Some(status), None),
            Some(exit) => (None, exit.signal()),
            None => (None, None),
        };
        let micro = |microseconds: u64| microseconds as f64 / 1e6;
        let mut report = Report {
            name: death.name.clone(),
            command: command.to_vec(),
            status,
            signal,
            failure: death.failure.as_ref().map(|failure| failure.error.clone()),
            timed_out,
            seconds: time::at(death.ended)
                .duration_since(time::at(death.began))
                .unwrap_or_default()
                .as_secs_f64(),
            memory_peak: usage.memory.as_ref().and_then(|memory| memory.peak),
            swap_peak: usage.swap.as_ref().and_then(|swap| swap.peak),
            pids_peak: usage.pids.as_ref().and_then(|pids| pids.peak),
            pids_refused: usage.pids.as_ref().map(|pids| pids.refused),
            oom_kills: usage.memory.as_ref().map(|memory| memory.killed),
            cpu_seconds: usage.cpu.as_ref().map(|cpu| micro(cpu.used)),
            throttled_seconds: usage.cpu.as_ref().map(|cpu| micro(cpu.throttled_time)),
            ..Report::default()
        };
        report.expectations = expectations.iter().map(|expectation| expectation.judge(&report)).collect();
        report.passed = status == Some(0) && !timed_out && report.unmet().next().is_none();
        report
    }

    /// What was expected and is not so.
    pub fn unmet(&self) -> impl Iterator<Item = &Judged> {
        self.expectations.iter().filter(|judged| !judged.passed)
    }

    /// Why it has not passed.
    pub fn reasons(&self) -> Vec<String> {
        self.ended_badly().into_iter().chain(self.unmet().filter_map(Judged::reason)).collect()
    }

    fn ended_badly(&self) -> Option<String> {
        match (self.timed_out, self.status, self.signal, &self.failure) {
            (true, ..) => Some("it was ended by --timeout".to_owned()),
            (_, Some(0), ..) => None,
            (_, Some(status), ..) => Some(format!("it ended with status {status}")),
            (_, _, Some(signal), _) => Some(format!("signal {signal} ended it")),
            (.., Some(failure)) => Some(failure.clone()),
            _ => Some("how it ended was not observed".to_owned()),
        }
    }

    /// The same as JUnit's XML, which most systems for continuous integration read.
    pub fn junit(&self) -> String {
        let judged = self.expectations.iter().map(|judged| (judged.expected.as_str(), judged.reason()));
        let cases: Vec<(&str, Option<String>)> =
            std::iter::once(("exit status", self.ended_badly())).chain(judged).collect();
        let failures = cases.iter().filter(|(_, failure)| failure.is_some()).count();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" \
             errors=\"0\" skipped=\"0\" time=\"{:.3}\">\n",
            escape(&self.command.join(" ")),
            cases.len(),
            self.seconds
        );
        for (name, failure) in cases {
            let open = format!(
                "    <testcase classname=\"ctr\" name=\"{}\" time=\"{:.3}\"",
                escape(name),
                self.seconds
            );
            // Writing to a string cannot fail.
            let _ = match failure {
                None => writeln!(text, "{open}/>"),
                Some(why) => {
                    writeln!(text, "{open}>\n      <failure message=\"{}\"/>\n    </testcase>", escape(&why))
                }
            };
        }
        text + "  </testsuite>\n</testsuites>\n"
    }
}

/// `text` as a value in XML, which has no place for control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}')
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctr_runtime::death::{Amount, Cpu, Memory, Usage};

    fn death() -> Death {
        Death {
            name: "t".into(),
            began: (10, 0),
            ended: (12, 500_000_000),
            exit: Some(Exit::Status(0)),
            usage: Usage {
                memory: Some(Memory { peak: Some(40 << 20), ..Memory::default() }),
                pids: Some(Amount { peak: Some(20), ..Amount::default() }),
                cpu: Some(Cpu { used: 1_500_000, throttled: 2, throttled_time: 250_000 }),
                ..Usage::default()
            },
            ..Death::default()
        }
    }

    fn judge(text: &str) -> Judged {
        let expectation: Expectation = text.parse().unwrap();
        Report::new(&death(), &[], false, &[expectation]).expectations.remove(0)
    }

    #[test]
    fn expectations_are_judged_by_what_was_observed() {
        for good in [
            "memory.peak<48M",
            "memory.peak<=40M",
            "memory.peak = 40M",
            "pids.peak<21",
            "pids.peak>=20",
            "no-oom",
            "oom==0",
            "cpu.time<2s",
            "cpu.throttled>200ms",
            "time<3s",
            "no-refused",
            " no-refused ",
        ] {
            assert!(judge(good).passed, "{good}: {:?}", judge(good));
        }
        for bad in ["memory.peak<40M", "pids.peak<20", "no-throttle", "time<2500ms", "cpu.time=0"] {
            assert!(!judge(bad).passed, "{bad}");
        }
        // Nobody has counted swap: that is not none.
        let swap = judge("no-swap");
        assert!(!swap.passed && swap.found.is_none());
        assert_eq!(judge("memory.peak<1M").found.as_deref(), Some("40M (41943040 bytes)"));
    }

    #[test]
    fn what_is_no_expectation_is_refused() {
        for bad in
            ["", "memory.peak", "memory<1M", "memory.peak<x", "pids.peak<1M", "no-luck", "time<5x", "<5"]
        {
            assert!(bad.parse::<Expectation>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_report_says_whether_all_was_well() {
        let expected = ["no-oom".parse().unwrap(), "memory.peak<1M".parse().unwrap()];
        assert!(Report::new(&death(), &[], false, &expected[..1]).passed);
        assert!(!Report::new(&death(), &[], false, &expected).passed);
        assert!(!Report::new(&death(), &[], true, &[]).passed);
        assert!(!Report::new(&Death { exit: Some(Exit::Signal(9)), ..death() }, &[], false, &[]).passed);
        let command = ["sh".to_owned(), "-c".to_owned(), "a && b\u{1}".to_owned()];
        let report = Report::new(&death(), &command, false, &expected);
        let text = report.junit();
        assert!(text.contains("name=\"sh -c a &amp;&amp; b\u{fffd}\" tests=\"3\" failures=\"1\""), "{text}");
        assert!(
            text.contains("<failure message=\"expected memory.peak&lt;1M, found 40M (41943040 bytes)\"/>"),
            "{text}"
        );
        let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again, report);
    }
}
