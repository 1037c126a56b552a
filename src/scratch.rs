//! A directory in the store for as long as it is needed.

use std::{
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use ctr_runtime::release::remove_tree;

/// The directory. It is removed with this, and with it what had to be made on the way to it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    above: Vec<PathBuf>,
}

impl Scratch {
    /// Makes it in `store`, which may not be there yet; `whose` tells who left it if we are killed.
    pub(crate) fn make(store: &Path, whose: &str) -> io::Result<Scratch> {
        if store.as_os_str().is_empty() {
            return Err(io::Error::other("neither HOME nor XDG_DATA_HOME nor CTR_STORE says where it is"));
        }
        let path = store.join(format!(".{whose}-{}", std::process::id()));
        let mut scratch = Scratch { path, above: Vec::new() };
        let missing: Vec<&Path> = store.ancestors().take_while(|dir| !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            make(dir)?;
            scratch.above.push(dir.to_owned());
        }
        make(&scratch.path)?;
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!("{error}");
        }
        // One that somebody uses by now is not empty, and stays.
        self.above.iter().rev().for_each(|dir| drop(std::fs::remove_dir(dir)));
    }
}

fn make(dir: &Path) -> io::Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "make {}: {}",
                dir.display(),
                ctr_isolation::error::reason(error.raw_os_error().unwrap_or(0))
            ),
        )),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_there_is_gone_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("a/b");
        let scratch = Scratch::make(&store, "test").unwrap();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        drop(scratch);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let scratch = Scratch::make(&store, "test").unwrap();
        std::fs::write(store.join("another's"), "").unwrap();
        drop(scratch);
        assert_eq!(std::fs::read_dir(&store).unwrap().count(), 1);
        assert!(Scratch::make(Path::new(""), "test").is_err());
    }
}
