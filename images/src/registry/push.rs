//! Writing to a registry: a blob in one piece, in parts where that fails, and documents.

use super::client::{Client, is_transient};
use super::http::{Open, Payload, Request, Response, Url, escape};
use crate::error::{Error, Kind, Result};
use crate::source::{Blob, Document};
use ureq::http::Method;

/// The size of a part, unless the registry wants larger ones: what gateways let pass.
const PART: u64 = 16 << 20;

/// The scope that writing needs.
fn scope(client: &Client) -> String {
    format!("repository:{}:pull,push", client.endpoint.repository)
}

/// Whether the registry has `blob` in this repository.
pub(super) fn has(client: &Client, blob: &Blob) -> Result<bool> {
    let url = client.url(&format!("blobs/{}", blob.digest))?;
    let response = client.send(&Request::new(Method::HEAD, url), &scope(client))?;
    match response.status() {
        200 => Ok(true),
        404 => Ok(false),
        _ => Err(client.failure(response)),
    }
}

/// An upload under way.
struct Upload {
    /// Where it goes on: told anew with every answer.
    location: Url,
    /// How much the registry has of it.
    offset: u64,
    part: u64,
}

/// What the registry says to the beginning of an upload.
enum Begun {
    /// It has the blob in another repository, and now in this one.
    Mounted,
    Upload(Upload),
}

/// Takes in `blob`; `from` is another repository of this registry that is said to have it.
pub(super) fn put(client: &Client, blob: &Blob, from: Option<&str>, open: Open<'_>) -> Result<()> {
    let mut upload = match begin(client, blob, from)? {
        Begun::Mounted => return Ok(()),
        Begun::Upload(upload) => upload,
    };
    match whole(client, blob, &mut upload, open)? {
        Outcome::Done => return Ok(()),
        // It may have come to its end, and only the answer been lost.
        Outcome::Resume if has(client, blob)? => return Ok(()),
        Outcome::Resume => resume(client, blob, &mut upload)?,
        Outcome::InParts => match begin(client, blob, None)? {
            Begun::Mounted => return Ok(()),
            Begun::Upload(anew) => upload = anew,
        },
    }
    in_parts(client, blob, upload, open)
}

fn begin(client: &Client, blob: &Blob, from: Option<&str>) -> Result<Begun> {
    let query = from.map_or_else(String::new, |from| {
        format!("?mount={}&from={}", escape(blob.digest.as_str()), escape(from))
    });
    // The other repository has to be readable to us: the registry sees that by the token.
    let other = from.map_or_else(String::new, |from| format!(" repository:{from}:pull"));
    let scope = scope(client) + &other;
    let response =
        client.send(&Request::new(Method::POST, client.url(&format!("blobs/uploads/{query}"))?), &scope)?;
    match response.status() {
        201 if from.is_some() => Ok(Begun::Mounted),
        202 => {
            let least = response.header("OCI-Chunk-Min-Length").and_then(|length| length.parse().ok());
            let part = PART.max(least.unwrap_or(0));
            Ok(Begun::Upload(Upload { location: location(&response)?, offset: 0, part }))
        }
        // A mount that is not allowed is no reason not to upload.
        _ if from.is_some() => begin(client, blob, None),
        _ => Err(client.failure(response)),
    }
}

fn location(response: &Response) -> Result<Url> {
    let location = response.header("Location").ok_or_else(|| {
        Error::damaged(format!("{} does not say where an upload goes on", response.url.host))
    })?;
    response.url.join(location)
}

/// How the try to send all at once ended.
enum Outcome {
    Done,
    /// It broke off; the registry may have a piece.
    Resume,
    /// The registry does not want it like this.
    InParts,
}

/// POST and PUT: one request for all bytes.
fn whole(client: &Client, blob: &Blob, upload: &mut Upload, open: Open<'_>) -> Result<Outcome> {
    let payload = match blob.size {
        0 => Payload::Bytes(&[]),
        length => Payload::Stream { skip: 0, length, open },
    };
    let request = Request::new(Method::PUT, finish_url(&upload.location, blob))
        .header("Content-Type", "application/octet-stream")
        .payload(payload);
    match send(client, &request, &upload.location)? {
        None => Ok(Outcome::Resume),
        Some(response) => match response.status() {
            201 | 204 => Ok(Outcome::Done),
            400 | 405 | 411 | 413 | 416 | 501 => Ok(Outcome::InParts),
            _ => Err(client.failure(response)),
        },
    }
}

fn finish_url(location: &Url, blob: &Blob) -> Url {
    location.with_query(&format!("digest={}", escape(blob.digest.as_str())))
}

