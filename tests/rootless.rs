//! Containers without the host's root: whose ids they have, where their cgroups and records are, in another
//! container, and as root of a user namespace.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Case, Output, case, cgroup2, gid, is_root, program, require_cgroup, skip, spawn, uid, wait_for,
};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The first range of ids that `file`, worded as subuid(5), gives to the caller: its beginning and its size.
fn range(file: &str) -> Option<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let account = accounts.lines().find(|line| line.split(':').nth(2) == Some(&uid().to_string()))?;
    let name = account.split(':').next()?;
    let text = fs::read_to_string(file).ok()?;
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == name)?;
    Some((fields[1].parse().ok()?, fields[2].parse().ok()?))
}

fn is_there(name: &str) -> bool {
    ["/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists())
}

/// An ordinary user's container with the caller as root and a range of ids above; or why there is none.
fn with_ranges() -> Result<(Case, u32, u32), String> {
    if is_root() {
        return Err("needs an ordinary user".into());
    }
    let (Some(uids), Some(gids)) = (range("/etc/subuid"), range("/etc/subgid")) else {
        return Err("the user has no range in /etc/subuid and /etc/subgid".into());
    };
    if !is_there("newuidmap") {
        return Err("no newuidmap (apt install uidmap)".into());
    }
    let mut case = Case::new()?;
    for (key, own, (first, count)) in [("uidMappings", uid(), uids), ("gidMappings", gid(), gids)] {
        let maps = json!([{"containerID": 0, "hostID": own, "size": 1},
            {"containerID": 1, "hostID": first, "size": count}]);
        case.set(&format!("/linux/{key}"), maps);
    }
    Ok((case, uids.0, gids.0))
}

/// Numbers of a uid_map.
fn numbers(text: &str) -> Vec<Vec<u32>> {
    let line = |line: &str| line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    text.lines().map(line).collect()
}

// Ids

#[test]
fn ranges_are_mapped_by_newuidmap() {
    let (mut case, first_uid, first_gid) = match with_ranges() {
        Ok(found) => found,
        Err(reason) => skip!(reason),
    };
    let shared = case.path("shared");
    fs::create_dir(&shared).unwrap();
    case.mount("bind", &shared, "/shared", &["bind"]);
    let script = "touch /shared/f && chown 5:7 /shared/f && cat /proc/self/uid_map";
    let map = numbers(&case.prints(script));
    assert_eq!((&map[0], map[1][..2].to_vec()), (&vec![0, uid(), 1], vec![1, first_uid]));
    let made = fs::metadata(shared.join("f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (first_uid + 4, first_gid + 6));
    // Another user with groups, which setgroups(2) may set here; in `exec` too.
    case.set("/process/user", json!({"uid": 1000, "gid": 100, "additionalGids": [7, 9]}));
    let identity = "echo $(id -u):$(id -G)";
    assert_eq!(case.prints(identity), "1000:100 7 9");
    case.up();
    let flags = ["--user", "33:44", "--additional-gids", "11"];
    assert_eq!(case.exec_with(&flags, &["sh", "-c", identity]).ok(), "33:44 7 9 11\n");
}

#[test]
fn ids_that_are_not_the_user_s_are_refused() {
    let (mut case, ..) = match with_ranges() {
        Ok(found) => found,
        Err(reason) => skip!(reason),
    };
    let maps = json!([{"containerID": 0, "hostID": uid(), "size": 1},
        {"containerID": 1, "hostID": 4_000_000, "size": 10}]);
    let error = case.set("/linux/uidMappings", maps).run().err();
    assert!(error.contains("newuidmap") && error.contains("4000000"), "{error}");
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "", "nothing is left");
}

/// Runs the image `host` as a user would, with `env` instead of the environment.
fn run_host(case: &Case, before: &[&str], env: &[(&str, &str)], script: &str) -> Output {
    let mut words: Vec<&str> = before.to_vec();
    let (program, store) = (program(), case.store());
    words.push(program.to_str().unwrap());
    words.extend(["--root", store.to_str().unwrap(), "run", "--rm", "--image", "host", &case.id]);
    words.extend(["--", "/bin/sh", "-c", script]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).env_clear().env("CTR_STORE", case.path("layers"));
    spawn(case.dir(), command.envs(env.iter().copied())).wait()
}

#[test]
fn image_host_has_all_ids_there_are() {
    let (case, first, _) = match with_ranges() {
        Ok(found) => found,
        Err(reason) => skip!(reason),
    };
    let script = "cat /proc/self/uid_map; echo x > /tmp/f && chown 1:1 /tmp/f";
    let map = numbers(&run_host(&case, &[], &[("PATH", "/usr/bin:/bin")], script).ok());
    assert_eq!((&map[0], map[1][..2].to_vec()), (&vec![0, uid(), 1], vec![1, first]));
    assert!(
        !case.path("layers/containers").join(&case.id).exists(),
        "what others of the user's ids made is gone"
    );
}

#[test]
fn image_host_has_one_id_without_newuidmap() {
    if is_root() {
        skip!("needs an ordinary user");
    }
    let case = case!();
    let out = run_host(&case, &[], &[("PATH", "/nonexistent")], "cat /proc/self/uid_map; id -u");
    let text = out.ok();
    assert_eq!(numbers(&text), [vec![0, uid(), 1], vec![0]]);
}

// Cgroups

/// `--systemd-cgroup`: the systemd that is ours, the machine's as root or the user's own.
#[test]
fn systemd_makes_the_cgroup() {
    let bus = match std::env::var("XDG_RUNTIME_DIR") {
        _ if is_root() => PathBuf::from("/run/dbus/system_bus_socket"),
        Ok(dir) => Path::new(&dir).join("bus"),
        Err(_) => skip!("no session: XDG_RUNTIME_DIR is not set"),
    };
    if !bus.exists() || !Path::new("/run/systemd/system").exists() {
        skip!("no systemd to ask");
    }
    let mut case = case!();
    case.set("/linux/cgroupsPath", json!(format!(":ctr-test:{}", case.id)));
    case.set("/linux/resources", json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 40}}));
    case.sh("cat /proc/self/cgroup; sleep 1000");
    let bundle = case.bundle();
    let args: Vec<&str> =
        [vec!["--systemd-cgroup"], case.making("run", bundle.to_str().unwrap(), &["--detach"])].concat();
    let out = case.ctr(&args);
    assert_eq!(out.status, 0, "{out:?}");
    wait_for("the program", || out.later() == "0::/\n");
    let unit = format!("ctr-test-{}.scope", case.id);
    let outside = fs::read_to_string(format!("/proc/{}/cgroup", case.pid())).unwrap();
    let slice = if is_root() { "/system.slice/" } else { "/user.slice/user-" };
    assert!(outside.starts_with(&format!("0::{slice}")) && outside.trim().ends_with(&unit), "{outside}");
    let cgroup = cgroup2().unwrap().join(outside.trim().trim_start_matches("0::/"));
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap().trim().to_owned();
    assert_eq!((read("memory.max").as_str(), read("pids.max").as_str()), ("67108864", "40"));
    assert!(systemctl(&["show", "--property=MemoryMax,TasksMax", &unit]).contains("MemoryMax=67108864"));
    case.ctr(&["pause", &case.id]).ok();
    assert_eq!(case.status(), "paused");
    case.ctr(&["resume", &case.id]).ok();
    assert_eq!(case.exec(&["cat", "/proc/self/cgroup"]).ok(), "0::/\n");
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert!(!cgroup.exists());
    wait_for("the unit to go", || systemctl(&["show", "--property=LoadState", &unit]).contains("not-found"));
}

