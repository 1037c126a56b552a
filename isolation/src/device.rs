//! Device files inside a container.

use crate::root::Root;
use crate::sys::fs;
use crate::sys::mount as call;
use crate::{Context, Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A device file to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, inside the root.
    pub path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner, as seen inside.
    pub uid: u32,
    /// Group, as seen inside.
    pub gid: u32,
    /// Bind the host's file of the same path: in a user namespace mknod(2) is refused.
    pub bind: bool,
}

/// The directory of the last device, open: the next one most often lies in it, too.
#[derive(Debug, Default)]
pub struct Directory {
    last: Option<(PathBuf, OwnedFd)>,
}

impl Directory {
    fn of<'a>(&'a mut self, root: &Root, path: &'a Path) -> Result<(&'a OwnedFd, &'a Path)> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let last = self.last.take().filter(|(known, _)| known == parent);
        let (dir, name) = match last {
            Some((_, dir)) => (dir, path.file_name()),
            None => (root.parent(path)?.0, path.file_name()),
        };
        let (_, dir) = self.last.insert((parent.to_owned(), dir));
        Ok((dir, Path::new(name.unwrap_or_default())))
    }
}

/// The devices that every container has (runtime-spec config-linux.md, "Default Devices").
pub const DEFAULTS: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

impl Device {
    /// Makes the device file below `root`. The caller's umask must be 0: mknod(2) takes it off the mode.
    ///
    /// # Errors
    /// The kernel's; a bind of something on the host that is not a device is refused.
    pub fn make(&self, root: &Root, dir: &mut Directory) -> Result<()> {
        self.make_inner(root, dir).doing(|| format!("make device {:?}", self.path))
    }

    fn make_inner(&self, root: &Root, dir: &mut Directory) -> Result<()> {
        if self.bind {
            return self.bind_from_host(root);
        }
        let (dir, name) = dir.of(root, &self.path)?;
        let node =
            |dir: BorrowedFd<'_>| fs::mknodat(dir, name, self.kind | self.mode, self.major, self.minor);
        match node(dir.as_fd()) {
            Err(error) if error.errno == libc::EEXIST => {
                if self.is_made(dir.as_fd(), name)? {
                    return Ok(());
                }
                // An image's plain file or link in the place of a device would be read or written in its stead.
                fs::unlinkat(dir.as_fd(), name, false)?;
                node(dir.as_fd())?;
            }
            Err(error) if error.errno == libc::EPERM && self.kind != libc::S_IFIFO => {
                return self.bind_from_host(root);
            }
            other => other?,
        }
        if (self.uid, self.gid) != (0, 0) {
            fs::chownat(dir.as_fd(), name, self.uid, self.gid)?;
        }
        Ok(())
    }

    fn is_made(&self, dir: BorrowedFd<'_>, name: &Path) -> Result<bool> {
        let stat = fs::statat(dir, name)?;
        Ok(stat.kind() == self.kind
            && (self.kind == libc::S_IFIFO || stat.device == (self.major, self.minor)))
    }

    fn bind_from_host(&self, root: &Root) -> Result<()> {
        let source = fs::open(&self.path, libc::O_PATH)?;
        let kind = fs::fstat(source.as_fd())?.kind();
        if kind != self.kind {
            return Err(Error::new(format!("the host's {:?} is no such device", self.path)));
        }
        let tree = call::open_tree(Some(source.as_fd()), Path::new(""), false)?;
        let target = root.ensure_file(&self.path)?;
        call::attach(tree.as_fd(), target.as_fd())
    }
}
