//! The limits that flags ask for, as linux.resources.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::stat::{major, minor};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::{cli::limits::LimitFlags, size::Size};

/// The kernel's own period, in microseconds.
const PERIOD: f64 = 100_000.0;

/// What the flags ask for; none where they ask for nothing.
///
/// # Errors
/// When a flag makes no sense or names a device that is none.
pub(super) fn read(flags: &LimitFlags) -> Result<Option<LinuxResources>> {
    for (flag, is_nothing) in [
        ("--memory 0", flags.memory == Some(Size(0))),
        ("--memory-reservation 0", flags.memory_reservation == Some(Size(0))),
        ("--pids 0", flags.pids == Some(0)),
        ("--cpu-shares 0", flags.cpu_shares == Some(0)),
        ("--cpu-quota 0", flags.cpu_quota == Some(0)),
        ("--cpu-period 0", flags.cpu_period == Some(0)),
        ("--blkio-weight 0", flags.blkio_weight == Some(0)),
        ("--cpuset-cpus \"\"", flags.cpuset_cpus.as_deref() == Some("")),
        ("--cpuset-mems \"\"", flags.cpuset_mems.as_deref() == Some("")),
    ] {
        if is_nothing {
            bail!("{flag} is no limit: leave it out, or give one");
        }
    }
    if let Some(pids) = flags.pids.filter(|pids| *pids < -1) {
        bail!("--pids {pids}: neither a number of processes nor -1, no limit");
    }
    if let Some(quota) = flags.cpu_quota.filter(|quota| *quota < -1) {
        bail!("--cpu-quota {quota}: neither a number of microseconds nor -1, no limit");
    }
    let bytes = |size: Option<Size>| size.map(|Size(bytes)| bytes);
    let mut unified: Vec<(String, String)> =
        flags.cgroup_conf.iter().map(|text| pair("--cgroup-conf", text)).collect::<Result<_>>()?;
    for (file, flag, is_named) in [
        ("memory.max", "--memory", flags.memory.is_some()),
        ("memory.low", "--memory-reservation", flags.memory_reservation.is_some()),
        ("memory.swap.max", "--swap", flags.swap.is_some() || flags.memory_swap.is_some()),
        ("pids.max", "--pids", flags.pids.is_some()),
        (
            "cpu.max",
            "--cpus",
            flags.cpus.is_some() || flags.cpu_quota.is_some() || flags.cpu_period.is_some(),
        ),
        ("cpu.weight", "--cpu-shares", flags.cpu_shares.is_some()),
        ("cpuset.cpus", "--cpuset-cpus", flags.cpuset_cpus.is_some()),
        ("cpuset.mems", "--cpuset-mems", flags.cpuset_mems.is_some()),
    ] {
        if is_named && unified.iter().any(|(name, _)| name == file) {
            bail!("--cgroup-conf {file} and {flag} name the same limit: leave one out");
        }
    }
    // OCI knows swap only together with memory; the kernel knows it alone.
    unified.extend(flags.swap.map(|Size(bytes)| ("memory.swap.max".to_owned(), bytes.to_string())));
    let all = json!({
        "memory": {
            "limit": bytes(flags.memory),
            "swap": flags.memory_swap,
            "reservation": bytes(flags.memory_reservation),
        },
        "pids": flags.pids.map(|limit| json!({ "limit": limit })),
        "cpu": {
            "shares": flags.cpu_shares,
            "quota": flags.cpus.map(|cpus| (cpus * PERIOD).round() as i64).or(flags.cpu_quota),
            "period": flags.cpus.map(|_| PERIOD as u64).or(flags.cpu_period),
            "cpus": flags.cpuset_cpus,
            "mems": flags.cpuset_mems,
        },
        "blockIO": {
            "weight": flags.blkio_weight,
            "throttleReadBpsDevice": rates("--device-read-bps", &flags.device_read_bps)?,
            "throttleWriteBpsDevice": rates("--device-write-bps", &flags.device_write_bps)?,
            "throttleReadIOPSDevice": rates("--device-read-iops", &flags.device_read_iops)?,
            "throttleWriteIOPSDevice": rates("--device-write-iops", &flags.device_write_iops)?,
        },
        "hugepageLimits": flags.hugetlb.iter().map(|text| huge_pages(text)).collect::<Result<Vec<_>>>()?,
        "unified": unified.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    });
    let Some(all) = without_nothing(all) else { return Ok(None) };
    Ok(Some(serde_json::from_value(all)?))
}

