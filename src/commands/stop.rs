//! `stop` and `restart`.

use super::context::Context;
use super::{logs, run_image};
use crate::cli::run::{Restart, Stop};
use crate::foreground::is_lost;
use crate::private::{Note, Private, Turn};
use crate::supervisor::{self, Start};
use anyhow::{Context as _, Result, bail};
use ctr_isolation::sys::process;
use ctr_runtime::Status;
use ctr_runtime::bundle::Bundle;
use ctr_runtime::container::{self, Container, Started, open_process};
use ctr_runtime::facts::Facts;
use ctr_runtime::plan;
use ctr_runtime::state::file;
use ctr_runtime::stuck;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a process may take to go after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends containers: SIGTERM, and SIGKILL when that was not enough in time.
///
/// # Errors
/// When one of them does not exist or does not end; the others are stopped all the same.
pub fn stop(context: &Context, flags: &Stop) -> Result<()> {
    let timeout = timeout(context, flags.time);
    for_each(&flags.ids, |id| {
        let container = context.container(id)?;
        stop_one(&container, timeout).with_context(|| format!("stop {id:?}"))?;
        wait_for_supervisor(&container)
    })
}

/// Ends containers and starts them anew, with what they have written to their root file systems.
///
/// # Errors
/// As [`stop`]; when one was not made by `run --image` or `run --rootfs`.
pub fn restart(context: &Context, flags: &Restart) -> Result<()> {
    let timeout = timeout(context, flags.time);
    for_each(&flags.ids, |id| restart_one(context, id, timeout).with_context(|| format!("restart {id:?}")))
}

fn timeout(context: &Context, seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.unwrap_or(context.settings.run.stop_timeout))
}

/// Does `what` for each, prints the names of those for which it went well, and then tells of the first that did not.
fn for_each(ids: &[String], what: impl Fn(&str) -> Result<()>) -> Result<()> {
    let mut first = Ok(());
    for id in ids {
        match (what(id), &first) {
            (Ok(()), _) => crate::output::print(&format!("{id}\n"))?,
            (Err(error), Ok(())) => first = Err(error),
            (Err(error), Err(_)) => tracing::error!("{}", crate::output::chain(&error)),
        }
    }
    first
}

fn stop_one(container: &Container, timeout: Duration) -> Result<()> {
    let Some(pidfd) = open_process(&container.record) else { return Ok(()) };
    match container.status() {
        Status::Stopped => return Ok(()),
        // What is frozen hears of no signal but SIGKILL.
        Status::Paused => container.resume()?,
        _ => {}
    }
    let number = stop_signal(container);
    // A signal that is lost on it need not be waited for.
    let is_deaf = container.record.own_pids && is_lost(container.record.pid, number);
    if !is_deaf {
        signal(container, number)?;
        if process::poll(&[pidfd.as_fd()], Some(timeout))?.is_some() {
            return Ok(());
        }
        let (id, seconds) = (&container.record.id, timeout.as_secs());
        let name = ctr_isolation::signal::name(number).unwrap_or_else(|| number.to_string());
        tracing::warn!("container {id:?} did not end {seconds} s after {name}, so it is killed");
    }
    signal(container, libc::SIGKILL)?;
    if process::poll(&[pidfd.as_fd()], Some(KILL_TIMEOUT))?.is_none() {
        bail!("it does not end after SIGKILL: {}", stuck::reason(&[container.record.pid]));
    }
    Ok(())
}

/// What tells it to end: SIGTERM, unless its image wants something else.
fn stop_signal(container: &Container) -> i32 {
    let note = container.record.owned.first().and_then(|directory| Note::read(directory).ok());
    let wanted = note.and_then(|note| note.stop_signal);
    wanted.and_then(|name| ctr_isolation::signal::parse(&name)).unwrap_or(libc::SIGTERM)
}

/// That it has ended on its own meanwhile is as well.
fn signal(container: &Container, number: i32) -> Result<()> {
    match container.kill(number, false, "stop") {
        Err(_) if container.status() == Status::Stopped => Ok(()),
        other => Ok(other?),
    }
}

/// Waits until the supervisor has written the log and noted the end.
fn wait_for_supervisor(container: &Container) -> Result<()> {
    let Some(supervisor) = logs::supervisor(container) else { return Ok(()) };
    match process::poll(&[supervisor.as_fd()], Some(KILL_TIMEOUT))? {
        Some(_) => Ok(()),
        None => bail!("its supervisor does not end"),
    }
}

fn restart_one(context: &Context, id: &str, timeout: Duration) -> Result<()> {
    let Some(directory) = context.container(id)?.record.owned.first().cloned() else {
        bail!(
            "it was made from a bundle, which whoever made it can run again: `delete` it and `create` it anew"
        );
    };
    let _turn = Turn::take(&directory)?;
    // Whoever had it before has made another of it.
    let container = &context.container(id)?;
    let note = Note::read(&directory)?;
    let text = configuration(container)?;
    // Whoever sees its end must not remove it now.
    Note { remove: false, ..note.clone() }.write(&directory)?;
    stop_one(container, timeout)?;
    wait_for_supervisor(container)?;
    container.renew()?;
    let lock = container.entry.lock()?;
    let name = container.record.id.clone();
    let private = Private { name, entry: container.entry.clone(), directory };
    let made =
        note.write(&private.directory).and_then(|()| start_anew(context, &private, &note, &text, &lock));
    if made.is_err() {
        // It is what it was before: stopped.
        private.entry.write_file(file::CONFIG, &text)?;
        private.entry.write(&container.record)?;
    }
    made
}

/// Its configuration, with the limits as they are by now.
fn configuration(container: &Container) -> Result<Vec<u8>> {
    let text = std::fs::read(container.entry.path(file::CONFIG)).context("read its configuration")?;
    if !container.entry.path(file::RESOURCES).exists() {
        return Ok(text);
    }
    let mut spec = Bundle::parse(container.record.bundle.clone(), text)?.spec;
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(Some(container.resources()?));
    }
    Ok(serde_json::to_vec(&spec)?)
}

fn start_anew(context: &Context, private: &Private, note: &Note, text: &[u8], lock: &OwnedFd) -> Result<()> {
    let bundle = Bundle::parse(private.directory.clone(), text.to_owned())?;
    let mut request = plan::Request { has_console: true, ..context.request(&private.name, 0)? };
    request.manager = run_image::manager(context, request.manager);
    request.best_effort = note.best_effort;
    let terminal = bundle.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    let make = || -> Result<Started> {
        let mut facts = Facts::read();
        facts.ask_for_cgroups();
        let plan = plan::create::create(&bundle, &request, &facts)?;
        Ok(container::create_reserved(
            &private.entry,
            &bundle,
            &plan,
            &private.options(note.pid_file.clone()),
            &facts,
        )?)
    };
    supervisor::detach(context, &Start { private, note, terminal, keep_fds: 0, make: &make }, lock)
}
