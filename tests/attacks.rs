//! Attacks that other container runtimes have fallen to, one test for each class.

#![allow(clippy::unwrap_used)]

mod common;

use common::{case, require_root};
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Number of bytes, time of change and a checksum of the program under test.
fn fingerprint() -> (u64, i64, u64) {
    let path = common::program();
    let sum = fs::read(&path)
        .unwrap()
        .iter()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let data = fs::metadata(path).unwrap();
    (data.len(), data.mtime(), sum)
}

/// A 64-bit ELF file whose interpreter is /proc/self/exe.
fn elf_with_interpreter() -> Vec<u8> {
    let interpreter = b"/proc/self/exe\0";
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |elf: &mut Vec<u8>, value: u16| elf.extend(value.to_le_bytes());
    let word = |elf: &mut Vec<u8>, value: u32| elf.extend(value.to_le_bytes());
    let long = |elf: &mut Vec<u8>, value: u64| elf.extend(value.to_le_bytes());
    half(&mut elf, 3); // ET_DYN
    half(&mut elf, if cfg!(target_arch = "x86_64") { 62 } else { 183 });
    word(&mut elf, 1);
    long(&mut elf, 0x100);
    long(&mut elf, 64); // where the program headers are
    long(&mut elf, 0);
    word(&mut elf, 0);
    for value in [64, 56, 2, 64, 0, 0] {
        half(&mut elf, value);
    }
    for (kind, flags, offset, size) in [(3, 4, 176, interpreter.len() as u64), (1, 5, 0, 0x200)] {
        word(&mut elf, kind);
        word(&mut elf, flags);
        for value in [offset, offset, offset, size, size, 0x1000] {
            long(&mut elf, value);
        }
    }
    elf.extend(interpreter);
    elf.resize(0x200, 0);
    elf
}

/// CVE-2019-5736: the program is started as `/proc/self/exe`, which may lead to us.
#[test]
fn cve_2019_5736_entry_point() {
    let mut case = case!();
    let before = fingerprint();
    let out = case.args(&["/proc/self/exe", "--version"]).run();
    assert_ne!(out.status, 0, "it started something: {out:?}");
    assert_eq!(fingerprint(), before);
    executable(&case.rootfs().join("bin/script"), b"#!/proc/self/exe\n");
    let out = case.args(&["/bin/script"]).run();
    assert_ne!(out.status, 0, "it started something: {out:?}");
    assert_eq!(fingerprint(), before);
    executable(&case.rootfs().join("bin/elf"), &elf_with_interpreter());
    let out = case.args(&["/bin/elf"]).run();
    assert_ne!(out.status, 0, "it started something: {out:?}");
    assert_eq!(fingerprint(), before);
}

/// The same by `exec`, with a process in the container that tries to write to every program it can see.
#[test]
fn cve_2019_5736_exec() {
    let mut case = case!();
    let before = fingerprint();
    for (name, bytes) in [("script", b"#!/proc/self/exe\n".to_vec()), ("elf", elf_with_interpreter())] {
        executable(&case.rootfs().join("bin").join(name), &bytes);
    }
    let lurk = "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; e=$(readlink $p/exe) || continue; \
                case $e in /bin/busybox) ;; *) echo \"$e\" >> /seen; (echo x >> $p/exe) 2>/dev/null && echo $e >> /won;; esac; done; done";
    case.sh(lurk).set("/process/noNewPrivileges", json!(false)).start_up();
    for _ in 0..10 {
        for program in ["/bin/true", "/proc/self/exe", "/bin/script", "/bin/elf"] {
            let out = case.exec(&[program]);
            assert!(program == "/bin/true" || out.status != 0, "{program}: {out:?}");
        }
    }
    assert_eq!(fingerprint(), before);
    let won = fs::read_to_string(case.rootfs().join("won")).unwrap_or_default();
    assert_eq!(won, "", "a program outside was opened for writing");
}

