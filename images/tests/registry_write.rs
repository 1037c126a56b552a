//! Writing to a registry, and logging in to one.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Act, Seen, Server, blob, noise, registry, reply, settings};
use ctr_images::digest::Digest;
use ctr_images::registry::{Registry, login, logout};
use ctr_images::source::{Document, Sink};
use ctr_images::{Error, Kind};
use std::io::Read;

const MANIFEST: &str = r#"{"schemaVersion":2,"layers":[]}"#;
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes `bytes` to `registry`.
fn write(registry: &Registry, bytes: &[u8]) -> Result<(), Error> {
    let owned = bytes.to_vec();
    registry.put(&blob(bytes), &move || Ok(Box::new(std::io::Cursor::new(owned.clone()))))
}

#[test]
fn a_blob_is_written_in_one_piece_where_the_registry_says() {
    let bytes = noise(200_000);
    let server = Server::new(|seen| match seen.method.as_str() {
        "HEAD" => reply(404),
        "POST" => reply(202).header("Location", "/v2/app/blobs/uploads/u?state=1"),
        _ => reply(201),
    });
    let registry = registry(&server);
    assert!(!registry.has(&blob(&bytes)).unwrap());
    write(&registry, &bytes).unwrap();
    let seen = server.seen();
    let digest = Digest::of(&bytes).to_string().replace(':', "%3A");
    assert_eq!(seen[2].what(), format!("PUT /v2/app/blobs/uploads/u?state=1&digest={digest}"));
    assert!(seen[2].body == bytes);
    let document = Document { media_type: MEDIA_TYPE.into(), bytes: MANIFEST.into() };
    Sink::document(&registry, &document, false).unwrap();
    Sink::document(&registry, &document, true).unwrap();
    let asked = server.asked();
    assert_eq!(asked[3], format!("PUT /v2/app/manifests/{}", document.digest()));
    assert_eq!(asked[4], "PUT /v2/app/manifests/1");
    assert_eq!(server.seen()[4].header("content-type"), MEDIA_TYPE);
}

#[test]
fn an_upload_that_breaks_goes_on_where_it_broke() {
    let bytes = noise(3_000_000);
    let server = Server::acting(|seen| match (seen.method.as_str(), seen.before) {
        ("POST", _) => reply(202).header("Location", "/up/1").into(),
        ("PUT", 0) if seen.header("content-length") != "0" => Act::Break(1_000_000),
        ("GET", _) => reply(204).header("Range", "0-999999").header("Location", "/up/2").into(),
        ("PATCH", _) => reply(202).header("Location", "/up/3").into(),
        ("HEAD", _) => reply(404).into(),
        _ => reply(201).into(),
    });
    write(&registry(&server), &bytes).unwrap();
    let seen = server.seen();
    let steps: Vec<String> =
        seen.iter().map(|seen| seen.what().split('?').next().unwrap().to_owned()).collect();
    let steps: Vec<&str> = steps.iter().map(|step| step.split(" /v2").next().unwrap()).collect();
    assert_eq!(steps, ["POST", "PUT /up/1", "HEAD", "GET /up/1", "PATCH /up/2", "PUT /up/3"]);
    assert_eq!(seen[4].header("content-range"), "1000000-2999999");
    assert!([&seen[1].body[..], &seen[4].body[..]].concat() == bytes);
}

/// Docker's registry does so: it begins anew, and not for ever.
#[test]
fn a_registry_that_forgets_uploads_is_given_up() {
    let server = Server::acting(|seen| match seen.method.as_str() {
        "POST" => reply(202).header("Location", "/up").into(),
        "PUT" | "PATCH" if seen.header("content-length") != "0" => Act::Break(1000),
        _ => reply(404).into(),
    });
    let error = write(&registry(&server), &noise(500_000)).unwrap_err();
    assert_eq!(error.kind, Kind::Lost, "{error}");
    assert_eq!(server.asked().iter().filter(|what| what.starts_with("PATCH")).count(), 4);
}

#[test]
fn a_registry_that_wants_parts_gets_them() {
    let bytes = noise(20 << 20);
    let server = Server::new(|seen| match seen.method.as_str() {
        "POST" => reply(202).header("Location", "/up"),
        "PUT" if seen.header("content-length") != "0" => reply(413),
        "PATCH" => reply(202),
        _ => reply(201),
    });
    write(&registry(&server), &bytes).unwrap();
    let parts: Vec<Seen> = server.seen().into_iter().filter(|seen| seen.method == "PATCH").collect();
    let ranges: Vec<&str> = parts.iter().map(|seen| seen.header("content-range")).collect();
    assert_eq!(ranges, ["0-16777215", "16777216-20971519"]);
    assert!(parts.iter().flat_map(|seen| seen.body.clone()).collect::<Vec<u8>>() == bytes);
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let bytes = noise(10);
    let server = Server::new(|seen| match seen.path.contains("from=") {
        true => reply(201),
        false => reply(500),
    });
    let other = format!("{}/base:1", server.host).parse().unwrap();
    write(&registry(&server).mounting_from(&other), &bytes).unwrap();
    let digest = Digest::of(&bytes).to_string().replace(':', "%3A");
    assert_eq!(server.asked(), [format!("POST /v2/app/blobs/uploads/?mount={digest}&from=base")]);
}

/// What cannot be read is no reason to ask the registry again.
#[test]
fn an_error_of_what_is_sent_is_its_own() {
    let server = Server::new(|_| reply(202).header("Location", "/up"));
    let short = || Ok(Box::new(&b"abc"[..]) as Box<dyn Read + Send>);
    let error = registry(&server).put(&blob(&noise(100)), &short).unwrap_err();
    assert_eq!(error.kind, Kind::Damaged, "{error}");
    assert!(error.to_string().contains("ends too early"), "{error}");
}

#[test]
fn credentials_are_tried_before_they_are_kept() {
    let server = Server::new(|seen| match seen.header("authorization") {
        "Basic bWU6c2VjcmV0" => reply(200).header("Docker-Content-Digest", Digest::of(b"").to_string()),
        _ => reply(401).header("WWW-Authenticate", "Basic realm=x"),
    });
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), &[&server]);
    let wrong = "me:hunter2".parse().unwrap();
    let error = login(&server.host, &wrong, &settings, None).unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let file = login(&server.host, &"me:secret".parse().unwrap(), &settings, None).unwrap();
    assert_eq!(file, directory.path().join("run/containers/auth.json"));
    let name = format!("{}/app:1", server.host).parse().unwrap();
    assert!(Registry::open(&name, &settings, None).unwrap().newest().unwrap().is_some());
    assert!(logout(&server.host, Some(&file)).unwrap());
    let error = Registry::open(&name, &settings, None).unwrap().newest().unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
}
