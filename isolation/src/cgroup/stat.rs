//! What a cgroup tells of itself: counters, levels, limits and pressure (the kernel's cgroup-v2.rst).
//!
//! A file that is not there, because its controller is not enabled or the kernel is too old for it, is `None`: nothing
//! is known, which is no error. A word that makes no sense is left out, so that new ones do no harm.

use super::{Cgroup, v1};
use std::collections::BTreeMap;
use std::iter::successors;
use std::path::Path;

/// Counters by name, as a flat keyed file has them: `memory.events`, `cpu.stat`, `memory.stat`, `pids.events` ...
pub type Counters = BTreeMap<String, u64>;

/// Counters by device and name, as a nested keyed file has them: `io.stat`, `rdma.current`.
pub type Nested = BTreeMap<String, Counters>;

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// It is so much.
    Is(u64),
    /// There is none: `max`.
    Unlimited,
}

impl Limit {
    /// How much, if it is limited.
    pub fn value(self) -> Option<u64> {
        match self {
            Limit::Is(value) => Some(value),
            Limit::Unlimited => None,
        }
    }
}

/// How long processes waited for a resource (the kernel's psi.rst).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// Share of the last 10 seconds, in percent.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// In all, in microseconds.
    pub total: u64,
}

/// A file of pressure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Some process waited.
    pub some: Stall,
    /// All that could run waited at the same time. Old kernels do not tell it of the CPU.
    pub full: Option<Stall>,
}

/// Reads a flat keyed file.
pub fn counters(text: &str) -> Counters {
    let counter = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

/// Reads a nested keyed file.
pub fn nested(text: &str) -> Nested {
    let counter = |word: &str| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    let device = |line: &str| {
        let (device, words) = line.split_once(' ')?;
        Some((device.to_owned(), words.split_whitespace().filter_map(counter).collect()))
    };
    text.lines().filter_map(device).collect()
}

/// Reads a single value that may be `max`.
pub fn limit(text: &str) -> Option<Limit> {
    match text.trim() {
        "max" => Some(Limit::Unlimited),
        // Some files (hugetlb.*) then have the most that there can be.
        number => number.parse().ok().map(|number| match number {
            v1::UNLIMITED.. => Limit::Unlimited,
            number => Limit::Is(number),
        }),
    }
}

/// Reads `cpu.max`: the quota, and the period that it is for, in microseconds.
pub fn cpu_max(text: &str) -> Option<(Limit, u64)> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some((limit(quota)?, period.parse().ok()?))
}

/// Reads a file of pressure.
pub fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let share = |name: &str| word(name).and_then(|value| value.parse().ok()).unwrap_or_default();
        Some(Stall {
            avg10: share("avg10"),
            avg60: share("avg60"),
            avg300: share("avg300"),
            total: word("total")?.parse().ok()?,
        })
    };
    Some(Pressure { some: stall("some")?, full: stall("full") })
}

impl Cgroup {
    /// A file's text, where there is one to be read.
    pub fn text(&self, file: &str) -> Option<String> {
        self.read(file).ok()
    }

    /// A flat keyed file, such as `memory.events`.
    pub fn counters(&self, file: &str) -> Option<Counters> {
        self.text(file).map(|text| counters(&text))
    }

    /// Whether the kernel has ended a process in it, or below it, for want of memory.
    pub fn has_oom_kills(&self) -> bool {
        self.counters("memory.events").is_some_and(|events| events.get("oom_kill") > Some(&0))
    }

    /// A nested keyed file, such as `io.stat`.
    pub fn nested(&self, file: &str) -> Option<Nested> {
        self.text(file).map(|text| nested(&text))
    }

    /// A level or a peak, such as `memory.current`.
    pub fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// A limit, such as `memory.max`.
    pub fn limit(&self, file: &str) -> Option<Limit> {
        limit(&self.text(file)?)
    }

    /// `cpu.max`.
    pub fn cpu_max(&self) -> Option<(Limit, u64)> {
        cpu_max(&self.text("cpu.max")?)
    }

    /// A file of pressure, such as `memory.pressure`.
    pub fn pressure(&self, file: &str) -> Option<Pressure> {
        pressure(&self.text(file)?)
    }

    /// The sizes of huge pages that it can be limited in, as its files name them: `2MB`, `1GB`.
    pub fn huge_page_sizes(&self) -> Vec<String> {
        let (dir, limit) = match self.v1().get("hugetlb") {
            Some(dir) => (dir.as_path(), ".limit_in_bytes"),
            None => (self.dir(), ".max"),
        };
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let size = |name: &str| Some(name.strip_prefix("hugetlb.")?.strip_suffix(limit)?.to_owned());
        let sizes = names.filter_map(|entry| size(entry.file_name().to_str()?));
        // `hugetlb.2MB.rsvd.max` is of the same size.
        let mut sizes: Vec<String> = sizes.filter(|size| !size.contains('.')).collect();
        sizes.sort_unstable();
        sizes
    }

    /// The cgroups above it that we see, the nearest first; in each hierarchy of version 1 there are others.
    pub fn ancestors(&self) -> impl Iterator<Item = Cgroup> + use<> {
        let old: Vec<Cgroup> = self.old_dirs().map(|dir| self.in_hierarchy(dir)).collect();
        let old = old.into_iter().flat_map(|cgroup| successors(cgroup.parent(), Cgroup::parent));
        successors(self.parent(), Cgroup::parent).chain(old)
    }

