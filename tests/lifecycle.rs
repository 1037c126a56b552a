//! The life of a container as its caller sees it: verbs, statuses, exit codes, errors.

#![allow(clippy::unwrap_used)]

mod common;

use common::{case, require_cgroup, require_root, skip, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// runtime-spec runtime.md, "Lifecycle".
#[test]
fn create_start_kill_delete() {
    let mut case = case!();
    case.sh("trap 'exit 3' TERM; echo up; while :; do sleep 1000 & wait $!; done");
    let created = case.create();
    assert_eq!(created.status, 0, "{created:?}");
    let state = case.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["ociVersion"], "1.3.0");
    assert_eq!(state["id"], case.id.as_str());
    assert_eq!(state["bundle"], case.bundle().to_str().unwrap());
    let pid = case.pid();
    assert!(pid > 1 && fs::exists(format!("/proc/{pid}")).unwrap());
    assert_eq!(created.later(), "", "the program must wait for start");
    case.ctr(&["start", &case.id]).ok();
    assert_eq!(case.status(), "running");
    assert_eq!(case.pid(), pid);
    wait_for("the program", || created.later() == "up\n");
    let error = case.ctr(&["delete", &case.id]).err();
    assert!(error.contains("running"), "{error}");
    case.ctr(&["kill", &case.id, "TERM"]).ok();
    case.wait_status("stopped");
    assert_eq!(case.pid(), 0);
    case.ctr(&["delete", &case.id]).ok();
    let error = case.ctr(&["state", &case.id]).err();
    assert!(error.contains("does not exist"), "{error}");
    assert!(!case.store().join(&case.id).exists());
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let case = case!();
    case.create().ok();
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
}

/// As runc and crun have it, `--force` is for what runs.
#[test]
fn one_that_was_never_started_is_deleted_without_force() {
    let case = case!();
    case.create().ok();
    let pid = case.pid();
    case.ctr(&["delete", &case.id]).ok();
    assert!(!Path::new(&format!("/proc/{pid}/root/bin")).exists(), "its process has ended");
    assert!(case.ctr(&["state", &case.id]).err().contains("does not exist"));
}

/// runc since 1.2: nobody is left whom `--all` could miss.
#[test]
fn all_of_a_stopped_container_can_be_killed() {
    let mut case = case!();
    case.args(&["true"]).start_up();
    case.wait_status("stopped");
    assert!(case.ctr(&["kill", &case.id, "KILL"]).err().contains("container not running"));
    case.ctr(&["kill", "--all", &case.id, "KILL"]).ok();
}

#[test]
fn start_twice_or_after_the_end_is_refused() {
    let mut case = case!();
    case.up();
    let error = case.ctr(&["start", &case.id]).err();
    assert!(error.contains("already running"), "{error}");
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    let error = case.ctr(&["start", &case.id]).err();
    assert!(error.contains("stopped"), "{error}");
    let error = case.ctr(&["kill", &case.id, "KILL"]).err();
    assert!(error.contains("not running"), "{error}");
}

#[test]
fn a_name_is_used_once() {
    let case = case!();
    case.create().ok();
    let error = case.create().err();
    assert!(error.contains("already exists"), "{error}");
    assert_eq!(case.status(), "created", "the first one must be untouched");
}

#[test]
fn run_returns_the_exit_status() {
    let mut case = case!();
    for status in [0, 1, 42, 255] {
        assert_eq!(case.sh(&format!("exit {status}")).run().status, status);
        assert_eq!(case.ctr(&["list", "-q"]).ok(), "", "run removes the container");
    }
}

#[test]
fn run_returns_128_and_the_signal() {
    let mut case = case!();
    case.without_namespace("pid");
    // A proc of one's own needs a PID namespace of one's own.
    if !common::is_root() {
        skip!("an ordinary user cannot mount proc without a PID namespace");
    }
    for signal in [9, 15, 11] {
        assert_eq!(case.sh(&format!("kill -{signal} $$")).run().status, 128 + signal);
    }
}

