//! `linux.resources` where some controllers are in version 1 (the kernel's cgroup-v1 documents, and what runc makes of
//! them there).

use crate::plan::resources::{self, File, Files, page_sizes};
use crate::plan::validate::Check;
use ctr_isolation::cgroup::v1::{Paths, controller_of};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

/// Translates limits: those of the controllers `old` to files of version 1, the rest to files of version 2.
pub fn files(
    resources: &LinuxResources,
    old: &Paths,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> Vec<File> {
    if old.is_empty() {
        return resources::files(resources, check, warnings);
    }
    let has = |name: &str| old.contains_key(name);
    let (mut rest, mut files) = (resources.clone(), Files::default());
    if let Some(all) = resources.memory().as_ref().filter(|_| has("memory")) {
        memory(all, swap_alone(all, &mut rest), &mut files, check, warnings);
        rest.set_memory(None);
    }
    if let Some(all) = resources.cpu() {
        let mut left = all.clone();
        if has("cpu") {
            cpu(all, &mut files);
            left = LinuxCpu::default();
            left.set_cpus(all.cpus().clone()).set_mems(all.mems().clone());
        }
        // Their files are named alike.
        rest.set_cpu(Some(left));
    }
    if let Some(io) = resources.block_io().as_ref().filter(|_| has("blkio")) {
        block_io(io, &mut files, check);
        rest.set_block_io(None);
    }
    if has("hugetlb") {
        for (size, limit) in page_sizes(resources, check) {
            files.put(&format!("hugetlb.{size}.limit_in_bytes"), bytes(limit));
            files.put(&format!("hugetlb.{size}.rsvd.limit_in_bytes"), bytes(limit));
        }
        rest.set_hugepage_limits(None);
    }
    // Version 2 has nothing of the kind; where version 1 has it not either, it is told then.
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            files.put("net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            files.put("net_prio.ifpriomap", format!("{} {}", priority.name(), priority.priority()));
        }
        rest.set_network(None);
    }
    refuse_unified(&rest, old, check);
    let mut all = files.0;
    all.extend(resources::all_files(&rest, check, warnings));
    resources::last_words(all)
}

/// The limits that systemd is to know, in the words of version 2, but for CPU shares: what it makes of a weight in version 1
/// are others.
pub fn for_systemd(resources: &LinuxResources, old: &Paths) -> Vec<File> {
    let mut all = resources::files(resources, &mut Check::default(), &mut Vec::new());
    if old.contains_key("cpu") {
        all.retain(|(file, _)| file != "cpu.weight");
        let mut files = Files(all);
        if let Some(cpu) = resources.cpu() {
            shares(cpu, &mut files);
        }
        all = files.0;
    }
    all
}

/// Limits of version 2 by the names of their files: version 1 has some of them as well, and lacks the others.
const LIMITS: [&str; 15] = [
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "io.bfq.weight",
    "io.max",
    "io.weight",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.swap.max",
    "pids.max",
];

/// `unified` is for version 2. What else it names may be there in version 1, and is whatever its controllers can be told
/// to do (`freezer.state`, `devices.allow`).
fn refuse_unified(rest: &LinuxResources, old: &Paths, check: &mut Check) {
    for file in rest.unified().iter().flatten().map(|(file, _)| file) {
        let controller = controller_of(file);
        let good =
            !old.contains_key(controller) || LIMITS.contains(&file.as_str()) || controller == "hugetlb";
        check.that(good, &format!("/linux/resources/unified/{}", file.replace('/', "~1")), || {
            format!("is no limit of cgroup version 2, and the controller {controller} is in version 1 here")
        });
    }
}

/// The controllers among `old` that have to do with `files`.
pub fn needed(files: &[File], old: &Paths) -> Paths {
    let names = files.iter().map(|(file, _)| controller_of(file));
    names
        .filter_map(|name| old.get_key_value(name))
        .map(|(name, path)| (name.clone(), path.clone()))
        .collect()
}

/// -1 is unlimited.
fn bytes(value: i64) -> i64 {
    value.max(-1)
}

/// Version 1 has no limit of swap without memory: where there is one of memory, that of `unified` becomes both.
fn swap_alone(memory: &LinuxMemory, rest: &mut LinuxResources) -> Option<i64> {
    let mut unified = rest.unified().clone()?;
    let swap: i64 = unified.remove("memory.swap.max")?.parse().ok()?;
    let limit = memory.limit().filter(|limit| *limit > 0)?;
    rest.set_unified(Some(unified));
    Some(limit.saturating_add(swap))
}

