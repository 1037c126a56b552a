//! What the process inside sees, property by property of the configuration.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, is_root, require_cgroup, require_root, skip, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mounted {
    options: String,
    optional: String,
    kind: String,
    data: String,
}

impl Mounted {
    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|found| found == option)
    }
}

fn mounts(text: &str) -> Vec<(String, Mounted)> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ").unwrap();
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let optional = left[6..].join(" ");
        let (options, kind, data) = (left[5].into(), right[0].into(), right[2].into());
        (left[4].to_owned(), Mounted { options, optional, kind, data })
    };
    text.lines().map(parse).collect()
}

/// The topmost mount at `path` inside.
#[track_caller]
fn mounted(case: &mut Case, path: &str) -> Mounted {
    let text = case.prints("cat /proc/self/mountinfo");
    let found = mounts(&text).into_iter().rev().find(|(target, _)| target == path);
    found.unwrap_or_else(|| panic!("nothing is mounted at {path}: {text}")).1
}

/// The value of a line of /proc/self/status.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name} in {status}")).split_once(':').unwrap().1.trim().to_owned()
}

fn namespace(pid: impl std::fmt::Display, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

const KINDS: [&str; 6] = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];

// Namespaces

#[test]
fn new_namespaces() {
    let mut case = case!();
    let script = format!("cd /proc/self/ns; for n in {}; do readlink $n; done", KINDS.join(" "));
    let inside = case.prints(&script);
    assert_eq!(inside.lines().count(), 6, "{inside}");
    for (kind, inside) in KINDS.iter().zip(inside.lines()) {
        assert_ne!(inside, namespace("self", kind), "{kind}");
    }
    assert_eq!(case.prints("echo $$"), "1");
}

#[test]
fn namespaces_left_out_are_those_of_the_caller() {
    require_root!();
    let mut case = case!();
    case.config.as_object_mut().unwrap().remove("hostname");
    for kind in ["network", "ipc", "uts", "cgroup"] {
        case.without_namespace(kind);
    }
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "mqueue");
    let inside = case.prints("cd /proc/self/ns; for n in net ipc uts cgroup; do readlink $n; done");
    for (kind, inside) in ["net", "ipc", "uts", "cgroup"].iter().zip(inside.lines()) {
        assert_eq!(inside, namespace("self", kind), "{kind}");
    }
}

#[test]
fn namespaces_joined_by_path() {
    require_root!();
    let mut first = case!();
    first.set("/hostname", json!("first")).up();
    let pid = first.pid();
    let mut second = case!();
    second.config.as_object_mut().unwrap().remove("hostname");
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        second.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
    }
    let inside =
        second.prints("hostname; cd /proc/self/ns; for n in net ipc uts pid mnt; do readlink $n; done");
    let inside: Vec<&str> = inside.lines().collect();
    assert_eq!(inside[0], "first");
    for (kind, inside) in ["net", "ipc", "uts", "pid"].iter().zip(&inside[1..]) {
        assert_eq!(**inside, namespace(pid, kind), "{kind}");
    }
    assert_ne!(inside[5], namespace(pid, "mnt"));
    second.namespace("network", Some("/proc/1/ns/uts"));
    assert_ne!(second.run().status, 0, "a namespace of another kind");
    second.namespace("network", Some("/nowhere"));
    assert!(second.run().err().contains("/nowhere"));
}

#[test]
fn a_user_namespace_joined_by_path() {
    require_root!();
    let mut first = case!();
    first.user_namespace(200_000, 1000).up();
    let pid = first.pid();
    let mut second = case!();
    second.namespace("user", Some(&format!("/proc/{pid}/ns/user")));
    let inside = second.prints("readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u");
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(lines[0], namespace(pid, "user"));
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "200000", "1000"]);
    assert_eq!(lines[2], "0");
}

#[test]
fn a_user_namespace_with_mappings() {
    require_root!();
    let mut case = case!();
    case.user_namespace(100_000, 65536);
    case.sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; echo made > /dev/shm/x; sleep 1000");
    let out = case.create();
    case.ctr(&["start", &case.id]).ok();
    wait_for("the program", || out.later().lines().count() == 3);
    let seen = out.later();
    for line in seen.lines().take(2) {
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    }
    assert_eq!(seen.lines().nth(2), Some("0"));
    let status = fs::read_to_string(format!("/proc/{}/status", case.pid())).unwrap();
    assert!(field(&status, "Uid").starts_with("100000\t"), "{status}");
    assert_eq!(case.exec(&["sh", "-c", "id -u; stat -c %u /dev/shm/x"]).ok(), "0\n0\n");
    assert_eq!(case.exec_with(&["--user", "5:6"], &["id", "-u"]).ok(), "5\n");
    let devices = case.exec(&["sh", "-c", "echo x > /dev/null && head -c 2 /dev/zero | wc -c"]).ok();
    assert_eq!(devices.trim(), "2");
}

