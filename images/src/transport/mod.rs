//! Where images are besides registries: directories and archives, by the words that skopeo and podman have for
//! them (containers-transports(5)).

mod archive;
mod dir;
mod docker_archive;
mod docker_save;
mod files;
mod layout;
mod rootfs;
mod scratch;
mod tarball;

pub use archive::{ArchiveSink, ArchiveSource};
pub use dir::{DirSink, DirSource};
pub use docker_archive::{DockerArchive, names};
pub use docker_save::DockerSink;
pub use layout::{LayoutSink, LayoutSource, Which};
pub use rootfs::{Import, RootfsSource};
pub use scratch::{Output, Scratch};
pub use tarball::Input;

use crate::error::{Context, Error, Result};
use crate::source::{Sink, Source};
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tarball::Tarball;

/// What may be before a colon.
const KNOWN: &str = "oci:, oci-archive:, docker-archive:, dir:, docker://";

/// Where an image comes from or goes to, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `oci:DIR[:REF]`: a directory of the image layout.
    Layout(PathBuf, Which),
    /// `oci-archive:FILE[:REF]`: such a directory in a tar. The file may be `-`.
    Archive(PathBuf, Which),
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker save` writes. The file may be `-`.
    DockerArchive(PathBuf, Which),
    /// `dir:DIR`: a directory with one image.
    Dir(PathBuf),
    /// `docker://NAME`: a name that is a registry's.
    Registry(String),
    /// A path: an archive or a directory of any of these kinds, or of a root file system.
    Path(PathBuf),
}

impl Transport {
    /// Whether the word says where an image is, and not only what it is called. With `paths`, paths do.
    pub fn is_one(word: &str, paths: bool) -> bool {
        KNOWN.split(", ").any(|prefix| word.starts_with(prefix)) || paths && is_path(word)
    }

    /// Reads a word. With `paths` it may be a path, which begins with `/`, `./` or `../`.
    ///
    /// # Errors
    /// That it is none; those that are known are named.
    pub fn parse(word: &str, paths: bool) -> Result<Transport> {
        if paths && is_path(word) {
            return Ok(Transport::Path(word.into()));
        }
        let unknown = || {
            let path = if paths { ", or a path that begins with / or ./" } else { "" };
            Error::other(format!("{word:?} does not say where an image is: expected {KNOWN}{path}"))
        };
        let (kind, rest) = word.split_once(':').ok_or_else(unknown)?;
        let nothing = || Error::other(format!("{word:?}: there is nothing after {kind}:"));
        let (path, which) = divide(rest);
        match kind {
            "docker" if rest.starts_with("//") && rest.len() > 2 => {
                Ok(Transport::Registry(rest[2..].to_owned()))
            }
            "oci" | "oci-archive" | "docker-archive" if path.is_empty() => Err(nothing()),
            "dir" if rest.is_empty() => Err(nothing()),
            "oci" => Ok(Transport::Layout(path.into(), which)),
            "oci-archive" => Ok(Transport::Archive(path.into(), which)),
            "docker-archive" => Ok(Transport::DockerArchive(path.into(), which)),
            "dir" => Ok(Transport::Dir(rest.into())),
            _ => Err(unknown()),
        }
    }
}

fn is_path(word: &str) -> bool {
    word.starts_with('/') || word.starts_with("./") || word.starts_with("../") || matches!(word, "." | "..")
}

/// `PATH[:NAME]`, `PATH:@INDEX` or `PATH@INDEX`.
fn divide(text: &str) -> (&str, Which) {
    let place = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.split_once(':') {
        Some((path, "")) => (path, Which::Only),
        Some((path, name)) => match name.strip_prefix('@').and_then(place) {
            Some(index) => (path, Which::At(index)),
            None => (path, Which::Named(name.to_owned())),
        },
        None => match text.rsplit_once('@').and_then(|(path, index)| Some((path, place(index)?))) {
            Some((path, index)) => (path, Which::At(index)),
            None => (text, Which::Only),
        },
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, which) = match self {
            Transport::Layout(path, which) => ("oci:", path, which),
            Transport::Archive(path, which) => ("oci-archive:", path, which),
            Transport::DockerArchive(path, which) => ("docker-archive:", path, which),
            Transport::Dir(path) => ("dir:", path, &Which::Only),
            Transport::Path(path) => ("", path, &Which::Only),
            Transport::Registry(name) => return write!(f, "docker://{name}"),
        };
        write!(f, "{kind}{}", path.display())?;
        match which {
            Which::Only => Ok(()),
            Which::Named(name) => write!(f, ":{name}"),
            Which::At(index) => write!(f, ":@{index}"),
        }
    }
}

