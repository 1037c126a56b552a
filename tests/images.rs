//! `image` and `run --image NAME`, as root and as an ordinary user.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, make_rootfs};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A root file system of its own, whose image is called `box`.
#[track_caller]
fn import(case: &Case, flags: &[&str]) -> PathBuf {
    let root = case.path("image");
    make_rootfs(&root);
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("srv")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\n").unwrap();
    fs::set_permissions(root.join("srv"), PermissionsExt::from_mode(0o751)).unwrap();
    case.ctr(&[&["image", "import", root.to_str().unwrap(), "box"], flags].concat()).ok();
    root
}

/// What is listed, as JSON.
fn listed(case: &Case) -> Vec<Value> {
    serde_json::from_str(&case.ctr(&["image", "ls", "--json"]).ok()).unwrap()
}

/// What a container of `box` prints.
#[track_caller]
fn prints(case: &Case, flags: &[&str], command: &[&str]) -> String {
    let args = [&["run", "--rm", "--image", "box"], flags, &["--"], command].concat();
    case.ctr(&args).ok().trim_end().to_owned()
}

#[test]
fn an_image_says_how_its_program_runs_and_flags_say_otherwise() {
    let case = case!();
    import(&case, &["--cmd", r#"["sh", "-c", "echo $A; pwd"]"#, "--env", "A=of the image"]);
    assert_eq!(case.ctr(&["run", "--rm", "--image", "box"]).ok(), "of the image\n/\n");
    assert_eq!(prints(&case, &["--env", "A=mine"], &["sh", "-c", "echo $A"]), "mine");
    assert_eq!(prints(&case, &["--workdir", "/srv"], &["pwd"]), "/srv");
    assert_eq!(prints(&case, &["--entrypoint", "echo"], &["said"]), "said");
    assert_eq!(prints(&case, &["--entrypoint", "pwd"], &[]), "/", "its arguments are not the image's");
}

#[test]
fn what_is_written_stays_with_the_container() {
    let case = case!();
    let root = import(&case, &[]);
    assert_eq!(
        prints(&case, &[], &["sh", "-c", "echo new >/srv/file; cat /srv/file; stat -c %a /srv"]),
        "new\n751"
    );
    assert_eq!(prints(&case, &[], &["sh", "-c", "ls /srv"]), "", "another one does not see it");
    assert!(!root.join("srv/file").exists());
    let out = case.ctr(&["run", "--rm", "--read-only", "--image", "box", "--", "touch", "/srv/file"]);
    assert!(out.status == 1 && out.stderr.contains("Read-only"), "{out:?}");
}

#[test]
fn users_are_those_of_the_image() {
    let case = case!();
    import(&case, &[]);
    let out = case.ctr(&["run", "--rm", "--image", "box", "--user", "nobody-here", "--", "true"]);
    assert!(out.status == 125 && out.stderr.contains("has no user \"nobody-here\""), "{out:?}");
    if common::is_root() {
        assert_eq!(
            prints(&case, &["--user", "web"], &["sh", "-c", "id -u; id -g; echo $HOME"]),
            "33\n34\n/srv"
        );
    }
}

#[test]
fn names_come_and_go_and_what_is_used_stays() {
    let case = case!();
    import(&case, &[]);
    case.ctr(&["image", "tag", "box", "example.org/me/other:1", "box:2"]).ok();
    let all = listed(&case);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["names"].as_array().unwrap().len(), 3, "{all:?}");
    let id = all[0]["id"].as_str().unwrap();
    let mut names = vec!["--detach", "--name", &case.id, "--image"];
    names.push(&id[..12]);
    case.ctr(&[&["run"], names.as_slice(), &["--", "sleep", "1000"]].concat()).ok();
    case.ctr(&["image", "rm", "box", "box:2", "example.org/me/other:1"]).ok();
    assert_eq!(listed(&case).len(), 1, "a container has it");
    assert_eq!(case.ctr(&["exec", &case.id, "ls", "/srv"]).ok(), "");
    case.ctr(&["image", "prune", "--all"]).ok();
    assert_eq!(listed(&case).len(), 1);
    case.ctr(&["delete", "--force", &case.id]).ok();
    let pruned: Value = serde_json::from_str(&case.ctr(&["image", "prune", "--json"]).ok()).unwrap();
    assert_eq!(
        (pruned["layers"].as_u64(), pruned["images"].as_array().unwrap().len()),
        (Some(1), 1),
        "{pruned}"
    );
    assert_eq!(listed(&case).len(), 0);
    let layers = fs::read_dir(case.path("private").join("images/layers"));
    assert_eq!(layers.map_or(0, Iterator::count), 0);
    let out = case.ctr(&["image", "rm", "box"]);
    assert!(out.status == 125 && out.stderr.contains("is not here"), "{out:?}");
    case.ctr(&["image", "rm", "--force", "box"]).ok();
}

#[test]
fn archives_are_written_and_read() {
    let case = case!();
    import(&case, &["--cmd", "echo from the archive"]);
    for format in ["oci-archive", "docker-archive"] {
        let file = case.path(format);
        let file = file.to_str().unwrap();
        case.ctr(&["image", "save", "box", "--format", format, "--output", file]).ok();
        case.ctr(&["image", "rm", "box"]).ok();
        assert_eq!(listed(&case).len(), 0);
        assert_eq!(case.ctr(&["image", "load", "--input", file]).ok(), "localhost/box:latest\n", "{format}");
        assert_eq!(case.ctr(&["run", "--rm", "--image", "box"]).ok(), "from the archive\n");
    }
    let layout = format!("oci:{}", case.path("layout").display());
    case.ctr(&["image", "push", "box", &layout]).ok();
    case.ctr(&["image", "rm", "box"]).ok();
    case.ctr(&["image", "pull", "--name", "again", &layout]).ok();
    assert_eq!(case.ctr(&["run", "--rm", "--image", "again"]).ok(), "from the archive\n");
}

#[test]
fn half_an_archive_is_refused_and_leaves_nothing() {
    let case = case!();
    import(&case, &[]);
    let file = case.path("whole.tar");
    case.ctr(&["image", "save", "box", "--output", file.to_str().unwrap()]).ok();
    case.ctr(&["image", "rm", "box"]).ok();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let out = case.ctr(&["image", "load", "--input", file.to_str().unwrap()]);
    assert!(out.status == 125 && out.stderr.contains("error: "), "{out:?}");
    assert_eq!(listed(&case).len(), 0);
    case.ctr(&["image", "prune"]).ok();
    for part in ["layers", "work", "partial", "leases", "scratch"] {
        let left = fs::read_dir(case.path("private").join("images").join(part)).unwrap().count();
        assert_eq!(left, 0, "{part}");
    }
}

#[test]
fn what_is_not_here_is_said() {
    let case = case!();
    let out = case.ctr(&["run", "--rm", "--pull", "never", "--image", "box", "--", "true"]);
    assert!(out.status == 125 && out.stderr.contains("image \"box\" is not here"), "{out:?}");
    for name in ["UPPER", "a b", "x/../y", ":", "a@sha256:1"] {
        let out = case.ctr(&["image", "pull", name]);
        assert!(out.status == 125 && out.stderr.contains("image name"), "{name}: {out:?}");
    }
}

#[test]
fn damage_is_found_and_mended() {
    let case = case!();
    import(&case, &[]);
    let fsck = |flags: &[&str]| {
        let out = case.ctr(&[&["image", "fsck"], flags].concat());
        (out.status, out.stdout.clone())
    };
    assert_eq!(fsck(&[]), (0, "1 images, 1 layers and 3 blobs: 0 damaged\n".to_owned()));
    let images = case.path("private/images");
    let layer = fs::read_dir(images.join("layers")).unwrap().next().unwrap().unwrap().path();
    let file = layer.join("tree/etc/passwd");
    for damage in ["contents", "mode", "gone", "stranger", "directory"] {
        match damage {
            "contents" => fs::write(&file, "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/xx\n").unwrap(),
            "mode" => fs::set_permissions(&file, PermissionsExt::from_mode(0o777)).unwrap(),
            "gone" => fs::remove_file(&file).unwrap(),
            "stranger" => fs::write(layer.join("tree/new"), "").unwrap(),
            _ => fs::remove_dir_all(layer.join("tree")).unwrap(),
        }
        let (status, text) = fsck(&["--check"]);
        assert!(status == 1 && text.contains("1 damaged"), "{damage}: {text}");
        let (status, text) = fsck(&[]);
        assert!(status == 0 && text.contains("(mended)"), "{damage}: {text}");
        assert_eq!(fsck(&[]).0, 0, "{damage}");
        assert_eq!(prints(&case, &[], &["sh", "-c", "tail -n 1 /etc/passwd"]), "web:x:33:34::/srv:/bin/sh");
    }
    let blobs = images.join("blobs/sha256");
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let all = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = all.max_by_key(size).unwrap();
    fs::write(&largest, "x").unwrap();
    let (status, text) = fsck(&["--json"]);
    assert!(status == 1 && text.contains("\"mended\": false"), "{text}");
    assert!(!largest.exists(), "what is no blob any more is taken away");
}
