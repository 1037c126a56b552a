//! Controllers of version 1, on a host where version 2 has not all of them (hybrid): the one place that knows the crate
//! cgroups-rs.
//!
//! Finding the hierarchies, giving a cpuset what its parent has and putting a process in are the crate's. The rest is not:
//! what it makes or sets and the kernel refuses it only logs, a file that is not there is 0 to it, and processes in its
//! way it moves to the root of all, out of every limit. Nor is a later version than 0.3: from 0.4 on there is zbus in
//! it, with a thread.
//!
//! What such a cgroup tells is told in the words of version 2, so that nobody else has to know both.

use super::Cgroup;
use crate::sys::fs;
use crate::{Context, Error, Result};
use cgroups_rs::hierarchies::{V1, mountinfo_self};
use cgroups_rs::pid::PidController;
use cgroups_rs::{CgroupPid, Controller, Controllers};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// A path for each controller: of a cgroup in the hierarchy that has the controller, or of its directory. Two controllers
/// may share a hierarchy.
pub type Paths = BTreeMap<String, PathBuf>;

/// The cgroups of version 1 that the text of `/proc/PID/cgroup` names, those of hierarchies without controllers (`name=`)
/// too.
pub fn paths_from_proc(text: &str) -> Paths {
    let mut paths = Paths::new();
    for (names, path) in text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')) {
        let names = names.split(',').filter(|name| !name.is_empty());
        paths.extend(names.map(|name| (name.to_owned(), path.into())));
    }
    paths
}

/// The directories of the cgroups `wanted`; hierarchies that are not mounted are left out. `own` are our own cgroups.
pub fn directories(wanted: &Paths, own: &Paths) -> Paths {
    if wanted.is_empty() {
        return Paths::new();
    }
    let mounts = mountinfo_self();
    let relative = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let directory = |(name, path): (&String, &PathBuf)| {
        let mount = mounts.iter().find(|mount| mount.super_opts.contains(name))?.mount_point.clone();
        let own = own.get(name).map(|own| relative(own)).unwrap_or_default();
        let path = relative(path);
        // In a container it may be our own cgroup that is mounted there.
        let inside =
            if mount.join(&own).is_dir() { path } else { relative(path.strip_prefix(&own).unwrap_or(&path)) };
        Some((name.clone(), mount.join(inside)))
    };
    wanted.iter().filter_map(directory).collect()
}

/// The hierarchies of version 1 that the text of `/proc/PID/cgroup` names, each by all its controllers: it can be mounted
/// with no less.
pub fn hierarchies(text: &str) -> impl Iterator<Item = Vec<String>> {
    let names = text.lines().filter_map(|line| line.split(':').nth(1)).filter(|names| !names.is_empty());
    names.map(|names| names.split(',').map(str::to_owned).collect())
}

/// Where the hierarchy with `controller` is mounted, if it is.
pub fn mount_point(controller: &str) -> Option<PathBuf> {
    let is_its = |options: &[String]| options.iter().any(|option| option == controller);
    mountinfo_self().into_iter().find(|mount| is_its(&mount.super_opts)).map(|mount| mount.mount_point)
}

/// The controller, by its name in version 1, that the file `file` of either version belongs to.
pub fn controller_of(file: &str) -> &str {
    match file.split('.').next().unwrap_or_default() {
        "io" => "blkio",
        other => other,
    }
}

/// Makes the cgroup whose directory is `dir`, its parents included.
pub(super) fn create(name: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).doing(|| format!("make cgroup {}", dir.display()))?;
    if name == "cpuset" { inherit_cpuset(dir) } else { Ok(()) }
}

