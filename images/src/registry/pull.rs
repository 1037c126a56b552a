//! Reading from a registry: documents, and blobs over connections that may break.

use super::client::Client;
use super::failure;
use super::http::{Request, Response, Url};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{LARGEST_DOCUMENT, media};
use crate::source::{Blob, Document};
use serde::Deserialize;
use std::io::{self, Read};
use std::sync::Arc;
use ureq::http::Method;

/// A connection that has brought so much was a good one: what breaks after it is not counted with what broke
/// before.
const PROGRESS: u64 = 1 << 20;

/// What we understand.
const DOCUMENTS: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST];

/// The scope that reading needs.
pub(super) fn scope(client: &Client) -> String {
    format!("repository:{}:pull", client.endpoint.repository)
}

fn document_request<'a>(client: &Client, method: Method, reference: &str) -> Result<Request<'a>> {
    let url = client.url(&format!("manifests/{reference}"))?;
    Ok(Request::new(method, url).header("Accept", DOCUMENTS.join(", ")))
}

/// The document that `reference`, a tag or a digest, stands for.
pub(super) fn document(client: &Client, reference: &str) -> Result<Document> {
    let response = client.send(&document_request(client, Method::GET, reference)?, &scope(client))?;
    if response.status() != 200 {
        return Err(client.failure(response));
    }
    let told = response.header("Docker-Content-Digest").map(str::to_owned);
    let media_type = response.header("Content-Type").unwrap_or_default().to_owned();
    let bytes = response.bytes(LARGEST_DOCUMENT)?;
    for digest in [reference.parse().ok(), told.and_then(|digest| digest.parse().ok())].into_iter().flatten()
    {
        check_digest(&digest, &bytes)?;
    }
    Ok(Document { media_type: media_type_of(&media_type, &bytes)?, bytes })
}

fn check_digest(digest: &Digest, bytes: &[u8]) -> Result<()> {
    match digest.recompute(bytes) {
        found if found == *digest => Ok(()),
        found => Err(Error::damaged(format!("it should have the digest {digest}, and has {found}"))),
    }
}

/// What a document says of itself.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Outline {
    schema_version: u32,
    media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// What a document is. `told` is what the server says; where that is too general, the document itself.
fn media_type_of(told: &str, bytes: &[u8]) -> Result<String> {
    let told = told.split(';').next().unwrap_or_default().trim();
    let outline: Outline = serde_json::from_slice(bytes).doing(|| "a manifest that is no JSON")?;
    if outline.schema_version == 1 || told.starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return Err(Error::other(
            "it is in Docker's format schema 1, which had no checked contents and was given up in 2017: \
             push it again with a newer program",
        ));
    }
    if outline.manifests.is_some() && outline.layers.is_some() {
        // Which of the two it is would depend on who reads it (CVE-2021-41190).
        return Err(Error::damaged("a manifest that is an index as well"));
    }
    let known = DOCUMENTS.contains(&told);
    match (known, outline.media_type.as_str()) {
        (true, itself) if itself.is_empty() || itself == told => Ok(told.to_owned()),
        (true, itself) => {
            Err(Error::damaged(format!("the server calls it {told}, it calls itself {itself:?}")))
        }
        (false, "") if outline.manifests.is_some() => Ok(DOCUMENTS[0].to_owned()),
        (false, "") if outline.layers.is_some() => Ok(DOCUMENTS[1].to_owned()),
        (false, "") => Err(Error::damaged(format!("{told:?} is no kind of manifest"))),
        (false, itself) => Ok(itself.to_owned()),
    }
}

/// The digest that `reference` stands for now, if the registry says so without sending the document.
pub(super) fn digest(client: &Client, reference: &str) -> Result<Option<Digest>> {
    let response = client.send(&document_request(client, Method::HEAD, reference)?, &scope(client))?;
    match response.status() {
        200 => Ok(response.header("Docker-Content-Digest").and_then(|digest| digest.parse().ok())),
        405 | 501 => Ok(None),
        _ => Err(client.failure(response)),
    }
}