#[test]
fn run_passes_signals_on() {
    let mut case = case!();
    case.sh("trap 'exit 7' USR1; echo up; while :; do sleep 1000 & wait $!; done");
    let bundle = case.bundle();
    let running = case.spawn(&case.making("run", bundle.to_str().unwrap(), &[]));
    wait_for("the container", || {
        case.ctr(&["state", &case.id]).stdout.contains("\"running\"") && ready(&case)
    });
    let pid = nix::unistd::Pid::from_raw(running.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    assert_eq!(running.wait().status, 7);
}

/// Whether the shell has set its trap: it then waits for a child.
fn ready(case: &common::Case) -> bool {
    let pid = case.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    !children.trim().is_empty()
}

#[test]
fn standard_input_goes_through() {
    let mut case = case!();
    case.args(&["cat"]);
    let bundle = case.bundle();
    let args = case.making("run", bundle.to_str().unwrap(), &[]);
    assert_eq!(case.ctr_with_input(&args, "one\ntwo\n").ok(), "one\ntwo\n");
    case.up();
    assert_eq!(case.ctr_with_input(&["exec", &case.id, "cat"], "three").ok(), "three");
}

#[test]
fn run_detached_writes_the_pid_file() {
    let mut case = case!();
    case.sh("sleep 1000");
    let file = case.path("pid");
    case.run_with(&["--detach", "--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(file).unwrap(), case.pid().to_string());
    assert_eq!(case.status(), "running");
}

#[test]
fn a_missing_program_is_told_at_create() {
    let mut case = case!();
    case.args(&["no-such-program"]);
    let error = case.create().err();
    assert!(error.contains("no-such-program") && error.contains("not found"), "{error}");
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "", "nothing is left");
    case.args(&["/etc/passwd"]);
    let error = case.create().err();
    assert!(error.to_lowercase().contains("permission denied"), "{error}");
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

#[test]
fn exec_returns_the_exit_status() {
    let mut case = case!();
    case.up();
    for status in [0, 1, 42, 255] {
        assert_eq!(case.exec(&["sh", "-c", &format!("exit {status}")]).status, status);
    }
    assert_eq!(case.exec(&["sh", "-c", "kill -9 $$"]).status, 137);
    let missing = case.exec(&["no-such-program"]);
    assert_ne!(missing.status, 0);
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
    assert_eq!(case.status(), "running");
}

#[test]
fn exec_takes_environment_directory_and_user() {
    let mut case = case!();
    case.up();
    let seen = case.exec_with(&["--env", "A=b c", "-e", "HOME=/x"], &["sh", "-c", "echo $A:$HOME"]).ok();
    assert_eq!(seen, "b c:/x\n");
    assert_eq!(case.exec_with(&["--cwd", "/tmp"], &["pwd"]).ok(), "/tmp\n");
    // As with runc, only the first process has it made.
    let error = case.exec_with(&["--cwd", "/not/there"], &["true"]).err();
    assert!(error.contains("/not/there") && error.contains("no such file"), "{error}");
    assert!(!case.rootfs().join("not").exists());
    assert_eq!(case.exec(&["sh", "-c", "readlink /proc/self/ns/pid"]).status, 0);
    if common::is_root() {
        let flags = ["--user", "1000:100", "--additional-gids", "7"];
        assert_eq!(
            case.exec_with(&flags, &["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"]).ok(),
            "1000 100 100 7\n"
        );
        assert_eq!(case.exec_with(&["--user", "1000"], &["id", "-u"]).ok(), "1000\n");
    }
}

#[test]
fn exec_detached_writes_the_pid_file() {
    let mut case = case!();
    case.up();
    let file = case.path("pid");
    case.exec_with(&["--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "1000"]).ok();
    let pid = fs::read_to_string(file).unwrap();
    wait_for("the program", || {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap() == "sleep\x001000\0"
    });
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(namespace(&pid), namespace(&case.pid().to_string()));
}

#[test]
fn exec_takes_a_process_from_a_file() {
    let mut case = case!();
    case.up();
    let file = case.path("process.json");
    let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/etc", "args": ["sh", "-c", "pwd; echo $X"],
        "env": ["PATH=/bin", "X=from the file"]});
    fs::write(&file, process.to_string()).unwrap();
    assert_eq!(
        case.ctr(&["exec", "--process", file.to_str().unwrap(), &case.id]).ok(),
        "/etc\nfrom the file\n"
    );
    fs::write(&file, r#"{"user":{"uid":0,"gid":0},"cwd":"relative","args":[]}"#).unwrap();
    let error = case.ctr(&["exec", "--process", file.to_str().unwrap(), &case.id]).err();
    assert!(error.contains("/process/cwd") && error.contains("/process/args"), "{error}");
}

#[test]
fn exec_with_a_terminal() {
    let mut case = case!();
    case.up();
    let out = case.exec_with(&["--tty"], &["sh", "-c", "test -t 0 && test -t 1 && tty"]).ok();
    assert_eq!(out.trim(), "/dev/pts/0");
    let error = case.exec_with(&["--tty", "--detach"], &["true"]).err();
    assert!(error.contains("/process/terminal"), "{error}");
}

#[test]
fn exec_needs_a_running_container() {
    let mut case = case!();
    assert!(case.exec(&["true"]).err().contains("does not exist"));
    case.up();
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    let out = case.exec(&["true"]);
    assert!(out.stderr.contains("stopped"), "{out:?}");
    assert_ne!(out.status, 0);
}

#[test]
fn pause_and_resume() {
    let mut case = case!();
    case.up();
    require_cgroup!(case);
    case.ctr(&["pause", &case.id]).ok();
    assert_eq!(case.status(), "paused");
    let error = case.ctr(&["pause", &case.id]).err();
    assert!(error.contains("paused"), "{error}");
    let error = case.exec(&["true"]).err();
    assert!(error.contains("paused"), "{error}");
    assert!(case.ctr(&["delete", &case.id]).err().contains("paused"));
    case.ctr(&["resume", &case.id]).ok();
    assert_eq!(case.status(), "running");
    case.exec(&["true"]).ok();
    let error = case.ctr(&["resume", &case.id]).err();
    assert!(error.contains("not paused"), "{error}");
    case.ctr(&["pause", &case.id]).ok();
    case.ctr(&["delete", "--force", &case.id]).ok();
}

/// As with runc it waits for who resumes it, however long; and may be ended meanwhile.
#[test]
fn exec_that_ignores_a_pause_waits() {
    let mut case = case!();
    case.up();
    require_cgroup!(case);
    let pids = || case.ctr(&["ps", "--format", "json", &case.id]).ok().split(',').count();
    let before = 2;
    wait_for("the shell and what it waits for", || pids() == before);
    case.ctr(&["pause", &case.id]).ok();
    let waiting = case.spawn(&["exec", "--ignore-paused", &case.id, "echo", "late"]);
    let given_up = case.spawn(&["exec", "--ignore-paused", &case.id, "touch", "/tmp/made"]);
    wait_for("both processes", || pids() == before + 2);
    let pid = nix::unistd::Pid::from_raw(given_up.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_ne!(given_up.wait().status, 0);
    case.ctr(&["resume", &case.id]).ok();
    assert_eq!(waiting.wait().ok(), "late\n");
    wait_for("the end of what was given up", || pids() == before);
    case.exec(&["test", "!", "-e", "/tmp/made"]).ok();
}

#[test]
fn list_as_table_json_and_names() {
    let mut case = case!();
    assert_eq!(case.ctr(&["list", "--format", "json"]).ok().trim(), "null");
    assert!(case.ctr(&["list"]).ok().starts_with("ID"));
    case.up();
    assert_eq!(case.ctr(&["list", "-q"]).ok(), format!("{}\n", case.id));
    let table = case.ctr(&["list"]).ok();
    let line = table.lines().nth(1).unwrap();
    assert!(line.contains(&case.id) && line.contains("running"), "{table}");
    let json: Value = serde_json::from_str(&case.ctr(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(json[0]["id"], case.id.as_str());
    assert_eq!(json[0]["status"], "running");
    assert_eq!(json[0]["pid"], case.pid());
    assert_eq!(json[0]["rootfs"], case.rootfs().to_str().unwrap());
}

#[test]
fn ps_as_json_and_table() {
    let mut case = case!();
    case.up();
    wait_for("the program", || ready(&case));
    let pids: Vec<i32> = serde_json::from_str(&case.ctr(&["ps", "--format", "json", &case.id]).ok()).unwrap();
    assert!(pids.contains(&case.pid()) && pids.len() == 2, "{pids:?}");
    if Command::new("ps").arg("-ef").output().is_ok_and(|out| out.status.success()) {
        let table = case.ctr(&["ps", &case.id]).ok();
        assert!(table.contains("sleep 1000") && table.lines().count() == 3, "{table}");
    }
}

/// Without a cgroup the PID namespace tells whose processes they are, those in namespaces below it included.
#[test]
fn ps_without_a_cgroup() {
    let mut case = case!();
    for set in ["bounding", "effective", "permitted"] {
        case.set(&format!("/process/capabilities/{set}/-"), json!("CAP_SYS_ADMIN"));
    }
    case.sh("unshare -pf sh -c 'echo up; sleep 1000; true'").write_config();
    let bundle = case.bundle();
    let flags = ["--cgroup-manager", "disabled", "run", "--detach", "--bundle", bundle.to_str().unwrap()];
    let out = case.ctr(&[&flags[..], &[&case.id]].concat());
    assert_eq!(out.status, 0, "{out:?}");
    assert_eq!(case.cgroup(), None);
    wait_for("the innermost program", || out.later() == "up\n");
    case.exec_with(&["--detach"], &["sleep", "2000"]).ok();
    let pids: Vec<i32> = serde_json::from_str(&case.ctr(&["ps", "--format", "json", &case.id]).ok()).unwrap();
    let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().replace('\0', " ");
    let names: Vec<String> = pids.iter().map(command).collect();
    for program in ["unshare -pf sh", "sh -c echo up", "sleep 1000", "sleep 2000"] {
        assert!(names.iter().any(|name| name.starts_with(program)), "{program} in {names:?}");
    }
    assert!(pids.contains(&case.pid()) && pids.len() <= 5, "{names:?}");
    let error = case.ctr(&["pause", &case.id]).err();
    assert!(error.contains("no cgroup"), "{error}");
}

/// crun's `--regex`.
#[test]
fn containers_are_killed_and_deleted_by_a_regular_expression() {
    let mut case = case!();
    case.up();
    let (kept, other) = (case.id.clone(), format!("x-{}", case.id));
    case.without_cgroup_path().write_config();
    let bundle = case.bundle();
    case.ctr(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), &other]).ok();
    case.ctr(&["kill", "--regex", "^x-t[0-9]+", "KILL"]).ok();
    wait_for("its end", || case.ctr(&["state", &other]).ok().contains("stopped"));
    assert_eq!(case.status(), "running");
    case.ctr(&["delete", "--regex", "^x-"]).ok();
    assert_eq!(case.ctr(&["list", "-q"]).ok(), format!("{kept}\n"));
    case.ctr(&["delete", "--regex", "nothing"]).ok();
    let error = case.ctr(&["delete", "--regex", "."]).err();
    assert!(error.contains(&kept) && error.contains("running"), "{error}");
    assert!(case.ctr(&["kill", "--regex", "("]).err().contains("--regex"));
    case.ctr(&["delete", "--force", "--regex", "."]).ok();
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

/// runc's `--cgroup` on cgroup v2: a cgroup that is there, below the container's own.
#[test]
fn exec_joins_a_cgroup_below_the_container_s() {
    let mut case = case!();
    case.up();
    require_cgroup!(case);
    let cgroup = case.cgroup().unwrap();
    let ask = |path: &str| case.exec_with(&["--cgroup", path], &["grep", "^0:", "/proc/self/cgroup"]);
    let error = ask("sub").err();
    assert!(error.contains("\"sub\"") && error.contains("no such file"), "{error}");
    fs::create_dir_all(cgroup.join("sub/deep")).unwrap();
    assert_eq!(ask("sub").ok(), "0::/sub\n");
    assert_eq!(ask("/sub/deep/").ok(), "0::/sub/deep\n");
    assert_eq!(ask("/").ok(), "0::/\n");
    for (path, part) in
        [("..", "not below"), ("sub/../../..", "not below"), ("pids:sub", "without controllers")]
    {
        let error = ask(path).err();
        assert!(error.contains(part), "{path}: {error}");
    }
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert!(!cgroup.exists());
}

/// `plan` tells what would be done, and does nothing.
#[test]
fn plan_of_an_image_makes_nothing() {
    let case = case!();
    let args = case.hosting(&["--rm", "-it", "--volume", "/tmp:/mine", "--cap-drop", "all"], &["my-program"]);
    let plan = case.ctr(&[&["plan"], args.as_slice()].concat()).ok();
    for part in ["execute [\"my-program\"]", "on /mine", "open a terminal", "bounding capabilities: none"] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    let json = case.ctr(&[&["plan", "--format", "json"], args.as_slice()].concat()).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["id"], case.id.as_str());
    assert!(json["steps"].as_array().unwrap().len() > 30);
    assert!(!case.store().exists() && !case.path("private").exists());
}

#[test]
fn kill_all_reaches_every_process() {
    let mut case = case!();
    case.up();
    require_cgroup!(case);
    case.exec_with(&["--detach"], &["sleep", "1000"]).ok();
    case.ctr(&["kill", "--all", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    wait_for("all to end", || {
        fs::read_to_string(case.cgroup().unwrap().join("cgroup.procs")).unwrap().is_empty()
    });
    assert!(case.ctr(&["kill", &case.id, "NOSUCH"]).err().contains("NOSUCH"));
}

#[test]
fn delete_of_what_is_not_there() {
    let case = case!();
    assert!(case.ctr(&["delete", "nobody"]).err().contains("does not exist"));
    case.ctr(&["delete", "--force", "nobody"]).ok();
    for verb in ["state", "start", "kill", "pause", "resume", "ps"] {
        let out = case.ctr(&[verb, "nobody"]);
        assert_ne!(out.status, 0, "{verb}");
        assert!(out.stderr.contains("does not exist"), "{verb}: {out:?}");
    }
}

#[test]
fn names_that_are_no_names_are_refused() {
    let case = case!();
    case.write_config();
    let bundle = case.bundle();
    let long = "x".repeat(2000);
    for id in ["", ".", "..", "a/b", "../a", "a b", "a\nb", "/", long.as_str()] {
        let out = case.ctr(&["create", "--bundle", bundle.to_str().unwrap(), "--", id]);
        assert_ne!(out.status, 0, "{id:?}");
        assert_ne!(case.ctr(&["delete", "--", id]).status, 0, "{id:?}");
        assert_ne!(case.ctr(&["state", "--", id]).status, 0, "{id:?}");
    }
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
    assert!(!case.path("a").exists());
}

/// Everything that is wrong is told at once, each with where it is.
#[test]
fn all_problems_of_a_configuration_are_told() {
    let mut case = case!();
    case.set("/ociVersion", json!("7"));
    case.set("/process/cwd", json!("relative"));
    case.set("/process/args", json!([]));
    case.set("/process/oomScoreAdj", json!(5000));
    case.set("/linux/namespaces/-", json!({"type": "pid"}));
    case.set(
        "/mounts/-",
        json!({"destination": "/x", "type": "bind", "source": "/tmp", "options": ["rbind", "idmap=nonsense"]}),
    );
    case.set("/linux/maskedPaths/0", json!("relative"));
    case.set("/linux/sysctl", json!({"vm.swappiness": "1"}));
    case.set("/hooks", json!({"poststop": [{"path": "relative"}]}));
    let error = case.create().err();
    for pointer in [
        "/ociVersion",
        "/process/cwd",
        "/process/args",
        "/process/oomScoreAdj",
        "/linux/namespaces/",
        "/mounts/6/options",
        "/linux/maskedPaths/0",
        "/linux/sysctl/vm.swappiness",
        "/hooks/poststop/0/path",
    ] {
        assert!(error.contains(pointer), "{pointer} in {error}");
    }
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

#[test]
fn values_of_the_wrong_type_are_told_with_their_place() {
    let mut case = case!();
    case.set("/hostname", json!(7));
    case.set("/linux/namespaces/0/type", json!("nonsense"));
    case.set("/process/user/uid", json!("root"));
    let error = case.create().err();
    for pointer in ["/hostname", "/linux/namespaces/0/type", "/process/user/uid"] {
        assert!(error.contains(pointer), "{pointer} in {error}");
    }
    fs::write(case.bundle().join("config.json"), "{").unwrap();
    let error = case.ctr(&["create", "--bundle", case.bundle().to_str().unwrap(), &case.id]).err();
    assert!(error.contains("JSON"), "{error}");
    fs::remove_file(case.bundle().join("config.json")).unwrap();
    let error = case.ctr(&["create", "--bundle", case.bundle().to_str().unwrap(), &case.id]).err();
    assert!(error.contains("config.json") && error.contains("no such file"), "{error}");
}

/// runtime-spec config.md: a capability that cannot be mapped is warned of, not refused.
#[test]
fn an_unknown_capability_is_a_warning() {
    let mut case = case!();
    case.set("/process/capabilities/bounding/-", json!("CAP_NONSENSE"));
    let out = case.sh("echo ran").run();
    assert_eq!(out.stdout, "ran\n", "{out:?}");
    assert!(out.stderr.contains("CAP_NONSENSE"), "{out:?}");
}

/// runtime-spec config.md, "Extensibility".
#[test]
fn unknown_properties_are_ignored() {
    let mut case = case!();
    case.set("/nonsense", json!({"a": [1]}))
        .set("/linux/nonsense", json!(1))
        .set("/process/nonsense", json!("x"));
    assert_eq!(case.prints("echo ran"), "ran");
}

#[test]
fn annotations_are_in_the_state() {
    let mut case = case!();
    case.set("/annotations", json!({"org.example.a": "1", "empty": ""})).create().ok();
    assert_eq!(case.state()["annotations"], json!({"org.example.a": "1", "empty": ""}));
}

/// A hook that appends its kind, and its standard input to a file of its own.
fn hook(log: &str, dir: &str, kind: &str) -> Value {
    let script = format!("echo {kind} >> {log}; cat > {dir}/{kind}");
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

/// runtime-spec config.md, "POSIX-platform Hooks": in which order, with the state on standard input.
#[test]
fn hooks_run_in_order_with_the_state() {
    let mut case = case!();
    let dir = case.path("hooks");
    fs::create_dir(&dir).unwrap();
    let (log, shown) = (dir.join("log"), dir.to_str().unwrap().to_owned());
    case.mount("bind", &dir, "/hooks", &["bind", "rw"]);
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        case.set(&format!("/hooks/{kind}"), hook(log.to_str().unwrap(), &shown, kind));
    }
    // It runs with the container's root.
    case.set("/hooks/startContainer", hook("/hooks/log", "/hooks", "startContainer"));
    case.set("/annotations", json!({"a": "b"}));
    case.sh("echo program >> /hooks/log; sleep 1000");
    case.create().ok();
    let lines = || fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(), ["prestart", "createRuntime", "createContainer"]);
    let pid = case.pid();
    case.ctr(&["start", &case.id]).ok();
    wait_for("program and hook", || lines().len() == 6);
    assert_eq!(lines()[3], "startContainer");
    assert!(lines()[4..].contains(&"poststart".to_owned()));
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert_eq!(lines()[6..], ["poststop"]);
    for (kind, status) in [
        ("prestart", "created"),
        ("createRuntime", "created"),
        ("createContainer", "created"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let text = fs::read_to_string(dir.join(kind)).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], case.id.as_str(), "{kind}");
        assert_eq!(state["annotations"]["a"], "b", "{kind}");
        assert_eq!(state["bundle"], case.bundle().to_str().unwrap(), "{kind}");
        match kind {
            "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{kind}"),
            _ => {}
        }
    }
}

/// createRuntime runs in the runtime's namespaces, createContainer in the container's, with the host's files.
#[test]
fn hooks_run_in_their_namespaces() {
    let mut case = case!();
    let file = |name: &str| case.path(name);
    let (runtime, container) = (file("runtime"), file("container"));
    let note = |path: &Path| {
        let script = format!("readlink /proc/self/ns/mnt > {}", path.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let hooks = json!({"createRuntime": note(&runtime), "createContainer": note(&container)});
    case.set("/hooks", hooks);
    let inside = case.prints("readlink /proc/self/ns/mnt");
    let outside = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(fs::read_to_string(runtime).unwrap().trim(), outside.to_str().unwrap());
    assert_eq!(fs::read_to_string(container).unwrap().trim(), inside);
}

#[test]
fn a_failing_hook_ends_create_and_leaves_nothing() {
    let mut case = case!();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let failing = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo told >&2; exit 3"]}]);
        case.set("/hooks", json!({kind: failing}));
        let error = case.create().err();
        assert!(error.contains(kind) && error.contains("told"), "{kind}: {error}");
        assert_eq!(case.ctr(&["list", "-q"]).ok(), "", "{kind}");
    }
    let failing = json!([{"path": "/bin/false"}]);
    case.set("/hooks", json!({"startContainer": failing})).create().ok();
    assert!(case.ctr(&["start", &case.id]).err().contains("startContainer"));
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
    case.set("/hooks", json!({"poststart": failing})).sh("sleep 1000").create().ok();
    assert!(case.ctr(&["start", &case.id]).err().contains("poststart"));
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
    case.set("/hooks", json!({"poststop": failing})).create().ok();
    let out = case.ctr(&["delete", "--force", &case.id]);
    assert_eq!(out.status, 0, "{out:?}");
    assert!(out.stderr.contains("poststop"), "{out:?}");
}

/// Neither a state that is more than a pipe holds nor endless words of its own hold a hook or us up.
#[test]
fn a_hook_need_not_read_and_may_say_much() {
    let mut case = case!();
    case.set("/annotations", json!({"big": "x".repeat(300_000)}));
    let script = "yes words | head -c 300000 >&2; exit 3";
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20}]);
    let error = case.set("/hooks", json!({"createRuntime": hook})).create().err();
    assert!(error.contains("exit status: 3") && error.contains("words"), "{error}");
    assert!(!error.contains("timeout"), "{error}");
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    let mut case = case!();
    let slow = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "env": ["PATH=/bin:/usr/bin"], "timeout": 1}]);
    case.set("/hooks", json!({"createRuntime": slow}));
    let start = std::time::Instant::now();
    let error = case.create().err();
    assert!(error.contains("timeout"), "{error}");
    assert!(start.elapsed().as_secs() < 20);
}

