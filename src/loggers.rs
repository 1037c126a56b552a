//! The host's loggers, for crun's `--log journald:NAME` and `--log syslog:NAME`: a datagram for each event.

use anyhow::{Context, Result};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::Level;

/// syslog(3)'s facility for programs of users, `LOG_USER`.
const USER: u8 = 1 << 3;

/// Who takes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// systemd-journald, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
    Journald,
    /// Whoever listens at /dev/log, by that of RFC 3164.
    Syslog,
}

/// A connection with one of them.
#[derive(Debug)]
pub struct Logger {
    kind: Kind,
    name: String,
    socket: UnixDatagram,
}

impl Logger {
    /// The one that `--log DESTINATION` names; none where that is a file.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn named(destination: &str) -> Option<Result<Self>> {
        let (kind, place, name) = match destination.split_once(':')? {
            ("journald", name) => (Kind::Journald, "/run/systemd/journal/socket", name),
            ("syslog", name) => (Kind::Syslog, "/dev/log", name),
            _ => return None,
        };
        let connected = Logger::connect(kind, Path::new(place), name);
        Some(connected.with_context(|| format!("--log {destination}: reach {place}")))
    }

    fn connect(kind: Kind, place: &Path, name: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A logger that does not read must not hold a container up.
        socket.set_nonblocking(true)?;
        socket.connect(place)?;
        let name = if name.is_empty() { env!("CARGO_PKG_NAME") } else { name };
        Ok(Logger { kind, name: name.to_owned(), socket })
    }

    /// Sends `text`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, level: Level, text: &str) -> io::Result<()> {
        let severity = severity(level);
        let datagram = match self.kind {
            Kind::Journald => [
                field("PRIORITY", &severity.to_string()),
                field("SYSLOG_IDENTIFIER", &self.name),
                // As crun calls it.
                field("ID", &self.name),
                field("MESSAGE", text),
            ]
            .concat(),
            Kind::Syslog => {
                format!("<{}>{}[{}]: {text}", USER | severity, self.name, std::process::id()).into_bytes()
            }
        };
        self.socket.send(&datagram).map(drop)
    }
}

/// One field of an entry: a text with a line break in it has its length before it.
fn field(name: &str, value: &str) -> Vec<u8> {
    if !value.contains('\n') {
        return format!("{name}={value}\n").into_bytes();
    }
    let length = (value.len() as u64).to_le_bytes();
    [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat()
}

/// syslog(3)'s.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_in_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("log");
        let listener = UnixDatagram::bind(&place).unwrap();
        let said = |kind, name: &str, text: &str| {
            Logger::connect(kind, &place, name).unwrap().send(Level::WARN, text).unwrap();
            let mut bytes = [0; 512];
            let count = listener.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let pid = std::process::id();
        assert_eq!(said(Kind::Syslog, "web", "oh"), format!("<12>web[{pid}]: oh"));
        assert_eq!(said(Kind::Journald, "", "oh"), "PRIORITY=4\nSYSLOG_IDENTIFIER=ctr\nID=ctr\nMESSAGE=oh\n");
        let long = said(Kind::Journald, "web", "a\nb=c");
        assert!(long.ends_with("MESSAGE\n\u{5}\0\0\0\0\0\0\0a\nb=c\n"), "no field of its own: {long:?}");
    }

    #[test]
    fn a_file_is_no_logger_and_one_that_is_away_is_named() {
        assert!(Logger::named("/var/log/x").is_none() && Logger::named("file:journald").is_none());
        let dir = tempfile::tempdir().unwrap();
        assert!(Logger::connect(Kind::Syslog, &dir.path().join("none"), "x").is_err());
    }
}