/// A new cpuset is empty, and takes no process then.
fn inherit_cpuset(dir: &Path) -> Result<()> {
    let hierarchy = V1::new();
    let mount = hierarchy.get_mount_point(Controllers::CpuSet).unwrap_or_default();
    let inside = dir.strip_prefix(&mount).unwrap_or(dir);
    cgroups_rs::Cgroup::load_with_specified_controllers(Box::new(hierarchy), inside, vec!["cpuset".into()])
        .create()
        .map_err(|error| failure(&error))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(file);
        if fs::read_small(&path)?.trim().is_empty() {
            return Err(Error::new(format!(
                "{} is empty, and could not be given what the one above has",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Puts the process `pid` into the cgroup whose directory is `dir`.
pub(super) fn add(dir: &Path, pid: i32) -> Result<()> {
    // Whichever controller it has: the file is the same.
    let cgroup = PidController::new(dir.to_owned(), false);
    cgroup
        .add_task_by_tgid(&CgroupPid::from(u64::from(pid.unsigned_abs())))
        .map_err(|error| failure(&error))
        .doing(|| format!("put process {pid} into cgroup {}", dir.display()))
}

fn failure(error: &cgroups_rs::error::Error) -> Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause.and_then(std::io::Error::raw_os_error) {
        Some(errno) => Error::call(error.kind().to_string(), errno),
        None => Error::new(error.to_string()),
    }
}

/// No limit, as version 1 says it: the most pages there can be, in bytes.
pub(super) const UNLIMITED: u64 = 1 << 62;

/// What the file `name` of version 2 would read: it is about a controller whose cgroup of version 1 is `dir`. One that
/// neither version has, or that both have alike, is read as it is.
pub(super) fn read(cgroup: &Cgroup, dir: &Path, name: &str) -> Result<String> {
    let file = Files { dir };
    Ok(match name {
        "memory.max" => amount(file.number("memory.limit_in_bytes")?),
        "memory.current" => file.text("memory.usage_in_bytes")?,
        "memory.peak" => file.text("memory.max_usage_in_bytes")?,
        "memory.swap.max" => {
            let (both, memory) =
                (file.number("memory.memsw.limit_in_bytes")?, file.number("memory.limit_in_bytes")?);
            amount(if both >= UNLIMITED { both } else { both.saturating_sub(memory) })
        }
        "memory.swap.current" => {
            let (both, memory) =
                (file.number("memory.memsw.usage_in_bytes")?, file.number("memory.usage_in_bytes")?);
            both.saturating_sub(memory).to_string()
        }
        "memory.swap.events" => format!("fail {}\n", file.number("memory.memsw.failcnt")?),
        "memory.events" | "memory.events.local" => memory_events(&file)?,
        "memory.stat" => memory_stat(&file)?,
        "cpu.max" => {
            let quota = file.text("cpu.cfs_quota_us")?;
            let quota = if quota.starts_with('-') { "max" } else { quota.trim_end() };
            format!("{quota} {}", file.text("cpu.cfs_period_us")?)
        }
        "cpu.max.burst" => file.text("cpu.cfs_burst_us")?,
        "cpu.stat" => cpu_stat(cgroup, &file)?,
        "cpuset.cpus.effective" => file.text("cpuset.effective_cpus")?,
        "cpuset.mems.effective" => file.text("cpuset.effective_mems")?,
        "io.max" => io_max(&file)?,
        "io.stat" => io_stat(&file)?,
        _ => match name.strip_prefix("hugetlb.").and_then(|rest| rest.rsplit_once('.')) {
            Some((size, "max")) => amount(file.number(&format!("hugetlb.{size}.limit_in_bytes"))?),
            Some((size, "current")) => file.text(&format!("hugetlb.{size}.usage_in_bytes"))?,
            Some((size, "events")) => format!("max {}\n", file.number(&format!("hugetlb.{size}.failcnt"))?),
            _ => file.text(name)?,
        },
    })
}

struct Files<'a> {
    dir: &'a Path,
}

impl Files<'_> {
    fn text(&self, file: &str) -> Result<String> {
        fs::read_small(&self.dir.join(file))
    }

    fn number(&self, file: &str) -> Result<u64> {
        let text = self.text(file)?;
        let wrong = || Error::new(format!("{} reads {text:?}", self.dir.join(file).display()));
        text.trim().parse().map_err(|_| wrong())
    }
}

fn amount(value: u64) -> String {
    if value >= UNLIMITED { "max".into() } else { value.to_string() }
}

/// How often the limit of the cgroup in `dir` was reached. Unlike in version 2 that counts where room could be made, too;
/// and some kernels do not count (6.18): then it is once at least where the most there was is the limit.
pub(super) fn reached(dir: &Path) -> Result<u64> {
    let file = Files { dir };
    let number = |name: &str| file.number(name);
    let is_full = |prefix: &str| {
        let (most, limit) =
            (number(&format!("{prefix}.max_usage_in_bytes"))?, number(&format!("{prefix}.limit_in_bytes"))?);
        // What is asked for at once, and then refused, is small.
        Ok::<_, Error>(most + (64 << 10) >= limit)
    };
    // Without accounting of swap there is none of both.
    let both = number("memory.memsw.failcnt").unwrap_or(0);
    let full = is_full("memory")? || is_full("memory.memsw").unwrap_or(false);
    Ok((number("memory.failcnt")? + both).max(full.into()))
}

/// What becomes readable, as an eventfd(2), when the memory of `cgroup` runs out; `None` where that is counted by
/// version 2, whose files tell of their changes.
///
/// # Errors
/// The kernel's.
pub fn watch_memory(cgroup: &Cgroup) -> Result<Option<EventFd>> {
    let Some(dir) = cgroup.v1().get("memory") else { return Ok(None) };
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = EventFd::from_flags(flags).map_err(|errno| Error::call("eventfd()", errno as i32))?;
    let control = fs::open(&dir.join("memory.oom_control"), libc::O_RDONLY)?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    Cgroup::at(dir).write("cgroup.event_control", &line)?;
    Ok(Some(event))
}

/// Killed ones are counted where they were, whosever the limit: it was this one's if it has been reached at all.
fn memory_events(file: &Files<'_>) -> Result<String> {
    let reached = reached(file.dir)?;
    let control = super::stat::counters(&file.text("memory.oom_control")?);
    let killed = control.get("oom_kill").copied().unwrap_or(0);
    let exhausted = if reached > 0 { killed } else { 0 };
    Ok(format!("max {reached}\noom {exhausted}\noom_kill {killed}\n"))
}

/// With the names of version 2 for what there is of it.
fn memory_stat(file: &Files<'_>) -> Result<String> {
    let mut text = file.text("memory.stat")?;
    let cache = super::stat::counters(&text).get("total_cache").copied();
    let more = [
        ("file", cache),
        ("kernel", file.number("memory.kmem.usage_in_bytes").ok()),
        ("sock", file.number("memory.kmem.tcp.usage_in_bytes").ok()),
    ];
    for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let _ = writeln!(text, "{name} {value}");
    }
    Ok(text)
}

/// How much was used, version 2 counts everywhere; version 1 how much was waited.
fn cpu_stat(cgroup: &Cgroup, file: &Files<'_>) -> Result<String> {
    let mut text = fs::read_small(&cgroup.dir().join("cpu.stat")).unwrap_or_default();
    // systemd may have removed it already.
    if let Some(used) = text.is_empty().then(|| file.number("cpuacct.usage").ok()).flatten() {
        let _ = writeln!(text, "usage_usec {}", used / 1000);
    }
    for (name, value) in super::stat::counters(&file.text("cpu.stat")?) {
        let _ = match name.as_str() {
            "throttled_time" => writeln!(text, "throttled_usec {}", value / 1000),
            "burst_time" => writeln!(text, "burst_usec {}", value / 1000),
            _ => writeln!(text, "{name} {value}"),
        };
    }
    Ok(text)
}

const RATES: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];