/// The bytes of `blob` from `offset` on, or from the beginning.
pub(super) fn blob(client: &Arc<Client>, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
    if offset >= blob.size {
        return Ok((blob.size, Box::new(io::empty())));
    }
    let url = client.url(&format!("blobs/{}", blob.digest))?;
    let mut reader = Reader::new(client, blob, url, false);
    let first = reader.connect(offset);
    // Layers that may not be given away are at their owner's, and never in the registry.
    let elsewhere = match &first {
        Err(error) if error.kind == Kind::NotFound => from_urls(client, blob, offset),
        _ => None,
    };
    match elsewhere {
        Some(found) => found,
        None => first.map(|start| (start, Box::new(reader) as Box<dyn Read + Send>)),
    }
}

/// The first of the other places of `blob` that has it. The bytes are checked as any others are; still nobody
/// is to learn by plain HTTP what we fetch.
fn from_urls(client: &Arc<Client>, blob: &Blob, offset: u64) -> Option<Result<(u64, Box<dyn Read + Send>)>> {
    let is_usable = |url: &Url| url.is_tls || client.endpoint.insecure;
    blob.urls.iter().filter_map(|url| Url::parse(url).ok()).filter(is_usable).find_map(|url| {
        let mut reader = Reader::new(client, blob, url, true);
        let start = reader.connect(offset).ok()?;
        Some(Ok((start, Box::new(reader) as Box<dyn Read + Send>)))
    })
}

/// A blob as it comes, over as many connections as that takes.
struct Reader {
    client: Arc<Client>,
    url: Url,
    is_elsewhere: bool,
    size: u64,
    /// How far the reader has come.
    at: u64,
    connection: Option<ureq::BodyReader<'static>>,
    /// How many connections in a row brought next to nothing.
    failures: u32,
    /// Where the connection began.
    began: u64,
}

impl Reader {
    fn new(client: &Arc<Client>, blob: &Blob, url: Url, is_elsewhere: bool) -> Reader {
        let client = client.clone();
        Reader { client, url, is_elsewhere, size: blob.size, at: 0, connection: None, failures: 0, began: 0 }
    }

    /// Opens a connection that begins at `offset`, or at the beginning where the server cannot do that.
    fn connect(&mut self, offset: u64) -> Result<u64> {
        let mut response = self.request(offset)?;
        if response.status() == 416 && offset > 0 {
            response = self.request(0)?;
        }
        let start = match response.status() {
            200 => 0,
            206 => content_range(&response, offset)?,
            _ => return Err(self.client.failure(response)),
        };
        let promised = response.header("Content-Length").and_then(|length| length.parse::<u64>().ok());
        if promised.is_some_and(|promised| start.checked_add(promised) != Some(self.size)) {
            return Err(Error::damaged(format!(
                "{} has {} bytes of it, where {} are expected",
                response.url.host,
                promised.unwrap_or_default(),
                self.size - start
            )));
        }
        (self.at, self.began) = (start, start);
        self.connection = Some(response.reader());
        Ok(start)
    }

    fn request(&self, offset: u64) -> Result<Response> {
        let mut request = Request::new(Method::GET, self.url.clone());
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-{}", self.size - 1));
        }
        match self.is_elsewhere {
            true => self.client.fetch_elsewhere(&request),
            false => self.client.send(&request, &scope(&self.client)),
        }
    }

    /// Goes on where the last connection broke, after a pause, unless too many have.
    fn again(&mut self, mut reason: Error) -> Result<()> {
        if self.at - self.began >= PROGRESS {
            self.failures = 0;
        }
        let place = self.at;
        while self.failures < self.client.retries() {
            self.client.wait(self.failures);
            self.failures += 1;
            match self.connect(place).and_then(|start| self.skip(place - start)) {
                Ok(()) => {
                    (self.at, self.began) = (place, place);
                    return Ok(());
                }
                Err(error) if error.kind == Kind::Lost => reason = error,
                Err(error) => return Err(error),
            }
        }
        Err(reason)
    }

    /// Leaves out what was read before.
    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = match &mut self.connection {
            Some(connection) => io::copy(&mut connection.take(count), &mut io::sink()),
            None => Ok(0),
        };
        match skipped {
            Ok(skipped) if skipped == count => Ok(()),
            Ok(_) => Err(closed(&self.url.host)),
            Err(error) => Err(failure::lost(&self.url.host, error)),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let host = &self.url.host;
            // One byte too many is passed on, for who checks the size.
            let most = (self.size + 1).saturating_sub(self.at).min(buffer.len() as u64) as usize;
            let reason = match self.connection.as_mut().map(|connection| connection.read(&mut buffer[..most]))
            {
                Some(Ok(0)) if self.at < self.size && most > 0 => closed(host),
                Some(Ok(count)) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Some(Err(error)) => failure::lost(host, error),
                None => closed(host),
            };
            self.again(reason)?;
        }
    }
}

