//! `run` at the image door: a root file system made for this container, podman's manners.

use super::context::Context;
use crate::cli::run::Run;
use crate::foreground::{Foreground, Input};
use crate::run::{self, Caller};
use crate::supervisor;
use anyhow::{Context as _, Result, bail};
use ctr_runtime::bundle::Bundle;
use ctr_runtime::container::{self, Container, Options, Started};
use ctr_runtime::facts::Facts;
use ctr_runtime::plan;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Runs an image or a root file system; returns the status of its program, or 0 when detached.
///
/// # Errors
/// What is wrong with the flags, or what the kernel refused.
pub fn run(context: &Context, flags: &Run) -> Result<u8> {
    let name = match flags.name() {
        Some(name) => name.to_owned(),
        None => run::generate_name(|name| context.store.dir_of(name).exists()),
    };
    if context.store.dir_of(&name).exists() {
        bail!(
            "container {name:?} exists already: choose another name, or remove it with `delete --force {name}`"
        );
    }
    if flags.detach {
        return supervisor::detach(context, &name, || make(context, flags, &name), flags.image.rm);
    }
    let foreground = Foreground::begin()?;
    let started = make(context, flags, &name)?;
    let input = if flags.image.interactive { Input::Forward } else { Input::Leave };
    let ended = foreground.wait(&started, input);
    if flags.image.rm {
        Container::delete(&context.store, &name, true)?;
    }
    Ok(ended?.status() as u8)
}

/// Where the parts of a container that belong to it alone are kept.
pub fn private_dir(store: &Path, name: &str) -> PathBuf {
    store.join("containers").join(name)
}

fn make(context: &Context, flags: &Run, name: &str) -> Result<Started> {
    ctr_runtime::state::check_id(name)?;
    let private = private_dir(&context.settings.store, name);
    // No container of this name exists: what is here was left by one that was killed while it was made.
    remove(&private)?;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(&private)
        .with_context(|| format!("make {}", private.display()))?;
    let result = make_in(context, flags, name, &private);
    if result.is_err() {
        remove(&private)?;
    }
    result
}

fn make_in(context: &Context, flags: &Run, name: &str, private: &Path) -> Result<Started> {
    let request = plan::Request { has_console: true, ..context.request(name, flags.bundle.preserve_fds)? };
    let compiled = run::prepare(flags, name, &context.settings, &Caller::of_process(), private)?;
    for warning in &compiled.warnings {
        tracing::warn!("{warning}");
    }
    let text = serde_json::to_vec(&compiled.spec)?;
    let bundle = Bundle { dir: private.to_owned(), spec: compiled.spec, text, warnings: Vec::new() };
    let facts = Facts::read();
    let plan = plan::create::create(&bundle, &request, &facts)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let owned = vec![private.to_owned()];
    let options = Options { run: true, owned, pid_file: flags.bundle.pid_file.clone(), ..Options::default() };
    Ok(container::create(&context.store, &bundle, &plan, &options, &facts)?)
}

fn remove(dir: &Path) -> Result<()> {
    Ok(ctr_runtime::release::remove_tree(dir)?)
}

/// podman's status for an error: 127 when the program was not found, 126 when it cannot be executed, else 125.
pub fn status(error: &anyhow::Error) -> u8 {
    let text = format!("{error:#}");
    match text.contains("exec: ") {
        true if text.contains("executable file not found") || text.contains("no such file or directory") => {
            127
        }
        true if text.contains("permission denied") || text.contains("exec format error") => 126,
        _ => 125,
    }
}
