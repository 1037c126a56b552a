//! The container's own terminal: a pseudo-terminal of its own devpts, with `/dev/console` on it.

use crate::root::Root;
use crate::sys::mount as call;
use crate::sys::{fs, process, terminal};
use crate::{Context, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A terminal to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Console {
    /// Rows and columns, where the configuration sets them.
    pub size: Option<(u16, u16)>,
    /// Owner, as seen inside.
    pub uid: u32,
}

impl Console {
    /// Opens a pseudo-terminal of the devpts of `root`: master and slave. With `mount` the slave is also
    /// `/dev/console`. The slave is opened through the master, never by its name (CVE-2025-52565).
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when the container has no `/dev/pts`.
    pub fn open(&self, root: &Root, mount: bool) -> Result<(OwnedFd, OwnedFd)> {
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let master =
            root.open_with(Path::new("/dev/pts/ptmx"), flags).doing(|| "open a terminal of the container")?;
        let slave = terminal::open_slave(master.as_fd())?;
        if let Some((rows, columns)) = self.size {
            terminal::set_size(slave.as_fd(), rows, columns)?;
        }
        if self.uid != 0 {
            fs::chownat(slave.as_fd(), Path::new(""), self.uid, u32::MAX)?;
        }
        if mount {
            self.mount(root, &slave).doing(|| "mount /dev/console")?;
        }
        Ok((master, slave))
    }

    fn mount(self, root: &Root, slave: &OwnedFd) -> Result<()> {
        let (dev, name) = root.parent(Path::new("/dev/console"))?;
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let rules = fs::resolve::BENEATH | fs::resolve::NO_SYMLINKS;
        if let Err(error) = fs::statat(dev.as_fd(), Path::new(&name)) {
            if error.errno != libc::ENOENT {
                return Err(error);
            }
            fs::openat2(dev.as_fd(), Path::new(&name), flags, 0o620, rules)?;
        }
        let target = fs::openat2(dev.as_fd(), Path::new(&name), libc::O_PATH | libc::O_NOFOLLOW, 0, rules)?;
        let tree = call::open_tree(Some(slave.as_fd()), Path::new(""), false)?;
        call::attach(tree.as_fd(), target.as_fd())
    }
}

/// Makes `slave` our controlling terminal and our standard input, output and error.
///
/// # Errors
/// The kernel's.
pub fn take(slave: &OwnedFd) -> Result<()> {
    terminal::set_controlling(slave.as_fd())?;
    (0..3).try_for_each(|number| process::dup_onto(slave.as_fd(), number))
}
