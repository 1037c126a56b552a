//! Whatever works on images is killed at each call that changes something: what is there then is whole or taken up, and
//! `prune` leaves nothing.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, Output, case, make_rootfs, require_root};
use std::fs;
use std::process::Command;

/// Calls by which the store is changed.
const CALLS: [&str; 13] = [
    "mkdir",
    "mkdirat",
    "openat",
    "openat2",
    "write",
    "pwrite64",
    "rename",
    "linkat",
    "symlinkat",
    "flock",
    "fsync",
    "unlink",
    "utimensat",
];

/// Kills the program on its Nth call of `call`; what it printed if it ended before that.
fn killed_at(case: &Case, call: &str, when: u32, args: &[&str]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("inject={call}:signal=KILL:when={when}")]);
    command.arg(common::program()).arg("--root").arg(case.store()).args(args);
    command.env("CTR_STORE", case.path("private"));
    common::spawn(case.dir(), &mut command).wait()
}

fn has_strace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    tried.is_ok_and(|status| status.success())
}

/// An archive of an image, `box`, with a file, links and a directory.
fn archive(case: &Case) -> String {
    let root = case.path("image");
    make_rootfs(&root);
    fs::write(root.join("file"), "text").unwrap();
    fs::hard_link(root.join("file"), root.join("same")).unwrap();
    let file = case.path("box.tar").to_str().unwrap().to_owned();
    case.ctr(&["image", "import", root.to_str().unwrap(), "box", "--cmd", "cat /same"]).ok();
    case.ctr(&["image", "save", "box", "--output", &file]).ok();
    nothing_left(case, "at the beginning");
    file
}

/// Removes all images, and looks what is left in the store.
#[track_caller]
fn nothing_left(case: &Case, point: &str) {
    case.ctr(&["image", "rm", "--force", "box"]).ok();
    case.ctr(&["image", "prune", "--all"]).ok();
    let images = case.path("private/images");
    for part in ["layers", "partial", "leases", "blobs/sha256"] {
        let left = fs::read_dir(images.join(part)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{point}: {part}");
    }
    let is_draft = |name: &str| name.starts_with("file-");
    let work = fs::read_dir(images.join("work")).unwrap();
    let left = work.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| !is_draft(name)).count(), 0, "{point}: work");
}

#[test]
fn load_killed_at_each_call() {
    require_root!();
    let case = case!();
    if !has_strace() {
        common::skip!("no strace, or it may not trace");
    }
    let file = archive(&case);
    for call in CALLS {
        for when in 1..20 {
            let point = format!("{call} {when}");
            let out = killed_at(&case, call, when, &["image", "load", "--input", &file]);
            // Whatever there is can be looked at, and the next try comes to its end.
            case.ctr(&["image", "ls"]).ok();
            assert_eq!(
                case.ctr(&["image", "load", "--input", &file]).ok(),
                "localhost/box:latest\n",
                "{point}"
            );
            assert_eq!(case.ctr(&["image", "fsck", "--check"]).status, 0, "{point}");
            if when < 4 {
                assert_eq!(case.ctr(&["run", "--rm", "--image", "box"]).ok(), "text", "{point}");
            }
            nothing_left(&case, &point);
            if out.status == 0 {
                break;
            }
        }
    }
}

#[test]
fn prune_killed_at_each_call() {
    require_root!();
    let case = case!();
    if !has_strace() {
        common::skip!("no strace, or it may not trace");
    }
    let file = archive(&case);
    for call in ["mkdir", "openat", "write", "rename", "flock", "fsync", "unlink", "unlinkat", "rmdir"] {
        for when in 1..20 {
            case.ctr(&["image", "load", "--input", &file]).ok();
            case.ctr(&["run", "--detach", "--name", &case.id, "--image", "box", "--", "sleep", "1000"]).ok();
            let out = killed_at(&case, call, when, &["image", "rm", "box"]);
            assert_eq!(case.ctr(&["exec", &case.id, "cat", "/same"]).ok(), "text", "{call} {when}");
            case.ctr(&["delete", "--force", &case.id]).ok();
            nothing_left(&case, &format!("{call} {when}"));
            if out.status == 0 {
                break;
            }
        }
    }
}

#[test]
fn four_at_once() {
    let case = case!();
    let file = archive(&case);
    for _ in 0..5 {
        let load = ["image", "load", "--input", file.as_str()];
        let running: Vec<_> = (0..4).map(|_| case.spawn(&load)).collect();
        for one in running {
            assert_eq!(one.wait().ok(), "localhost/box:latest\n");
        }
        assert_eq!(case.ctr(&["run", "--rm", "--image", "box"]).ok(), "text");
        let layers = fs::read_dir(case.path("private/images/layers")).unwrap().count();
        assert_eq!(layers, 1);
        nothing_left(&case, "afterwards");
    }
}
