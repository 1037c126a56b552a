//! Cleaning up under fire: what cannot be ended or removed is told, with what it waits for, and all else is done; and
//! `stuck` and `trace` tell what a container waits for and what was done to it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, record, require_cgroup, require_root, skip, wait_for};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A FUSE file system whose program takes every question and answers none: whoever asks and is killed is in an
/// uninterruptible sleep until it goes.
struct Deaf(PathBuf);

impl Deaf {
    fn mount(place: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(place)?;
        let mut device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("deaf"), place, Some("fuse"), MsFlags::MS_NOSUID, Some(options.as_str()))?;
        std::thread::spawn(move || {
            let mut request = vec![0; 1 << 20];
            // Until the file system is gone.
            while device.read(&mut request).is_ok() {
                // linux/fuse.h: length, opcode, unique id.
                if request[4..8] != 26_u32.to_ne_bytes() {
                    continue;
                }
                let mut answer = [0_u8; 80];
                answer[0..4].copy_from_slice(&80_u32.to_ne_bytes());
                answer[8..16].copy_from_slice(&request[8..16]);
                // FUSE_INIT: version 7.31, and the most that is written at once.
                answer[16..20].copy_from_slice(&7_u32.to_ne_bytes());
                answer[20..24].copy_from_slice(&31_u32.to_ne_bytes());
                answer[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
                device.write_all(&answer).unwrap();
            }
        });
        Ok(Deaf(place.to_owned()))
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_FORCE);
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A deaf file system at /mnt/deaf of the container, or the test is skipped.
macro_rules! deaf {
    ($case:expr) => {{
        require_root!();
        let place = $case.path("host/deaf");
        match Deaf::mount(&place) {
            Ok(deaf) => {
                let host = $case.path("host");
                $case.mount("bind", host, "/mnt", &["rbind"]);
                deaf
            }
            Err(error) => skip!(format!("no FUSE here: {error}")),
        }
    }};
}

fn stuck(case: &Case) -> Value {
    serde_json::from_str(&case.ctr(&["stuck", "--json", &case.id]).ok()).unwrap()
}

/// A first process that SIGKILL does not end: `delete` gives up in time, says for what it waits, and the next one does the
/// rest.
#[test]
fn an_init_that_cannot_be_killed_is_told_of_and_removed_later() {
    let mut case = case!();
    let deaf = deaf!(case);
    case.args(&["stat", "/mnt/deaf/x"]).start_up();
    require_cgroup!(case);
    let cgroup = case.cgroup().unwrap();
    wait_for("the question", || stuck(&case)["tasks"][0]["waitsFor"].as_str().unwrap().contains("FUSE"));
    let text = case.ctr(&["stuck", "--stack", &case.id]).ok();
    assert!(text.contains("stat") && text.contains("fuse"), "{text}");
    let begun = Instant::now();
    let error = case.ctr(&["delete", "--force", &case.id]).err();
    assert!(error.contains("does not end 10 s after SIGKILL") && error.contains("FUSE"), "{error}");
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
    let task = &stuck(&case)["tasks"][0];
    assert_eq!((task["state"].as_str(), task["killed"].as_bool()), (Some("D"), Some(true)), "{task}");
    drop(deaf);
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert!(!cgroup.exists());
}

/// The first process has ended, another in its cgroup does not.
#[test]
fn a_process_that_stays_in_the_cgroup_is_told_of() {
    let mut case = case!();
    let deaf = deaf!(case);
    case.without_namespace("pid").without_namespace("cgroup");
    case.config["mounts"][0] =
        json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    case.args(&["sleep", "1000"]).start_up();
    require_cgroup!(case);
    case.exec_with(&["--detach"], &["stat", "/mnt/deaf/x"]).ok();
    wait_for("the question", || stuck(&case).to_string().contains("FUSE"));
    let error = case.ctr(&["delete", "--force", &case.id]).err();
    assert!(error.contains("remove cgroup") && error.contains("(stat)") && error.contains("FUSE"), "{error}");
    assert_eq!(case.status(), "stopped", "what could be ended has been");
    drop(deaf);
    case.ctr(&["delete", &case.id]).ok();
}

#[test]
fn what_is_frozen_is_told_and_deleted_all_the_same() {
    let mut case = case!();
    require_cgroup!(case.up());
    case.ctr(&["pause", &case.id]).ok();
    assert_eq!(stuck(&case)["frozenBy"].as_str().map(PathBuf::from), case.cgroup());
    assert!(case.ctr(&["stuck", &case.id]).ok().contains("frozen"));
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert!(case.ctr(&["stuck", &case.id]).err().contains("does not exist"));
}

#[test]
fn a_root_file_system_that_is_gone_holds_nothing_up() {
    let mut case = case!();
    case.up();
    fs::remove_dir_all(case.rootfs()).unwrap();
    fs::remove_dir_all(case.bundle()).unwrap();
    assert_eq!(case.status(), "running");
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
}

/// Its pid is another process's by now: that one is not touched.
#[test]
fn a_pid_that_was_given_anew_is_nobody_of_ours() {
    let mut case = case!();
    case.up();
    let path = case.store().join(&case.id).join("state.json");
    let mut found = record(&case.store().join(&case.id)).unwrap();
    let (pid, me) = (case.pid(), std::process::id());
    found["pid"] = json!(me);
    fs::write(&path, found.to_string()).unwrap();
    assert_eq!(case.status(), "stopped");
    assert!(case.ctr(&["kill", &case.id, "KILL"]).err().contains("container not running"));
    if found["cgroup"].is_null() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    case.ctr(&["delete", &case.id]).ok();
    wait_for("the end of its processes", || !Path::new(&format!("/proc/{pid}/root/bin")).exists());
}

/// A record that cannot be read: the directory goes, and what may be left is told. One of a newer version stays.
#[test]
fn a_torn_record_and_a_newer_one_are_told_of() {
    let mut case = case!();
    case.up();
    let dir = case.store().join(&case.id);
    let (whole, path) = (fs::read(dir.join("state.json")).unwrap(), dir.join("state.json"));
    let mut newer = record(&dir).unwrap();
    newer["version"] = json!(99);
    fs::write(&path, newer.to_string()).unwrap();
    let error = case.ctr(&["delete", "--force", &case.id]).err();
    assert!(error.contains("newer ctr") && dir.exists(), "{error}");
    assert!(case.ctr(&["list"]).stderr.contains("newer"), "and hides no other");
    let last = String::from_utf8(whole.clone()).unwrap().lines().last().unwrap().to_owned();
    fs::write(&path, &last[..last.len() - 1]).unwrap();
    for verb in ["state", "ps", "limits", "kill", "update"] {
        let error = case.ctr(&[verb, &case.id]).err();
        assert!(error.contains("is torn") && error.contains("delete --force"), "{verb}: {error}");
    }
    assert!(case.ctr(&["list"]).stderr.contains("is torn"));
    assert!(case.ctr(&["delete", &case.id]).err().contains("--force"));
    let said = case.ctr(&["delete", "--force", &case.id]).stderr;
    let pid = newer["pid"].to_string();
    if newer["cgroup"].is_string() {
        // The cgroup it names has the process that it names.
        assert!(said.contains("torn") && said.contains(&format!("process {pid} among them")), "{said}");
        assert!(!dir.exists() && !Path::new("/proc").join(&pid).join("exe").exists());
        assert!(!Path::new(newer["cgroup"].as_str().unwrap()).exists());
        return;
    }
    // What was told is true: it is all there again with the record.
    assert!(said.contains("torn") && said.contains(&format!("the pid {pid}")), "{said}");
    fs::create_dir(&dir).unwrap();
    fs::write(&path, whole).unwrap();
    assert_eq!(case.status(), "running");
    case.ctr(&["delete", "--force", &case.id]).ok();
}

/// A state directory of its own file system, or the test is skipped.
fn own_store(case: &Case, options: &str) -> bool {
    fs::create_dir_all(case.store()).unwrap();
    mount(Some("store"), &case.store(), Some("tmpfs"), MsFlags::empty(), Some(options)).is_ok()
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_state_directory_that_is_read_only_is_told_and_all_else_is_removed() {
    require_root!();
    let mut case = case!();
    assert!(own_store(&case, "mode=700"));
    let _mounted = Mounted(case.store());
    require_cgroup!(case.up());
    let (pid, cgroup) = (case.pid(), case.cgroup().unwrap());
    let remount =
        |flags| mount(None::<&str>, &case.store(), None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    remount(MsFlags::MS_RDONLY).unwrap();
    let error = case.ctr(&["delete", "--force", &case.id]).err();
    assert!(error.contains("read-only file system") && error.contains(&case.id), "{error}");
    assert!(!cgroup.exists() && !Path::new(&format!("/proc/{pid}/root/bin")).exists(), "what can be is done");
    assert_eq!(case.status(), "stopped");
    remount(MsFlags::empty()).unwrap();
    case.ctr(&["delete", &case.id]).ok();
}

#[test]
fn a_state_directory_that_is_full_keeps_nothing_from_its_end() {
    require_root!();
    let mut case = case!();
    assert!(own_store(&case, "mode=700,size=64k"));
    let _mounted = Mounted(case.store());
    case.up();
    let mut filler = File::create(case.store().join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    case.without_cgroup_path().write_config();
    let bundle = case.bundle();
    let error = case.ctr(&["create", "--bundle", bundle.to_str().unwrap(), "other"]).err();
    assert!(error.contains("no space left on device"), "{error}");
    assert_eq!(case.ctr(&["list", "--quiet"]).ok(), format!("{}\n", case.id), "nothing is left of the other");
    assert_eq!(case.status(), "running");
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
}

fn trace(case: &Case) -> Value {
    serde_json::from_str(&case.ctr(&["trace", "--json", &case.id]).ok()).unwrap()
}

/// Every phase of every verb, in order, while the container lives and after it is gone.
#[test]
fn what_was_done_is_told_with_its_times() {
    let mut case = case!();
    let bundle = case.bundle();
    case.sh("sleep 1000").write_config();
    case.ctr(&["--trace", "create", "--bundle", bundle.to_str().unwrap(), &case.id]).ok();
    case.ctr(&["--trace", "start", &case.id]).ok();
    assert!(case.ctr(&["--trace", "start", &case.id]).status != 0);
    case.ctr(&["--trace", "delete", "--force", &case.id]).ok();
    let found = trace(&case);
    let calls: Vec<(&str, &str)> = found["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| (call["verb"].as_str().unwrap(), call["end"].as_str().unwrap()))
        .collect();
    let verbs: Vec<&str> = calls.iter().map(|(verb, _)| *verb).collect();
    assert_eq!(verbs, ["create", "start", "start", "delete"]);
    assert!(
        calls[0].1.starts_with("done after") && calls[2].1.starts_with("failed: cannot start"),
        "{calls:?}"
    );
    let phases = |call: usize| -> Vec<String> {
        let phases = found["calls"][call]["phases"].as_array().unwrap();
        let times: Vec<f64> = phases.iter().map(|phase| phase[0].as_f64().unwrap()).collect();
        assert!(times.is_sorted() && times.last() < Some(&60.0), "{times:?}");
        phases.iter().map(|phase| phase[1].as_str().unwrap().to_owned()).collect()
    };
    for (call, wanted) in [
        (0, &["bundle read", "planned", "cgroup made", "inside: mounts made", "process ready"][..]),
        (1, &["told to go on", "program runs"]),
        (3, &["processes killed", "all it held removed"]),
    ] {
        let found = phases(call);
        for part in wanted {
            assert!(found.iter().any(|phase| phase.contains(part)), "{part} of {found:?}");
        }
    }
    let text = case.ctr(&["trace", &case.id]).ok();
    assert!(text.contains("create, process") && text.contains("ms  program runs"), "{text}");
}

/// Without having been asked to note anything.
#[test]
fn what_a_container_s_state_tells_of_its_past_is_told() {
    let mut case = case!();
    assert!(case.ctr(&["trace", &case.id]).err().contains("nothing is known"));
    case.sh("trap 'exit 0' TERM; while :; do sleep 1; done").create().ok();
    let text = case.ctr(&["trace", &case.id]).ok();
    assert!(text.contains("waits for `start`") && text.contains("--trace"), "{text}");
    case.ctr(&["start", &case.id]).ok();
    assert!(case.ctr(&["trace", &case.id]).ok().contains("it was started"));
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
    let text = case.ctr(&["trace", &case.id]).ok();
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(
        place("making began") < place("sent it SIGKILL") && place("SIGKILL") < place("to have ended"),
        "{text}"
    );
}
