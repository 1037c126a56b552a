//! Undoing everything a record names. What is gone already is no error, and one failure does not stop the rest.

use crate::error::Error;
use crate::facts::Facts;
use crate::launch;
use crate::state::{Entry, Record};
use crate::stuck;
use ctr_isolation::cgroup::{Cgroup, systemd};
use ctr_isolation::resctrl;
use ctr_isolation::sys::process;
use ctr_isolation::{Context, Result};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// How long the processes of a container have to go once they were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel tells watchers of `memory.events` up to 10 ms late (`CGROUP_FILE_NOTIFY_MIN_INTV`), and they then still have
/// to read it: an engine that finds the file gone never learns that memory ran out.
const OOM_NOTICE: Duration = Duration::from_millis(30);

/// Ends what still runs and removes every resource of the host that `record` names, the entry last: so that a second
/// try can go on where this one failed.
///
/// # Errors
/// Everything that could not be undone, together.
pub fn release(entry: &Entry, record: Option<&Record>) -> std::result::Result<(), Error> {
    if let Some(record) = record {
        undo(record).inspect_err(|_| forget_cgroup(entry, record))?;
    }
    entry.remove()
}

/// A cgroup that is gone may be another container's by the next try.
fn forget_cgroup(entry: &Entry, record: &Record) {
    let is_gone = record
        .own_cgroup()
        .is_some_and(|cgroup| !cgroup.exists() && cgroup.v1().values().all(|dir| !dir.exists()));
    // Where that cannot be written, what could not be undone is told all the same.
    let without = || Record { cgroup: None, cgroup_v1: Default::default(), ..record.clone() };
    if is_gone && let Err(error) = entry.write(&without()) {
        tracing::debug!("{error}");
    }
}

/// The same without the entry.
///
/// # Errors
/// Everything that could not be undone, together.
pub fn undo(record: &Record) -> std::result::Result<(), Error> {
    let mut problems: Vec<String> = Vec::new();
    let mut note = |result: Result<()>| problems.extend(result.err().map(|error| error.to_string()));
    if record.own_cgroup().is_some_and(|cgroup| cgroup.has_oom_kills()) {
        std::thread::sleep(OOM_NOTICE);
    }
    let killed = kill(record);
    // What did not end in time will not now.
    let patience = if killed.is_ok() { KILL_TIMEOUT } else { Duration::ZERO };
    note(killed);
    // With a slice all that is in it is stopped.
    if let Some(unit) = record.slice.as_ref().or(record.unit.as_ref()) {
        note(stop_unit(unit, record));
    }
    if let Some(cgroup) = record.own_cgroup() {
        note(remove_cgroup(&cgroup, patience));
    }
    if let Some(group) = &record.resctrl {
        note(resctrl::remove(group));
    }
    // Whoever has not ended may still use them.
    for dir in record.owned.iter().filter(|_| !patience.is_zero()) {
        note(remove_tree(dir));
    }
    if problems.is_empty() { Ok(()) } else { Err(unfinished(&problems.join("; "))) }
}

/// That something of a container is left, and why.
pub fn unfinished(problems: &str) -> Error {
    Error::text(format!("the container is not wholly removed, try again: {problems}"))
}

/// Ends every process of the container and waits for the first one to be gone.
///
/// # Errors
/// The kernel's, or when it does not end in time.
pub fn kill(record: &Record) -> Result<()> {
    let pidfd = crate::container::open_process(record);
    if let Some(cgroup) = record.own_cgroup() {
        if pidfd.is_none() && cgroup.remove_empty() {
            return Ok(());
        }
        match cgroup.signal(libc::SIGKILL) {
            Err(error) if error.errno != libc::ENOENT => {
                return Err(error.under("kill the container's processes"));
            }
            _ => {}
        }
    }
    let Some(pidfd) = pidfd else { return Ok(()) };
    match process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.errno != libc::ESRCH => return Err(error),
        _ => {}
    }
    match process::poll(&[pidfd.as_fd()], Some(KILL_TIMEOUT))? {
        Some(_) => Ok(()),
        None => Err(ctr_isolation::Error::new(format!(
            "process {} does not end {} s after SIGKILL: {}",
            record.pid,
            KILL_TIMEOUT.as_secs(),
            stuck::reason(&[record.pid])
        ))),
    }
}

/// A scope ends with its last process; but where the cgroup is removed before systemd has looked, it does not notice, and
/// has the unit for ever. So it is always told.
fn stop_unit(unit: &str, record: &Record) -> Result<()> {
    match systemd::stop_unit(crate::confine::bus(record), unit) {
        // Nothing is left for it to undo.
        Err(error) if record.own_cgroup().is_some_and(|cgroup| !cgroup.exists()) => {
            tracing::debug!("{error}");
            Ok(())
        }
        other => other,
    }
}

fn remove_cgroup(cgroup: &Cgroup, patience: Duration) -> Result<()> {
    cgroup.remove(patience).map_err(|error| match cgroup.processes() {
        Ok(left) if error.errno == libc::EBUSY && !left.is_empty() => {
            ctr_isolation::Error::new(format!("{error}: {}", stuck::reason(&left)))
        }
        _ => error,
    })
}

/// Removes the directory `dir` and all in it. What an ordinary user's container has made there may belong to others
/// of the user's ids, or be closed even to its owner: then root of a user namespace with those ids removes it.
///
/// # Errors
/// The kernel's; that it is gone already is no error.
pub fn remove_tree(dir: &Path) -> Result<()> {
    let removed = match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !Facts::read().is_root() => {
            remove_as_root_inside(dir)
        }
        other => other.doing(|| format!("remove {}", dir.display())),
    };
    match removed {
        Err(error) if error.errno == libc::ENOENT => Ok(()),
        other => other,
    }
}

fn remove_as_root_inside(dir: &Path) -> Result<()> {
    let remove = || std::fs::remove_dir_all(dir).doing(|| format!("remove {}", dir.display()));
    launch::as_root_inside(|| remove().map(|()| String::new())).map(drop)
}