/// The same where the container's processes may trace all that they see, and so open even a program that may not be
/// dumped: they keep it open until it has ended, when a program in use is one no longer.
#[test]
fn cve_2019_5736_exec_beside_a_tracer() {
    require_root!();
    let mut case = case!();
    let copy = case.path("ctr");
    fs::copy(common::program(), &copy).unwrap();
    let before = fs::read(&copy).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        case.set(&format!("/process/capabilities/{set}/-"), json!("CAP_SYS_PTRACE"));
    }
    let lurk = "echo up > /up; while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe) || continue; \
                case $e in /bin/busybox|/memfd*) continue;; esac; exec 9< $p/exe || continue; echo $e >> /seen; \
                while [ -d $p ]; do :; done; \
                while :; do (echo x >> /proc/self/fd/9) 2> /why && echo $e >> /won; grep -q busy /why || break; done; \
                cat /why >> /refused; done; done";
    case.sh(lurk).start_up();
    common::wait_for("the tracer", || case.rootfs().join("up").exists());
    // strace(1) holds the new process up while it is still ours.
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "inject=setsid:delay_enter=500000"]).arg(&copy);
    command.arg("--root").arg(case.store()).args(["exec", &case.id, "true"]);
    common::spawn(case.dir(), &mut command).wait().ok();
    let read = |name: &str| fs::read_to_string(case.rootfs().join(name)).unwrap_or_default();
    common::wait_for("an attempt", || !read("refused").is_empty() || !read("won").is_empty());
    assert_eq!(read("won"), "", "a program outside was opened for writing");
    assert!(read("refused").contains("Read-only file system"), "{}", read("refused"));
    assert!(fs::read(&copy).unwrap() == before, "the program was changed");
}

/// CVE-2019-16884 and CVE-2019-19921: a link or a volume takes the place of /proc.
#[test]
fn cve_2019_16884_proc_is_not_proc() {
    let mut case = case!();
    let fake = case.path("fake");
    fs::create_dir_all(fake.join("self/attr")).unwrap();
    case.mount("bind", &fake, "/proc", &["bind"]);
    let out = case.set("/process/apparmorProfile", json!("")).sh("ls /proc").run();
    assert!(out.status != 0 || fs::read_dir(fake.join("self/attr")).unwrap().next().is_none(), "{out:?}");
    assert!(!fake.join("self/attr/exec").exists());
}

#[test]
fn cve_2019_19921_proc_is_a_link() {
    let mut case = case!();
    fs::remove_dir(case.rootfs().join("proc")).unwrap();
    symlink("/root", case.rootfs().join("proc")).unwrap();
    let out = case.sh("echo ran").run();
    // Refused, or mounted where the link leads to inside; never outside.
    assert!(out.status != 0 || out.stdout == "ran\n", "{out:?}");
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(case.dir().to_str().unwrap()));
}

