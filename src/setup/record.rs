//! What `setup` did to an engine's settings, kept in the store until it is undone.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::file;

/// The change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The file.
    pub(super) settings: PathBuf,
    /// Its text before; none if there was no file.
    pub(super) before: Option<String>,
    /// Its text after.
    pub(super) after: String,
    /// The directories that were made for it, the outermost first.
    pub(super) made: Vec<PathBuf>,
}

impl Record {
    /// The record at `path`, if there is one.
    pub(super) fn read(path: &Path) -> Result<Option<Record>> {
        let Some(text) = file::read(path)? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("read the record {}", path.display())).map(Some)
    }

    /// Keeps it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        file::write_beside(path, &serde_json::to_string_pretty(self)?)?.put_in_place()
    }
}

/// Forgets the record at `path`.
pub(super) fn remove(path: &Path) -> Result<()> {
    file::restore(path, None, &[])
}

/// For as long as nobody else may set an engine up. What is empty at the end goes.
#[derive(Debug)]
pub(super) struct Lock {
    directory: PathBuf,
    _file: File,
}

/// Waits until nobody else does.
pub(super) fn lock(record: &Path) -> Result<Lock> {
    let directory = record.parent().unwrap_or(Path::new("/"));
    let make = || {
        // Settings may hold secrets, and so may the records of them.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let file = File::open(directory)?;
        file.lock().map(|()| file)
    };
    let file = make().with_context(|| format!("make and lock {}", directory.display()))?;
    Ok(Lock { directory: directory.to_owned(), _file: file })
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.directory.ancestors().take(2).for_each(|directory| drop(fs::remove_dir(directory)));
    }
}
