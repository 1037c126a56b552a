//! Requests to one registry: who asks is said, redirects are followed, and what may work later is tried
//! again.

use super::auth::Auth;
use super::credentials::Credentials;
use super::failure::{self, of_response};
use super::http::{Payload, Request, Response, Transport, Url};
use super::settings::{Endpoint, Registries, api_host};
use crate::error::{Error, Kind, Result};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;
use ureq::http::Method;

/// How many times one request is sent elsewhere.
const REDIRECTS: usize = 5;

/// The longest that a server can make us wait: a person would rather know.
const PATIENCE: Duration = Duration::from_secs(120);

/// One registry, and one repository there.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    registries: Registries,
    transport: Transport,
    auth: Auth,
    /// Whether it speaks TLS: of an insecure one that is found out.
    is_tls: OnceLock<bool>,
}

impl Client {
    /// For `endpoint`, with `given` or what the host's files say.
    pub(super) fn new(endpoint: Endpoint, registries: &Registries, given: Option<Credentials>) -> Client {
        let repository = format!("{}/{}", endpoint.registry, endpoint.repository);
        let auth = Auth::new(repository.trim_end_matches('/'), registries.auth_files(), given);
        let transport = Transport::new(registries, &endpoint);
        Client { endpoint, registries: registries.clone(), transport, auth, is_tls: OnceLock::new() }
    }

    /// The address of `path` below the repository's.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.absolute(&format!("/v2/{}/{path}", self.endpoint.repository))
    }

    /// The address of `path` at this registry.
    pub(super) fn absolute(&self, path: &str) -> Result<Url> {
        let host = api_host(&self.endpoint.registry);
        let is_tls = match (self.is_tls.get(), self.endpoint.insecure) {
            (Some(is_tls), _) => *is_tls,
            (None, false) => true,
            (None, true) => {
                let found = self.speaks_tls(host)?;
                *self.is_tls.get_or_init(|| found)
            }
        };
        Ok(Url::new(is_tls, host, path))
    }

    /// Whether `host`, an insecure one, speaks TLS. It is tried first, so that nothing is told to listeners
    /// that need not be.
    fn speaks_tls(&self, host: &str) -> Result<bool> {
        let ping =
            |is_tls| self.transport.run(&Request::new(Method::GET, Url::new(is_tls, host, "/v2/")), None);
        let Err(error) = ping(true) else { return Ok(true) };
        // Where no port is said the two have different ones: 443 may be closed and 80 not. What speaks TLS, and
        // wants more of us, calls plain HTTP a bad request.
        let answers = || ping(false).is_ok_and(|response| response.status() != 400);
        match failure::is_plain_http(&error) || answers() {
            true => Ok(false),
            false => Err(error),
        }
    }

    /// Sends `request` for which `scope` is needed. Returns whatever the answer is, unless that is one of
    /// those that may be another later.
    pub(super) fn send(&self, request: &Request<'_>, scope: &str) -> Result<Response> {
        let mut failures = 0;
        let mut is_challenged = false;
        loop {
            let answer = self.auth.header(&self.transport, scope).and_then(|authorization| {
                self.follow(request, authorization.as_deref()).map(|response| (response, authorization))
            });
            let may_repeat = failures < self.retries() && !matches!(request.payload, Payload::Stream { .. });
            match answer {
                Ok((response, authorization)) if response.status() == 401 && !is_challenged => {
                    is_challenged = true;
                    // Another host that a redirect has led to is not told who we are.
                    let is_ours = response.url.is_same_origin(&request.url);
                    if !is_ours || !self.auth.challenged(&response, scope, authorization.as_deref())? {
                        return Ok(response);
                    }
                }
                Ok((response, _)) if is_transient(response.status()) && may_repeat => {
                    let pause = retry_after(&response).unwrap_or_else(|| self.registries.pause(failures));
                    if pause > PATIENCE {
                        return Ok(response);
                    }
                    sleep(pause);
                    failures += 1;
                }
                Err(error) if error.kind == Kind::Lost && may_repeat => {
                    sleep(self.registries.pause(failures));
                    failures += 1;
                }
                other => return other.map(|(response, _)| response),
            }
        }
    }

    /// How often something is tried again. Behind a mirror there is another place to ask.
    pub(super) fn retries(&self) -> u32 {
        if self.endpoint.is_mirror { self.registries.retries.min(1) } else { self.registries.retries }
    }

    /// Waits before the try after `failures` failed ones.
    pub(super) fn wait(&self, failures: u32) {
        sleep(self.registries.pause(failures));
    }

    /// The error that `response` is.
    pub(super) fn failure(&self, response: Response) -> Error {
        of_response(response, &self.endpoint.registry, self.auth.user().as_deref())
    }

    /// Fetches `url`, which is no part of the registry, so nothing is said of who we are.
    pub(super) fn fetch_elsewhere(&self, request: &Request<'_>) -> Result<Response> {
        self.follow(request, None)
    }

    /// Sends `request`, and what it asks for elsewhere where it is told to. What changes something is not
    /// sent on.
    fn follow(&self, request: &Request<'_>, authorization: Option<&str>) -> Result<Response> {
        let mut request = request.clone();
        let origin = request.url.clone();
        let is_safe = matches!(request.method, Method::GET | Method::HEAD);
        for _ in 0..=REDIRECTS {
            let authorization = authorization.filter(|_| request.url.is_same_origin(&origin));
            let response = self.transport.run(&request, authorization)?;
            let is_redirect = matches!(response.status(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.header("Location").filter(|_| is_redirect && is_safe) else {
                return Ok(response);
            };
            let next = request.url.join(location)?;
            if request.url.is_tls && !next.is_tls && !self.transport.is_insecure(&next.host) {
                return Err(Error::new(
                    Kind::Denied,
                    format!("{} leads to {next}, where there is no TLS: refused", origin.host),
                ));
            }
            request.url = next;
        }
        Err(Error::other(format!("{} leads from one address to another without end", origin.host)))
    }
}

/// What may be otherwise in a moment.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long the server wants us to wait. (It may also say until when; then the usual pause must do.)
fn retry_after(response: &Response) -> Option<Duration> {
    response.header("Retry-After")?.trim().parse().ok().map(Duration::from_secs)
}
