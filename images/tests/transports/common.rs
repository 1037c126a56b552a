//! An image with everything in it, and what has become of it.

use ctr_images::digest::Digest;
use ctr_images::manifest::{Descriptor, Manifest, Parsed, Platform, media};
use ctr_images::pack::pack;
use ctr_images::source::{Document, Event, Sink, Source};
use ctr_images::store::{Layer, Pull, Rules, Store, Wanted};
use ctr_images::tar::{Entry, Kind, Limits, Time, Writer};
use ctr_images::transport::{LayoutSink, Scratch, Transport, open_sink, open_source};
use ctr_isolation::sys::fs as sys;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Owners, devices and capabilities are root's to give. Says so where we are not.
pub(crate) fn is_root() -> bool {
    let is = nix::unistd::geteuid().is_root();
    if !is {
        eprintln!("skipped: only root may give files to others");
    }
    is
}

/// Whether `program` is here. Says so where it is not.
pub(crate) fn has(program: &str) -> bool {
    let found = sys::programs(program).next().is_some();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program, which must succeed; returns what it prints.
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory for a test.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.at("scratch")).unwrap();
        place
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path in words.
    pub(crate) fn word(&self, kind: &str, name: &str) -> String {
        format!("{kind}{}", self.at(name).display())
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch { dir: self.at("scratch"), most: 1 << 26 }
    }

    pub(crate) fn source(&self, word: &str) -> ctr_images::Result<Box<dyn Source>> {
        open_source(&Transport::parse(word, true)?, &self.scratch(), None)
    }

    pub(crate) fn sink(&self, word: &str) -> ctr_images::Result<Box<dyn Sink>> {
        open_sink(&Transport::parse(word, true)?, &self.scratch(), None)
    }

    /// Nothing is left of what was written for a while.
    pub(crate) fn is_clean(&self) -> bool {
        fs::read_dir(self.at("scratch")).unwrap().next().is_none()
    }

    /// Pulls an image into a store of its own.
    pub(crate) fn pull(&self, word: &str) -> ctr_images::Result<Pulled> {
        self.pull_from(&*self.source(word)?)
    }

    pub(crate) fn pull_from(&self, source: &dyn Source) -> ctr_images::Result<Pulled> {
        let limits = Limits { entries: 10_000, bytes: 1 << 26 };
        let rules = Rules {
            limits,
            absolute_paths: false,
            keep_blobs: true,
            parallel: 2,
            userxattr: false,
            squash: false,
        };
        let dir = tempfile::tempdir_in(self.0.path()).unwrap();
        let store = Store::open(dir.path(), rules)?;
        let wanted = Wanted { platform: Platform::here(), digest: None };
        let pull = store.pull(source, &wanted, &|_: Event<'_>| {})?;
        let layers = store.layers(&pull.image.diff_ids).into_iter().map(Option::unwrap).collect();
        Ok(Pulled { store, pull, layers, _dir: dir })
    }
}

/// An image in a store.
pub(crate) struct Pulled {
    pub store: Store,
    pub pull: Pull,
    pub layers: Vec<Layer>,
    _dir: tempfile::TempDir,
}

impl Pulled {
    /// What its layers are.
    pub(crate) fn trees(&self) -> Vec<BTreeMap<PathBuf, String>> {
        self.layers.iter().map(|layer| look(&self.store.tree(layer))).collect()
    }
}

/// Copies the image that `source` stands for.
pub(crate) fn copy(source: &dyn Source, sink: &dyn Sink) -> ctr_images::Result<()> {
    let document = source.document(None)?;
    let Parsed::Manifest(manifest) = Parsed::read(&document)? else { panic!("it is an index") };
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers).map(Descriptor::blob) {
        if !sink.has(&blob)? {
            sink.put(&blob, &|| source.blob(&blob, 0).map(|(_, reader)| reader))?;
        }
        assert!(sink.has(&blob)?);
    }
    sink.document(&document, true)
}

