//! `run --image host` and `run --rootfs`, flag by flag, as root and as an ordinary user.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, make_rootfs, skip, wait_for};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// What a script prints in the image `host`.
#[track_caller]
fn prints(case: &Case, flags: &[&str], script: &str) -> String {
    case.host(flags, script).ok().trim_end().to_owned()
}

/// Whether the caller has more than one id to give.
fn has_ids() -> bool {
    let name = std::env::var("USER").unwrap_or_default();
    let owner = |line: &str| line.split(':').next().map(str::to_owned);
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    common::is_root()
        || text.lines().filter_map(owner).any(|owner| owner == name || owner == common::uid().to_string())
}

/// What containers leave in the store.
fn left(case: &Case) -> Vec<PathBuf> {
    let found = [case.path("private/containers"), case.store()].map(fs::read_dir);
    found.into_iter().flatten().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn names_are_given_by_flag_or_position_or_made_up() {
    let case = case!();
    assert_eq!(prints(&case, &[], "hostname"), case.id);
    let out = case.ctr(&["run", "--rm", "--image", "host", "by-position", "--", "hostname"]);
    assert_eq!(out.ok(), "by-position\n");
    let made_up = case.ctr(&["run", "--detach", "--image", "host", "--", "sleep", "1000"]).ok();
    assert_eq!(case.ctr(&["list", "-q"]).ok(), made_up);
    assert!(made_up.split('-').count() == 3, "{made_up}");
    let out = case.ctr(&["run", "--rm", "--image", "host", "--name", "a/b", "--", "true"]);
    assert_eq!(out.status, 125, "{out:?}");
    let taken = case.ctr(&["run", "--image", "host", "--name", made_up.trim(), "--", "true"]);
    assert!(taken.status == 125 && taken.stderr.contains("already exists"), "{taken:?}");
}

#[test]
fn statuses_are_podman_s() {
    let case = case!();
    for (program, status) in [
        (&["sh", "-c", "exit 42"][..], 42),
        (&["sh", "-c", "kill -KILL $$; exit 1"], 1),
        (&["no-such-program"], 127),
        (&["/no/such/program"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
    ] {
        let out = case.ctr(&case.hosting(&["--rm"], program));
        assert_eq!(out.status, status, "{program:?}: {out:?}");
    }
    assert_eq!(case.ctr(&["run", "--image", "host", "--bogus"]).status, 125);
    assert_eq!(case.ctr(&["run", "--image", "nonesuch", "--", "true"]).status, 125);
    assert_eq!(left(&case), [] as [PathBuf; 0]);
}

#[test]
fn without_rm_it_stays_until_it_is_deleted() {
    let case = case!();
    assert_eq!(case.ctr(&case.hosting(&[], &["sh", "-c", "exit 3"])).status, 3);
    assert_eq!((case.status().as_str(), &case.state()["exitStatus"]), ("stopped", &json!(3)));
    assert_eq!(left(&case).len(), 2);
    case.ctr(&["delete", &case.id]).ok();
    assert_eq!(left(&case), [] as [PathBuf; 0]);
}

#[test]
fn the_environment_is_its_own() {
    let case = case!();
    let file = case.path("variables");
    fs::write(&file, "# comment\nFROM_FILE=a b\nBOTH=file\n").unwrap();
    let args = case.hosting(
        &[
            "--rm",
            "--env-file",
            file.to_str().unwrap(),
            "-e",
            "BOTH=flag",
            "--env",
            "TAKEN",
            "--env",
            "MISSING",
        ],
        &["env"],
    );
    let mut command = case.command(&args);
    command.env("TAKEN", "from the caller").env("SECRET", "not this").env_remove("MISSING");
    let text = common::spawn(case.dir(), &mut command).wait().ok();
    for line in ["FROM_FILE=a b", "BOTH=flag", "TAKEN=from the caller", "container=ctr"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("SECRET") && !text.contains("MISSING"), "{text}");
    assert!(text.contains(&format!("HOSTNAME={}", case.id)) && text.contains("PATH=/"), "{text}");
}

#[test]
fn users_are_found_by_name_and_number() {
    let case = case!();
    assert_eq!(prints(&case, &[], "id -u; id -g; id -un"), "0\n0\nroot");
    if !has_ids() {
        skip!("this user has one id only");
    }
    assert_eq!(prints(&case, &["--user", "nobody"], "id -u; id -un"), "65534\nnobody");
    assert_eq!(prints(&case, &["--user", "1234:567"], "id -u; id -g; whoami"), "1234\n567\nuser1234");
    assert_eq!(prints(&case, &["--user", "nobody:tty"], "id -un; id -gn; id -G"), "nobody\ntty\n5");
    let out = case.host(&["--user", "no-such-user"], "true");
    assert!(out.status == 125 && out.stderr.contains("no-such-user"), "{out:?}");
    // What a user other than root may not do, in files of its own root.
    assert_ne!(case.host(&["--user", "1234"], "touch /etc/x").status, 0);
    assert_eq!(prints(&case, &["--user", "1234"], "touch /tmp/x && echo made"), "made");
}

#[test]
fn the_working_directory_is_the_caller_s_or_as_said() {
    let case = case!();
    let here = case.path("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("my-test"), "#!/bin/sh\npwd\ntouch made 2>/dev/null || echo read-only\n").unwrap();
    common::spawn(case.dir(), std::process::Command::new("chmod").arg("+x").arg(here.join("my-test")))
        .wait()
        .ok();
    let run = |flags: &[&str], program: &[&str]| {
        let args = case.hosting(&[&["--rm"], flags].concat(), program);
        common::spawn(case.dir(), case.command(&args).current_dir(&here)).wait()
    };
    assert_eq!(run(&[], &["./my-test"]).ok(), format!("{}\nread-only\n", here.display()));
    assert_eq!(run(&["--workdir", "/usr/bin"], &["pwd"]).ok(), "/usr/bin\n");
    let own = format!("{0}:{0}", here.display());
    assert_eq!(run(&["-v", &own], &["./my-test"]).ok(), format!("{}\n", here.display()));
    assert!(here.join("made").exists());
    assert!(run(&["--workdir", "relative"], &["pwd"]).err().contains("--workdir"));
}

#[test]
fn mounts_volumes_and_tmpfs() {
    let case = case!();
    let shared = case.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "text\n").unwrap();
    let at = |options: &str| format!("{}:/x/y{options}", shared.display());
    assert_eq!(prints(&case, &["--volume", &at("")], "cat /x/y/file; echo more > /x/y/made"), "text");
    assert_eq!(fs::read_to_string(shared.join("made")).unwrap(), "more\n");
    assert_eq!(
        prints(&case, &["-v", &at(":ro")], "touch /x/y/no 2>/dev/null || echo read-only"),
        "read-only"
    );
    let mount = format!("type=bind,src={},dst=/m,ro", shared.display());
    assert_eq!(
        prints(&case, &["--mount", &mount], "cat /m/file; touch /m/no 2>&1 | grep -c Read-only"),
        "text\n1"
    );
    let file = format!("type=bind,src={},dst=/single", shared.join("file").display());
    assert_eq!(prints(&case, &["--mount", &file], "cat /single"), "text");
    let size = "df -k /scratch | tail -1 | awk '{print $1, $2}'";
    assert_eq!(prints(&case, &["--tmpfs", "/scratch:size=4m"], size), "tmpfs 4096");
    assert_eq!(prints(&case, &["--mount", "type=tmpfs,dst=/scratch,tmpfs-size=8m"], size), "tmpfs 8192");
    assert!(!shared.join("no").exists());
    let out = case.host(&["--volume", "/nowhere/at/all:/x"], "true");
    assert!(out.status == 125 && out.stderr.contains("/nowhere/at/all"), "{out:?}");
}

#[test]
fn what_is_written_stays_in_the_container() {
    let case = case!();
    let name = format!("ctr-made-{}", case.id);
    assert_eq!(prints(&case, &[], &format!("touch /etc/{name} /tmp/{name} && echo made")), "made");
    for place in ["/etc", "/usr/bin", "/tmp"] {
        assert!(!fs::exists(format!("{place}/{name}")).unwrap());
    }
    assert_eq!(prints(&case, &[], &format!("ls /etc/{name} 2>/dev/null | wc -l")), "0");
}

#[test]
fn a_read_only_root_file_system() {
    let case = case!();
    let script = "for d in / /etc /usr /root; do touch $d/x 2>/dev/null && echo $d; done; touch /tmp/x /run/x && echo made";
    assert_eq!(prints(&case, &["--read-only"], script), "made");
    let writable = prints(&case, &[], script);
    assert!(writable.starts_with("/\n/etc\n") && writable.ends_with("made"), "{writable}");
}

#[test]
fn host_names_and_networks() {
    let case = case!();
    assert_eq!(prints(&case, &["--hostname", "other"], "hostname; echo $HOSTNAME"), "other\nother");
    let devices = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '";
    assert_eq!(prints(&case, &[], devices), "lo");
    assert_eq!(prints(&case, &["--network", "none"], devices), "lo");
    let namespace = "readlink /proc/self/ns/net";
    let outside = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(prints(&case, &["--network", "host"], namespace), outside);
    assert_ne!(prints(&case, &[], namespace), outside);
    // Its own loopback device is up.
    assert_eq!(
        prints(&case, &[], "cat /sys/class/net/lo/operstate; cat /sys/class/net/lo/flags"),
        "unknown\n0x9"
    );
}

#[test]
fn capabilities_are_added_and_dropped() {
    let case = case!();
    let bounding = |flags: &[&str]| {
        let text = prints(&case, flags, "grep CapBnd /proc/self/status");
        u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let (chown, net_raw, kill) = (1 << 0, 1 << 13, 1 << 5);
    let default = bounding(&[]);
    assert_eq!(default & (chown | net_raw | kill), chown | kill);
    assert_eq!(bounding(&["--cap-add", "net_raw"]), default | net_raw);
    assert_eq!(bounding(&["--cap-drop", "CAP_KILL,chown"]), default & !(kill | chown));
    assert_eq!(bounding(&["--cap-drop", "all", "--cap-add", "KILL"]), kill);
    assert!(bounding(&["--cap-add", "all"]).count_ones() > 35);
    assert_eq!(
        prints(&case, &["--cap-drop", "all"], "touch /f && chown 1 /f 2>/dev/null || echo refused"),
        "refused"
    );
    let out = case.host(&["--cap-add", "NONSENSE"], "true");
    assert!(out.status == 125 && out.stderr.contains("NONSENSE"), "{out:?}");
}

#[test]
fn system_calls_are_filtered() {
    let case = case!();
    let filtered = "grep Seccomp: /proc/self/status | cut -f2";
    assert_eq!(prints(&case, &[], filtered), "2");
    assert_eq!(prints(&case, &["--security-opt", "seccomp=default"], filtered), "2");
    assert_eq!(prints(&case, &["--security-opt", "seccomp=unconfined"], filtered), "0");
    // The built-in profile keeps a container from mounting and from new user namespaces.
    assert_eq!(prints(&case, &[], "unshare -U true 2>/dev/null || echo refused"), "refused");
    assert_eq!(
        prints(&case, &["--security-opt", "seccomp=unconfined"], "unshare -U true && echo done"),
        "done"
    );
    let file = case.path("profile.json");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    fs::write(&file, profile.to_string()).unwrap();
    let option = format!("seccomp={}", file.display());
    let out = case.host(&["--security-opt", &option], "mkdir /tmp/x");
    assert!(out.stderr.contains("No space left on device"), "{out:?}");
    assert_eq!(
        prints(&case, &["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t1"
    );
}

#[test]
fn entry_points_limits_and_annotations() {
    let case = case!();
    let out = case.ctr(&case.hosting(&["--rm", "--entrypoint", "echo"], &["a", "b"]));
    assert_eq!(out.ok(), "a b\n");
    let out = case.ctr(&case.hosting(&["--rm", "--entrypoint", r#"["printf", "%s."]"#], &["a", "b"]));
    assert_eq!(out.ok(), "a.b.");
    assert_eq!(prints(&case, &["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn"), "100\n200");
    case.detach(&["--annotation", "org.example=x y"], "sleep 1000");
    assert_eq!(case.state()["annotations"], json!({"org.example": "x y"}));
}

/// The README's first command.
#[test]
fn what_is_seen_inside_makes_sense() {
    let case = case!();
    let text = prints(&case, &[], "id -un; hostname; ps -o pid,comm; df -h / | tail -n +2; mount | wc -l");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..3], ["root", &case.id, "    PID COMMAND"], "{text}");
    assert!(lines[3].ends_with("1 sh") && lines[4].ends_with(" ps"), "{text}");
    let root: Vec<&str> = lines[5].split_whitespace().collect();
    assert!(root[1].ends_with(['G', 'T', 'M']) && root[4].ends_with('%') && root[5] == "/", "{text}");
    // Nothing of the host's mounts is listed but what the image is made of.
    let mounts = prints(&case, &[], "cut -d' ' -f2 /proc/mounts");
    assert!(!mounts.contains(case.dir().to_str().unwrap()), "{mounts}");
}

#[test]
fn a_root_file_system_of_one_s_own() {
    let case = case!();
    let tree = case.path("tree");
    make_rootfs(&tree);
    let run = |flags: &[&str], script: &str| {
        let before = ["run", "--rm", "--rootfs", tree.to_str().unwrap(), "--name", &case.id];
        case.ctr(&[&before, flags, &["--", "sh", "-c", script]].concat())
    };
    assert_eq!(run(&[], "hostname; id -u; echo x > /root/made").ok(), format!("{}\n0\n", case.id));
    assert_eq!(fs::read_to_string(tree.join("root/made")).unwrap(), "x\n");
    assert!(run(&["--read-only"], "touch /root/no").err().contains("Read-only"));
    assert!(!tree.join("root/no").exists());
    if has_ids() {
        assert_eq!(run(&["--user", "nobody"], "id -un").ok(), "nobody\n");
    }
    assert_eq!(run(&[], "exit 9").status, 9);
    assert!(tree.join("bin/sh").exists(), "what is not ours is not removed");
    assert_eq!(left(&case), [] as [PathBuf; 0]);
}

/// Killed at any moment, `delete --force` leaves nothing of it: not in the state, the store, the cgroups, or running.
#[test]
fn killed_half_way_it_is_deleted_whole() {
    let case = case!();
    let begun = Instant::now();
    case.detach(&[], "sleep 1000");
    let whole = begun.elapsed();
    case.ctr(&["delete", "--force", &case.id]).ok();
    for step in 0..20 {
        let mut running = case.spawn(&case.hosting(&["--detach"], &["sleep", "1000"]));
        std::thread::sleep(whole * step / 18);
        let _ = running.child.kill();
        running.wait();
        // The supervisor may be at work still.
        wait_for(&format!("its removal at step {step}"), || {
            let _ = case.ctr(&["delete", "--force", &case.id]);
            left(&case).is_empty() && !is_running(&case)
        });
    }
}

/// Whether any process has the container's name among its arguments, or is in its cgroup.
fn is_running(case: &Case) -> bool {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    names
        .map(|path| [read(path.join("cmdline")), read(path.join("cgroup"))].concat())
        .any(|text| text.contains(&case.id))
}

/// One in the foreground whose `ctr` is killed goes on, and is deleted whole.
#[test]
fn a_foreground_that_is_killed_leaves_a_container_to_delete() {
    let case = case!();
    let mut running = case.spawn(&case.hosting(&["--rm"], &["sleep", "1000"]));
    let command = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    wait_for("the program", || {
        case.ctr(&["state", &case.id]).status == 0 && command(case.pid()).starts_with("sleep")
    });
    running.child.kill().unwrap();
    running.wait();
    assert_eq!(case.status(), "running");
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert_eq!(left(&case), [] as [PathBuf; 0]);
    // Whoever is process 1 here may take its time to reap.
    wait_for("its end", || !is_running(&case));
}

/// A boot takes the state and leaves the store; two state directories may use one store.
#[test]
fn what_a_boot_leaves_is_nobody_s() {
    let case = case!();
    case.detach(&[], "sleep 1000");
    let other = |args: &[&str]| {
        let mut command = std::process::Command::new(common::program());
        command.arg("--root").arg(case.path("other")).args(args).env("CTR_STORE", case.path("private"));
        common::spawn(case.dir(), command.stdin(std::process::Stdio::null())).wait()
    };
    let refused = other(&case.hosting(&["--rm"], &["true"]));
    assert!(refused.status == 125 && refused.stderr.contains(case.store().to_str().unwrap()), "{refused:?}");
    other(&["delete", "--force", &case.id]).ok();
    assert_eq!(case.status(), "running");
    assert_eq!(case.exec(&["cat", "/etc/hostname"]).ok(), format!("{}\n", case.id), "its files are there");
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    wait_for("the supervisor", || case.state()["exitStatus"] == 137);
    fs::remove_dir_all(case.store()).unwrap();
    assert_eq!(left(&case).len(), 1);
    assert_eq!(other(&case.hosting(&["--rm"], &["echo", "anew"])).ok(), "anew\n");
    assert_eq!(left(&case), [] as [PathBuf; 0]);
}

/// A device by its path, and one of the Container Device Interface by its name.
#[test]
fn devices_are_given_by_path_and_by_name() {
    let case = case!();
    let place = case.path("cdi");
    fs::create_dir(&place).unwrap();
    let described = json!({
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/thing",
        "devices": [{"name": "one", "containerEdits": {
            "env": ["THING=one"],
            "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/zero"}],
            "mounts": [{"hostPath": case.dir(), "containerPath": "/opt/thing", "options": ["rbind", "ro"]}],
        }}],
    });
    fs::write(place.join("vendor.json"), described.to_string()).unwrap();
    let script = "echo $THING; head -c 3 /dev/thing | wc -c; ls /opt/thing; echo x > /dev/full || echo full";
    let args = case.hosting(
        &["--rm", "--device", "vendor.com/thing=one", "--device", "/dev/full"],
        &["sh", "-c", script],
    );
    let mut command = case.command(&args);
    let out =
        common::spawn(case.dir(), command.env("CTR_RUN_CDI_DIRS", format!("[{:?}]", place))).wait().ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.starts_with(&["one", "3"]) && lines.contains(&"cdi") && lines.contains(&"full"), "{out}");
    let error = case.host(&["--device", "vendor.com/thing=two"], "true");
    assert!(error.status == 125 && error.stderr.contains("--device vendor.com/thing=two"), "{error:?}");
}
