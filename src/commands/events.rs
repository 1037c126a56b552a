//! `events`: what a container uses, in runc's form, and when its memory runs out.

use super::context::Context;
use crate::cli::limits::Events;
use crate::output;
use anyhow::{Context as _, Result, bail};
use ctr_isolation::cgroup::stat::{Counters, Pressure};
use ctr_isolation::cgroup::{Cgroup, v1};
use ctr_isolation::schedule::cpu_list;
use ctr_runtime::Status;
use ctr_runtime::container::Container;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Prints lines of JSON until the container ends, or one.
///
/// # Errors
/// When there is none of that name, it has no cgroup, or it does not run.
pub fn events(context: &Context, flags: &Events) -> Result<()> {
    let container = context.container(&flags.id)?;
    if matches!(container.status(), Status::Stopped | Status::Creating) {
        bail!("cannot watch container {:?}: it is {} (container not running)", flags.id, container.status());
    }
    let Some(cgroup) = container.cgroup().filter(Cgroup::exists) else {
        bail!("container {:?} has no cgroup, so nobody counts what it uses", flags.id);
    };
    if flags.stats {
        return print(&flags.id, "stats", Some(stats(&cgroup))).map(drop);
    }
    let mut watch = Watch::new(&cgroup)?;
    let mut next = Instant::now();
    while !matches!(container.status(), Status::Stopped) {
        if Instant::now() >= next {
            if !print(&flags.id, "stats", Some(stats(&cgroup)))? {
                return Ok(());
            }
            next = Instant::now() + flags.interval;
        }
        for _ in 0..watch.wait(&container, next.saturating_duration_since(Instant::now()))? {
            if !print(&flags.id, "oom", None)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// In runc's order.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// False when nobody reads on.
fn print(id: &str, kind: &str, data: Option<Value>) -> Result<bool> {
    let line = serde_json::to_string(&Event { kind, id, data })?;
    Ok(output::print_on(&format!("{line}\n"))?)
}

/// Waits for memory to run out.
struct Watch<'a> {
    cgroup: &'a Cgroup,
    inotify: Inotify,
    /// The same of a controller in version 1.
    memory: Option<EventFd>,
    seen: u64,
}

impl<'a> Watch<'a> {
    fn new(cgroup: &'a Cgroup) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // Without the controller there is no such file, and nothing to tell.
        for file in ["memory.events", "cgroup.events"] {
            let path = cgroup.dir().join(file);
            if path.exists() {
                let what = || format!("watch {}", path.display());
                inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).with_context(what)?;
            }
        }
        Ok(Watch { cgroup, inotify, memory: v1::watch_memory(cgroup)?, seen: kills(cgroup) })
    }

    /// Waits until a file has changed, the container ends or the time is over; how often memory has run out meanwhile.
    fn wait(&mut self, container: &Container, most: Duration) -> Result<u64> {
        let process = ctr_runtime::container::open_process(&container.record);
        let mut fds = vec![PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        fds.extend(process.as_ref().map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.memory.as_ref().map(|memory| PollFd::new(memory.as_fd(), PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(most.as_millis().clamp(1, 1 << 30)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // All that has come; what it was, the file says.
        let _ = self.inotify.read_events();
        let has_run_out = self.memory.as_ref().is_some_and(|memory| memory.read().is_ok());
        let (before, mut now) = (self.seen, kills(self.cgroup));
        // In version 1 it is told before the kernel kills.
        for _ in 0..100 {
            if !has_run_out || now > before {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
            now = kills(self.cgroup);
        }
        self.seen = now.max(before);
        Ok(now.saturating_sub(before))
    }
}

fn kills(cgroup: &Cgroup) -> u64 {
    cgroup.counters("memory.events").and_then(|events| events.get("oom_kill").copied()).unwrap_or(0)
}

/// The object `data` of runc's events.
fn stats(cgroup: &Cgroup) -> Value {
    json!({
        "cpu": cpu(cgroup),
        "cpuset": {
            "cpus": list(cgroup, "cpuset.cpus.effective"),
            "mems": list(cgroup, "cpuset.mems.effective"),
        },
        "memory": memory(cgroup),
        "pids": { "current": cgroup.number("pids.current").unwrap_or(0), "limit": limit(cgroup, "pids.max", 0) },
        "blkio": block_io(cgroup),
        "hugetlb": hugetlb(cgroup),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn cpu(cgroup: &Cgroup) -> Value {
    let stat = cgroup.counters("cpu.stat").unwrap_or_default();
    let nanoseconds = |name: &str| of(&stat, name) * 1000;
    json!({
        "usage": {
            "total": nanoseconds("usage_usec"),
            "kernel": nanoseconds("system_usec"),
            "user": nanoseconds("user_usec"),
        },
        "throttling": {
            "periods": of(&stat, "nr_periods"),
            "throttledPeriods": of(&stat, "nr_throttled"),
            "throttledTime": nanoseconds("throttled_usec"),
        },
        "psi": pressure(cgroup, "cpu.pressure"),
    })
}

fn memory(cgroup: &Cgroup) -> Value {
    let stat = cgroup.counters("memory.stat").unwrap_or_default();
    let events = cgroup.counters("memory.events").unwrap_or_default();
    let swap_events = cgroup.counters("memory.swap.events").unwrap_or_default();
    let number = |file: &str| cgroup.number(file).unwrap_or(0);
    json!({
        "cache": of(&stat, "file"),
        "usage": {
            "limit": limit(cgroup, "memory.max", u64::MAX),
            "usage": number("memory.current"),
            "max": number("memory.peak"),
            "failcnt": of(&events, "max"),
        },
        "swap": {
            "limit": limit(cgroup, "memory.swap.max", u64::MAX),
            "usage": number("memory.swap.current"),
            "max": number("memory.swap.peak"),
            "failcnt": of(&swap_events, "fail"),
        },
        "kernel": { "limit": 0, "usage": of(&stat, "kernel"), "failcnt": 0 },
        "kernelTCP": { "limit": 0, "usage": of(&stat, "sock"), "failcnt": 0 },
        "raw": stat,
        "psi": pressure(cgroup, "memory.pressure"),
    })
}

fn block_io(cgroup: &Cgroup) -> Value {
    let mut entries: [Vec<Value>; 2] = Default::default();
    for (device, counters) in cgroup.nested("io.stat").unwrap_or_default() {
        let mut numbers = device.split(':').map(|number| number.parse::<u64>().unwrap_or(0));
        let (major, minor) = (numbers.next(), numbers.next());
        for (list, name, op) in
            [(0, "rbytes", "Read"), (0, "wbytes", "Write"), (1, "rios", "Read"), (1, "wios", "Write")]
        {
            let value = of(&counters, name);
            entries[list].push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
        }
    }
    let [bytes, operations] = entries;
    json!({
        "ioServiceBytesRecursive": bytes,
        "ioServicedRecursive": operations,
        "psi": pressure(cgroup, "io.pressure"),
    })
}

fn hugetlb(cgroup: &Cgroup) -> Value {
    let sizes = cgroup.huge_page_sizes().into_iter().map(|size| {
        let number = |what: &str| cgroup.number(&format!("hugetlb.{size}.{what}")).unwrap_or(0);
        let events = cgroup.counters(&format!("hugetlb.{size}.events")).unwrap_or_default();
        let value = json!({ "usage": number("current"), "failcnt": of(&events, "max") });
        (size, value)
    });
    Value::Object(sizes.collect::<Map<String, Value>>())
}

fn pressure(cgroup: &Cgroup, file: &str) -> Value {
    let Some(Pressure { some, full }) = cgroup.pressure(file) else { return Value::Null };
    let one = |stall: &ctr_isolation::cgroup::stat::Stall| json!({ "avg10": stall.avg10, "avg60": stall.avg60, "avg300": stall.avg300, "total": stall.total });
    json!({ "some": one(&some), "full": full.as_ref().map(one) })
}

fn of(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

fn limit(cgroup: &Cgroup, file: &str, unlimited: u64) -> u64 {
    cgroup.limit(file).map_or(0, |limit| limit.value().unwrap_or(unlimited))
}

/// The numbers of a list like `0-2,7`.
fn list(cgroup: &Cgroup, file: &str) -> Value {
    cgroup.text(file).and_then(|text| cpu_list(&text).ok()).unwrap_or_default().into()
}
