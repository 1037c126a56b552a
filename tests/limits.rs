//! Limits: set and read back, kept by updates and by systemd, held by the kernel, and told of.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, cgroup2, is_root, require_root, skip, spawn, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Skips the test where cgroups of ours have no controllers.
macro_rules! require_controllers {
    () => {
        if let Some(reason) = without_controllers() {
            skip!(reason);
        }
    };
}

fn without_controllers() -> Option<&'static str> {
    let Some(mount) = cgroup2() else { return Some("no cgroup version 2") };
    let here = if is_root() {
        mount
    } else {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        mount.join(own).parent().unwrap().to_owned()
    };
    let controllers = fs::read_to_string(here.join("cgroup.controllers")).unwrap_or_default();
    let has_all = ["memory", "pids", "cpu"]
        .iter()
        .all(|name| controllers.split_whitespace().any(|found| found == *name));
    (!has_all).then_some("cgroup version 2 has no controllers here")
}

/// How a container's cgroup is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Driver {
    Cgroupfs,
    Systemd,
}

/// The drivers there are here.
fn drivers() -> Vec<Driver> {
    let session = is_root() || std::env::var_os("XDG_RUNTIME_DIR").is_some();
    let systemd = session && Path::new("/run/systemd/system").exists();
    std::iter::once(Driver::Cgroupfs).chain(systemd.then_some(Driver::Systemd)).collect()
}

/// Starts a container that waits, with limits.
fn limited(case: &mut Case, driver: Driver, resources: Value) {
    let out = try_limited(case, driver, "run", resources);
    assert_eq!(out.status, 0, "{driver:?} {out:?}");
}

/// The same where it may fail, by `create` or `run`.
fn try_limited(case: &mut Case, driver: Driver, verb: &str, resources: Value) -> common::Output {
    case.set("/linux/resources", resources);
    case.sh("sleep 1000");
    let bundle = case.bundle();
    let mut args = vec![];
    if driver == Driver::Systemd {
        case.set("/linux/cgroupsPath", json!(format!(":ctr-test:{}", case.id)));
        args.push("--systemd-cgroup");
    }
    let detach: &[&str] = if verb == "run" { &["--detach"] } else { &[] };
    args.extend(case.making(verb, bundle.to_str().unwrap(), detach));
    case.ctr(&args)
}

fn memory(kib: u64) -> Value {
    json!({"memory": {"limit": kib << 10, "swap": kib << 10}})
}

fn read(case: &Case, file: &str) -> String {
    let path = case.cgroup().unwrap().join(file);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim_end()
        .to_owned()
}

#[track_caller]
fn check(case: &Case, expected: &[(&str, &str)]) {
    for (file, value) in expected {
        assert_eq!(&read(case, file), value, "{file}");
    }
}

