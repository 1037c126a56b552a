//! `tmpcopyup`: a tmpfs that starts with a copy of what its target held.

use crate::sys::fs;
use crate::{Context, Error, Result};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Deeper trees are refused: each level holds two descriptors.
const DEPTH_MAX: usize = 128;

/// Copies the contents of the directory `from` (an `O_PATH` handle) into the directory `to`: files, directories,
/// links and device nodes with mode and owner. Nothing is followed out of either.
///
/// # Errors
/// The kernel's, and for a tree more than 128 levels deep.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    copy_level(from, to, DEPTH_MAX)
}

fn copy_level(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        return Err(Error::new(format!("the tree is more than {DEPTH_MAX} levels deep")));
    }
    let readable =
        fs::openat2(from, Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0, fs::resolve::BENEATH)?;
    for entry in std::fs::read_dir(fs::fd_path(readable.as_fd())).doing(|| "read the directory")? {
        let name = entry.doing(|| "read the directory")?.file_name();
        let name = Path::new(&name);
        copy_entry(from, to, name, depth).doing(|| format!("copy {name:?}"))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path, depth: usize) -> Result<()> {
    let stat = fs::statat(from, name)?;
    let rules = fs::resolve::BENEATH | fs::resolve::NO_SYMLINKS;
    match stat.kind() {
        libc::S_IFDIR => {
            fs::mkdirat(to, name, 0o700)?;
            let source = fs::openat2(from, name, libc::O_PATH | libc::O_DIRECTORY, 0, rules)?;
            let made = fs::openat2(to, name, libc::O_PATH | libc::O_DIRECTORY, 0, rules)?;
            copy_level(source.as_fd(), made.as_fd(), depth - 1)?;
        }
        libc::S_IFREG => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
            let mut source =
                File::from(fs::openat2(from, name, libc::O_RDONLY | libc::O_NONBLOCK, 0, rules)?);
            let mut made = File::from(fs::openat2(to, name, flags, 0o600, rules)?);
            std::io::copy(&mut source, &mut made).doing(|| "copy the contents")?;
        }
        libc::S_IFLNK => {
            let target = fs::readlinkat(from, name)?;
            fs::symlinkat(Path::new(std::ffi::OsStr::from_bytes(target.as_os_str().as_bytes())), to, name)?;
        }
        _ => fs::mknodat(to, name, stat.mode, stat.device.0, stat.device.1)?,
    }
    fs::chownat(to, name, stat.uid, stat.gid)?;
    if stat.kind() != libc::S_IFLNK {
        fs::chmodat(to, name, stat.mode & 0o7777)?;
    }
    Ok(())
}
