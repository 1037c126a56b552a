//! A directory as a tar stream: the way back from [`crate::unpack`].
//!
//! Nothing is reached by following a link: each name is opened below the directory it was found in, and what is
//! written is what is open. The same tree gives the same bytes.

use crate::error::{Context, Error, Result};
use crate::tar::{Entry, Kind, Time, Writer, can_be_written};
use crate::unpack::is_kept;
use ctr_isolation::sys::fs::{self, resolve};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// No tree has more.
const MOST_ENTRIES: u64 = 1 << 24;

/// Writes the tree below `root`, the directory itself included, to `writer`. With `cross` what is mounted in it
/// belongs to it, else only the places are. Returns what is left out: sentences.
///
/// # Errors
/// The kernel's, that of writing, and that a file changes meanwhile.
pub fn pack<W: Write>(root: BorrowedFd<'_>, cross: bool, writer: &mut Writer<W>) -> Result<BTreeSet<String>> {
    let (seen, notes) = (BTreeMap::new(), BTreeSet::new());
    let mut walk = Walk { root, cross, writer, parent: None, seen, notes };
    let (mut waiting, mut count) = (vec![PathBuf::new()], 0);
    while let Some(path) = waiting.pop() {
        count += 1;
        if count > MOST_ENTRIES {
            return Err(Error::other(format!("the tree has more than {MOST_ENTRIES} files")));
        }
        let children = walk.one(&path).doing(|| format!("pack {:?}", Path::new("/").join(&path)))?;
        waiting.extend(children.into_iter().rev().map(|name| path.join(name)));
    }
    Ok(walk.notes)
}

struct Walk<'a, W> {
    root: BorrowedFd<'a>,
    cross: bool,
    writer: &'a mut Writer<W>,
    /// The directory that the last name was found in.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Where a file with several names was met first.
    seen: BTreeMap<(u64, u64), Vec<u8>>,
    notes: BTreeSet<String>,
}

/// A name that is open, not for reading.
struct Found {
    file: File,
    data: Metadata,
    /// Something else is mounted on it.
    is_foreign: bool,
}

