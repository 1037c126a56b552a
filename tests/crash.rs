//! The program is killed at every phase of what it does; `delete --force` then leaves nothing of the container.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The pids whose cgroup or root is the container's, or whose arguments name it.
fn processes(case: &Case) -> Vec<String> {
    let of = |pid: &str| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let root = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let text = [read("cgroup"), read("cmdline")].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains(&case.id) || text.contains(case.dir().to_str().unwrap()) || root.starts_with(case.dir())
    };
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<u32>().is_ok() && of(name)).collect()
}

/// Where its cgroup is in each hierarchy, those of version 1 too.
fn cgroups(case: &Case) -> Vec<PathBuf> {
    let Some(path) = case.config["linux"]["cgroupsPath"].as_str() else { return Vec::new() };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let hierarchies = fields.filter(|fields| ["cgroup", "cgroup2"].contains(&fields[2]));
    hierarchies.map(|fields| Path::new(fields[1]).join(path.trim_start_matches('/'))).collect()
}

/// Deletes the container by force and checks that nothing of it is left.
#[track_caller]
fn nothing_left(case: &Case, point: &str) {
    let out = case.ctr(&["delete", "--force", &case.id]);
    assert_eq!(out.status, 0, "{point}: {out:?}");
    wait_for(&format!("{point}: the end of {:?}", processes(case)), || processes(case).is_empty());
    let left: Vec<_> =
        fs::read_dir(case.store()).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(&case.id)), "{point}: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(case.dir().to_str().unwrap()), "{point}: {mounts}");
    for dir in cgroups(case) {
        assert!(!dir.exists(), "{point}: {}", dir.display());
    }
}

/// Kills `args` after each delay in turn. `before` brings the container to where that can be run.
fn kill_at_every_delay(case: &Case, before: &[&[&str]], args: &[&str]) {
    let mut finished = 0;
    for step in 0..40_u64 {
        for args in before {
            case.ctr(args).ok();
        }
        let mut running = case.spawn(args);
        std::thread::sleep(Duration::from_micros(500 * step));
        let _ = running.child.kill();
        let ended = running.wait();
        nothing_left(case, &format!("{} us", 500 * step));
        // Once it was through a few times in a row, longer delays say nothing new.
        finished = if ended.status == 0 { finished + 1 } else { 0 };
        if finished > 3 {
            break;
        }
    }
}

#[test]
fn create_killed() {
    let mut case = case!();
    case.sh("sleep 1000").write_config();
    let bundle = case.bundle();
    kill_at_every_delay(&case, &[], &["create", "--bundle", bundle.to_str().unwrap(), &case.id]);
}

#[test]
fn start_killed() {
    let mut case = case!();
    case.sh("sleep 1000").write_config();
    let bundle = case.bundle();
    let create = ["create", "--bundle", bundle.to_str().unwrap(), &case.id];
    kill_at_every_delay(&case, &[&create], &["start", &case.id]);
}

#[test]
fn exec_killed() {
    let mut case = case!();
    case.sh("sleep 1000").write_config();
    let bundle = case.bundle();
    let run = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), &case.id];
    kill_at_every_delay(&case, &[&run], &["exec", "--detach", &case.id, "sleep", "1000"]);
}

#[test]
fn delete_killed() {
    let mut case = case!();
    case.sh("sleep 1000").write_config();
    let bundle = case.bundle();
    let run = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), &case.id];
    kill_at_every_delay(&case, &[&run], &["delete", "--force", &case.id]);
}

/// The same exactly, where strace(1) is there: killed on the entry of the Nth of each kind of call that changes
/// something outside of the process.
#[test]
fn create_killed_at_each_call() {
    let mut case = case!();
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success())
    {
        common::skip!("no strace, or it may not trace");
    }
    case.sh("sleep 1000").write_config();
    let bundle = case.bundle();
    for call in [
        "mkdir", "mkdirat", "openat", "write", "rename", "clone3", "bind", "sendmsg", "recvmsg", "unlink",
        "poll",
    ] {
        for when in 1..25 {
            let mut command = Command::new("strace");
            command.args(["-o", "/dev/null", "-e", &format!("inject={call}:signal=KILL:when={when}")]);
            command.arg(common::program()).arg("--root").arg(case.store()).args(["create", "--bundle"]);
            command.arg(&bundle).arg(&case.id);
            let out = common::spawn(case.dir(), &mut command).wait();
            nothing_left(&case, &format!("{call} {when}"));
            if out.status == 0 {
                break;
            }
        }
    }
}
