//! Writes the image's own files into a directory nobody else knows yet.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, mkdirat},
    unistd::symlinkat,
};

use super::{HostImage, Lower};

/// Larger files are not copied: nothing on the allow-list is.
const LARGEST_COPY: u64 = 4 << 20;

/// Where the parts of an image came to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The root file system.
    pub rootfs: PathBuf,
    /// For each of [`HostImage::lowers`]: its upper and its work directory.
    pub layers: Vec<(PathBuf, PathBuf)>,
}

/// Makes `rootfs` and the private layers of `image` in `private`, a directory that only the caller can enter.
///
/// Everything is made below an open directory that is new, and nothing that is there already is used: a link
/// cannot lead out of it. Host files that the caller or others may not read are left out.
///
/// # Errors
/// With the path that could not be made.
pub fn install(image: &HostImage, private: &Path) -> io::Result<Installed> {
    let private_fd = open_directory(AT_FDCWD, private)?;
    let rootfs = Fresh::new(private_fd.as_fd(), Path::new("rootfs"))?;
    rootfs.write(image)?;
    Fresh::new(private_fd.as_fd(), Path::new("layers"))?.make_layers(image)?;
    Ok(Installed::foresee(image, private))
}

impl Installed {
    /// Where [`install`] would put the parts of `image`.
    pub fn foresee(image: &HostImage, private: &Path) -> Installed {
        let layer = |number| layer(number).map(|name| private.join("layers").join(name)).into();
        Installed { rootfs: private.join("rootfs"), layers: (0..image.lowers.len()).map(layer).collect() }
    }
}

/// The names of the upper and the work directory of the lower `number`.
fn layer(number: usize) -> [PathBuf; 2] {
    ["upper", "work"].map(|kind| PathBuf::from(format!("{number}-{kind}")))
}

/// A path of the image, from its root directory.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("make {} of the image: {error}", path.display()))
}

/// A directory made here, and all that is below it too.
struct Fresh {
    fd: OwnedFd,
    /// What the caller's umask takes from the modes of new files.
    umask: u32,
}

impl Fresh {
    /// Makes a directory that was not there, and opens it.
    fn new(parent: BorrowedFd<'_>, path: &Path) -> io::Result<Fresh> {
        mkdirat(parent, path, Mode::from_bits_truncate(0o777)).map_err(|errno| at(path, errno.into()))?;
        let fd = open_directory(parent, path)?;
        let umask = !fstat(&fd)?.st_mode & 0o777;
        fchmod(&fd, Mode::from_bits_truncate(0o755))?;
        Ok(Fresh { fd, umask })
    }

    fn write(&self, image: &HostImage) -> io::Result<()> {
        for (path, mode) in &image.directories {
            self.make_directory(inside(path), *mode).map_err(|error| at(path, error))?;
        }
        for (path, text) in &image.links {
            symlinkat(text, &self.fd, inside(path)).map_err(|errno| at(path, errno.into()))?;
        }
        for (path, text) in &image.files {
            let made = self.make_file(inside(path));
            made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| at(path, error))?;
        }
        for (path, source) in &image.copies {
            self.copy(source, inside(path)).map_err(|error| at(path, error))?;
        }
        Ok(())
    }

    /// One upper and one work directory a lower. They must be on one file system, and apart.
    fn make_layers(&self, image: &HostImage) -> io::Result<()> {
        let make = |(number, lower): (usize, &Lower)| {
            let [upper, work] = layer(number);
            self.make_directory(&upper, 0o755)?;
            self.make_directory(&work, 0o755)?;
            for place in &lower.places {
                self.make_directory(&upper.join(place), 0o755)?;
            }
            Ok(())
        };
        image.lowers.iter().enumerate().try_for_each(make)
    }

    fn make_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        let bits = Mode::from_bits_truncate(mode);
        mkdirat(&self.fd, path, bits)?;
        if mode & self.umask != 0 {
            fchmodat(&self.fd, path, bits, FchmodatFlags::FollowSymlink)?;
        }
        Ok(())
    }

    /// Makes a file that was not there, for everybody to read.
    fn make_file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let file = openat(&self.fd, path, flags, mode)?;
        if self.umask & 0o644 != 0 {
            fchmod(&file, mode)?;
        }
        Ok(File::from(file))
    }

    /// Copies a regular file that everybody may read; leaves out any other.
    fn copy(&self, source: &Path, path: &Path) -> io::Result<()> {
        let Some(mut from) = open_public(source) else { return Ok(()) };
        io::copy(&mut from, &mut self.make_file(path)?).map(drop)
    }
}

fn open_directory(parent: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, path, flags, Mode::empty()).map_err(|errno| at(path, errno.into()))
}

/// Opens a regular file that everybody may read. No link is followed, neither at the end nor on the way.
fn open_public(source: &Path) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = File::from(openat2(AT_FDCWD, source, how).ok()?);
    let data = file.metadata().ok()?;
    (data.is_file() && data.mode() & 0o004 != 0 && data.len() <= LARGEST_COPY).then_some(file)
}