fn memory(
    memory: &LinuxMemory,
    with_swap: Option<i64>,
    files: &mut Files,
    check: &mut Check,
    warnings: &mut Vec<String>,
) {
    resources::check_memory(memory, check);
    let some = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = some(memory.limit());
    // Memory without a limit is without one of swap, too.
    let both = with_swap.or(some(memory.swap())).or(limit.filter(|limit| *limit < 0));
    if let Some(limit) = limit {
        files.put("memory.limit_in_bytes", bytes(limit));
    }
    if let Some(both) = both {
        files.put("memory.memsw.limit_in_bytes", bytes(both));
    }
    if let Some(reservation) = some(memory.reservation()) {
        files.put("memory.soft_limit_in_bytes", bytes(reservation));
    }
    if let Some(swappiness) = memory.swappiness() {
        check.that(swappiness <= 100, "/linux/resources/memory/swappiness", || {
            format!("{swappiness} is not between 0 and 100")
        });
        files.put("memory.swappiness", swappiness);
    }
    if let Some(disabled) = memory.disable_oom_killer() {
        files.put("memory.oom_control", u8::from(disabled));
    }
    #[allow(deprecated)]
    let kernel = memory.kernel();
    for (given, name) in [(kernel, "kernel"), (memory.kernel_tcp(), "kernelTCP")] {
        if some(given).is_some() {
            warnings.push(format!(
                "/linux/resources/memory/{name}: of use to no kernel any more; ignored, as runc does"
            ));
        }
    }
}

