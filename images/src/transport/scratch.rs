//! What is written for the time of an operation, and what is written beside its place first.

use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Result};
use crate::manifest::Compression;
use crate::store::unique;
use crate::tar::{Entry, Kind, Time, Writer};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where files may be kept for the time of an operation, and how large one may become.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// A directory. Not the store's `work`, of which `prune` removes what is not locked.
    pub dir: PathBuf,
    /// How many bytes an archive may have when it is decompressed.
    pub most: u64,
}

impl Scratch {
    /// A file without a name: it goes with us.
    pub(super) fn file(&self) -> Result<File> {
        let path = self.dir.join(unique());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.doing(|| format!("make the temporary file {}", path.display()))?;
        fs::remove_file(&path).doing(|| format!("remove the name of {}", path.display()))?;
        Ok(file)
    }

    /// Copies all of `from`, decompressed, to a file without a name.
    pub(super) fn decompressed(&self, from: impl BufRead + Send) -> Result<File> {
        let mut file = self.file()?;
        copy_bounded(&mut *decompressed(from)?, &mut file, self.most).doing(|| "decompress it")?;
        Ok(file)
    }

    /// An empty directory that goes with us.
    pub(super) fn staging(&self) -> Result<Staging> {
        let path = self.dir.join(unique());
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.doing(|| format!("make the temporary directory {}", path.display()))?;
        Ok(Staging { path })
    }
}

/// Copies all of `from`, which has `most` bytes at most; returns how many there were.
pub(super) fn copy_bounded(from: &mut dyn Read, to: &mut dyn Write, most: u64) -> Result<u64> {
    let count = io::copy(&mut from.take(most.saturating_add(1)), to)?;
    match count > most {
        true => Err(Error::damaged(format!("it holds more than {most} bytes, which is the limit"))),
        false => Ok(count),
    }
}

/// What `from` gives, decompressed, whatever it is called.
pub(super) fn decompressed<'a>(mut from: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    const OTHERS: [(&[u8], &str); 3] =
        [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4")];
    let start = from.fill_buf()?;
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(Error::other(format!("it is compressed with {name}: decompress it first ({name} -d)")));
    }
    Ok(match Compression::of(start) {
        Compression::None => Box::new(from),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(from)?),
    })
}

/// A directory that is removed when it is dropped: what an archive is to be made of.
#[derive(Debug)]
pub(super) struct Staging {
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Staging {
    /// Writes an archive of all of it: in order, all of it root's and of 1970, so that the same files make the
    /// same archive.
    pub(super) fn archive(&self, to: &mut dyn Write) -> Result<()> {
        let mut writer = Writer::new(to);
        for (name, path) in self.files()? {
            let data = fs::symlink_metadata(&path)?;
            let kind = if data.is_dir() { Kind::Directory } else { Kind::File };
            let size = if data.is_dir() { 0 } else { data.len() };
            let entry = plain_entry(kind, name, size);
            let written = match kind {
                Kind::File => writer.entry(&entry, File::open(&path)?),
                _ => writer.entry(&entry, io::empty()),
            };
            written.doing(|| format!("write {}", path.display()))?;
        }
        writer.finish().map(drop)
    }

    /// Names in the archive, and paths.
    fn files(&self) -> Result<BTreeMap<String, PathBuf>> {
        let (mut all, mut waiting) = (BTreeMap::new(), vec![(String::new(), self.path.clone())]);
        while let Some((prefix, directory)) = waiting.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let mut name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    name.push('/');
                    waiting.push((name.clone(), entry.path()));
                }
                all.insert(name, entry.path());
            }
        }
        Ok(all)
    }
}

fn plain_entry(kind: Kind, name: String, size: u64) -> Entry {
    Entry {
        path: name.into_bytes(),
        kind,
        link: Vec::new(),
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        atime: None,
        device: (0, 0),
        size,
        xattrs: Vec::new(),
        segments: Vec::new(),
    }
}

/// Where an archive is written to.
pub enum Output {
    /// A file, which is there as a whole or not at all.
    File(PathBuf),
    /// What is there already, as a pipe.
    Stream(Box<dyn Write + Send>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::File(path) => f.debug_tuple("File").field(path).finish(),
            Output::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Output {
    /// Writes what `write` gives.
    pub(super) fn write(self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        match self {
            Output::Stream(mut stream) => {
                write(&mut stream)?;
                Ok(stream.flush()?)
            }
            // A device or a pipe stays what it is.
            Output::File(path) if fs::metadata(&path).is_ok_and(|data| !data.is_file()) => {
                let file = OpenOptions::new().write(true).open(&path);
                write_to(file.doing(|| format!("open {}", path.display()))?, write).map(drop)
            }
            Output::File(path) => replace(&path, |file| write_to(file.try_clone()?, write)),
        }
    }
}

fn write_to(file: File, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut buffered = BufWriter::with_capacity(256 << 10, file);
    write(&mut buffered)?;
    Ok(buffered.flush()?)
}

/// Writes a file beside `path`, and then puts it in its place: whoever finds it finds all of it.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let draft = path.with_file_name(format!(".ctr-{}", unique()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&draft)?;
        write(&mut file)?;
        file.sync_all()?;
        Ok(fs::rename(&draft, path)?)
    })();
    written.inspect_err(|_: &Error| _ = fs::remove_file(&draft)).doing(|| format!("write {}", path.display()))
}

/// Writes all of `from` to a file in `dir`, and then puts it in its place `path`; returns its size.
pub(super) fn move_in(dir: &Path, path: &Path, from: &mut dyn Read) -> Result<u64> {
    let draft = dir.join(format!(".ctr-{}", unique()));
    let written = (|| {
        let size = io::copy(from, &mut File::create_new(&draft)?)?;
        fs::rename(&draft, path)?;
        Ok(size)
    })();
    written.inspect_err(|_: &Error| _ = fs::remove_file(&draft)).doing(|| format!("write {}", path.display()))
}

/// A reader or a writer that knows the digest and the number of the bytes that went through it.
#[derive(Debug)]
pub(super) struct Hashed<T> {
    inner: T,
    hasher: Hasher,
    count: u64,
}

impl<T> Hashed<T> {
    pub(super) fn new(inner: T) -> Hashed<T> {
        Hashed { inner, hasher: Hasher::new("sha256"), count: 0 }
    }

    pub(super) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.count)
    }

    fn note(&mut self, bytes: &[u8]) -> usize {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
        bytes.len()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        Ok(self.note(&buffer[..count]))
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        Ok(self.note(&bytes[..count]))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
