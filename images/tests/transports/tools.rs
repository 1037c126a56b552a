//! What we write others read, what they write we read, and unpacked it is the same.

use crate::common::{Place, copy, everything, gzip_only, has, is_root, look, make_tree, run};
use ctr_images::pack::pack;
use ctr_images::tar::Writer;
use ctr_images::unpack::copy_metadata;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

fn skopeo(words: &[&str]) -> String {
    run(&[&["skopeo", "--insecure-policy"], words].concat())
}

/// One word for each transport.
const WORDS: [(&str, &str); 5] = [
    ("oci:", "o:r"),
    ("oci-archive:", "a.tar:r"),
    ("docker-archive:", "d.tar:docker.io/example/name:1"),
    ("dir:", "p"),
    ("oci:", "nameless"),
];

#[test]
fn skopeo_reads_what_we_write() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let place = Place::new();
    let word = everything(&place);
    let (source, first) = (place.source(&word).unwrap(), place.pull(&word).unwrap());
    for (number, (kind, name)) in WORDS.iter().enumerate() {
        let word = place.word(kind, name);
        let sink = place.sink(&word).unwrap();
        copy(&*source, &*sink).unwrap();
        sink.finish().unwrap();
        let told: serde_json::Value = serde_json::from_str(&skopeo(&["inspect", &word])).unwrap();
        assert_eq!(told["Layers"].as_array().unwrap().len(), 2, "{word}");
        let back = place.word("dir:", &format!("back{number}"));
        skopeo(&["copy", &word, &back]);
        assert_eq!(place.pull(&back).unwrap().trees(), first.trees(), "{word}");
    }
}

#[test]
fn we_read_what_skopeo_writes() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let place = Place::new();
    let word = gzip_only(&place);
    let first = place.pull(&word).unwrap();
    for (kind, name) in WORDS {
        let other = place.word(kind, &format!("s-{name}"));
        skopeo(&["copy", &word, &other]);
        let found = place.pull(&other).unwrap();
        assert_eq!(found.trees(), first.trees(), "{other}");
    }
    // As it is, with zstd.
    let other = place.word("oci-archive:", "z.tar");
    skopeo(&["copy", &everything(&place), &other]);
    assert_eq!(place.pull(&other).unwrap().trees(), first.trees());
    // Docker's media types.
    let other = place.word("dir:", "v2s2");
    skopeo(&["copy", "--format", "v2s2", &word, &other]);
    assert_eq!(place.pull(&other).unwrap().trees(), first.trees());
}

/// An image that both of us have written to, and one that has both of ours.
#[test]
fn one_layout_for_skopeo_and_us() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let place = Place::new();
    let word = everything(&place);
    crate::common::small(&place, &place.word("oci:", "l:ours"), "1");
    skopeo(&["copy", &word, &place.word("oci:", "l:theirs")]);
    crate::common::small(&place, &place.word("oci:", "l:third"), "3");
    for name in ["l:ours", "l:theirs", "l:third"] {
        place.pull(&place.word("oci:", name)).unwrap();
        skopeo(&["inspect", &place.word("oci:", name)]);
    }
}

/// Mounted over one another, our layers are what umoci unpacks.
#[test]
fn umoci_unpacks_the_same() {
    if !is_root() || !has("umoci") {
        return;
    }
    let place = Place::new();
    // Its older versions know no zstd.
    let word = gzip_only(&place);
    run(&["umoci", "unpack", "--image", &place.word("", "gzip:r"), &place.word("", "bundle")]);
    let theirs = look(&place.at("bundle/rootfs"));
    let pulled = place.pull(&word).unwrap();
    let lower: Vec<String> =
        pulled.layers.iter().rev().map(|layer| pulled.store.tree(layer)).map(word_of).collect();
    for name in ["merged", "upper", "work"] {
        std::fs::create_dir(place.at(name)).unwrap();
    }
    let root = pulled.store.root(pulled.layers.iter()).unwrap();
    let (root, to) = (File::open(root).unwrap(), File::open(place.at("upper")).unwrap());
    copy_metadata(root.as_fd(), to.as_fd()).unwrap();
    let (merged, upper) = (place.word("", "merged"), place.word("upperdir=", "upper"));
    let options = format!("lowerdir={},{upper},{}", lower.join(":"), place.word("workdir=", "work"));
    run(&["mount", "-t", "overlay", "none", "-o", &options, &merged]);
    let mut ours = look(&place.at("merged"));
    run(&["umount", &merged]);
    // Programs in Go take a record without a value for none (POSIX: it takes an earlier one back).
    let large = ours.get_mut(Path::new("large")).unwrap();
    *large = large.replace(", \"user.empty=\"", "");
    same(&ours, &theirs);
}