/// All that can be seen of each file below `root`, in words.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut all, mut first, mut waiting) = (BTreeMap::new(), BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(path) = waiting.pop() {
        let whole = root.join(&path);
        let data = fs::symlink_metadata(&whole).unwrap();
        let mut names = sys::attribute_names(&whole).unwrap_or_default();
        names.sort();
        let attributes: Vec<String> = names
            .iter()
            .map(|name| {
                let value = sys::attribute_value(&whole, name).unwrap();
                format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(&value))
            })
            .collect();
        let what = if data.is_file() {
            Digest::of(&fs::read(&whole).unwrap()).short().to_owned()
        } else if data.is_symlink() {
            fs::read_link(&whole).unwrap().display().to_string()
        } else {
            data.rdev().to_string()
        };
        // Which names are one file.
        let links = if data.is_dir() { 0 } else { data.nlink() };
        let one =
            if links > 1 { Some(first.entry(data.ino()).or_insert(path.clone()).clone()) } else { None };
        // What hides another file has no time of its own.
        let is_whiteout = data.mode() & libc::S_IFMT == libc::S_IFCHR && data.rdev() == 0;
        let time = if is_whiteout { (0, 0) } else { (data.mtime(), data.mtime_nsec()) };
        let text = format!(
            "{:o} {}:{} {}.{:09} {links} {one:?} {what} {attributes:?}",
            data.mode(),
            data.uid(),
            data.gid(),
            time.0,
            time.1,
        );
        if data.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            waiting.extend(names.into_iter().rev().map(|name| path.join(name)));
        }
        all.insert(path, text);
    }
    all
}

