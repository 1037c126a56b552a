//! One request and its response, to whatever host: addresses, connections, and what is never sent to
//! strangers.

use super::lookup::Lookup;
use super::settings::{Endpoint, Registries};
use super::{failure, tls};
use crate::error::{Context, Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::http::{self, Method};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy, SendBody};

/// Where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) is_tls: bool,
    /// With the port, if it is said.
    pub(super) host: String,
    /// With the query.
    path: String,
}

impl Url {
    /// The address `path` at `host`.
    pub(super) fn new(is_tls: bool, host: &str, path: &str) -> Url {
        Url { is_tls, host: host.to_lowercase(), path: path.to_owned() }
    }

    /// An address with its scheme.
    pub(super) fn parse(text: &str) -> Result<Url> {
        let wrong = || Error::damaged(format!("{:?} is no address of HTTP", failure::plain(text)));
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // Names and passwords in an address would end up in messages.
        if host.is_empty() || host.contains('@') {
            return Err(wrong());
        }
        Ok(Url::new(is_tls, host, &if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
    }

    /// What `location` means when this address answers with it (RFC 3986, 5.2).
    pub(super) fn join(&self, location: &str) -> Result<Url> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.is_tls { "https" } else { "http" };
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Url::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        Ok(Url { path, ..self.clone() })
    }

    /// This address with `query` after what it asks already.
    pub(super) fn with_query(&self, query: &str) -> Url {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{separator}{query}", self.path), ..self.clone() }
    }

    /// Whether both are served by one host: only then does one answer for the other.
    pub(super) fn is_same_origin(&self, other: &Url) -> bool {
        let with_port = |url: &Url| match url.host.rsplit_once(':') {
            Some((_, port)) if !port.contains(']') => url.host.clone(),
            _ => format!("{}:{}", url.host, if url.is_tls { 443 } else { 80 }),
        };
        self.is_tls == other.is_tls && with_port(self) == with_port(other)
    }

    fn whole(&self) -> String {
        format!("{}://{}{}", if self.is_tls { "https" } else { "http" }, self.host, self.path)
    }
}

impl fmt::Display for Url {
    /// Without the query: that of a signed address is as good as a password. Servers make them, so it is plain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.whole();
        f.write_str(&failure::plain(whole.split('?').next().unwrap_or_default()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `text` as a part of a query.
pub(super) fn escape(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// Gives out the bytes of a payload, as often as asked.
pub(super) type Open<'a> = &'a dyn Fn() -> Result<Box<dyn Read + Send>>;

/// What is sent along.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// Nothing.
    None,
    /// Few bytes.
    Bytes(&'a [u8]),
    /// Many: so many of them, behind so many that are left out.
    Stream { skip: u64, length: u64, open: Open<'a> },
}

/// A request.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, url: Url) -> Request<'a> {
        Request { method, url, headers: Vec::new(), payload: Payload::None }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Request<'a> {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn payload(mut self, payload: Payload<'a>) -> Request<'a> {
        self.payload = payload;
        self
    }
}

/// A response, and which address it is from.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) url: Url,
    pub(super) inner: http::Response<ureq::Body>,
}

impl Response {
    pub(super) fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// The header `name`, where it is plain text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body, of at most `limit` bytes.
    pub(super) fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let host = self.url.host;
        // One more shows that there are more.
        let mut reader = self.inner.into_body().into_with_config().limit(limit + 2).reader().take(limit + 1);
        reader.read_to_end(&mut bytes).map_err(|error| failure::lost(&host, error))?;
        match bytes.len() as u64 > limit {
            true => Err(Error::damaged(format!("the answer of {host} is longer than {limit} bytes"))),
            false => Ok(bytes),
        }
    }

    /// The body as it comes.
    pub(super) fn reader(self) -> ureq::BodyReader<'static> {
        self.inner.into_body().into_reader()
    }
}

/// Connections, kept for the next request to the same host.
pub(super) struct Transport {
    registries: Registries,
    /// The host that may be spoken to as an insecure one, beside those of the settings.
    insecure: Option<String>,
    agents: Mutex<HashMap<(bool, String), Agent>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("insecure", &self.insecure).finish_non_exhaustive()
    }
}

impl Transport {
    /// For `endpoint`, and what it refers to.
    pub(super) fn new(registries: &Registries, endpoint: &Endpoint) -> Transport {
        let insecure =
            endpoint.insecure.then(|| super::settings::api_host(&endpoint.registry).to_lowercase());
        Transport { registries: registries.clone(), insecure, agents: Mutex::default() }
    }

