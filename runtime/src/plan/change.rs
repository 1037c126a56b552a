//! A change of limits, laid over those that hold.

use oci_spec::runtime::LinuxResources;
use serde_json::Value;

/// The limits `before` with `change` laid over them. What the change does not name keeps its value, and so it does where
/// the change says 0 or nothing, which to engines means the same; 0 counts where it is a value of its own (burst, idle,
/// swappiness, and the rates of devices, which it lifts). Entries of lists are told apart by device or page size; device rules, whose
/// order matters, take each other's place as a whole.
///
/// # Errors
/// Never for limits that came from JSON.
pub fn merge(before: &LinuxResources, change: &LinuxResources) -> serde_json::Result<LinuxResources> {
    let mut merged = serde_json::to_value(before)?;
    let mut change = serde_json::to_value(change)?;
    let memory = &mut change["memory"];
    // As with runc: swap is counted together with memory, and a sum with a limit would limit both.
    if memory["limit"] == -1 && !says_something("swap", &memory["swap"]) {
        memory["swap"] = (-1).into();
    }
    lay("", &change, &mut merged);
    let mut merged: LinuxResources = serde_json::from_value(merged)?;
    // A limit has been named in one way before, and in the other now: the last word counts.
    let over: LinuxResources = serde_json::from_value(change)?;
    if let Some(mut unified) = merged.unified().clone() {
        let again = |file: &str| over.unified().as_ref().is_some_and(|unified| unified.contains_key(file));
        unified.retain(|file, _| again(file) || !takes_the_place_of(&over, file));
        merged.set_unified((!unified.is_empty()).then_some(unified));
    }
    Ok(merged)
}

/// Whether what `change` names otherwise than by `unified` is all that is in `file`.
fn takes_the_place_of(change: &LinuxResources, file: &str) -> bool {
    let swap = change.memory().and_then(|memory| memory.swap()).is_some_and(|swap| swap != 0);
    match file {
        // Its limit depends on that of memory, its being limited does not.
        "memory.swap.max" => swap,
        "cpu.max.burst" => change.cpu().as_ref().is_some_and(|cpu| cpu.burst().is_some()),
        _ if file.starts_with("io.") => false,
        _ => match file.strip_prefix("hugetlb.").and_then(|rest| rest.split('.').next()) {
            Some(size) => change.hugepage_limits().iter().flatten().any(|limit| limit.page_size() == size),
            None => is_named(change, file),
        },
    }
}

fn lay(key: &str, over: &Value, under: &mut Value) {
    match (over, under) {
        (Value::Object(over), Value::Object(under)) => {
            for (key, value) in over.iter().filter(|(key, value)| says_something(key, value)) {
                lay(key, value, under.entry(key.clone()).or_insert(Value::Null));
            }
        }
        (Value::Array(over), Value::Array(under)) if key != "devices" => {
            for entry in over {
                match under.iter_mut().find(|old| identity(old) == identity(entry)) {
                    Some(old) => *old = entry.clone(),
                    None => under.push(entry.clone()),
                }
            }
        }
        (over, under) => *under = over.clone(),
    }
}

fn says_something(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Number(number) => {
            number.as_f64() != Some(0.0) || matches!(key, "burst" | "idle" | "rate" | "swappiness")
        }
        _ => true,
    }
}

/// What of an entry says which one it is.
fn identity(entry: &Value) -> [Option<&Value>; 3] {
    ["major", "minor", "pageSize"].map(|key| entry.get(key))
}

/// Whether `change` names the limit that is in `file`, or one that it is worked out from.
pub fn concerns(change: &LinuxResources, file: &str) -> bool {
    let unified = |file: &str| change.unified().as_ref().is_some_and(|unified| unified.contains_key(file));
    // In version 1 the one is part of the other.
    unified(file)
        || file == "memory.memsw.limit_in_bytes" && unified("memory.swap.max")
        || is_named(change, file)
}

