//! What of a container's limits is set, what holds, and what of it was used.

use crate::container::Container;
use crate::death::{Amount, Usage};
use crate::error::{Error, Result};
use crate::plan::validate::Check;
use crate::plan::{resources, resources_v1};
use crate::state::Status;
use ctr_isolation::cgroup::stat::{Counters, Limit, Pressure};
use ctr_isolation::cgroup::{Cgroup, limit};
use oci_spec::runtime::LinuxResources;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All about the limits of a container.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Its cgroup.
    pub cgroup: String,
    /// Line by line, as OpenVZ's `/proc/user_beancounters`.
    pub resources: Vec<Resource>,
    /// What was asked for and is set otherwise.
    pub drift: Vec<Drift>,
    /// How long its processes wait for each resource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pressure: BTreeMap<&'static str, PressureOf>,
}

/// One resource. Amounts are bytes, processes or, of processors, microseconds a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// `memory`, `swap`, `pids`, `cpu`, `hugetlb.2MB`, `io.8:0.rbps`, `cpuset.cpus` ...
    pub name: String,
    /// What its amounts are.
    pub unit: Unit,
    /// In use. Of processors, all microseconds so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// The most there was in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxheld: Option<u64>,
    /// Where the kernel begins to slow it down; none is no barrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barrier: Option<u64>,
    /// Where the kernel refuses: what is set. None is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How often it has refused, or stopped it for the rest of a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failcnt: Option<u64>,
    /// What was asked for, in the words of the cgroup's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// What is set, in the words of the cgroup's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// The least of its own limit, of those of all cgroups above, and of what the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<u64>,
    /// Whose that is: a cgroup's directory, or `machine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_by: Option<String>,
}

/// What the amounts of a resource are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// Bytes.
    #[default]
    Bytes,
    /// How many.
    Count,
    /// Microseconds of processors, and in a second.
    Microseconds,
    /// Bytes in a second.
    BytesPerSecond,
    /// How many in a second.
    PerSecond,
    /// A list of numbers: it has no amounts.
    List,
}

/// A limit that is set otherwise than it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The file of the cgroup.
    pub file: String,
    /// What was asked for.
    pub requested: String,
    /// What it reads; none when it is not there.
    pub found: Option<String>,
}

/// How long processes waited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PressureOf {
    /// Percent of the last 10 s in which some process waited.
    pub some_avg10: f64,
    /// Microseconds in which some process waited, ever.
    pub some_total: u64,
    /// Percent of the last 10 s in which all processes waited.
    pub full_avg10: Option<f64>,
    /// Microseconds in which all processes waited, ever.
    pub full_total: Option<u64>,
}

impl From<Pressure> for PressureOf {
    fn from(pressure: Pressure) -> Self {
        PressureOf {
            some_avg10: pressure.some.avg10,
            some_total: pressure.some.total,
            full_avg10: pressure.full.as_ref().map(|full| full.avg10),
            full_total: pressure.full.as_ref().map(|full| full.total),
        }
    }
}

impl Limits {
    /// Adds what the lives before this one of the same name held and were refused.
    pub fn add_past(&mut self, past: &Usage) {
        let amount = |amount: &Option<Amount>| amount.as_ref().map(|amount| (amount.peak, amount.refused));
        for row in &mut self.resources {
            let (peak, refused) = match row.name.as_str() {
                "memory" => past.memory.as_ref().map(|memory| (memory.peak, memory.exhausted)),
                "swap" => amount(&past.swap),
                "pids" => amount(&past.pids),
                "cpu" => past.cpu.as_ref().map(|cpu| (None, cpu.throttled)),
                name => {
                    let size = name.strip_prefix("hugetlb.");
                    size.and_then(|size| past.huge_pages.get(size)).map(|refused| (None, *refused))
                }
            }
            .unwrap_or_default();
            row.maxheld = row.maxheld.max(peak);
            row.failcnt = row.failcnt.map(|count| count + refused);
        }
    }
}