#[test]
fn as_an_ordinary_user_root_inside_is_oneself_outside() {
    if is_root() {
        skip!("needs an ordinary user");
    }
    let mut case = case!();
    case.sh("id -u; sleep 1000");
    let out = case.create();
    case.ctr(&["start", &case.id]).ok();
    wait_for("the program", || out.later() == "0\n");
    let status = fs::read_to_string(format!("/proc/{}/status", case.pid())).unwrap();
    assert!(field(&status, "Uid").starts_with(&format!("{}\t", common::uid())), "{status}");
}

#[test]
fn loopback_is_up() {
    let mut case = case!();
    let link = case.prints("ip link show lo");
    assert!(link.contains("UP"), "{link}");
    assert_eq!(case.prints("ls /sys/class/net"), "lo");
}

#[test]
fn hostname_and_domainname() {
    let mut case = case!();
    case.set("/hostname", json!("a-name")).set("/domainname", json!("a-domain"));
    assert_eq!(case.prints("hostname; cat /proc/sys/kernel/domainname"), "a-name\na-domain");
}

#[test]
fn the_cgroup_is_the_root_of_its_namespace() {
    let mut case = case!();
    case.up();
    require_cgroup!(case);
    let inside = case.exec(&["cat", "/proc/self/cgroup"]).ok();
    assert!(inside.lines().any(|line| line == "0::/"), "{inside}");
    let procs = fs::read_to_string(case.cgroup().unwrap().join("cgroup.procs")).unwrap();
    assert!(procs.lines().any(|line| line == case.pid().to_string()), "{procs}");
}

// Mounts

#[test]
fn the_caller_s_mounts_are_gone() {
    let mut case = case!();
    let text = case.prints("cat /proc/self/mountinfo");
    for (target, _) in mounts(&text) {
        let known = ["/", "/proc", "/dev", "/sys"]
            .iter()
            .any(|top| target == *top || target.starts_with(&format!("{top}/")));
        assert!(known, "{target} in {text}");
    }
}

#[test]
fn mount_options() {
    let mut case = case!();
    case.mount(
        "tmpfs",
        "tmpfs",
        "/a/new/dir",
        &["ro", "nosuid", "nodev", "noexec", "noatime", "size=64k", "mode=700"],
    );
    let found = mounted(&mut case, "/a/new/dir");
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(found.has(option), "{option}: {found:?}");
    }
    assert_eq!(found.kind, "tmpfs");
    assert!(found.data.contains("size=64k") && found.data.contains("mode=700"), "{found:?}");
    let out = case.sh("touch /a/new/dir/x").run();
    assert!(out.status != 0 && out.stderr.contains("Read-only"), "{out:?}");
}

#[test]
fn the_size_of_a_tmpfs_holds() {
    let mut case = case!();
    case.mount("tmpfs", "tmpfs", "/small", &["size=64k"]);
    let out = case.sh("dd if=/dev/zero of=/small/x bs=100000 count=1").run();
    assert!(out.status != 0 && out.stderr.contains("No space"), "{out:?}");
}

#[test]
fn unknown_mount_options_go_to_the_file_system() {
    let mut case = case!();
    case.mount("tmpfs", "tmpfs", "/a", &["nonsense=1"]);
    let error = case.run().err();
    assert!(error.contains("/a") && error.contains("nonsense"), "{error}");
}

#[test]
fn bind_mounts_read_only_and_not() {
    let mut case = case!();
    let source = case.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    case.mount("bind", &source, "/w", &["bind"]).mount("bind", &source, "/r", &["bind", "ro"]);
    // A file onto a file that is not there yet.
    case.mount("bind", source.join("file"), "/made/file", &["bind", "ro"]);
    let out =
        case.sh("cat /made/file; echo new > /w/new; cat /r/new; echo x > /r/new; echo x > /made/file").run();
    assert!(out.stdout == "textnew\n" && out.stderr.matches("Read-only").count() == 2, "{out:?}");
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "new\n");
    case.mount("bind", "/nowhere-at-all", "/x", &["bind"]);
    assert!(case.run().err().contains("/nowhere-at-all"));
}

/// crun.1: `copy-symlink`, `src-nofollow` and `dest-nofollow`; and, as in images whose /etc/resolv.conf leads to what
/// only a running system has, the target of a link is made.
#[test]
fn links_as_sources_and_targets_of_mounts() {
    let mut case = case!();
    let (source, link) = (case.path("source"), case.path("link"));
    fs::write(&source, "text").unwrap();
    symlink("source", &link).unwrap();
    let etc = case.rootfs().join("etc");
    symlink("../run/resolve/stub.conf", etc.join("resolv.conf")).unwrap();
    symlink("passwd", etc.join("covered")).unwrap();
    case.mount("bind", &link, "/copied", &["bind", "copy-symlink"]);
    case.mount("bind", &source, "/plain", &["bind", "copy-symlink"]);
    case.mount("bind", &link, "/itself", &["bind", "src-nofollow"]);
    case.mount("bind", &source, "/etc/resolv.conf", &["bind"]);
    case.mount("bind", &source, "/etc/covered", &["bind", "dest-nofollow"]);
    let script = "readlink /copied; cat /plain; echo; readlink /itself; cat /etc/resolv.conf; echo; \
                  cat /run/resolve/stub.conf; echo; cat /etc/covered; echo; head -c 4 /etc/passwd";
    assert_eq!(case.prints(script), "source\ntext\nsource\ntext\ntext\ntext\nroot");
    fs::remove_file(case.rootfs().join("copied")).unwrap();
    fs::write(case.rootfs().join("copied"), "else").unwrap();
    assert!(case.run().err().contains("something else"));
}