/// Leaves out what nothing is said of.
pub(crate) fn without_nothing(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(list) if list.is_empty() => None,
        Value::Object(map) => {
            let map = map.into_iter().filter_map(|(key, value)| Some((key, without_nothing(value)?)));
            let map: serde_json::Map<String, Value> = map.collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other),
    }
}

fn pair(flag: &str, text: &str) -> Result<(String, String)> {
    let (name, value) =
        text.split_once('=').with_context(|| format!("{flag} {text}: expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn size(text: &str) -> Result<u64> {
    text.parse::<Size>().map(|Size(bytes)| bytes).map_err(|error| anyhow!(error))
}

fn huge_pages(text: &str) -> Result<Value> {
    let (page, limit) = pair("--hugetlb", text)?;
    let limit = size(&limit).with_context(|| format!("--hugetlb {text}"))?;
    Ok(json!({ "pageSize": page, "limit": limit }))
}

fn rates(flag: &str, texts: &[String]) -> Result<Vec<Value>> {
    texts.iter().map(|text| rate(text).with_context(|| format!("{flag} {text}"))).collect()
}

/// `/dev/sda:1M`: the device by its numbers.
fn rate(text: &str) -> Result<Value> {
    let (path, rate) = text.rsplit_once(':').context("expected DEVICE:RATE")?;
    let rate = size(rate)?;
    if rate == 0 {
        bail!("it is no limit: leave it out, or give one");
    }
    let meta = Path::new(path).metadata().with_context(|| format!("look at {path}"))?;
    if !meta.file_type().is_block_device() {
        bail!("{path} is not a block device");
    }
    Ok(json!({ "major": major(meta.rdev()), "minor": minor(meta.rdev()), "rate": rate }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_resources() {
        let flags = LimitFlags {
            memory: Some(Size(64 << 20)),
            swap: Some(Size(0)),
            pids: Some(32),
            cpus: Some(0.5),
            hugetlb: vec!["2MB=4M".into()],
            cgroup_conf: vec!["memory.high=1M".into()],
            ..LimitFlags::default()
        };
        let expected = json!({
            "memory": { "limit": 64 << 20 },
            "pids": { "limit": 32 },
            "cpu": { "quota": 50_000, "period": 100_000 },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }],
            "unified": { "memory.high": "1M", "memory.swap.max": "0" },
        });
        assert_eq!(serde_json::to_value(read(&flags).unwrap()).unwrap(), expected);
        assert_eq!(read(&LimitFlags::default()).unwrap(), None);
        assert!(read(&flags).unwrap().is_some());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |flags: LimitFlags| format!("{:#}", read(&flags).unwrap_err());
        let flags = LimitFlags { device_read_bps: vec!["/dev/null:1M".into()], ..LimitFlags::default() };
        assert_eq!(error(flags), "--device-read-bps /dev/null:1M: /dev/null is not a block device");
        let flags = LimitFlags { device_write_iops: vec!["/dev/vda:0".into()], ..LimitFlags::default() };
        assert!(error(flags).starts_with("--device-write-iops /dev/vda:0: it is no limit"));
        let flags = LimitFlags { cpu_quota: Some(-7), ..LimitFlags::default() };
        assert!(error(flags).starts_with("--cpu-quota -7: "));
        let flags = LimitFlags { hugetlb: vec!["2MB=x".into()], ..LimitFlags::default() };
        assert!(error(flags).starts_with("--hugetlb 2MB=x: "));
    }
}