    /// Whether `host` may be one that nobody vouches for.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.insecure.as_deref() == Some(host) || self.registries.is_insecure(host)
    }

    /// Sends `request`, and nothing else: no redirect is followed.
    pub(super) fn run(&self, request: &Request<'_>, authorization: Option<&str>) -> Result<Response> {
        let agent = self.agent(&request.url)?;
        let mut builder = http::Request::builder().method(&request.method).uri(request.url.whole());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(value) = authorization {
            builder = builder.header("Authorization", value);
        }
        let bad = |error: http::Error| Error::damaged(format!("{}: {error}", request.url));
        let answer = match request.payload {
            Payload::None if matches!(request.method, Method::POST | Method::PUT) => {
                agent.run(builder.body(&[][..]).map_err(bad)?)
            }
            Payload::None => agent.run(builder.body(()).map_err(bad)?),
            Payload::Bytes(bytes) => agent.run(builder.body(bytes).map_err(bad)?),
            Payload::Stream { skip, length, open } => {
                let mut source = Source { inner: open()?, left: length };
                source.skip(skip)?;
                let builder = builder.header("Content-Length", length);
                let request = builder.body(SendBody::from_reader(&mut source)).map_err(bad)?;
                agent.run(agent.configure_request(request).timeout_per_read(Some(self.patience())).build())
            }
        };
        match answer {
            Ok(inner) => Ok(Response { url: request.url.clone(), inner }),
            Err(error) => {
                Err(failure::of_transport(error, &request.url, self.is_insecure(&request.url.host)))
            }
        }
    }

    /// How long who has been sent a lot may be silent: the registry computes its digest, or moves it to its
    /// storage.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.registries.stall_timeout.max(1).saturating_mul(5))
    }

    fn agent(&self, url: &Url) -> Result<Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (url.is_tls, url.host.clone());
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.new_agent(url)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn new_agent(&self, url: &Url) -> Result<Agent> {
        let registries = &self.registries;
        let stall = Some(Duration::from_secs(registries.stall_timeout.max(1)));
        let proxy = registries.places.proxy(url.is_tls, &url.host);
        let proxy = proxy.map(Proxy::new).transpose();
        let proxy = proxy
            .map_err(|_| Error::other("the address of the proxy in HTTPS_PROXY or HTTP_PROXY is none"))?;
        // A limit of the whole, or of the look-up of names, would be kept by a thread: ureq has one for that.
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("ctr/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(registries.connect_timeout.max(1))))
            .timeout_per_read(stall)
            .timeout_per_write(stall)
            .proxy(proxy);
        if url.is_tls {
            let insecure = self.is_insecure(&url.host);
            let tls = tls::config(&registries.places, &url.host, insecure);
            config = config.tls_config(tls.doing(|| format!("prepare a connection to {}", url.host))?);
        }
        Ok(Agent::with_parts(config.build(), DefaultConnector::default(), Lookup))
    }
}

/// What is sent: exactly so many bytes, and errors that cannot be mistaken for the connection's.
struct Source {
    inner: Box<dyn Read + Send>,
    left: u64,
}

impl Source {
    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink())?;
        match skipped == count {
            true => Ok(()),
            false => Err(Error::damaged("what is sent ends too early")),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..most]) {
            Ok(0) => Err(Error::damaged("what is sent ends too early").into()),
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(Error::from(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_relative_to_who_answers() {
        let base = Url::parse("https://r.io:5000/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, expected) in [
            ("/v2/b?state=2", "https://r.io:5000/v2/b?state=2"),
            ("id?state=2", "https://r.io:5000/v2/a/blobs/uploads/id?state=2"),
            ("?y=2", "https://r.io:5000/v2/a/blobs/uploads/?y=2"),
            ("//cdn.io/z", "https://cdn.io/z"),
            ("HTTP://cdn.io?u=http://x#f", "http://cdn.io/?u=http://x"),
        ] {
            assert_eq!(base.join(location).unwrap().whole(), expected);
        }
        for wrong in ["ftp://a/b", "https://me:secret@a/b", "https:///b"] {
            assert!(base.join(wrong).is_err(), "{wrong}");
        }
        assert_eq!(base.to_string(), "https://r.io:5000/v2/a/blobs/uploads/");
        assert_eq!(base.with_query("d=1").whole(), "https://r.io:5000/v2/a/blobs/uploads/?x=1&d=1");
        assert_eq!(escape("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().is_same_origin(&Url::parse(b).unwrap());
        assert!(same("https://r.io/a", "https://R.io:443/b"));
        assert!(same("https://[::1]/a", "https://[::1]:443/b"));
        assert!(!same("https://r.io", "http://r.io"));
        assert!(!same("https://r.io", "https://r.io:5000"));
        assert!(!same("https://r.io", "https://r.io.evil"));
    }
}