fn closed(host: &str) -> Error {
    Error::new(Kind::Lost, format!("the connection to {host} was lost: it was closed"))
}

/// Where a part begins that is answered with. One that we have not asked for is no use.
fn content_range(response: &Response, offset: u64) -> Result<u64> {
    let range = response.header("Content-Range").unwrap_or_default();
    let start = range.trim().strip_prefix("bytes").and_then(|range| range.trim_start().split('-').next());
    match start.and_then(|start| start.trim().parse::<u64>().ok()) {
        Some(start) if start == offset => Ok(start),
        _ => Err(Error::damaged(format!(
            "{} was asked for what begins at {offset}, and answers with {range:?}",
            response.url.host
        ))),
    }
}

/// The tags of the repository, page after page.
pub(super) fn tags(client: &Client) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let first = client.url("tags/list?n=1000")?;
    let mut next = Some(first.clone());
    let mut tags = Vec::new();
    // Whoever links pages in a circle is not followed for ever.
    for _ in 0..1000 {
        let Some(url) = next else { break };
        let response = client.send(&Request::new(Method::GET, url.clone()), &scope(client))?;
        if response.status() != 200 {
            return Err(client.failure(response));
        }
        next = response.header("Link").and_then(next_page).map(|link| url.join(link)).transpose()?;
        if next.as_ref().is_some_and(|next| !next.is_same_origin(&first)) {
            return Err(Error::damaged("the next page of its tags is at another host"));
        }
        let page: Page = serde_json::from_slice(&response.bytes(LARGEST_DOCUMENT)?)?;
        tags.extend(page.tags.unwrap_or_default().into_iter().map(|tag| failure::plain(&tag)));
    }
    Ok(tags)
}

/// `<ADDRESS>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    (parameters.is_empty() || parameters.contains("next")).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_what_server_and_document_agree_on() {
        let check = |told: &str, text: &str| media_type_of(told, text.as_bytes()).map_err(|e| e.to_string());
        let index = DOCUMENTS[0];
        assert_eq!(check(&format!("{index}; charset=utf-8"), "{}"), Ok(index.into()));
        assert_eq!(check("text/plain", r#"{"manifests":[]}"#), Ok(index.into()));
        assert_eq!(check("", &format!(r#"{{"mediaType":"{}"}}"#, DOCUMENTS[3])), Ok(DOCUMENTS[3].into()));
        let fails = |told, text, expected: &str| {
            let error = check(told, text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        fails(index, r#"{"mediaType":"x"}"#, "it calls itself");
        fails(index, r#"{"manifests":[],"layers":[]}"#, "an index as well");
        fails("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}", "schema 1");
        fails("application/json", r#"{"schemaVersion":1}"#, "schema 1");
        fails("text/html", "<html>", "no JSON");
        fails("application/json", "{}", "no kind of manifest");
    }

    #[test]
    fn links_to_the_next_page() {
        assert_eq!(
            next_page(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#),
            Some("/v2/a/tags/list?n=2&last=b")
        );
        assert_eq!(next_page(r#"<x>; rel="prev""#), None);
        assert_eq!(next_page("x"), None);
    }
}
