//! Limits where the controllers are in version 1 (hybrid), as root: set, read back, held by the kernel, and nothing left.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, is_root, record, skip, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Skips the test where version 1 has not what it needs.
macro_rules! require_v1 {
    () => {
        if !is_root() {
            skip!("only root may use controllers of cgroup version 1");
        }
        let mounts = hierarchies();
        if let Some(name) =
            ["memory", "cpu", "cpuset", "pids", "blkio"].iter().find(|name| !mounts.contains_key(**name))
        {
            skip!(format!("no controller {name} of cgroup version 1 is mounted"));
        }
        if !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
            skip!("no cgroup version 2 beside version 1");
        }
    };
}

/// Where the hierarchies of version 1 are mounted, by controller.
fn hierarchies() -> BTreeMap<String, PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found = BTreeMap::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields[2] == "cgroup" {
            found.extend(fields[3].split(',').map(|option| (option.to_owned(), PathBuf::from(fields[1]))));
        }
    }
    found
}

/// The directories of the cgroups that the process `pid` is in, but for those that are not of the container.
fn cgroups(case: &Case, pid: i32) -> BTreeMap<String, PathBuf> {
    let mounts = hierarchies();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let own = lines.filter(|(_, path)| path.ends_with(&case.id));
    own.flat_map(|(names, path)| names.split(',').map(move |name| (name, path)))
        .filter_map(|(name, path)| {
            Some((name.to_owned(), mounts.get(name)?.join(path.trim_start_matches('/'))))
        })
        .collect()
}

/// The value of a file of the container's cgroup.
#[track_caller]
fn read(case: &Case, file: &str) -> String {
    let dirs = cgroups(case, case.pid());
    let dir = &dirs.get(file.split('.').next().unwrap()).unwrap_or_else(|| panic!("{file}: {dirs:?}"));
    fs::read_to_string(dir.join(file)).unwrap().trim_end().to_owned()
}

#[track_caller]
fn check(case: &Case, expected: &[(&str, &str)]) {
    for (file, value) in expected {
        assert_eq!(&read(case, file), value, "{file}");
    }
}

/// All cgroups, of whatever hierarchy, whose name ends with that of the container.
fn left(case: &Case) -> Vec<PathBuf> {
    fn look(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().ends_with(name) {
                    found.push(entry.path());
                }
                look(&entry.path(), name, found);
            }
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), &case.id, &mut found);
    found
}

/// Starts a container that waits, with limits.
fn limited(case: &mut Case, resources: Value) {
    case.without_cgroup_path().set("/linux/resources", resources);
    case.sh("sleep 1000");
    case.run_with(&["--detach"]).ok();
}

/// A shell that waits for others, whatever becomes of it.
const HOG: &str = "tail /dev/zero";

const WANTED: &str = r#"{
    "devices": [{"allow": false, "access": "rwm"}],
    "memory": {"limit": 67108864, "swap": 100663296, "reservation": 33554432, "swappiness": 10, "disableOOMKiller": false},
    "cpu": {"shares": 2048, "quota": 50000, "period": 100000, "burst": 10000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 40}
}"#;

const SET: [(&str, &str); 10] = [
    ("memory.limit_in_bytes", "67108864"),
    ("memory.memsw.limit_in_bytes", "100663296"),
    ("memory.soft_limit_in_bytes", "33554432"),
    ("memory.swappiness", "10"),
    ("cpu.shares", "2048"),
    ("cpu.cfs_quota_us", "50000"),
    ("cpu.cfs_burst_us", "10000"),
    ("cpuset.cpus", "0"),
    ("cpuset.mems", "0"),
    ("pids.max", "40"),
];