fn is_a_registry_s(name: &str) -> Error {
    Error::other(format!("docker://{name} is in a registry"))
}

/// Opens what an image is read from. `standard` is read where the file is `-`.
///
/// # Errors
/// `NotFound`; that there is something else, or more than one image where none was chosen.
pub fn open_source(
    from: &Transport,
    scratch: &Scratch,
    standard: Option<Box<dyn Read + Send>>,
) -> Result<Box<dyn Source>> {
    let input = |path| input(path, standard);
    Ok(match from {
        Transport::Layout(path, which) => Box::new(LayoutSource::open(path, which)?),
        Transport::Archive(path, which) => Box::new(ArchiveSource::open(input(path)?, which, scratch)?),
        Transport::DockerArchive(path, which) => DockerArchive::open(input(path)?, scratch)?.image(which)?,
        Transport::Dir(path) => Box::new(DirSource::open(path)?),
        Transport::Path(path) => open_path(path, scratch)?,
        Transport::Registry(name) => return Err(is_a_registry_s(name)),
    })
}

fn input(path: &Path, standard: Option<Box<dyn Read + Send>>) -> Result<Input<'_>> {
    match path == Path::new("-") {
        false => Ok(Input::File(path)),
        true => {
            standard.map(Input::Stream).ok_or_else(|| Error::other("the standard input is not read here"))
        }
    }
}

/// Opens whatever there is.
fn open_path(path: &Path, scratch: &Scratch) -> Result<Box<dyn Source>> {
    let import = Import::default();
    Ok(match kind_of(path, scratch)? {
        Found::Layout => Box::new(LayoutSource::open(path, &Which::Only)?),
        Found::Dir => Box::new(DirSource::open(path)?),
        Found::Archive => Box::new(ArchiveSource::open(Input::File(path), &Which::Only, scratch)?),
        Found::DockerArchive => DockerArchive::open(Input::File(path), scratch)?.image(&Which::Only)?,
        Found::Directory => Box::new(RootfsSource::directory(path, &import, scratch)?),
        Found::Tar => Box::new(RootfsSource::tar(Input::File(path), &import, scratch)?),
    })
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A directory of the image layout.
    Layout,
    /// Such a directory in a tar.
    Archive,
    /// What `docker save` writes.
    DockerArchive,
    /// A directory with one image.
    Dir,
    /// A directory that is a root file system.
    Directory,
    /// A tar of a root file system.
    Tar,
}

/// Finds out what `path` leads to, by looking.
///
/// # Errors
/// `NotFound`; that it can be no source of images.
pub fn kind_of(path: &Path, scratch: &Scratch) -> Result<Found> {
    if rootfs::is_directory(path)? {
        let has = |name: &str| path.join(name).is_file();
        return Ok(match (has("oci-layout"), has("manifest.json") && has("version")) {
            (true, _) => Found::Layout,
            (false, true) => Found::Dir,
            _ => Found::Directory,
        });
    }
    let file = std::fs::File::open(path).doing(|| format!("open {}", path.display()))?;
    if !file.metadata()?.is_file() {
        let path = path.display();
        return Err(Error::other(format!("{path} is no file: say what it is ({KNOWN})")));
    }
    // A root file system may have what no archive of images has, as a name twice, and files of any name.
    let names = Tarball::names(file, scratch.most).doing(|| format!("look at {}", path.display()))?;
    let has = |name: &str| names.contains(name);
    Ok(match (has("etc") || has("usr") || has("bin"), has("manifest.json"), has("oci-layout")) {
        (false, true, _) => Found::DockerArchive,
        (false, false, true) => Found::Archive,
        _ => Found::Tar,
    })
}