/// `ro` is about the mount itself, `rro` about all below too (mount_setattr(2)).
#[test]
fn recursive_bind_and_recursive_read_only() {
    let mut case = case!();
    if !fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /sys/") {
        skip!("nothing is mounted below /sys here");
    }
    // In a user namespace of one's own the mounts below cannot be left out (mount_namespaces(7)).
    if is_root() {
        case.mount("bind", "/sys", "/plain", &["bind"]);
    }
    case.mount("bind", "/sys", "/ro", &["rbind", "ro"]);
    case.mount("bind", "/sys", "/rro", &["rbind", "rro"]);
    let text = case.prints("cat /proc/self/mountinfo");
    let mounts = mounts(&text);
    let below =
        |top: &str| mounts.iter().filter(move |(target, _)| target.starts_with(top)).collect::<Vec<_>>();
    assert!(below("/plain/").is_empty(), "bind is one mount");
    assert!(!below("/rro/").is_empty());
    assert!(below("/rro").iter().all(|(_, mount)| mount.has("ro")), "{text}");
    assert_eq!(below("/ro/").len(), below("/rro/").len());
}

#[test]
fn a_copied_up_tmpfs_has_what_it_covers() {
    let mut case = case!();
    fs::create_dir(case.rootfs().join("etc/sub")).unwrap();
    fs::write(case.rootfs().join("etc/sub/file"), "kept").unwrap();
    case.mount("tmpfs", "tmpfs", "/etc", &["tmpcopyup"]);
    assert_eq!(case.prints("cat /etc/sub/file; echo more > /etc/sub/file; cat /etc/sub/file"), "keptmore");
    assert_eq!(fs::read_to_string(case.rootfs().join("etc/sub/file")).unwrap(), "kept");
    assert_eq!(mounted(&mut case, "/etc").kind, "tmpfs");
}

#[test]
fn propagation_of_mounts() {
    let mut case = case!();
    let source = case.path("source");
    fs::create_dir(&source).unwrap();
    case.mount("bind", &source, "/shared", &["bind", "shared"]);
    case.mount("bind", &source, "/private", &["bind", "private"]);
    case.mount("bind", &source, "/unbindable", &["bind", "runbindable"]);
    assert!(mounted(&mut case, "/shared").optional.contains("shared:"));
    assert_eq!(mounted(&mut case, "/private").optional, "");
    assert_eq!(mounted(&mut case, "/unbindable").optional, "unbindable");
}

#[test]
fn propagation_of_the_root() {
    let mut case = case!();
    for (name, wanted) in [("shared", "shared:"), ("private", ""), ("unbindable", "unbindable")] {
        case.set("/linux/rootfsPropagation", json!(name));
        let found = mounted(&mut case, "/").optional;
        assert!(found.starts_with(wanted) && (found.is_empty() == wanted.is_empty()), "{name}: {found:?}");
    }
    case.set("/linux/rootfsPropagation", json!("nonsense"));
    assert!(case.run().err().contains("/linux/rootfsPropagation"));
}

/// runtime-spec config.md, `uidMappings` of a mount.
#[test]
fn idmapped_mounts() {
    require_root!();
    let mut case = case!();
    let source = case.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(7), Some(8)).unwrap();
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 100}]);
    let mount = json!({"destination": "/shifted", "type": "bind", "source": source, "options": ["bind"],
        "uidMappings": map(1000), "gidMappings": map(2000)});
    case.set("/mounts/-", mount);
    let out = case.sh("stat -c '%u %g' /shifted/file").run();
    if out.stderr.contains("may not support") {
        skip!("the file system of the scratch directory cannot be idmapped");
    }
    assert_eq!(out.ok(), "1007 2008\n");
}

#[test]
fn idmapped_mounts_follow_the_user_namespace() {
    require_root!();
    let mut case = case!();
    let source = case.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(7), Some(8)).unwrap();
    // Our root file system is not the container's root's, who could not make it.
    fs::create_dir(case.rootfs().join("shifted")).unwrap();
    case.user_namespace(100_000, 65536).mount("bind", &source, "/shifted", &["bind", "idmap"]);
    let out = case.sh("stat -c '%u %g' /shifted/file").run();
    if out.stderr.contains("may not support") {
        skip!("the file system of the scratch directory cannot be idmapped");
    }
    assert_eq!(out.ok(), "7 8\n");
}

#[test]
fn a_cgroup_mount_shows_the_container_s_cgroup() {
    require_root!();
    let mut case = case!();
    case.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]);
    // On a hybrid host version 2 is one directory of several.
    let look = "cd /sys/fs/cgroup; [ ! -d unified ] || cd unified; cat cgroup.procs; mkdir x";
    let out = case.sh(look).run();
    assert!(out.stdout.starts_with("1\n") && out.stderr.contains("Read-only"), "{out:?}");
}