/// What the whole machine has.
#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    memory: Option<u64>,
    swap: Option<u64>,
    pids: Option<u64>,
    cpus: Option<u64>,
}

impl Machine {
    fn read() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let amount = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
        };
        let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok();
        let cpus = std::thread::available_parallelism().ok().map(|cpus| cpus.get() as u64);
        Machine {
            memory: amount("MemTotal:"),
            swap: amount("SwapTotal:"),
            pids: pid_max.and_then(|text| text.trim().parse().ok()),
            cpus: cpus.map(|cpus| cpus * 1_000_000),
        }
    }
}

impl Container {
    /// All about its limits.
    ///
    /// # Errors
    /// When it has no cgroup (any more), or what was asked for cannot be read.
    pub fn limits(&self) -> Result<Limits> {
        let cgroup = self.need_cgroup("limits")?;
        if !cgroup.exists() {
            return Err(Error::text(format!(
                "container {:?} is {} and its cgroup {} is gone, with all it had counted (`ctr why` tells what was \
                 recorded of it)",
                self.record.id,
                self.status(),
                cgroup.dir().display()
            )));
        }
        let mut limits = table(&self.resources()?, &cgroup, Machine::read());
        if self.status() != Status::Stopped {
            limits.drift.extend(self.outside(&cgroup));
        }
        Ok(limits)
    }

    /// In which cgroups of version 1 its first process is not: it may have been moved, or was not put in by an `update`
    /// that was killed.
    fn outside(&self, cgroup: &Cgroup) -> Vec<Drift> {
        let is_outside =
            |dir: &PathBuf| !Cgroup::at(dir).processes().is_ok_and(|pids| pids.contains(&self.record.pid));
        let outside = cgroup.v1().iter().filter(|(_, dir)| is_outside(dir));
        outside
            .map(|(_, dir)| Drift {
                file: dir.join("cgroup.procs").display().to_string(),
                requested: self.record.pid.to_string(),
                found: None,
            })
            .collect()
    }
}

fn table(wanted: &LinuxResources, cgroup: &Cgroup, machine: Machine) -> Limits {
    // What is told is told in the words of version 2, whichever it is.
    let files = resources::files(wanted, &mut Check::default(), &mut Vec::new());
    let set = resources_v1::files(wanted, cgroup.v1(), &mut Check::default(), &mut Vec::new());
    let table = Table { files: &files, cgroup, above: cgroup.ancestors().collect(), machine };
    let mut rows = vec![
        table.amount("memory", Unit::Bytes, machine.memory),
        table.amount("swap", Unit::Bytes, machine.swap),
        table.amount("pids", Unit::Count, machine.pids),
        Some(table.cpu()),
    ];
    rows.extend(["cpuset.cpus", "cpuset.mems"].map(|file| table.list(file)));
    rows.extend(cgroup.huge_page_sizes().iter().map(|size| table.hugetlb(size)));
    rows.extend(table.devices().into_iter().map(Some));
    rows.extend(set.iter().map(|limit| table.other(limit)));
    let named = ["cpu", "memory", "io"].into_iter();
    let pressure =
        named.filter_map(|name| Some((name, cgroup.pressure(&format!("{name}.pressure"))?.into())));
    Limits {
        cgroup: cgroup.dir().display().to_string(),
        resources: rows.into_iter().flatten().collect(),
        drift: drift(&set, cgroup),
        pressure: pressure.collect(),
    }
}

/// Files of limits that have a row for what is in use of them.
const ROWS: [&str; 11] = [
    "memory.max",
    "memory.swap.max",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "pids.max",
    "cpu.max",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpuset.cpus",
    "cpuset.mems",
    "io.max",
];

struct Table<'a> {
    files: &'a [resources::File],
    cgroup: &'a Cgroup,
    above: Vec<Cgroup>,
    machine: Machine,
}

