//! Errors, provoked and collected on one page that a person can read: tests/snapshots/errors__*.snap.
//!
//! Each names the operation, the object, the kernel's reason and, where there is one, the next step.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, require_root, skip, wait_for};
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};

/// The page, and what is written on it.
struct Page<'a> {
    case: &'a Case,
    text: String,
}

impl Page<'_> {
    fn part(&mut self, title: &str) {
        self.text += &format!("\n# {title}\n");
    }

    /// Runs the program and notes what was typed and what was said.
    #[track_caller]
    fn note(&mut self, line: &str) {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.note_command(line, &mut self.case.command(&args));
    }

    #[track_caller]
    fn note_command(&mut self, line: &str, command: &mut Command) {
        command.current_dir(self.case.dir()).env("USER", "you");
        let done = common::spawn(self.case.dir(), command).wait();
        assert_ne!(done.status, 0, "{line} is no error: {done:?}");
        let directory = self.case.dir().to_str().unwrap();
        let program = common::program().display().to_string();
        let words =
            done.stderr.replace(directory, "/here").replace(&self.case.id, "web").replace(&program, "ctr");
        self.text += &format!("\n$ ctr {}\n{}[{}]\n", line.replace(&self.case.id, "web"), words, done.status);
    }

    /// A bundle whose configuration differs in one value.
    #[track_caller]
    fn note_config(&mut self, pointer: &str, value: serde_json::Value) {
        let mut config = self.case.config.clone();
        config["process"]["args"] = json!(["true"]);
        let (before, last) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(before).unwrap() {
            serde_json::Value::Array(list) => list[last.parse::<usize>().unwrap()] = value.clone(),
            object => object[last] = value.clone(),
        }
        fs::write(self.case.bundle().join("config.json"), config.to_string()).unwrap();
        let bundle = self.case.bundle();
        let command = &mut self.case.command(&["create", "--bundle", bundle.to_str().unwrap(), "new"]);
        self.note_command(&format!("create --bundle bundle new   # {pointer}: {value}"), command);
        assert!(!self.case.store().join("new").exists(), "nothing is left");
    }
}

#[test]
fn the_page() {
    require_root!();
    let mut case = case!();
    case.up();
    // So that no pid and no id of this run is on the page.
    let mut page = Page { case: &case, text: String::new() };

    page.part("A container that is not there, or is, or is not as it should be");
    page.note(&format!("state {}x", case.id));
    page.note("exec something sh");
    page.note(&format!("run --image host --name {} -- true", case.id));
    page.note(&format!("create --bundle bundle {}", case.id));
    page.note("create --bundle bundle no/name");
    page.note(&format!("start {}", case.id));
    page.note(&format!("delete {}", case.id));
    page.note(&format!("resume {}", case.id));
    page.note(&format!("logs {}", case.id));
    page.note(&format!("attach {}", case.id));
    page.note(&format!("restart {}", case.id));
    page.note(&format!("kill {} NONSENSE", case.id));
    page.note(&format!("exec --user somebody {} true", case.id));
    page.note(&format!("exec --cgroup elsewhere {} true", case.id));
    page.note(&format!("exec --cgroup ../elsewhere {} true", case.id));
    page.note(&format!("exec --tty --detach {} sh", case.id));
    case.ctr(&["pause", &case.id]).ok();
    page.note(&format!("exec {} true", case.id));
    case.ctr(&["resume", &case.id]).ok();
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    page.note(&format!("start {}", case.id));
    page.note(&format!("exec {} true", case.id));
    page.note(&format!("kill {}", case.id));

    page.part("A program that cannot be executed");
    page.note("run --rm --image host -- no-such-program");
    page.note("run --rm --image host -- /no/such/program");
    page.note("run --rm --image host -- /etc/passwd");
    fs::write(case.rootfs().join("bin/nonsense"), "\x01\x02 no program").unwrap();
    Command::new("chmod").arg("+x").arg(case.rootfs().join("bin/nonsense")).status().unwrap();
    page.note("run --rm --rootfs bundle/rootfs -- nonsense");
    page.note("run --rm --rootfs bundle/rootfs --user somebody -- true");

    page.part("An image, a root file system or a mount that is not there");
    page.note("run --rm --pull never --image debian:13 -- true");
    page.note("run --rm --rootfs nowhere -- true");
    page.note("run --rm --rootfs bundle/config.json -- true");
    page.note("run --rm --image host --volume /nowhere:/x -- true");
    page.note("run --rm --image host --volume nowhere:/x -- true");
    page.note("run --rm --image host --mount type=volume,dst=/x -- true");
    page.note("run --rm --image host --tmpfs relative -- true");

    page.part("Flags that make no sense");
    page.note("run --rm --image host --cap-add EVERYTHING -- true");
    page.note("run --rm --image host --ulimit nofile=2:1 -- true");
    page.note("run --rm --image host --security-opt seccomp=nowhere -- true");
    fs::write(case.path("bad.json"), "{\"defaultAction\": 7}").unwrap();
    page.note("run --rm --image host --security-opt seccomp=bad.json -- true");
    page.note("run --rm --image host --security-opt nonsense -- true");
    page.note("run --rm --image host --env-file nowhere -- true");
    page.note("run --rm --imag host -- true");
    page.note("strat demo");
    page.note("logs");
    page.note_command("list   # CTR_LOG_LEVEL=loud", case.command(&["list"]).env("CTR_LOG_LEVEL", "loud"));

    page.part("A bundle that is not right");
    fs::remove_file(case.bundle().join("config.json")).unwrap();
    page.note("create --bundle bundle new");
    fs::write(case.bundle().join("config.json"), "{").unwrap();
    page.note("create --bundle bundle new");
    page.note_config("/process/cwd", json!("relative"));
    page.note_config("/process/user/uid", json!("root"));
    page.note_config("/process/terminal", json!(true));
    page.note_config("/root/path", json!("nowhere"));
    page.note_config("/linux/namespaces/0/path", json!("/nowhere"));
    page.note_config("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONSENSE"}));
    page.note_config("/hooks", json!({"createRuntime": [{"path": "/nowhere"}]}));
    page.note_config("/mounts/0", json!({"destination": "/x", "type": "nonsense", "source": "x"}));
    case.write_config();
    page.note("create --bundle bundle --console-socket nowhere new");
    page.note("spec --bundle bundle");
    page.note("spec --bundle nowhere");

    page.part("A machine that does not give what is needed");
    fs::write(case.path("file"), "").unwrap();
    page.note_command("--root file list", &mut rooted(&case, "file", &["list"]));
    page.note_command(
        "--root file/x create --bundle bundle new",
        &mut rooted(&case, "file/x", &["create", "--bundle", "bundle", "new"]),
    );
    let full = full_disk(&case, &["run", "--rm", "--image", "host", "--name", "new", "--", "true"]);
    page.note_command("run --rm --image host --name new -- true   # no room in the store", &mut { full });

    insta::assert_snapshot!("the_page", page.text);
}

