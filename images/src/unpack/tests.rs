use super::*;
use ::tar::{Builder, EntryType, Header};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

const LIMITS: Limits = Limits { entries: 1000, bytes: 1 << 20 };

/// Owners are kept where there are any to choose from.
fn options() -> Options {
    let squash = !nix::unistd::geteuid().is_root();
    Options { limits: LIMITS, absolute: false, whiteouts: true, userxattr: squash, squash }
}

/// One entry: a type, a path, and a link's target or a file's contents.
struct One(EntryType, &'static str, &'static str);

fn file(path: &'static str) -> One {
    One(EntryType::Regular, path, "text")
}

fn directory(path: &'static str) -> One {
    One(EntryType::Directory, path, "")
}

fn link(path: &'static str, target: &'static str) -> One {
    One(EntryType::Symlink, path, target)
}

fn hard_link(path: &'static str, target: &'static str) -> One {
    One(EntryType::Link, path, target)
}

fn archive(entries: &[One]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for One(kind, path, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o640 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        // The crate's own way refuses what the tests are about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let contents = match kind {
            EntryType::Regular => text.as_bytes(),
            EntryType::Char => {
                header.set_device_major(text.parse().unwrap()).unwrap();
                header.set_device_minor(0).unwrap();
                b""
            }
            _ => {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
                b""
            }
        };
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Unpacks `entries` into a directory beside which is a file `outside`.
fn unpack_all(entries: &[One]) -> (tempfile::TempDir, Result<Unpacked>) {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("outside"), "as it was").unwrap();
    let tree = place.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let root = File::open(&tree).unwrap();
    let unpacked = unpack(archive(entries).as_slice(), root.as_fd(), options());
    assert_eq!(std::fs::read_to_string(place.path().join("outside")).unwrap(), "as it was");
    (place, unpacked)
}

/// Unpacks `entries`, which must fail at `entry` with `why`.
fn refused(entries: &[One], entry: &str, why: &str) {
    let (_place, unpacked) = unpack_all(entries);
    let error = unpacked.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(why) && text.contains(&format!("{entry:?}")), "{text}: not {why:?} of {entry:?}");
    assert_eq!(error.kind, Kind::Damaged, "{text}");
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let (place, unpacked) = unpack_all(&[
        directory("./"),
        directory("a/"),
        file("a/file"),
        hard_link("a/same", "a/file"),
        hard_link("a/same-too", "./a/file"),
        link("a/link", "/../../outside"),
        One(EntryType::Fifo, "a/pipe", ""),
        file("b/c/deep"),
    ]);
    let unpacked = unpacked.unwrap();
    let tree = place.path().join("tree");
    let data = |path: &str| std::fs::symlink_metadata(tree.join(path)).unwrap();
    assert_eq!(std::fs::read_to_string(tree.join("a/file")).unwrap(), "text");
    assert_eq!(
        (data("a/file").mode() & 0o7777, data("a/file").mtime(), data("a").mtime()),
        (0o640, 1_000_000_000, 1_000_000_000)
    );
    assert_eq!((data("a/file").nlink(), data("a/same").ino()), (3, data("a/file").ino()));
    assert_eq!(std::fs::read_link(tree.join("a/link")).unwrap(), Path::new("/../../outside"));
    assert!(data("a/pipe").file_type().is_fifo());
    assert_eq!(unpacked.implied, BTreeSet::from(["b".into(), "b/c".into()]));
    assert_eq!((unpacked.entries, unpacked.bytes, unpacked.is_whole), (8, 8, true));
}

