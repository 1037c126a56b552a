//! A registry in the test's own hands: it answers what the test says, and remembers what it was asked.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use ctr_images::digest::Digest;
use ctr_images::registry::{Places, Registries, Registry};
use ctr_images::source::Blob;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// How many of this method and path came before.
    pub before: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Method and path.
    pub fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
    stall: bool,
}

pub fn reply(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), cut: None, stall: false }
}

impl Reply {
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }

    /// Breaks off after so many bytes of the body.
    pub fn cut(mut self, after: usize) -> Reply {
        self.cut = Some(after);
        self
    }

    /// Falls silent there instead.
    pub fn stall(mut self) -> Reply {
        self.stall = true;
        self
    }
}

/// What a test may do besides answering: break a connection while it is sent to.
pub enum Act {
    Reply(Reply),
    /// Reads so many bytes of the body and resets the connection.
    Break(usize),
}

impl From<Reply> for Act {
    fn from(reply: Reply) -> Act {
        Act::Reply(reply)
    }
}

pub struct Server {
    pub host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers what `answer` says.
    pub fn new(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::acting(move |seen| answer(seen).into())
    }

    /// `act` is asked before the body of a request is read.
    pub fn acting(act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, act) = (seen.clone(), Arc::new(act));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, act) = (log.clone(), act.clone());
                thread::spawn(move || serve(&stream.unwrap(), &log, &*act));
            }
        });
        Server { host, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        // What was asked only to learn whether this speaks TLS is of no interest.
        self.seen.lock().unwrap().iter().filter(|seen| seen.path != "/v2/").cloned().collect()
    }

    /// Methods and paths, in order.
    pub fn asked(&self) -> Vec<String> {
        self.seen().iter().map(Seen::what).collect()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Seen>>, act: &dyn Fn(&Seen) -> Act) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    // The first bytes of TLS are no line.
    if reader.fill_buf().ok()?.first() == Some(&22) {
        (&*stream).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").ok()?;
        return None;
    }
    reader.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in reader.by_ref().lines() {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let before = log.lock().unwrap().iter().filter(|seen| seen.method == method && seen.path == path).count();
    let mut seen = Seen { method, path, headers, body: Vec::new(), before };
    let act = act(&seen);
    let read = if let Act::Break(count) = act { count } else { length };
    let ended = reader.by_ref().take(read as u64).read_to_end(&mut seen.body);
    log.lock().unwrap().push(seen.clone());
    ended.ok()?;
    match act {
        Act::Break(_) => stream.shutdown(Shutdown::Both).ok(),
        Act::Reply(reply) => send(stream, &reply, seen.method == "HEAD"),
    }
}

fn send(mut stream: &TcpStream, reply: &Reply, is_head: bool) -> Option<()> {
    let mut text = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    let is_chunked = reply.headers.iter().any(|(name, _)| name == "Transfer-Encoding");
    if !is_chunked && reply.status != 204 {
        text += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all((text + "\r\n").as_bytes()).ok()?;
    if !is_head {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())]).ok()?;
    }
    if reply.stall {
        thread::sleep(Duration::from_secs(20));
    }
    Some(())
}

/// Settings that know nothing of this machine.
pub fn settings(directory: &Path, servers: &[&Server]) -> Registries {
    Registries {
        insecure: servers.iter().map(|server| server.host.clone()).collect(),
        places: Places::below(directory),
        retries: 3,
        connect_timeout: 5,
        stall_timeout: 5,
        ..Registries::default()
    }
}

/// The image `app:1` of `server`, for who is nobody in particular.
pub fn registry(server: &Server) -> Registry {
    let name = format!("{}/app:1", server.host).parse().unwrap();
    Registry::open(&name, &settings(Path::new("/nonexistent"), &[server]), None).unwrap()
}

pub fn blob(bytes: &[u8]) -> Blob {
    Blob {
        media_type: "application/octet-stream".into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
    }
}

/// Bytes without a pattern that would hide a gap.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(next).collect()
}
