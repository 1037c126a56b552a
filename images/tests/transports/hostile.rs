//! Archives and layouts that lie are refused, and the name of what is wrong is told.

use crate::common::{Place, archive, config, gzip, is_root, link, small, write_image};
use ctr_images::digest::Digest;
use ctr_images::manifest::media;
use ctr_images::tar::Kind;
use ctr_images::transport::LayoutSink;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Opens an archive made of `parts`; the error must say `expected`.
#[track_caller]
fn check(kind: &str, parts: &[Vec<u8>], expected: &[&str]) {
    let place = Place::new();
    fs::write(place.at("x.tar"), parts.concat()).unwrap();
    let error = place.source(&place.word(kind, "x.tar")).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{error}");
    }
    assert!(place.is_clean());
}

fn body(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = archive(files);
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

#[test]
fn names_of_archives() {
    for kind in ["oci-archive:", "docker-archive:"] {
        let twice = [("index.json", &b"{}"[..]), ("./index.json", &b"[]"[..])];
        check(kind, &[archive(&twice)], &["\"./index.json\"", "twice"]);
        check(kind, &[archive(&[("a/../../x", b"")])], &["a/../../x", "leads out"]);
        check(kind, &[archive(&[("/etc/passwd", b"")])], &["/etc/passwd", "leads out"]);
        check(kind, &[link(Kind::HardLink, "a", "/etc/passwd"), end()], &["\"a\"", "hard link"]);
        check(kind, &[b"this is no archive at all".repeat(100)], &["no tar archive"]);
        check(kind, &[end()], &["manifest.json", "layout"][usize::from(kind == "oci-archive:")..][..1]);
        check(kind, &[], &[]);
    }
}

#[test]
fn sizes_of_archives() {
    for kind in ["oci-archive:", "docker-archive:"] {
        // A header that promises more than there is, and one that promises more than can be.
        let mut header = tar::Header::new_ustar();
        header.set_path("blob").unwrap();
        header.set_mode(0o644);
        for size in [1 << 20, i64::MAX as u64, u64::MAX] {
            header.set_size(size);
            header.set_cksum();
            check(kind, &[header.as_bytes().to_vec()], &[]);
        }
        // A bomb: a gigabyte of zeros, of which no more is written than was allowed.
        let file = gzip(&[body(&[("zeros", &vec![0; 100 << 20])]), end()].concat());
        check(kind, &[file], &["more than 67108864 bytes"]);
        let large = vec![b' '; (4 << 20) + 1];
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let files = [("oci-layout", &layout[..]), ("index.json", &large), ("manifest.json", &large)];
        check(kind, &[archive(&files)], &["4194305 bytes"]);
    }
}

#[test]
fn layouts() {
    let one = |layout: &str, index: &str, expected: &[&str]| {
        let files = [("oci-layout", layout.as_bytes()), ("index.json", index.as_bytes())];
        check("oci-archive:", &[archive(&files)], expected);
    };
    let right = r#"{"imageLayoutVersion":"1.0.0"}"#;
    one(r#"{"imageLayoutVersion":"2.0.0"}"#, "{}", &["version 2.0.0"]);
    one("rubbish", "{}", &["oci-layout"]);
    one(right, "rubbish", &["index"]);
    one(right, r#"{"schemaVersion":2,"manifests":[]}"#, &["no image"]);
    let digest = "sha256:../../../../../../../../../../../../../../../../../../../../../etc/passwd0";
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{digest}","size":1}}]}}"#);
    one(right, &index, &["is no digest"]);
    let files = link(Kind::Symlink, "index.json", "/etc/passwd");
    check(
        "oci-archive:",
        &[files, archive(&[("oci-layout", right.as_bytes())])],
        &["index.json", "no regular file"],
    );
}

/// Blobs that are links, or are not what they are called.
#[test]
fn blobs_of_a_layout() {
    let place = Place::new();
    let word = place.word("oci:", "l");
    small(&place, &word, "1");
    let source = place.source(&word).unwrap();
    let manifest = place.at("l/blobs/sha256").join(source.document(None).unwrap().digest().hex());
    fs::rename(&manifest, place.at("away")).unwrap();
    symlink(place.at("away"), &manifest).unwrap();
    let error = source.document(None).unwrap_err().to_string();
    assert!(error.contains("symbolic link") && error.contains("blobs/sha256/"), "{error}");
    fs::remove_file(&manifest).unwrap();
    assert_eq!(source.document(None).unwrap_err().kind, ctr_images::Kind::NotFound);
    let bytes = fs::read(place.at("away")).unwrap();
    fs::write(&manifest, [&bytes[..bytes.len() - 1], b" "].concat()).unwrap();
    assert_eq!(source.document(None).unwrap_err().kind, ctr_images::Kind::Damaged);
    // A directory of blobs that is a link is not written through.
    fs::rename(place.at("l/blobs"), place.at("blobs")).unwrap();
    symlink(place.at("blobs"), place.at("l/blobs")).unwrap();
    let blob = ctr_images::manifest::Descriptor::of("x", b"x").blob();
    let put = place.sink(&word).unwrap().put(&blob, &|| Ok(Box::new(&b"x"[..])));
    assert!(put.unwrap_err().to_string().contains("no directory"));
}

#[test]
fn lists_of_docker_archives() {
    let layer = archive(&[("file", b"1")]);
    let of = |list: &str, expected: &[&str]| {
        let config = config(&[&layer]);
        let files = [("c.json", &config[..]), ("l.tar", &layer), ("manifest.json", list.as_bytes())];
        let links = [
            link(Kind::Symlink, "out", "../../etc/passwd"),
            link(Kind::Symlink, "a", "b"),
            link(Kind::Symlink, "b", "a"),
        ];
        check("docker-archive:", &[links.concat(), archive(&files)], expected);
    };
    of("{}", &["manifest.json"]);
    of("[]", &["no image"]);
    of(r#"[{"Config":"c.json","RepoTags":[],"Layers":[]}]"#, &["is of 1 layers"]);
    of(r#"[{"Config":"c.json","Layers":["l.tar","l.tar"]}]"#, &["has 2"]);
    of(r#"[{"Config":"c.json","Layers":["out"]}]"#, &["layer out", "leads out of"]);
    of(r#"[{"Config":"c.json","Layers":["a"]}]"#, &["layer a", "one link to the next"]);
    of(r#"[{"Config":"../c.json","Layers":["l.tar"]}]"#, &["leads out"]);
    of(r#"[{"Config":"c.json","Layers":["/etc/passwd"]}]"#, &["/etc/passwd", "leads out"]);
    of(r#"[{"Config":"none.json","Layers":["l.tar"]}]"#, &["none.json"]);
}

/// A layer is not what the configuration says: found out when it is read, and nothing is kept of it.
#[test]
fn contents_of_a_docker_archive() {
    if !is_root() {
        return;
    }
    let (layer, other) = (archive(&[("file", b"1")]), archive(&[("file", b"2")]));
    let list = br#"[{"Config":"c.json","Layers":["l.tar"]}]"#;
    for stored in [other.clone(), gzip(&other)] {
        let place = Place::new();
        let files = archive(&[("c.json", &config(&[&layer])), ("l.tar", &stored), ("manifest.json", list)]);
        fs::write(place.at("x.tar"), files).unwrap();
        let Err(error) = place.pull(&place.word("docker-archive:", "x.tar")) else { panic!() };
        assert_eq!(error.kind, ctr_images::Kind::Damaged);
        assert!(error.to_string().contains(Digest::of(&layer).as_str()), "{error}");
    }
}

/// What is written is checked, too: nothing else takes a blob's name.
#[test]
fn sinks_check_what_they_are_given() {
    let place = Place::new();
    let layer = gzip(&archive(&[("file", b"1")]));
    let blob =
        ctr_images::manifest::Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", &layer).blob();
    for (kind, name) in
        [("oci:", "l"), ("oci-archive:", "a.tar"), ("docker-archive:", "d.tar:n"), ("dir:", "d")]
    {
        let sink = place.sink(&place.word(kind, name)).unwrap();
        for wrong in [layer[..layer.len() - 1].to_vec(), [&layer[..], b"x"].concat(), b"rubbish".to_vec()] {
            let put = sink.put(&blob, &|| Ok(Box::new(std::io::Cursor::new(wrong.clone()))));
            assert!(put.is_err() && !sink.has(&blob).unwrap(), "{kind}");
        }
        assert!(sink.finish().is_err(), "{kind}");
    }
    assert!(!place.at("a.tar").exists() && !place.at("d.tar").exists() && place.is_clean());
}

/// Whatever an archive has, it is an error at most.
#[test]
fn archives_with_any_bytes() {
    let place = Place::new();
    for (kind, name) in [("oci-archive:", "o.tar"), ("docker-archive:", "d.tar")] {
        small(&place, &place.word(kind, name), "1");
        let whole = fs::read(place.at(name)).unwrap();
        let mut seed = 7_u64;
        let mut next = |most: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % most
        };
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..next(4) + 1 {
                let place = next(bytes.len());
                bytes[place] = next(256) as u8;
            }
            mend_sums(&mut bytes);
            bytes.truncate(bytes.len() - next(4) * next(bytes.len()) / 8);
            fs::write(place.at("x.tar"), &bytes).unwrap();
            if let Ok(source) = place.source(&place.word(kind, "x.tar")) {
                let _ = source.document(None);
            }
        }
    }
    assert!(place.is_clean());
}

/// Gives blocks that were headers the right sum again: else nothing else in them is ever read.
fn mend_sums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// A layer whose directories have no entries takes their looks from the layers below; a link there must not have it take
/// those of a directory of the host's.
#[test]
fn links_of_a_lower_layer_lead_nowhere() {
    let place = Place::new();
    fs::create_dir_all(place.at("outside/b")).unwrap();
    fs::set_permissions(place.at("outside/b"), PermissionsExt::from_mode(0o711)).unwrap();
    let lower = [link(Kind::Symlink, "a", place.at("outside").to_str().unwrap()), end()].concat();
    let upper = archive(&[("a/b/file", b"")]);
    let sink = LayoutSink::open(&place.at("layout"), Some("r")).unwrap();
    write_image(&sink, &[(&lower, lower.clone(), media::LAYER), (&upper, upper.clone(), media::LAYER)]);
    let pulled = place.pull(&place.word("oci:", "layout:r")).unwrap();
    let tree = pulled.store.tree(&pulled.layers[1]);
    let mode = fs::symlink_metadata(tree.join("a/b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "not that of the host's directory");
}