/// Sends a request of an upload. None: the connection broke, or the registry cannot now.
///
/// Uploads may go to another host than the registry (its storage): that one is not told who we are, its
/// address says enough.
fn send(client: &Client, request: &Request<'_>, location: &Url) -> Result<Option<Response>> {
    let is_ours = location.is_same_origin(&client.absolute("/")?);
    let sent = if is_ours { client.send(request, &scope(client)) } else { client.fetch_elsewhere(request) };
    match sent {
        Ok(response) if is_transient(response.status()) => Ok(None),
        Ok(response) => Ok(Some(response)),
        Err(error) if error.kind == Kind::Lost => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks how much of the upload the registry has. One that it does not know any more begins anew.
fn resume(client: &Client, blob: &Blob, upload: &mut Upload) -> Result<()> {
    client.wait(0);
    let request = Request::new(Method::GET, upload.location.clone());
    let response = match send(client, &request, &upload.location)? {
        None => {
            return Err(Error::new(
                Kind::Lost,
                format!("the connection to {} was lost", upload.location.host),
            ));
        }
        Some(response) => response,
    };
    if matches!(response.status(), 200 | 202 | 204) {
        go_on(upload, &response, blob)?;
        // "0-0" is what registries say of an upload of which they have nothing, as well as of one byte.
        if upload.offset > 0 {
            return Ok(());
        }
    }
    match begin(client, blob, None)? {
        Begun::Upload(anew) => {
            *upload = anew;
            Ok(())
        }
        Begun::Mounted => Err(Error::damaged("the registry has taken in what it was not sent")),
    }
}

/// Takes note of what the registry says of the upload.
fn go_on(upload: &mut Upload, response: &Response, blob: &Blob) -> Result<()> {
    if response.header("Location").is_some() {
        upload.location = location(response)?;
    }
    let range = response.header("Range").map(|range| range.trim().trim_start_matches("bytes="));
    let end = range.and_then(|range| range.split_once('-')).and_then(|(_, end)| end.parse::<u64>().ok());
    let offset = end.filter(|end| *end > 0).map_or(0, |end| end + 1);
    match offset > blob.size {
        true => Err(Error::damaged(format!("the registry has {offset} bytes of a blob of {}", blob.size))),
        false => {
            upload.offset = offset;
            Ok(())
        }
    }
}

/// PATCH after PATCH, and an empty PUT.
fn in_parts(client: &Client, blob: &Blob, mut upload: Upload, open: Open<'_>) -> Result<()> {
    let mut failures = 0;
    // Some registries forget an upload that broke off. One that never comes farther is given up.
    let mut farthest = upload.offset;
    loop {
        let before = upload.offset;
        let step = match before < blob.size {
            true => part(client, blob, &mut upload, open)?,
            false => match finish(client, blob, &upload)? {
                Some(()) => return Ok(()),
                None => None,
            },
        };
        match step {
            Some(()) if upload.offset > farthest => (failures, farthest) = (0, upload.offset),
            Some(()) => {}
            _ if failures >= client.retries() => {
                return Err(Error::new(
                    Kind::Lost,
                    format!("the upload to {} broke off too often", upload.location.host),
                ));
            }
            _ => {
                client.wait(failures);
                failures += 1;
                // One whose state cannot be asked for is asked again.
                match resume(client, blob, &mut upload) {
                    Err(error) if error.kind == Kind::Lost => {}
                    other => other?,
                }
            }
        }
    }
}

/// One part. None: it broke off.
fn part(client: &Client, blob: &Blob, upload: &mut Upload, open: Open<'_>) -> Result<Option<()>> {
    let length = upload.part.min(blob.size - upload.offset);
    let end = upload.offset + length;
    let request = Request::new(Method::PATCH, upload.location.clone())
        .header("Content-Type", "application/octet-stream")
        .header("Content-Range", format!("{}-{}", upload.offset, end - 1))
        .payload(Payload::Stream { skip: upload.offset, length, open });
    match send(client, &request, &upload.location)? {
        None => Ok(None),
        Some(response) => match response.status() {
            201 | 202 | 204 => {
                if response.header("Location").is_some() {
                    upload.location = location(&response)?;
                }
                upload.offset = end;
                Ok(Some(()))
            }
            // Out of step: what it has is asked for.
            416 => Ok(None),
            _ => Err(client.failure(response)),
        },
    }
}

fn finish(client: &Client, blob: &Blob, upload: &Upload) -> Result<Option<()>> {
    let request = Request::new(Method::PUT, finish_url(&upload.location, blob)).payload(Payload::Bytes(&[]));
    match send(client, &request, &upload.location)? {
        None if has(client, blob)? => Ok(Some(())),
        None => Ok(None),
        Some(response) => match response.status() {
            201 | 204 => Ok(Some(())),
            _ => Err(client.failure(response)),
        },
    }
}

/// Takes in a document as `reference`.
pub(super) fn document(client: &Client, document: &Document, reference: &str) -> Result<()> {
    let request = Request::new(Method::PUT, client.url(&format!("manifests/{reference}"))?)
        .header("Content-Type", document.media_type.clone())
        .payload(Payload::Bytes(&document.bytes));
    let response = client.send(&request, &scope(client))?;
    if !matches!(response.status(), 200..=202) {
        return Err(client.failure(response));
    }
    let digest = document.digest();
    match response.header("Docker-Content-Digest") {
        Some(told) if told.starts_with("sha256:") && told != digest.as_str() => {
            Err(Error::damaged(format!("the registry calls {told} what was sent as {digest}")))
        }
        _ => Ok(()),
    }
}

/// Takes the document `digest` out of the repository.
pub(super) fn delete(client: &Client, digest: &str) -> Result<()> {
    let scope = format!("repository:{}:delete", client.endpoint.repository);
    let response =
        client.send(&Request::new(Method::DELETE, client.url(&format!("manifests/{digest}"))?), &scope)?;
    match response.status() {
        200 | 202 | 204 => Ok(()),
        405 => Err(Error::new(
            Kind::Denied,
            format!("{} deletes nothing: it is configured like that", response.url.host),
        )),
        _ => Err(client.failure(response)),
    }
}
