//! What we write we read, and it is the same.

use crate::common::{Place, archive, copy, everything, gzip, has, is_root, look, make_tree, run, small};
use ctr_images::manifest::{Execution, Parsed};
use ctr_images::transport::{
    ArchiveSink, DockerArchive, DockerSink, Found, Import, Input, LayoutSource, Output, RootfsSource,
    Transport, Which, kind_of, names, open_source,
};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

#[test]
fn the_same_image_through_every_transport() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let word = everything(&place);
    let (source, first) = (place.source(&word).unwrap(), place.pull(&word).unwrap());
    assert!(first.trees()[0].len() > 25);
    // The upper layer says nothing of the root.
    assert_eq!(first.store.root(first.layers.iter()), Some(first.store.tree(&first.layers[0])));
    for (kind, name) in [
        ("oci:", "second:r"),
        ("oci:", "third"),
        ("oci-archive:", "a.tar:r"),
        ("oci-archive:", "b.tar"),
        ("docker-archive:", "d.tar:example/name:1"),
        ("dir:", "plain"),
    ] {
        let word = place.word(kind, name);
        let sink = place.sink(&word).unwrap();
        copy(&*source, &*sink).unwrap();
        sink.finish().unwrap();
        drop(sink);
        let again = place.pull(&word).unwrap();
        assert_eq!(again.pull.image.config, first.pull.image.config, "{word}");
        assert_eq!(again.trees(), first.trees(), "{word}");
        assert!(place.is_clean(), "{word}");
    }
}

