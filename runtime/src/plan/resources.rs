//! `linux.resources` as files of cgroup version 2 and the values to write (the kernel's cgroup-v2.rst).

use crate::facts::Facts;
use crate::plan::validate::Check;
use ctr_isolation::cgroup::systemd::{Property, Value};
use ctr_isolation::cgroup::{devices, limit};
use ctr_isolation::schedule::cpu_list;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

/// A file and what is written to it. A name `a|b` stands for the first of the two that exists.
pub type File = (String, String);

/// Translates limits; what is not named is left alone. Values that make no sense are noted in `check`, what the kernel
/// no longer has in `warnings`.
pub fn files(resources: &LinuxResources, check: &mut Check, warnings: &mut Vec<String>) -> Vec<File> {
    last_words(all_files(resources, check, warnings))
}

/// The same; what has two names may be there twice.
pub(super) fn all_files(
    resources: &LinuxResources,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> Vec<File> {
    let mut files = Files::default();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut files, check, warnings);
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut files, check);
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|limit| *limit != 0)
    {
        files.put("pids.max", amount(limit));
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut files, check, warnings);
    }
    for (size, limit) in page_sizes(resources, check) {
        files.put(&format!("hugetlb.{size}.max"), amount(limit));
        files.put(&format!("hugetlb.{size}.rsvd.max"), amount(limit));
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let part =
            |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
        let (handles, objects) =
            (part("hca_handle", limit.hca_handles()), part("hca_object", limit.hca_objects()));
        files.put("rdma.max", format!("{device}{handles}{objects}"));
    }
    if resources.network().is_some() {
        warnings.push(
            "/linux/resources/network: cgroup version 2 has no network class or priority; ignored".into(),
        );
    }
    unified(resources, &mut files, check);
    files.0
}

/// Of two values for a file the last one; where each line of it is for another device both stay.
pub(super) fn last_words(files: Vec<File>) -> Vec<File> {
    let is_whole = |(file, value): &File| file == "cpu.max" || !value.contains(' ');
    let named_again = |number: usize| {
        let (one, rest) = (&files[number], &files[number + 1..]);
        is_whole(one) && rest.iter().any(|later| later.0 == one.0 && is_whole(later))
    };
    let kept = (0..files.len()).filter(|number| !named_again(*number));
    kept.map(|number| files[number].clone()).collect()
}

/// The program of the device filter that `resources` asks for; `None` where it is of no use.
pub fn device_filter(resources: &LinuxResources, facts: &Facts, check: &mut Check) -> Option<Vec<u64>> {
    let rules = resources.devices().clone().unwrap_or_default();
    match devices::Filter::new(&rules, true) {
        Ok(filter) => Some(filter)
            .filter(|filter| !filter.allows_everything())
            // Only the host's root may load one; in a user namespace mknod(2) is refused anyway.
            .filter(|_| facts.is_root() && !facts.in_user_namespace)
            .map(|filter| filter.program()),
        Err(problems) => {
            for problem in &problems {
                check.problem(format!("/linux/resources/devices{}", problem.pointer), &problem.message);
            }
            None
        }
    }
}

/// The properties of a systemd scope with the limits `files`.
pub fn unit_properties(files: &[File]) -> Vec<Property> {
    let mut properties = vec![
        Property::new("Delegate", Value::Bool(true)),
        Property::new("DefaultDependencies", Value::Bool(false)),
        // A failed scope would keep its name.
        Property::new("CollectMode", Value::String("inactive-or-failed".into())),
    ];
    properties.extend(limit_properties(files));
    properties
}

/// Memory for what comes before a container's program, which takes some 60 KiB, and more with many mounts. Whoever asks
/// for less gets it when that is done, and then it is known how much it has taken.
pub const ROOM: u64 = 1 << 20;

/// The limit of memory, where it is below [`ROOM`].
pub fn small_limit(files: &[File]) -> Option<u64> {
    let (_, value) = files.iter().rfind(|(file, _)| file == "memory.max")?;
    value.parse().ok().filter(|limit| *limit < ROOM)
}

/// The limits that hold before the program: that of memory leaves room.
pub fn with_room(files: &[File]) -> Vec<File> {
    let mut files = files.to_vec();
    for (_, value) in files.iter_mut().filter(|(file, _)| file == "memory.max") {
        *value = ROOM.to_string();
    }
    files
}