/// CVE-2021-30465: a path below a shared directory changes between a link and a directory while it is mounted on.
#[test]
fn cve_2021_30465_target_swapped() {
    let mut case = case!();
    let (shared, victim) = (case.path("shared"), case.path("victim"));
    fs::create_dir_all(shared.join("dir")).unwrap();
    fs::create_dir(&victim).unwrap();
    symlink(format!("../../../../../../../..{}", victim.display()), shared.join("link")).unwrap();
    case.mount("bind", &shared, "/shared", &["bind"]);
    case.mount("tmpfs", "tmpfs", "/shared/dir/a/b", &[]).mount("tmpfs", "tmpfs", "/shared/dir", &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let (swapped, end) = (shared.clone(), Arc::clone(&stop));
    let swapper = std::thread::spawn(move || {
        let exchange = |a: &Path, b: &Path| {
            let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            let _ = nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, a, nix::fcntl::AT_FDCWD, b, flags);
        };
        while !end.load(Ordering::Relaxed) {
            exchange(&swapped.join("dir"), &swapped.join("link"));
        }
    });
    let mut leaked = Vec::new();
    for _ in 0..60 {
        // The link may lead to a directory of that name inside, but nothing that is mounted comes from outside.
        let out = case.sh("awk '$4 ~ /victim/' /proc/self/mountinfo | wc -l; ls -d /shared").run();
        if out.status == 0 && !out.stdout.starts_with("0\n") {
            leaked.push(out);
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(fs::read_dir(&victim).unwrap().next().is_none(), "something was made outside");
}

/// CVE-2022-29162: `exec --cap` must not fill the inheritable set.
#[test]
fn cve_2022_29162_inheritable_capabilities() {
    let mut case = case!();
    case.up();
    let status = case.exec_with(&["--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"]).ok();
    for name in ["CapInh", "CapAmb"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    assert!(status.lines().any(|line| line.starts_with("CapEff") && !line.ends_with("0000000000000000")));
}

/// CVE-2023-27561: /proc of the image is a link, so that masks and read-only paths miss.
#[test]
fn cve_2023_27561_masks_hold() {
    let mut case = case!();
    fs::remove_dir(case.rootfs().join("proc")).unwrap();
    symlink("tmp", case.rootfs().join("proc")).unwrap();
    let out = case.sh("echo x > /proc/sys/kernel/hostname && echo changed").run();
    assert!(!out.stdout.contains("changed"), "{out:?}");
    fs::remove_file(case.rootfs().join("proc")).unwrap();
    fs::create_dir(case.rootfs().join("proc")).unwrap();
    fs::remove_dir(case.rootfs().join("sys")).unwrap();
    symlink("proc", case.rootfs().join("sys")).unwrap();
    let out = case.sh("echo x > /proc/sys/kernel/hostname && echo changed").run();
    assert!(!out.stdout.contains("changed"), "{out:?}");
}

/// CVE-2024-21626: descriptors of the host that leak, and a working directory that leads to one.
#[test]
fn cve_2024_21626_leaked_descriptors() {
    let mut case = case!();
    let open = fs::File::open("/").unwrap();
    let number = nix::fcntl::fcntl(&open, nix::fcntl::FcntlArg::F_DUPFD(20)).unwrap();
    assert!(number >= 20 && open.as_raw_fd() > 2);
    for number in 0..32 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            let out = case
                .set("/process/cwd", json!(cwd))
                .sh("ls -A | grep -q vmlinuz; cat /proc/self/cgroup; pwd -P")
                .run();
            assert!(out.status != 0 || !out.stdout.contains("unreachable"), "{cwd}: {out:?}");
            let inside = out.stdout.lines().last().unwrap_or_default().to_owned();
            assert!(
                out.status != 0
                    || case.rootfs().join(inside.trim_start_matches('/')).exists()
                    || inside.starts_with("/proc"),
                "{cwd}: {out:?}"
            );
        }
    }
    case.set("/process/cwd", json!("/")).up();
    for number in 0..32 {
        let out = case.exec_with(
            &["--cwd", &format!("/proc/self/fd/{number}")],
            &["cat", "etc/passwd", "../etc/passwd"],
        );
        assert!(
            !out.stdout.contains("ctr-test") && !out.stdout.contains("/usr/sbin/nologin"),
            "{number}: {out:?}"
        );
    }
    let seen = case.exec(&["ls", "-l", "/proc/self/fd", "/proc/1/fd"]).ok();
    let foreign = seen.lines().filter(|line| line.contains(" -> ")).filter(|line| {
        let target = line.split(" -> ").nth(1).unwrap();
        !target.starts_with("/dev/null")
            && !target.starts_with("/proc/")
            && !target.contains("/out-")
            && !target.contains("/err-")
    });
    assert_eq!(foreign.count(), 0, "{seen}");
    let _ = nix::unistd::close(number);
}

/// CVE-2024-45310: making a mount target must not make directories outside.
#[test]
fn cve_2024_45310_targets_are_made_inside() {
    let mut case = case!();
    let victim = case.path("victim");
    fs::create_dir(&victim).unwrap();
    symlink(&victim, case.rootfs().join("out")).unwrap();
    symlink(format!("../../../../../..{}", victim.display()), case.rootfs().join("up")).unwrap();
    case.mount("tmpfs", "tmpfs", "/out/made", &[]).mount("tmpfs", "tmpfs", "/up/made", &[]);
    let file = case.path("file");
    fs::write(&file, "").unwrap();
    case.mount("bind", &file, "/out/file", &["bind"]);
    let _ = case.sh("echo ran").run();
    assert!(fs::read_dir(&victim).unwrap().next().is_none());
}

/// CVE-2025-31133: masks are made from /dev/null, which the image or a volume may have replaced.
#[test]
fn cve_2025_31133_dev_null_is_a_link() {
    let mut case = case!();
    let dev = case.path("dev");
    fs::create_dir(&dev).unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap();
    case.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    case.mount("bind", &dev, "/dev", &["bind"]);
    fs::write(case.rootfs().join("secret"), "secret").unwrap();
    case.set("/linux/maskedPaths", json!(["/proc/version", "/secret"]));
    let out = case.sh("cat /secret /proc/version; stat -c %t:%T /secret").run();
    assert_eq!(out.stdout, "1:3\n", "{out:?}");
}

/// CVE-2025-52565: the terminal is mounted over /dev/console, which may be a link.
#[test]
fn cve_2025_52565_dev_console_is_a_link() {
    let mut case = case!();
    let (dev, victim) = (case.path("dev"), case.path("victim"));
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, dev.join("console")).unwrap();
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    case.config["mounts"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}));
    for name in ["shm", "mqueue"] {
        fs::create_dir(dev.join(name)).unwrap();
    }
    case.set("/process/terminal", json!(true));
    let out = case.sh("echo ran; grep -c /proc/ /proc/self/mountinfo").run();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched", "{out:?}");
    assert!(fs::symlink_metadata(&victim).unwrap().is_file());
    fs::remove_file(dev.join("console")).unwrap();
    symlink("/proc/sys/kernel/hostname", dev.join("console")).unwrap();
    let out = case.sh("grep hostname /proc/self/mountinfo; exit 0").run();
    assert!(!out.stdout.contains("/proc/sys/kernel/hostname"), "{out:?}");
}

