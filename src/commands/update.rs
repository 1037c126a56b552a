//! `update`: other limits for a running container.

use super::context::Context;
use crate::cli::limits::Update;
use anyhow::{Context as _, Result};
use ctr_isolation::sys::fs::{read_bounded, read_to_end};
use ctr_runtime::facts::Facts;
use ctr_runtime::plan::change;
use oci_spec::runtime::LinuxResources;
use serde_json::json;
use std::path::Path;

/// Changes the limits that the flags name, or a file, or both: the flags then win.
///
/// # Errors
/// What makes no sense, or cannot be had.
pub fn update(context: &Context, flags: &Update) -> Result<()> {
    let named = named(flags)?;
    let change = match &flags.resources {
        Some(path) => change::merge(&read(path)?, &named)?,
        None => named,
    };
    if change == LinuxResources::default() && flags.resources.is_some() {
        tracing::warn!(
            "what was read names no limit: it is to be an object like linux.resources of config.json"
        );
    }
    let schemata: Vec<String> =
        [&flags.l3_cache_schema, &flags.mem_bw_schema].into_iter().flatten().cloned().collect();
    Ok(context.container(&flags.id)?.update(&change, &schemata, &Facts::read())?)
}

fn read(path: &Path) -> Result<LinuxResources> {
    // As much as a configuration may have.
    let most = ctr_runtime::bundle::TEXT_MAX;
    let read = match path == Path::new("-") {
        true => read_to_end(std::io::stdin().lock(), most),
        false => read_bounded(path, most),
    };
    let text = read.with_context(|| format!("read the limits from {}", path.display()))?;
    let (resources, warnings) = ctr_runtime::bundle::parse(&text)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(resources)
}

/// What the flags name, as linux.resources.
fn named(flags: &Update) -> Result<LinuxResources> {
    let mut all = json!({
        "memory": {
            "limit": flags.memory,
            "reservation": flags.memory_reservation,
            "swap": flags.memory_swap,
            "kernel": flags.kernel_memory,
            "kernelTCP": flags.kernel_memory_tcp,
        },
        "cpu": {
            "shares": flags.cpu_share,
            "quota": flags.cpu_quota,
            "period": flags.cpu_period,
            "burst": flags.cpu_burst,
            "idle": flags.cpu_idle,
            "realtimePeriod": flags.cpu_rt_period,
            "realtimeRuntime": flags.cpu_rt_runtime,
            "cpus": flags.cpuset_cpus,
            "mems": flags.cpuset_mems,
        },
        "blockIO": { "weight": flags.blkio_weight },
    });
    if let Some(limit) = flags.pids_limit {
        all["pids"] = json!({ "limit": limit });
    }
    Ok(serde_json::from_value(all)?)
}