/// The limits `files` as properties of a unit. We write the files ourselves; this is what systemd will write in their
/// place when it reloads, and what it shows.
pub fn limit_properties(files: &[File]) -> Vec<Property> {
    let mut properties = Vec::new();
    for (file, value) in files {
        match file.as_str() {
            "cpu.max" => cpu_quota(value, &mut properties),
            "cpuset.cpus" => properties.extend(bits(value).map(|bits| Property::new("AllowedCPUs", bits))),
            "cpuset.mems" => {
                properties.extend(bits(value).map(|bits| Property::new("AllowedMemoryNodes", bits)))
            }
            "io.max" => properties.extend(device_limit(value)),
            // systemd's weight of what is idle (since version 252).
            "cpu.idle" if value == "1" => properties.push(Property::new("CPUWeight", Value::U64(0))),
            _ => {}
        }
        // Of `io.bfq.weight|io.weight` systemd itself knows both.
        let (file, value) = match file.split_once('|') {
            Some((_, file)) => (file, value.rsplit('|').next().unwrap_or(value)),
            None => (file.as_str(), value.as_str()),
        };
        let name = PROPERTIES.iter().find(|(known, _)| *known == file).map(|(_, name)| *name);
        if let (Some(name), Some(value)) = (name, number(value)) {
            properties.push(Property::new(name, Value::U64(value)));
        }
    }
    properties
}

fn number(value: &str) -> Option<u64> {
    if value == "max" { Some(u64::MAX) } else { value.parse().ok() }
}

fn cpu_quota(value: &str, properties: &mut Vec<Property>) {
    let mut parts = value.split(' ').map(number);
    let (quota, period) = (parts.next().flatten(), parts.next().flatten().unwrap_or(100_000));
    let a_second = |quota: u64| {
        let quota = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
        u64::try_from(quota).unwrap_or(u64::MAX)
    };
    let Some(quota) = quota else { return };
    let quota = if quota == u64::MAX { quota } else { a_second(quota) };
    properties.push(Property::new("CPUQuotaPerSecUSec", Value::U64(quota)));
    // Its default; systemd before 242 does not know the property.
    if period != 100_000 {
        properties.push(Property::new("CPUQuotaPeriodUSec", Value::U64(period)));
    }
}

