//! Containers that stay: their log, attaching to them, stopping and restarting them, and the process that keeps them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, Terminal, case, spawn, wait_for};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::Stdio;

/// A program that runs until it is told to end, and says how often it has begun.
const STAYS: &str = "trap 'echo bye; exit 3' TERM; echo begun; while :; do sleep .05; done";

fn kill(pid: i32, signal: i32) {
    ctr_isolation::sys::process::kill(pid, signal).unwrap();
}

#[track_caller]
fn wait_for_log(case: &Case, text: &str) {
    wait_for(&format!("{text:?} in the log"), || case.ctr(&["logs", &case.id]).ok().contains(text));
}

/// Whoever follows the pid file follows the container from one life to the next.
#[test]
fn restart_writes_the_pid_file_anew() {
    let case = case!();
    // From where the caller is; the supervisor is elsewhere.
    let args = case.hosting(&["--detach", "--pid-file", "pid"], &["sleep", "1000"]);
    spawn(case.dir(), case.command(&args).current_dir(case.dir())).wait().ok();
    let pid = || fs::read_to_string(case.path("pid")).unwrap();
    let first = pid();
    assert_eq!(first, case.pid().to_string());
    case.ctr(&["restart", "--time", "0", &case.id]).ok();
    assert_eq!(pid(), case.pid().to_string());
    assert_ne!(pid(), first);
}

#[test]
fn the_log_has_every_byte_and_knows_the_streams() {
    let case = case!();
    case.detach(&[], r"printf 'a\000\377\n\nb'; sleep .2; printf c; echo err >&2; exit 4");
    case.wait_status("stopped");
    let out = std::process::Command::output(&mut case.command(&["logs", &case.id])).unwrap();
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"a\0\xff\n\nbc"[..], &b"err\n"[..]));
    wait_for("the status", || case.state()["exitStatus"] == 4);
    let listed: Value = serde_json::from_str(&case.ctr(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(listed[0]["exitStatus"], 4);
}

#[test]
fn logs_begin_where_they_are_asked_to_and_tell_the_time() {
    let case = case!();
    let gate = case.dir().join("gate");
    fs::create_dir(&gate).unwrap();
    let volume = format!("--volume={}:/tmp", gate.display());
    let until_two = "until [ -e /tmp/two ]; do sleep .01; done";
    case.detach(&[&volume], &format!("echo one; {until_two}; echo two; printf thr; sleep .1; echo ee"));
    // However late the supervisor reads, it has read the first line before the others are written.
    wait_for("the first line", || case.ctr(&["logs", &case.id]).ok() == "one\n");
    fs::write(gate.join("two"), "").unwrap();
    case.wait_status("stopped");
    let tail = |count| case.ctr(&["logs", "--tail", count, &case.id]).ok();
    assert_eq!(
        (tail("0"), tail("2"), tail("9")),
        ("".into(), "two\nthree\n".into(), "one\ntwo\nthree\n".into())
    );
    let stamped = case.ctr(&["logs", "--timestamps", &case.id]).ok();
    let (times, words): (Vec<_>, Vec<_>) = stamped.lines().map(|line| line.split_once(' ').unwrap()).unzip();
    assert_eq!(words, ["one", "two", "three"]);
    assert!(times.is_sorted() && times[0] < times[1] && times[0].ends_with('Z'), "{times:?}");
}

#[test]
fn logs_follow_to_the_end_and_end_with_the_container() {
    let case = case!();
    case.detach(&[], "for n in 1 2 3; do echo $n; sleep .1; done; seq 100000; printf end");
    let lines: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(case.ctr(&["logs", "--follow", &case.id]).ok(), format!("1\n2\n3\n{lines}end"));
    let removed = case!();
    removed.detach(&["--rm"], "sleep 1; echo last");
    assert_eq!(removed.ctr(&["logs", "--follow", &removed.id]).ok(), "last\n");
    wait_for("its removal", || removed.ctr(&["list", "-q"]).ok().is_empty());
}

#[test]
fn the_log_is_bounded() {
    let case = case!();
    let mut command = case.command(&case.hosting(&["--detach"], &["sh", "-c", "seq 20000; echo last"]));
    spawn(case.dir(), command.env("CTR_RUN_LOG_SIZE", "64K")).wait().ok();
    case.wait_status("stopped");
    wait_for_log(&case, "last\n");
    let directory = case.path("private/containers").join(&case.id);
    let size = ["log", "log.1"].map(|name| fs::metadata(directory.join(name)).unwrap().len());
    assert!(size.iter().sum::<u64>() <= 64 << 10 && size[1] > 20 << 10, "{size:?}");
    assert!(case.ctr(&["logs", &case.id]).ok().ends_with("19999\n20000\nlast\n"));
}

/// What its caller had open, where it was, and its terminal are the caller's.
#[test]
fn the_supervisor_keeps_nothing_of_its_caller() {
    let case = case!();
    let directory = case.path("here");
    fs::create_dir(&directory).unwrap();
    let script = r#"exec 7</etc/passwd 9</etc/group; exec "$@""#;
    let mut command = std::process::Command::new("sh");
    let args = case.hosting(&["--detach"], &["sh", "-c", STAYS]);
    let ctr = case.command(&args);
    command.args(["-c", script, "sh"]).arg(ctr.get_program()).args(ctr.get_args());
    command.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(&directory);
    spawn(case.dir(), &mut command).wait().ok();
    let pid = case.supervisor();
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd").to_str(), Some("/"));
    for number in 0..3 {
        assert_eq!(link(&format!("fd/{number}")).to_str(), Some("/dev/null"));
    }
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    // What it opens only for a moment may be gone.
    let open: Vec<_> =
        open.filter_map(|path| Some(fs::read_link(path).ok()?.display().to_string())).collect();
    assert!(!open.iter().any(|file| file.starts_with("/etc/")), "{open:?}");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"), "a session of its own, no terminal");
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        kill(pid, signal);
    }
    let status = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    // Its own pages: those of the program's file are shared by all that run it, and how many of them the kernel brings
    // in at a time is not in our hand.
    let own = status.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let own: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(own <= 1024, "{own} kB are its own");
    fs::remove_dir(&directory).unwrap();
    case.ctr(&["stop", &case.id]).ok();
    assert_eq!(case.ctr(&["logs", &case.id]).ok(), "begun\nbye\n");
    assert_eq!(case.state()["exitStatus"], 3);
}

