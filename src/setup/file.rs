//! A file of settings: read whole, replaced in one step, never half of it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The text of the file; none if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).ok();
            text.with_context(|| format!("{} is not UTF-8", path.display())).map(Some)
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// A new file beside the one whose place it is to take. It is removed with this, unless it took the place.
#[derive(Debug)]
pub(super) struct New {
    path: PathBuf,
    target: PathBuf,
    made: Vec<PathBuf>,
    is_kept: bool,
}

/// Writes it, with the owner and mode of the one that is there, and the directories above it that are missing.
pub(super) fn write_beside(target: &Path, text: &str) -> Result<New> {
    let (Some(name), Some(parent)) = (target.file_name(), target.parent()) else {
        bail!("{} is not the name of a file", target.display());
    };
    let missing: Vec<&Path> = parent.ancestors().take_while(|dir| !dir.exists()).collect();
    let mut made = Vec::new();
    for dir in missing.into_iter().rev() {
        fs::create_dir(dir).with_context(|| format!("make {}", dir.display()))?;
        made.push(dir.to_owned());
    }
    // Always the same, and no suffix that an engine reads: what is left of one that was killed is overwritten.
    let path = parent.join(format!(".{}.ctr-setup", name.to_string_lossy()));
    let new = New { path, target: target.to_owned(), made, is_kept: false };
    let write = || {
        let _ = fs::remove_file(&new.path);
        let mut file = File::options().write(true).create_new(true).mode(0o644).open(&new.path)?;
        if let Ok(there) = fs::metadata(target) {
            std::os::unix::fs::fchown(&file, Some(there.uid()), Some(there.gid()))?;
            file.set_permissions(fs::Permissions::from_mode(there.mode() & 0o7777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", new.path.display()))?;
    Ok(new)
}

impl New {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directories that had to be made, the outermost first.
    pub(super) fn made(&self) -> &[PathBuf] {
        &self.made
    }

    /// Takes the place of the old one.
    pub(super) fn put_in_place(mut self) -> Result<()> {
        fs::rename(&self.path, &self.target).with_context(|| format!("replace {}", self.target.display()))?;
        self.is_kept = true;
        sync_directory(&self.target)
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.path);
            self.made.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
        }
    }
}

/// Puts `text` back, or removes the file, and then the directories `made` if nothing else is in them.
pub(super) fn restore(path: &Path, text: Option<&str>, made: &[PathBuf]) -> Result<()> {
    if read(path)?.as_deref() == text {
        return Ok(());
    }
    let Some(text) = text else {
        fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        sync_directory(path)?;
        made.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
        return Ok(());
    };
    write_beside(path, text)?.put_in_place()
}

fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", parent.display()))
}

/// What root's engine calls as root must be nobody else's to change.
pub(super) fn check_program(program: &Path, engine: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for path in program.ancestors() {
        let there = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        let is_sticky = there.is_dir() && there.mode() & 0o1000 != 0;
        let is_writable = there.mode() & 0o022 != 0 && !is_sticky;
        if there.uid() != 0 || is_writable {
            bail!(
                "{engine} would call {} as root, and others than root may change {}: install it first, \
                 `install -m 755 {} /usr/local/bin/ctr`, and call that one",
                program.display(),
                path.display(),
                program.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_owner_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // What one that was killed has left.
        fs::write(directory.path().join(".settings.ctr-setup"), "half").unwrap();
        let new = write_beside(&path, "new").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("old"));
        new.put_in_place().unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("new"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        drop(write_beside(&path, "never").unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_had_to_be_made_goes_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/settings");
        drop(write_beside(&path, "never").unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let new = write_beside(&path, "text").unwrap();
        let made = new.made().to_vec();
        new.put_in_place().unwrap();
        restore(&path, None, &made).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is not UTF-8"));
    }
}