/// A list like `0-2,7`, bit by bit, the lowest first.
fn bits(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for bit in cpu_list(list).ok()? {
        bytes.resize(bytes.len().max(bit / 8 + 1), 0);
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    Some(Value::Bytes(bytes))
}

/// `8:0 rbps=1048576` as a property, which names the device by its node.
fn device_limit(value: &str) -> Option<Property> {
    let (device, limit) = value.split_once(' ')?;
    let (key, amount) = limit.split_once('=')?;
    let name = match key {
        "rbps" => "IOReadBandwidthMax",
        "wbps" => "IOWriteBandwidthMax",
        "riops" => "IOReadIOPSMax",
        _ => "IOWriteIOPSMax",
    };
    Some(Property::new(name, Value::Amounts(vec![(format!("/dev/block/{device}"), number(amount)?)])))
}

const PROPERTIES: &[(&str, &str)] = &[
    ("cpu.shares", "CPUShares"),
    ("cpu.weight", "CPUWeight"),
    ("io.weight", "IOWeight"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
];

/// Limits, in the order in which they are set.
#[derive(Default)]
pub(super) struct Files(pub(super) Vec<File>);

impl Files {
    pub(super) fn put(&mut self, file: &str, value: impl ToString) {
        self.0.push((file.to_owned(), value.to_string()));
    }
}

/// The limits of huge pages, by their size. It becomes part of the name of a file.
pub(super) fn page_sizes(resources: &LinuxResources, check: &mut Check) -> Vec<(String, i64)> {
    let mut sizes = Vec::new();
    for (number, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = huge.page_size();
        if limit::huge_page(size).is_some() {
            sizes.push((size.clone(), huge.limit()));
        } else {
            check.problem(
                format!("/linux/resources/hugepageLimits/{number}/pageSize"),
                format!("{size:?} is not the size of a page, as 64KB, 2MB or 1GB"),
            );
        }
    }
    sizes
}

/// -1 is unlimited.
pub(super) fn amount(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// Notes amounts of memory that make no sense.
pub(super) fn check_memory(memory: &LinuxMemory, check: &mut Check) {
    for (name, value) in
        [("limit", memory.limit()), ("swap", memory.swap()), ("reservation", memory.reservation())]
    {
        let good = value.is_none_or(|value| value >= -1);
        check.that(good, &format!("/linux/resources/memory/{name}"), || {
            format!("{} is neither an amount nor -1, no limit", value.unwrap_or_default())
        });
    }
    let some = |value: Option<i64>| value.filter(|value| *value != 0);
    match (some(memory.swap()), some(memory.limit())) {
        (None | Some(-1), _) => {}
        (_, None) => check.problem("/linux/resources/memory/swap", "needs a memory limit beside it"),
        (Some(swap), Some(limit)) => {
            check.that(limit >= 0 && swap >= limit, "/linux/resources/memory/swap", || {
                format!("{swap} is memory and swap together, so it cannot be below the memory limit {limit}")
            })
        }
    }
}

fn memory(memory: &LinuxMemory, files: &mut Files, check: &mut Check, warnings: &mut Vec<String>) {
    check_memory(memory, check);
    let limit = memory.limit().filter(|limit| *limit != 0);
    // OCI counts memory and swap together, the kernel swap alone.
    match (memory.swap().filter(|swap| *swap != 0), limit) {
        (Some(-1), _) => files.put("memory.swap.max", "max"),
        (Some(swap), Some(limit)) if limit >= 0 && swap >= limit => {
            files.put("memory.swap.max", swap - limit);
        }
        _ => {}
    }
    // Memory without a limit is without one of swap, too: so it was with version 1, and callers rely on it.
    if limit.is_some_and(|limit| limit < 0) && memory.swap().unwrap_or(0) == 0 {
        files.put("memory.swap.max", "max");
    }
    if let Some(limit) = limit {
        files.put("memory.max", amount(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        files.put("memory.low", amount(reservation));
    }
    #[allow(deprecated)]
    let kernel = memory.kernel();
    for (given, name) in [
        (kernel.is_some_and(|limit| limit != 0), "kernel"),
        (memory.kernel_tcp().is_some_and(|limit| limit != 0), "kernelTCP"),
        (memory.swappiness().is_some(), "swappiness"),
        (memory.disable_oom_killer() == Some(true), "disableOOMKiller"),
    ] {
        if given {
            warnings.push(format!(
                "/linux/resources/memory/{name}: cgroup version 2 has no such setting; ignored"
            ));
        }
    }
}

fn cpu(cpu: &LinuxCpu, files: &mut Files, check: &mut Check) {
    if let Some(idle) = cpu.idle() {
        files.put("cpu.idle", idle);
    }
    // An idle cgroup has no weight.
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle().unwrap_or(0) == 0) {
        files.put("cpu.weight", weight_of_shares(shares));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or("max".into(), amount);
        files.put("cpu.max", period.map_or(quota.clone(), |period| format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst() {
        files.put("cpu.max.burst", burst);
    }
    for (list, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            files.put(file, list);
        }
    }
    let realtime = cpu.realtime_runtime().unwrap_or(0) != 0 || cpu.realtime_period().unwrap_or(0) != 0;
    check.that(!realtime, "/linux/resources/cpu", || "cgroup version 2 has no real-time limits".into());
}

/// The weight for CPU shares, by the curve runc and crun use since 2025: 2 to 1, 1024 to 100, 262144 to 10000.
pub fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    // Not libc's: it has a variant for each kind of processor, to be chosen when the program starts.
    let log = libm::log2(shares as f64);
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    libm::pow(10.0, exponent).ceil() as u64
}

fn block_io(io: &LinuxBlockIo, files: &mut Files, check: &mut Check, warnings: &mut Vec<String>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let good = (10..=1000).contains(&weight);
        check
            .that(good, "/linux/resources/blockIO/weight", || format!("{weight} is not between 10 and 1000"));
        if good {
            // BFQ takes the number as it is; io.weight reaches from 1 to 10000.
            let other = 1 + (u64::from(weight) - 10) * 9999 / 990;
            files.put("io.bfq.weight|io.weight", format!("{weight}|{other}"));
        }
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            files.put("io.bfq.weight", format!("{}:{} {weight}", device.major(), device.minor()));
        }
    }
    if io.leaf_weight().is_some() {
        warnings.push(
            "/linux/resources/blockIO/leafWeight: cgroup version 2 has no such setting; ignored".into(),
        );
    }
    let throttles: [(&Option<Vec<LinuxThrottleDevice>>, &str); 4] = [
        (io.throttle_read_bps_device(), "rbps"),
        (io.throttle_write_bps_device(), "wbps"),
        (io.throttle_read_iops_device(), "riops"),
        (io.throttle_write_iops_device(), "wiops"),
    ];
    for (devices, key) in throttles {
        for device in devices.iter().flatten() {
            // To the kernel the most that can be said is none, too.
            let rate =
                if matches!(device.rate(), 0 | u64::MAX) { "max".into() } else { device.rate().to_string() };
            files.put("io.max", format!("{}:{} {key}={rate}", device.major(), device.minor()));
        }
    }
}

fn unified(resources: &LinuxResources, files: &mut Files, check: &mut Check) {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        let good = file.contains('.')
            && !file.contains('/')
            && !file.starts_with('.')
            && !file.starts_with("cgroup.");
        let pointer = format!("/linux/resources/unified/{}", file.replace('/', "~1"));
        check.that(good, &pointer, || "is not the name of a controller's file".into());
        let is_value = !value.trim().is_empty() && !value.contains('\0');
        check.that(is_value, &pointer, || format!("{value:?} is no value that a file could have"));
        if good && is_value {
            files.put(file, value);
        }
    }
}

/// Notes what of `unified` is no limit at all.
pub fn check_unified(resources: &LinuxResources, check: &mut Check) {
    unified(resources, &mut Files::default(), check);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[(&str, &str)]) {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let mut problems = Check::default();
        let files = files(&resources, &mut problems, &mut Vec::new());
        assert!(problems.problems.is_empty(), "{:?}", problems.problems);
        let files: Vec<_> = files.iter().map(|(file, value)| (file.as_str(), value.as_str())).collect();
        assert_eq!(files, expected);
    }

    #[test]
    fn memory_and_swap_are_told_apart() {
        check(
            r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#,
            &[("memory.swap.max", "50"), ("memory.max", "100"), ("memory.low", "50")],
        );
        check(r#"{"memory":{"limit":-1,"swap":-1}}"#, &[("memory.swap.max", "max"), ("memory.max", "max")]);
        check(r#"{"memory":{"limit":0}}"#, &[]);
    }

    #[test]
    fn cpu_files() {
        check(
            r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1","burst":10}}"#,
            &[
                ("cpu.weight", "100"),
                ("cpu.max", "50000 100000"),
                ("cpu.max.burst", "10"),
                ("cpuset.cpus", "0-1"),
            ],
        );
        check(r#"{"cpu":{"quota":-1}}"#, &[("cpu.max", "max")]);
    }

    #[test]
    fn the_rest() {
        check(
            r#"{"pids":{"limit":-1},"unified":{"memory.high":"7"},
                "hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#,
            &[
                ("pids.max", "max"),
                ("hugetlb.2MB.max", "9"),
                ("hugetlb.2MB.rsvd.max", "9"),
                ("memory.high", "7"),
            ],
        );
    }

    /// It names a file of the cgroup.
    #[test]
    fn the_size_of_a_page_is_no_path() {
        for bad in ["", "MB", "2", "2mb", "../2MB", "2MB/..", "../../..", "2 MB", "2XMB"] {
            let limits = serde_json::json!({"hugepageLimits": [{"pageSize": bad, "limit": 1}]});
            let mut problems = Check::default();
            let made = files(&serde_json::from_value(limits).unwrap(), &mut problems, &mut Vec::new());
            assert!(made.is_empty(), "{bad}: {made:?}");
            assert_eq!(problems.problems[0].pointer, "/linux/resources/hugepageLimits/0/pageSize");
        }
    }

    #[test]
    fn a_small_limit_comes_last() {
        for (value, small) in [
            ("4096", Some(4096)),
            ("1048575", Some(1_048_575)),
            ("1048576", None),
            ("max", None),
            ("512K", None),
        ] {
            let files =
                [("memory.max".to_owned(), value.to_owned()), ("pids.max".to_owned(), "7".to_owned())];
            assert_eq!(small_limit(&files), small, "{value}");
            let with_room = with_room(&files);
            assert_eq!((with_room[0].1.as_str(), with_room[1].1.as_str()), ("1048576", "7"));
        }
        assert_eq!(small_limit(&[]), None);
    }

    #[test]
    fn a_scope_knows_its_limits() {
        let file = |file: &str, value: &str| (file.to_owned(), value.to_owned());
        let files = [file("memory.max", "max"), file("pids.max", "7"), file("cpu.max", "20000 50000")];
        let limits: Vec<_> = unit_properties(&files)
            .into_iter()
            .filter_map(|property| match property.value {
                Value::U64(value) => Some((property.name, value)),
                _ => None,
            })
            .collect();
        let expected = [
            ("MemoryMax", u64::MAX),
            ("TasksMax", 7),
            ("CPUQuotaPerSecUSec", 400_000),
            ("CPUQuotaPeriodUSec", 50_000),
        ];
        assert_eq!(limits, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn shares_follow_the_curve() {
        assert_eq!([1, 2, 1024, 262_144, u64::MAX].map(weight_of_shares), [1, 1, 100, 10_000, 10_000]);
    }
}
