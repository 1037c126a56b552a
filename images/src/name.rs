//! Names of images: which registry, which repository there, and which of its images.
//!
//! The grammar is that of distribution-spec ("Pulling manifests") and of Docker, which adds the registry.

use crate::digest::Digest;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The registry that is meant where nothing else is said or configured.
pub const DOCKER: &str = "docker.io";

/// The registry of images that were made here and never had another name.
pub const LOCAL: &str = "localhost";

/// Other names that Docker's registry has had.
const DOCKER_TOO: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// What implementations agree on as the longest registry and repository together.
const LONGEST: usize = 255;

/// The full name of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The registry: a host, with a port where it is not the usual one.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// Its tag. One is always there when there is no digest.
    pub tag: Option<String>,
    /// Its digest, which says more than the tag.
    pub digest: Option<Digest>,
}

/// A name that does not say which registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// The repository.
    pub repository: String,
    /// Its tag.
    pub tag: Option<String>,
    /// Its digest.
    pub digest: Option<Digest>,
}

/// What a person may write for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A name with its registry.
    Full(Name),
    /// One without: `debian:13`.
    Short(Short),
}

impl Name {
    /// What the registry's interface is asked for: the digest, or else the tag.
    pub fn reference(&self) -> &str {
        match &self.digest {
            Some(digest) => digest.as_str(),
            None => self.tag.as_deref().unwrap_or("latest"),
        }
    }

    /// Registry and repository alone.
    pub fn without_reference(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository's image of `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Name {
        Name { digest: Some(digest.clone()), tag: None, ..self.clone() }
    }

    fn new(registry: &str, short: Short) -> Result<Name> {
        let registry = canonical_registry(registry)?.to_owned();
        let Short { repository, tag, digest } = short;
        // Images that Docker answers for itself are in a namespace that is not written.
        let is_official = registry == DOCKER && !repository.contains('/');
        let repository = if is_official { format!("library/{repository}") } else { repository };
        if registry.len() + 1 + repository.len() > LONGEST {
            return Err(Error::other(format!(
                "registry and repository are longer than {LONGEST} characters together"
            )));
        }
        let tag = if digest.is_none() { tag.or_else(|| Some("latest".to_owned())) } else { tag };
        Ok(Name { registry, repository, tag, digest })
    }
}

impl Short {
    /// The image of this name at `registry`, which may have a namespace after it.
    ///
    /// # Errors
    /// When `registry` is not the name of one.
    pub fn at(&self, registry: &str) -> Result<Name> {
        match registry.split_once('/') {
            None => Name::new(registry, self.clone()),
            Some((host, namespace)) => {
                check_repository(namespace)?;
                let repository = format!("{namespace}/{}", self.repository);
                Name::new(host, Short { repository, ..self.clone() })
            }
        }
    }

    /// The image at `repository`, which is a registry and a repository.
    ///
    /// # Errors
    /// When it is not.
    pub fn of(&self, repository: &str) -> Result<Name> {
        let Some((host, repository)) = repository.split_once('/') else {
            return Err(Error::other(format!("{repository:?} has no registry")));
        };
        check_repository(repository)?;
        Name::new(host, Short { repository: repository.to_owned(), ..self.clone() })
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        parse(text).map_err(|error| error.under(format!("image name {text:?}")))
    }
}

impl FromStr for Name {
    type Err = Error;

    /// A short name is one at `localhost`, nowhere else, because nothing is looked up.
    fn from_str(text: &str) -> Result<Name> {
        match text.parse()? {
            Reference::Full(name) => Ok(name),
            Reference::Short(short) => short.at(LOCAL),
        }
    }
}

fn parse(text: &str) -> Result<Reference> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(Error::other(format!("{scheme}:// does not belong to it, write {rest}")));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest);
    let (repository, tag) = match rest.split_once(':') {
        Some((repository, tag)) => (repository, Some(check_tag(tag)?.to_owned())),
        None => (rest, None),
    };
    check_repository(repository)?;
    let short = Short { repository: repository.to_owned(), tag, digest };
    match registry {
        Some(registry) => Name::new(registry, short).map(Reference::Full),
        None if looks_like_digest(repository) => Err(Error::other(format!(
            "64 hexadecimal digits are no repository; for a digest write NAME@sha256:{repository}"
        ))),
        None => Ok(Reference::Short(short)),
    }
}

/// The registry, if there is one, and the rest. A first part that has no dot and no port, and is not
/// `localhost`, is a namespace: Docker's rule, since both are written the same.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        _ => (None, text),
    }
}