fn cpu(cpu: &LinuxCpu, files: &mut Files) {
    let some = |value: Option<u64>| value.filter(|value| *value != 0);
    if let Some(idle) = cpu.idle() {
        files.put("cpu.idle", idle);
    }
    shares(cpu, files);
    if let Some(period) = some(cpu.period()) {
        files.put("cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        files.put("cpu.cfs_quota_us", bytes(quota));
    }
    if let Some(burst) = cpu.burst() {
        files.put("cpu.cfs_burst_us", burst);
    }
    if let Some(period) = some(cpu.realtime_period()) {
        files.put("cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        files.put("cpu.rt_runtime_us", runtime);
    }
}

fn shares(cpu: &LinuxCpu, files: &mut Files) {
    // An idle cgroup has no weight.
    let shares = cpu.shares().filter(|shares| *shares != 0 && cpu.idle().unwrap_or(0) == 0);
    if let Some(shares) = shares {
        // So the kernel itself has it.
        files.put("cpu.shares", shares.clamp(2, 262_144));
    }
}

fn block_io(io: &LinuxBlockIo, files: &mut Files, check: &mut Check) {
    for (name, weight, file) in [
        ("weight", io.weight(), "blkio.weight|blkio.bfq.weight"),
        ("leafWeight", io.leaf_weight(), "blkio.leaf_weight"),
    ] {
        let Some(weight) = weight.filter(|weight| *weight != 0) else { continue };
        check.that((10..=1000).contains(&weight), &format!("/linux/resources/blockIO/{name}"), || {
            format!("{weight} is not between 10 and 1000")
        });
        files.put(file, weight);
    }
    for device in io.weight_device().iter().flatten() {
        let place = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            files.put("blkio.weight_device|blkio.bfq.weight_device", format!("{place} {weight}"));
        }
        if let Some(weight) = device.leaf_weight() {
            files.put("blkio.leaf_weight_device", format!("{place} {weight}"));
        }
    }
    let throttles: [(&Option<Vec<LinuxThrottleDevice>>, &str); 4] = [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device"),
        (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device"),
    ];
    for (devices, file) in throttles {
        for device in devices.iter().flatten() {
            files.put(file, format!("{}:{} {}", device.major(), device.minor(), device.rate()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(names: &[&str]) -> Paths {
        names.iter().map(|name| ((*name).to_owned(), "/".into())).collect()
    }

    #[track_caller]
    fn check(names: &[&str], json: &str, expected: &[(&str, &str)]) -> Vec<String> {
        let (mut problems, mut warnings) = (Check::default(), Vec::new());
        let files = files(&serde_json::from_str(json).unwrap(), &old(names), &mut problems, &mut warnings);
        assert!(problems.problems.is_empty(), "{:?}", problems.problems);
        let files: Vec<_> = files.iter().map(|(file, value)| (file.as_str(), value.as_str())).collect();
        assert_eq!(files, expected);
        warnings
    }

    #[test]
    fn memory_is_counted_with_swap() {
        let memory = &["memory"];
        check(
            memory,
            r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":0,"disableOOMKiller":true}}"#,
            &[
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "150"),
                ("memory.soft_limit_in_bytes", "50"),
                ("memory.swappiness", "0"),
                ("memory.oom_control", "1"),
            ],
        );
        for json in [r#"{"memory":{"limit":-1}}"#, r#"{"memory":{"limit":-1,"swap":-1}}"#] {
            check(memory, json, &[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")]);
        }
        // `run --memory 100 --swap 0`, and swap alone.
        check(
            memory,
            r#"{"memory":{"limit":100},"unified":{"memory.swap.max":"0"}}"#,
            &[("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "100")],
        );
        check(memory, r#"{"unified":{"memory.swap.max":"9"}}"#, &[("memory.swap.max", "9")]);
        let warnings = check(memory, r#"{"memory":{"kernel":7,"kernelTCP":0}}"#, &[]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn processors_and_disks() {
        check(
            &["cpu"],
            r#"{"cpu":{"shares":512,"quota":-1,"period":5000,"burst":0,"cpus":"0-1","realtimeRuntime":7}}"#,
            &[
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "5000"),
                ("cpu.cfs_quota_us", "-1"),
                ("cpu.cfs_burst_us", "0"),
                ("cpu.rt_runtime_us", "7"),
                ("cpuset.cpus", "0-1"),
            ],
        );
        check(
            &["blkio"],
            r#"{"blockIO":{"weight":100,"leafWeight":10,"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":9}]}}"#,
            &[
                ("blkio.weight|blkio.bfq.weight", "100"),
                ("blkio.leaf_weight", "10"),
                ("blkio.throttle.write_bps_device", "8:0 9"),
            ],
        );
    }

    #[test]
    fn systemd_is_told_shares_where_there_are_shares() {
        let resources: LinuxResources =
            serde_json::from_str(r#"{"cpu":{"shares":512},"pids":{"limit":7}}"#).unwrap();
        let names = |old: &[&str]| {
            for_systemd(&resources, &self::old(old)).into_iter().map(|(file, _)| file).collect::<Vec<_>>()
        };
        assert_eq!(names(&["pids"]), ["cpu.weight", "pids.max"]);
        assert_eq!(names(&["cpu", "pids"]), ["pids.max", "cpu.shares"]);
    }

    /// What version 1 has not taken stays with version 2.
    #[test]
    fn each_controller_is_where_it_is() {
        let json =
            r#"{"pids":{"limit":-1},"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#;
        let memory = ("memory.limit_in_bytes", "5");
        let huge = [("hugetlb.2MB.max", "9"), ("hugetlb.2MB.rsvd.max", "9")];
        check(&["memory", "pids"], json, &[memory, ("pids.max", "max"), huge[0], huge[1]]);
        let huge = [("hugetlb.2MB.limit_in_bytes", "9"), ("hugetlb.2MB.rsvd.limit_in_bytes", "9")];
        check(&["hugetlb"], json, &[huge[0], huge[1], ("memory.max", "5"), ("pids.max", "max")]);
        let files = [("io.max".to_owned(), String::new()), ("cpuset.cpus".to_owned(), String::new())];
        let needed: Vec<_> = needed(&files, &old(&["blkio", "cpu", "memory"])).into_keys().collect();
        assert_eq!(needed, ["blkio"]);
        // Of no use to version 2: it is told by who looks for it.
        let network = r#"{"network":{"classID":7,"priorities":[{"name":"eth0","priority":5}]}}"#;
        check(&["memory"], network, &[("net_cls.classid", "7"), ("net_prio.ifpriomap", "eth0 5")]);
        assert_eq!(check(&[], network, &[]).len(), 1, "on a host without version 1 it is warned of");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (json, pointer) in [
            (r#"{"memory":{"swap":7}}"#, "/linux/resources/memory/swap"),
            (r#"{"memory":{"limit":9,"swap":7}}"#, "/linux/resources/memory/swap"),
            (r#"{"memory":{"limit":-2}}"#, "/linux/resources/memory/limit"),
            (r#"{"memory":{"swappiness":101}}"#, "/linux/resources/memory/swappiness"),
            (r#"{"blockIO":{"weight":9}}"#, "/linux/resources/blockIO/weight"),
            (r#"{"unified":{"blkio.reset_stats":"1"}}"#, "/linux/resources/unified/blkio.reset_stats"),
            (r#"{"unified":{"memory.force_empty":"1"}}"#, "/linux/resources/unified/memory.force_empty"),
            (r#"{"unified":{"pids.max":" "}}"#, "/linux/resources/unified/pids.max"),
            (r#"{"unified":{"pids.max":"5\u0000"}}"#, "/linux/resources/unified/pids.max"),
        ] {
            let mut problems = Check::default();
            let resources = serde_json::from_str(json).unwrap();
            files(&resources, &old(&["memory", "blkio"]), &mut problems, &mut Vec::new());
            assert_eq!(problems.problems[0].pointer, pointer, "{json}");
        }
    }
}
