//! What verbs did and when: a line in the store for each phase, where that is asked for (`--trace`, `log.trace`).
//!
//! The runtime tells of its phases as events of the log with the target [`TARGET`]; where nobody asks they cost the
//! comparison of a number. What a verb that hangs was at is its last line.

use crate::commands::context::Context;
use anyhow::{Context as _, Result};
use ctr_runtime::death::Time;
use ctr_runtime::state::now;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// The target of events that are phases.
pub const TARGET: &str = "phase";

/// How large the newer half of the file becomes.
const HALF: u64 = 1 << 20;

/// The last phase of a verb that did what it was to do.
pub const DONE: &str = "done";

/// What the last phase of one that did not begins with.
pub const FAILED: &str = "failed: ";

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// The state directory.
    pub root: PathBuf,
    /// The container.
    pub name: String,
    /// The verb.
    pub verb: String,
    /// Which call of it: its process and when that began.
    pub call: (u32, Time),
    /// When the phase was over.
    pub at: Time,
    /// What had been done.
    pub phase: String,
}

/// The file and what each line of this process has in common.
struct Sink {
    file: File,
    line: Mutex<Line>,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// Begins to note what `verb` does to the container `name`, which may become known only later.
///
/// # Errors
/// When it cannot be written.
pub fn begin(context: &Context, verb: &str, name: Option<&str>) -> Result<()> {
    let directory = directory(context)?;
    let path = directory.join("log");
    let open = || File::options().append(true).create(true).mode(0o600).open(&path);
    let opened = match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).and_then(|()| open())
        }
        other => other,
    };
    let what = || format!("--trace: open {}", path.display());
    let mut file = opened.with_context(what)?;
    if file.metadata().with_context(what)?.size() > HALF {
        std::fs::rename(&path, path.with_extension("1"))
            .and_then(|()| open())
            .map(|new| file = new)
            .with_context(what)?;
    }
    let call = (std::process::id(), now());
    let name = name.unwrap_or_default().to_owned();
    let line = Line { root: context.root(), name, verb: verb.to_owned(), call, ..Line::default() };
    let _ = SINK.set(Sink { file, line: Mutex::new(line) });
    phase("began");
    Ok(())
}

/// The container's name is known now.
pub fn name(name: &str) {
    if let Some(sink) = SINK.get()
        && let Ok(mut line) = sink.line.lock()
    {
        name.clone_into(&mut line.name);
    }
}

/// Notes what has been done.
pub fn phase(text: &str) {
    let Some(sink) = SINK.get() else { return };
    let Ok(line) = sink.line.lock() else { return };
    let line = Line { at: now(), phase: text.to_owned(), ..line.clone() };
    // A full disk must not end a container.
    let _ = serde_json::to_string(&line).map(|line| (&sink.file).write_all(format!("{line}\n").as_bytes()));
}

/// Notes how the verb ended.
pub fn end(result: &Result<u8>) {
    match result {
        Ok(_) => phase(DONE),
        Err(error) => phase(&format!("{FAILED}{}", crate::output::chain(error))),
    }
}

fn directory(context: &Context) -> Result<PathBuf> {
    let store = &context.settings.store;
    anyhow::ensure!(
        !store.as_os_str().is_empty(),
        "there is no place for a trace: set HOME, XDG_DATA_HOME or CTR_STORE"
    );
    Ok(store.join("trace"))
}

/// The calls that concerned the container `name`, the oldest first, each by its lines.
///
/// # Errors
/// When what was written cannot be read.
pub fn calls(context: &Context, name: &str) -> Result<Vec<Vec<Line>>> {
    let directory = directory(context)?;
    let mut calls: BTreeMap<(Time, u32), Vec<Line>> = BTreeMap::new();
    for line in read(&directory.join("log.1"))?.into_iter().chain(read(&directory.join("log"))?) {
        calls.entry((line.call.1, line.call.0)).or_default().push(line);
    }
    let root = context.root();
    let concerns = |lines: &Vec<Line>| lines.iter().any(|line| line.name == name && line.root == root);
    Ok(calls.into_values().filter(concerns).collect())
}

/// The lines of a file; those that are torn are left out.
fn read(path: &Path) -> Result<Vec<Line>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => {
            let text = other.with_context(|| format!("read {}", path.display()))?;
            Ok(text
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect())
        }
    }
}