    /// What of it is in the hierarchy where its directory is `dir`.
    fn in_hierarchy(&self, dir: &Path) -> Cgroup {
        let old = self.v1().iter().filter(|(_, other)| other.as_path() == dir);
        Cgroup::at(dir).with_v1(old.map(|(name, dir)| (name.clone(), dir.clone())).collect())
    }

    fn parent(&self) -> Option<Cgroup> {
        let dir = self.dir.parent()?;
        let above = |old: &v1::Paths| old.keys().map(|name| (name.clone(), dir.to_owned())).collect();
        // Controllers of version 1 that have a directory of their own are not above this one.
        let old =
            if self.v1().values().all(|old| *old == self.dir) { above(self.v1()) } else { v1::Paths::new() };
        dir.join("cgroup.procs").exists().then(|| Cgroup::at(dir).with_v1(old))
    }

    /// How often its memory was used up, by its own limit: as told by version 2, or, in version 1, how often the limit
    /// was reached.
    pub fn exhausted(&self) -> Option<u64> {
        if let Some(dir) = self.v1().get("memory") {
            return v1::reached(dir).ok();
        }
        Some(self.counters("memory.events.local")?.get("oom").copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, u64)]) -> Counters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn flat_files() {
        for (text, expected) in [
            (
                "low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n",
                map(&[
                    ("low", 0),
                    ("high", 0),
                    ("max", 31),
                    ("oom", 1),
                    ("oom_kill", 1),
                    ("oom_group_kill", 0),
                ]),
            ),
            (
                "usage_usec 1200345\nuser_usec 1100000\nsystem_usec 100345\nnr_periods 12\nnr_throttled 5\n\
                 throttled_usec 444555\nnr_bursts 0\nburst_usec 0\n",
                map(&[
                    ("usage_usec", 1_200_345),
                    ("user_usec", 1_100_000),
                    ("system_usec", 100_345),
                    ("nr_periods", 12),
                    ("nr_throttled", 5),
                    ("throttled_usec", 444_555),
                    ("nr_bursts", 0),
                    ("burst_usec", 0),
                ]),
            ),
            ("max 3\n", map(&[("max", 3)])),
            ("", map(&[])),
            ("odd\nword x\nnegative -1\nfine 18446744073709551615\n", map(&[("fine", u64::MAX)])),
        ] {
            assert_eq!(counters(text), expected, "{text:?}");
        }
    }

    #[test]
    fn nested_files() {
        let text = "254:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n\
                    8:16 rbytes=90430464 cost.usage=7\n7:0 \n";
        let found = nested(text);
        assert_eq!(found["254:0"]["wbytes"], 314_773_504);
        assert_eq!(found["8:16"], map(&[("rbytes", 90_430_464), ("cost.usage", 7)]));
        assert_eq!(found["7:0"], map(&[]));
        assert_eq!(nested("mlx4_0 hca_handle=2 hca_object=max\n")["mlx4_0"], map(&[("hca_handle", 2)]));
    }

    #[test]
    fn single_values() {
        for (text, expected) in [
            ("max\n", Some(Limit::Unlimited)),
            ("67108864\n", Some(Limit::Is(67_108_864))),
            ("0\n", Some(Limit::Is(0))),
            ("", None),
            ("-1\n", None),
        ] {
            assert_eq!(limit(text), expected, "{text:?}");
        }
        assert!(Limit::Is(u64::MAX) < Limit::Unlimited, "the least of several is the one that binds");
        assert_eq!(cpu_max("max 100000\n"), Some((Limit::Unlimited, 100_000)));
        assert_eq!(cpu_max("50000 100000\n"), Some((Limit::Is(50_000), 100_000)));
        assert_eq!(cpu_max("50000\n"), None);
    }

    #[test]
    fn pressure_files() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.21 total=2341\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let found = pressure(text).unwrap();
        assert_eq!(found.some, Stall { avg10: 1.53, avg60: 0.87, avg300: 0.21, total: 2341 });
        assert_eq!(found.full.unwrap().total, 9);
        // cpu.pressure before Linux 5.13.
        assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n").unwrap().full, None);
        assert_eq!(pressure(""), None);
    }

    /// A controller that is not enabled leaves its files out, and that is no error.
    #[test]
    fn files_that_are_not_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        for file in ["a/cgroup.procs", "a/b/cgroup.procs", "a/b/hugetlb.2MB.max", "a/b/hugetlb.2MB.rsvd.max"]
        {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        std::fs::write(inner.join("memory.peak"), "4096\n").unwrap();
        let cgroup = Cgroup::at(&inner);
        assert_eq!(cgroup.number("memory.peak"), Some(4096));
        assert_eq!((cgroup.number("pids.peak"), cgroup.limit("memory.max")), (None, None));
        assert_eq!((cgroup.counters("pids.events"), cgroup.nested("io.stat")), (None, None));
        assert_eq!((cgroup.pressure("io.pressure"), cgroup.cpu_max()), (None, None));
        assert_eq!(cgroup.huge_page_sizes(), ["2MB"]);
        let above: Vec<_> = cgroup.ancestors().map(|cgroup| cgroup.dir().to_owned()).collect();
        assert_eq!(above, [dir.path().join("a")]);
    }
}
