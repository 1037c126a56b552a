//! What is configured of registries: our own settings, and registries.conf where they say nothing.

use super::conf::{Conf, Place, ShortNameMode};
use super::places::Places;
use crate::error::{Context, Error, Result};
use crate::name::{DOCKER, Name, Reference, Short, check_registry};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Which registries there are and how they are reached. What is said here counts more than what
/// registries.conf says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// Where a short name may belong. Empty: what `unqualified-search-registries` of registries.conf says,
    /// and where that says nothing `docker.io`.
    pub search: Vec<String>,
    /// Hosts, with their port, whose certificate is not checked and which may speak plain HTTP.
    pub insecure: Vec<String>,
    /// Registries, or registries and namespaces, that are never asked.
    pub blocked: Vec<String>,
    /// For a registry, or a registry and a namespace: what is asked before it, in order.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// How often something is tried again that may work later.
    pub retries: u32,
    /// How long a connection may take to be there, in seconds.
    pub connect_timeout: u64,
    /// How long a connection may be silent, in seconds.
    pub stall_timeout: u64,
    /// Where credentials are, instead of the usual places.
    pub auth_file: Option<PathBuf>,
    /// What else is read on this host.
    #[serde(skip)]
    pub places: Places,
}

/// A mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// A registry, or a registry and a namespace: it replaces what it mirrors.
    pub location: String,
    /// It may speak plain HTTP, and its certificate is not checked.
    #[serde(default)]
    pub insecure: bool,
}

/// One place where an image may be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The registry, as people call it.
    pub(super) registry: String,
    /// The repository there.
    pub(super) repository: String,
    pub(super) insecure: bool,
    pub(super) is_mirror: bool,
}

impl Default for Registries {
    fn default() -> Registries {
        Registries {
            search: Vec::new(),
            insecure: Vec::new(),
            blocked: Vec::new(),
            mirrors: BTreeMap::new(),
            retries: 4,
            connect_timeout: 15,
            stall_timeout: 60,
            auth_file: None,
            places: Places::default(),
        }
    }
}

impl Registries {
    /// Which image `text` means: the candidates in the order in which they are to be tried. A full name is
    /// one, and so is a short one, unless registries.conf has `short-name-mode` `permissive` or `disabled`
    /// and several registries.
    ///
    /// # Errors
    /// When `text` is no name, or one that several registries may have: whose image that is would depend on
    /// which of them answers.
    pub fn resolve(&self, text: &str) -> Result<Vec<Name>> {
        match text.parse()? {
            Reference::Full(name) => Ok(vec![name]),
            Reference::Short(short) => {
                let conf = Conf::read(&self.places)?;
                self.qualify(&short, &conf).doing(|| format!("image name {text:?}"))
            }
        }
    }

    /// Every name that `text` may have been fetched under: for who looks among what is here already.
    ///
    /// # Errors
    /// When `text` is no name.
    pub fn candidates(&self, text: &str) -> Result<Vec<Name>> {
        match self.resolve(text) {
            Ok(names) => Ok(names),
            Err(error) => match text.parse()? {
                Reference::Short(short) => {
                    let conf = Conf::read(&self.places)?;
                    let configured = conf.unqualified_search_registries.unwrap_or_default();
                    let search = if self.search.is_empty() { configured } else { self.search.clone() };
                    search.iter().map(|registry| short.at(registry)).collect()
                }
                Reference::Full(_) => Err(error),
            },
        }
    }

    fn qualify(&self, short: &Short, conf: &Conf) -> Result<Vec<Name>> {
        let mode = conf.short_name_mode.unwrap_or(ShortNameMode::Enforcing);
        let alias = conf.aliases.get(&short.repository).filter(|alias| !alias.is_empty());
        if let (Some(alias), true) = (alias, mode != ShortNameMode::Disabled) {
            return Ok(vec![short.of(alias).doing(|| format!("its alias {alias:?} in registries.conf"))?]);
        }
        let configured = match (self.search.is_empty(), &conf.unqualified_search_registries) {
            (true, Some(search)) => search.clone(),
            _ => self.search.clone(),
        };
        let search = if configured.is_empty() { vec![DOCKER.to_owned()] } else { configured };
        let candidate = |registry: &String| short.at(registry).doing(|| "the registries that are searched");
        let names = search.iter().map(candidate).collect::<Result<Vec<Name>>>()?;
        if names.len() > 1 && mode == ShortNameMode::Enforcing {
            let list: Vec<String> = names.iter().map(Name::to_string).collect();
            return Err(Error::other(format!("which one is meant? Write it in full: {}", list.join(" or "))));
        }
        Ok(names)
    }

    /// Where `name` is to be had: mirrors first, and last the registry itself.
    pub(super) fn endpoints(&self, name: &Name) -> Result<Vec<Endpoint>> {
        let conf = Conf::read(&self.places)?;
        let repository = name.without_reference();
        let table = conf.table(&repository);
        let is_own = self.blocked.iter().any(|blocked| rest(blocked, &repository).is_some());
        if is_own || table.is_some_and(|table| table.blocked) {
            let place = if is_own { "in the settings" } else { "in registries.conf" };
            return Err(Error::new(crate::Kind::Denied, format!("{} is blocked {place}", name.registry)));
        }
        let mirrors = match self.own_mirrors(&repository) {
            Some(mirrors) => mirrors,
            None => table.map(|table| table.mirrors(&repository, name.digest.is_some())).unwrap_or_default(),
        };
        let itself = Place {
            repository: table.map_or_else(|| repository.clone(), |table| table.location(&repository)),
            insecure: table.is_some_and(|table| table.insecure),
        };
        let mut endpoints = Vec::new();
        for place in mirrors {
            endpoints.push(self.endpoint(place, true)?);
        }
        endpoints.push(self.endpoint(itself, false)?);
        Ok(endpoints)
    }