fn word_of(path: PathBuf) -> String {
    path.display().to_string()
}

fn same(ours: &BTreeMap<PathBuf, String>, theirs: &BTreeMap<PathBuf, String>) {
    let mut all: Vec<&Path> = ours.keys().chain(theirs.keys()).map(PathBuf::as_path).collect();
    all.sort_unstable();
    all.dedup();
    let differ: Vec<String> = all
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| format!("{path:?}\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path)))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// What we pack GNU tar unpacks.
#[test]
fn tar_unpacks_what_we_pack() {
    if !is_root() || !has("tar") {
        return;
    }
    let place = Place::new();
    let (tree, out) = (place.at("tree"), place.at("out"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::create_dir(&out).unwrap();
    make_tree(&tree);
    let mut writer = Writer::new(File::create(place.at("x.tar")).unwrap());
    assert!(pack(File::open(&tree).unwrap().as_fd(), false, &mut writer).unwrap().is_empty());
    writer.finish().unwrap();
    let kinds = ["--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*"];
    let (archive, into) = (place.word("", "x.tar"), place.word("", "out"));
    run(&[&["tar", "-xpf", &archive, "-C", &into], &kinds[..]].concat());
    same(&look(&tree), &look(&out));
}

/// podman load and buildah use skopeo's library; what they load they must be able to name.
#[test]
fn podman_loads_what_we_write() {
    if !is_root() || !has("podman") {
        return;
    }
    let place = Place::new();
    let word = everything(&place);
    let sink = place.sink(&place.word("docker-archive:", "d.tar:docker.io/example/name:1")).unwrap();
    copy(&*place.source(&word).unwrap(), &*sink).unwrap();
    sink.finish().unwrap();
    let (root, run_) = (place.word("", "root"), place.word("", "run"));
    let podman = ["podman", "--root", &root, "--runroot", &run_, "--storage-driver", "vfs"];
    let loaded = run(&[&podman[..], &["load", "-i", &place.word("", "d.tar")]].concat());
    assert!(loaded.contains("docker.io/example/name:1"), "{loaded}");
    for format in ["docker-archive", "oci-archive"] {
        let file = place.word("", format);
        run(&[&podman[..], &["save", "--format", format, "-o", &file, "docker.io/example/name:1"]].concat());
        place.pull(&place.word(&format!("{format}:"), format)).unwrap();
    }
}

/// Where a daemon answers: what it has loaded it saves again, and that is the same.
#[test]
fn docker_loads_what_we_write() {
    if !is_root() || !has("docker") {
        return;
    }
    if !Command::new("docker").arg("info").output().unwrap().status.success() {
        return eprintln!("skipped: no daemon of docker answers");
    }
    let place = Place::new();
    let (word, file) = (everything(&place), place.word("", "d.tar"));
    let name = format!("ctr-transports/test:{}", std::process::id());
    let sink = place.sink(&format!("docker-archive:{file}:{name}")).unwrap();
    copy(&*place.source(&word).unwrap(), &*sink).unwrap();
    sink.finish().unwrap();
    assert!(run(&["docker", "load", "-i", &file]).contains(&name));
    let (saved, first) = (place.word("", "saved"), place.pull(&word).unwrap());
    run(&["docker", "save", "-o", &saved, &name]);
    run(&["docker", "rmi", &name]);
    let again = place.pull(&format!("docker-archive:{saved}:{name}")).unwrap();
    assert_eq!(again.pull.image.config, first.pull.image.config);
    assert_eq!(again.pull.image.diff_ids, first.pull.image.diff_ids);
}