fn is_named(change: &LinuxResources, file: &str) -> bool {
    let (memory, cpu) = (change.memory().unwrap_or_default(), change.cpu().clone().unwrap_or_default());
    let named = |value: Option<i64>| value.is_some_and(|value| value != 0);
    let quota = named(cpu.quota()) || cpu.period().is_some_and(|period| period != 0);
    match file {
        "memory.max" | "memory.limit_in_bytes" => named(memory.limit()),
        // OCI counts memory and swap together.
        "memory.swap.max" | "memory.memsw.limit_in_bytes" => named(memory.limit()) || named(memory.swap()),
        "memory.low" | "memory.soft_limit_in_bytes" => named(memory.reservation()),
        "memory.swappiness" => memory.swappiness().is_some(),
        "memory.oom_control" => memory.disable_oom_killer().is_some(),
        // What is idle has no weight of its own.
        "cpu.weight" | "cpu.shares" | "cpu.idle" => {
            cpu.idle().is_some() || cpu.shares().is_some_and(|shares| shares != 0)
        }
        "cpu.max" | "cpu.cfs_quota_us" | "cpu.cfs_period_us" => quota,
        // It cannot be above the quota, so it is set anew after that.
        "cpu.max.burst" | "cpu.cfs_burst_us" => quota || cpu.burst().is_some(),
        "cpuset.cpus" => cpu.cpus().as_ref().is_some_and(|list| !list.is_empty()),
        "cpuset.mems" => cpu.mems().as_ref().is_some_and(|list| !list.is_empty()),
        "cpu.rt_period_us" | "cpu.rt_runtime_us" => {
            cpu.realtime_period().unwrap_or(0) != 0 || named(cpu.realtime_runtime())
        }
        "pids.max" => change.pids().is_some(),
        _ if file.starts_with("net_") => change.network().is_some(),
        _ if file.starts_with("io.") || file.starts_with("blkio.") => change.block_io().is_some(),
        _ if file.starts_with("hugetlb.") => change.hugepage_limits().is_some(),
        _ => file.starts_with("rdma.") && change.rdma().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_not_named_keeps_its_value() {
        let before = r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":512,"burst":5},"pids":{"limit":7},
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":16,"rate":2}]},
            "unified":{"memory.high":"7"},"devices":[{"allow":false,"access":"rwm"}]}"#;
        let change = r#"{"memory":{"limit":120,"swap":0},"cpu":{"quota":50000,"shares":0,"cpus":"","burst":0},
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":3}]},"unified":{"pids.max":"9"}}"#;
        let after = r#"{"memory":{"limit":120,"swap":150},"cpu":{"shares":512,"burst":0,"quota":50000},"pids":{"limit":7},
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":16,"rate":3}]},
            "unified":{"memory.high":"7","pids.max":"9"},"devices":[{"allow":false,"access":"rwm"}]}"#;
        assert_eq!(merge(&resources(before), &resources(change)).unwrap(), resources(after));
    }

    /// However it is named: by its file, or by a property of its own.
    #[test]
    fn the_last_word_counts() {
        let before = resources(
            r#"{"memory":{"limit":100},"unified":{"memory.swap.max":"0","pids.max":"7","hugetlb.2MB.max":"0","io.max":"x"}}"#,
        );
        for (change, left) in [
            (r#"{"memory":{"limit":120}}"#, 4),
            (r#"{"memory":{"swap":150}}"#, 3),
            (r#"{"memory":{"limit":-1}}"#, 3),
            (r#"{"pids":{"limit":9}}"#, 3),
            (r#"{"pids":{"limit":9},"unified":{"pids.max":"8"}}"#, 4),
            (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":5}]}"#, 3),
            (r#"{"hugepageLimits":[{"pageSize":"1GB","limit":5}]}"#, 4),
            (r#"{"blockIO":{"weight":10}}"#, 4),
        ] {
            let merged = merge(&before, &resources(change)).unwrap();
            assert_eq!(merged.unified().as_ref().unwrap().len(), left, "{change}");
        }
        let change = resources(r#"{"unified":{"pids.max":"8","memory.max":"5","memory.swap.max":"5"}}"#);
        for file in ["pids.max", "memory.max", "memory.swap.max", "memory.memsw.limit_in_bytes"] {
            assert!(concerns(&change, file), "{file}");
        }
    }

    #[test]
    fn memory_without_a_limit_is_swap_without_one() {
        let before = resources(r#"{"memory":{"limit":100,"swap":150}}"#);
        for (change, after) in [
            (r#"{"memory":{"limit":-1}}"#, r#"{"memory":{"limit":-1,"swap":-1}}"#),
            (r#"{"memory":{"limit":-1,"swap":0}}"#, r#"{"memory":{"limit":-1,"swap":-1}}"#),
            (r#"{"memory":{"limit":-1,"swap":200}}"#, r#"{"memory":{"limit":-1,"swap":200}}"#),
            (r#"{"cpu":{"shares":2}}"#, r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":2}}"#),
        ] {
            assert_eq!(merge(&before, &resources(change)).unwrap(), resources(after), "{change}");
        }
    }

    #[test]
    fn only_what_is_named_is_written() {
        let change =
            resources(r#"{"memory":{"limit":1},"cpu":{"period":5,"shares":0},"unified":{"misc.max":"x"}}"#);
        let files =
            ["memory.max", "memory.swap.max", "memory.low", "cpu.weight", "cpu.max", "pids.max", "misc.max"];
        let named: Vec<&str> = files.into_iter().filter(|file| concerns(&change, file)).collect();
        assert_eq!(named, ["memory.max", "memory.swap.max", "cpu.max", "misc.max"]);
    }
}
