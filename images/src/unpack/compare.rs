//! Whether a directory is what unpacking an archive would make of it.

use super::{OF_AUFS, OPAQUE, Options, STAND_IN, WHITEOUT, clean, is_kept, lossy, open_below};
use crate::error::{Context, Error, Result};
use crate::tar::{Entry, Kind, Reader};
use ctr_isolation::sys::fs;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Compares the entries that `reader` gives with the directory `tree`, in which the directories `implied` have no entry: what
/// the first difference is, if there is one.
///
/// # Errors
/// That of reading the archive, or the kernel's.
pub fn compare(
    reader: impl BufRead,
    tree: &Path,
    implied: &BTreeSet<PathBuf>,
    options: Options,
) -> Result<Option<String>> {
    let root = match fs::open(tree, libc::O_DIRECTORY) {
        Err(error) if error.errno == libc::ENOENT => return Ok(Some("its directory is gone".to_owned())),
        other => other?,
    };
    let mut comparison = Comparison { root, options, known: implied.clone(), directories: BTreeMap::new() };
    let mut reader = Reader::new(reader, options.limits);
    while let Some(entry) = reader.next_entry()? {
        if let Some(wrong) = comparison.entry(&entry, &mut reader)? {
            return Ok(Some(format!("{:?}: {wrong}", lossy(&entry.path))));
        }
    }
    for (path, entry) in &comparison.directories {
        if let Some(wrong) = comparison.metadata(path, entry)? {
            return Ok(Some(format!("{path:?}: {wrong}")));
        }
    }
    comparison.strangers(Path::new(""))
}

struct Comparison {
    root: OwnedFd,
    options: Options,
    /// The paths that may be there.
    known: BTreeSet<PathBuf>,
    /// The last entry of a directory counts.
    directories: BTreeMap<PathBuf, Entry>,
}

impl Comparison {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<Option<String>> {
        let path = clean(&entry.path, self.options.absolute)?;
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| self.options.whiteouts) {
            if name != OPAQUE && !name.starts_with(OF_AUFS) {
                self.known.insert(path.with_file_name(OsStr::from_bytes(hidden)));
            }
            return Ok(None);
        }
        for parent in path.ancestors().skip(1) {
            self.known.insert(parent.to_owned());
        }
        self.known.insert(path.clone());
        if entry.kind == Kind::Directory {
            self.directories.insert(path, entry.clone());
            return Ok(None);
        }
        let Some(stat) = self.stat(&path)? else { return Ok(Some("it is gone".to_owned())) };
        let is_kind = match entry.kind {
            Kind::File => stat.kind() == libc::S_IFREG,
            Kind::HardLink => return self.hard_link(&path, entry),
            Kind::Symlink => stat.kind() == libc::S_IFLNK,
            Kind::Fifo => stat.kind() == libc::S_IFIFO,
            Kind::CharDevice => stat.is_char_device(entry.device.0, entry.device.1) || self.stands_in(&path),
            Kind::BlockDevice => {
                stat.kind() == libc::S_IFBLK && stat.device == entry.device || self.stands_in(&path)
            }
            Kind::Directory => true,
        };
        if !is_kind {
            return Ok(Some("it is of another type".to_owned()));
        }
        if entry.kind == Kind::Symlink {
            let target =
                fs::readlinkat(self.open(&path, libc::O_PATH | libc::O_NOFOLLOW)?.as_fd(), Path::new(""))?;
            if target.as_os_str().as_bytes() != entry.link {
                return Ok(Some(format!("it leads to {}", target.display())));
            }
        }
        if entry.kind == Kind::File && !self.same_contents(&path, entry, reader)? {
            return Ok(Some("its contents are others".to_owned()));
        }
        self.metadata(&path, entry)
    }

    fn open(&self, path: &Path, flags: i32) -> Result<OwnedFd> {
        open_below(self.root.as_fd(), path, flags)
    }

    /// The directory that `path` is in, open, and a path through it: for calls that know no descriptors of links and devices.
    fn place(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let parent = self.open(path.parent().unwrap_or(Path::new("")), libc::O_DIRECTORY | libc::O_PATH)?;
        let place = fs::fd_path(parent.as_fd()).join(path.file_name().unwrap_or(OsStr::new(".")));
        Ok((parent, place))
    }

    fn stat(&self, path: &Path) -> Result<Option<fs::Stat>> {
        match self.open(path, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(fd) => Ok(Some(fs::fstat(fd.as_fd())?)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn stands_in(&self, path: &Path) -> bool {
        self.place(path).is_ok_and(|(_parent, place)| fs::attribute_value(&place, STAND_IN).is_ok())
    }

    fn hard_link(&self, path: &Path, entry: &Entry) -> Result<Option<String>> {
        let target = clean(&entry.link, true)?;
        let same = self.stat(path)?.map(|stat| stat.id) == self.stat(&target)?.map(|stat| stat.id);
        Ok((!same).then(|| format!("it is no link to {}", target.display())))
    }

    fn same_contents<R: BufRead>(&self, path: &Path, entry: &Entry, reader: &mut Reader<R>) -> Result<bool> {
        let file = File::from(self.open(path, libc::O_RDONLY | libc::O_NOFOLLOW)?);
        let mut same = file.metadata()?.len() == entry.size;
        let mut found = Vec::new();
        reader.contents(|place, bytes| {
            found.resize(bytes.len(), 0);
            same = same && file.read_exact_at(&mut found, place).is_ok() && found == bytes;
            Ok(())
        })?;
        Ok(same)
    }

    fn metadata(&self, path: &Path, entry: &Entry) -> Result<Option<String>> {
        let (_parent, full) = match self.place(path) {
            Err(error) if is_missing(&error) => return Ok(Some("it is gone".to_owned())),
            other => other?,
        };
        let data = match std::fs::symlink_metadata(&full) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some("it is gone".to_owned()));
            }
            other => other.doing(|| format!("look at {}", path.display()))?,
        };
        let differs = |what: &str| Ok(Some(format!("its {what} is another")));
        if entry.kind == Kind::Directory && !data.is_dir() {
            return differs("type");
        }
        if entry.kind != Kind::Symlink && data.mode() & 0o7777 != entry.mode {
            return differs("mode");
        }
        if !self.options.squash && (data.uid(), data.gid()) != (entry.uid, entry.gid) {
            return differs("owner");
        }
        if (data.mtime(), data.mtime_nsec()) != (entry.mtime.seconds, i64::from(entry.mtime.nanoseconds)) {
            return differs("time");
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            match fs::attribute_value(&full, key) {
                Ok(found) if found == *value => {}
                // What could not be kept was told when it was unpacked.
                Err(error) if error.errno == libc::EOPNOTSUPP => {}
                _ => return differs(&format!("attribute {}", lossy(key))),
            }
        }
        Ok(None)
    }

    /// Something that no entry describes.
    fn strangers(&self, path: &Path) -> Result<Option<String>> {
        let directory = self.open(path, libc::O_DIRECTORY)?;
        let entries = std::fs::read_dir(fs::fd_path(directory.as_fd()));
        for entry in entries.doing(|| format!("read {}", path.display()))? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            if !self.known.contains(&path) {
                return Ok(Some(format!("{path:?}: it is not in the layer")));
            }
            if entry.file_type()?.is_dir()
                && let Some(found) = self.strangers(&path)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Something else may be where a directory was: a link is followed no more than by unpacking.
fn is_missing(error: &Error) -> bool {
    matches!(error.text.errno, libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
}
