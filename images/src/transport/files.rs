//! What the files of a directory and those of an archive have in common: they are found by their names, and
//! read where they are.

use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{LARGEST_DOCUMENT, media};
use crate::source::Document;
use ctr_isolation::sys::fs::{self, resolve};
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that have names.
pub(super) trait Files: Debug + Send + Sync {
    /// The file of that name.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when it is a link, or no regular file.
    fn open(&self, name: &str) -> Result<Section>;

    /// A small file as a whole.
    ///
    /// # Errors
    /// As [`Files::open`]; that it is larger than `most`.
    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        self.open(name)?.all(most).doing(|| format!("read {name}"))
    }
}

/// A part of a file, read without moving what others read of it.
#[derive(Clone, Debug)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Section {
    /// The `length` bytes from `at` on.
    pub(super) fn new(file: Arc<File>, at: u64, length: u64) -> Section {
        Section { file, at, end: at.saturating_add(length) }
    }

    /// All of a file.
    pub(super) fn whole(file: File) -> Result<Section> {
        let length = file.metadata()?.len();
        Ok(Section::new(Arc::new(file), 0, length))
    }

    /// How much of it is left.
    pub(super) fn size(&self) -> u64 {
        self.end - self.at
    }

    /// The same without its first `offset` bytes, as a source gives it.
    pub(super) fn past(mut self, offset: u64) -> (u64, Box<dyn Read + Send>) {
        let offset = offset.min(self.size());
        self.at += offset;
        (offset, Box::new(self))
    }

    /// All of it, `most` bytes at most.
    pub(super) fn all(mut self, most: u64) -> Result<Vec<u8>> {
        let size = self.size();
        if size > most {
            return Err(Error::damaged(format!("it has {size} bytes, more than {most}")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        self.read_to_end(&mut bytes)?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(Error::damaged("it is shorter than it was")),
        }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.size()).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The files in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens the directory `path`.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        Ok(Directory { path: path.to_owned(), fd: fs::open(path, libc::O_DIRECTORY | libc::O_RDONLY)? })
    }
}

impl Files for Directory {
    fn open(&self, name: &str) -> Result<Section> {
        let rules = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS;
        // Without O_NONBLOCK a FIFO would keep us waiting.
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = fs::openat2(self.fd.as_fd(), Path::new(name), flags, 0, rules).map_err(Error::from);
        let opened = opened.map_err(|error| match error.text.errno {
            libc::ELOOP => Error::damaged("it is a symbolic link, or behind one"),
            libc::ENXIO => Error::damaged("it is no regular file"),
            _ => error,
        });
        let opened = opened.and_then(|fd| match fs::fstat(fd.as_fd())?.kind() {
            libc::S_IFREG => Section::whole(File::from(fd)),
            _ => Err(Error::damaged("it is no regular file")),
        });
        opened.doing(|| format!("open {}", self.path.join(name).display()))
    }
}

/// A manifest or an index of which nobody has said what it is: as it says itself, or as it looks.
pub(super) fn document(bytes: Vec<u8>) -> Document {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let media_type = match serde_json::from_slice::<Said>(&bytes) {
        Ok(Said { media_type: Some(said), .. }) => said,
        Ok(Said { manifests: Some(_), .. }) => media::INDEX.to_owned(),
        _ => media::MANIFEST.to_owned(),
    };
    Document { media_type, bytes }
}

/// Reads a manifest or an index that is a file.
pub(super) fn read_document(files: &dyn Files, name: &str) -> Result<Document> {
    files.read(name, LARGEST_DOCUMENT).map(document)
}

/// `error`, where what was looked for is not there.
pub(super) fn or_missing<T>(found: Result<T>, error: impl FnOnce() -> Error) -> Result<T> {
    found.map_err(|other| if other.kind == Kind::NotFound { error() } else { other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_below() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("f"), "hello").unwrap();
        std::fs::create_dir(at("d")).unwrap();
        std::os::unix::fs::symlink("f", at("l")).unwrap();
        nix::unistd::mkfifo(&at("p"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let files = Directory::open(dir.path()).unwrap();
        assert_eq!(files.read("f", 5).unwrap(), b"hello");
        let (offset, mut rest) = files.open("f").unwrap().past(3);
        assert_eq!((offset, io::read_to_string(&mut rest).unwrap().as_str()), (3, "lo"));
        assert_eq!(files.open("f").unwrap().past(9).0, 5);
        assert!(files.read("f", 4).is_err());
        assert_eq!(files.open("x").unwrap_err().kind, Kind::NotFound);
        for wrong in ["l", "d", "p", "../f", "/etc/passwd"] {
            assert_ne!(files.open(wrong).unwrap_err().kind, Kind::NotFound, "{wrong}");
        }
        assert!(files.open("l").unwrap_err().to_string().contains("symbolic link"));
    }

    #[test]
    fn a_document_says_what_it_is() {
        let of = |json: &str| document(json.into()).media_type;
        assert_eq!(of(r#"{"mediaType":"x"}"#), "x");
        assert_eq!(of(r#"{"manifests":[]}"#), media::INDEX);
        assert_eq!(of(r#"{"layers":[]}"#), media::MANIFEST);
        assert_eq!(of("rubbish"), media::MANIFEST);
    }
}