impl Table<'_> {
    fn requested(&self, file: &str) -> Option<String> {
        self.files.iter().rev().find(|(name, _)| name == file).map(|(_, value)| value.clone())
    }

    /// The least amount that `read` finds in the cgroup and those above, and of the machine.
    fn least(
        &self,
        read: impl Fn(&Cgroup) -> Option<u64>,
        machine: Option<u64>,
    ) -> (Option<u64>, Option<String>) {
        let all = std::iter::once(self.cgroup).chain(&self.above);
        let named = all.filter_map(|cgroup| Some((read(cgroup)?, cgroup.dir().display().to_string())));
        let least = named
            .chain(machine.map(|amount| (amount, "machine".to_owned())))
            .min_by_key(|(amount, _)| *amount);
        least.map_or((None, None), |(amount, by)| (Some(amount), Some(by)))
    }

    /// `memory`, `swap` and `pids`, whose files are named alike.
    fn amount(&self, name: &str, unit: Unit, machine: Option<u64>) -> Option<Resource> {
        let prefix = if name == "swap" { "memory.swap" } else { name };
        let file = |what: &str| format!("{prefix}.{what}");
        let applied = self.cgroup.text(&file("max"))?;
        let events = self.cgroup.counters(&file("events"));
        let (effective, bound_by) = self.least(|cgroup| value(cgroup.limit(&file("max"))), machine);
        Some(Resource {
            name: name.into(),
            unit,
            held: self.cgroup.number(&file("current")),
            maxheld: self.cgroup.number(&file("peak")),
            barrier: value(self.cgroup.limit(&file("high"))),
            limit: value(self.cgroup.limit(&file("max"))),
            failcnt: events.as_ref().and_then(|events| failures(name, events)),
            requested: self.requested(&file("max")),
            applied: Some(applied.trim_end().to_owned()),
            effective,
            bound_by,
        })
    }

    fn cpu(&self) -> Resource {
        let stat = self.cgroup.counters("cpu.stat").unwrap_or_default();
        let (effective, bound_by) = self.least(cpus, self.machine.cpus);
        Resource {
            name: "cpu".into(),
            unit: Unit::Microseconds,
            held: stat.get("usage_usec").copied(),
            limit: cpus(self.cgroup),
            failcnt: stat.get("nr_throttled").copied(),
            requested: self.requested("cpu.max"),
            applied: self.cgroup.text("cpu.max").map(|text| text.trim_end().to_owned()),
            effective,
            bound_by,
            ..Resource::default()
        }
    }

    fn list(&self, file: &str) -> Option<Resource> {
        let effective = self.cgroup.text(&format!("{file}.effective"))?;
        let requested = self.requested(file);
        requested.is_some().then(|| Resource {
            name: file.into(),
            unit: Unit::List,
            requested,
            applied: Some(effective.trim_end().to_owned()),
            ..Resource::default()
        })
    }

    /// One that has no amount in use: a weight, a reservation.
    fn other(&self, (files, values): &resources::File) -> Option<Resource> {
        let has_row = |file: &str| {
            ROWS.contains(&file) || file.starts_with("hugetlb.") || file.starts_with("blkio.throttle.")
        };
        let values = values.split('|').chain(std::iter::repeat(values.as_str()));
        let mut all = files.split('|').zip(values).filter(|(file, _)| !has_row(file));
        all.find_map(|(file, value)| {
            let text = self.cgroup.text(file)?;
            let lines: Vec<&str> = text.lines().collect();
            Some(Resource {
                name: file.into(),
                unit: Unit::List,
                requested: Some(value.to_owned()),
                applied: Some(lines.join(", ")),
                ..Resource::default()
            })
        })
    }

    fn hugetlb(&self, size: &str) -> Option<Resource> {
        let file = |what: &str| format!("hugetlb.{size}.{what}");
        let (effective, bound_by) = self.least(|cgroup| value(cgroup.limit(&file("max"))), None);
        Some(Resource {
            name: format!("hugetlb.{size}"),
            held: self.cgroup.number(&file("current")),
            limit: value(self.cgroup.limit(&file("max"))),
            failcnt: self.cgroup.counters(&file("events")).and_then(|events| events.get("max").copied()),
            requested: self.requested(&file("max")),
            applied: self.cgroup.text(&file("max")).map(|text| text.trim_end().to_owned()),
            effective,
            bound_by,
            ..Resource::default()
        })
    }

    /// A line for each limit of a device.
    fn devices(&self) -> Vec<Resource> {
        let Some(limits) = self.cgroup.text("io.max") else { return Vec::new() };
        let stat = self.cgroup.nested("io.stat").unwrap_or_default();
        let mut rows = Vec::new();
        for (device, words) in limits.lines().filter_map(|line| line.split_once(' ')) {
            for (key, amount) in words.split(' ').filter_map(|word| word.split_once('=')) {
                let Ok(limit) = amount.parse::<u64>() else { continue };
                let used = match key {
                    "rbps" => "rbytes",
                    "wbps" => "wbytes",
                    "riops" => "rios",
                    _ => "wios",
                };
                let requested = self.files.iter().find(|(file, value)| {
                    let (of, limit) = value.split_once(' ').unwrap_or_default();
                    file == "io.max" && of == device && limit.starts_with(key)
                });
                rows.push(Resource {
                    name: format!("io.{device}.{key}"),
                    unit: if key.ends_with("bps") { Unit::BytesPerSecond } else { Unit::PerSecond },
                    held: stat.get(device).and_then(|counters| counters.get(used).copied()),
                    limit: Some(limit),
                    requested: requested.map(|(_, value)| value.clone()),
                    applied: Some(format!("{device} {key}={limit}")),
                    effective: Some(limit),
                    bound_by: Some(self.cgroup.dir().display().to_string()),
                    ..Resource::default()
                });
            }
        }
        rows
    }
}

