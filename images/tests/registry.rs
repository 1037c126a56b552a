//! Reading from a registry that does not mean well, or has a bad day.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Reply, Seen, Server, blob, noise, registry, reply, settings};
use ctr_images::digest::{Digest, Verified};
use ctr_images::registry::{Credentials, Mirror, Registries, Registry};
use ctr_images::source::Source;
use ctr_images::{Error, Kind};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

const MANIFEST: &str = r#"{"schemaVersion":2,"layers":[]}"#;
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// `me:secret`.
const BASIC: &str = "Basic bWU6c2VjcmV0";

fn manifest() -> Reply {
    reply(200).header("Content-Type", MEDIA_TYPE).body(MANIFEST)
}

fn me() -> Option<Credentials> {
    Some("me:secret".parse().unwrap())
}

fn open(server: &Server, credentials: Option<Credentials>) -> Registry {
    let name = format!("{}/app:1", server.host).parse().unwrap();
    Registry::open(&name, &settings(Path::new("/nonexistent"), &[server]), credentials).unwrap()
}

/// A part of `bytes`, as `Range` asks for it.
fn range(seen: &Seen, bytes: &[u8]) -> Reply {
    let start = seen.header("range").trim_start_matches("bytes=").split('-').next().unwrap();
    let start: usize = start.parse().unwrap_or(0);
    let end = bytes.len() - 1;
    reply(206).header("Content-Range", format!("bytes {start}-{end}/{}", bytes.len())).body(&bytes[start..])
}

fn read(registry: &Registry, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let blob = blob(bytes);
    let (start, reader) = registry.blob(&blob, 0)?;
    assert_eq!(start, 0);
    let mut found = Vec::new();
    Verified::new(reader, &blob.digest, blob.size).read_to_end(&mut found)?;
    Ok(found)
}

/// A server that gives tokens to `me`: t0, t1, ...; `good` says which token is good for a request.
fn token_server(good: fn(&Seen) -> &'static str, answer: fn(&Seen) -> Reply) -> Server {
    Server::new(move |seen| {
        if seen.path.starts_with("/token") {
            return match seen.header("authorization") {
                BASIC => reply(200).body(format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.before)),
                _ => reply(401),
            };
        }
        if seen.header("authorization") == format!("Bearer {}", good(seen)) {
            return answer(seen);
        }
        let realm = format!("http://{}/token", seen.header("host"));
        reply(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="a, b",scope="x""#))
    })
}

#[test]
fn a_token_is_had_once_for_many_requests() {
    let server = token_server(|_| "t0", |_| manifest());
    let registry = open(&server, me());
    for _ in 0..3 {
        assert_eq!(Source::document(&registry, None).unwrap().media_type, MEDIA_TYPE);
    }
    let tokens: Vec<Seen> =
        server.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?account=me&service=a%2C%20b&scope=repository%3Aapp%3Apull&scope=x");
}

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    static BYTES: &[u8] = b"layer";
    let good = |seen: &Seen| if seen.path.contains("/blobs/") { "t1" } else { "t0" };
    let server =
        token_server(
            good,
            |seen| {
                if seen.path.contains("/blobs/") { reply(200).body(BYTES) } else { manifest() }
            },
        );
    let registry = open(&server, me());
    Source::document(&registry, None).unwrap();
    assert_eq!(read(&registry, BYTES).unwrap(), BYTES);
}

