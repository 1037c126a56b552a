//! `run` at the OCI door: create, start and, unless detached, wait and delete.

use super::context::Context;
use super::create;
use crate::cli::run::Run;
use crate::foreground::{AS_RUNC, Foreground};
use crate::notify::{self, Notify};
use crate::supervisor;
use anyhow::{Context as _, Result};
use ctr_isolation::sys::fs;
use ctr_runtime::Error;
use ctr_runtime::container::{self, Container, Options, Started};
use ctr_runtime::witness::Watch;
use std::os::fd::AsFd;

/// Runs a bundle; returns the status of its program.
///
/// # Errors
/// What is wrong with the bundle, or what the kernel refused.
pub fn run(context: &Context, flags: &Run) -> Result<u8> {
    let id = flags.name().context("the container's name is missing")?;
    let (started, foreground) = start(context, flags, id).inspect_err(|error| context.failed(id, error))?;
    match foreground {
        Some(foreground) => wait(context, id, started, foreground, flags.keep),
        None => Ok(0),
    }
}

/// Waits for the program of the container `id`, which is then removed, or with `keep` has its status noted; the status.
///
/// # Errors
/// The kernel's, or what could not be undone.
pub fn wait(context: &Context, id: &str, started: Started, foreground: Foreground, keep: bool) -> Result<u8> {
    let container = context.container(id);
    let watch = container.as_ref().map(Watch::new).unwrap_or_default();
    let waited = foreground.wait(started, AS_RUNC, watch);
    if let (Ok(container), Ok(waited)) = (&container, &waited) {
        context.reaped(container, container.entry.dir(), waited);
    }
    if !keep {
        match Container::delete(&context.store, id, true, &|_, _| {}) {
            // `checkpoint` ends a container and removes it.
            Err(Error::NotFound(_)) => {}
            other => other?,
        }
        return Ok(waited?.ended.status() as u8);
    }
    let status = waited?.ended.status();
    let directory = fs::open(&context.store.dir_of(id), fs::O_DIRECTORY)?;
    supervisor::note_status(directory.as_fd(), status)?;
    Ok(status as u8)
}

fn start(context: &Context, flags: &Run, id: &str) -> Result<(Started, Option<Foreground>)> {
    let attached = !flags.detach;
    let has_console = attached || flags.bundle.console_socket.is_some();
    let request = create::request(context, id, &flags.bundle, has_console)?;
    let (bundle, plan, facts) = create::planned(context, &flags.bundle, &request)?;
    let notify = notify::host().map(Notify::new).transpose()?;
    let socket = notify.as_ref().map(Notify::for_container).transpose()?;
    let options = Options { run: true, notify: socket, ..create::options(&flags.bundle, &bundle) };
    let mut foreground = attached.then(Foreground::begin).transpose()?;
    let started = container::create(&context.store, &bundle, &plan, &options, &facts)?;
    match (&mut foreground, notify) {
        (Some(foreground), notify) => foreground.notify = notify,
        (None, Some(notify)) => notify.wait(started.pidfd.as_fd(), started.pid)?,
        (None, None) => {}
    }
    Ok((started, foreground))
}