/// What such a hook has started ends with it.
#[test]
fn children_of_a_hook_that_takes_too_long_are_ended() {
    let mut case = case!();
    let pid = case.path("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let slow = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 1}]);
    case.set("/hooks", json!({"createRuntime": slow}));
    case.create().err();
    let stat = format!("/proc/{}/stat", fs::read_to_string(pid).unwrap().trim());
    // Whoever adopts it may not reap it at once.
    let runs = || fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z"));
    wait_for("the end of the hook's child", || !runs());
}

/// Of a file that is not config.json the errors do not say so, and what it names in vain is told.
#[test]
fn what_is_wrong_with_a_file_is_told_with_its_name() {
    let mut case = case!();
    case.up();
    let file = case.path("file.json");
    let path = file.to_str().unwrap().to_owned();
    for (text, part) in [("{", "it is not JSON"), ("[]", "not a JSON object"), ("{\"cwd\": 7}", "/cwd")] {
        fs::write(&file, text).unwrap();
        let error = case.ctr(&["exec", "--process", &path, &case.id]).err();
        assert!(error.contains(&path) && error.contains(part) && !error.contains("config.json"), "{error}");
    }
    for (text, part) in [("{", "it is not JSON"), ("{\"pids\": 7}", "/pids")] {
        fs::write(&file, text).unwrap();
        let error = case.ctr(&["update", "--resources", &path, &case.id]).err();
        assert!(error.contains(&path) && error.contains(part) && !error.contains("config.json"), "{error}");
    }
    require_cgroup!(case);
    fs::write(&file, "{\"pids\": {\"limit\": 0, \"max\": 1}, \"speed\": 9}").unwrap();
    let said = case.ctr(&["update", "--resources", &path, &case.id]).stderr;
    assert!(said.contains("/pids/max is no limit") && said.contains("/speed is no limit"), "{said}");
}

/// runtime-spec runtime.md, "Create": later changes of config.json do not matter.
#[test]
fn the_configuration_is_that_of_create() {
    let mut case = case!();
    let created = case.sh("echo first; sleep 1000").create();
    case.sh("echo second").write_config();
    case.ctr(&["start", &case.id]).ok();
    wait_for("the program", || created.later() == "first\n");
    fs::remove_file(case.bundle().join("config.json")).unwrap();
    case.exec(&["true"]).ok();
}

#[test]
fn descriptors_are_passed_only_when_asked_for() {
    let mut case = case!();
    let out = case.prints("ls /proc/self/fd");
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "ls itself has one open");
    let bundle = case.bundle();
    case.sh("cat <&3").write_config();
    let script = r#"exec 3<<E
kept
E
exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(common::program()).arg("--root").arg(case.store());
    command.args(["run", "--preserve-fds", "1", "--bundle"]).arg(bundle).arg(&case.id);
    assert_eq!(common::spawn(case.dir(), &mut command).wait().ok(), "kept\n");
}

