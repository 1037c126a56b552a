//! Saying who we are: nothing, a password, or a token that is had for it (distribution's token
//! authentication).

use super::challenge::{self, Challenge};
use super::credentials::{self, Credentials};
use super::failure::{of_response, plain};
use super::http::{Payload, Request, Response, Transport, Url, escape};
use crate::error::{Context, Error, Kind, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::Method;

/// As much as a token server may answer.
const LARGEST: u64 = 256 << 10;

/// What a token is good for when its server does not say (distribution's token specification).
const SHORTEST: u64 = 60;

/// Which credentials are used at one registry, and the tokens had for them.
pub(super) struct Auth {
    /// The registry, as people call it.
    registry: String,
    /// Registry and repository: what credentials are looked for under.
    repository: String,
    files: Vec<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Once they were looked for.
    credentials: Option<Option<Credentials>>,
    scheme: Scheme,
    /// By scope.
    tokens: HashMap<String, Token>,
}

/// What the registry has asked for.
#[derive(Default)]
enum Scheme {
    #[default]
    Unknown,
    Basic,
    Bearer(Challenge),
}

struct Token {
    value: String,
    expires: Instant,
}

#[derive(Deserialize)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
    expires_in: u64,
}

impl Default for Answer {
    fn default() -> Answer {
        Answer { token: String::new(), access_token: String::new(), expires_in: SHORTEST }
    }
}

impl std::fmt::Debug for Auth {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Auth {
    /// With `given`, or what is found for `repository` in `files`.
    pub(super) fn new(repository: &str, files: Vec<PathBuf>, given: Option<Credentials>) -> Auth {
        let registry = repository.split('/').next().unwrap_or_default().to_owned();
        let state = State { credentials: given.map(Some), ..State::default() };
        Auth { registry, repository: repository.to_owned(), files, state: Mutex::new(state) }
    }

    /// What is sent as `Authorization` for `scope`, as far as it is known that something is wanted.
    pub(super) fn header(&self, transport: &Transport, scope: &str) -> Result<Option<String>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let challenge = match &state.scheme {
            Scheme::Unknown => return Ok(None),
            Scheme::Basic => return Ok(self.credentials(&mut state)?.as_ref().and_then(basic)),
            Scheme::Bearer(challenge) => challenge.clone(),
        };
        let known = state.tokens.get(scope).filter(|token| Instant::now() < token.expires);
        if let Some(token) = known {
            return Ok(Some(format!("Bearer {}", token.value)));
        }
        // Under the lock: who needs the same token waits for it.
        let credentials = self.credentials(&mut state)?.clone();
        let token = self.fetch(transport, &challenge, scope, credentials.as_ref())?;
        let value = format!("Bearer {}", token.value);
        state.tokens.insert(scope.to_owned(), token);
        Ok(Some(value))
    }

    /// Takes note of what a response with status 401 asks for. `sent` is what it did not take.
    ///
    /// Says whether another try has a chance.
    pub(super) fn challenged(&self, response: &Response, scope: &str, sent: Option<&str>) -> Result<bool> {
        let headers = response.inner.headers().get_all("WWW-Authenticate");
        let all: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
        let find = |scheme: &str| all.iter().find(|challenge| challenge.scheme == scheme);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bearer) = find("bearer") {
            check_realm(bearer, &response.url)?;
            let refused = |token: &Token| Some(format!("Bearer {}", token.value).as_str()) == sent;
            if state.tokens.get(scope).is_some_and(refused) {
                state.tokens.remove(scope);
            }
            state.scheme = Scheme::Bearer(bearer.clone());
            return Ok(true);
        }
        if find("basic").is_some() {
            let header = self.credentials(&mut state)?.as_ref().and_then(basic);
            state.scheme = Scheme::Basic;
            return Ok(header.is_some() && header.as_deref() != sent);
        }
        Ok(false)
    }

    /// Whose credentials are in use.
    pub(super) fn user(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let credentials = state.credentials.as_ref()?.as_ref()?;
        Some(credentials.user().unwrap_or("the owner of a token").to_owned())
    }

    fn credentials<'a>(&self, state: &'a mut State) -> Result<&'a Option<Credentials>> {
        if state.credentials.is_none() {
            state.credentials = Some(credentials::find(&self.files, &self.repository)?);
        }
        Ok(state.credentials.get_or_insert_default())
    }

    /// Has a token made.
    fn fetch(
        &self,
        transport: &Transport,
        challenge: &Challenge,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Token> {
        let realm =
            Url::parse(challenge.get("realm").unwrap_or_default()).doing(|| "the realm of its tokens")?;
        let scopes = all_scopes(scope, challenge.get("scope").unwrap_or_default());
        let service = challenge.get("service");
        let asked = Instant::now();
        let response = match credentials {
            Some(Credentials::Identity(token)) => {
                let form = grant(token, service, &scopes);
                let request = Request::new(Method::POST, realm)
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .payload(Payload::Bytes(form.as_bytes()));
                transport.run(&request, None)?
            }
            other => {
                let url = realm.with_query(&query(service, &scopes, other.and_then(Credentials::user)));
                transport.run(&Request::new(Method::GET, url), other.and_then(basic).as_deref())?
            }
        };
        if response.status() != 200 {
            let user = credentials.map(|found| found.user().unwrap_or("the owner of a token"));
            let doing = || format!("get a token for {}", self.registry);
            return Err(of_response(response, &self.registry, user)).doing(doing);
        }
        let host = response.url.host.clone();
        understand(&response.bytes(LARGEST)?, asked).doing(|| format!("get a token of {host}"))
    }
}