/// CVE-2025-52881: what is written for security labels and sysctls is led to another file of procfs.
#[test]
fn cve_2025_52881_writes_are_not_led_astray() {
    let mut case = case!();
    let fake = case.path("fake");
    fs::create_dir_all(fake.join("kernel")).unwrap();
    symlink("/proc/sys/kernel/domainname", fake.join("kernel/shm_rmid_forced")).unwrap();
    fs::create_dir_all(fake.join("net/ipv4")).unwrap();
    fs::write(fake.join("net/ipv4/ip_forward"), "fake").unwrap();
    case.mount("bind", &fake, "/proc/sys", &["bind"]);
    case.set("/linux/sysctl", json!({"kernel.shm_rmid_forced": "1", "net.ipv4.ip_forward": "1"}));
    let out = case.sh("umount /proc/sys; cat /proc/sys/net/ipv4/ip_forward").run();
    assert_eq!(fs::read_to_string(fake.join("net/ipv4/ip_forward")).unwrap(), "fake", "{out:?}");
}

/// CVE-2026-41579 (runc) and CVE-2026-47766 (crun): /dev of the image is a link, `ptmx` there is deleted, links are made.
#[test]
fn cve_2026_41579_cve_2026_47766_dev_is_a_link() {
    let mut case = case!();
    let victim = case.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("ptmx"), "kept").unwrap();
    fs::remove_dir(case.rootfs().join("dev")).unwrap();
    case.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    for target in [victim.display().to_string(), format!("../../../../../..{}", victim.display())] {
        symlink(target, case.rootfs().join("dev")).unwrap();
        let _ = case.sh("echo ran").run();
        let names: Vec<_> = fs::read_dir(&victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["ptmx"]);
        assert_eq!(fs::read_to_string(victim.join("ptmx")).unwrap(), "kept");
        fs::remove_file(case.rootfs().join("dev")).unwrap();
    }
}

/// CVE-2026-30892: what `exec --user` cannot read must not become root.
#[test]
fn cve_2026_30892_exec_user() {
    require_root!();
    let mut case = case!();
    case.up();
    for (text, wanted) in [("1", "1 0"), ("1:2", "1 2"), ("0", "0 0"), ("65534:65534", "65534 65534")] {
        let out = case.exec_with(&["--user", text], &["sh", "-c", "echo $(id -u) $(id -g)"]).ok();
        assert_eq!(out.trim(), wanted, "{text}");
    }
    for text in [
        "",
        "x",
        "root",
        "1x",
        " 1",
        "1 ",
        "-1",
        "+1",
        "1:",
        ":1",
        "1:x",
        "4294967295",
        "4294967296",
        "99999999999999999999",
        "0x1",
        "1:2:3",
    ] {
        let out = case.exec_with(&[&format!("--user={text}")], &["id", "-u"]);
        assert!(out.status != 0 && out.stdout.is_empty(), "{text:?}: {out:?}");
    }
}

/// A name must not lead out of the store.
#[test]
fn names_stay_in_the_store() {
    let case = case!();
    let outside = case.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(case.store()).unwrap();
    symlink(&outside, case.store().join("link")).unwrap();
    for name in ["link", "../outside"] {
        let _ = case.ctr(&["delete", "--force", name]);
        assert!(outside.exists(), "{name}");
    }
}