#[test]
fn an_ordinary_user_needs_a_user_namespace() {
    if common::is_root() {
        skip!("needs an ordinary user");
    }
    let mut case = case!();
    case.without_namespace("user");
    assert!(case.create().err().contains("/linux/namespaces"));
}

#[test]
fn two_containers_cannot_share_a_cgroup() {
    require_root!();
    let mut case = case!();
    case.up();
    let (bundle, other) = (case.bundle(), format!("{}-other", case.id));
    let error = case.ctr(&["create", "--bundle", bundle.to_str().unwrap(), &other]).err();
    assert!(error.contains("cgroup"), "{error}");
    assert_eq!(case.status(), "running");
}

/// A process that nobody was told of does not go on.
#[test]
fn exec_whose_pid_file_cannot_be_written_leaves_nothing() {
    let mut case = case!();
    require_cgroup!(case.up());
    let error = case.exec_with(&["--detach", "--pid-file", "/nowhere/pid"], &["sleep", "777"]).err();
    assert!(error.contains("/nowhere/pid"), "{error}");
    let pids: Vec<i32> = serde_json::from_str(&case.ctr(&["ps", "--format", "json", &case.id]).ok()).unwrap();
    let names = pids.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    assert!(!names.into_iter().any(|name| name.contains("777")), "it goes on");
    let error = case.ctr(&["exec", "--detach", "--pid-file", "/dev/full", &case.id, "true"]).err();
    assert!(error.contains("no regular file"), "{error}");
}

