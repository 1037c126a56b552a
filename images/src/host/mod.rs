//! The built-in image `host`: this machine's own userland, without its secrets.
//!
//! Directories of programs (/usr, /opt, and /bin and the like where they are directories of their own) are
//! lower layers with a private upper one. /etc is made anew: from an allow-list, never a deny-list, and of
//! what is on the list only what everybody on the host may read. All else is empty.
//!
//! [`HostFacts::read`] looks, [`parts`] decides (it is pure), [`install`] does.

mod allow;
mod facts;
mod generate;
mod install;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use facts::{Entry, HostFacts, Kind, Resolver};
pub use generate::Personal;
pub use install::{Installed, install};

/// What the image is put together from. Paths inside are absolute, those of the host too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostImage {
    /// Directories of the host to lay a private upper layer on.
    pub lowers: Vec<Lower>,
    /// Directories of the host to show read-only: inside, and on the host.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Files of the host to copy: inside, and on the host.
    pub copies: Vec<(PathBuf, PathBuf)>,
    /// Symbolic links: where, and their text.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Files to write.
    pub files: Vec<(PathBuf, String)>,
    /// Directories to make, with their modes; each after the one it is in.
    pub directories: BTreeMap<PathBuf, u32>,
}

/// A directory of the host below a private layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lower {
    /// Where it appears.
    pub destination: PathBuf,
    /// What appears there.
    pub source: PathBuf,
    /// Mounts inside it, which an overlay does not show, and for which an ordinary user can make none.
    pub mounts: Vec<PathBuf>,
    /// Directories in it, by their paths from it, that root of the container can write to.
    pub places: Vec<PathBuf>,
}

/// The directories that exist in every container, beside those of the parts.
const SKELETON: [(&str, u32); 23] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr", 0o755),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/lib/misc", 0o755),
    ("/var/local", 0o755),
    ("/var/log", 0o755),
    ("/var/opt", 0o755),
    ("/var/spool", 0o755),
    ("/var/tmp", 0o1777),
];

const SKELETON_LINKS: [(&str, &str); 3] =
    [("/etc/mtab", "/proc/self/mounts"), ("/var/lock", "/run/lock"), ("/var/run", "/run")];

/// Puts the image together, from what the host has and for whom it is.
pub fn parts(facts: &HostFacts, personal: &Personal) -> HostImage {
    let mut image = HostImage {
        files: generate::files(facts, personal),
        links: SKELETON_LINKS.map(|(path, text)| (path.into(), text.into())).to_vec(),
        directories: SKELETON.map(|(path, mode)| (path.into(), mode)).into(),
        ..HostImage::default()
    };
    for entry in &facts.entries {
        place(&mut image, facts, entry);
    }
    image
}

/// Gives one entry of the host its place.
fn place(image: &mut HostImage, facts: &HostFacts, entry: &Entry) {
    let (inside, source) = (Path::new("/").join(&entry.path), facts.root.join(&entry.path));
    let parents: Vec<_> = inside.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
    for parent in parents {
        image.directories.entry(parent.to_owned()).or_insert(0o755);
    }
    match &entry.kind {
        Kind::File => image.copies.push((inside, source)),
        Kind::Link(text) => image.links.push((inside, text.clone())),
        Kind::Directory { mounts, places } => {
            image.directories.entry(inside.clone()).or_insert(0o755);
            match inside.starts_with("/etc") {
                true => image.binds.push((inside, source)),
                false => {
                    let (mounts, places) = (mounts.clone(), places.clone());
                    image.lowers.push(Lower { destination: inside, source, mounts, places });
                }
            }
        }
    }
}