/// The disk that the directory `dir` is on, by its node and its numbers.
fn disk(dir: &Path) -> Option<(PathBuf, String)> {
    let dev = fs::metadata(dir).unwrap().dev();
    let numbers = format!("{}:{}", nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let uevent = fs::read_to_string(format!("/sys/dev/block/{numbers}/uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some((Path::new("/dev").join(name), numbers))
}

fn daemon_reload() {
    let mut command = Command::new("systemctl");
    if !is_root() {
        command.arg("--user");
    }
    assert!(command.arg("daemon-reload").status().unwrap().success());
}

const WANTED: &str = r#"{
    "devices": [{"allow": false, "access": "rwm"}],
    "memory": {"limit": 67108864, "swap": 100663296, "reservation": 33554432},
    "cpu": {"shares": 2048, "quota": 50000, "period": 100000, "burst": 10000},
    "pids": {"limit": 40},
    "unified": {"memory.high": "50331648"}
}"#;

const SET: [(&str, &str); 8] = [
    ("memory.max", "67108864"),
    ("memory.swap.max", "33554432"),
    ("memory.low", "33554432"),
    ("memory.high", "50331648"),
    ("cpu.weight", "174"),
    ("cpu.max", "50000 100000"),
    ("cpu.max.burst", "10000"),
    ("pids.max", "40"),
];

#[test]
fn what_is_set_is_kept_by_updates_and_by_systemd() {
    require_controllers!();
    for driver in drivers() {
        let mut case = case!();
        limited(&mut case, driver, serde_json::from_str(WANTED).unwrap());
        check(&case, &SET);
        if driver == Driver::Systemd {
            daemon_reload();
            check(&case, &SET);
        }
        // Another field.
        case.ctr(&["update", "--pids-limit", "50", &case.id]).ok();
        let mut expected = SET;
        expected[7].1 = "50";
        check(&case, &expected);
        // The quota may go below the burst; OCI's swap counts memory, too.
        case.ctr(&["update", "--cpu-quota", "5000", "--cpu-burst", "4000", "--memory", "80M", &case.id]).ok();
        for (file, value) in [
            ("cpu.max", "5000 100000"),
            ("cpu.max.burst", "4000"),
            ("memory.max", "83886080"),
            ("memory.swap.max", "16777216"),
        ] {
            expected.iter_mut().find(|(name, _)| *name == file).unwrap().1 = value;
        }
        check(&case, &expected);
        if driver == Driver::Systemd {
            daemon_reload();
            check(&case, &expected);
        }
        // No limit.
        case.ctr(&[
            "update",
            "--memory",
            "-1",
            "--memory-swap",
            "-1",
            "--pids-limit",
            "-1",
            "--cpu-quota",
            "-1",
            "--cpu-burst",
            "0",
            &case.id,
        ])
        .ok();
        check(
            &case,
            &[
                ("memory.max", "max"),
                ("memory.swap.max", "max"),
                ("pids.max", "max"),
                ("cpu.max", "max 100000"),
            ],
        );
        if driver == Driver::Systemd {
            daemon_reload();
            check(&case, &[("memory.max", "max"), ("pids.max", "max"), ("cpu.max", "max 100000")]);
        }
        assert_eq!(case.ctr(&["limits", &case.id]).status, 0, "no drift");
    }
}

/// systemd has a device policy of its own, and knows slices by names that tell where they lie.
#[test]
fn slices_nest_and_devices_stay_denied_when_systemd_reloads() {
    require_controllers!();
    if !drivers().contains(&Driver::Systemd) {
        skip!("systemd does not run here");
    }
    let mut case = case!();
    case.mount("bind", "/dev/kmsg", "/kmsg", &["bind"]);
    case.set("/linux/resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    case.set("/linux/cgroupsPath", json!(format!("ctr_test-inner.slice:pre:{}", case.id)));
    case.sh("sleep 1000");
    let bundle = case.bundle();
    let args = [&["--systemd-cgroup"], &case.making("run", bundle.to_str().unwrap(), &["--detach"])[..]];
    case.ctr(&args.concat()).ok();
    let place = format!("ctr_test.slice/ctr_test-inner.slice/pre-{}.scope", case.id);
    assert!(case.cgroup().unwrap().ends_with(&place), "{:?}", case.cgroup());
    for moment in ["at first", "after a reload"] {
        assert_eq!(case.exec(&["sh", "-c", ": > /dev/null"]).status, 0, "{moment}");
        if is_root() {
            let said = case.exec(&["sh", "-c", ": < /kmsg"]).err();
            assert!(said.to_lowercase().contains("operation not permitted"), "{moment}: {said}");
        }
        daemon_reload();
    }
}

#[test]
fn an_update_from_a_file_or_standard_input_merges() {
    require_controllers!();
    let mut case = case!();
    limited(&mut case, Driver::Cgroupfs, serde_json::from_str(WANTED).unwrap());
    // What engines send: all fields, those not meant being 0.
    let text = r#"{"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 20000, "period": 0, "cpus": ""}, "pids": {"limit": 0}}"#;
    case.ctr_with_input(&["update", "-r", "-", &case.id], text).ok();
    let mut expected = SET;
    expected[5].1 = "20000 100000";
    check(&case, &expected);
    let file = case.path("limits.json");
    fs::write(&file, r#"{"pids": {"limit": 9}}"#).unwrap();
    // As with runc, flags beside a file do not count.
    let out = case.ctr(&["update", "--resources", file.to_str().unwrap(), "--pids-limit", "11", &case.id]);
    assert!(out.status == 0 && out.stderr.contains("the other flags for limits do not count"), "{out:?}");
    expected[7].1 = "9";
    check(&case, &expected);
}

#[test]
fn an_update_that_fails_changes_nothing() {
    require_controllers!();
    let mut case = case!();
    limited(&mut case, Driver::Cgroupfs, serde_json::from_str(WANTED).unwrap());
    let text = r#"{"memory": {"limit": 73400320}, "pids": {"limit": 7}, "unified": {"memory.oom.group": "nonsense"}}"#;
    let error = case.ctr_with_input(&["update", "-r", "-", &case.id], text).err();
    assert!(error.contains("memory.oom.group") && error.contains("invalid argument"), "{error}");
    check(&case, &SET);
    // With systemd, which was told all of it before the last one failed.
    for driver in drivers() {
        let mut case = case!();
        limited(&mut case, driver, serde_json::from_str(WANTED).unwrap());
        let text = r#"{"pids": {"limit": 33}, "unified": {"memory.oom.group": "nonsense"}}"#;
        case.ctr_with_input(&["update", "-r", "-", &case.id], text).err();
        check(&case, &SET);
        assert_eq!(case.ctr(&["limits", &case.id]).status, 0, "{driver:?}");
    }
    let error = case.ctr(&["update", "--memory", "90M", "--memory-swap", "80M", &case.id]).err();
    assert!(error.contains("/linux/resources/memory/swap"), "{error}");
    let error = case.ctr(&["update", "--cpu-rt-runtime", "5000", &case.id]).err();
    assert!(error.contains("real-time"), "{error}");
    check(&case, &SET);
    assert_eq!(case.ctr(&["limits", &case.id]).status, 0, "and nothing else was asked for");
    // What is in use stays allowed, if that is wished.
    let text = r#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#;
    let error = case.ctr_with_input(&["update", "-r", "-", &case.id], text).err();
    assert!(error.contains("checkBeforeUpdate"), "{error}");
}

#[test]
fn processors_and_disks_are_limited() {
    require_root!();
    require_controllers!();
    let Some((_, numbers)) = disk(Path::new("/")) else { skip!("/ is on no disk") };
    let (major, minor) = numbers.split_once(':').unwrap();
    let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
    for driver in drivers() {
        let mut case = case!();
        let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        let wanted = json!({
            "cpu": {"cpus": "0", "mems": "0"},
            "blockIO": {"weight": 100, "throttleReadBpsDevice": device(2 << 20), "throttleWriteIOPSDevice": device(500)},
        });
        limited(&mut case, driver, wanted);
        let holds = |case: &Case| {
            check(case, &[("cpuset.cpus", "0"), ("cpuset.mems", "0"), ("cpuset.cpus.effective", "0")]);
            let line = read(case, "io.max");
            assert!(line.ends_with("rbps=2097152 wbps=max riops=max wiops=500"), "{line}");
        };
        holds(&case);
        if driver == Driver::Systemd {
            daemon_reload();
            holds(&case);
        }
        let change = json!({"blockIO": {"throttleReadBpsDevice": device(0)}});
        case.ctr_with_input(&["update", "-r", "-", &case.id], &change.to_string()).ok();
        let line = read(&case, "io.max");
        assert!(line.ends_with("rbps=max wbps=max riops=max wiops=500"), "{line}");
    }
}

// What the kernel does about them

/// Flags of the image door with the driver's manager.
fn hosted<'a>(driver: Driver, flags: &[&'a str]) -> Vec<&'a str> {
    let manager = if driver == Driver::Systemd { "systemd" } else { "cgroupfs" };
    [&["--cgroup-manager", manager], flags].concat()
}

fn host(case: &Case, driver: Driver, flags: &[&str], script: &str) -> common::Output {
    let (global, verb) = (
        hosted(driver, &[]),
        case.hosting(&[&["--rm"], flags].concat(), &["sh", "-c", script]).join("\u{1f}"),
    );
    let verb: Vec<&str> = verb.split('\u{1f}').collect();
    case.ctr(&[global, verb].concat())
}

#[test]
fn a_memory_hog_is_killed() {
    require_controllers!();
    for driver in drivers() {
        let case = case!();
        let out = host(
            &case,
            driver,
            &["--memory", "64M", "--swap", "0"],
            "dd if=/dev/zero of=/dev/null bs=100M count=1",
        );
        assert_eq!(out.status, 137, "{driver:?} {out:?}");
        let case = case!();
        let out = host(
            &case,
            driver,
            &["--memory", "64M", "--swap", "0"],
            "dd if=/dev/zero of=/dev/null bs=10M count=1",
        );
        assert_eq!(out.status, 0, "{driver:?} {out:?}");
    }
}

/// Nothing is limited so little that nobody knows why it does not start.
#[test]
fn a_limit_that_leaves_no_room_says_what_is_needed() {
    require_controllers!();
    for driver in drivers() {
        for verb in ["create", "run"] {
            let mut case = case!();
            let said = try_limited(&mut case, driver, verb, memory(4)).err();
            let floor =
                said.split_once("the memory limit of 4 KiB is too small to start this container in: ");
            let floor = floor
                .and_then(|(_, rest)| rest.split_once("what comes before its program takes "))
                .unwrap()
                .1;
            let floor: u64 = floor.split(' ').next().unwrap().parse().unwrap();
            assert!(floor > 4 && floor < 1024, "{said}");
            assert!(case.cgroup().is_none(), "nothing is left");
            // That much and the program's own is enough.
            let mut case = case!();
            let out = try_limited(&mut case, driver, verb, memory(floor + 400));
            assert_eq!(out.status, 0, "{driver:?} {verb} {out:?}");
            let limit = ((floor + 400) << 10).to_string();
            check(&case, &[("memory.max", &limit), ("memory.high", "max")]);
            if driver == Driver::Systemd {
                daemon_reload();
                check(&case, &[("memory.max", &limit)]);
            }
            if verb == "create" {
                case.ctr(&["start", &case.id]).ok();
            }
            assert_eq!(case.status(), "running");
        }
    }
}

/// The program is what is too much: the kernel kills it while it starts.
#[test]
fn a_program_that_has_no_room_to_start_is_told_from_one_that_ran() {
    require_controllers!();
    let mut case = case!();
    let said = try_limited(&mut case, Driver::Cgroupfs, "run", memory(4)).err();
    let floor = said.rsplit_once(" takes ").unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap();
    // One page above the least is enough for all but a program.
    let mut seen = false;
    for kib in (floor + 4..floor + 64).step_by(4) {
        let mut case = case!();
        let out = try_limited(&mut case, Driver::Cgroupfs, "run", memory(kib));
        seen |= out.status != 0 && out.stderr.contains("start the container's program: the memory limit of");
    }
    assert!(seen, "the least is {floor} KiB");
}

#[test]
fn a_hook_that_may_not_be_started_says_why() {
    require_controllers!();
    let mut case = case!();
    case.set("/hooks", json!({"createContainer": [{"path": "/bin/true"}]}));
    let said = try_limited(&mut case, Driver::Cgroupfs, "run", json!({"pids": {"limit": 1}})).err();
    assert!(said.contains("createContainer hook") && said.contains("pids.max of the cgroup"), "{said}");
}

#[test]
fn a_fork_bomb_is_stopped() {
    require_controllers!();
    for driver in drivers() {
        let case = case!();
        let script =
            "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1000 & done; echo all";
        let out = host(&case, driver, &["--pids", "16"], script);
        assert!(out.status != 0 && !out.stdout.contains("all"), "{driver:?} {out:?}");
        assert!(out.stderr.contains("fork"), "{out:?}");
    }
}

#[test]
fn a_busy_program_is_held_to_its_quota() {
    require_controllers!();
    for driver in drivers() {
        let case = case!();
        let args = [
            hosted(driver, &[]),
            case.hosting(&["--detach", "--cpus", "0.2"], &["sh", "-c", "while :; do :; done"]),
        ]
        .concat();
        case.ctr(&args).ok();
        let usage = || {
            let stat = read(&case, "cpu.stat");
            let find = |name: &str| {
                stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap()
            };
            (find("usage_usec "), find("nr_throttled "))
        };
        let ((before, _), begin) = (usage(), Instant::now());
        std::thread::sleep(Duration::from_secs(3));
        let ((after, throttled), elapsed) = (usage(), begin.elapsed());
        // A period more may have begun and ended within.
        let most = (elapsed.as_secs_f64() + 0.1) * 0.2 * 1.05;
        assert!((after - before) / 1e6 <= most, "{driver:?}: {} s in {elapsed:?}", (after - before) / 1e6);
        assert!(throttled > 0.0);
    }
}

#[test]
fn a_disk_is_written_no_faster_than_allowed() {
    require_root!();
    require_controllers!();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some((node, _)) = disk(dir.path()) else { skip!("/var/tmp is on no disk") };
    for driver in drivers() {
        let case = case!();
        let volume = format!("--volume={}:/data", dir.path().display());
        let rate = format!("--device-write-bps={}:1M", node.display());
        let begin = Instant::now();
        let script = "exec dd if=/dev/zero of=/data/file bs=64k count=48 oflag=direct";
        assert_eq!(host(&case, driver, &[&volume, &rate], script).status, 0);
        // 3 MiB at 1 MiB a second, of which the first may come at once.
        assert!(begin.elapsed() > Duration::from_millis(1900), "{driver:?}: {:?}", begin.elapsed());
    }
}

#[test]
fn huge_pages_are_refused_beyond_the_limit() {
    require_root!();
    require_controllers!();
    let free =
        fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    if free.trim().parse::<u32>().unwrap_or(0) < 4 {
        skip!("the machine has set no huge pages aside (vm.nr_hugepages)");
    }
    let script = "exec python3 -c 'import mmap; m = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000); m[0] = 1; m[2 << 20] = 1; print(1)'";
    for driver in drivers() {
        let case = case!();
        let out = host(&case, driver, &["--hugetlb", "2MB=2M"], script);
        assert!(out.status != 0, "{driver:?} {out:?}");
        assert_eq!(host(&case, driver, &["--hugetlb", "2MB=4M"], script).ok(), "1\n");
    }
}

// What is told

#[test]
fn the_table_tells_who_binds_and_what_has_drifted() {
    require_root!();
    require_controllers!();
    let mut case = case!();
    let parent = cgroup2().unwrap().join(format!("ctr-test-{}", case.id));
    case.set("/linux/cgroupsPath", json!(format!("/ctr-test-{}/own", case.id)));
    limited(&mut case, Driver::Cgroupfs, serde_json::from_str(WANTED).unwrap());
    fs::write(parent.join("memory.max"), "16777216").unwrap();
    let table =
        || -> Value { serde_json::from_str(&case.ctr(&["limits", "--json", &case.id]).later()).unwrap() };
    let row = |table: &Value, name: &str| {
        table["resources"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
    };
    let memory = row(&table(), "memory");
    assert_eq!(
        (&memory["limit"], &memory["effective"]),
        (&json!(67_108_864), &json!(16_777_216)),
        "{memory}"
    );
    assert_eq!(memory["boundBy"], json!(parent), "{memory}");
    assert_eq!(memory["barrier"], json!(50_331_648));
    assert!(memory["held"].as_u64().unwrap() > 0 && memory["failcnt"] == 0, "{memory}");
    let cpu = row(&table(), "cpu");
    assert_eq!((&cpu["limit"], &cpu["requested"]), (&json!(500_000), &json!("50000 100000")), "{cpu}");
    let pids = row(&table(), "pids");
    assert_eq!(
        (&pids["limit"], &pids["effective"], &pids["held"]),
        (&json!(40), &json!(40), &json!(1)),
        "{pids}"
    );
    assert_eq!(table()["drift"], json!([]));
    assert_eq!(case.ctr(&["limits", &case.id]).status, 0);
    // Somebody changes it.
    fs::write(case.cgroup().unwrap().join("pids.max"), "max").unwrap();
    let out = case.ctr(&["limits", &case.id]);
    assert_eq!(out.status, 3, "{out:?}");
    assert!(out.stdout.contains("pids.max is \"max\", not \"40\""), "{out:?}");
    case.ctr(&["update", "--pids-limit", "40", &case.id]).ok();
    assert_eq!(case.ctr(&["limits", &case.id]).status, 0);
    case.ctr(&["delete", "--force", &case.id]).ok();
    fs::remove_dir(parent).unwrap();
}

#[test]
fn events_tell_what_is_used_and_when_memory_runs_out() {
    require_controllers!();
    let mut case = case!();
    limited(&mut case, Driver::Cgroupfs, json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}}));
    let stats: Value = serde_json::from_str(&case.ctr(&["events", "--stats", &case.id]).ok()).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(case.id)));
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 33_554_432, "{stats}");
    assert!(
        data["memory"]["usage"]["usage"].as_u64().unwrap() > 0 && data["pids"]["current"] == 1,
        "{stats}"
    );
    assert!(
        data["cpu"]["usage"]["total"].as_u64().unwrap() > 0 && data["memory"]["raw"]["anon"].is_u64(),
        "{stats}"
    );
    let watching = spawn(case.dir(), &mut case.command(&["events", "--interval", "100ms", &case.id]));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(case.exec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]).status, 137);
    std::thread::sleep(Duration::from_millis(300));
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    let out = watching.wait();
    assert_eq!(out.status, 0, "{out:?}");
    let kinds: Vec<Value> =
        out.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone()).collect();
    assert!(
        kinds.iter().filter(|kind| *kind == "stats").count() > 2 && kinds.contains(&json!("oom")),
        "{out:?}"
    );
    wait_for("the end", || case.status() == "stopped");
    assert!(case.ctr(&["events", "--stats", &case.id]).err().contains("not running"));
}

