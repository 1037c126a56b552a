//! Setting a limit, and seeing that it holds.

use super::{Cgroup, v1};
use crate::schedule::cpu_list;
use crate::sys::fs;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

impl Cgroup {
    /// Writes a limit and reads it back. A name `a|b` stands for the first of the files that exists, a value `v|w` for
    /// the one of that file.
    ///
    /// # Errors
    /// The kernel's; or that it reads otherwise than it was written, because somebody else has written it meanwhile; or
    /// why the controller is not available here.
    pub fn set_limit(&self, files: &str, values: &str) -> Result<()> {
        let mut missing = None;
        for (file, value) in files.split('|').zip(values.split('|').chain(std::iter::repeat(values))) {
            let value = &of_whole_disk(file, value);
            match self.write(file, value) {
                Err(error) if matches!(error.errno, libc::ENOENT | libc::EOPNOTSUPP) => missing = Some(error),
                Err(error) => {
                    return Err(match self.range(file, error.errno) {
                        Some(range) => error.under(range),
                        None => error,
                    });
                }
                Ok(()) => return self.check_limit(file, value),
            }
        }
        let why = self.why_missing(files.split('.').next().unwrap_or_default());
        Err(missing.unwrap_or_else(|| Error::new(format!("no value for {files}"))).under(why))
    }

