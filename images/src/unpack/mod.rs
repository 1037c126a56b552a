//! A layer's entries, made below a directory of its own, as overlayfs wants them (kernel, filesystems/overlayfs.rst).
//!
//! Every entry is hostile: what it names is reached below the directory without following any link (openat2(2)
//! `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`), nothing that is there is written to a second time, and what a layer may
//! not have is an error with the entry's name.

mod compare;

pub use compare::compare;

use crate::error::{Context, Error, Kind, Result};
use crate::tar::{self, Entry, Limits, Reader, Time};
use ctr_isolation::sys::fs::{self, resolve};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What hides a name of the layers below (image-spec layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// What hides all of them in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept of its own is in old images.
const OF_AUFS: &[u8] = b".wh..wh.";

/// How a layer is unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much it may hold.
    pub limits: Limits,
    /// Paths that begin with `/` mean the root of the image; else they are refused.
    pub absolute: bool,
    /// Names that begin with `.wh.` hide what is below; else they are files as any.
    pub whiteouts: bool,
    /// Overlays of it are mounted in a user namespace: their marks are attributes of the user's.
    pub userxattr: bool,
    /// All files are the caller's: no other id is mapped.
    pub squash: bool,
}

/// What has been unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// How many entries there were.
    pub entries: u64,
    /// The bytes of all files.
    pub bytes: u64,
    /// Directories that no entry describes.
    pub implied: BTreeSet<PathBuf>,
    /// An entry describes the root.
    pub root: bool,
    /// The archive's end was marked.
    pub is_whole: bool,
    /// What could not be kept: sentences.
    pub notes: BTreeSet<String>,
}

/// Makes the entries that `reader` gives in the directory `root`, which is empty.
///
/// # Errors
/// That of reading, the kernel's, and what the archive may not have; half of it is then there.
pub fn unpack(reader: impl BufRead, root: BorrowedFd<'_>, options: Options) -> Result<Unpacked> {
    let mut tree = Tree {
        root,
        options,
        parent: None,
        directories: BTreeMap::new(),
        whiteouts: Vec::new(),
        opaque: BTreeSet::new(),
        done: Unpacked::default(),
    };
    let mut reader = Reader::new(reader, options.limits);
    while let Some(entry) = reader.next_entry()? {
        let made = tree.make(&entry, &mut reader);
        made.map_err(|error| explain(error).under(format!("entry {:?}", lossy(&entry.path))))?;
    }
    tree.finish()?;
    tree.done.entries = reader.count();
    tree.done.is_whole = reader.is_whole();
    Ok(tree.done)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn explain(error: Error) -> Error {
    match error.text.errno {
        libc::ELOOP | libc::EXDEV => {
            Error { kind: Kind::Damaged, ..error }.under("a part of its path is a symbolic link")
        }
        libc::ENOTDIR => Error { kind: Kind::Damaged, ..error }.under("a part of its path is no directory"),
        libc::EEXIST => Error { kind: Kind::Damaged, ..error }.under("it is in the layer twice"),
        libc::EINVAL if error.text.layers.last().is_some_and(|call| call.starts_with("fchownat")) => {
            error.under("its owner is nobody outside: it needs a larger range in /etc/subuid and /etc/subgid")
        }
        _ => error,
    }
}

/// Divides a path into its parts, which lead below the root and nowhere else.
fn clean(path: &[u8], absolute: bool) -> Result<PathBuf> {
    if path.is_empty() {
        return Err(Error::damaged("it has no name"));
    }
    if path[0] == b'/' && !absolute {
        return Err(Error::damaged(
            "its path is absolute (absolute_paths = true in the configuration takes it as one of the image)",
        ));
    }
    let mut clean = PathBuf::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Error::damaged("its path leads out with `..`")),
            part => clean.push(OsStr::from_bytes(part)),
        }
    }
    Ok(clean)
}

/// What remains to be set of a directory when nothing is made in it any more.
#[derive(Clone, Debug)]
struct Later {
    mode: u32,
    owner: (u32, u32),
    times: (Time, Time),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Tree<'a> {
    root: BorrowedFd<'a>,
    options: Options,
    /// The directory that the last entry was made in: the next most often is, too.
    parent: Option<(PathBuf, OwnedFd)>,
    directories: BTreeMap<PathBuf, Later>,
    whiteouts: Vec<PathBuf>,
    opaque: BTreeSet<PathBuf>,
    done: Unpacked,
}