/// A service's cgroup has the service's processes in it, and so can hand nothing down before they are moved.
#[test]
fn the_cgroup_of_a_service_with_delegate_is_used() {
    require_root!();
    if !drivers().contains(&Driver::Systemd) || cgroup2().as_deref() != Some(Path::new("/sys/fs/cgroup")) {
        skip!("no systemd to run a service");
    }
    const NOBODY: u32 = 65534;
    let case = case!();
    let place = case.path("places");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new("systemd-run");
    command.args([
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        "--uid=65534",
        "--gid=65534",
        "-pDelegate=yes",
    ]);
    command.arg(format!("-pEnvironment=CTR_STORE={}", place.join("store").display()));
    command.arg(format!("-pWorkingDirectory={}", place.display())).arg("--").arg(common::program());
    command
        .arg("--root")
        .arg(place.join("root"))
        .args(["run", "--rm", "--image", "host", "--memory", "64M", "--pids", "9"]);
    command.args(["--", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"]);
    let out = spawn(case.dir(), &mut command).wait();
    assert_eq!((out.status, out.stdout.as_str()), (0, "67108864\n9\n"), "{out:?}");
}

/// `--limits` decides what becomes of a limit that cannot be had.
#[test]
fn a_limit_that_cannot_be_had_is_an_error_or_a_warning() {
    let in_version_1 = is_root() && Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    if without_controllers().is_none() || in_version_1 {
        skip!("every limit can be had here");
    }
    let case = case!();
    let out = case.host(&["--memory", "64M"], "echo ran");
    assert!(out.status == 125 && out.stdout.is_empty(), "{out:?}");
    assert!(out.stderr.contains("memory") || out.stderr.contains("cgroup"), "{out:?}");
    let out = case.host(&["--memory", "64M", "--pids", "7", "--limits", "best-effort"], "echo ran");
    assert_eq!((out.status, out.stdout.as_str()), (0, "ran\n"), "{out:?}");
    assert!(
        out.stderr.contains("not limited") && out.stderr.contains("memory") && out.stderr.contains("pids"),
        "{out:?}"
    );
    let out = case.ctr(
        &[&["--cgroup-manager", "disabled"], &case.hosting(&["--rm", "--pids", "7"], &["true"])[..]].concat(),
    );
    assert!(out.status == 125 && out.stderr.contains("--cgroup-manager disabled"), "{out:?}");
}