fn systemctl(args: &[&str]) -> String {
    let whose = if is_root() { "--system" } else { "--user" };
    let out = Command::new("systemctl").arg(whose).args(args).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_limit_in_a_delegated_cgroup() {
    let mut case = case!();
    case.up();
    require_cgroup!(case);
    let has = |name: &str| {
        let controllers = fs::read_to_string(case.cgroup().unwrap().join("cgroup.controllers")).unwrap();
        controllers.split_whitespace().any(|found| found == name)
    };
    if !has("pids") {
        skip!("cgroup version 2 has no controllers here");
    }
    case.ctr(&["delete", "--force", &case.id]).ok();
    case.set("/linux/resources", json!({"pids": {"limit": 41}})).up();
    assert_eq!(fs::read_to_string(case.cgroup().unwrap().join("pids.max")).unwrap(), "41\n");
}

/// No session, no delegated cgroup: containers work, and what does not says why.
#[test]
fn without_a_session_the_record_is_below_tmp() {
    if is_root() {
        skip!("needs an ordinary user");
    }
    let mut case = case!();
    case.sh("sleep 1000").write_config();
    let ctr = |args: &[&str]| {
        let mut command = Command::new(program());
        command.args(args).stdin(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin");
        spawn(case.dir(), &mut command).wait()
    };
    let bundle = case.bundle();
    ctr(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), &case.id]).ok();
    let place = PathBuf::from(format!("/tmp/ctr-{}", uid()));
    let found = fs::metadata(&place).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, uid()));
    if common::record(&place.join(&case.id)).unwrap()["cgroup"].is_null() {
        let error = ctr(&["pause", &case.id]).err();
        assert!(error.contains("no cgroup") && error.contains("ctr doctor"), "{error}");
    } else {
        ctr(&["pause", &case.id]).ok();
    }
    ctr(&["delete", "--force", &case.id]).ok();
    assert!(!place.join(&case.id).exists());
}

