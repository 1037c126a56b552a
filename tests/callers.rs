//! What callers give besides flags and a bundle: sockets of systemd, lists of mounts, annotations.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, is_root, require_root, skip, spawn, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The host's end of NOTIFY_SOCKET.
struct Host(UnixDatagram);

impl Host {
    fn new(case: &Case) -> Self {
        let socket = UnixDatagram::bind(case.path("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Host(socket)
    }

    fn hears(&self) -> String {
        let mut text = [0; 512];
        let count = self.0.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..count]).into_owned()
    }
}

/// A program that says what it is told to say to its own NOTIFY_SOCKET; the host's perl says it.
fn says(case: &mut Case, text: &str) {
    for (link, to) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        symlink(to, case.rootfs().join(link)).unwrap();
    }
    case.mount("bind", "/usr", "/usr", &["rbind", "ro"]);
    let script = format!(
        "use Socket; socket(S, PF_UNIX, SOCK_DGRAM, 0); \
         send(S, \"{text}\", 0, sockaddr_un($ENV{{NOTIFY_SOCKET}})) or die \"$!\"; sleep 1000"
    );
    case.args(&["/usr/bin/perl", "-e", &script]);
}

fn with_socket(case: &Case, args: &[&str]) -> Command {
    let mut command = case.command(args);
    command.env("NOTIFY_SOCKET", case.path("notify"));
    command
}

macro_rules! require_perl {
    () => {
        if !Path::new("/usr/bin/perl").exists() || !Path::new("/lib").is_symlink() {
            skip!("needs perl below /usr");
        }
    };
}

/// runc's notify_socket.go: `start` ends when the program is ready, and the host knows which process is the main one.
#[test]
fn start_tells_the_host_that_the_program_is_ready() {
    require_perl!();
    let mut case = case!();
    let host = Host::new(&case);
    says(&mut case, "STATUS=soon\\nREADY=1");
    let bundle = case.bundle();
    spawn(case.dir(), &mut with_socket(&case, &case.making("create", bundle.to_str().unwrap(), &[])))
        .wait()
        .ok();
    let starting = spawn(case.dir(), &mut with_socket(&case, &["start", &case.id]));
    assert_eq!(host.hears(), "READY=1\n");
    assert_eq!(host.hears(), format!("MAINPID={}\n", case.pid()));
    assert_eq!(host.hears(), "BARRIER=1");
    starting.wait().ok();
    assert_eq!(case.status(), "running");
    case.ctr(&["delete", "--force", &case.id]).ok();
}

#[test]
fn run_tells_the_host_that_the_program_is_ready() {
    require_perl!();
    let mut case = case!();
    let host = Host::new(&case);
    says(&mut case, "READY=1");
    let bundle = case.bundle();
    let bundle = bundle.to_str().unwrap();
    let detached = spawn(case.dir(), &mut with_socket(&case, &case.making("run", bundle, &["--detach"])));
    assert_eq!(host.hears(), "READY=1\n");
    assert_eq!(host.hears(), format!("MAINPID={}\n", case.pid()));
    assert_eq!(host.hears(), "BARRIER=1");
    detached.wait().ok();
    case.ctr(&["delete", "--force", &case.id]).ok();
    // Whoever stays is whom systemd is to watch.
    let attached = spawn(case.dir(), &mut with_socket(&case, &case.making("run", bundle, &[])));
    assert_eq!(host.hears(), "READY=1\n");
    assert_eq!(host.hears(), format!("MAINPID={}\n", attached.child.id()));
    assert_eq!(host.hears(), "BARRIER=1");
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    assert_eq!(attached.wait().status, 137);
}

/// Nobody is waited for who has ended, and nobody has a socket whose caller has none.
#[test]
fn a_program_that_is_never_ready_holds_nobody_up() {
    let mut case = case!();
    let _host = Host::new(&case);
    case.sh("test -S /run/notify/notify.sock && exit 0; exit 3");
    let bundle = case.bundle();
    let bundle = bundle.to_str().unwrap();
    spawn(case.dir(), &mut with_socket(&case, &case.making("run", bundle, &["--detach"]))).wait().ok();
    case.ctr(&["delete", "--force", &case.id]).ok();
    let seen = spawn(case.dir(), &mut with_socket(&case, &case.making("run", bundle, &[]))).wait();
    assert_eq!(seen.status, 0, "{}", seen.stderr);
    fs::remove_dir_all(case.rootfs().join("run")).unwrap();
    assert_eq!(case.run().status, 3);
    assert!(!case.rootfs().join("run").exists());
}