fn io_max(file: &Files<'_>) -> Result<String> {
    let mut devices: BTreeMap<String, String> = BTreeMap::new();
    for (key, name) in RATES {
        for (device, rate) in file.text(name)?.lines().filter_map(|line| line.split_once(' ')) {
            let _ = write!(devices.entry(device.to_owned()).or_default(), " {key}={rate}");
        }
    }
    Ok(devices.into_iter().map(|(device, rates)| format!("{device}{rates}\n")).collect())
}

fn io_stat(file: &Files<'_>) -> Result<String> {
    let mut devices: BTreeMap<String, String> = BTreeMap::new();
    for (name, read, written) in [
        ("blkio.throttle.io_service_bytes_recursive", "rbytes", "wbytes"),
        ("blkio.throttle.io_serviced_recursive", "rios", "wios"),
    ] {
        for line in file.text(name)?.lines() {
            let [device, kind, count] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            let key = match kind {
                "Read" => read,
                "Write" => written,
                _ => continue,
            };
            let _ = write!(devices.entry(device.to_owned()).or_default(), " {key}={count}");
        }
    }
    Ok(devices.into_iter().map(|(device, counts)| format!("{device}{counts}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_cgroup_in_each_hierarchy() {
        let found = paths_from_proc("9:name=systemd:/\n4:memory:/a:b\n3:cpu,cpuacct:/x\n0::/y\n");
        let expected = [("cpu", "/x"), ("cpuacct", "/x"), ("memory", "/a:b"), ("name=systemd", "/")]
            .map(|(name, path)| (name.to_owned(), path.into()));
        assert_eq!(found, Paths::from(expected));
        assert_eq!(paths_from_proc("0::/user.slice\n"), Paths::new());
        let hierarchies: Vec<_> = hierarchies("3:cpu,cpuacct:/x\n1:name=systemd:/\n0::/y\n").collect();
        assert_eq!(hierarchies, [vec!["cpu", "cpuacct"], vec!["name=systemd"]]);
    }

    /// The kernel's cgroup-v1 documents; what is not there is not 0.
    #[test]
    fn it_speaks_as_version_2() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |name: &str, text: &str| std::fs::write(old.path().join(name), text).unwrap();
        std::fs::write(new.path().join("cpu.stat"), "usage_usec 9\n").unwrap();
        write("memory.limit_in_bytes", "67108864\n");
        write("memory.memsw.limit_in_bytes", "100663296\n");
        write("memory.usage_in_bytes", "4096\n");
        write("memory.max_usage_in_bytes", "8192\n");
        write("memory.failcnt", "7\n");
        write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        write("memory.stat", "cache 1\ntotal_cache 5\n");
        write("cpu.cfs_quota_us", "-1\n");
        write("cpu.cfs_period_us", "100000\n");
        write("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 5000\n");
        write("pids.max", "40\n");
        for (name, text) in [
            ("read_bps_device", "8:0 1048576\n"),
            ("write_bps_device", ""),
            ("read_iops_device", "8:0 9\n8:16 5\n"),
            ("write_iops_device", ""),
            ("io_service_bytes_recursive", "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n"),
            ("io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
        ] {
            write(&format!("blkio.throttle.{name}"), text);
        }
        let names = ["memory", "cpu", "pids", "blkio"].map(|name| (name.to_owned(), old.path().to_owned()));
        let cgroup = Cgroup::at(new.path()).with_v1(names.into());
        for (file, text) in [
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.events", "max 7\noom 2\noom_kill 2\n"),
            ("memory.events.local", "max 7\noom 2\noom_kill 2\n"),
            ("memory.stat", "cache 1\ntotal_cache 5\nfile 5\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.stat", "usage_usec 9\nnr_periods 3\nnr_throttled 2\nthrottled_usec 5\n"),
            ("pids.max", "40\n"),
            ("io.max", "8:0 rbps=1048576 riops=9\n8:16 riops=5\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n"),
        ] {
            assert_eq!(cgroup.text(file).as_deref(), Some(text), "{file}");
        }
        for file in ["memory.high", "memory.swap.peak", "memory.swap.current", "cpu.max.burst", "cpuset.cpus"]
        {
            assert_eq!(cgroup.text(file), None, "{file}");
        }
        assert_eq!(cgroup.exhausted(), Some(7));
        write("memory.failcnt", "0\n");
        assert_eq!(
            cgroup.text("memory.events").as_deref(),
            Some("max 0\noom 0\noom_kill 2\n"),
            "by one above"
        );
        write("memory.max_usage_in_bytes", "67104768\n");
        assert_eq!(
            cgroup.text("memory.events").as_deref(),
            Some("max 1\noom 2\noom_kill 2\n"),
            "not counted"
        );
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(cgroup.text("memory.max").as_deref(), Some("max"));
    }
}
