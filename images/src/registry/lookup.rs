//! Addresses of hosts, as the host itself looks them up.
//!
//! getaddrinfo(3) loads modules by nsswitch.conf, which a static program cannot: its C library is another than theirs. So
//! getent(1) is asked, which every C library brings.

use super::helper;
use crate::error::{Context, Error, Result};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long an answer may take: the resolver's own limits are shorter.
const LIMIT: Duration = Duration::from_secs(60);

/// Looks hosts up, without a thread.
#[derive(Debug, Default)]
pub(super) struct Lookup;

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        _limit: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = addresses(host).map_err(std::io::Error::from)?;
        let mut all = self.empty();
        for address in found {
            // It holds more than anyone would try.
            if all.try_push(SocketAddr::new(address, port)).is_err() {
                break;
            }
        }
        Ok(all)
    }
}

fn addresses(host: &str) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host.is_empty() || host.starts_with('-') {
        return Err(Error::other(format!("{host:?} is no name of a host")));
    }
    let doing = || format!("look up the host {host:?}");
    let mut command = Command::new("getent");
    command.args(["ahosts", host]).stdin(Stdio::null());
    let (answer, status) = match helper::run(&mut command, "", LIMIT) {
        Err(error) if error.kind == crate::Kind::NotFound => {
            return Err(Error::other("there is no program getent, which looks names up")).doing(doing);
        }
        other => other.doing(doing)?,
    };
    let found = parse(&String::from_utf8_lossy(&answer));
    match found.is_empty() {
        false => Ok(found),
        true => Err(Error::other(match status.code() {
            Some(2) => "no address is known: is the name right, and is there a name server?".to_owned(),
            _ => format!("getent says nothing ({status})"),
        }))
        .doing(doing),
    }
}

/// The addresses in lines as `192.0.2.1 STREAM example.org`, each once.
fn parse(text: &str) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for address in text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses() {
        let text = "::1 STREAM localhost\n::1 DGRAM\n127.0.0.1 STREAM\n127.0.0.1 RAW\nx\n";
        assert_eq!(parse(text), ["::1".parse::<IpAddr>().unwrap(), "127.0.0.1".parse().unwrap()]);
        assert_eq!(addresses("192.0.2.7").unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(addresses("localhost").unwrap().iter().all(IpAddr::is_loopback));
        let error = addresses("no-such-host.invalid").unwrap_err().to_string();
        assert!(error.contains("look up the host \"no-such-host.invalid\""), "{error}");
        assert!(addresses("-s").is_err());
    }
}