#[test]
fn what_is_set_is_read_back_kept_by_updates_and_gone_with_the_container() {
    require_v1!();
    let mut case = case!();
    limited(&mut case, serde_json::from_str(WANTED).unwrap());
    check(&case, &SET);
    let mut names: Vec<String> = cgroups(&case, case.pid()).into_keys().collect();
    // Where the two share a hierarchy.
    names.retain(|name| name != "cpuacct");
    assert_eq!(names, ["cpu", "cpuset", "memory", "pids"], "no more than is needed");
    let limits = case.ctr(&["limits", "--json", &case.id]).ok();
    let limits: Value = serde_json::from_str(&limits).unwrap();
    assert_eq!(limits["drift"], json!([]));
    let row = |limits: &Value, name: &str| {
        let rows = limits["resources"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {limits:#}")).clone()
    };
    assert_eq!(
        (&row(&limits, "memory")["limit"], &row(&limits, "swap")["limit"]),
        (&json!(64 << 20), &json!(32 << 20))
    );
    assert_eq!((&row(&limits, "pids")["held"], &row(&limits, "cpu")["limit"]), (&json!(1), &json!(500_000)));
    assert!(row(&limits, "memory")["maxheld"].as_u64().unwrap() > 0);
    // Another field.
    case.ctr(&["update", "--pids-limit", "50", &case.id]).ok();
    let mut expected = SET;
    expected[9].1 = "50";
    check(&case, &expected);
    // Up, and down again: neither order of the two of memory goes both ways. The quota may go below the burst.
    for (both, memory) in [("160M", "128M"), ("80M", "64M")] {
        case.ctr(&["update", "--memory", memory, "--memory-swap", both, &case.id]).ok();
    }
    case.ctr(&["update", "--cpu-quota", "5000", "--cpu-burst", "4000", &case.id]).ok();
    (expected[1].1, expected[5].1, expected[6].1) = ("83886080", "5000", "4000");
    check(&case, &expected);
    // One that fails changes nothing.
    let text =
        r#"{"memory": {"limit": 73400320, "swap": 94371840}, "pids": {"limit": 7}, "cpu": {"cpus": "4000"}}"#;
    let error = case.ctr_with_input(&["update", "-r", "-", &case.id], text).err();
    assert!(error.contains("cpuset.cpus"), "{error}");
    check(&case, &expected);
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
    let unlimited = "9223372036854771712";
    check(
        &case,
        &[
            ("memory.limit_in_bytes", unlimited),
            ("memory.memsw.limit_in_bytes", unlimited),
            ("pids.max", "max"),
            ("cpu.cfs_quota_us", "-1"),
        ],
    );
    case.ctr(&["limits", &case.id]).ok();
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert_eq!(left(&case), [""; 0].map(PathBuf::from));
}

#[test]
fn another_process_is_in_the_same_cgroups() {
    require_v1!();
    for given in [None, Some("relative"), Some("/absolute")] {
        let mut case = case!();
        limited(&mut case, json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 40}}));
        if let Some(given) = given {
            case.ctr(&["delete", "--force", &case.id]).ok();
            case.set("/linux/cgroupsPath", json!(format!("{given}-{}", case.id)));
            case.run_with(&["--detach"]).ok();
        }
        let own = cgroups(&case, case.pid());
        let all = hierarchies();
        let named = |name: &String| own.contains_key(name);
        match given {
            None => assert_eq!(own.len(), 2, "{own:?}"),
            // Engines look for what they want to know in each of them.
            Some(_) => {
                let kinds = ["blkio", "cpuacct", "devices", "freezer", "name=systemd"].map(str::to_owned);
                assert!(kinds.iter().filter(|name| all.contains_key(*name)).all(named), "{own:?}");
            }
        }
        if given == Some("/absolute") {
            assert_eq!(own["memory"], all["memory"].join(format!("absolute-{}", case.id)));
        }
        case.exec_with(&["--detach", "--pid-file", case.path("pid").to_str().unwrap()], &["sleep", "1000"])
            .ok();
        let pid = fs::read_to_string(case.path("pid")).unwrap().parse().unwrap();
        assert_eq!(cgroups(&case, pid), own);
        // Seen from inside its cgroup is the root of all, in version 1, too.
        let seen = case.exec(&["cat", "/proc/1/cgroup"]).ok();
        let path = |name: &str| {
            seen.lines().find_map(|line| line.split_once(&format!(":{name}:")).map(|(_, path)| path))
        };
        assert_eq!((path("memory"), path("pids")), (Some("/"), Some("/")), "{seen}");
        case.ctr(&["delete", "--force", &case.id]).ok();
        assert_eq!(left(&case), [""; 0].map(PathBuf::from));
    }
}

