//! The same with Docker's own registry, as Debian has it: what it takes and gives is what others take and
//! give.

#![allow(clippy::unwrap_used)]

mod common;

use common::{blob, noise};
use ctr_images::digest::Verified;
use ctr_images::error::{Error, Kind};
use ctr_images::registry::{Credentials, Places, Registries, Registry, login};
use ctr_images::source::{Document, Sink, Source};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = "/usr/bin/docker-registry";
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that ends with the test.
struct Daemon {
    child: Child,
    host: String,
    directory: TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Daemon {
    /// None, with a note, where there is no such program. `more` is added to its configuration.
    fn start(test: &str, directory: TempDir, more: &str) -> Option<Daemon> {
        if !Path::new(PROGRAM).exists() {
            note_skip(test, &format!("needs {PROGRAM} (Debian's docker-registry)"));
            return None;
        }
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let root = directory.path().join("registry");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  delete: {{ enabled: true }}\n  \
             filesystem: {{ rootdirectory: {} }}\nhttp:\n  addr: {host}\n{more}",
            root.display()
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        let child = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let daemon = Daemon { child, host, directory };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&daemon.host).is_err() {
            let log = fs::read_to_string(daemon.directory.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "{log}");
            thread::sleep(Duration::from_millis(50));
        }
        Some(daemon)
    }

    fn settings(&self) -> Registries {
        Registries { places: Places::below(self.directory.path()), retries: 3, ..Registries::default() }
    }

    fn insecure(&self) -> Registries {
        Registries { insecure: vec![self.host.clone()], ..self.settings() }
    }

    fn open(&self, name: &str, settings: &Registries, credentials: Option<Credentials>) -> Registry {
        Registry::open(&format!("{}/{name}", self.host).parse().unwrap(), settings, credentials).unwrap()
    }
}

/// As tests/common of the program does: for who counts what was not tested.
fn note_skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    if let Some(file) = std::env::var_os("CTR_TEST_SKIPS") {
        let mut file = fs::File::options().append(true).create(true).open(file).unwrap();
        writeln!(file, "{test}\t{reason}").unwrap();
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(registry: &Registry, bytes: &[u8]) -> Result<(), Error> {
    let owned = bytes.to_vec();
    registry.put(&blob(bytes), &move || Ok(Box::new(std::io::Cursor::new(owned.clone()))))
}

fn get(registry: &Registry, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let blob = blob(bytes);
    let mut found = Vec::new();
    Verified::new(registry.blob(&blob, 0)?.1, &blob.digest, blob.size).read_to_end(&mut found)?;
    Ok(found)
}

/// An image with one layer.
fn image(layer: &[u8]) -> Document {
    let (config, layer) = (blob(b"{}"), blob(layer));
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE}",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        config.digest, config.size, layer.digest, layer.size
    );
    Document { media_type: MEDIA_TYPE.into(), bytes: text.into() }
}

fn push(registry: &Registry, layer: &[u8]) -> Result<Document, Error> {
    put(registry, b"{}")?;
    put(registry, layer)?;
    let document = image(layer);
    Sink::document(registry, &document, true)?;
    Ok(document)
}