// As root of a user namespace

/// A command that makes the caller root of a user namespace of one id, or of all that it may map; or why not.
fn root_inside(all: bool) -> Result<Vec<&'static str>, String> {
    let words = match (all, is_root()) {
        (false, _) => vec!["unshare", "--user", "--map-root-user"],
        (true, false) => vec!["unshare", "--user", "--map-root-user", "--map-auto"],
        (true, true) => return Err("an engine that is root does not do this".into()),
    };
    let works = Command::new(words[0]).args(&words[1..]).arg("true").output();
    match works {
        Ok(out) if out.status.success() => Ok(words),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// A bundle for root of the namespace that it runs in: with its ids, and with a cgroup where one may be made.
fn for_root_inside(case: &mut Case) {
    case.without_namespace("user");
    let linux = case.config["linux"].as_object_mut().unwrap();
    for key in ["uidMappings", "gidMappings", "cgroupsPath", "resources"] {
        linux.remove(key);
    }
}

fn as_root_of_a_namespace(all: bool) -> Result<(), String> {
    let before = root_inside(all)?;
    let mut case = Case::new()?;
    for_root_inside(&mut case);
    // Only the host's root may lower it.
    case.set("/process/oomScoreAdj", json!(-5)).sh("echo up; sleep 1000").write_config();
    let (bundle, store) = (case.bundle(), case.store());
    let ctr = |args: &[&str]| {
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).arg(program()).arg("--root").arg(&store).args(args);
        spawn(case.dir(), command.stdin(Stdio::null())).wait()
    };
    // Each call has a user namespace of its own, as those of `podman unshare` do not: so all of it in one.
    let script = "set -e; $0 --root $1 run --detach --bundle $2 $3; $0 --root $1 exec $3 id -u; \
        $0 --root $1 kill $3 KILL; $0 --root $1 delete --force $3";
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).args(["sh", "-c", script]).arg(program()).arg(&store).arg(&bundle);
    let out = spawn(case.dir(), command.arg(&case.id).stdin(Stdio::null())).wait();
    assert_eq!(out.status, 0, "{out:?}");
    assert!(out.stdout.lines().any(|line| line == "0"), "{out:?}");
    assert_eq!(ctr(&["list", "--quiet"]).ok(), "");
    let out = run_host(&case, &before, &[("PATH", "/usr/bin:/bin")], "id -u; touch /usr/made");
    assert_eq!((out.status, out.stdout.as_str()), (0, "0\n"), "{out:?}");
    Ok(())
}

#[test]
fn as_root_of_a_user_namespace_with_one_id() {
    if let Err(reason) = as_root_of_a_namespace(false) {
        skip!(reason);
    }
}

#[test]
fn as_root_of_a_user_namespace_with_ranges() {
    if let Err(reason) = as_root_of_a_namespace(true) {
        skip!(reason);
    }
}

/// Where no session says otherwise, and the machine's own places are not ours.
#[test]
fn root_of_a_user_namespace_has_the_user_s_places() {
    if is_root() {
        skip!("needs an ordinary user");
    }
    let before = match root_inside(false) {
        Ok(before) => before,
        Err(reason) => skip!(reason),
    };
    let mut case = case!();
    for_root_inside(&mut case);
    case.sh("sleep 1000").write_config();
    let script = "$0 run --detach --bundle $1 $2 && $0 delete --force $2";
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).args(["/bin/sh", "-ec", script]).arg(program()).arg(case.bundle());
    command.arg(&case.id).env_clear().stdin(Stdio::null());
    spawn(case.dir(), &mut command).wait().ok();
    assert_eq!(fs::metadata(format!("/tmp/ctr-{}", uid())).unwrap().uid(), uid());
}