#[test]
fn nothing_leads_out() {
    refused(&[file("../outside")], "../outside", "`..`");
    refused(&[file("a/../../outside")], "a/../../outside", "`..`");
    refused(&[file("/etc/passwd")], "/etc/passwd", "absolute");
    refused(&[link("out", ".."), file("out/outside")], "out/outside", "symbolic link");
    refused(&[link("out", "/"), file("out/etc/x")], "out/etc/x", "symbolic link");
    refused(
        &[directory("a"), link("a/out", "../.."), file("a/out/outside")],
        "a/out/outside",
        "symbolic link",
    );
    refused(&[link("out", ".."), hard_link("x", "out/outside")], "x", "symbolic link");
    refused(&[hard_link("x", "../outside")], "x", "`..`");
    refused(&[hard_link("x", "nowhere")], "x", "not in the layer");
    refused(&[hard_link("x", "/")], "x", "the root");
    refused(&[directory("d"), hard_link("x", "d")], "x", "to a directory");
    refused(&[file("f"), file("f/x")], "f/x", "no directory");
}

#[test]
fn nothing_is_written_to_twice() {
    refused(&[file("f"), file("f")], "f", "twice");
    refused(&[link("f", "../outside"), file("f")], "f", "twice");
    refused(&[file("f"), hard_link("f", "f")], "f", "twice");
    refused(&[directory("f"), file("f")], "f", "twice");
    refused(&[file("f"), directory("f")], "f", "twice");
    refused(&[link("d", ".."), directory("d")], "d", "twice");
    refused(&[file("f"), One(EntryType::Fifo, "f", "")], "f", "twice");
    refused(&[file(".")], ".", "the root");
    refused(&[link(".", "x")], ".", "the root");
    // A link to a file that was replaced meanwhile cannot be made: nothing is replaced.
    refused(&[file("f"), link("l", "../outside"), file("l")], "l", "twice");
}

#[test]
fn devices_that_hide_files_are_refused() {
    refused(&[One(EntryType::Char, "x", "0")], "x", "0:0");
    refused(&[file(".wh..")], ".wh..", "no name");
    refused(&[file("a/.wh.")], "a/.wh.", "no name");
    refused(&[file("a/.wh...")], "a/.wh...", "no name");
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_char_device() && data.rdev() == 0)
}

#[test]
fn whiteouts_are_those_of_overlayfs() {
    let (place, unpacked) = unpack_all(&[
        directory("a/"),
        file("a/.wh.gone"),
        directory("b/"),
        file("b/.wh..wh..opq"),
        file("b/new"),
        // Both hidden and there: what is below is hidden, what is here is seen, whatever comes first.
        file("c/.wh.file"),
        file("c/file"),
        directory("c/dir"),
        file("c/.wh.dir"),
        file(".wh..wh.plnk"),
    ]);
    unpacked.unwrap();
    let tree = place.path().join("tree");
    assert!(is_whiteout(&tree.join("a/gone")));
    assert_eq!(std::fs::read_to_string(tree.join("c/file")).unwrap(), "text");
    assert!(!tree.join(".wh..wh.plnk").exists());
    let key: &[u8] = if options().userxattr { b"user.overlay.opaque" } else { b"trusted.overlay.opaque" };
    for opaque in ["b", "c/dir"] {
        assert_eq!(fs::attribute_value(&tree.join(opaque), key).unwrap(), b"y", "{opaque}");
    }
    assert!(fs::attribute_value(&tree.join("a"), key).is_err());
}

#[test]
fn an_image_sets_no_mark_of_overlayfs() {
    for (key, kept) in [
        ("user.mine", true),
        ("security.capability", true),
        ("system.posix_acl_access", true),
        ("trusted.overlay.opaque", false),
        ("trusted.overlay.redirect", false),
        ("user.overlay.opaque", false),
        ("user.ctr.device", false),
        ("trusted.any", false),
        ("security.selinux", false),
        ("security.ima", false),
    ] {
        assert_eq!(is_kept(key.as_bytes()), kept, "{key}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let many: Vec<One> = (0..1001).map(|_| directory("d")).collect();
    let (_place, unpacked) = unpack_all(&many);
    assert!(unpacked.unwrap_err().to_string().contains("more than 1000 entries"));
}