    fn check_limit(&self, file: &str, value: &str) -> Result<()> {
        // What can be written and not read (memory.reclaim) is no limit.
        let Some(text) = self.text(file) else { return Ok(()) };
        if holds(file, value, &text) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{} reads {:?} after {value:?} was written to it: the kernel makes that of it, or somebody else writes it, too",
            self.path_of(file).display(),
            text.trim_end()
        )))
    }

    /// What the kernel takes, where all that it says is that it does not take this.
    fn range(&self, file: &str, errno: i32) -> Option<String> {
        let text = match (file, errno) {
            ("cpu.max" | "cpu.cfs_quota_us" | "cpu.cfs_period_us", libc::EINVAL) => {
                "a quota and its period are 1000 µs or more, and a period is a second at most"
            }
            ("cpu.max.burst" | "cpu.cfs_burst_us", libc::EINVAL) => "a burst cannot be above the quota",
            ("pids.max", libc::EINVAL) => "the limit is a number of processes, 4194304 at most, or none",
            ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", libc::EBUSY) => {
                "more than that is in use and cannot be taken back"
            }
            ("cpuset.cpus" | "cpuset.mems", _) => {
                let above = self.ancestors().find_map(|above| above.text(&format!("{file}.effective")));
                return above.map(|list| format!("the cgroup above has {}", list.trim_end()));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Why this cgroup lacks the files of `controller`.
    fn why_missing(&self, controller: &str) -> String {
        if controller.starts_with("net_") {
            return format!("version 2 has no such limit, and {controller} of version 1 is not mounted here");
        }
        if self.v1().contains_key(v1::controller_of(controller)) {
            return format!(
                "the controller {controller}, which is in version 1 here, does not have this limit"
            );
        }
        let lacks = |file: &str, cgroup: &Cgroup| {
            let text = cgroup.text(file).unwrap_or_default();
            !text.split_whitespace().any(|name| name == controller)
        };
        let needs =
            format!("the limit needs the cgroup controller {controller}, which is not available here");
        if !lacks("cgroup.controllers", self) {
            return format!("the kernel's controller {controller} does not have this limit here");
        }
        // The nearest above that has it does not hand it down.
        let Some(above) = self.ancestors().find(|above| !lacks("cgroup.controllers", above)) else {
            return format!(
                "{needs} (nothing above has it: version 1 has taken it, or whoever made us has not passed it on)"
            );
        };
        let dir = above.dir.display();
        if above.is_full() {
            return format!(
                "{needs} ({dir} has processes of its own, and such a cgroup hands no controller down: move them into one \
                 below it, or start us by `systemd-run --scope -p Delegate=yes`)"
            );
        }
        format!("{needs} ({dir} does not hand it down, and we may not change its cgroup.subtree_control)")
    }
}

/// `8:1 rbps=1` as `8:0 rbps=1`: the kernel limits disks, and says `ENODEV` for one's partition.
fn of_whole_disk(file: &str, value: &str) -> String {
    let is_limit = file.starts_with("io.") || file.starts_with("blkio.");
    let device = value.split_once(' ').filter(|(device, _)| is_limit && device.contains(':'));
    let disk = device.and_then(|(device, limit)| {
        let partition = Path::new("/sys/dev/block").join(device);
        if !partition.join("partition").exists() {
            return None;
        }
        let disk = fs::read_small(&partition.canonicalize().ok()?.parent()?.join("dev")).ok()?;
        Some(format!("{} {limit}", disk.trim()))
    });
    disk.unwrap_or_else(|| value.to_owned())
}

/// Whether `text`, read from `file`, is what `value` asked for. The kernel rounds amounts of memory down to whole pages,
/// and writes lists and defaults in its own way.
pub fn holds(file: &str, value: &str, text: &str) -> bool {
    let text = text.trim_end();
    match file {
        "cpu.max" => {
            let mut read = text.split(' ');
            value.split(' ').all(|part| read.next() == Some(part))
        }
        "cpuset.cpus" | "cpuset.mems" => numbers(value) == numbers(text),
        "io.max" | "rdma.max" => keyed(value, text),
        // A weight for all is shown as the default one; one device's has a line of its own.
        "io.weight" | "io.bfq.weight" => {
            let wanted = value.strip_prefix("default ").unwrap_or(value);
            text.lines().any(|line| line == wanted || line.strip_prefix("default ") == Some(wanted))
        }
        "memory.oom_control" => {
            text.lines().any(|line| line.strip_prefix("oom_kill_disable ") == Some(value))
        }
        "net_prio.ifpriomap" => text.lines().any(|line| line == value),
        _ if file.starts_with("blkio.") && value.contains(' ') => device_rate(value, text),
        // No limit, as version 1 says it: more than there can be.
        _ if value == "-1" && file.ends_with("_in_bytes") => {
            text.parse::<u64>().is_ok_and(|read| read >= v1::UNLIMITED)
        }
        _ if file.starts_with("memory.") && file != "memory.swappiness" || file.starts_with("hugetlb.") => {
            match (value.parse(), text.parse()) {
                (Ok(wanted), Ok(read)) => rounded(file, wanted, read),
                // More than the kernel can count is no limit.
                (Ok(wanted), Err(_)) => text == "max" && wanted >= 1 << 62,
                // Whatever else it understands (`64M`), we need not.
                (Err(_), _) => value != "max" || text == "max",
            }
        }
        "pids.max" | "memory.swappiness" | "net_cls.classid" => value.trim() == text,
        _ if file.starts_with("cpu.") || file.starts_with("blkio.") => value.trim() == text,
        // What the kernel makes of any other, it alone knows.
        _ => true,
    }
}

fn rounded(file: &str, wanted: u64, read: u64) -> bool {
    let unit = match file.strip_prefix("hugetlb.").and_then(|rest| rest.split('.').next()) {
        Some(size) => huge_page(size).unwrap_or(u64::MAX),
        None => 64 << 10,
    };
    // The largest page there is.
    read == wanted || read < wanted && wanted - read < unit
}

/// The bytes of a huge page by the name that its files have: `64KB`, `2MB`, `1GB`.
pub fn huge_page(name: &str) -> Option<u64> {
    let digits = name.trim_end_matches(|c: char| !c.is_ascii_digit());
    // What may stand before a number, and in a path, has no place in it.
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let shift = match &name[digits.len()..] {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? << shift)
}

fn numbers(list: &str) -> Option<BTreeSet<usize>> {
    Some(cpu_list(list).ok()?.into_iter().collect())
}

/// The line of the same device says the same.
fn keyed(value: &str, text: &str) -> bool {
    let (device, wanted) = value.split_once(' ').unwrap_or((value, ""));
    let line = text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
    // A device without a limit has no line.
    let read: Vec<&str> = line.unwrap_or_default().split(' ').collect();
    wanted.split(' ').all(|part| read.contains(&part) || part.ends_with("=max") && line.is_none())
}

/// `8:0 1048576`, where 0 is no limit, and has no line.
fn device_rate(value: &str, text: &str) -> bool {
    let (device, wanted) = value.split_once(' ').unwrap_or((value, ""));
    let read = text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
    read.unwrap_or("0") == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_makes_of_a_limit_is_known_again() {
        for (file, value, text) in [
            ("memory.max", "10000000", "9998336\n"),
            ("memory.max", "max", "max\n"),
            ("memory.swap.max", "0", "0\n"),
            ("hugetlb.2MB.max", "3000000", "2097152\n"),
            ("pids.max", "7", "7\n"),
            ("cpu.max", "50000", "50000 100000\n"),
            ("cpu.max", "max", "max 100000\n"),
            ("cpu.max", "max 50000", "max 50000\n"),
            ("cpuset.cpus", "0,1", "0-1\n"),
            ("cpuset.cpus", "1", "1\n"),
            ("cpuset.cpus", "0-31:2/4", "0-1,4-5,8-9,12-13,16-17,20-21,24-25,28-29\n"),
            ("cpuset.mems", "0-3:1/2,7", "0,2,7\n"),
            ("io.max", "8:0 rbps=1048576", "8:0 rbps=1048576 wbps=max riops=max wiops=max\n"),
            ("io.max", "8:0 rbps=max", ""),
            ("io.weight", "200", "default 200\n"),
            ("io.bfq.weight", "8:0 300", "default 100\n8:0 300\n"),
            ("memory.high", "max", "max\n"),
            ("memory.max", "9223372036854775807", "max\n"),
            ("memory.high", "64M", "67108864\n"),
            ("misc.max", "anything", "else"),
            ("memory.limit_in_bytes", "-1", "9223372036854771712\n"),
            ("memory.limit_in_bytes", "10000000", "9998336\n"),
            ("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n"),
            ("memory.swappiness", "10", "10\n"),
            ("cpu.cfs_quota_us", "-1", "-1\n"),
            ("cpu.shares", "512", "512\n"),
            ("blkio.throttle.read_bps_device", "8:0 100", "8:0 100\n8:16 7\n"),
            ("blkio.throttle.read_bps_device", "8:0 0", ""),
            ("hugetlb.2MB.limit_in_bytes", "3000000", "2097152\n"),
            ("net_prio.ifpriomap", "eth0 5", "lo 0\neth0 5\n"),
        ] {
            assert!(holds(file, value, text), "{file} {value} {text:?}");
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_seen() {
        for (file, value, text) in [
            ("memory.max", "67108864", "max\n"),
            ("memory.max", "67108864", "33554432\n"),
            ("memory.max", "4096", "8192\n"),
            ("hugetlb.2MB.max", "9000000", "2097152\n"),
            ("pids.max", "7", "max\n"),
            ("cpu.max", "50000 100000", "max 100000\n"),
            ("cpuset.cpus", "0-1", "0\n"),
            ("cpuset.cpus", "0-7:1/2", "0-7\n"),
            ("io.max", "8:0 rbps=1048576", "8:16 rbps=1048576 wbps=max riops=max wiops=max\n"),
            ("io.max", "8:0 rbps=1048576", ""),
            ("io.weight", "200", "default 100\n"),
            ("memory.limit_in_bytes", "-1", "67108864\n"),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("memory.swappiness", "10", "60\n"),
            ("cpu.shares", "1", "2\n"),
            ("blkio.throttle.read_bps_device", "8:0 100", "8:16 100\n"),
        ] {
            assert!(!holds(file, value, text), "{file} {value} {text:?}");
        }
    }
}
