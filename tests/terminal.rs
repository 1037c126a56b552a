//! `run` and `exec` at a terminal and in pipelines: keys, signals, sizes, and what is put back afterwards.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Terminal, case, wait_for};
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

fn kill(pid: i32, signal: i32) {
    ctr_isolation::sys::process::kill(pid, signal).unwrap();
}

fn at_terminal(case: &common::Case, flags: &[&str], program: &[&str]) -> Terminal {
    Terminal::start(&case.command(&case.hosting(&[&["--rm"], flags].concat(), program)))
}

#[test]
fn keys_reach_the_program_s_own_terminal() {
    let case = case!();
    let mut terminal = at_terminal(&case, &["-it"], &["bash", "--norc", "-i"]);
    terminal.types("stty size; tty; echo a-$((1+1))\r");
    terminal.expect("24 80\r\n/dev/pts/0\r\na-2\r\n");
    // Control-C ends what is in the foreground inside, and nothing else.
    terminal.types("sleep 1000\r");
    wait_for("the program", || case.ctr(&["ps", &case.id]).ok().contains("sleep 1000"));
    terminal.types("\x03");
    terminal.types("echo b-$?\r");
    terminal.expect("b-130\r\n");
    // Control-Z stops it, for the shell inside.
    terminal.types("sleep 2000\r");
    wait_for("the program", || case.ctr(&["ps", &case.id]).ok().contains("sleep 2000"));
    terminal.types("\x1a");
    terminal.expect("Stopped");
    terminal.types("kill %1; echo c-$?\r");
    terminal.expect("c-0\r\n");
    terminal.resize(40, 120);
    terminal.types("stty size\r");
    terminal.expect("40 120\r\n");
    terminal.types("exit 7\r");
    assert_eq!(terminal.wait(), 7);
    assert!(terminal.is_cooked());
}

#[test]
fn exec_at_a_terminal() {
    let mut case = case!();
    case.up();
    let mut terminal = Terminal::start(&case.command(&["exec", "--tty", &case.id, "sh"]));
    terminal.types("stty size; exit 9\r");
    terminal.expect("24 80\r\n");
    assert_eq!(terminal.wait(), 9);
    assert!(terminal.is_cooked());
}

/// Outside, control-C ends a program that does not care; so it does here, although the program is process 1.
#[test]
fn control_c_ends_a_program_without_a_terminal_of_its_own() {
    let case = case!();
    let mut terminal = at_terminal(&case, &[], &["sleep", "1000"]);
    // A shell before it would catch the signal, and then have the kernel keep it from its own end.
    let state = || serde_json::from_str::<serde_json::Value>(&case.ctr(&["state", &case.id]).later()).ok();
    let name = |pid: i64| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    wait_for("the program", || {
        state().and_then(|state| state["pid"].as_i64()).is_some_and(|pid| name(pid) == "sleep\n")
    });
    terminal.types("\x03");
    assert_eq!(terminal.wait(), 130);
    let mut terminal = at_terminal(
        &case,
        &[],
        &["sh", "-c", "trap 'echo caught; exit 4' INT; echo up; while :; do sleep .05; done"],
    );
    terminal.expect("up");
    terminal.types("\x03");
    assert_eq!(terminal.wait(), 4);
    terminal.expect("caught");
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

#[test]
fn a_terminal_is_put_back_when_we_are_told_to_end() {
    let case = case!();
    let mut terminal = at_terminal(&case, &["-it"], &["sh", "-c", "echo up; exec sleep 1000"]);
    terminal.expect("up");
    assert!(!terminal.is_cooked());
    kill(terminal.pid(), libc::SIGTERM);
    assert_eq!(terminal.wait(), 128 + libc::SIGTERM);
    assert!(terminal.is_cooked());
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

#[test]
fn a_program_that_does_not_read_does_not_hold_us_up() {
    let case = case!();
    let mut terminal = at_terminal(
        &case,
        &["-it"],
        &["sh", "-c", "stty raw -echo; echo up; sleep .5; wc -c & sleep 1; kill $!; echo over"],
    );
    terminal.expect("up");
    terminal.types(&"x".repeat(20_000));
    terminal.expect("over");
    terminal.wait();
}

/// Without a terminal of its own a program is a job of the shell outside.
#[test]
fn control_z_stops_a_job_and_fg_lets_it_go_on() {
    let case = case!();
    let ticks = "n=0; while :; do n=$((n+1)); echo tick-$n; sleep .1; done";
    let ctr = case.command(&case.hosting(&["--rm"], &["sh", "-c", &format!("'{ticks}'")]));
    let words: Vec<_> = ctr.get_args().map(|word| word.to_str().unwrap()).collect();
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]);
    shell.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Terminal::start(&shell);
    terminal.types(&format!("{} {}\r", ctr.get_program().to_str().unwrap(), words.join(" ")));
    terminal.expect("\ntick-3");
    let pid = case.pid();
    // A shell that is just making a process by vfork(2) waits, not to be stopped itself, for that, which is.
    let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let is_stopped = || stat().contains(") T ") || stat().contains(") D ");
    terminal.types("\x1a");
    terminal.expect("Stopped");
    wait_for("the stop", is_stopped);
    let count = |terminal: &Terminal| terminal.seen().matches("\ntick-").count();
    // What was written before may still be on its way here.
    std::thread::sleep(Duration::from_millis(200));
    let ticked = count(&terminal);
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_stopped() && count(&terminal) == ticked, "{}", terminal.seen());
    terminal.types("fg\r");
    wait_for("more ticks", || count(&terminal) > ticked + 2);
    terminal.types("\x03");
    wait_for("its end", || case.ctr(&["list", "-q"]).ok().is_empty());
    terminal.types("echo status-$?; exit\r");
    terminal.expect("status-130");
    terminal.wait();
}

