//! A directory with one image whose blobs are files named by their digits, as skopeo makes it: `dir:DIR`.

use super::files::{Directory, Files, or_missing, read_document};
use super::scratch::{move_in, replace};
use crate::digest::{Digest, Verified};
use crate::error::{Context, Error, Kind, Result};
use crate::source::{Blob, Document, Sink, Source};
use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What the file `version` begins with.
const VERSION: &str = "Directory Transport Version: ";

/// The image in a directory.
#[derive(Debug)]
pub struct DirSource {
    name: String,
    files: Directory,
}

impl DirSource {
    /// Opens the directory `path`.
    ///
    /// # Errors
    /// `NotFound`; that it has no image of this kind.
    pub fn open(path: &Path) -> Result<DirSource> {
        let name = format!("dir:{}", path.display());
        let files = Directory::open(path).doing(|| format!("open {name}"))?;
        let opened = files.open("manifest.json");
        or_missing(opened, || Error::damaged(format!("{name} has no file manifest.json")))?;
        // The first version had no such file.
        match files.read("version", 4096) {
            Err(error) if error.kind == Kind::NotFound => {}
            other => check_version(&other?).doing(|| format!("read {name}"))?,
        }
        Ok(DirSource { name, files })
    }
}

fn check_version(text: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    match text.trim_end().strip_prefix(VERSION) {
        Some(version) if version.starts_with("1.") => Ok(()),
        _ => Err(Error::other(format!("its version is unknown: {:?}", text.trim_end()))),
    }
}

/// A manifest that the image's index refers to.
fn inner_name(digest: &Digest) -> String {
    format!("{}.manifest.json", digest.hex())
}

impl Source for DirSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Document> {
        if let Some(digest) = digest {
            match read_document(&self.files, &inner_name(digest)) {
                Err(error) if error.kind == Kind::NotFound => {}
                other => return other,
            }
        }
        read_document(&self.files, "manifest.json")?.asked(digest, &self.name)
    }

    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        self.files.open(blob.digest.hex()).map(|section| section.past(offset))
    }
}

/// A directory that an image is written to; one that is there is replaced.
#[derive(Debug)]
pub struct DirSink {
    dir: PathBuf,
    top: Mutex<Option<Document>>,
}

impl DirSink {
    /// Opens the directory `dir`, or makes it.
    ///
    /// # Errors
    /// The kernel's; that there is something else in it.
    pub fn open(dir: &Path) -> Result<DirSink> {
        let opened = (|| {
            DirBuilder::new().recursive(true).create(dir)?;
            match Directory::open(dir)?.read("version", 4096) {
                Ok(text) => check_version(&text),
                Err(error) if error.kind != Kind::NotFound => Err(error),
                _ if fs::read_dir(dir)?.next().is_some() => {
                    Err(Error::other("it is not empty, and has no image"))
                }
                _ => replace(&dir.join("version"), |file| {
                    Ok(file.write_all(format!("{VERSION}1.1\n").as_bytes())?)
                }),
            }
        })();
        opened.doing(|| format!("open {}", dir.display()))?;
        Ok(DirSink { dir: dir.to_owned(), top: Mutex::default() })
    }
}

impl Sink for DirSink {
    fn name(&self) -> String {
        format!("dir:{}", self.dir.display())
    }

    fn has(&self, blob: &Blob) -> Result<bool> {
        let path = self.dir.join(blob.digest.hex());
        Ok(fs::symlink_metadata(path).is_ok_and(|data| data.is_file() && data.len() == blob.size))
    }

    fn put(&self, blob: &Blob, again: &dyn Fn() -> Result<Box<dyn Read + Send>>) -> Result<()> {
        let mut from = Verified::new(again()?, &blob.digest, blob.size);
        move_in(&self.dir, &self.dir.join(blob.digest.hex()), &mut from).map(drop)
    }

    fn document(&self, document: &Document, is_top: bool) -> Result<()> {
        if is_top {
            *self.top.lock().unwrap_or_else(PoisonError::into_inner) = Some(document.clone());
            return Ok(());
        }
        let path = self.dir.join(inner_name(&document.digest()));
        replace(&path, |file| Ok(file.write_all(&document.bytes)?))
    }

    fn finish(&self) -> Result<()> {
        let top = self.top.lock().unwrap_or_else(PoisonError::into_inner).take();
        let top = top.ok_or_else(|| Error::other(format!("no image was written to {}", self.name())))?;
        replace(&self.dir.join("manifest.json"), |file| Ok(file.write_all(&top.bytes)?))
    }
}
