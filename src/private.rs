//! What a container of the image door has to itself in the store: its root file system or the layers of it, its log,
//! and a note of how it is kept.

use crate::commands::context::Context;
use anyhow::{Context as _, Result, bail};
use ctr_isolation::sys::fs;
use ctr_runtime::container::{Container, Options};
use ctr_runtime::release::remove_tree;
use ctr_runtime::state::{Entry, replace};
use ctr_runtime::{Error, Store};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one may wait for one's turn: as long as another `stop` and start may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the note.
const NOTE: &str = "container.json";

/// How a container is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The state directory that its name is in: several may use one store.
    pub root: PathBuf,
    /// Whether it is removed when its program has ended.
    pub remove: bool,
    /// Whether its program takes input.
    pub interactive: bool,
    /// Whether a limit that cannot be had is only warned of.
    #[serde(default)]
    pub best_effort: bool,
    /// Where the pid of its first process is written, each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<PathBuf>,
    /// What its image wants it to be told when it is to end, instead of SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

impl Note {
    /// The note of a container whose private directory is `directory`.
    ///
    /// # Errors
    /// When there is none, or not a whole one.
    pub fn read(directory: &Path) -> Result<Note> {
        let path = directory.join(NOTE);
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Writes it in place of the one before, all or nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(NOTE);
        replace(&path, &serde_json::to_vec(self)?).with_context(|| format!("write {}", path.display()))
    }
}

/// A name that is taken and the directory that goes with it.
#[derive(Debug)]
pub struct Private {
    /// The name.
    pub name: String,
    /// The container's place among all.
    pub entry: Entry,
    /// Where its own things are.
    pub directory: PathBuf,
}

impl Private {
    /// Takes the name and makes the directory. Until the lock that comes along is dropped nobody deletes the container:
    /// what we would go on to make would then be nobody's.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn make(context: &Context, name: &str, note: &Note) -> Result<(Private, OwnedFd)> {
        ctr_runtime::state::check_id(name)?;
        let directory = directory(context, name);
        refuse_foreign(&directory, context, name)?;
        let entry = context.store.reserve_with(name, vec![directory.clone()])?;
        let lock = entry.lock()?;
        let private = Private { name: name.to_owned(), entry, directory };
        if let Err(error) = private.fill(note) {
            private.give_up(context, lock);
            return Err(error);
        }
        Ok((private, lock))
    }

    fn fill(&self, note: &Note) -> Result<()> {
        // Nobody else's: the name is ours. Most often a boot lies between it and us.
        remove_tree(&self.directory)?;
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.with_context(|| format!("make {}", self.directory.display()))?;
        note.write(&self.directory)
    }

    /// Removes both again, and what was made with them. The reason for that is told by who has it.
    pub fn give_up(&self, context: &Context, lock: OwnedFd) {
        drop(lock);
        match Container::delete(&context.store, &self.name, true, &|_, _| {}) {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// How a container is made that has this for its own.
    pub fn options(&self, pid_file: Option<PathBuf>) -> Options {
        Options { run: true, owned: vec![self.directory.clone()], pid_file, ..Options::default() }
    }
}

/// The right to make a container anew, which one has at a time; the others wait.
#[derive(Debug)]
pub struct Turn(OwnedFd);

impl Turn {
    /// Waits for it, for the container whose private directory is `directory`.
    ///
    /// # Errors
    /// When the directory is gone.
    pub fn take(directory: &Path) -> Result<Turn> {
        let dir = fs::open(directory, fs::O_DIRECTORY)?;
        fs::lock_within(dir.as_fd(), PATIENCE).with_context(|| {
            format!("wait {} s for another call that makes the container anew", PATIENCE.as_secs())
        })?;
        Ok(Turn(dir))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Closing it would not do: the new supervisor has it, too.
        let _ = fs::unlock(self.0.as_fd());
    }
}

/// The private directory of the container `name`.
pub fn directory(context: &Context, name: &str) -> PathBuf {
    context.settings.store.join("containers").join(name)
}

/// Removes what a container left in the store whose state is gone, as after a boot. True when there was something.
///
/// # Errors
/// The kernel's, or when it belongs to a container.
pub fn remove_left(context: &Context, name: &str) -> Result<bool> {
    ctr_runtime::state::check_id(name)?;
    if context.settings.store.as_os_str().is_empty() {
        return Ok(false);
    }
    let directory = directory(context, name);
    let is_ours = Note::read(&directory).is_ok_and(|note| note.root == context.settings.root);
    if is_ours {
        remove_tree(&directory)?;
    }
    Ok(is_ours)
}

/// Refuses a directory that belongs to a container of another state directory.
fn refuse_foreign(directory: &Path, context: &Context, name: &str) -> Result<()> {
    let Ok(note) = Note::read(directory) else { return Ok(()) };
    let is_there = || match std::fs::symlink_metadata(Store::new(&note.root).dir_of(name)) {
        Err(error) => error.kind() != ErrorKind::NotFound,
        Ok(_) => true,
    };
    if note.root != context.settings.root && is_there() {
        bail!(
            "container {name:?} of the state directory {} has its files in {}: choose another name, or another \
             store with CTR_STORE",
            note.root.display(),
            directory.display()
        );
    }
    Ok(())
}