impl Tree<'_> {
    fn make<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = clean(&entry.path, self.options.absolute)?;
        let Some(name) = path.file_name() else { return self.make_root(entry) };
        if self.options.whiteouts && name.as_bytes().starts_with(WHITEOUT) {
            return self.note_whiteout(&path, &name.as_bytes()[WHITEOUT.len()..]);
        }
        let (parent, name) = (self.parent_of(&path)?, Path::new(name));
        match entry.kind {
            tar::Kind::Directory => return self.make_directory(parent, &path, entry),
            tar::Kind::File => return self.make_file(parent, name, entry, reader),
            tar::Kind::HardLink => return self.make_link(parent, name, entry),
            tar::Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(Error::damaged("it is a symbolic link to nothing"));
                }
                fs::symlinkat(Path::new(OsStr::from_bytes(&entry.link)), self.parent(parent), name)?;
            }
            tar::Kind::Fifo => fs::mknodat(self.parent(parent), name, libc::S_IFIFO | 0o600, 0, 0)?,
            tar::Kind::CharDevice => self.make_device(parent, name, libc::S_IFCHR, entry)?,
            tar::Kind::BlockDevice => self.make_device(parent, name, libc::S_IFBLK, entry)?,
        }
        self.set(parent, name, entry)
    }

    /// The descriptor that [`Tree::parent_of`] has found.
    fn parent(&self, _found: Parent) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// Opens the directory that `path` is to be in, and makes those on the way that are not there.
    fn parent_of(&mut self, path: &Path) -> Result<Parent> {
        let wanted = path.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().map_or(Path::new(""), |(path, _)| path) != wanted {
            self.parent = match wanted.as_os_str().is_empty() {
                true => None,
                false => Some((wanted.to_owned(), self.ensure_directory(wanted)?)),
            };
        }
        Ok(Parent(()))
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        open_below(self.root, path, libc::O_DIRECTORY | libc::O_RDONLY)
    }

    fn ensure_directory(&mut self, path: &Path) -> Result<OwnedFd> {
        match self.open_directory(path) {
            Err(error) if error.text.errno == libc::ENOENT => {}
            other => return other,
        }
        let name = Path::new(path.file_name().unwrap_or_default());
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => fs::mkdirat(self.ensure_directory(parent)?.as_fd(), name, 0o755)?,
            None => fs::mkdirat(self.root, name, 0o755)?,
        }
        self.done.implied.insert(path.to_owned());
        self.directories.insert(path.to_owned(), Later::implied());
        self.open_directory(path)
    }

    fn later(&self, entry: &Entry) -> Later {
        Later {
            mode: entry.mode,
            owner: self.owner(entry),
            times: (entry.atime.unwrap_or(entry.mtime), entry.mtime),
            xattrs: entry.xattrs.clone(),
        }
    }

    fn make_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != tar::Kind::Directory {
            return Err(Error::damaged("it takes the place of the root"));
        }
        self.directories.insert(PathBuf::new(), self.later(entry));
        Ok(())
    }

    fn make_directory(&mut self, parent: Parent, path: &Path, entry: &Entry) -> Result<()> {
        let name = Path::new(path.file_name().unwrap_or_default());
        match fs::mkdirat(self.parent(parent), name, 0o700) {
            // Archives of several parts, and those that name a file before its directory, have it twice.
            Err(error) if error.errno == libc::EEXIST && fs::statat(self.parent(parent), name)?.is_dir() => {}
            other => other?,
        }
        self.done.implied.remove(path);
        self.directories.insert(path.to_owned(), self.later(entry));
        Ok(())
    }

    fn make_file<R: BufRead>(
        &mut self,
        parent: Parent,
        name: &Path,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
        let file = File::from(fs::openat2(self.parent(parent), name, flags, 0o600, 0)?);
        let mut end = 0;
        reader.contents(|place, bytes| {
            end = place + bytes.len() as u64;
            file.write_all_at(bytes, place).doing(|| "write it")
        })?;
        if end < entry.size {
            file.set_len(entry.size).doing(|| "make it as large as it is")?;
        }
        self.done.bytes += entry.size;
        let fd = file.as_fd();
        let (uid, gid) = self.owner(entry);
        if (uid, gid) != (0, 0) {
            fs::chownat(fd, Path::new(""), uid, gid)?;
        }
        // Some of them change the mode, and a change of owner takes file capabilities away.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(entry.mode))
            .doing(|| "set its mode")?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            self.note_attribute(key, fs::set_attribute(fd, key, value))?;
        }
        Ok(fs::set_times(fd, Path::new(""), pair(entry.atime.unwrap_or(entry.mtime)), pair(entry.mtime))?)
    }

    fn make_link(&mut self, parent: Parent, name: &Path, entry: &Entry) -> Result<()> {
        let target = clean(&entry.link, true).doing(|| format!("its target {:?}", lossy(&entry.link)))?;
        let Some(old) = target.file_name() else {
            return Err(Error::damaged("it is a hard link to the root"));
        };
        let holder = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let linked = holder.map(|directory| self.open_directory(directory)).transpose().and_then(|holder| {
            let from = holder.as_ref().map_or(self.root, OwnedFd::as_fd);
            Ok(fs::linkat(from, Path::new(old), self.parent(parent), name)?)
        });
        linked.map_err(|error| match error.text.errno {
            libc::ENOENT => {
                let target = lossy(&entry.link);
                Error::damaged(format!(
                    "it is a hard link to {target:?}, which is not in the layer before it"
                ))
            }
            libc::EPERM => Error::damaged("it is a hard link to a directory"),
            _ => error,
        })
    }

    fn make_device(&mut self, parent: Parent, name: &Path, kind: u32, entry: &Entry) -> Result<()> {
        let (major, minor) = entry.device;
        if kind == libc::S_IFCHR && (major, minor) == (0, 0) {
            return Err(Error::damaged("it is the device 0:0, by which overlayfs hides files"));
        }
        match fs::mknodat(self.parent(parent), name, kind | 0o600, major, minor) {
            Err(error) if error.errno == libc::EPERM => {
                // A file in its place, which says what it stands for.
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
                let file = fs::openat2(self.parent(parent), name, flags, 0o600, 0)?;
                let letter = if kind == libc::S_IFCHR { 'c' } else { 'b' };
                let value = format!("{letter} {major}:{minor}");
                let set = fs::set_attribute(file.as_fd(), STAND_IN, value.as_bytes());
                self.note_attribute(STAND_IN, set)?;
                self.done
                    .notes
                    .insert("devices are empty files: in a user namespace nobody may make them".to_owned());
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Sets what an entry that is no file and no directory has besides its name.
    fn set(&mut self, parent: Parent, name: &Path, entry: &Entry) -> Result<()> {
        let (uid, gid) = self.owner(entry);
        if (uid, gid) != (0, 0) {
            fs::chownat(self.parent(parent), name, uid, gid)?;
        }
        if entry.kind != tar::Kind::Symlink {
            fs::chmodat(self.parent(parent), name, entry.mode)?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            let set = fs::set_attribute_at(self.parent(parent), name, key, value);
            self.note_attribute(key, set)?;
        }
        let times = (entry.atime.unwrap_or(entry.mtime), entry.mtime);
        Ok(fs::set_times(self.parent(parent), name, pair(times.0), pair(times.1))?)
    }

    fn owner(&self, entry: &Entry) -> (u32, u32) {
        if self.options.squash { (0, 0) } else { (entry.uid, entry.gid) }
    }

    /// An attribute that the file system has no place for is told of, not lost without a word.
    fn note_attribute(&mut self, key: &[u8], set: ctr_isolation::Result<()>) -> Result<()> {
        match set {
            Err(error) if error.errno == libc::EOPNOTSUPP => {
                let key = lossy(key);
                self.done.notes.insert(format!(
                    "the attribute {key} is lost: the store's file system has none of its kind"
                ));
                Ok(())
            }
            // Attributes of the user's are for files and directories only (xattr(7)).
            Err(error) if error.errno == libc::EPERM && key.starts_with(b"user.") => {
                self.done.notes.insert(format!("the attribute {} of links and devices is lost", lossy(key)));
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn note_whiteout(&mut self, path: &Path, name: &[u8]) -> Result<()> {
        let directory = path.parent().unwrap_or(Path::new(""));
        match path.file_name().map(OsStr::as_bytes) {
            Some(OPAQUE) => {
                self.opaque.insert(directory.to_owned());
            }
            Some(file) if file.starts_with(OF_AUFS) => {}
            _ if matches!(name, b"" | b"." | b"..") => {
                return Err(Error::damaged("it hides what is no name"));
            }
            _ => self.whiteouts.push(directory.join(OsStr::from_bytes(name))),
        }
        Ok(())
    }

    /// Hides what is to be hidden, and sets what had to wait.
    fn finish(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.whiteouts) {
            self.hide(&path)
                .map_err(|error| explain(error).under(format!("whiteout of {}", path.display())))?;
        }
        for path in std::mem::take(&mut self.opaque) {
            self.make_opaque(&path).doing(|| format!("opaque directory {}", path.display()))?;
        }
        // Their times change no more.
        self.parent = None;
        self.done.root = self.directories.contains_key(Path::new(""));
        // Else it would be of the time when it was unpacked.
        self.directories.entry(PathBuf::new()).or_insert_with(Later::implied);
        for (path, later) in std::mem::take(&mut self.directories) {
            self.set_directory(&path, &later).doing(|| format!("directory {}", path.display()))?;
        }
        Ok(())
    }

    fn hide(&mut self, path: &Path) -> Result<()> {
        let (parent, name) = (self.parent_of(path)?, Path::new(path.file_name().unwrap_or_default()));
        match fs::mknodat(self.parent(parent), name, libc::S_IFCHR, 0, 0) {
            // A name that the layer has hides what is below by itself; a directory would be joined with it.
            Err(error) if error.errno == libc::EEXIST => {
                if fs::statat(self.parent(parent), name)?.is_dir() {
                    self.opaque.insert(path.to_owned());
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn make_opaque(&mut self, path: &Path) -> Result<()> {
        let key: &[u8] =
            if self.options.userxattr { b"user.overlay.opaque" } else { b"trusted.overlay.opaque" };
        Ok(fs::set_attribute(self.ensure_directory(path)?.as_fd(), key, b"y")?)
    }

    fn set_directory(&mut self, path: &Path, later: &Later) -> Result<()> {
        let fd = self.open_directory(path)?;
        if later.owner != (0, 0) {
            fs::chownat(fd.as_fd(), Path::new(""), later.owner.0, later.owner.1)
                .map_err(|error| explain(error.into()))?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(later.mode);
        let file = File::from(fd);
        file.set_permissions(mode).doing(|| "set its mode")?;
        for (key, value) in later.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            self.note_attribute(key, fs::set_attribute(file.as_fd(), key, value))?;
        }
        Ok(fs::set_times(file.as_fd(), Path::new(""), pair(later.times.0), pair(later.times.1))?)
    }
}

/// Opens what is at `path` below `root`, through no link; the empty path is `root` itself.
///
/// # Errors
/// The kernel's; `ELOOP` where a part of it is a symbolic link.
pub(crate) fn open_below(root: BorrowedFd<'_>, path: &Path, flags: i32) -> Result<OwnedFd> {
    let rules = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS | resolve::NO_XDEV;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(fs::openat2(root, path, flags, 0, rules)?)
}

/// Gives the directory `to` the owner, the mode, the times and the attributes of the directory `from`.
///
/// # Errors
/// The kernel's.
pub fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let data = File::from(from.try_clone_to_owned()?).metadata().doing(|| "look at a directory")?;
    let file = File::from(to.try_clone_to_owned()?);
    fs::chownat(to, Path::new(""), data.uid(), data.gid())?;
    file.set_permissions(data.permissions()).doing(|| "set its mode")?;
    // Of the directory, and not of the link that its descriptor's path is.
    let place = fs::fd_path(from).join(".");
    for key in fs::attribute_names(&place)?.iter().filter(|key| is_kept(key)) {
        fs::set_attribute(to, key, &fs::attribute_value(&place, key)?)?;
    }
    let times = ((data.atime(), data.atime_nsec() as u32), (data.mtime(), data.mtime_nsec() as u32));
    Ok(fs::set_times(to, Path::new(""), times.0, times.1)?)
}

/// Shows that [`Tree::parent_of`] was asked before.
#[derive(Clone, Copy)]
struct Parent(());

impl Later {
    /// Of a directory that no entry describes.
    fn implied() -> Later {
        Later { mode: 0o755, owner: (0, 0), times: Default::default(), xattrs: Vec::new() }
    }
}

/// What an empty file that stands for a device has.
const STAND_IN: &[u8] = b"user.ctr.device";

fn pair(time: Time) -> (i64, u32) {
    (time.seconds, time.nanoseconds)
}

/// Whether an image may give a file the attribute: none by which the kernel or overlayfs trusts whoever has set it.
pub(crate) fn is_kept(key: &[u8]) -> bool {
    let is_user = key.starts_with(b"user.") && !key.starts_with(b"user.overlay.") && key != STAND_IN;
    is_user
        || matches!(key, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

#[cfg(test)]
mod tests;
