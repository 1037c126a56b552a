//! Logging in and out: credentials are tried, and kept in a file that podman and others read as well.

use super::client::Client;
use super::conf::read;
use super::credentials::{Credentials, helper_of, normal};
use super::http::Request;
use super::places::Places;
use super::settings::Registries;
use crate::error::{Context, Error, Kind, Result};
use crate::name::canonical_registry;
use serde_json::{Map, Value, json};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use ureq::http::Method;

/// Tries `credentials` at `host` (a registry, or a registry and a namespace) and keeps them in `file`, or
/// where containers-auth.json(5) says. Returns where that is.
///
/// # Errors
/// `Denied` when the registry does not take them; when they cannot be written.
pub fn login(
    host: &str,
    credentials: &Credentials,
    registries: &Registries,
    file: Option<&Path>,
) -> Result<PathBuf> {
    let key = key_of(host)?;
    let doing = || format!("log in to {key}");
    let file = file.map_or_else(
        || registries.auth_file.clone().unwrap_or_else(|| registries.places.auth_file()),
        Path::to_owned,
    );
    let registry = key.split('/').next().unwrap_or_default();
    if let Some(helper) = helper_of(&file, registry).doing(doing)? {
        return Err(Error::other(format!(
            "{} says that docker-credential-{helper} keeps its credentials: give them to that",
            file.display()
        )))
        .doing(doing);
    }
    check(&key, credentials, registries).doing(doing)?;
    keep(&file, &key, credentials).doing(doing)?;
    Ok(file)
}

/// Forgets the credentials of `host` in `file`, or in the files that [`login`] writes. Says whether there
/// were any.
///
/// # Errors
/// When a file cannot be read or written.
pub fn logout(host: &str, file: Option<&Path>) -> Result<bool> {
    let places = Places::default();
    let files = match file {
        Some(file) => vec![file.to_owned()],
        None if places.auth_file.is_some() => vec![places.auth_file()],
        None => [places.auth_file()].into_iter().chain(own_file(&places)).collect(),
    };
    let key = key_of(host)?;
    let mut found = false;
    for file in files {
        found |= forget(&file, &key).doing(|| format!("log out of {key}"))?;
    }
    Ok(found)
}

/// Podman's file for those who want to stay logged in.
fn own_file(places: &Places) -> Option<PathBuf> {
    places.config.as_ref().map(|config| config.join("containers/auth.json"))
}

/// What is written in the file for what a person calls the registry.
fn key_of(host: &str) -> Result<String> {
    let host = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(host);
    let host = host.trim_end_matches('/');
    let (registry, namespace) = host.split_at(host.find('/').unwrap_or(host.len()));
    Ok(format!("{}{namespace}", canonical_registry(registry)?))
}

fn check(key: &str, credentials: &Credentials, registries: &Registries) -> Result<()> {
    let endpoint = registries.login_endpoint(key)?;
    let client = Client::new(endpoint, registries, Some(credentials.clone()));
    let response = client.send(&Request::new(Method::GET, client.absolute("/v2/")?), "")?;
    match response.status() {
        200..=299 => Ok(()),
        404 => Err(Error::new(Kind::NotFound, format!("{key} is no registry: it has no /v2/"))),
        _ => Err(client.failure(response)),
    }
}

fn keep(file: &Path, key: &str, credentials: &Credentials) -> Result<()> {
    let mut all = contents(file)?;
    let auths = all.entry("auths").or_insert_with(|| json!({}));
    let auths =
        auths.as_object_mut().ok_or_else(|| Error::damaged(format!("auths in {}", file.display())))?;
    let entry = match credentials {
        Credentials::Password { .. } => json!({ "auth": credentials.basic() }),
        Credentials::Identity(token) => json!({ "identitytoken": token }),
    };
    auths.insert(key.to_owned(), entry);
    write(file, &all)
}

fn forget(file: &Path, key: &str) -> Result<bool> {
    let mut all = contents(file)?;
    let Some(auths) = all.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(false) };
    let before = auths.len();
    auths.retain(|found, _| key_of(normal(found)).ok().as_deref() != Some(key));
    if auths.len() == before {
        return Ok(false);
    }
    write(file, &all)?;
    Ok(true)
}

fn contents(file: &Path) -> Result<Map<String, Value>> {
    match read(file)? {
        Some(text) if !text.trim().is_empty() => serde_json::from_str(&text)
            // serde_json's own words could show a piece of what is secret.
            .map_err(|error| {
                Error::damaged(format!("{} line {}: not the expected JSON", file.display(), error.line()))
            }),
        _ => Ok(Map::new()),
    }
}

/// Writes all of it or nothing, and never so that others can read it for a moment.
fn write(file: &Path, contents: &Map<String, Value>) -> Result<()> {
    let doing = || format!("write {}", file.display());
    // Where the file is a link, to a person's collection of settings, what it leads to is written.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).doing(doing)?;
    let temporary = directory.join(format!(".auth.json.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let opened = match options.open(&temporary) {
        // Left by a process that had our number and was killed.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary).doing(doing)?;
            options.open(&temporary)
        }
        other => other,
    };
    let mut text = serde_json::to_vec_pretty(contents)?;
    text.push(b'\n');
    let written = opened.and_then(|mut open| {
        open.write_all(&text)?;
        open.sync_all()?;
        fs::rename(&temporary, &file)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::credentials::find;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_found_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("containers/auth.json");
        fs::create_dir(directory.path().join("containers")).unwrap();
        fs::write(
            &file,
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}},"credsStore":"x","own":1}"#,
        )
        .unwrap();
        let me: Credentials = "me:secret".parse().unwrap();
        keep(&file, "r.io:5000/team", &me).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(find(std::slice::from_ref(&file), "r.io:5000/team/app").unwrap(), Some(me));
        assert_eq!(contents(&file).unwrap()["own"], 1);
        assert!(logout("docker.io", Some(&file)).unwrap());
        assert!(logout("https://r.io:5000/team/", Some(&file)).unwrap());
        assert!(!logout("r.io:5000/team", Some(&file)).unwrap());
        assert_eq!(fs::read_dir(directory.path().join("containers")).unwrap().count(), 1);
        assert!(!logout("r.io", Some(&directory.path().join("none"))).unwrap());
    }
}