/// What a layout has stays in it; what has the same name is replaced.
#[test]
fn a_layout_is_added_to() {
    let place = Place::new();
    for (name, text) in [("l:a", "1"), ("l:b", "2"), ("l:a", "3"), ("l", "4"), ("l", "5"), ("l", "5")] {
        small(&place, &place.word("oci:", name), text);
    }
    let index = fs::read_to_string(place.at("l/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 4);
    assert!(place.source(&place.word("oci:", "l:a")).is_ok());
    assert!(place.source(&place.word("oci:", "l:@3")).is_ok());
    let error = place.source(&place.word("oci:", "l")).unwrap_err().to_string();
    assert!(error.contains("several images") && error.contains("b, a, sha256:"), "{error}");
    let error = place.source(&place.word("oci:", "l:c")).unwrap_err();
    assert_eq!(error.kind, ctr_images::Kind::NotFound);
    // And what is no layout stays as it is.
    fs::create_dir(place.at("other")).unwrap();
    fs::write(place.at("other/file"), "").unwrap();
    for kind in ["oci:", "dir:"] {
        assert!(place.sink(&place.word(kind, "other")).is_err());
    }
    assert_eq!(fs::read_dir(place.at("other")).unwrap().count(), 1);
}

#[test]
fn the_same_image_is_the_same_archive() {
    let place = Place::new();
    for kind in ["oci-archive:", "docker-archive:"] {
        for file in ["x.tar", "y.tar"] {
            small(&place, &place.word(kind, &format!("{file}:n:1")), "1");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(fs::read(place.at("x.tar")).unwrap(), fs::read(place.at("y.tar")).unwrap(), "{kind}");
    }
}

/// Compressed, from a FIFO, and from what is open already.
#[test]
fn archives_that_cannot_be_read_in_place() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for kind in ["oci-archive:", "docker-archive:"] {
        small(&place, &place.word(kind, "x.tar:n:1"), "1");
        let plain = fs::read(place.at("x.tar")).unwrap();
        let wanted = place.pull(&place.word(kind, "x.tar:n:1")).unwrap().pull.image.config;
        fs::write(place.at("x.gz"), gzip(&plain)).unwrap();
        fs::write(place.at("x.zst"), zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap();
        for name in ["x.gz", "x.zst:n:1"] {
            let found = place.pull(&place.word(kind, name)).unwrap();
            assert_eq!(found.pull.image.config, wanted);
        }
        let _ = fs::remove_file(place.at("fifo"));
        nix::unistd::mkfifo(&place.at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!("cat {0}/x.gz > {0}/fifo", place.at("").display());
        let mut writer = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        assert_eq!(place.pull(&place.word(kind, "fifo")).unwrap().pull.image.config, wanted);
        assert!(writer.wait().unwrap().success());
        let transport = Transport::parse(&format!("{kind}-:n:1"), false).unwrap();
        assert!(open_source(&transport, &place.scratch(), None).is_err());
        let open = File::open(place.at("x.zst")).unwrap();
        let source = open_source(&transport, &place.scratch(), Some(Box::new(open))).unwrap();
        assert_eq!(place.pull_from(&*source).unwrap().pull.image.config, wanted);
    }
    assert!(place.is_clean());
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_archive_goes_to_a_stream() {
    let place = Place::new();
    small(&place, &place.word("oci:", "l"), "1");
    let source = LayoutSource::open(&place.at("l"), &Which::Only).unwrap();
    let shared = Shared::default();
    let output = Output::Stream(Box::new(shared.clone()));
    let sink = ArchiveSink::create(output, None, &place.scratch()).unwrap();
    copy(&source, &sink).unwrap();
    ctr_images::source::Sink::finish(&sink).unwrap();
    fs::write(place.at("x.tar"), shared.0.lock().unwrap().as_slice()).unwrap();
    place.source(&place.word("oci-archive:", "x.tar")).unwrap();
}

/// Two images with a layer in common: it is there once.
#[test]
fn several_images_in_one_docker_archive() {
    let place = Place::new();
    let all = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    small(&place, &place.word("oci:", "l:a"), "1");
    small(&place, &place.word("oci:", "l:b"), "2");
    let file = Output::File(place.at("d.tar"));
    let sink = DockerSink::create(file, &all(&["a", "docker.io/library/a:2"]), &place.scratch()).unwrap();
    copy(&*place.source(&place.word("oci:", "l:a")).unwrap(), &sink).unwrap();
    sink.next_image(&all(&["r:5000/b:1"]));
    copy(&*place.source(&place.word("oci:", "l:b")).unwrap(), &sink).unwrap();
    sink.next_image(&all(&["a:again"]));
    copy(&*place.source(&place.word("oci:", "l:a")).unwrap(), &sink).unwrap();
    ctr_images::source::Sink::finish(&sink).unwrap();
    let found = names(&place.at("d.tar"), &place.scratch()).unwrap();
    assert_eq!(found, [all(&["a:latest", "docker.io/library/a:2", "a:again"]), all(&["r:5000/b:1"])]);
    let archive = DockerArchive::open(Input::File(&place.at("d.tar")), &place.scratch()).unwrap();
    assert!(archive.image(&Which::Only).unwrap_err().to_string().contains("several images"));
    for name in ["a", "a:2", "docker.io/a:again", "r:5000/b:1"] {
        archive.image(&Which::Named(name.into())).unwrap();
    }
}

/// `docker save` up to version 24: a directory for each layer, whose file may be a link to another's.
#[test]
fn an_old_docker_archive_with_links() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let layer = archive(&[("file", b"1")]);
    let config = crate::common::config(&[&layer, &layer]);
    let list = br#"[{"Config":"c.json","RepoTags":null,"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let link = crate::common::link(ctr_images::tar::Kind::Symlink, "two/layer.tar", "../one/layer.tar");
    let files =
        archive(&[("one/", b""), ("one/layer.tar", &layer), ("c.json", &config), ("manifest.json", list)]);
    fs::write(place.at("d.tar"), [link, files].concat()).unwrap();
    let pulled = place.pull(&place.word("docker-archive:", "d.tar")).unwrap();
    assert_eq!(pulled.layers.len(), 2);
    assert_eq!(kind_of(&place.at("d.tar"), &place.scratch()).unwrap(), Found::DockerArchive);
}

/// `docker save` from version 25 on: a layout, and manifest.json, which names its blobs.
#[test]
fn a_docker_archive_that_is_a_layout_too() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let layer = archive(&[("file", b"1")]);
    for stored in [layer.clone(), gzip(&layer)] {
        let config = crate::common::config(&[&layer]);
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", ctr_images::digest::Digest::of(bytes).hex());
        let list = serde_json::json!([{
            "Config": blob(&config), "RepoTags": ["a:1"], "Layers": [blob(&stored)], "LayerSources": {},
        }]);
        let files = [
            (blob(&config), config.clone()),
            (blob(&stored), stored.clone()),
            ("index.json".into(), b"not looked at".to_vec()),
            ("manifest.json".into(), list.to_string().into_bytes()),
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        fs::write(place.at("d.tar"), archive(&files)).unwrap();
        let pulled = place.pull(&place.word("docker-archive:", "d.tar:a:1")).unwrap();
        assert_eq!(pulled.pull.image.config, ctr_images::digest::Digest::of(&config));
        assert_eq!(kind_of(&place.at("d.tar"), &place.scratch()).unwrap(), Found::DockerArchive);
    }
}

/// What a path leads to is found out by looking.
#[test]
fn paths() {
    let place = Place::new();
    let of = |name: &str| kind_of(&place.at(name), &place.scratch()).unwrap();
    for (kind, name, found) in [
        ("oci:", "l", Found::Layout),
        ("oci-archive:", "a.tar", Found::Archive),
        ("docker-archive:", "d.tar", Found::DockerArchive),
        ("dir:", "p", Found::Dir),
    ] {
        small(&place, &place.word(kind, name), "1");
        assert_eq!(of(name), found);
        place.source(&place.word("", name)).unwrap();
    }
    fs::write(place.at("r.tar"), archive(&[("./manifest.json", b""), ("./usr/", b""), ("x", b"")])).unwrap();
    fs::create_dir(place.at("r")).unwrap();
    assert_eq!((of("r.tar"), of("r")), (Found::Tar, Found::Directory));
    assert_eq!(place.source(&place.word("", "none")).unwrap_err().kind, ctr_images::Kind::NotFound);
    assert!(kind_of("/dev/null".as_ref(), &place.scratch()).is_err());
}

/// A layout that is called a docker-archive, as Docker 25 would write it without manifest.json.
#[test]
fn a_docker_archive_that_is_only_a_layout() {
    let place = Place::new();
    small(&place, &place.word("oci-archive:", "x.tar:n"), "1");
    place.source(&place.word("docker-archive:", "x.tar")).unwrap();
    assert_eq!(names(&place.at("x.tar"), &place.scratch()).unwrap(), [Vec::<String>::new()]);
}

#[test]
fn a_directory_becomes_an_image() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.at("tree")).unwrap();
    make_tree(&place.at("tree"));
    let execution = Execution { cmd: Some(vec!["/program".into()]), ..Execution::default() };
    let import = Import { execution, ..Import::default() };
    let source = RootfsSource::directory(&place.at("tree"), &import, &place.scratch()).unwrap();
    assert!(source.notes().is_empty(), "{:?}", source.notes());
    let pulled = place.pull_from(&source).unwrap();
    assert_eq!(pulled.trees()[0], look(&place.at("tree")));
    let (_, config) = pulled.store.read_image(&pulled.pull.image).unwrap();
    assert_eq!(config.config.unwrap().cmd.unwrap(), ["/program"]);
    // And the same again by its path only.
    let path = place.at("tree").display().to_string();
    assert_eq!(place.pull(&path).unwrap().trees()[0], look(&place.at("tree")));
    // What is mounted in it is not of it.
    run(&["mount", "-t", "tmpfs", "none", &place.word("", "tree/tmp")]);
    fs::write(place.at("tree/tmp/foreign"), "").unwrap();
    let source = RootfsSource::directory(&place.at("tree"), &Import::default(), &place.scratch());
    run(&["umount", &place.word("", "tree/tmp")]);
    let source = source.unwrap();
    assert!(source.notes().iter().next().unwrap().contains("/tmp is left out"), "{:?}", source.notes());
    let tree = &place.pull_from(&source).unwrap().trees()[0];
    let has = |name: &str| tree.contains_key(Path::new(name));
    assert!(has("tmp") && !has("tmp/foreign"));
}

/// As GNU tar writes it: the layer is the file itself.
#[test]
fn a_tar_becomes_an_image() {
    if !is_root() || !has("tar") {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.at("tree")).unwrap();
    make_tree(&place.at("tree"));
    let (tree, plain) = (place.word("", "tree"), place.word("", "x.tar"));
    let kinds = ["--xattrs", "--xattrs-include=*", "--format=posix", "--pax-option=delete=ctime"];
    run(&[&["tar", "-cf", &plain, "-C", &tree], &kinds[..], &["."]].concat());
    let bytes = fs::read(&plain).unwrap();
    fs::write(place.at("x.tgz"), gzip(&bytes)).unwrap();
    fs::write(place.at("x.tzst"), zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap();
    for name in ["x.tar", "x.tgz", "x.tzst"] {
        let path = place.at(name);
        assert_eq!(kind_of(&path, &place.scratch()).unwrap(), Found::Tar);
        let source = place.source(&path.display().to_string()).unwrap();
        let Ok(Parsed::Manifest(manifest)) = Parsed::read(&source.document(None).unwrap()) else { panic!() };
        assert_eq!(manifest.layers[0].size, fs::metadata(&path).unwrap().len());
        assert_eq!(place.pull_from(&*source).unwrap().trees()[0], look(&place.at("tree")), "{name}");
    }
    fs::write(place.at("x.xz"), b"\xfd7zXZ\0 and so on").unwrap();
    let error = place.source(&place.word("", "x.xz")).unwrap_err().to_string();
    assert!(error.contains("compressed with xz"), "{error}");
}