#[test]
fn several_are_stopped_and_what_is_not_there_is_told() {
    let (one, two) = (case!(), case!());
    one.detach(&[], STAYS);
    // The first process of a PID namespace does not hear a signal it has no handler for.
    let sleep = ["run", "--detach", "--image", "host", "--name", &two.id, "--", "sleep", "1000"];
    one.ctr(&sleep).ok();
    let start = std::time::Instant::now();
    let out = one.ctr(&["stop", &one.id, "nobody", &two.id]);
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
    assert_eq!((out.status, out.stdout.as_str()), (125, format!("{}\n{}\n", one.id, two.id).as_str()));
    assert!(out.stderr.contains("nobody"), "{out:?}");
    let states: Value = serde_json::from_str(&one.ctr(&["list", "--format", "json"]).ok()).unwrap();
    let status = |id: &str| {
        let found = states.as_array().unwrap().iter().find(|state| state["id"] == id).unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["exitStatus"].as_i64())
    };
    assert_eq!(status(&one.id), ("stopped".into(), Some(3)));
    assert_eq!(status(&two.id), ("stopped".into(), Some(137)));
    one.ctr(&["stop", &one.id]).ok();
}

#[test]
fn a_program_that_does_not_end_is_killed() {
    let case = case!();
    case.detach(&[], "trap '' TERM; echo up; while :; do sleep .05; done");
    wait_for_log(&case, "up");
    let out = case.ctr(&["stop", "--time", "1", &case.id]);
    assert!(out.stderr.contains("1 s after SIGTERM"), "{out:?}");
    assert_eq!(case.state()["exitStatus"], 137);
}

#[test]
fn restart_keeps_all_but_the_process() {
    let case = case!();
    case.detach(&["--env", "A=b"], &format!("echo $A $(cat /etc/kept); echo x > /etc/kept; {STAYS}"));
    wait_for_log(&case, "begun");
    let before = case.pid();
    assert_eq!(case.ctr(&["restart", &case.id]).ok(), format!("{}\n", case.id));
    assert_eq!(case.status(), "running");
    assert_ne!(case.pid(), before);
    wait_for_log(&case, "b x\nbegun\n");
    assert_eq!(case.ctr(&["logs", &case.id]).ok(), "b\nbegun\nbye\nb x\nbegun\n");
    case.ctr(&["stop", &case.id]).ok();
    case.ctr(&["restart", &case.id]).ok();
    assert_eq!(case.status(), "running");
    assert!(case.state().get("exitStatus").is_none());
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert_eq!(fs::read_dir(case.path("private/containers")).unwrap().count(), 0);
}