#[test]
fn a_read_only_root() {
    let mut case = case!();
    case.set("/root/readonly", json!(true));
    let out = case.sh("touch /x; touch /dev/shm/x && echo but not shm").run();
    assert!(out.stdout == "but not shm\n" && out.stderr.contains("Read-only"), "{out:?}");
    assert!(mounted(&mut case, "/").has("ro"));
}

#[test]
fn masked_and_read_only_paths() {
    let mut case = case!();
    fs::create_dir(case.rootfs().join("secret")).unwrap();
    fs::write(case.rootfs().join("secret/file"), "secret").unwrap();
    fs::write(case.rootfs().join("key"), "secret").unwrap();
    case.set("/linux/maskedPaths", json!(["/secret", "/key", "/not/there", "/proc/version"]));
    case.set("/linux/readonlyPaths", json!(["/etc", "/proc/sys", "/not/there"]));
    let out = case.sh("cat /key; ls -A /secret; touch /secret/x; wc -c < /proc/version; touch /etc/x; echo x > /proc/sys/kernel/hostname").run();
    assert_eq!(out.stdout.trim(), "0", "{out:?}");
    assert_eq!(out.stderr.matches("Read-only").count(), 3, "{out:?}");
}

// Devices

#[test]
fn default_devices_and_links() {
    let mut case = case!();
    let out = case.prints("cd /dev; stat -c '%n %F %t %T' null zero full random urandom tty; for l in fd stdin stdout stderr ptmx; do readlink $l; done");
    let wanted = [
        "null character special file 1 3",
        "zero character special file 1 5",
        "full character special file 1 7",
        "random character special file 1 8",
        "urandom character special file 1 9",
        "tty character special file 5 0",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(case.prints("echo x > /dev/null; head -c 3 /dev/urandom | wc -c"), "3");
}

#[test]
fn configured_devices() {
    require_root!();
    let mut case = case!();
    case.set(
        "/linux/devices",
        json!([
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/sub/pipe", "type": "p", "major": 0, "minor": 0, "fileMode": 0o600}]),
    );
    let out = case.prints("stat -c '%n %F %t %T %a %u %g' /dev/mine; stat -c '%F %a' /dev/sub/pipe");
    assert_eq!(out, "/dev/mine character special file 1 5 640 5 6\nfifo 600");
}

/// runtime-spec config-linux.md, "Allowed Device list".
#[test]
fn the_device_filter() {
    require_root!();
    let mut case = case!();
    // A number that no driver has: what the filter lets through ends as "No such device".
    let script = "  mknod /dev/k c 240 77 && echo made; head -c 1 /dev/k; mknod /dev/z c 1 5; \
                  head -c 1 /dev/z | wc -c";
    let out = case.sh(script).run();
    assert_eq!(out.stdout, "made\n1\n", "{out:?}");
    assert!(out.stderr.contains("/dev/k: Operation not permitted"), "{out:?}");
    let rule = json!({"allow": true, "type": "c", "major": 240, "minor": 77, "access": "r"});
    case.set("/linux/resources/devices/-", rule);
    let out = case.sh("mknod /dev/k c 240 77; (: < /dev/k); (: > /dev/k)").run();
    let lines: Vec<&str> = out.stderr.lines().filter(|line| line.contains("/dev/k")).collect();
    assert!(lines.len() == 2 && lines[0].contains("No such device"), "{out:?}");
    assert!(lines[1].contains("Operation not permitted"), "{out:?}");
}

// The process

#[test]
fn rlimits() {
    let mut case = case!();
    case.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
    );
    assert_eq!(case.prints("ulimit -Sn; ulimit -Hn; ulimit -c"), "100\n200\n0");
    case.up();
    assert_eq!(case.exec(&["sh", "-c", "ulimit -Sn"]).ok(), "100\n", "exec has them too");
}

/// Root of the host may give more than it has itself, which nobody in a user namespace may (getrlimit(2)).
#[test]
fn rlimits_are_raised_in_a_user_namespace_too() {
    require_root!();
    let raise = "ulimit -n 200; ulimit -n 300";
    if !std::process::Command::new("sh").args(["-ec", raise]).status().unwrap().success() {
        skip!("no CAP_SYS_RESOURCE");
    }
    let mut case = case!();
    case.user_namespace(100_000, 65536);
    case.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 300, "hard": 300}]));
    case.sh("ulimit -Hn; sleep 1000");
    let bundle = case.bundle();
    let args = case.making("create", bundle.to_str().unwrap(), &[]);
    let low = |args: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 200; exec \"$@\"", "sh"]).arg(common::program());
        command.arg("--root").arg(case.store()).args(args).stdin(std::process::Stdio::null());
        common::spawn(case.dir(), &mut command).wait()
    };
    let out = low(&args);
    assert_eq!(out.status, 0, "{out:?}");
    low(&["start", &case.id]).ok();
    wait_for("the program", || out.later() == "300\n");
    assert_eq!(low(&["exec", &case.id, "sh", "-c", "ulimit -Hn"]).ok(), "300\n");
}