fn value(limit: Option<Limit>) -> Option<u64> {
    limit.and_then(Limit::value)
}

/// How many microseconds a second a cgroup may use.
fn cpus(cgroup: &Cgroup) -> Option<u64> {
    let (quota, period) = cgroup.cpu_max()?;
    quota.value().map(|quota| quota.saturating_mul(1_000_000) / period.max(1))
}

/// How often the kernel has refused: for memory, when it could take none back and killed or failed.
fn failures(name: &str, events: &Counters) -> Option<u64> {
    let key = match name {
        "memory" => "oom",
        "swap" => "fail",
        _ => "max",
    };
    events.get(key).copied()
}

/// Of a limit the file that is there, what was asked for of it, and what it reads.
fn found<'a>((names, values): &'a resources::File, cgroup: &Cgroup) -> Option<(&'a str, &'a str, String)> {
    names
        .split('|')
        .zip(values.split('|').chain(std::iter::repeat(values.as_str())))
        .find_map(|(file, value)| Some((file, value, cgroup.text(file)?)))
}

/// Whether the limit is set as it was asked for.
pub(crate) fn is_set(limit: &resources::File, cgroup: &Cgroup) -> bool {
    found(limit, cgroup).is_some_and(|(file, value, text)| limit::holds(file, value, &text))
}

fn drift(files: &[resources::File], cgroup: &Cgroup) -> Vec<Drift> {
    let mut all = Vec::new();
    for limit in files.iter().filter(|limit| !is_set(limit, cgroup)) {
        match found(limit, cgroup) {
            Some((file, value, text)) => all.push(Drift {
                file: file.to_owned(),
                requested: value.to_owned(),
                found: Some(text.trim_end().to_owned()),
            }),
            None if Path::new(cgroup.dir()).exists() => {
                let (names, values) = limit.clone();
                all.push(Drift { file: names, requested: values, found: None });
            }
            None => {}
        }
    }
    all
}