#[test]
fn a_password_is_sent_where_it_is_asked_for() {
    let server = Server::new(|seen| match seen.header("authorization") {
        BASIC => manifest(),
        _ => reply(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    Source::document(&open(&server, me()), None).unwrap();
    let error = Source::document(&open(&server, None), None).unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    let hint = format!("not logged in: `ctr image login {}`", server.host);
    assert!(error.to_string().contains(&hint), "{error}");
    let wrong = Some("me:hunter2".parse().unwrap());
    let error = Source::document(&open(&server, wrong), None).unwrap_err().to_string();
    assert!(
        error.ends_with("answers 401 Unauthorized; asked as me") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_connection_that_breaks_is_made_again_where_it_broke() {
    let bytes = noise(300_000);
    let served = bytes.clone();
    let server = Server::new(move |seen| match seen.header("range") {
        "" => reply(200).body(&served[..]).cut(100_000),
        "bytes=100000-299999" => range(seen, &served).cut(50_000),
        _ => range(seen, &served),
    });
    assert_eq!(read(&registry(&server), &bytes).unwrap(), bytes);
    let ranges: Vec<String> = server.seen().iter().map(|seen| seen.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=100000-299999", "bytes=150000-299999"]);
}

#[test]
fn a_server_that_always_breaks_off_is_given_up() {
    let bytes = noise(1000);
    let served = bytes.clone();
    let server = Server::new(move |_| reply(200).body(&served[..]).cut(10));
    let error = read(&registry(&server), &bytes).unwrap_err();
    assert_eq!(error.kind, Kind::Lost, "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let bytes = noise(1000);
    let served = bytes.clone();
    let server = Server::new(move |seen| match seen.header("range") {
        "" => reply(200).body(&served[..]).cut(10).stall(),
        _ => range(seen, &served),
    });
    let name = format!("{}/app:1", server.host).parse().unwrap();
    let settings = Registries { stall_timeout: 1, ..settings(Path::new("/nonexistent"), &[&server]) };
    let registry = Registry::open(&name, &settings, None).unwrap();
    assert_eq!(read(&registry, &bytes).unwrap(), bytes);
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let bytes = noise(5000);
    let served = bytes.clone();
    let server = Server::new(move |seen| {
        let whole = reply(200).body(&served[..]);
        if seen.before == 1 { whole.cut(2000) } else { whole }
    });
    let registry = registry(&server);
    let (start, mut reader) = registry.blob(&blob(&bytes), 700).unwrap();
    let mut first = [0; 10];
    reader.read_exact(&mut first).unwrap();
    assert_eq!((start, &first[..]), (0, &bytes[..10]));
    assert_eq!(read(&registry, &bytes).unwrap(), bytes);
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let server = Server::new(|_| reply(206).header("Content-Range", "bytes 3-9/10").body("3456789"));
    let error = registry(&server).blob(&blob(b"0123456789"), 5).err().unwrap();
    assert_eq!(error.kind, Kind::Damaged, "{error}");
}

#[test]
fn contents_are_those_of_the_digest() {
    let server = Server::new(|_| manifest());
    let registry = registry(&server);
    let other = Digest::of(b"other");
    let error = Source::document(&registry, Some(&other)).unwrap_err();
    assert_eq!(error.kind, Kind::Damaged);
    assert!(error.to_string().contains("it should have the digest"), "{error}");
    assert!(Source::document(&registry, Some(&Digest::of(MANIFEST.as_bytes()))).is_ok());
    let lying = Server::new(|_| manifest().header("Docker-Content-Digest", Digest::of(b"x").to_string()));
    assert_eq!(Source::document(&common::registry(&lying), None).unwrap_err().kind, Kind::Damaged);
}

#[test]
fn what_is_too_long_is_not_read() {
    let server = Server::new(|seen| match seen.path.contains("/blobs/") {
        true => reply(200).header("Transfer-Encoding", "chunked").body("5\r\nabcde\r\n0\r\n\r\n"),
        false => reply(200).header("Content-Type", MEDIA_TYPE).body(vec![b' '; (4 << 20) + 1]),
    });
    let registry = registry(&server);
    let error = Source::document(&registry, None).unwrap_err();
    assert!(error.to_string().contains("longer than 4194304 bytes"), "{error}");
    let error = read(&registry, b"abc").unwrap_err();
    assert!(error.to_string().contains("longer than they are said to be"), "{error}");
    let server = Server::new(|_| reply(200).body("abcde"));
    let error = read(&common::registry(&server), b"abc").unwrap_err();
    assert!(error.to_string().contains("has 5 bytes of it, where 3 are expected"), "{error}");
}

#[test]
fn another_host_is_not_told_who_we_are() {
    let storage = Server::new(|_| reply(200).body("layer"));
    let location = format!("http://{}/signed?key=1", storage.host);
    let server =
        Server::new(move |seen| match (seen.header("authorization"), seen.path.contains("/here/")) {
            (BASIC, false) => reply(307).header("Location", location.clone()),
            _ => reply(401).header("WWW-Authenticate", "Basic realm=x"),
        });
    assert_eq!(read(&open(&server, me()), b"layer").unwrap(), b"layer");
    let seen = storage.seen();
    assert_eq!((seen.len(), seen[0].header("authorization")), (1, ""));
}

/// image-spec descriptor.md, `urls`.
#[test]
fn what_the_registry_has_not_may_be_elsewhere() {
    let owner = Server::new(|_| reply(200).body("layer"));
    let server = Server::new(|_| reply(404));
    let mut blob = blob(b"layer");
    blob.urls = vec!["ftp://x/layer".into(), format!("http://{}/layer", owner.host)];
    let registry = open(&server, me());
    let mut text = String::new();
    registry.blob(&blob, 0).unwrap().1.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), owner.seen()[0].header("authorization")), ("layer", ""));
}

#[test]
fn who_leads_in_circles_is_not_followed_for_ever() {
    let server = Server::new(|seen| reply(302).header("Location", format!("{}x", seen.path)));
    let error = read(&registry(&server), b"layer").unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
    assert_eq!(server.asked().len(), 6);
}

/// With the user of its address, and what it refuses is said without them.
#[test]
fn a_proxy_is_asked_for_the_way() {
    let proxy = Server::new(|_| reply(403));
    let mut settings = settings(Path::new("/nonexistent"), &[]);
    settings.places.https_proxy = Some(format!("http://me:secret@{}", proxy.host));
    let name = "registry.invalid/app:1".parse().unwrap();
    let error = Source::document(&Registry::open(&name, &settings, None).unwrap(), None).unwrap_err();
    assert_eq!(proxy.asked(), ["CONNECT registry.invalid:443"]);
    assert_eq!(proxy.seen()[0].header("proxy-authorization"), BASIC);
    assert!(error.to_string().contains("proxy") && !error.to_string().contains("secret"), "{error}");
}

#[test]
fn who_must_wait_waits() {
    let server = Server::new(|seen| match seen.before {
        0 => reply(429).header("Retry-After", "1"),
        _ => manifest(),
    });
    let began = Instant::now();
    Source::document(&registry(&server), None).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    let server = Server::new(|_| {
        reply(429).header("Retry-After", "3600").body(r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#)
    });
    let error = Source::document(&registry(&server), None).unwrap_err();
    assert_eq!((error.kind, server.asked().len()), (Kind::Lost, 1));
    assert!(error.to_string().contains("try again in 3600 s; who is logged in may ask more"), "{error}");
}

#[test]
fn mirrors_are_asked_first_and_need_not_have_it() {
    let near = Server::new(|_| reply(404));
    let server = Server::new(|_| manifest());
    let mut settings = settings(Path::new("/nonexistent"), &[&near, &server]);
    let mirror = |location: String| Mirror { location, insecure: false };
    // Nobody listens at port 1.
    let mirrors = vec![mirror("127.0.0.1:1".into()), mirror(format!("{}/hub", near.host))];
    settings.mirrors.insert(server.host.clone(), mirrors);
    let name = format!("{}/app:1", server.host).parse().unwrap();
    let registry = Registry::open(&name, &settings, me()).unwrap();
    assert_eq!(Source::document(&registry, None).unwrap().bytes, MANIFEST.as_bytes());
    assert_eq!(near.asked(), ["GET /v2/hub/app/manifests/1"]);
    assert_eq!(server.asked(), ["GET /v2/app/manifests/1"]);
}

#[test]
fn the_registry_s_own_words_are_shown() {
    let server = Server::new(|_| {
        reply(404).body(
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\u001b[2J unknown","detail":"d"}]}"#,
        )
    });
    let error = Source::document(&registry(&server), None).unwrap_err();
    let host = &server.host;
    let words = "MANIFEST_UNKNOWN: manifest [2J unknown (d)";
    let expected = format!("read the manifest of {host}/app:1: {host} answers 404 Not Found: {words}");
    assert_eq!((error.kind, error.to_string()), (Kind::NotFound, expected));
}

#[test]
fn why_there_is_no_connection_is_said() {
    let server = Server::new(|_| manifest());
    let open = |host: &str| {
        let name = format!("{host}/app:1").parse().unwrap();
        let registry = Registry::open(&name, &settings(Path::new("/nonexistent"), &[]), None).unwrap();
        Source::document(&registry, None).unwrap_err().to_string()
    };
    assert!(
        open(&server.host).contains("speaks plain HTTP, not TLS; if that is meant"),
        "{}",
        open(&server.host)
    );
    assert!(open("127.0.0.1:1").contains("nothing listens there"), "{}", open("127.0.0.1:1"));
    // Too long a part for any name server to be asked.
    let long = format!("{}.invalid", "x".repeat(64));
    assert!(
        open(&long).contains(&format!("look up the host {long:?}: no address is known")),
        "{}",
        open(&long)
    );
}

#[test]
fn tags_come_in_pages_and_the_newest_by_its_head() {
    let digest = Digest::of(MANIFEST.as_bytes());
    let told = digest.to_string();
    let server = Server::new(move |seen| match seen.what().as_str() {
        "GET /v2/app/tags/list?n=1000" => reply(200)
            .header("Link", "</v2/app/tags/list?last=b>; rel=\"next\"")
            .body(r#"{"name":"app","tags":["a","b"]}"#),
        "GET /v2/app/tags/list?last=b" => reply(200).body(r#"{"name":"app","tags":["c"]}"#),
        _ => manifest().header("Docker-Content-Digest", told.clone()),
    });
    let registry = registry(&server);
    assert_eq!(registry.tags().unwrap(), ["a", "b", "c"]);
    assert_eq!(registry.newest().unwrap(), Some(digest));
    assert_eq!(server.asked().last().unwrap(), "HEAD /v2/app/manifests/1");
}