#[test]
fn capability_sets() {
    let mut case = case!();
    let (chown, kill, raw, admin) = (1_u64 << 0, 1 << 5, 1 << 13, 1 << 21);
    case.set(
        "/process/capabilities",
        json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_ADMIN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_KILL"]}),
    );
    // As another user than root execve(2) keeps ambient capabilities alone.
    if is_root() {
        case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    }
    let status = case.prints("cat /proc/self/status");
    let set = |name: &str| u64::from_str_radix(&field(&status, name), 16).unwrap();
    assert_eq!(set("CapBnd"), chown | kill | raw | admin);
    assert_eq!(set("CapInh"), kill | raw);
    assert_eq!(set("CapAmb"), kill);
    if is_root() {
        assert_eq!((set("CapPrm"), set("CapEff")), (kill, kill));
    }
}

/// As with runc: what the user may not execute but by a capability of its own is executed, and the capability is gone.
#[test]
fn a_capability_counts_for_the_start_of_the_program() {
    require_root!();
    let mut case = case!();
    case.set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .set("/process/args", json!(["/own/busybox", "cat", "/proc/self/status"]));
    let own = case.rootfs().join("own/busybox");
    fs::create_dir(case.rootfs().join("own")).unwrap();
    fs::copy(case.rootfs().join("bin/busybox"), &own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    let kill = ["CAP_KILL"];
    case.set("/process/capabilities", json!({"bounding": kill, "permitted": kill, "effective": kill}));
    let error = case.run().err();
    assert!(error.contains("/own/busybox") && error.contains("permission denied"), "{error}");
    for (no_new_privileges, ambient) in [(true, json!([])), (false, json!(["CAP_KILL"]))] {
        let dac = ["CAP_DAC_OVERRIDE", "CAP_KILL"];
        case.set("/process/noNewPrivileges", json!(no_new_privileges)).set(
            "/process/capabilities",
            json!({"bounding": dac, "permitted": dac, "effective": dac, "inheritable": kill, "ambient": ambient}),
        );
        let status = case.run().ok();
        let set = |name: &str| u64::from_str_radix(&field(&status, name), 16).unwrap();
        let held = if ambient == json!([]) { 0 } else { 1 << 5 };
        assert_eq!((set("CapInh"), set("CapAmb")), (1 << 5, held), "{status}");
        assert_eq!((set("CapPrm"), set("CapEff"), set("CapBnd")), (held, held, 1 << 5 | 1 << 1), "{status}");
    }
}

#[test]
fn no_capabilities_is_none() {
    let mut case = case!();
    case.config["process"].as_object_mut().unwrap().remove("capabilities");
    let status = case.prints("cat /proc/self/status");
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&field(&status, name), 16), Ok(0), "{name}");
    }
}

#[test]
fn no_new_privileges() {
    let mut case = case!();
    for wanted in [true, false] {
        case.set("/process/noNewPrivileges", json!(wanted));
        let status = case.prints("cat /proc/self/status");
        assert_eq!(field(&status, "NoNewPrivs"), u8::from(wanted).to_string());
    }
}

#[test]
fn user_umask_and_groups() {
    let mut case = case!();
    case.set("/process/user/umask", json!(0o27));
    assert_eq!(case.prints("umask"), "0027");
    if is_root() {
        case.set("/process/user", json!({"uid": 1000, "gid": 100, "additionalGids": [5, 6]}));
        assert_eq!(case.prints("id -u; id -g; id -G"), "1000\n100\n100 5 6");
    }
}

#[test]
fn oom_score() {
    let mut case = case!();
    case.set("/process/oomScoreAdj", json!(321));
    assert_eq!(case.prints("cat /proc/self/oom_score_adj"), "321");
}

/// Fields 19 (nice) and 41 (policy) of proc_pid_stat(5).
#[test]
fn scheduler() {
    let mut case = case!();
    for (policy, nice, wanted) in [("SCHED_BATCH", 5, "5 3"), ("SCHED_OTHER", 7, "7 0")] {
        case.set("/process/scheduler", json!({"policy": policy, "nice": nice}));
        assert_eq!(case.prints("cut -d' ' -f19,41 /proc/self/stat"), wanted, "{policy}");
    }
    // Its nice value is whatever the caller's is.
    case.set("/process/scheduler", json!({"policy": "SCHED_IDLE"}));
    assert_eq!(case.prints("cut -d' ' -f41 /proc/self/stat"), "5");
    case.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 7, "nice": 50}));
    let error = case.run().err();
    assert!(
        error.contains("/process/scheduler/priority") && error.contains("/process/scheduler/nice"),
        "{error}"
    );
}

#[test]
fn io_priority() {
    let mut case = case!();
    for (class, wanted) in [("IOPRIO_CLASS_BE", "best-effort: prio 6"), ("IOPRIO_CLASS_IDLE", "idle")] {
        case.set("/process/ioPriority", json!({"class": class, "priority": 6}));
        assert!(case.prints("ionice -p $$").contains(wanted), "{class}");
    }
}