/// What LISTEN_FDS tells is told on, with the pid that it has inside; not to what `exec` starts.
#[test]
fn sockets_of_activation_are_the_first_process_s() {
    let mut case = case!();
    case.sh("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3; sleep 1000");
    let bundle = case.bundle();
    let line = case.making("run", bundle.to_str().unwrap(), &["--detach"]).join("' '");
    let script = format!(
        "printf kept > {dir}/kept; exec 3< {dir}/kept; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$; \
         exec {program} --root {store} '{line}'",
        dir = case.dir().display(),
        program = common::program().display(),
        store = case.store().display(),
    );
    let run = spawn(case.dir(), Command::new("sh").args(["-c", &script])).wait();
    wait_for("the program", || run.later() == "1 1 web\nkept");
    let exec = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$; exec 3< {dir}/kept; exec {program} --root {store} exec {id} \
         sh -c 'echo fds=$LISTEN_FDS; ls /proc/self/fd/3'",
        dir = case.dir().display(),
        program = common::program().display(),
        store = case.store().display(),
        id = case.id,
    );
    let out = spawn(case.dir(), Command::new("sh").args(["-c", &exec])).wait();
    assert!(out.stdout.starts_with("fds=\n") && !out.stdout.contains("kept"), "{out:?}");
}

fn mounts(case: &Case, action: &str, list: &Value) -> common::Output {
    let file = case.path("mounts.json");
    fs::write(&file, list.to_string()).unwrap();
    case.ctr(&["mounts", action, &case.id, file.to_str().unwrap()])
}

/// crun's `mounts add` and `mounts remove`.
#[test]
fn mounts_come_and_go_while_it_runs() {
    let mut case = case!();
    let data = case.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("x"), "there").unwrap();
    fs::write(case.path("file"), "a file").unwrap();
    case.up();
    let list = json!([
        {"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "ro"]},
        {"destination": "/mnt/file", "source": case.path("file"), "options": ["bind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=700"]},
    ]);
    if !is_root() {
        let error = mounts(&case, "add", &list).err();
        assert!(error.contains("operation not permitted") && error.contains("an ordinary user"), "{error}");
        assert!(!case.exec(&["cat", "/proc/self/mountinfo"]).ok().contains(" /data "));
        return;
    }
    mounts(&case, "add", &list).ok();
    let out = case
        .exec(&["sh", "-c", "cat /data/x /mnt/file; touch /data/y || touch /scratch/z && df -k /scratch"])
        .ok();
    assert!(out.starts_with("therea file") && out.contains("64"), "{out}");
    assert!(!data.join("y").exists());
    mounts(&case, "remove", &json!({"mounts": list})).ok();
    let left = case.exec(&["sh", "-c", "cat /proc/self/mountinfo; ls /data /scratch"]).ok();
    assert!(
        !left.contains("/scratch /scratch") && !left.contains(" /data ") && !left.contains("x\n/"),
        "{left}"
    );
    assert!(data.join("x").exists(), "what was mounted is not what is removed");
    let error = mounts(&case, "remove", &json!([{"destination": "/data"}])).err();
    assert!(error.contains("unmount /data"), "{error}");
    for (list, part) in [
        (json!([{"destination": "data", "source": "/", "options": ["bind"]}]), "not absolute"),
        (json!([{"destination": "/data", "options": ["remount", "ro"]}]), "remount"),
        (json!([{"destination": "/proc/sys", "source": "/etc", "options": ["bind"]}]), "/proc"),
    ] {
        let error = mounts(&case, "add", &list).err();
        assert!(error.contains(part), "{error}");
    }
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    assert!(mounts(&case, "add", &list).err().contains("not running"));
}

