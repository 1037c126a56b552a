//! What the host has of what may appear in the image.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use super::allow;

/// What the host has: plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The host's root directory: `/`, but for tests.
    pub root: PathBuf,
    /// What of the allow-list exists.
    pub entries: Vec<Entry>,
    /// Whether root's shell can be bash.
    pub has_bash: bool,
}

/// Something the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where, from the root directory.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What something on the host is. A link is never followed: its text stays true inside, or it dangles there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic link, and its text.
    Link(PathBuf),
    /// A directory.
    Directory {
        /// What is mounted inside it, on the host; the outermost only.
        mounts: Vec<PathBuf>,
        /// The directories in it that software is installed to.
        places: Vec<PathBuf>,
    },
}

/// How the host finds the addresses of names: what a container in the host's network needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// resolv.conf.
    pub resolv_conf: String,
    /// hosts.
    pub hosts: String,
}

impl Resolver {
    /// That of the host.
    pub fn read(root: &Path) -> Resolver {
        let read = |name| fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
        Resolver { resolv_conf: read("resolv.conf"), hosts: read("hosts") }
    }
}

/// A directory of which no more is known.
const DIRECTORY: Kind = Kind::Directory { mounts: Vec::new(), places: Vec::new() };

impl HostFacts {
    /// Looks at the host below `root`.
    ///
    /// # Errors
    /// When the host has no /usr that can be read.
    pub fn read(root: &Path) -> io::Result<HostFacts> {
        fs::read_dir(root.join("usr"))?;
        let mounts = mount_points();
        let mut look = Look { root, listings: HashMap::new(), entries: Vec::new() };
        for name in allow::PROGRAMS {
            look.program_directory(name, &mounts);
        }
        for pattern in allow::ETC {
            look.expand(PathBuf::new(), pattern);
        }
        let has_bash = root.join("bin/bash").exists();
        Ok(HostFacts { root: root.to_owned(), entries: look.entries, has_bash })
    }
}

/// The work of looking.
struct Look<'a> {
    root: &'a Path,
    /// Names in the directories that patterns were looked up in.
    listings: HashMap<PathBuf, Vec<String>>,
    entries: Vec<Entry>,
}

impl Look<'_> {
    fn program_directory(&mut self, name: &str, mounts: &[PathBuf]) {
        let path = PathBuf::from(name);
        let kind = match self.kind(&path) {
            Some(Kind::Directory { .. }) if self.is_empty(&path) => return,
            Some(Kind::Directory { .. }) => Kind::Directory {
                mounts: outermost_in(&self.root.join(&path), mounts),
                places: self.places(&path),
            },
            Some(link @ Kind::Link(_)) => link,
            _ => return,
        };
        self.entries.push(Entry { path, kind });
    }

    /// Finds what `pattern` stands for below `directory`. A link on the way ends the search: it is the entry.
    fn expand(&mut self, directory: PathBuf, pattern: &str) {
        let (component, rest) = match pattern.split_once('/') {
            Some((component, rest)) => (component, Some(rest)),
            None => (pattern, None),
        };
        for name in self.names(&directory, component) {
            let path = directory.join(name);
            match (self.kind(&path), rest) {
                (Some(Kind::Directory { .. }), Some(rest)) => self.expand(path, rest),
                (Some(Kind::Directory { .. }), None) => self.directory(path),
                (Some(link @ Kind::Link(_)), _) => self.add(path, link),
                (Some(Kind::File), None) => self.add(path, Kind::File),
                _ => {}
            }
        }
    }

    /// A directory is shown as it is if everybody may read all of it, else piece by piece.
    fn directory(&mut self, path: PathBuf) {
        if self.is_empty(&path) {
            return;
        }
        if is_public(&self.root.join(&path), &mut MOST_FILES.clone()) {
            self.add(path, DIRECTORY);
        } else {
            self.expand(path, "*");
        }
    }

    fn add(&mut self, path: PathBuf, kind: Kind) {
        if !self.entries.iter().any(|entry| entry.path == path) {
            self.entries.push(Entry { path, kind });
        }
    }

    /// The names in `directory` that `pattern` stands for.
    fn names(&mut self, directory: &Path, pattern: &str) -> Vec<String> {
        if !pattern.contains('*') {
            return vec![pattern.to_owned()];
        }
        let full = self.root.join(directory);
        let names = self.listings.entry(directory.to_owned()).or_insert_with(|| list(&full));
        names.iter().filter(|name| allow::matches(pattern, name)).take(MOST_FILES).cloned().collect()
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let path = self.root.join(path);
        let kind = fs::symlink_metadata(&path).ok()?.file_type();
        match () {
            () if kind.is_symlink() => Some(Kind::Link(fs::read_link(&path).ok()?)),
            () if kind.is_dir() => Some(DIRECTORY),
            () if kind.is_file() => Some(Kind::File),
            () => None,
        }
    }

    fn places(&self, path: &Path) -> Vec<PathBuf> {
        let places =
            allow::PLACES.iter().filter_map(|place| place.strip_prefix(path.to_str()?)?.strip_prefix('/'));
        let is_there = |place: &&str| matches!(self.kind(&path.join(place)), Some(Kind::Directory { .. }));
        places.filter(is_there).map(PathBuf::from).collect()
    }

    fn is_empty(&self, path: &Path) -> bool {
        fs::read_dir(self.root.join(path)).map_or(true, |mut entries| entries.next().is_none())
    }
}

/// More files than this are not looked at, nor copied, for one entry of the allow-list.
const MOST_FILES: usize = 4096;

fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Whether everybody may read every file below `directory`, looking at no more than `left` of them.
///
/// Only then may it be shown as a mount: root of the container may be root of the host.
fn is_public(directory: &Path, left: &mut usize) -> bool {
    let everybody = |path: &Path| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o004 != 0);
    let Ok(entries) = fs::read_dir(directory) else { return false };
    everybody(directory)
        && entries.into_iter().all(|entry| {
            let Ok((kind, entry)) = entry.and_then(|entry| Ok((entry.file_type()?, entry))) else {
                return false;
            };
            *left = left.saturating_sub(1);
            *left > 0
                && (kind.is_symlink()
                    || kind.is_dir() && is_public(&entry.path(), left)
                    || kind.is_file() && everybody(&entry.path()))
        })
}

/// Every mount point of this process.
fn mount_points() -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescape);
    table.split(|byte| *byte == b'\n').filter_map(point).collect()
}

/// A path as the kernel's tables write it, where `\040` is a blank.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal =
            after.get(..3).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => (bytes.push(byte), rest = &after[3..]),
            None => (bytes.push(*first), rest = after),
        };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Those of `mounts` below `directory` that are not below another one.
fn outermost_in(directory: &Path, mounts: &[PathBuf]) -> Vec<PathBuf> {
    let mut inside: Vec<PathBuf> = Vec::new();
    let mut sorted: Vec<_> =
        mounts.iter().filter(|point| point.starts_with(directory) && *point != directory).collect();
    sorted.sort();
    for point in sorted {
        if !inside.iter().any(|outer| point.starts_with(outer)) {
            inside.push(point.clone());
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(b"/a\\040b\\134"), Path::new("/a b\\"));
        assert_eq!(unescape(b"/plain\\9"), Path::new("/plain\\9"));
    }

    #[test]
    fn outermost_mounts() {
        let mounts = ["/", "/usr", "/usr/x/y", "/usr/x", "/usrlocal", "/usr/z"].map(PathBuf::from);
        assert_eq!(outermost_in(Path::new("/usr"), &mounts), ["/usr/x", "/usr/z"].map(PathBuf::from));
    }
}