/// Limits that would stop ourselves hold for the program, not for us.
#[test]
fn small_limits_do_not_stop_the_start() {
    let mut case = case!();
    for (kind, value) in [("RLIMIT_FSIZE", 0), ("RLIMIT_NOFILE", 4)] {
        case.set("/process/rlimits", json!([{"type": kind, "soft": value, "hard": value}]));
        case.args(&["true"]).run().ok();
    }
}

/// Two of one name in two state directories: where nobody has named a cgroup each has its own, so that the end of one, who
/// takes all in its cgroup along, is not the other's.
#[test]
fn containers_of_one_name_do_not_share_a_cgroup() {
    let mut case = case!();
    case.without_cgroup_path().args(&["true"]).start_up();
    require_cgroup!(case);
    case.wait_status("stopped");
    let (first, other) = (case.cgroup().unwrap(), case.path("other"));
    let elsewhere = |args: &[&str]| {
        let mut command = Command::new(common::program());
        command.arg("--root").arg(&other).args(args).env("CTR_STORE", case.path("private"));
        common::spawn(case.dir(), &mut command).wait()
    };
    elsewhere(&["create", "--bundle", case.bundle().to_str().unwrap(), &case.id]).ok();
    let second = common::record(&other.join(&case.id)).unwrap()["cgroup"].as_str().unwrap().to_owned();
    assert_eq!(second, format!("{}-2", first.display()));
    case.ctr(&["delete", &case.id]).ok();
    let state: Value = serde_json::from_str(&elsewhere(&["state", &case.id]).ok()).unwrap();
    assert_eq!(state["status"], "created", "it lives on");
    elsewhere(&["delete", "--force", &case.id]).ok();
    assert!(!Path::new(&second).exists());
}

