//! `logs`.

use super::context::Context;
use crate::cli::run::Logs;
use crate::journal::{self, Begin, Reader, Record, Stream};
use anyhow::{Context as _, Result};
use ctr_isolation::sys::process;
use ctr_runtime::Status;
use ctr_runtime::container::Container;
use ctr_runtime::state::start_time;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Prints what a detached container has written.
///
/// # Errors
/// When there is no such container, or it has no log.
pub fn logs(context: &Context, flags: &Logs) -> Result<()> {
    let container = context.container(&flags.id)?;
    let directory = directory(&container)?;
    // Before the first look, so that nothing comes unseen in between.
    let follow = if flags.follow { Some((watch(&directory)?, supervisor(&container))) } else { None };
    let mut reader = open(&container)?;
    let mut printer = Printer { timestamps: flags.timestamps, within: [false; 2] };
    let mut print = |record: Record| printer.print(&record);
    let printed = reader.begin(flags.tail.map_or(Begin::Oldest, Begin::Lines), &mut print);
    if !is_read(printed)? {
        return Ok(());
    }
    if let Some((inotify, Some(supervisor))) = &follow {
        let mut is_over = false;
        while !is_over {
            let ready = process::poll(&[supervisor.as_fd(), inotify.as_fd()], None)?.unwrap_or_default();
            // The supervisor's end is the log's: what comes after it is seen now.
            is_over = ready.first() == Some(&true);
            let _ = inotify.read_events();
            if !is_read(reader.read(&mut print))? {
                return Ok(());
            }
        }
    }
    warn_of_gap(&container);
    Ok(())
}

/// The directory of a container's log.
///
/// # Errors
/// When none is kept.
pub fn directory(container: &Container) -> Result<PathBuf> {
    let owned = container.record.owned.first().cloned();
    owned.with_context(|| no_log(container))
}

/// Opens the log of a container.
///
/// # Errors
/// When none is kept.
pub fn open(container: &Container) -> Result<Reader> {
    Reader::open(&directory(container)?).with_context(|| no_log(container))
}

fn no_log(container: &Container) -> String {
    format!("container {:?} has no log: only `run --detach` of an image keeps one", container.record.id)
}

/// Tells when the log in `directory` may have grown.
///
/// # Errors
/// The kernel's.
pub fn watch(directory: &std::path::Path) -> Result<nix::sys::inotify::Inotify> {
    journal::watch(directory).with_context(|| format!("watch {}", directory.display()))
}

/// The supervisor of a container, while it lives.
pub fn supervisor(container: &Container) -> Option<OwnedFd> {
    let (pid, time) = container.record.supervisor?;
    let pidfd = process::pidfd_open(pid).ok()?;
    // Only now: between a look and the open another process may have got the pid.
    start_time(pid).filter(|(found, zombie)| *found == time && !zombie)?;
    Some(pidfd)
}

/// What runs without a supervisor writes to nobody.
fn warn_of_gap(container: &Container) {
    if supervisor(container).is_none() && !matches!(container.status(), Status::Stopped | Status::Creating) {
        tracing::warn!(
            "the supervisor of container {0:?} was killed: what the container has written since is lost (`restart \
             {0}` gives it a new one)",
            container.record.id
        );
    }
}

/// Whether somebody still reads what we print.
///
/// # Errors
/// Any other of writing or reading.
pub fn is_read(printed: io::Result<()>) -> Result<bool> {
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// Prints records as the program wrote them.
struct Printer {
    timestamps: bool,
    /// Whether we are within a line of standard output, and of standard error.
    within: [bool; 2],
}

impl Printer {
    fn print(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = record.bytes();
        if let (true, Some(within)) = (self.timestamps, self.within.get_mut(record.stream as usize)) {
            if !*within {
                bytes = [record.time.as_bytes(), b" ", &bytes].concat();
            }
            *within = !record.is_full;
        }
        print(record.stream, &bytes)
    }
}

/// Prints on a stream what the program wrote on it.
///
/// # Errors
/// The kernel's.
pub fn print(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Output => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Stream::Error => io::stderr().write_all(bytes),
        Stream::Note => {
            tracing::warn!("{}", String::from_utf8_lossy(bytes).trim_end());
            Ok(())
        }
    }
}