#[test]
fn personality() {
    let mut case = case!();
    case.set("/linux/personality", json!({"domain": "LINUX32"}));
    if !cfg!(target_arch = "x86_64") {
        skip!("only x86-64 has another name for 32 bits here");
    }
    assert_eq!(case.prints("uname -m"), "i686");
    case.up();
    assert_eq!(case.exec(&["uname", "-m"]).ok(), "i686\n");
}

#[test]
fn sysctls() {
    let mut case = case!();
    case.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net/ipv4/ip_default_ttl": "77"}),
    );
    let out =
        case.prints("cd /proc/sys; cat net/ipv4/ip_forward kernel/shm_rmid_forced net/ipv4/ip_default_ttl");
    assert_eq!(out, "1\n1\n77");
    case.without_namespace("network");
    assert!(case.run().err().contains("/linux/sysctl/"), "of the host's network namespace");
}

#[test]
fn time_offsets() {
    let mut case = case!();
    let now: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    case.namespace("time", None);
    case.set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 10}}),
    );
    let inside: f64 = case.prints("cat /proc/uptime").split(' ').next().unwrap().parse().unwrap();
    assert!((1_000_000.0..1_000_100.0).contains(&(inside - now)), "{inside} {now}");
    case.up();
    let inside: f64 = case.exec(&["cat", "/proc/uptime"]).ok().split(' ').next().unwrap().parse().unwrap();
    assert!(inside > 1_000_000.0, "exec is in the time namespace");
}