#[test]
fn images_are_written_and_read() {
    let Some(daemon) = Daemon::start("images_are_written_and_read", temporary(), "") else { return };
    let settings = daemon.insecure();
    let layer = noise(3_000_000);
    let registry = daemon.open("me/app:1", &settings, None);
    assert!(!registry.has(&blob(&layer)).unwrap());
    let document = push(&registry, &layer).unwrap();
    assert!(registry.has(&blob(&layer)).unwrap());
    put(&registry, b"").unwrap();
    assert_eq!(registry.newest().unwrap(), Some(document.digest()));
    assert_eq!(registry.tags().unwrap(), ["1"]);
    assert_eq!(Source::document(&registry, None).unwrap(), document);
    assert_eq!(Source::document(&registry, Some(&document.digest())).unwrap(), document);
    assert!(get(&registry, &layer).unwrap() == layer);
    let (start, mut reader) = registry.blob(&blob(&layer), 2_999_990).unwrap();
    let mut end = Vec::new();
    reader.read_to_end(&mut end).unwrap();
    assert_eq!((start, &end[..]), (2_999_990, &layer[2_999_990..]));

    let other = daemon.open("you/app:2", &settings, None).mounting_from(registry.image());
    let never = || Err(Error::other("it should have been mounted"));
    other.put(&blob(&layer), &never).unwrap();
    assert!(other.has(&blob(&layer)).unwrap());

    registry.delete(&document.digest()).unwrap();
    let error = Source::document(&registry, None).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.to_string().contains("MANIFEST_UNKNOWN: manifest unknown"), "{error}");
    let error = daemon.open("none:1", &settings, None).tags().unwrap_err().to_string();
    assert!(error.contains("NAME_UNKNOWN: repository name not known to registry"), "{error}");
    let mut wrong = blob(&layer);
    wrong.digest = blob(b"x").digest;
    let error = registry.put(&wrong, &|| Ok(Box::new(std::io::Cursor::new(noise(3_000_000)))));
    assert!(error.unwrap_err().to_string().contains("DIGEST_INVALID"));
}

/// The passwords of htpasswd(1): `me`, whose password is `p:w s"d`.
const HTPASSWD: &str = "me:$2y$04$qUGg4EwYGgOl7m1rFWThLOPWveox8kmHmjja2IIzwmJ8QRvlh9oRO\n";

#[test]
fn who_has_logged_in_may_write() {
    let directory = temporary();
    let file = directory.path().join("htpasswd");
    fs::write(&file, HTPASSWD).unwrap();
    let auth = format!("auth:\n  htpasswd: {{ realm: here, path: {} }}\n", file.display());
    let Some(daemon) = Daemon::start("who_has_logged_in_may_write", directory, &auth) else { return };
    let settings = daemon.insecure();
    let me: Credentials = "me:p:w s\"d".parse().unwrap();
    let error = daemon.open("app:1", &settings, None).newest().unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    assert!(error.to_string().contains("not logged in: `ctr image login"), "{error}");
    let error = push(&daemon.open("app:1", &settings, None), b"layer").unwrap_err();
    assert!(error.to_string().contains("UNAUTHORIZED: authentication required"), "{error}");
    push(&daemon.open("app:1", &settings, Some(me.clone())), b"layer").unwrap();
    let wrong = "me:wrong".parse().unwrap();
    assert_eq!(login(&daemon.host, &wrong, &settings, None).unwrap_err().kind, Kind::Denied);
    login(&daemon.host, &me, &settings, None).unwrap();
    assert_eq!(get(&daemon.open("app:1", &settings, None), b"layer").unwrap(), b"layer");
}

/// Makes an authority, and a certificate of it for 127.0.0.1 and one for a client.
fn certificates(directory: &Path) -> bool {
    let script = r#"
        set -e
        new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        $new -x509 -keyout ca.key -out ca.crt -subj /CN=ca -days 2
        for who in server client; do
            $new -keyout $who.key -out $who.csr -subj /CN=$who
            printf 'subjectAltName=IP:127.0.0.1\n' >$who.ext
            openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $who.ext -out $who.cert
        done"#;
    let output = Command::new("/bin/sh").args(["-c", script]).current_dir(directory).output().unwrap();
    output.status.success()
}

fn with_tls(test: &str, more: &str) -> Option<Daemon> {
    let directory = temporary();
    if !certificates(directory.path()) {
        note_skip(test, "openssl makes no certificates");
        return None;
    }
    let at = directory.path().display();
    let tls = format!("  tls:\n    certificate: {at}/server.cert\n    key: {at}/server.key\n");
    let more = more.replace("AT", &at.to_string());
    Daemon::start(test, directory, &(tls + &more))
}