    /// Where one logs in to `key`, a registry or a registry and a namespace.
    pub(super) fn login_endpoint(&self, key: &str) -> Result<Endpoint> {
        let conf = Conf::read(&self.places)?;
        let insecure = conf.table(key).is_some_and(|table| table.insecure);
        self.endpoint(Place { repository: key.to_owned(), insecure }, false)
    }

    fn own_mirrors(&self, repository: &str) -> Option<Vec<Place>> {
        let found = |(prefix, mirrors)| rest(prefix, repository).map(|rest| (prefix.len(), rest, mirrors));
        let all = self.mirrors.iter().filter_map(|(prefix, mirrors)| found((prefix.as_str(), mirrors)));
        let (_, rest, mirrors): (_, _, &Vec<Mirror>) = all.max_by_key(|(length, ..)| *length)?;
        let place = |mirror: &Mirror| Place {
            repository: format!("{}{rest}", mirror.location),
            insecure: mirror.insecure,
        };
        Some(mirrors.iter().map(place).collect())
    }

    fn endpoint(&self, place: Place, is_mirror: bool) -> Result<Endpoint> {
        let (registry, repository) = match place.repository.split_once('/') {
            Some((registry, repository)) => (registry.to_owned(), repository.to_owned()),
            None => (place.repository.clone(), String::new()),
        };
        check_registry(&registry).doing(|| "the location of a mirror or registry")?;
        let insecure = place.insecure || self.is_insecure(&registry);
        Ok(Endpoint { insecure, registry, repository, is_mirror })
    }

    /// Whether the settings say so of the host.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.insecure.iter().any(|insecure| insecure == host)
    }

    /// Where credentials are looked for.
    pub(super) fn auth_files(&self) -> Vec<PathBuf> {
        self.auth_file.clone().map_or_else(|| self.places.auth_files(), |file| vec![file])
    }

    /// How long to wait before the try after `failures` failed ones.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        Duration::from_millis(250 << failures.min(6))
    }
}

/// What of `repository` is behind `prefix`.
fn rest<'a>(prefix: &str, repository: &'a str) -> Option<&'a str> {
    let rest = repository.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The host that answers for `registry`: Docker's is another than the name says.
pub(super) fn api_host(registry: &str) -> &str {
    match registry {
        DOCKER => "registry-1.docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn registries(conf: &str) -> (tempfile::TempDir, Registries) {
        let directory = tempfile::tempdir().unwrap();
        let containers = directory.path().join("etc/containers");
        fs::create_dir_all(&containers).unwrap();
        fs::write(containers.join("registries.conf"), conf).unwrap();
        let places = Places::below(directory.path());
        (directory, Registries { places, ..Registries::default() })
    }

    fn resolve(conf: &str, text: &str) -> String {
        let (_directory, registries) = registries(conf);
        match registries.resolve(text) {
            Ok(names) => names.iter().map(Name::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn short_names_are_resolved_as_registries_conf_says() {
        let two = "unqualified-search-registries = ['quay.io', 'docker.io']\n";
        assert_eq!(resolve("", "debian:13"), "docker.io/library/debian:13");
        assert_eq!(resolve("unqualified-search-registries = ['quay.io']", "a/b"), "quay.io/a/b:latest");
        let refused = resolve(two, "app:1");
        assert!(refused.contains("Write it in full: quay.io/app:1 or docker.io/library/app:1"), "{refused}");
        let permissive = format!("{two}short-name-mode = 'permissive'\n");
        assert_eq!(resolve(&permissive, "a/b"), "quay.io/a/b:latest docker.io/a/b:latest");
        let alias = format!("{two}[aliases]\napp = 'ghcr.io/me/app'");
        assert_eq!(resolve(&alias, "app:1"), "ghcr.io/me/app:1");
        assert_eq!(resolve(two, "ghcr.io/me/app:1"), "ghcr.io/me/app:1");
    }

    #[test]
    fn our_own_settings_count_more() {
        let (_directory, mut registries) = registries(
            "unqualified-search-registries = ['quay.io']\n[[registry]]\nlocation='docker.io'\n\
             [[registry.mirror]]\nlocation='theirs.example'",
        );
        registries.search = vec!["ghcr.io".into()];
        assert_eq!(registries.resolve("a/b").unwrap()[0].to_string(), "ghcr.io/a/b:latest");
        let name = "docker.io/debian".parse().unwrap();
        let hosts = |registries: &Registries| -> Vec<String> {
            registries
                .endpoints(&name)
                .unwrap()
                .into_iter()
                .map(|e| e.registry + "/" + &e.repository)
                .collect()
        };
        assert_eq!(hosts(&registries), ["theirs.example/library/debian", "docker.io/library/debian"]);
        let mirror = Mirror { location: "ours.example:5000/hub".into(), insecure: true };
        registries.mirrors.insert("docker.io".into(), vec![mirror]);
        assert_eq!(hosts(&registries), ["ours.example:5000/hub/library/debian", "docker.io/library/debian"]);
        registries.blocked = vec!["docker.io/library".into()];
        let error = registries.endpoints(&name).unwrap_err();
        assert_eq!(error.to_string(), "docker.io is blocked in the settings");
    }

    #[test]
    fn settings_are_read_strictly() {
        let text = "search = ['quay.io']\n[mirrors]\n'docker.io' = [{ location = 'a.example' }]";
        assert_eq!(toml::from_str::<Registries>(text).unwrap().mirrors["docker.io"].len(), 1);
        assert!(toml::from_str::<Registries>("serach = []").is_err());
    }
}
