//! What went wrong, in words: the registry's own, the connection's, and what to do next.

use super::http::{Response, Url};
use crate::error::{Error, Kind};
use serde::Deserialize;
use std::io;
use ureq::Timeout;

/// As much as is read of an answer that is no success.
const LARGEST: u64 = 64 << 10;

/// As much of a server's words as is shown.
const LONGEST: usize = 500;

/// What a server says, as a line that cannot move a terminal's cursor.
pub(super) fn plain(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// distribution-spec, "Error Codes".
#[derive(Deserialize)]
struct Body {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

/// The error that a response is. `user`: whose credentials were sent.
pub(super) fn of_response(response: Response, registry: &str, user: Option<&str>) -> Error {
    let status = response.status();
    let host = response.url.host.clone();
    let kind = match status {
        404 | 410 => Kind::NotFound,
        401 | 403 => Kind::Denied,
        408 | 429 | 500..=599 => Kind::Lost,
        _ => Kind::Other,
    };
    let reason = response.inner.status().canonical_reason().unwrap_or_default();
    let again =
        response.header("Retry-After").map(|after| format!("; it says to try again in {} s", plain(after)));
    let is_text = response.header("Content-Type").is_none_or(|kind| !kind.contains("html"));
    let body = response.bytes(LARGEST).unwrap_or_default();
    let said = match words(&body) {
        Some(words) => format!(": {words}"),
        // Pages of gateways are not for a terminal.
        None if is_text && !body.is_empty() => format!(": {}", plain(&String::from_utf8_lossy(&body))),
        None => String::new(),
    };
    let next = match (kind, user) {
        (Kind::Denied, None) => format!("; not logged in: `ctr image login {registry}`"),
        (Kind::Denied, Some(user)) => format!("; asked as {}", plain(user)),
        (Kind::Lost, None) if status == 429 => {
            format!(
                "{}; who is logged in may ask more often: `ctr image login {registry}`",
                again.unwrap_or_default()
            )
        }
        (Kind::Lost, _) => again.unwrap_or_default(),
        _ => String::new(),
    };
    Error::new(kind, format!("{host} answers {status} {reason}{said}{next}"))
}

/// The errors that `body` lists.
fn words(body: &[u8]) -> Option<String> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let one = |entry: &Entry| {
        let detail = match &entry.detail {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) if *text == entry.message => String::new(),
            serde_json::Value::String(text) => format!(" ({text})"),
            other => format!(" ({other})"),
        };
        plain(&format!("{}: {}{detail}", entry.code, entry.message))
    };
    let all: Vec<String> = body.errors.iter().map(one).collect();
    (!all.is_empty()).then(|| plain(&all.join(", ")))
}

/// A connection that ended in the middle of an answer.
pub(super) fn lost(host: &str, error: io::Error) -> Error {
    // What we have put into a reader ourselves stays what it is.
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return error.into();
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    let reason = match inner {
        Some(ureq::Error::Timeout(_)) => "nothing came for too long".to_owned(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it was closed".to_owned(),
        None => error.to_string(),
    };
    Error::new(Kind::Lost, format!("the connection to {host} was lost: {}", plain(&reason)))
}

/// The error of a request that had no response.
pub(super) fn of_transport(error: ureq::Error, url: &Url, insecure: bool) -> Error {
    let host = &url.host;
    match error {
        ureq::Error::Io(error) => of_io(error, url, insecure),
        ureq::Error::Rustls(error) => of_tls(&error, url),
        ureq::Error::Timeout(Timeout::Connect) => {
            Error::new(Kind::Lost, format!("no connection to {host}: it does not answer"))
        }
        ureq::Error::Timeout(_) => {
            Error::new(Kind::Lost, format!("the connection to {host} was lost: nothing came for too long"))
        }
        ureq::Error::HostNotFound => unknown_host(host),
        ureq::Error::Protocol(error) => not_http(host, &error.to_string(), url.is_tls),
        ureq::Error::LargeResponseHeader(..) => Error::damaged(format!("the headers of {host} are too long")),
        other => Error::other(format!("{host}: {}", plain(&other.to_string()))),
    }
}

fn of_io(error: io::Error, url: &Url, insecure: bool) -> Error {
    let host = &url.host;
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(inner, url);
    }
    // What we say ourselves, as of a name that cannot be looked up.
    if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return own.clone();
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Error::other(format!("{host} refuses the connection: nothing listens there"))
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Error::other(format!("no way to {host}: {}", plain(&error.to_string())))
        }
        io::ErrorKind::UnexpectedEof if url.is_tls && insecure => {
            Error::new(Kind::Lost, format!("{host} closed the connection without an answer"))
        }
        _ => lost(host, error),
    }
}

fn unknown_host(host: &str) -> Error {
    Error::other(format!("no address is known for {host}: is the name right, and is there a name server?"))
}

fn not_http(host: &str, words: &str, is_tls: bool) -> Error {
    let hint = if is_tls { "" } else { "; does it want TLS?" };
    Error::damaged(format!("{host} does not answer as HTTP does: {}{hint}", plain(words)))
}

/// What plain HTTP looks like to who expects TLS.
pub(super) fn is_plain_http(error: &Error) -> bool {
    error.text.layers.last().is_some_and(|text| text.contains(PLAIN))
}

const PLAIN: &str = "speaks plain HTTP";

fn of_tls(error: &rustls::Error, url: &Url) -> Error {
    use rustls::{AlertDescription, CertificateError, Error as Tls};
    let host = &url.host;
    let place = format!("/etc/containers/certs.d/{host}/ca.crt");
    Error::other(match error {
        Tls::InvalidMessage(_) => {
            format!("{host} {PLAIN}, not TLS; if that is meant, name it in `insecure` of the settings")
        }
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
            "nobody known here vouches for {host}: put the certificate of its authority into {place}, \
             or name it in `insecure` of the settings"
        ),
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {host} is no longer valid; is the clock right?")
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("the certificate that {host} shows is another host's"),
        // Go's servers say the second where TLS 1.3 has the first.
        Tls::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => {
            format!(
                "{host} wants a certificate from us that it knows: put it and its key into \
             /etc/containers/certs.d/{host}/ as client.cert and client.key"
            )
        }
        other => format!("no TLS with {host}: {}", plain(&other.to_string())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_registry_s() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}},
            {"code":"X","message":"y","detail":"y"}]}"#;
        assert_eq!(words(body).unwrap(), r#"DENIED: no ({"a":1}), X: y"#);
        assert_eq!(words(b"<html>"), None);
        assert_eq!(plain("a\x1b[31m\r\n b\t"), "a [31m b");
        assert_eq!(plain(&"x".repeat(1000)).len(), LONGEST + 3);
    }
}
