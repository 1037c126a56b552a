//! registries.conf, as containers-registries.conf(5) has it: what other container programs of this host are
//! told.

use super::places::Places;
use crate::error::{Context, Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the files say together. Unknown keys are other programs' business.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Conf {
    pub(super) unqualified_search_registries: Option<Vec<String>>,
    pub(super) short_name_mode: Option<ShortNameMode>,
    /// Short name to repository; an empty one takes away what an earlier file says.
    pub(super) aliases: BTreeMap<String, String>,
    registry: Vec<Table>,
}

/// What happens with a short name that several registries may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ShortNameMode {
    /// It is refused.
    Enforcing,
    /// All are tried in order, as every other program does where nobody can be asked.
    Permissive,
    /// The same, and aliases do not count.
    Disabled,
}

/// One `[[registry]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Table {
    prefix: String,
    location: String,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorTable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// A mirror of an image's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Registry and repository.
    pub(super) repository: String,
    pub(super) insecure: bool,
}

impl Conf {
    /// Reads all files that there are.
    pub(super) fn read(places: &Places) -> Result<Conf> {
        let mut conf = Conf::default();
        for file in files(places)? {
            if let Some(text) = read(&file)? {
                let part = toml::from_str(&text)
                    .map_err(|error| Error::other(error.to_string().trim_end().to_owned()));
                conf.add(part.doing(|| format!("read {}", file.display()))?);
            }
        }
        Ok(conf)
    }

    /// Lays a later file over this.
    fn add(&mut self, later: Conf) {
        if later.unqualified_search_registries.is_some() {
            self.unqualified_search_registries = later.unqualified_search_registries;
        }
        self.short_name_mode = later.short_name_mode.or(self.short_name_mode);
        self.aliases.extend(later.aliases);
        self.registry.retain(|table| later.registry.iter().all(|other| other.prefix() != table.prefix()));
        self.registry.extend(later.registry);
    }

    /// The table that counts for `repository` (registry and repository): that of the longest prefix.
    pub(super) fn table(&self, repository: &str) -> Option<&Table> {
        let matching = self.registry.iter().filter(|table| table.rest(repository).is_some());
        matching.max_by_key(|table| table.prefix().len())
    }
}

impl Table {
    fn prefix(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }

    /// What of `repository` is behind the prefix, which ends where a part of the name ends.
    fn rest<'a>(&self, repository: &'a str) -> Option<&'a str> {
        if let Some(domain) = self.prefix().strip_prefix('*') {
            let (host, _) = repository.split_once('/')?;
            return host.ends_with(domain).then(|| &repository[host.len()..]);
        }
        let rest = repository.strip_prefix(self.prefix())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    /// Where `repository` is really to be had.
    pub(super) fn location(&self, repository: &str) -> String {
        match self.rest(repository) {
            Some(rest) if !self.location.is_empty() => format!("{}{rest}", self.location),
            _ => repository.to_owned(),
        }
    }

    /// The mirrors of `repository` that may be asked, in order. Where a tag is asked for a mirror that is out
    /// of date would answer with an older image, so it can be said that it is not asked.
    pub(super) fn mirrors(&self, repository: &str, by_digest: bool) -> Vec<Place> {
        let rest = self.rest(repository).unwrap_or_default();
        let may = |mirror: &&MirrorTable| match mirror.pull_from_mirror.as_str() {
            "digest-only" => by_digest,
            "tag-only" => !by_digest,
            _ => by_digest || !self.mirror_by_digest_only,
        };
        let place = |mirror: &MirrorTable| Place {
            repository: format!("{}{rest}", mirror.location),
            insecure: mirror.insecure,
        };
        self.mirror.iter().filter(may).map(place).collect()
    }
}

/// The files, first what counts least.
fn files(places: &Places) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let main = match &places.registries_conf {
        Some(file) => Some(file.clone()),
        None => places.containers("registries.conf").into_iter().find(|file| file.exists()),
    };
    files.extend(main);
    for directory in places.containers("registries.conf.d").into_iter().rev() {
        files.extend(entries(&directory, "conf")?);
    }
    files.extend(places.containers("shortnames.conf").into_iter().rev());
    files.extend(places.aliases.clone());
    Ok(files)
}

/// The files of `directory` that end in `.extension`, in the order of their names; none where there is no
/// such directory.
pub(super) fn entries(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let list = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.doing(|| format!("read {}", directory.display()))?,
    };
    let mut files = Vec::new();
    for entry in list {
        let path = entry.doing(|| format!("read {}", directory.display()))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The text of `file`, if there is such a file.
pub(super) fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).doing(|| format!("read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        unqualified-search-registries = ["docker.io", "quay.io"]
        short-name-mode = "permissive"
        credential-helpers = ["containers-auth.json"]
        [aliases]
        app = "quay.io/me/app"
        [[registry]]
        prefix = "docker.io/library"
        location = "mirror.example:5000/hub"
        [[registry.mirror]]
        location = "near.example/hub"
        insecure = true
        [[registry.mirror]]
        location = "far.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        location = "docker.io"
        blocked = true
        [[registry]]
        prefix = "*.corp.example"
        insecure = true
    "#;

    #[test]
    fn the_longest_prefix_counts_and_is_replaced() {
        let conf: Conf = toml::from_str(TEXT).unwrap();
        let debian = "docker.io/library/debian";
        let table = conf.table(debian).unwrap();
        assert_eq!(table.location(debian), "mirror.example:5000/hub/debian");
        let near = Place { repository: "near.example/hub/debian".into(), insecure: true };
        assert_eq!(table.mirrors(debian, false), std::slice::from_ref(&near));
        let far = Place { repository: "far.example/debian".into(), insecure: false };
        assert_eq!(table.mirrors(debian, true), [near, far]);
        assert!(conf.table("docker.io/me/app").unwrap().blocked);
        assert!(conf.table("docker.io.example/app").is_none());
        let corp = conf.table("a.corp.example/b").unwrap();
        assert!(corp.insecure);
        assert_eq!(corp.location("a.corp.example/b"), "a.corp.example/b");
    }

    #[test]
    fn later_files_count_more() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::below(directory.path());
        let put = |name: &str, text: &str| {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("etc/containers/registries.conf", TEXT);
        put("etc/containers/registries.conf.d/10.conf", "unqualified-search-registries = ['quay.io']");
        put("config/containers/registries.conf.d/00.conf", "[aliases]\napp = 'ghcr.io/me/app'");
        put("config/containers/registries.conf.d/01.conf", "[[registry]]\nlocation = 'docker.io'");
        let conf = Conf::read(&places).unwrap();
        assert_eq!(conf.unqualified_search_registries.as_deref(), Some(&["quay.io".to_owned()][..]));
        assert_eq!(conf.aliases["app"], "ghcr.io/me/app");
        assert_eq!(conf.short_name_mode, Some(ShortNameMode::Permissive));
        assert!(!conf.table("docker.io/me/app").unwrap().blocked);
        put("etc/containers/registries.conf.d/20.conf", "[[registry]\n");
        let error = Conf::read(&places).unwrap_err().to_string();
        assert!(error.contains("20.conf"), "{error}");
    }
}