/// Of two that make a container in one cgroup at the same time one wins, and the other harms nobody.
#[test]
fn a_cgroup_is_taken_once() {
    require_root!();
    let mut case = case!();
    require_cgroup!(case.up());
    case.ctr(&["delete", "--force", &case.id]).ok();
    let (bundle, other) = (case.bundle(), case.path("other"));
    let bundle = bundle.to_str().unwrap();
    let elsewhere = |args: &[&str]| {
        let mut command = Command::new(common::program());
        command.arg("--root").arg(&other).args(args).stdin(std::process::Stdio::null());
        common::spawn(case.dir(), &mut command)
    };
    for _ in 0..10 {
        let mine = case.spawn(&["create", "-b", bundle, &case.id]);
        let theirs = elsewhere(&["create", "-b", bundle, &case.id]);
        let (mine, theirs) = (mine.wait(), theirs.wait());
        assert_eq!([&mine, &theirs].iter().filter(|out| out.status == 0).count(), 1, "{mine:?} {theirs:?}");
        let loser = if mine.status == 0 { theirs.err() } else { mine.err() };
        assert!(loser.contains("another container uses it"), "{loser}");
        case.ctr(&["delete", "--force", &case.id]).ok();
        elsewhere(&["delete", "--force", &case.id]).wait().ok();
    }
}