fn rooted(case: &Case, root: &str, args: &[&str]) -> Command {
    let mut command = Command::new(common::program());
    command.arg("--root").arg(case.path(root)).args(args).stdin(Stdio::null());
    command
}

/// The same command where the store is on a file system that is full.
fn full_disk(case: &Case, args: &[&str]) -> Command {
    let ctr = case.command(args);
    let script = r#"mkdir -p "$0" && mount -t tmpfs -o size=4k tmpfs "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(case.path("private"))
        .arg(ctr.get_program())
        .args(ctr.get_args());
    command.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    command
}

/// What only an ordinary user is told.
#[test]
fn the_page_of_a_user() {
    if common::is_root() {
        skip!("needs an ordinary user");
    }
    let mut case = case!();
    let rootless = case.config.clone();
    case.without_namespace("user").write_config();
    let mut page = Page { case: &case, text: String::new() };
    page.note("create --bundle bundle new");
    let text = page.text;
    case.config = rootless;
    case.write_config();
    let mut page = Page { case: &case, text };
    let create = ["create", "--bundle", "bundle", "new"];
    page.note_command(
        "--root /proc/none create --bundle bundle new",
        &mut rooted(&case, "/proc/none", &create),
    );
    let mut command = case.command(&["run", "--rm", "--image", "host", "--user", "70000", "--", "true"]);
    // Where the helpers are not on PATH, no range can be mapped.
    page.note_command(
        "run --rm --image host --user 70000 -- true   # no newuidmap",
        command.env("PATH", "/nowhere"),
    );
    insta::assert_snapshot!("the_page_of_a_user", page.text);
}

/// The last line of the log is the error, in one line, without the next step.
#[test]
fn the_log_has_the_error_too() {
    let case = case!();
    let log = case.path("log");
    let out = case.ctr(&["--log", log.to_str().unwrap(), "--log-format", "json", "state", "nobody"]);
    assert!(out.stderr.contains("hint: "), "{out:?}");
    let text = fs::read_to_string(log).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container \"nobody\" does not exist");
}

/// An error of a detached container is told by who started it, and nothing is left.
#[test]
fn a_detached_container_that_cannot_start_is_told() {
    let case = case!();
    let out = case.ctr(&case.hosting(&["--detach"], &["no-such-program"]));
    assert_eq!(out.status, 127, "{out:?}");
    assert!(out.stderr.contains("no-such-program") && out.stderr.contains("hint: "), "{out:?}");
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
    wait_for("nothing in the store", || fs::read_dir(case.path("private/containers")).unwrap().count() == 0);
}