// In another container

/// Runs a container of `inner` in one whose configuration `change` may still change.
fn nested(inner: &mut Case, change: impl Fn(&mut Case)) -> Result<Output, String> {
    inner.sh("echo inner $(hostname) $(id -u)").write_config();
    let mut outer = Case::new()?;
    let mut caps = outer.config["process"]["capabilities"]["bounding"].as_array().unwrap().clone();
    caps.extend(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SETPCAP", "CAP_SETFCAP"].map(|name| json!(name)));
    outer.set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}));
    outer.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    outer.mount("bind", program(), "/ctr", &["bind", "ro"]).mount("bind", inner.dir(), "/inner", &["rbind"]);
    outer.mount("tmpfs", "tmpfs", "/run", &["mode=755"]).mount("cgroup", "cgroup", "/sys/fs/cgroup", &[]);
    outer.args(&["/ctr", "run", "--bundle", "/inner/bundle", "inner"]);
    change(&mut outer);
    Ok(outer.run())
}

#[test]
fn in_another_container() {
    let mut inner = case!();
    for_root_inside(&mut inner);
    let out = match nested(&mut inner, |_| ()) {
        Ok(out) => out,
        Err(reason) => skip!(reason),
    };
    assert_eq!((out.status, out.stdout.as_str()), (0, "inner ctr 0\n"), "{out:?}");
}

#[test]
fn in_another_container_with_a_user_namespace() {
    let mut inner = case!();
    for_root_inside(&mut inner);
    inner.user_namespace(0, 1);
    let out = match nested(&mut inner, |_| ()) {
        Ok(out) => out,
        Err(reason) => skip!(reason),
    };
    assert_eq!((out.status, out.stdout.as_str()), (0, "inner ctr 0\n"), "{out:?}");
}

/// What is asked of a cgroup (limits; the device filter, by the machine's root) is not silently left out.
#[test]
fn in_a_container_whose_cgroups_are_read_only() {
    let outer = |outer: &mut Case| {
        outer.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]);
    };
    let without = |outer: &mut Case| {
        outer.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]);
        outer.args(&["/ctr", "--cgroup-manager", "disabled", "run", "--bundle", "/inner/bundle", "inner"]);
    };
    let mut inner = case!();
    for_root_inside(&mut inner);
    let out = match nested(&mut inner, without) {
        Ok(out) => out,
        Err(reason) => skip!(reason),
    };
    assert_eq!((out.status, out.stdout.as_str()), (0, "inner ctr 0\n"), "{out:?}");
    if !is_root() {
        assert_eq!(nested(&mut inner, outer).unwrap().ok(), "inner ctr 0\n");
        inner.set("/linux/resources", json!({"pids": {"limit": 40}}));
    }
    let error = nested(&mut inner, outer).unwrap().err();
    assert!(error.contains("read-only") && error.contains("--cgroup-manager disabled"), "{error}");
    assert!(!error.contains("not wholly removed"), "{error}");
}

/// A user namespace's proc would show what the outer container hides, so the kernel refuses it.
#[test]
fn in_a_container_with_masked_paths() {
    let mut inner = case!();
    for_root_inside(&mut inner);
    inner.user_namespace(0, 1);
    let masked = |outer: &mut Case| {
        outer.set("/linux/maskedPaths", json!(["/proc/keys", "/proc/timer_list"]));
    };
    let out = match nested(&mut inner, masked) {
        Ok(out) => out,
        Err(reason) => skip!(reason),
    };
    let error = out.err();
    assert!(error.contains("proc") && error.contains("masked"), "{error}");
}

/// runc(8), `--rootless`: false forgives nobody that no cgroup can be made.
#[test]
fn rootless_false_wants_a_cgroup() {
    if is_root() {
        skip!("root can make cgroups");
    }
    let case = case!();
    case.create().ok();
    if case.cgroup().is_some() {
        skip!("a cgroup is delegated to this user");
    }
    case.ctr(&["delete", "--force", &case.id]).ok();
    let bundle = case.bundle();
    let error = case.ctr(&["--rootless=false", "create", "-b", bundle.to_str().unwrap(), &case.id]).err();
    assert!(error.contains("cgroup"), "{error}");
}