fn is_registry(first: &str) -> bool {
    first == LOCAL || first.contains(['.', ':', '[']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn looks_like_digest(repository: &str) -> bool {
    repository.len() == 64 && repository.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The one name of the registry `text`.
///
/// # Errors
/// When it names none.
pub fn canonical_registry(text: &str) -> Result<&str> {
    check_registry(text)?;
    Ok(if DOCKER_TOO.contains(&text) { DOCKER } else { text })
}

/// Whether `text` names a registry: `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`.
///
/// # Errors
/// With what is wrong with it.
pub fn check_registry(text: &str) -> Result<()> {
    let wrong = |what: &str| Err(Error::other(format!("registry {text:?}: {what}")));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("ipv6", rest),
            _ => return wrong("no IPv6 address in the brackets"),
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !host.split('.').all(is_label) {
        return wrong("a host name has letters, digits, and hyphens between them, in parts parted by dots");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok() => {
            Ok(())
        }
        _ => wrong("the port is no number from 0 to 65535"),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, and such parts parted by slashes (distribution-spec).
fn check_repository(text: &str) -> Result<()> {
    let wrong = |what: &str| Err(Error::other(format!("repository {text:?}: {what}")));
    if text.is_empty() {
        return Err(Error::other("the repository is missing"));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong("upper-case letters are not allowed in it");
    }
    if let Some(other) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/')) {
        return wrong(&format!("{other:?} is not allowed in it"));
    }
    if text.split('/').any(str::is_empty) {
        return wrong("a part between slashes is empty");
    }
    match text.split('/').all(is_component) {
        true => Ok(()),
        false => wrong("only single dots, one or two underscores, or hyphens, between letters or digits"),
    }
}

fn is_component(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |gap: &str| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-');
    text.starts_with(is_letter) && text.ends_with(is_letter) && text.split(is_letter).all(is_separator)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec).
fn check_tag(text: &str) -> Result<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let wrong = |what: &str| Err(Error::other(format!("tag {text:?}: {what}")));
    match text.chars().next() {
        None => Err(Error::other("the tag after the colon is missing")),
        Some(_) if text.len() > 128 => wrong("longer than 128 characters"),
        Some(first) if !is_word(first) => wrong("begins with neither a letter, a digit nor an underscore"),
        Some(_) => match text.chars().find(|c| !is_word(*c) && !matches!(c, '.' | '-')) {
            Some(other) => wrong(&format!("{other:?} is not allowed in it")),
            None => Ok(text),
        },
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        write_reference(f, self.tag.as_deref(), self.digest.as_ref())
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        write_reference(f, self.tag.as_deref(), self.digest.as_ref())
    }
}

fn write_reference(f: &mut fmt::Formatter<'_>, tag: Option<&str>, digest: Option<&Digest>) -> fmt::Result {
    if let Some(tag) = tag {
        write!(f, ":{tag}")?;
    }
    match digest {
        Some(digest) => write!(f, "@{digest}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn canonical(text: &str) -> String {
        match text.parse() {
            Ok(Reference::Full(name)) => name.to_string(),
            Ok(Reference::Short(short)) => format!("short {short}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for (text, expected) in [
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/me/app:1", "docker.io/me/app:1"),
            ("registry-1.docker.io/debian:13", "docker.io/library/debian:13"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:V1.0-rc_2", "localhost:5000/app:V1.0-rc_2"),
            ("[::1]:5000/a/b/c", "[::1]:5000/a/b/c:latest"),
            ("Host/a", "Host/a:latest"),
            ("quay.io/a/b__c--d.e_f", "quay.io/a/b__c--d.e_f:latest"),
            ("debian:13", "short debian:13"),
            ("me/app", "short me/app"),
            // No slash: what is behind the colon is a tag.
            ("localhost:5000", "short localhost:5000"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
        let both = format!("quay.io/a:1@{DIGEST}");
        assert_eq!(canonical(&both), both);
        assert_eq!(canonical(&format!("quay.io/a@{DIGEST}")), format!("quay.io/a@{DIGEST}"));
    }

    /// The message says which part is wrong, and how.
    #[test]
    fn errors_name_the_part() {
        for (text, expected) in [
            ("", "the repository is missing"),
            ("quay.io/", "the repository is missing"),
            ("quay.io/App", "upper-case"),
            ("quay.io/a//b", "a part between slashes is empty"),
            ("a/", "a part between slashes is empty"),
            ("a..b", "only single dots"),
            ("a___b", "only single dots"),
            ("-a", "only single dots"),
            ("a:", "the tag after the colon is missing"),
            ("a:.b", "begins with neither"),
            ("a:b:c", "':' is not allowed"),
            ("a b", "' ' is not allowed"),
            ("a@sha256:12", "is no digest"),
            ("docker://a", "docker:// does not belong to it, write a"),
            ("a.b:x/c", "the port is no number"),
            ("a.b:70000/c", "the port is no number"),
            ("a_.b/c", "a host name has letters"),
            ("[zz]/c", "no IPv6 address"),
            (&DIGEST[7..], "64 hexadecimal digits"),
            (&format!("q.io/{}", "a".repeat(251)), "longer than 255"),
            (&format!("q.io/a:{}", "a".repeat(129)), "longer than 128"),
        ] {
            let message = canonical(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn short_names_are_put_where_they_belong() {
        let Ok(Reference::Short(short)) = "app:2".parse() else { panic!("not short") };
        assert_eq!(short.at("docker.io").unwrap().to_string(), "docker.io/library/app:2");
        assert_eq!(short.at("quay.io/me").unwrap().to_string(), "quay.io/me/app:2");
        assert_eq!(short.of("quay.io/you/it").unwrap().to_string(), "quay.io/you/it:2");
        assert!(short.of("it").is_err());
    }

    /// Names, and what is nearly one.
    const TEXT: &str = "([a-z]{1,3}\\.io(:[0-9]{1,4})?/)?[a-z._/-]{1,12}(:[a-zA-Z0-9._-]{1,9})?";

    proptest! {
        #[test]
        fn what_is_printed_is_read_the_same(text in TEXT) {
            if let Ok(Reference::Full(name)) = text.parse::<Reference>() {
                prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Reference>();
        }
    }
}