/// Opens what an image is written to; `standard` where the file is `-`. The name of a docker-archive may be
/// several, separated by commas.
///
/// # Errors
/// The kernel's; that there is something else already, or that nothing can be written there.
pub fn open_sink(
    to: &Transport,
    scratch: &Scratch,
    standard: Option<Box<dyn Write + Send>>,
) -> Result<Box<dyn Sink>> {
    let output = |path: &Path| match path == Path::new("-") {
        false => Ok(Output::File(path.to_owned())),
        true => standard
            .map(Output::Stream)
            .ok_or_else(|| Error::other("the standard output is not written here")),
    };
    Ok(match to {
        Transport::Layout(path, which) => Box::new(LayoutSink::open(path, reference(to, which)?)?),
        Transport::Archive(path, which) => {
            Box::new(ArchiveSink::create(output(path)?, reference(to, which)?, scratch)?)
        }
        Transport::DockerArchive(path, which) => {
            let names = reference(to, which)?
                .map_or(Vec::new(), |names| names.split(',').map(str::to_owned).collect());
            Box::new(DockerSink::create(output(path)?, &names, scratch)?)
        }
        Transport::Dir(path) => Box::new(DirSink::open(path)?),
        Transport::Path(path) => {
            let path = path.display();
            return Err(Error::other(format!("{path}: say as what it is to be written ({KNOWN})")));
        }
        Transport::Registry(name) => return Err(is_a_registry_s(name)),
    })
}

fn reference<'a>(to: &Transport, which: &'a Which) -> Result<Option<&'a str>> {
    match which {
        Which::Only => Ok(None),
        Which::Named(name) => Ok(Some(name)),
        Which::At(_) => Err(Error::other(format!("{to}: what is written has a name, not a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a word is read as, and written as again.
    fn check(word: &str, expected: Transport, again: &str) {
        let found = Transport::parse(word, true).unwrap();
        assert_eq!(found, expected, "{word}");
        assert_eq!(found.to_string(), again);
        assert!(Transport::is_one(word, true));
    }

    #[test]
    fn words() {
        let named = |name: &str| Which::Named(name.to_owned());
        check("oci:d", Transport::Layout("d".into(), Which::Only), "oci:d");
        check("oci:a/b:r", Transport::Layout("a/b".into(), named("r")), "oci:a/b:r");
        check("oci:d:@2", Transport::Layout("d".into(), Which::At(2)), "oci:d:@2");
        check("oci:d@2", Transport::Layout("d".into(), Which::At(2)), "oci:d:@2");
        check("oci:d@x", Transport::Layout("d@x".into(), Which::Only), "oci:d@x");
        check("oci-archive:-", Transport::Archive("-".into(), Which::Only), "oci-archive:-");
        let name = "r:5000/a:1";
        let archive = Transport::DockerArchive("f.tar".into(), named(name));
        check("docker-archive:f.tar:r:5000/a:1", archive, "docker-archive:f.tar:r:5000/a:1");
        check("dir:a:b", Transport::Dir("a:b".into()), "dir:a:b");
        check("docker://debian:13", Transport::Registry("debian:13".into()), "docker://debian:13");
        check("./x.tar", Transport::Path("./x.tar".into()), "./x.tar");
    }

    #[test]
    fn words_that_say_nothing() {
        for word in ["debian", "debian:13", "ostree:x", "oci:", "oci::r", "dir:", "docker:x", "docker://", ""]
        {
            assert!(Transport::parse(word, true).is_err(), "{word}");
        }
        let error = Transport::parse("./x", false).unwrap_err().to_string();
        assert!(error.contains("oci-archive:") && !error.contains("a path"), "{error}");
        assert!(!Transport::is_one("debian:13", true) && !Transport::is_one("./x", false));
    }
}