fn basic(credentials: &Credentials) -> Option<String> {
    credentials.basic().map(|value| format!("Basic {value}"))
}

/// The password goes to whom the realm names: one that cannot be listened to where the registry cannot be
/// either.
fn check_realm(challenge: &Challenge, registry: &Url) -> Result<()> {
    let realm = Url::parse(challenge.get("realm").unwrap_or_default())
        .doing(|| format!("the realm where {} wants tokens to be had", registry.host))?;
    match registry.is_tls && !realm.is_tls {
        true => Err(Error::new(
            Kind::Denied,
            format!("{} wants us to say who we are to {realm}, without TLS: refused", registry.host),
        )),
        false => Ok(()),
    }
}

/// What is needed, and what else the registry has asked for.
fn all_scopes(needed: &str, asked: &str) -> Vec<String> {
    let resource = |scope: &str| scope.rsplit_once(':').map_or("", |(resource, _)| resource).to_owned();
    let mut scopes: Vec<String> = needed.split_whitespace().map(str::to_owned).collect();
    for scope in asked.split_whitespace() {
        if scopes.iter().all(|known| resource(known) != resource(scope)) {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

fn query(service: Option<&str>, scopes: &[String], account: Option<&str>) -> String {
    let account = account.map(|user| format!("account={}", escape(user)));
    let service = service.map(|service| format!("service={}", escape(service)));
    let scopes = scopes.iter().map(|scope| format!("scope={}", escape(scope)));
    account.into_iter().chain(service).chain(scopes).collect::<Vec<_>>().join("&")
}

/// RFC 6749, 6.
fn grant(token: &str, service: Option<&str>, scopes: &[String]) -> String {
    format!(
        "grant_type=refresh_token&client_id=ctr&service={}&scope={}&refresh_token={}",
        escape(service.unwrap_or_default()),
        escape(&scopes.join(" ")),
        escape(token)
    )
}

fn understand(body: &[u8], asked: Instant) -> Result<Token> {
    // serde_json's own words could show a piece of it.
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| Error::damaged("not the expected JSON in the answer"))?;
    let value = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if value.is_empty() || value.contains(|c: char| !c.is_ascii_graphic()) {
        return Err(Error::damaged(plain("no token in the answer")));
    }
    // Some say 0; and one that ends while a request is under way is of no use.
    let life = Duration::from_secs(answer.expires_in.clamp(SHORTEST, 24 * 3600) - 5);
    Ok(Token { value, expires: asked + life })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_joined_by_resource() {
        let scopes = all_scopes("repository:a:pull,push", "repository:a:pull registry:catalog:*");
        assert_eq!(scopes, ["repository:a:pull,push", "registry:catalog:*"]);
        assert_eq!(
            query(Some("a b"), &scopes[..1], None),
            "service=a%20b&scope=repository%3Aa%3Apull%2Cpush"
        );
    }

    #[test]
    fn a_token_is_understood() {
        let now = Instant::now();
        let token = understand(br#"{"access_token":"t","expires_in":300}"#, now).unwrap();
        assert_eq!((token.value.as_str(), token.expires), ("t", now + Duration::from_secs(295)));
        assert!(understand(br#"{"token":""}"#, now).is_err());
        assert!(understand(br#"{"token":"a\nb"}"#, now).is_err());
    }

    #[test]
    fn a_realm_without_tls_is_refused_to_a_registry_with_it() {
        let challenge = |realm: &str| challenge::parse(&format!("Bearer realm=\"{realm}\"")).remove(0);
        let secure = Url::parse("https://r.io/v2/").unwrap();
        assert!(check_realm(&challenge("https://auth.io/t"), &secure).is_ok());
        let error = check_realm(&challenge("http://auth.io/t?x=1"), &secure).unwrap_err();
        assert_eq!(error.kind, Kind::Denied);
        assert!(check_realm(&challenge("http://auth.io/t"), &Url::parse("http://r.io/").unwrap()).is_ok());
        assert!(check_realm(&challenge::parse("Bearer").remove(0), &secure).is_err());
    }
}