#[test]
fn a_container_without_limits_is_in_none() {
    require_v1!();
    let mut case = case!();
    case.without_cgroup_path().up();
    assert_eq!(cgroups(&case, case.pid()), BTreeMap::new());
    assert_eq!(record(&case.store().join(&case.id)).unwrap().get("cgroupV1"), None);
    // It is put into those that an update needs, with all that runs in it.
    case.exec_with(&["--detach", "--pid-file", case.path("pid").to_str().unwrap()], &["sleep", "1000"]).ok();
    case.ctr(&["update", "--pids-limit", "30", "--memory", "64M", &case.id]).ok();
    check(&case, &[("pids.max", "30"), ("memory.limit_in_bytes", "67108864")]);
    let pid = fs::read_to_string(case.path("pid")).unwrap().parse().unwrap();
    assert_eq!(cgroups(&case, pid), cgroups(&case, case.pid()));
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert_eq!(left(&case), [""; 0].map(PathBuf::from));
}

#[test]
fn a_memory_hog_is_killed_and_it_is_told_whose_limit_it_was() {
    require_v1!();
    let case = case!();
    let out = case.ctr(&case.hosting(&["--memory", "32M", "--swap", "0"], &["sh", "-c", HOG]));
    assert_eq!(out.status, 137, "{out:?}");
    let why: Value = serde_json::from_str(&case.ctr(&["why", "--json", &case.id]).ok()).unwrap();
    let found = ["cause", "limit"].map(|key| why[key].as_str().unwrap_or_default().to_owned());
    assert_eq!(found, ["out-of-memory", "own"], "{why:#}");
    // By that of a cgroup above, which is not ours to say more of.
    let above = hierarchies()["memory"].join(format!("ctr-test-above-{}", case.id));
    fs::create_dir(&above).unwrap();
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        fs::write(above.join(file), "33554432").unwrap();
    }
    let mut inner = Case::new().unwrap();
    inner.set("/linux/cgroupsPath", json!(format!("/ctr-test-above-{}/{}", case.id, inner.id)));
    inner.set("/linux/resources", json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}}));
    let out = inner.sh(HOG).run();
    let why: Value = serde_json::from_str(&inner.ctr(&["why", "--json", &inner.id]).ok()).unwrap();
    let made: Vec<PathBuf> =
        hierarchies().values().map(|mount| mount.join(above.file_name().unwrap())).collect();
    let unified = Path::new("/sys/fs/cgroup/unified").join(above.file_name().unwrap());
    for dir in made.iter().chain([&unified]).filter(|dir| dir.exists()) {
        fs::remove_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    assert_eq!(out.status, 137, "{out:?}");
    assert_eq!(
        (why["cause"].as_str(), why["limit"].as_str()),
        (Some("out-of-memory"), Some("ancestor")),
        "{why:#}"
    );
}

#[test]
fn a_fork_bomb_is_stopped() {
    require_v1!();
    let case = case!();
    let script = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; wait";
    let out = case.ctr(&case.hosting(&["--pids", "10"], &["sh", "-c", script]));
    assert_ne!(out.status, 0, "{out:?}");
    let why: Value = serde_json::from_str(&case.ctr(&["why", "--json", &case.id]).ok()).unwrap();
    assert_eq!(
        (why["cause"].as_str(), why["limit"].as_str()),
        (Some("pids-exhausted"), Some("own")),
        "{why:#}"
    );
}

#[test]
fn a_quota_is_held_and_expectations_are_answered() {
    require_v1!();
    let case = case!();
    let report = case.path("report.json");
    let flags =
        ["--cpus", "0.25", "--memory", "64M", "--expect", "memory.peak<32M,pids.peak<9,no-oom", "--report"];
    let script = "timeout 4 sh -c 'while :; do :; done'; true";
    case.host(&[&flags[..], &[report.to_str().unwrap()]].concat(), script).ok();
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let (used, took) = (report["cpuSeconds"].as_f64().unwrap(), report["seconds"].as_f64().unwrap());
    assert!((0.2..0.275).contains(&(used / 4.0)), "{used} s of 4 s: {report:#}");
    assert!(took >= 4.0 && report["throttledSeconds"].as_f64().unwrap() > 1.0, "{report:#}");
    assert_eq!(report["passed"], true, "{report:#}");
    // One that is not met.
    let out = case
        .host(&["--memory", "64M", "--expect", "memory.peak<1M"], "head -c 8M /dev/zero | tail >/dev/null");
    assert_ne!(out.status, 0, "{out:?}");
}

