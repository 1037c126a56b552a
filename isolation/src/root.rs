//! A handle on a root file system. Every path inside is hostile: it is resolved below the handle, never joined.

use crate::sys::fs::{self, Proc, resolve};
use crate::{Context, Error, Result};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// A root file system, open. Absolute paths and links inside it stay inside it (openat2(2) `RESOLVE_IN_ROOT`).
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
}

/// The rules for every path in a root file system.
const RULES: u64 = resolve::IN_ROOT | resolve::NO_MAGICLINKS;

impl Root {
    /// Takes the directory of `dir` as a root.
    pub fn new(dir: OwnedFd) -> Self {
        Root { dir }
    }

    /// Opens the directory `path` of the host as a root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(path: &Path) -> Result<Self> {
        fs::open(path, libc::O_PATH | libc::O_DIRECTORY).map(Root::new)
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// An `O_PATH` handle on what `path` leads to inside the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.open_with(path, libc::O_PATH)
    }

    /// Opens what `path` leads to inside the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_with(&self, path: &Path, flags: i32) -> Result<OwnedFd> {
        fs::openat2(self.dir(), path, flags, 0, RULES)
    }

    /// The directory `path` inside the root, made with its parents (mode 0755) where it is missing.
    ///
    /// # Errors
    /// `ENOTDIR` when a part of it is something else, `ENOENT` when a part is a link to nothing.
    pub fn ensure_dir(&self, path: &Path) -> Result<OwnedFd> {
        match self.open_with(path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if error.errno == libc::ENOENT => {}
            other => return other,
        }
        let (parent, name) = self.parent(path)?;
        match fs::mkdirat(parent.as_fd(), Path::new(&name), 0o755) {
            Err(error) if error.errno != libc::EEXIST => return Err(error),
            _ => {}
        }
        entry(parent.as_fd(), &name, libc::O_PATH | libc::O_DIRECTORY)
    }

    /// The file `path` inside the root, made empty with its parents where it is missing.
    ///
    /// # Errors
    /// As [`Root::ensure_dir`].
    pub fn ensure_file(&self, path: &Path) -> Result<OwnedFd> {
        match self.resolve(path) {
            Err(error) if error.errno == libc::ENOENT => {}
            other => return other,
        }
        let (parent, name) = self.parent(path)?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
        match fs::openat2(
            parent.as_fd(),
            Path::new(&name),
            flags,
            0o644,
            resolve::BENEATH | resolve::NO_SYMLINKS,
        ) {
            Err(error) if error.errno != libc::EEXIST => return Err(error),
            _ => {}
        }
        entry(parent.as_fd(), &name, libc::O_PATH)
    }

    /// The directory that holds `path`, made where it is missing, and the last part of the path.
    ///
    /// # Errors
    /// As [`Root::ensure_dir`]; a path without a last part (`/`) is refused.
    pub fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or_else(|| Error::new(format!("{path:?} has no last part")))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
        let dir =
            self.ensure_dir(parent).doing(|| format!("make directory {parent:?} in the root file system"))?;
        Ok((dir, name.to_owned()))
    }

    /// Where `fd`, opened below this root, lies in it, as the kernel tells it.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn path_of(&self, proc: &Proc, fd: BorrowedFd<'_>) -> Result<PathBuf> {
        let tell = |fd: BorrowedFd<'_>| {
            use std::os::fd::AsRawFd;
            let link = proc.follow("self/fd", libc::O_PATH | libc::O_DIRECTORY)?;
            fs::readlinkat(link.as_fd(), Path::new(&fd.as_raw_fd().to_string()))
        };
        let (base, path) = (tell(self.dir())?, tell(fd)?);
        Ok(path.strip_prefix(&base).map_or_else(|_| path.clone(), |rest| Path::new("/").join(rest)))
    }
}

/// Opens `name`, which must be no link, in `dir`.
fn entry(dir: BorrowedFd<'_>, name: &OsString, flags: i32) -> Result<OwnedFd> {
    fs::openat2(dir, Path::new(name), flags | libc::O_NOFOLLOW, 0, resolve::BENEATH | resolve::NO_SYMLINKS)
}

/// `path` as an absolute one without `.` and `..`, as the specification's paths inside a container are meant.
/// This is only the text: links are resolved below a [`Root`].
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_paths_are_absolute_and_have_no_dots() {
        let check = |path: &str, expected: &str| assert_eq!(clean(Path::new(path)), Path::new(expected));
        check("/a/b", "/a/b");
        check("a/./b/", "/a/b");
        check("../../etc", "/etc");
        check("/a/../../b", "/b");
        check("", "/");
    }

    /// CVE-2021-30465 and its kind: a link in the root file system never leads out of it.
    #[test]
    fn links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../../../..", inside.path().join("relative")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        assert!(root.ensure_dir(Path::new("/absolute/x")).is_err());
        root.ensure_dir(Path::new("/relative/made")).unwrap();
        assert!(inside.path().join("made").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        root.ensure_file(Path::new("/relative/../file")).unwrap();
        assert!(inside.path().join("file").is_file());
    }
}