impl<W: Write> Walk<'_, W> {
    /// Writes one name; returns those in it, in order, where it is a directory.
    fn one(&mut self, path: &Path) -> Result<Vec<OsString>> {
        let name = PathBuf::from(path.file_name().unwrap_or(".".as_ref()));
        self.enter(path.parent().unwrap_or(Path::new("")))?;
        let found = match self.find(&name) {
            Err(error) if error.text.errno == libc::ENOENT => {
                self.note(path, "it has gone while it was looked at");
                return Ok(Vec::new());
            }
            other => other?,
        };
        let Some(mut entry) = self.entry(path, &name, &found)? else { return Ok(Vec::new()) };
        if entry.kind == Kind::File && !found.is_foreign {
            let file = self.open(&name, libc::O_RDONLY | libc::O_NONBLOCK)?;
            let data = file.metadata()?;
            if (data.dev(), data.ino()) != (found.data.dev(), found.data.ino()) {
                return Err(Error::other("another file has taken its place while it was read"));
            }
            // One that grows is taken as it was.
            entry.size = data.len();
            self.writer.entry(&entry, file.take(data.len()))?;
        } else {
            self.writer.entry(&entry, io::empty())?;
        }
        match entry.kind == Kind::Directory && !found.is_foreign {
            true => children(&self.open(&name, libc::O_RDONLY | libc::O_DIRECTORY)?),
            false => Ok(Vec::new()),
        }
    }

    fn note(&mut self, path: &Path, why: &str) {
        self.notes.insert(format!("{} is left out: {why}", Path::new("/").join(path).display()));
    }

    fn rules(&self) -> u64 {
        let rules = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS;
        if self.cross { rules } else { rules | resolve::NO_XDEV }
    }

    /// Opens the directory `path`, unless it is the one that is open.
    fn enter(&mut self, path: &Path) -> Result<()> {
        if self.parent.as_ref().is_none_or(|(open, _)| open != path) {
            let whole = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let flags = libc::O_DIRECTORY | libc::O_PATH;
            let fd = fs::openat2(self.root, whole, flags, 0, self.rules())?;
            self.parent = Some((path.to_owned(), fd));
        }
        Ok(())
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    fn open(&self, name: &Path, flags: i32) -> Result<File> {
        Ok(File::from(fs::openat2(self.parent(), name, flags | libc::O_NOFOLLOW, 0, self.rules())?))
    }

    fn find(&self, name: &Path) -> Result<Found> {
        let (file, is_foreign) = match self.open(name, libc::O_PATH) {
            Err(error) if error.text.errno == libc::EXDEV => {
                let rules = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS;
                let flags = libc::O_PATH | libc::O_NOFOLLOW;
                (File::from(fs::openat2(self.parent(), name, flags, 0, rules)?), true)
            }
            other => (other?, false),
        };
        let data = file.metadata()?;
        Ok(Found { file, data, is_foreign })
    }

    /// What is to be said of it; nothing where it is left out.
    fn entry(&mut self, path: &Path, name: &Path, found: &Found) -> Result<Option<Entry>> {
        let data = &found.data;
        let Some(kind) = self.kind(path, data) else { return Ok(None) };
        let mut entry = Entry {
            path: [b"./", path.as_os_str().as_bytes()].concat(),
            kind,
            link: Vec::new(),
            mode: data.mode() & 0o7777,
            uid: data.uid(),
            gid: data.gid(),
            mtime: Time { seconds: data.mtime(), nanoseconds: data.mtime_nsec() as u32 },
            atime: None,
            device: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            segments: Vec::new(),
        };
        if !path.as_os_str().is_empty() {
            entry.path.drain(..2);
            if kind == Kind::Directory {
                entry.path.push(b'/');
            }
        }
        if found.is_foreign {
            let why = "it is on another file system, of which only the place is here";
            self.note(path, why);
            entry.kind = if kind == Kind::Directory { kind } else { Kind::File };
            return Ok(Some(entry));
        }
        if kind != Kind::Directory && data.nlink() > 1 {
            match self.seen.get(&(data.dev(), data.ino())) {
                Some(first) => {
                    return Ok(Some(Entry { kind: Kind::HardLink, link: first.clone(), ..entry }));
                }
                None => _ = self.seen.insert((data.dev(), data.ino()), entry.path.clone()),
            }
        }
        match kind {
            Kind::Symlink => {
                let target = fs::readlinkat(found.file.as_fd(), Path::new(""))?;
                entry.link = target.into_os_string().into_vec();
            }
            Kind::CharDevice | Kind::BlockDevice => {
                entry.device = (libc::major(data.rdev()), libc::minor(data.rdev()));
            }
            _ => {}
        }
        entry.xattrs = self.attributes(path, name)?;
        Ok(Some(entry))
    }

    fn kind(&mut self, path: &Path, data: &Metadata) -> Option<Kind> {
        // In a layer such a name would hide another (image-spec layer.md, "Whiteouts").
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
            self.note(path, "in an image its name would hide another file");
            return None;
        }
        match data.mode() & libc::S_IFMT {
            libc::S_IFREG => Some(Kind::File),
            libc::S_IFDIR => Some(Kind::Directory),
            libc::S_IFLNK => Some(Kind::Symlink),
            libc::S_IFIFO => Some(Kind::Fifo),
            libc::S_IFBLK => Some(Kind::BlockDevice),
            libc::S_IFCHR if data.rdev() == 0 => {
                self.note(path, "it is the device 0:0, by which overlayfs hides files");
                None
            }
            libc::S_IFCHR => Some(Kind::CharDevice),
            _ => {
                self.note(path, "it is a socket");
                None
            }
        }
    }

    /// The extended attributes that an image may have.
    fn attributes(&mut self, path: &Path, name: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let place = fs::fd_path(self.parent()).join(name);
        let mut names = match fs::attribute_names(&place) {
            Err(error) if error.errno == libc::EOPNOTSUPP => Vec::new(),
            other => other?,
        };
        names.sort();
        let mut all = Vec::new();
        for name in names.into_iter().filter(|name| is_kept(name)) {
            if !can_be_written(&name) {
                let name = String::from_utf8_lossy(&name);
                let path = Path::new("/").join(path);
                let path = path.display();
                self.notes.insert(format!("the attribute {name} of {path} is left out: its name has a `=`"));
                continue;
            }
            let value = fs::attribute_value(&place, &name)?;
            all.push((name, value));
        }
        Ok(all)
    }
}

/// The names in a directory, in order.
fn children(directory: &File) -> Result<Vec<OsString>> {
    let read = std::fs::read_dir(fs::fd_path(directory.as_fd())).doing(|| "read the directory")?;
    let mut names = read.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Limits, Reader};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn packed(path: &Path) -> (Vec<u8>, BTreeSet<String>) {
        let mut writer = Writer::new(Vec::new());
        let notes = pack(File::open(path).unwrap().as_fd(), false, &mut writer).unwrap();
        (writer.finish().unwrap(), notes)
    }

    #[test]
    fn a_tree_in_order_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/x"), "contents").unwrap();
        std::fs::hard_link(at("d/x"), at("d/y")).unwrap();
        std::fs::set_permissions(at("d/x"), PermissionsExt::from_mode(0o4755)).unwrap();
        symlink("/etc", at("away")).unwrap();
        std::fs::write(at(".wh.d"), "").unwrap();
        std::fs::write(at("d-"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let (bytes, notes) = packed(dir.path());
        assert_eq!(bytes, packed(dir.path()).0);
        let mut reader = Reader::new(bytes.as_slice(), Limits { entries: 100, bytes: 1 << 20 });
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let (path, link) = (String::from_utf8(entry.path), String::from_utf8(entry.link));
            found.push(format!("{:?} {} {} {}", entry.kind, path.unwrap(), link.unwrap(), entry.size));
        }
        let wanted = [
            "Directory ./  0",
            "Symlink away /etc 0",
            "Directory d/  0",
            "File d/x  8",
            "HardLink d/y d/x 0",
            "File d-  0",
        ];
        assert_eq!(found, wanted);
        let notes: Vec<_> = notes.into_iter().collect();
        assert_eq!(notes.len(), 2);
        assert!(notes[0].starts_with("/.wh.d is left out") && notes[1].contains("a socket"), "{notes:?}");
    }
}
