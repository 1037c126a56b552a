//! `update`: other limits for a running container.

use super::context::Context;
use crate::cli::limits::Update;
use crate::run::limits::without_nothing;
use anyhow::{Context as _, Result};
use ctr_runtime::facts::Facts;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use std::path::Path;

/// Changes the limits that the flags name, or a file: then flags do not count, as with runc.
///
/// # Errors
/// What makes no sense, or cannot be had.
pub fn update(context: &Context, flags: &Update) -> Result<()> {
    let named = named(flags)?;
    let change = match &flags.resources {
        Some(path) => {
            if named != LinuxResources::default() {
                tracing::warn!("with --resources the other flags for limits do not count");
            }
            read(path)?
        }
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
    let file = path.display().to_string();
    let what = || format!("read the limits from {file}");
    let text = super::read_named(path).with_context(what)?;
    let (resources, warnings) =
        ctr_runtime::bundle::parse::<LinuxResources>(&text, &file).with_context(what)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for pointer in unknown("", &serde_json::from_slice(&text)?, &serde_json::to_value(&resources)?) {
        tracing::warn!("{file}: {pointer} is no limit, so it is ignored");
    }
    Ok(resources)
}

/// The JSON pointers of what was `given` and is not in what was `read` of it.
fn unknown(pointer: &str, given: &Value, read: &Value) -> Vec<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given
            .iter()
            .filter(|(_, value)| !value.is_null())
            .flat_map(|(key, value)| {
                let pointer = format!("{pointer}/{key}");
                read.get(key).map_or_else(|| vec![pointer.clone()], |read| unknown(&pointer, value, read))
            })
            .collect(),
        (Value::Array(given), Value::Array(read)) => {
            let pairs = given.iter().zip(read).enumerate();
            pairs
                .flat_map(|(index, (given, read))| unknown(&format!("{pointer}/{index}"), given, read))
                .collect()
        }
        _ => Vec::new(),
    }
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
    Ok(serde_json::from_value(without_nothing(all).unwrap_or_else(|| json!({})))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is well known is not warned of, however it is nested or named.
    #[test]
    fn what_names_no_limit_is_found() {
        let text = json!({
            "memory": {"limit": 1 << 26, "kernelTCP": 1, "checkBeforeUpdate": true, "max": 7},
            "cpu": {"shares": 2, "realtimeRuntime": null},
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1, "speed": 2}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "pids": {"limit": 9},
            "devices": [{"allow": true, "access": "rwm"}],
            "unified": {"memory.high": "1"},
            "speed": 3,
        });
        let read: LinuxResources = serde_json::from_value(text.clone()).unwrap();
        let mut found = unknown("", &text, &serde_json::to_value(&read).unwrap());
        found.sort();
        assert_eq!(found, ["/blockIO/throttleReadBpsDevice/0/speed", "/memory/max", "/speed"]);
    }
}
