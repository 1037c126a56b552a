//! A handle on a root file system. Every path inside is hostile: it is resolved below the handle, never joined.

use crate::sys::fs::{self, Proc, resolve};
use crate::{Context, Error, Result};
use std::ffi::{OsStr, OsString};
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

    /// The directory `path` inside the root, made with its parents (mode 0755) where it is missing. A link to nothing
    /// is followed, and what it means is made, as runc does.
    ///
    /// # Errors
    /// `ENOTDIR` when a part of it is something else, `ELOOP` when links lead in a circle.
    pub fn ensure_dir(&self, path: &Path) -> Result<OwnedFd> {
        const FLAGS: i32 = libc::O_PATH | libc::O_DIRECTORY;
        match self.open_with(path, FLAGS) {
            Err(error) if error.errno == libc::ENOENT => {}
            other => return other,
        }
        // Most often nothing but the last part is missing.
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Ok(parent) = self.open_with(parent, FLAGS)
            && fs::mkdirat(parent.as_fd(), Path::new(name), 0o755).is_ok()
        {
            return entry(parent.as_fd(), name, FLAGS);
        }
        let Some((parent, name)) = self.locate(path)? else { return self.open_with(Path::new("/"), FLAGS) };
        make_dir(parent.as_fd(), &name)?;
        entry(parent.as_fd(), &name, FLAGS)
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
        match self.locate(path)? {
            Some((parent, name)) => make_file(parent.as_fd(), &name),
            None => self.resolve(Path::new("/")),
        }
    }

    /// What is at `path` itself, a link included: a file is made where there is nothing.
    ///
    /// # Errors
    /// As [`Root::ensure_dir`].
    pub fn ensure_entry(&self, path: &Path) -> Result<OwnedFd> {
        let (parent, name) = self.parent(path)?;
        make_file(parent.as_fd(), &name)
    }

    /// Goes `path` part by part, through links that lead to nothing yet, and makes the directories on the way: the
    /// directory that holds, or is to hold, the last part, and its name; `None` for the root itself.
    fn locate(&self, path: &Path) -> Result<Option<(OwnedFd, OsString)>> {
        let mut left: Vec<OsString> = parts(path);
        let (mut done, mut links) = (PathBuf::from("/"), 0);
        let parent_of = |done: &Path| {
            let parent = done.parent().unwrap_or(Path::new("/"));
            self.open_with(parent, libc::O_PATH | libc::O_DIRECTORY)
        };
        while let Some(part) = left.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(&part);
            match self.open_with(&done, libc::O_PATH | libc::O_NOFOLLOW) {
                Err(error) if error.errno == libc::ENOENT && left.is_empty() => {}
                Err(error) if error.errno == libc::ENOENT => make_dir(parent_of(&done)?.as_fd(), &part)?,
                Err(error) => return Err(error),
                Ok(found) if fs::fstat(found.as_fd())?.kind() == libc::S_IFLNK => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Error::call(format!("follow the links of {path:?}"), libc::ELOOP));
                    }
                    let target = fs::readlinkat(found.as_fd(), Path::new(""))?;
                    done = if target.is_absolute() {
                        "/".into()
                    } else {
                        done.parent().map_or("/".into(), Path::to_owned)
                    };
                    left.extend(parts(&target));
                }
                Ok(_) => {}
            }
        }
        match done.file_name() {
            Some(name) => Ok(Some((parent_of(&done)?, name.to_owned()))),
            None => Ok(None),
        }
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

/// As many links as the kernel follows in one path (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(named).collect()
}

fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match fs::mkdirat(dir, Path::new(name), 0o755) {
        Err(error) if error.errno != libc::EEXIST => Err(error),
        _ => Ok(()),
    }
}

/// The file `name` of `dir`, made empty if there is nothing; a link is taken as it is.
fn make_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
    match fs::openat2(dir, Path::new(name), flags, 0o644, resolve::BENEATH | resolve::NO_SYMLINKS) {
        Err(error) if error.errno != libc::EEXIST => return Err(error),
        _ => {}
    }
    entry(dir, name, libc::O_PATH)
}

/// Opens `name` in `dir`; a link is not followed, and with `O_PATH` alone opened itself.
fn entry(dir: BorrowedFd<'_>, name: &OsStr, flags: i32) -> Result<OwnedFd> {
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
        root.ensure_dir(Path::new("/absolute/x")).unwrap();
        assert!(inside.path().join(outside.path().strip_prefix("/").unwrap()).join("x").is_dir());
        root.ensure_dir(Path::new("/relative/made")).unwrap();
        assert!(inside.path().join("made").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        root.ensure_file(Path::new("/relative/../file")).unwrap();
        assert!(inside.path().join("file").is_file());
    }

    /// As in images whose /etc/resolv.conf leads to what only a running system has.
    #[test]
    fn what_a_link_to_nothing_means_is_made() {
        let inside = tempfile::tempdir().unwrap();
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, inside.path().join(name)).unwrap();
        };
        std::fs::create_dir(inside.path().join("etc")).unwrap();
        link("../run/resolve/stub.conf", "etc/resolv.conf");
        link("/srv/../data", "mnt");
        link("loop", "loop");
        let root = Root::open(inside.path()).unwrap();
        root.ensure_file(Path::new("/etc/resolv.conf")).unwrap();
        assert!(inside.path().join("run/resolve/stub.conf").is_file());
        root.ensure_dir(Path::new("/mnt/deep/er")).unwrap();
        assert!(inside.path().join("data/deep/er").is_dir());
        assert_eq!(root.ensure_dir(Path::new("/loop/x")).unwrap_err().errno, libc::ELOOP);
        link("nothing", "dangling");
        let entry = root.ensure_entry(Path::new("/dangling")).unwrap();
        assert_eq!(fs::fstat(entry.as_fd()).unwrap().kind(), libc::S_IFLNK);
    }
}