/// timeout(1) and `kill` end a program that has no handler, as they would outside.
#[test]
fn timeout_ends_a_program() {
    let case = case!();
    let ctr = case.command(&case.hosting(&["--rm"], &["sleep", "1000"]));
    let mut command = Command::new("timeout");
    command.arg(".5").arg(ctr.get_program()).args(ctr.get_args());
    command.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(common::spawn(case.dir(), &mut command).wait().status, 124);
    wait_for("its removal", || case.ctr(&["list", "-q"]).ok().is_empty());
}

#[test]
fn a_pipeline_reads_and_writes_it() {
    let case = case!();
    let out = case.ctr_with_input(&case.hosting(&["--rm", "-i"], &["tr", "a-z", "A-Z"]), "through\n");
    assert_eq!(out.ok(), "THROUGH\n");
    // Without --interactive, standard input is for who comes after.
    assert_eq!(case.ctr_with_input(&case.hosting(&["--rm"], &["cat"]), "not this").ok(), "");
    // With a terminal, what is piped in is typed.
    let out =
        case.ctr_with_input(&case.hosting(&["--rm", "-it"], &["sh", "-c", "read x; echo got $x"]), "word\n");
    assert_eq!(out.ok(), "word\r\ngot word\r\n");
}

/// Who reads our output may go away.
#[test]
fn output_that_nobody_reads_ends_the_program() {
    let case = case!();
    for flags in [&["--rm"][..], &["--rm", "-t"]] {
        let args = case.hosting(flags, &["yes", "line"]);
        let mut child = case.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut start = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        assert_eq!(&start, b"line");
        wait_for("its end", || child.try_wait().unwrap().is_some());
        assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
    }
}

#[test]
fn closed_streams_are_no_files_of_ours() {
    let case = case!();
    let ctr = case.command(
        &case.hosting(&["--rm", "-i"], &["sh", "-c", "ls -l /proc/self/fd > /result/fds; cat; exit 3"]),
    );
    let mut command = Command::new("sh");
    let result = case.path("result");
    fs::create_dir(&result).unwrap();
    let volume = format!("{}:/result", result.display());
    let mut args: Vec<_> = ctr.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect();
    let at = args.iter().position(|arg| arg == "--").unwrap();
    args.splice(at..at, ["--volume".to_owned(), volume]);
    command.args(["-c", r#"exec "$@" <&- >&- 2>&-"#, "sh"]).arg(ctr.get_program()).args(args);
    command.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(common::spawn(case.dir(), &mut command).wait().status, 3);
    let fds = fs::read_to_string(result.join("fds")).unwrap();
    assert!(fds.contains("0 -> /dev/null") && !fds.contains("socket:"), "{fds}");
}

/// A shell has the terminal while we are stopped, and changes its settings.
#[test]
fn after_a_stop_the_terminal_is_joined_again() {
    let case = case!();
    let mut terminal = at_terminal(&case, &["-it"], &["sh", "-c", "echo up; read x; echo got $x"]);
    terminal.expect("up");
    let pid = terminal.pid();
    kill(pid, libc::SIGSTOP);
    wait_for("the stop", || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T "));
    kill(pid, libc::SIGCONT);
    wait_for("raw mode", || !terminal.is_cooked());
    terminal.types("word\r");
    terminal.expect("got word\r\n");
    assert_eq!(terminal.wait(), 0);
}

/// Colours are for people.
#[test]
fn colour_is_for_terminals_only() {
    let case = case!();
    for args in [&["state", "nobody"][..], &["run", "--help"], &["run", "--bogus"]] {
        let plain = case.ctr(args);
        assert!(!format!("{}{}", plain.stdout, plain.stderr).contains('\x1b'), "{plain:?}");
        let mut command = case.command(args);
        let mut terminal = Terminal::start(command.env("TERM", "xterm").env_remove("NO_COLOR"));
        terminal.wait();
        terminal.expect("\x1b[");
        let mut terminal = Terminal::start(command.env("NO_COLOR", "1"));
        terminal.wait();
        wait_for("the text", || !terminal.seen().is_empty());
        assert!(!terminal.seen().contains('\x1b'), "{args:?}: {:?}", terminal.seen());
    }
}

/// The specification's schema asks for no user.
#[test]
fn a_process_without_a_user_is_root_s() {
    let mut case = case!();
    case.config["process"].as_object_mut().unwrap().remove("user");
    case.sh("id -u; sleep 1000").up();
    let file = case.path("process.json");
    fs::write(&file, r#"{"cwd": "/", "args": ["/bin/sh", "-c", "id -u"]}"#).unwrap();
    assert_eq!(case.ctr(&["exec", "--process", file.to_str().unwrap(), &case.id]).ok(), "0\n");
}