#[test]
fn events_tell_of_version_1() {
    require_v1!();
    let mut case = case!();
    limited(&mut case, serde_json::from_str(WANTED).unwrap());
    let stats: Value = serde_json::from_str(&case.ctr(&["events", "--stats", &case.id]).ok()).unwrap();
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!((&data["pids"]["limit"], &data["pids"]["current"]), (&json!(40), &json!(1)));
    assert!(
        data["memory"]["usage"]["usage"].as_u64().unwrap() > 0
            && data["cpu"]["usage"]["total"].as_u64().unwrap() > 0
    );
    assert!(data["memory"]["raw"]["total_rss"].is_u64(), "{data:#}");
    assert_eq!(data["cpuset"]["cpus"], json!([0]));
    assert!(case.ctr(&["ps", &case.id]).ok().contains("sleep"));
}

/// At once, not at the next of the intervals.
#[test]
fn events_tell_when_memory_runs_out() {
    require_v1!();
    let mut case = case!();
    case.without_cgroup_path()
        .set("/linux/resources", json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}));
    case.sh("while [ ! -e /tmp/go ]; do sleep .1; done; tail /dev/zero; sleep 1000");
    case.run_with(&["--detach"]).ok();
    let mut events = case.spawn(&["events", "--interval", "50s", &case.id]);
    std::thread::sleep(Duration::from_secs(1));
    case.exec(&["touch", "/tmp/go"]).ok();
    let dir = cgroups(&case, case.pid())["memory"].clone();
    wait_for("a kill", || fs::read_to_string(dir.join("memory.oom_control")).unwrap().contains("oom_kill 1"));
    std::thread::sleep(Duration::from_secs(2));
    events.child.kill().unwrap();
    let lines = events.wait().stdout;
    assert!(lines.contains(r#""type":"oom""#), "{lines}");
}

#[test]
fn what_somebody_else_changes_is_seen() {
    require_v1!();
    let mut case = case!();
    limited(&mut case, json!({"pids": {"limit": 40}, "cpu": {"shares": 512}}));
    fs::write(cgroups(&case, case.pid())["pids"].join("pids.max"), "max").unwrap();
    fs::write(cgroups(&case, case.pid())["cpu"].join("cpu.shares"), "1024").unwrap();
    let out = case.ctr(&["limits", &case.id]);
    assert_eq!(out.status, 3, "{out:?}");
    assert!(out.stdout.contains("cpu.shares is \"1024\", not \"512\""), "{}", out.stdout);
    assert!(out.stdout.contains("pids.max is \"max\", not \"40\""), "{}", out.stdout);
}

#[test]
fn disks_are_limited() {
    require_v1!();
    let Some(numbers) = fs::read_dir("/sys/block").unwrap().flatten().find_map(|entry| {
        let text = fs::read_to_string(entry.path().join("dev")).ok()?;
        let is_real = !entry.file_name().to_string_lossy().starts_with("loop");
        is_real.then(|| text.trim().to_owned())
    }) else {
        skip!("no disk")
    };
    let (major, minor) = numbers.split_once(':').unwrap();
    let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let mut case = case!();
    limited(
        &mut case,
        json!({"blockIO": {"throttleReadBpsDevice": device(2 << 20), "throttleWriteIOPSDevice": device(500)}}),
    );
    let read_bps = format!("{numbers} 2097152");
    let write_iops = format!("{numbers} 500");
    check(
        &case,
        &[("blkio.throttle.read_bps_device", &read_bps), ("blkio.throttle.write_iops_device", &write_iops)],
    );
    let change = json!({"blockIO": {"throttleReadBpsDevice": device(0)}});
    case.ctr_with_input(&["update", "-r", "-", &case.id], &change.to_string()).ok();
    check(
        &case,
        &[("blkio.throttle.read_bps_device", ""), ("blkio.throttle.write_iops_device", &write_iops)],
    );
    let limits = case.ctr(&["limits", &case.id]).ok();
    assert!(limits.contains(&format!("io.{numbers}.wiops")), "{limits}");
}

#[test]
fn what_version_1_has_not_is_refused_or_warned_of() {
    require_v1!();
    let case = case!();
    let out = case.host(&["--cgroup-conf", "memory.high=33554432"], "true");
    assert_eq!(out.status, 125, "{out:?}");
    assert!(
        out.stderr.contains("the controller memory, which is in version 1 here, does not have this limit"),
        "{out:?}"
    );
    let out = case.host(&["--limits", "best-effort", "--cgroup-conf", "memory.high=33554432"], "echo ran");
    assert!(out.stderr.contains("warning: not limited: ") && out.stdout == "ran\n", "{out:?}");
    let out = case.ctr(
        &[&["--cgroup-manager", "disabled"], &case.hosting(&["--rm", "--pids", "7"], &["true"])[..]].concat(),
    );
    assert!(out.status == 125 && out.stderr.contains("--cgroup-manager disabled"), "{out:?}");
    // runc refuses it in version 1, and so do we.
    let mut case = case!();
    if !hierarchies().contains_key("net_cls") {
        let error = case.set("/linux/resources", json!({"network": {"classID": 7}})).run().err();
        assert!(error.contains("net_cls of version 1 is not mounted here"), "{error}");
    }
    assert_eq!(left(&case), [""; 0].map(PathBuf::from));
}

#[test]
fn an_ordinary_user_is_told_the_controller() {
    require_v1!();
    let case = case!();
    let run = |policy: &str| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
            .arg(common::program());
        let dir = case.path("user");
        command.arg("--root").arg(dir.join("root")).env("CTR_STORE", dir.join("store")).env_remove("CTR_BIN");
        command.args(["plan", "run", "--image", "host", "--limits", policy, "--memory", "64M", "--", "true"]);
        common::spawn(case.dir(), &mut command).wait()
    };
    fs::create_dir(case.path("user")).unwrap();
    nix::unistd::chown(&case.path("user"), Some(65534.into()), Some(65534.into())).unwrap();
    let why = "memory.max to 67108864: the limit needs the cgroup controller memory, which is in version 1 here, for the \
               host's root alone";
    let out = run("require");
    assert!(out.status == 1 && out.stderr.contains(why), "{out:?}");
    assert!(out.stderr.contains("hint: "), "{out:?}");
    let out = run("best-effort");
    assert!(out.status == 0 && out.stderr.contains(&format!("warning: not limited: {why}")), "{out:?}");
}