/// Copies `files` to where certificates for `daemon` are looked for.
fn trust(daemon: &Daemon, place: &str, files: &[&str]) {
    let directory = daemon.directory.path().join(place).join(&daemon.host);
    fs::create_dir_all(&directory).unwrap();
    for file in files {
        fs::copy(daemon.directory.path().join(file), directory.join(file)).unwrap();
    }
}

#[test]
fn certificates_are_checked() {
    let Some(daemon) = with_tls("certificates_are_checked", "") else { return };
    let settings = daemon.settings();
    let tried = |settings: &Registries| push(&daemon.open("app:1", settings, None), b"layer");
    let error = tried(&settings).unwrap_err().to_string();
    assert!(error.contains("nobody known here vouches for") && error.contains("certs.d"), "{error}");
    tried(&daemon.insecure()).unwrap();
    let mut own = settings.clone();
    own.places.roots = Some(daemon.directory.path().join("ca.crt"));
    tried(&own).unwrap();
    trust(&daemon, "etc/docker/certs.d", &["ca.crt"]);
    tried(&settings).unwrap();
    assert_eq!(get(&daemon.open("app:1", &settings, None), b"layer").unwrap(), b"layer");
}

#[test]
fn a_client_shows_its_certificate() {
    let more = "    clientcas: [AT/ca.crt]\n";
    let Some(daemon) = with_tls("a_client_shows_its_certificate", more) else { return };
    trust(&daemon, "config/containers/certs.d", &["ca.crt"]);
    let settings = daemon.settings();
    let tried = || push(&daemon.open("app:1", &settings, None), b"layer");
    let error = tried().unwrap_err().to_string();
    assert!(error.contains("wants a certificate from us"), "{error}");
    let insecure = daemon.open("app:1", &daemon.insecure(), None);
    let error = insecure.newest().unwrap_err().to_string();
    assert!(error.contains("wants a certificate from us"), "{error}");
    trust(&daemon, "config/containers/certs.d", &["client.cert", "client.key"]);
    tried().unwrap();
    // A key of another certificate.
    trust(&daemon, "config/containers/certs.d", &["server.key"]);
    let place = daemon.directory.path().join("config/containers/certs.d").join(&daemon.host);
    fs::rename(place.join("server.key"), place.join("client.key")).unwrap();
    let error = tried().unwrap_err().to_string();
    assert!(error.contains("client.key"), "{error}");
}

/// Passes on what is sent to `target`, and breaks one connection each way after so many bytes in all. Says
/// how many were passed on each way.
fn bad_line(target: String, breaks: [u64; 2]) -> (String, [Arc<AtomicU64>; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let passed: [Arc<AtomicU64>; 2] = Default::default();
    let counts = passed.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(&target).unwrap();
            for (from, to, way) in [(&client, &server, 0), (&server, &client, 1)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let (count, limit) = (counts[way].clone(), breaks[way]);
                thread::spawn(move || pass(&from, &to, &count, limit));
            }
        }
    });
    (host, passed)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, passed: &AtomicU64, limit: u64) {
    let mut buffer = [0; 16384];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let before = passed.fetch_add(count as u64, Ordering::SeqCst);
        let is_at_limit = before < limit && before + count as u64 >= limit;
        if is_at_limit || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_bad_line_is_borne() {
    let Some(daemon) = Daemon::start("a_bad_line_is_borne", temporary(), "") else { return };
    let layer = noise(40_000_000);
    let (line, passed) = bad_line(daemon.host.clone(), [25_000_000, 15_000_000]);
    let settings = Registries { insecure: vec![line.clone()], ..daemon.settings() };
    let registry = Registry::open(&format!("{line}/app:1").parse().unwrap(), &settings, None).unwrap();
    push(&registry, &layer).unwrap();
    assert!(get(&registry, &layer).unwrap() == layer);
    // What had come when the line broke is not sent again; this registry forgets what was sent to it, so that
    // is.
    let [up, down] = passed.map(|count| count.load(Ordering::SeqCst));
    assert!((40_000_000..45_000_000).contains(&down), "{down}");
    assert!((65_000_000..70_000_000).contains(&up), "{up}");
}