#[test]
fn restart_does_not_remove_what_is_removed_at_its_end() {
    let case = case!();
    case.detach(&["--rm"], STAYS);
    wait_for_log(&case, "begun");
    case.ctr(&["restart", &case.id]).ok();
    assert_eq!(case.status(), "running");
    wait_for_log(&case, "bye\nbegun");
    case.ctr(&["stop", &case.id]).ok();
    wait_for("its removal", || case.ctr(&["list", "-q"]).ok().is_empty());
    assert_eq!(fs::read_dir(case.path("private/containers")).unwrap().count(), 0);
}

#[test]
fn a_restart_that_fails_leaves_what_was_there() {
    let case = case!();
    let shown = case.path("shown");
    fs::create_dir(&shown).unwrap();
    case.detach(&["--volume", &format!("{}:/shown", shown.display())], STAYS);
    wait_for_log(&case, "begun");
    fs::remove_dir(&shown).unwrap();
    let out = case.ctr(&["restart", &case.id]);
    assert_eq!(out.status, 125, "{out:?}");
    assert!(out.stderr.contains("shown"), "{out:?}");
    assert_eq!(case.status(), "stopped");
    fs::create_dir(&shown).unwrap();
    case.ctr(&["restart", &case.id]).ok();
    assert_eq!(case.status(), "running");
}

#[test]
fn a_bundle_is_not_restarted() {
    let mut case = case!();
    case.up();
    let error = case.ctr(&["restart", &case.id]).err();
    assert!(error.contains("bundle") && error.contains("delete"), "{error}");
    assert!(case.ctr(&["logs", &case.id]).err().contains("run --detach"));
    assert!(case.ctr(&["attach", &case.id]).err().contains("exec -t"));
    assert_eq!(case.status(), "running");
}

/// Everything works without it, less its services.
#[test]
fn a_supervisor_that_is_killed_is_missed_but_not_needed() {
    let case = case!();
    case.detach(&[], "echo begun; exec sleep 1000");
    wait_for_log(&case, "begun");
    kill(case.supervisor(), libc::SIGKILL);
    // Whoever is process 1 here may take its time to reap.
    let stat = format!("/proc/{}/stat", case.supervisor());
    wait_for("its end", || {
        fs::read_to_string(&stat).is_err() || fs::read_to_string(&stat).unwrap_or_default().contains(") Z ")
    });
    assert_eq!(case.status(), "running");
    case.exec(&["true"]).ok();
    for flags in [&["logs"][..], &["logs", "--follow"]] {
        let out = case.ctr(&[flags, &[&case.id]].concat());
        assert_eq!((out.status, out.stdout.as_str()), (0, "begun\n"));
        assert!(out.stderr.contains("supervisor") && out.stderr.contains("killed"), "{out:?}");
    }
    let error = case.ctr(&["attach", &case.id]).err();
    assert!(error.contains("no supervisor"), "{error}");
    case.ctr(&["restart", &case.id]).ok();
    case.ctr(&["exec", &case.id, "true"]).ok();
    kill(case.supervisor(), libc::SIGKILL);
    case.ctr(&["stop", &case.id]).ok();
    assert_eq!(case.status(), "stopped");
    case.ctr(&["delete", &case.id]).ok();
}

#[test]
fn attach_passes_input_and_shows_the_output_of_both_streams() {
    let case = case!();
    case.detach(&["--interactive"], "while read x; do echo got $x; echo bad $x >&2; done; echo end; exit 5");
    let out = case.ctr_with_input(&["attach", &case.id], "one\ntwo\n");
    assert_eq!((out.status, out.stdout.as_str()), (5, "got one\ngot two\nend\n"));
    assert_eq!(out.stderr, "bad one\nbad two\n");
    assert_eq!(case.ctr(&["logs", &case.id]).ok(), "got one\ngot two\nend\n");
    let error = case.ctr(&["attach", &case.id]).err();
    assert!(error.contains("has ended"), "{error}");
}

/// More input than any pipe holds, for a program that takes its time.
#[test]
fn attach_waits_for_a_program_that_reads_slowly() {
    let case = case!();
    case.detach(&["--interactive"], "sleep .3; wc -c");
    let out = case.ctr_with_input(&["attach", &case.id], &"x".repeat(1_000_000));
    assert_eq!(out.ok().trim(), "1000000");
}

#[test]
fn without_interactive_there_is_no_input() {
    let case = case!();
    case.detach(&[], "cat; echo end; sleep 1; echo over");
    wait_for_log(&case, "end\n");
    let out = case.ctr_with_input(&["attach", &case.id], "one\n");
    assert_eq!(out.ok(), "over\n");
    assert_eq!(case.ctr(&["logs", &case.id]).ok(), "end\nover\n");
}