/// Whatever is there was written down before it was made.
#[test]
fn a_maker_killed_at_any_moment_leaves_nothing() {
    require_v1!();
    let mut case = case!();
    case.set("/linux/resources", serde_json::from_str(WANTED).unwrap());
    case.sh("sleep 1000").write_config();
    let bundle = case.bundle();
    for step in 0..25_u64 {
        let mut running = case.spawn(&["create", "--bundle", bundle.to_str().unwrap(), &case.id]);
        std::thread::sleep(Duration::from_micros(600 * step));
        let _ = running.child.kill();
        running.wait();
        case.ctr(&["delete", "--force", &case.id]).ok();
        wait_for("nothing left", || left(&case).is_empty());
    }
}

/// One that was killed half way has named a cgroup, or made it, and put nobody in.
#[test]
fn an_update_makes_up_for_one_that_was_killed() {
    require_v1!();
    let mut case = case!();
    limited(&mut case, json!({"memory": {"limit": 64 << 20}}));
    case.ctr(&["update", "--pids-limit", "10", &case.id]).ok();
    let (pid, dir) = (case.pid().to_string(), cgroups(&case, case.pid())["pids"].clone());
    let above = dir.parent().unwrap().join("cgroup.procs");
    for is_made in [true, false] {
        fs::write(&above, &pid).unwrap();
        if !is_made {
            fs::remove_dir(&dir).unwrap();
        }
        let out = case.ctr(&["limits", &case.id]);
        assert!(out.status == 3 && out.stdout.contains(&format!("process {pid} is not in")), "{out:?}");
        case.ctr(&["update", "--pids-limit", "9", &case.id]).ok();
        check(&case, &[("pids.max", "9")]);
        case.ctr(&["limits", &case.id]).ok();
    }
}