/// A root file system with everything in it.
pub(crate) fn make_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    for (name, mode) in
        [("etc", 0o755), ("secret", 0o700), ("tmp", 0o1777), ("old", 0o755), ("hidden", 0o750)]
    {
        fs::create_dir_all(at(name)).unwrap();
        fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    for name in ["etc/passwd", "old/a", "old/b", "hidden/x", "hidden/y", "gone"] {
        fs::write(at(name), format!("this is {name}\n")).unwrap();
    }
    fs::write(at("large"), (0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    fs::write(at("program"), "#!/bin/sh\n").unwrap();
    let long = "directory-of-a-long-name/".repeat(8) + &"n".repeat(200);
    fs::create_dir_all(at(&long).parent().unwrap()).unwrap();
    fs::write(at(&long), "far away").unwrap();
    fs::write(at("n\u{e4}me with blank"), "").unwrap();
    fs::hard_link(at(&long), at("near")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    symlink("x/".repeat(100), at("long-link")).unwrap();
    fs::hard_link(at("link"), at("link-too")).unwrap();
    let dir = File::open(root).unwrap();
    let node = |name: &str, kind, major, minor| {
        sys::mknodat(dir.as_fd(), Path::new(name), kind | 0o640, major, minor).unwrap();
    };
    node("pipe", libc::S_IFIFO, 0, 0);
    node("null", libc::S_IFCHR, 1, 3);
    node("disk", libc::S_IFBLK, 259, 70_000);
    for (name, uid, gid) in
        [("etc/passwd", 100_000, 100_001), ("large", 3_000_000, 0), ("secret", 7, 8), ("link", 5, 6)]
    {
        sys::chownat(dir.as_fd(), Path::new(name), uid, gid).unwrap();
    }
    fs::set_permissions(at("program"), PermissionsExt::from_mode(0o6755)).unwrap();
    attributes(root);
    times(root);
}

fn attributes(root: &Path) {
    let set = |name: &str, key: &[u8], value: &[u8]| {
        let file = File::open(root.join(name)).unwrap();
        match sys::set_attribute(file.as_fd(), key, value) {
            Err(error) if error.errno == libc::EOPNOTSUPP => eprintln!("no attribute {key:?} here"),
            other => other.unwrap(),
        }
    };
    set("program", b"security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    set("etc", b"user.note", b"of a\ndirectory");
    set("large", b"user.empty", b"");
    set("large", b"user.binary", b"\0=\n\xff");
}

fn times(root: &Path) {
    let mut all: Vec<PathBuf> = look(root).into_keys().collect();
    // Directories after what is in them.
    all.reverse();
    let dir = File::open(root).unwrap();
    for (number, path) in all.iter().enumerate() {
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let time = match number % 3 {
            0 => (1_500_000_000 + number as i64, 123_456_789),
            1 => (-(number as i64), 250_000_000),
            _ => (1_600_000_000, 0),
        };
        sys::set_times(dir.as_fd(), name, time, time).unwrap();
    }
}

fn entry(path: &str, kind: Kind, size: u64) -> Entry {
    Entry {
        path: path.into(),
        kind,
        link: Vec::new(),
        mode: 0o751,
        uid: 3,
        gid: 4,
        mtime: Time { seconds: 1_400_000_000, nanoseconds: 5 },
        atime: None,
        device: (0, 0),
        size,
        xattrs: Vec::new(),
        segments: Vec::new(),
    }
}

/// A tar with these files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, contents) in files {
        let kind = if name.ends_with('/') { Kind::Directory } else { Kind::File };
        writer.entry(&entry(name, kind, contents.len() as u64), *contents).unwrap();
    }
    writer.finish().unwrap()
}

/// A tar with one symbolic or hard link, without its end.
pub(crate) fn link(kind: Kind, name: &str, target: &str) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.entry(&Entry { link: target.into(), ..entry(name, kind, 0) }, &b""[..]).unwrap();
    let mut bytes = writer.finish().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

/// The lower layer: the whole tree.
fn lower() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    make_tree(dir.path());
    let mut writer = Writer::new(Vec::new());
    pack(File::open(dir.path()).unwrap().as_fd(), false, &mut writer).unwrap();
    writer.finish().unwrap()
}

/// The upper one: it hides, replaces and adds.
fn upper() -> Vec<u8> {
    let files: [(&str, &[u8]); 8] = [
        (".wh.gone", b""),
        ("old/", b""),
        ("old/.wh.a", b""),
        ("old/c", b"new"),
        ("hidden/", b""),
        ("hidden/.wh..wh..opq", b""),
        ("hidden/z", b"only this"),
        ("etc/motd", b"in a directory that no entry describes"),
    ];
    archive(&files)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The configuration of an image of these layers.
pub(crate) fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let platform = Platform::here();
    let value = serde_json::json!({
        "created": "2020-01-01T00:00:00Z",
        "architecture": platform.architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| serde_json::json!({"created_by": "a test"})).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&value).unwrap()
}

/// Writes an image of layers, given as they are and as they are stored.
pub(crate) fn write_image(sink: &dyn Sink, layers: &[(&[u8], Vec<u8>, &str)]) {
    let plain: Vec<&[u8]> = layers.iter().map(|(plain, ..)| *plain).collect();
    let config = config(&plain);
    let describe = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        let copy = bytes.to_vec();
        let again = move || -> ctr_images::Result<Box<dyn Read + Send>> {
            Ok(Box::new(std::io::Cursor::new(copy.clone())))
        };
        sink.put(&descriptor.blob(), &again).unwrap();
        descriptor
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        config: describe(media::CONFIG, &config),
        layers: layers.iter().map(|(_, stored, media_type)| describe(media_type, stored)).collect(),
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    sink.document(&Document { media_type: media::MANIFEST.into(), bytes }, true).unwrap();
    sink.finish().unwrap();
}

/// The image with everything in it, as `oci:PLACE/first:r`.
pub(crate) fn everything(place: &Place) -> String {
    let (lower, upper) = (lower(), upper());
    let compressed = zstd::encode_all(upper.as_slice(), 1).unwrap();
    let sink = LayoutSink::open(&place.at("first"), Some("r")).unwrap();
    let layers = [
        (lower.as_slice(), gzip(&lower), media::LAYER_GZIP),
        (upper.as_slice(), compressed, media::LAYER_ZSTD),
    ];
    write_image(&sink, &layers);
    place.word("oci:", "first:r")
}

/// The same with layers that are compressed as Docker's always were, as `oci:PLACE/gzip:r`.
pub(crate) fn gzip_only(place: &Place) -> String {
    let (lower, upper) = (lower(), upper());
    let sink = LayoutSink::open(&place.at("gzip"), Some("r")).unwrap();
    let layers = [
        (lower.as_slice(), gzip(&lower), media::LAYER_GZIP),
        (upper.as_slice(), gzip(&upper), media::LAYER_GZIP),
    ];
    write_image(&sink, &layers);
    place.word("oci:", "gzip:r")
}

/// A small image of one layer with one file, whose contents are `text`; nothing of it needs root.
pub(crate) fn small(place: &Place, word: &str, text: &str) {
    let layer = archive(&[("file", text.as_bytes())]);
    write_image(&*place.sink(word).unwrap(), &[(layer.as_slice(), gzip(&layer), media::LAYER_GZIP)]);
}