/// Links of the root file system, and what the container has for its /proc, lead nowhere but into the container.
#[test]
fn mounts_stay_below_a_hostile_root() {
    require_root!();
    let mut case = case!();
    let (host, data) = (case.path("outside"), case.path("data"));
    for dir in [&host, &data] {
        fs::create_dir(dir).unwrap();
    }
    symlink(&host, case.rootfs().join("out")).unwrap();
    symlink("../../../../../..", case.rootfs().join("up")).unwrap();
    case.config["mounts"][0] = json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"});
    case.up();
    let bind = |to: &str| json!([{"destination": to, "source": data, "options": ["bind"]}]);
    for to in ["/out/x", "/up/y"] {
        mounts(&case, "add", &bind(to)).ok();
    }
    mounts(
        &case,
        "add",
        &json!([{"destination": "/out/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}]),
    )
    .ok();
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    assert!(case.rootfs().join("y").is_dir(), "it is at the container's own root");
    assert!(case.rootfs().join(host.strip_prefix("/").unwrap()).join("t").is_dir());
    for to in ["/out/t", "/out/x", "/up/y"] {
        mounts(&case, "remove", &bind(to)).ok();
    }
}

/// crun's `run.oci.hooks.stdout` and `stderr`.
#[test]
fn what_hooks_say_goes_where_annotations_want_it() {
    let mut case = case!();
    let (out, err) = (case.path("said"), case.path("moaned"));
    let hook =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo fine; echo bad >&2"], "env": ["PATH=/bin"]}]);
    case.set("/hooks", json!({"createRuntime": hook, "poststop": hook}));
    case.set("/annotations", json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err}));
    case.args(&["true"]).run().ok();
    assert_eq!(fs::read_to_string(out).unwrap(), "fine\nfine\n");
    assert_eq!(fs::read_to_string(err).unwrap(), "bad\nbad\n");
}

/// Others of its user may search it, as with runc.
#[test]
fn a_container_has_a_session_keyring_of_its_own() {
    let mut case = case!();
    if !Path::new("/proc/keys").exists() {
        skip!("the kernel shows no keys");
    }
    let name = format!("_ses.{}", case.id);
    case.set("/linux/maskedPaths", json!([])).sh("cat /proc/keys");
    let keys = case.run().ok();
    let line = keys.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}: {keys}"));
    assert!(line.contains(" 3f1b0000 "), "{line}");
    // Another name: the kernel takes its time to remove a keyring.
    let mut other = case!();
    other.set("/linux/maskedPaths", json!([])).sh("cat /proc/keys");
    assert!(!other.run_with(&["--no-new-keyring"]).ok().contains(&format!("_ses.{}", other.id)));
}

/// `podman run --group-add keep-groups`.
#[test]
fn the_caller_s_groups_are_kept_where_an_annotation_says_so() {
    require_root!();
    let mut case = case!();
    case.args(&["id", "-G"]);
    let bundle = case.bundle();
    let groups = |case: &Case| {
        let line = case.making("run", bundle.to_str().unwrap(), &[]);
        let mut command = Command::new("setpriv");
        command.args(["--groups", "5,6"]).arg(common::program()).arg("--root").arg(case.store()).args(line);
        spawn(case.dir(), command.env("CTR_STORE", case.path("private"))).wait().ok()
    };
    assert_eq!(groups(&case), "0\n");
    case.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    assert_eq!(groups(&case), "0 5 6\n");
}

#[test]
fn an_annotation_that_is_not_honoured_is_named() {
    let mut case = case!();
    case.args(&["true"]).set("/annotations", json!({"run.oci.handler": "wasm"}));
    let error = case.run().err();
    assert!(error.contains("/annotations/run.oci.handler") && error.contains("WebAssembly"), "{error}");
    case.set("/annotations", json!({"run.oci.delegate-cgroup": "x", "io.kubernetes.pod": "y"}));
    let out = case.run();
    assert!(out.status == 0 && out.stderr.contains("run.oci.delegate-cgroup: ignored"), "{out:?}");
    case.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}],
        }),
    );
    case.config["annotations"] = json!({});
    case.run().ok();
    case.config["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"});
    assert!(case.run().err().contains("no_such_call"));
    if is_root() {
        case.config["annotations"] = json!({"org.systemd.property.KillSignal": "bare words"});
        assert!(case.run().err().contains("org.systemd.property.KillSignal"));
    }
}