#[test]
fn updates_beside_a_delete_leave_nothing() {
    require_v1!();
    for _ in 0..6 {
        let mut case = case!();
        limited(&mut case, json!({"memory": {"limit": 64 << 20}}));
        let updates: Vec<_> = [["--pids-limit", "7"], ["--cpu-share", "512"], ["--blkio-weight", "100"]]
            .iter()
            .map(|[flag, value]| case.spawn(&["update", flag, value, &case.id]))
            .collect();
        case.ctr(&["delete", "--force", &case.id]).ok();
        for update in updates {
            // Whether it came first or last, it is told.
            update.wait();
        }
        assert_eq!(left(&case), Vec::<PathBuf>::new());
    }
}

/// What was refused leaves no trace; what somebody has changed is set again by an update that names nothing.
#[test]
fn a_refused_update_leaves_nothing_and_an_empty_one_mends() {
    require_v1!();
    let mut case = case!();
    limited(&mut case, json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}));
    let before = left(&case);
    case.ctr(&["update", "--cpuset-cpus", "99999", &case.id]).err();
    assert_eq!(left(&case), before);
    case.ctr(&["limits", &case.id]).ok();
    fs::write(cgroups(&case, case.pid())["pids"].join("pids.max"), "7").unwrap();
    let out = case.ctr(&["limits", &case.id]);
    assert!(out.status == 3 && out.stdout.contains("`update` without a flag sets it again"), "{out:?}");
    case.ctr(&["update", "--memory", "70M", &case.id]).ok();
    check(&case, &[("pids.max", "7"), ("memory.limit_in_bytes", "73400320")]);
    case.ctr(&["update", &case.id]).ok();
    check(&case, &[("pids.max", "30"), ("memory.limit_in_bytes", "73400320")]);
    case.ctr(&["limits", &case.id]).ok();
}

/// By its file or by a property of its own: the last word counts; and what is no limit is refused.
#[test]
fn unified_is_what_is_a_limit() {
    require_v1!();
    let mut case = case!();
    limited(&mut case, json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}));
    let update = |json: &str| case.ctr_with_input(&["update", "-r", "-", &case.id], json);
    update(r#"{"unified": {"pids.max": "20", "memory.swap.max": "1048576"}}"#).ok();
    check(&case, &[("pids.max", "20"), ("memory.memsw.limit_in_bytes", "68157440")]);
    update(r#"{"pids": {"limit": 25}, "memory": {"swap": 134217728}}"#).ok();
    check(&case, &[("pids.max", "25"), ("memory.memsw.limit_in_bytes", "134217728")]);
    case.ctr(&["limits", &case.id]).ok();
    for bad in [r#"{"freezer.state": "FROZEN"}"#, r#"{"devices.allow": "a"}"#, r#"{"pids.max": ""}"#] {
        let error = update(&format!(r#"{{"unified": {bad}}}"#)).err();
        assert!(error.contains("/linux/resources/unified/"), "{bad}: {error}");
    }
    let error = update(r#"{"unified": {"cpu.weight": "50"}}"#).err();
    assert!(error.contains("in version 1 here, does not have this limit"), "{error}");
}

/// What runc shows, too: programs look there for what they may use.
#[test]
fn a_container_sees_its_own_cgroups_of_version_1() {
    require_v1!();
    for own_namespace in [true, false] {
        let mut case = case!();
        if own_namespace {
            case.namespace("cgroup", None);
        } else {
            case.without_namespace("cgroup");
        }
        case.without_cgroup_path();
        case.set("/linux/resources", json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}));
        case.mount("cgroup", "cgroup", "/cg", &["ro", "nosuid", "noexec", "nodev"]);
        let seen = case.prints(
            "ls /cg; cat /cg/memory/memory.limit_in_bytes /cg/pids/pids.max; wc -l </cg/memory/cgroup.procs
            wc -l </cg/unified/cgroup.procs
            for dir in /cg /cg/memory /cg/unified; do mkdir $dir/x 2>/dev/null && echo made in $dir; done; true",
        );
        // The shell and `wc`, and nobody else.
        assert_eq!(seen, "memory\npids\nunified\n67108864\n20\n2\n2", "own namespace: {own_namespace}");
    }
}