#[test]
fn one_that_waits_for_start_can_be_paused() {
    let mut case = case!();
    case.sh("echo ran").create().ok();
    require_cgroup!(case);
    case.ctr(&["pause", &case.id]).ok();
    assert_eq!(case.status(), "paused");
    assert!(case.ctr(&["start", &case.id]).err().contains("resume it first"));
    case.ctr(&["resume", &case.id]).ok();
    assert_eq!(case.status(), "created");
    case.ctr(&["start", &case.id]).ok();
    case.wait_status("stopped");
}

/// In all hierarchies there is a file of that name.
#[test]
fn a_cgroups_path_that_is_a_file_is_refused() {
    let mut case = case!();
    if common::cgroup2().is_none() {
        skip!("no cgroup version 2");
    }
    case.set("/linux/cgroupsPath", json!("/cgroup.procs")).sh("true");
    let error = case.run().err();
    assert!(error.contains("make cgroup") && error.contains("/cgroup.procs"), "{error}");
    assert!(common::record(case.dir()).is_none());
}

/// Nothing that is put into it would ever run.
#[test]
fn a_frozen_cgroup_is_refused() {
    let mut case = case!();
    case.up();
    let own = case.cgroup();
    case.ctr(&["delete", "--force", &case.id]).ok();
    let Some(own) = own else { skip!("no cgroup is given to this user") };
    let parent = own.parent().unwrap().join(format!("{}-frozen", case.id));
    let path =
        |place: &Path| format!("/{}", place.strip_prefix(common::cgroup2().unwrap()).unwrap().display());
    if let Err(error) = fs::create_dir(&parent) {
        skip!(format!("no cgroup beside the container's may be made: {error}"));
    }
    fs::write(parent.join("cgroup.freeze"), "1").unwrap();
    for place in [parent.clone(), parent.join("below")] {
        case.set("/linux/cgroupsPath", json!(path(&place)));
        let error = case.run().err();
        assert!(error.contains("cgroup unexpectedly frozen") && error.contains("-frozen"), "{error}");
        assert!(!parent.join("below").exists());
    }
    fs::remove_dir(&parent).unwrap();
}

/// Where the first user may be, another one who is root may be, too, without the right to pass by permissions.
#[test]
fn a_working_directory_is_entered_before_rights_are_given_up() {
    let mut case = case!();
    require_root!();
    let home = case.rootfs().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(42), Some(42)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    case.set("/process/cwd", json!("/home")).set("/process/user", json!({"uid": 42, "gid": 42}));
    case.set("/process/capabilities", json!({"bounding": [], "effective": [], "permitted": []}));
    case.up();
    assert_eq!(case.exec_with(&["--user", "0"], &["pwd"]).ok(), "/home\n");
}

/// As with runc: 1 may be the program's own.
#[test]
fn an_exec_that_fails_ends_with_255() {
    let mut case = case!();
    case.up();
    assert_eq!(case.exec(&["false"]).status, 1);
    assert_eq!(case.exec(&["no-such-program"]).status, 255);
    assert_eq!(case.ctr(&["exec", "none", "true"]).status, 255);
}
