//! Who we say we are: files of credentials (containers-auth.json(5)) and the helpers that they name.

use super::conf::read;
use super::helper;
use crate::error::{Context, Error, Result};
use crate::name::DOCKER;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a registry is told so that it knows who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's name and password.
    Password {
        /// The user.
        user: String,
        /// Their password, or a token in its place.
        password: String,
    },
    /// A token of the registry that others can be had for (OAuth2's refresh token).
    Identity(String),
}

impl fmt::Debug for Credentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { user, .. } => write!(f, "Password of {user:?}"),
            Credentials::Identity(_) => f.write_str("Identity"),
        }
    }
}

impl FromStr for Credentials {
    type Err = Error;

    /// `USER:PASSWORD`.
    fn from_str(text: &str) -> Result<Credentials> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Ok(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err(Error::other("credentials are written as USER:PASSWORD")),
        }
    }
}

impl Credentials {
    /// The value of `auth` in a file, and of `Authorization` behind `Basic`; of an identity token none.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Credentials::Password { user, password } => Some(STANDARD.encode(format!("{user}:{password}"))),
            Credentials::Identity(_) => None,
        }
    }

    /// Whose they are, as far as that is known.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Credentials::Password { user, .. } => Some(user),
            Credentials::Identity(_) => None,
        }
    }
}

/// A file of credentials, as far as it is looked at.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

/// The credentials for `repository` (registry and repository) in the first of `files` that has some.
pub(super) fn find(files: &[PathBuf], repository: &str) -> Result<Option<Credentials>> {
    for file in files {
        let found = read_file(file).and_then(|found| match found {
            Some(file) => in_file(&file, repository),
            None => Ok(None),
        });
        if let Some(credentials) = found.doing(|| format!("credentials in {}", file.display()))? {
            return Ok(Some(credentials));
        }
    }
    Ok(None)
}

/// Which helper keeps those of `host`, by what `file` says.
pub(super) fn helper_of(file: &Path, host: &str) -> Result<Option<String>> {
    let file = read_file(file)?.unwrap_or_default();
    Ok(host_keys(host).iter().find_map(|key| file.cred_helpers.get(key).cloned()))
}

fn read_file(file: &Path) -> Result<Option<AuthFile>> {
    match read(file)? {
        Some(text) if !text.trim().is_empty() => parse(&text).map(Some),
        _ => Ok(None),
    }
}

fn parse(text: &str) -> Result<AuthFile> {
    // serde_json's own words could show a piece of what is secret.
    serde_json::from_str(text).map_err(|error| {
        Error::damaged(format!("not the expected JSON, line {} column {}", error.line(), error.column()))
    })
}

fn in_file(file: &AuthFile, repository: &str) -> Result<Option<Credentials>> {
    let host = repository.split('/').next().unwrap_or_default();
    if let Some(name) = host_keys(host).iter().find_map(|key| file.cred_helpers.get(key)) {
        return helper::get(name, helper_key(host));
    }
    for key in keys(repository) {
        let auth = file.auths.iter().find(|(found, _)| normal(found) == key).map(|(_, auth)| auth);
        if let Some(credentials) = auth.map(decode).transpose()?.flatten() {
            return Ok(Some(credentials));
        }
    }
    match file.creds_store.as_str() {
        "" => Ok(None),
        name => helper::get(name, helper_key(host)),
    }
}

/// Under what credentials for `repository` may be written, the most specific first.
fn keys(repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = repository;
    while let Some((shorter, _)) = rest.rsplit_once('/') {
        keys.push(rest.to_owned());
        rest = shorter;
    }
    keys.extend(host_keys(rest));
    keys
}

/// What `host` is called in such files.
fn host_keys(host: &str) -> Vec<String> {
    let names: &[&str] = match host {
        DOCKER => &[DOCKER, "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"],
        other => &[other],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What a helper knows `host` by: Docker's registry still has the name of its first interface.
fn helper_key(host: &str) -> &str {
    if host == DOCKER { "https://index.docker.io/v1/" } else { host }
}

/// Docker writes addresses where others write hosts.
pub(super) fn normal(key: &str) -> &str {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match host {
        Some(address) => {
            let address = address.trim_end_matches('/');
            address.strip_suffix("/v1").or_else(|| address.strip_suffix("/v2")).unwrap_or(address)
        }
        None => key,
    }
}

fn decode(auth: &Auth) -> Result<Option<Credentials>> {
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Credentials::Identity(auth.identitytoken.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let text = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| Error::damaged("an auth that is no base64"))?;
    // Docker's old files end in NULs.
    text.trim_end_matches('\0').parse().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(text: &str, repository: &str) -> String {
        match in_file(&parse(text).unwrap(), repository) {
            Ok(Some(Credentials::Password { user, password })) => format!("{user}:{password}"),
            Ok(Some(Credentials::Identity(token))) => format!("token {token}"),
            Ok(None) => "none".into(),
            Err(error) => error.to_string(),
        }
    }

    fn auths(entries: &[(&str, &str)]) -> String {
        let entry =
            |(key, value): &(&str, &str)| format!(r#""{key}":{{"auth":"{}"}}"#, STANDARD.encode(value));
        format!(r#"{{"auths":{{{}}}}}"#, entries.iter().map(entry).collect::<Vec<_>>().join(","))
    }

    /// containers-auth.json(5): host/namespace/repository, host/namespace, host.
    #[test]
    fn the_most_specific_entry_counts() {
        let text = auths(&[("q.io", "a:1"), ("q.io/me", "b:2"), ("q.io/me/app", "c:x:3")]);
        for (repository, expected) in
            [("q.io/you/app", "a:1"), ("q.io/me/other", "b:2"), ("q.io/me/app", "c:x:3"), ("r.io/me", "none")]
        {
            assert_eq!(look_up(&text, repository), expected);
        }
    }

    #[test]
    fn docker_writes_addresses() {
        let text = auths(&[("https://index.docker.io/v1/", "a:1"), ("https://r.io:5000/v2/", "b:2")]);
        assert_eq!(look_up(&text, "docker.io/library/debian"), "a:1");
        assert_eq!(look_up(&text, "r.io:5000/x"), "b:2");
        assert_eq!(look_up(r#"{"auths":{"a.io":{"identitytoken":"t"}}}"#, "a.io/b"), "token t");
        assert_eq!(look_up(r#"{"auths":{"a.io":{}}}"#, "a.io/b"), "none");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let credentials: Credentials = "me:hunter2".parse().unwrap();
        assert_eq!(format!("{credentials:?}"), "Password of \"me\"");
        assert!(!format!("{:?}", Credentials::Identity("hunter2".into())).contains("hunter2"));
        let error = parse(r#"{"auths":{"a":{"auth":{"hunter2":1}}}}"#).err().unwrap().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
        assert!(look_up(r#"{"auths":{"a.io":{"auth":"hunter2!"}}}"#, "a.io/b").contains("no base64"));
    }
}