/// Whether `attach` has been greeted and sleeps until there is something to show.
fn listens(pid: u32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut targets = fds.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    targets.any(|target| target.ends_with("anon_inode:[signalfd]")) && stat.contains(") S ")
}

/// One who is attached and goes away, however, leaves the container and the others as they are.
#[test]
fn a_client_that_dies_or_stops_harms_nobody() {
    let case = case!();
    case.detach(&["--interactive"], "while read x; do seq 20000; echo got $x; done");
    let stopped = case.spawn(&["attach", "--no-stdin", &case.id]);
    wait_for("a client that listens", || listens(stopped.child.id()));
    let mut dying =
        case.command(&["attach", &case.id]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(dying.stdin.as_mut().unwrap(), "one").unwrap();
    wait_for_log(&case, "got one");
    kill(stopped.child.id() as i32, libc::SIGSTOP);
    dying.kill().unwrap();
    dying.wait().unwrap();
    let out = case.ctr_with_input(&["attach", &case.id], "two\n");
    assert!(out.stdout.ends_with("20000\ngot two\n"), "{:?}", out.stdout.len());
    kill(stopped.child.id() as i32, libc::SIGCONT);
    let all = stopped.wait().ok();
    assert!(all.contains("got one\n1\n") && all.ends_with("got two\n"));
}

#[test]
fn attach_joins_a_terminal() {
    let case = case!();
    case.detach(&["-it"], "stty size; printf 'name? '; read x; echo hello $x; stty size; read y; exit 6");
    wait_for_log(&case, "name?");
    let mut terminal = Terminal::start(&case.command(&["attach", &case.id]));
    // The line that is not ended yet is shown.
    terminal.expect("name? ");
    terminal.types("you\r");
    terminal.expect("hello you\r\n24 80\r\n");
    assert!(!terminal.is_cooked());
    let mut second = Terminal::start(&case.command(&["attach", &case.id]));
    wait_for("raw mode", || !second.is_cooked());
    second.types("\x10\x11");
    assert_eq!(second.wait(), 0, "{}", second.seen());
    assert!(second.is_cooked());
    assert_eq!(case.status(), "running");
    terminal.types("\r");
    assert_eq!(terminal.wait(), 6, "{}", terminal.seen());
    assert!(terminal.is_cooked());
}

#[test]
fn a_window_that_changes_its_size_tells_the_program() {
    let case = case!();
    case.detach(&["-it"], "trap 'stty size' WINCH; echo up; while :; do sleep .05; done");
    wait_for_log(&case, "up");
    let mut terminal = Terminal::start(&case.command(&["attach", "--detach-keys", "ctrl-x", &case.id]));
    terminal.expect("24 80");
    terminal.resize(33, 99);
    terminal.expect("33 99");
    kill(terminal.pid(), libc::SIGTERM);
    assert_eq!(terminal.wait(), 128 + libc::SIGTERM);
    assert!(terminal.is_cooked());
    assert_eq!(case.status(), "running");
}

/// Whoever restarts at the same time waits; the last one has the process that runs.
#[test]
fn restarts_take_turns() {
    let case = case!();
    case.detach(&[], "trap 'exit 0' TERM; while :; do sleep .05; done");
    let all: Vec<_> = (0..3).map(|_| spawn(case.dir(), &mut case.command(&["restart", &case.id]))).collect();
    for one in all {
        one.wait().ok();
    }
    assert_eq!(case.status(), "running");
    case.ctr(&["stop", &case.id]).ok();
    case.ctr(&["delete", &case.id]).ok();
}

/// What was asked for holds again after a restart, and what is not to be had is told to who asks.
#[test]
fn a_restart_asks_for_the_same_limits() {
    let case = case!();
    let flags = ["--detach", "--limits=best-effort", "--memory=64M", "--hugetlb=4KB=4K"];
    let out = case.ctr(&case.hosting(&flags, &["sleep", "1000"]));
    assert_eq!((out.status, out.stdout.as_str()), (0, format!("{}\n", case.id).as_str()), "{out:?}");
    assert!(out.stderr.contains("not limited") && out.stderr.contains("hugetlb"), "{out:?}");
    let out = case.ctr(&["restart", "--time", "0", &case.id]);
    assert_eq!(out.status, 0, "{out:?}");
    assert!(out.stderr.contains("not limited") && out.stderr.contains("hugetlb"), "{out:?}");
    case.ctr(&["stop", "--time", "0", &case.id]).ok();
}