#[test]
fn cpu_affinity_of_exec() {
    let mut case = case!();
    case.set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"})).up();
    let file = case.path("process.json");
    let mut process = case.config["process"].clone();
    process["args"] = json!(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    fs::write(&file, process.to_string()).unwrap();
    let out = case.ctr(&["exec", "--process", file.to_str().unwrap(), &case.id]).ok();
    assert_eq!(out.split_whitespace().nth(1), Some("0"), "{out}");
}

/// A process of `exec` is confined as the first one is.
#[test]
fn exec_is_in_the_same_box() {
    let mut case = case!();
    case.set("/linux/seccomp", profile(json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"})))
        .up();
    let pid = case.pid();
    let mine = case
        .exec(&["sh", "-c", "cat /proc/1/status; cd /proc/1/ns; for n in pid net ipc uts mnt cgroup user; do readlink $n; done"])
        .ok();
    let other = case
        .exec(&[
            "sh",
            "-c",
            "cat /proc/self/status; cd /proc/self/ns; for n in pid net ipc uts mnt cgroup user; do readlink $n; done",
        ])
        .ok();
    for name in
        ["Uid", "Gid", "Groups", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp"]
    {
        assert_eq!(field(&mine, name), field(&other, name), "{name}");
    }
    let last = |text: &str| text.lines().rev().take(7).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(last(&mine), last(&other));
    assert!(pid > 0);
}

// The system call filter

fn profile(rule: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [rule]})
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn seccomp_errno_and_arguments() {
    let mut case = case!();
    for privileged in [true, false] {
        case.set("/process/noNewPrivileges", json!(privileged));
        case.set(
            "/linux/seccomp",
            profile(json!({"names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 28})),
        );
        let out = case.sh("mkdir /x; touch /y && echo fine").run();
        assert!(out.stdout == "fine\n" && out.stderr.contains("No space left"), "{out:?}");
    }
    let condition = json!([{"index": 1, "value": 30, "op": "SCMP_CMP_EQ"}]);
    case.set(
        "/linux/seccomp",
        profile(json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": condition})),
    );
    let out = case.sh("kill -30 $$ || echo refused; kill -0 $$ && echo allowed").run();
    assert_eq!(out.stdout, "refused\nallowed\n", "{out:?}");
}

#[test]
fn seccomp_kill() {
    let mut case = case!();
    case.set("/linux/seccomp", profile(json!({"names": MKDIR, "action": "SCMP_ACT_KILL_PROCESS"})));
    let out = case.sh("mkdir /x; echo $?; exec mkdir /y").run();
    assert_eq!((out.stdout.as_str(), out.status), ("159\n", 159), "{out:?}");
    case.up();
    assert_eq!(case.exec(&["mkdir", "/x"]).status, 159);
}

#[test]
fn seccomp_allows_what_is_named() {
    let mut case = case!();
    case.set("/linux/seccomp", profile(json!({"names": MKDIR, "action": "SCMP_ACT_ALLOW"})));
    case.set("/linux/seccomp/syscalls/-", json!({"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}));
    assert_eq!(case.prints("mkdir /x && echo made; hostname y 2>/dev/null || echo refused"), "made\nrefused");
    case.set("/linux/seccomp/syscalls/-", json!({"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}));
    assert_eq!(case.prints("echo an unknown call is ignored"), "an unknown call is ignored");
}

/// The agent's side of seccomp_unotify(2): answers one call with `errno`, all others go on.
fn answer(listener: &OwnedFd, errno: i32) -> i32 {
    const RECEIVE: libc::c_ulong = 0xC050_2100;
    const SEND: libc::c_ulong = 0xC018_2101;
    // SAFETY: both structures are plain numbers, for which zero is a value.
    let (mut call, mut reply): (libc::seccomp_notif, libc::seccomp_notif_resp) =
        unsafe { std::mem::zeroed() };
    // SAFETY: the call is given a structure of the size its number says.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    reply.id = call.id;
    reply.error = -errno;
    // SAFETY: as above.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw mut reply) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    call.data.nr
}

/// runtime-spec config-linux.md, "The Container Process State".
#[test]
fn seccomp_notify_asks_the_agent() {
    let mut case = case!();
    let socket = case.path("agent");
    let agent = UnixListener::bind(&socket).unwrap();
    let serve = std::thread::spawn(move || {
        let (connection, _) = agent.accept().unwrap();
        let (text, mut fds) = ctr_isolation::sys::socket::receive(connection.as_fd(), 65536).unwrap();
        let call = answer(&fds.pop().unwrap(), libc::EXDEV);
        (text, call)
    });
    case.set("/linux/seccomp", profile(json!({"names": MKDIR, "action": "SCMP_ACT_NOTIFY"})));
    case.set("/linux/seccomp/listenerPath", json!(socket))
        .set("/linux/seccomp/listenerMetadata", json!("some words"));
    case.set("/annotations", json!({"a": "b"}));
    let out = case.sh("mkdir /x").run();
    assert!(out.stderr.contains("Cross-device") || out.stderr.contains("Invalid cross"), "{out:?}");
    let (text, call) = serve.join().unwrap();
    assert_eq!(i64::from(call), libc::SYS_mkdir);
    let state: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(state["metadata"], "some words", "{state}");
    assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
    assert_eq!(state["state"]["id"], case.id.as_str(), "{state}");
    assert_eq!(state["state"]["annotations"]["a"], "b", "{state}");
    assert!(state["pid"].as_i64().unwrap() > 1, "{state}");
}

// Terminals

/// Accepts the master of a terminal and reads what is written to it until `done`.
fn read_terminal(socket: &UnixListener, done: impl Fn(&str) -> bool, input: &str) -> String {
    let (connection, _) = socket.accept().unwrap();
    let (_, mut fds) = ctr_isolation::sys::socket::receive(connection.as_fd(), 4096).unwrap();
    let mut master = fs::File::from(fds.pop().unwrap());
    master.write_all(input.as_bytes()).unwrap();
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !done(&text) {
        match master.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.push_str(&String::from_utf8_lossy(&part[..count])),
        }
    }
    text
}

#[test]
fn a_terminal_through_the_console_socket() {
    let mut case = case!();
    let path = case.path("console");
    let socket = UnixListener::bind(&path).unwrap();
    let reader =
        std::thread::spawn(move || read_terminal(&socket, |text| text.contains("got word"), "word\n"));
    case.set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 33, "width": 99}));
    case.sh("tty; stty size; test -c /dev/console && echo console; read x; echo got $x; sleep 1000");
    case.create_with(&["--console-socket", path.to_str().unwrap()]).ok();
    case.ctr(&["start", &case.id]).ok();
    let text = reader.join().unwrap();
    for line in ["/dev/pts/0", "33 99", "console", "got word"] {
        assert!(text.contains(line), "{line} in {text:?}");
    }
    assert_eq!(case.state()["status"], "running");
}

#[test]
fn exec_with_a_console_socket() {
    let mut case = case!();
    case.up();
    let path = case.path("console");
    let socket = UnixListener::bind(&path).unwrap();
    let reader = std::thread::spawn(move || read_terminal(&socket, |text| text.contains("end"), ""));
    let out = case.exec_with(
        &["--tty", "--detach", "--console-socket", path.to_str().unwrap()],
        &["sh", "-c", "tty; echo end; sleep 1"],
    );
    assert_eq!(out.status, 0, "{out:?}");
    let text = reader.join().unwrap();
    assert!(text.contains("/dev/pts/"), "{text:?}");
}

#[test]
fn a_terminal_needs_somebody_to_take_it() {
    let mut case = case!();
    case.set("/process/terminal", json!(true));
    assert!(case.create().err().contains("/process/terminal"));
    let error = case.create_with(&["--console-socket", "/nowhere"]).err();
    assert!(error.contains("console socket"), "{error}");
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

#[test]
fn run_with_a_terminal_of_its_own() {
    let mut case = case!();
    case.set("/process/terminal", json!(true));
    let out = case.sh("test -t 0 && tty; exit 4").run();
    assert_eq!((out.stdout.trim(), out.status), ("/dev/pts/0", 4), "{out:?}");
    std::thread::sleep(Duration::from_millis(1));
}

/// Hooks run what is in the container.
#[test]
fn seccomp_is_for_hooks_inside_too() {
    let mut case = case!();
    for privileged in [true, false] {
        case.set("/process/noNewPrivileges", json!(privileged));
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "mkdir /made"]}]);
        case.set("/hooks", json!({"startContainer": hook})).sh("echo ran");
        assert_eq!(case.run().ok(), "ran\n");
        fs::remove_dir(case.rootfs().join("made")).unwrap();
        case.set("/linux/seccomp", profile(json!({"names": MKDIR, "action": "SCMP_ACT_ERRNO"})));
        let error = case.run().err();
        assert!(error.contains("startContainer") && error.contains("not permitted"), "{error}");
        assert!(!case.rootfs().join("made").exists());
        case.set("/linux/seccomp", json!(null));
    }
}

/// Without pivot_root(2) the host's `/proc` is below the container's root, and the kernel would take it for a reason to
/// let a user namespace inside mount one without masks.
#[test]
fn without_pivot_no_whole_proc_can_be_had() {
    let mut case = case!();
    require_root!();
    for set in ["bounding", "permitted", "effective"] {
        let set = case.config["process"]["capabilities"][set].as_array_mut();
        // To map root.
        set.unwrap().push(json!("CAP_SETFCAP"));
    }
    case.args(&["unshare", "-mrpf", "sh", "-c", "echo inside; mount -t proc none /proc"]);
    for flags in [&[][..], &["--no-pivot"]] {
        let out = case.run_with(flags);
        assert_eq!((out.status, out.stdout.as_str()), (1, "inside\n"), "{flags:?}: {out:?}");
        assert!(out.stderr.contains("denied") || out.stderr.contains("permitted"), "{out:?}");
    }
}

/// As runc and crun have it: where the environment does not say, the container's own passwd(5) does.
#[test]
fn the_home_directory_is_the_user_s() {
    let mut case = case!();
    let environment = case.config["process"]["env"].as_array_mut().unwrap();
    environment.retain(|entry| !entry.as_str().unwrap().starts_with("HOME="));
    let etc = case.rootfs().join("etc");
    fs::create_dir_all(&etc).unwrap();
    let _ = fs::remove_file(etc.join("passwd"));
    case.sh("echo $HOME");
    assert_eq!(case.run().ok(), "/\n");
    fs::write(etc.join("passwd"), "bad\nroot:x:0:0:root:/the/home:/bin/sh\n").unwrap();
    assert_eq!(case.run().ok(), "/the/home\n");
    case.up();
    assert_eq!(case.exec(&["sh", "-c", "echo $HOME"]).ok(), "/the/home\n");
    for home in ["/x", "/y"] {
        let flags = ["--env", "HOME=/w", "--env", &format!("HOME={home}")];
        assert_eq!(case.exec_with(&flags, &["sh", "-c", "echo $HOME"]).ok(), format!("{home}\n"));
        assert!(case.exec_with(&flags, &["env"]).ok().matches("HOME=").count() == 1);
    }
    case.ctr(&["delete", "--force", &case.id]).ok();
    // Nobody waits for what an image has there.
    fs::remove_file(etc.join("passwd")).unwrap();
    nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    case.sh("echo $HOME");
    assert_eq!(case.run().ok(), "/\n");
}

#[test]
fn the_working_directory_is_made_in_a_read_only_root_too() {
    let mut case = case!();
    case.set("/root/readonly", json!(true))
        .set("/process/cwd", json!("/not/there"))
        .sh("pwd; touch /x || echo no");
    assert!(case.run().ok().starts_with("/not/there\n"));
    assert!(!case.rootfs().join("x").exists());
}

/// runc and crun bind what there is, where a user namespace may mount none.
#[test]
fn a_cgroup_mount_in_a_user_namespace_is_bound() {
    let mut case = case!();
    require_root!();
    if common::cgroup2().is_none() {
        skip!("no cgroup version 2");
    }
    case.user_namespace(100_000, 65536).without_namespace("cgroup");
    fs::create_dir(case.rootfs().join("cgroup")).unwrap();
    case.mount("cgroup2", "cgroup", "/cgroup", &["ro", "nosuid", "noexec", "nodev"]);
    case.sh("cat /cgroup/cgroup.controllers >/dev/null && mkdir /cgroup/x");
    let out = case.run();
    assert!(out.status == 1 && out.stderr.contains("ead-only"), "{out:?}");
}

#[test]
fn a_host_name_has_one_place() {
    let mut case = case!();
    case.set("/linux/sysctl", json!({"kernel.hostname": "x"})).sh("true");
    assert!(case.run().err().contains("/linux/sysctl/kernel.hostname"));
}

/// getenv(3) finds the first of several values; what counts is the last.
#[test]
fn the_last_value_of_a_variable_counts() {
    let mut case = case!();
    case.set("/process/env", json!(["A=1", "PATH=/bin", "B=x", "A=2"])).up();
    let out = |flags: &[&str]| case.exec_with(flags, &["env"]).ok();
    let has = |text: &str, entry: &str| text.lines().any(|line| line == entry);
    let plain = out(&[]);
    assert!(has(&plain, "A=2") && !has(&plain, "A=1"), "{plain}");
    let changed = out(&["--env", "B=y", "--env", "A=3"]);
    assert!(has(&changed, "A=3") && has(&changed, "B=y") && changed.matches("A=").count() == 1, "{changed}");
}
