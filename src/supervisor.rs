//! The small process that stays with a detached container: it reaps, keeps the log and removes.
//!
//! It is a fork of the `ctr` that was called, not a program of its own: nothing to find, nothing to start, and an
//! upgrade of the program file does not concern it.

use crate::commands::context::Context;
use anyhow::{Context as _, Result, bail};
use ctr_isolation::sys::process::{self, Cloned};
use ctr_isolation::sys::{fs, socket};
use ctr_runtime::container::{Container, Started};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The name of the log in a container's directory; the older half of it is `log.1`.
pub const LOG: &str = "log";
/// The status of a container's program, once it has ended.
pub const STATUS: &str = "exit";

/// Starts what `make` makes under a supervisor, and returns as soon as its program runs: 0, and its name is printed.
///
/// # Errors
/// What `make` ran into.
pub fn detach(
    context: &Context,
    name: &str,
    make: impl FnOnce() -> Result<Started>,
    remove: bool,
) -> Result<u8> {
    let (ours, theirs) = socket::pair()?;
    match process::clone(0, None)? {
        Cloned::Parent { .. } => {
            drop(theirs);
            let (answer, _) = socket::receive(ours.as_fd(), 16 * 1024)?;
            match answer.split_first() {
                Some((b'+', _)) => {
                    crate::output::print(&format!("{name}\n"))?;
                    Ok(0)
                }
                Some((_, text)) => bail!("{}", String::from_utf8_lossy(text)),
                None => bail!("the supervisor of {name:?} ended before it began"),
            }
        }
        Cloned::Child => {
            drop(ours);
            let status = supervise(context, name, make, remove, &theirs);
            if let Err(error) = &status {
                let _ = socket::send(theirs.as_fd(), format!("-{error:#}").as_bytes(), &[]);
            }
            process::exit(i32::from(status.is_err()))
        }
    }
}

fn supervise(
    context: &Context,
    name: &str,
    make: impl FnOnce() -> Result<Started>,
    remove: bool,
    answer: &OwnedFd,
) -> Result<()> {
    process::setsid()?;
    let null = fs::open(std::path::Path::new("/dev/null"), fs::O_RDWR)?;
    let (output, input) = fs::pipe()?;
    process::dup_onto(null.as_fd(), 0)?;
    process::dup_onto(input.as_fd(), 1)?;
    process::dup_onto(input.as_fd(), 2)?;
    drop(input);
    let started = make()?;
    // From here on only the container holds the pipe, so that its end is the end of the output.
    process::dup_onto(null.as_fd(), 1)?;
    process::dup_onto(null.as_fd(), 2)?;
    let container = Container::open(&context.store, name)?;
    let mut record = container.record.clone();
    let pid = process::getpid();
    record.supervisor = ctr_runtime::state::start_time(pid).map(|(time, _)| (pid, time));
    container.entry.write(&record)?;
    let mut log = Log::open(container.entry.path(LOG), context.settings.run.log_size.0)?;
    socket::send(answer.as_fd(), b"+", &[])?;
    let output = File::from(match &started.terminal {
        Some(master) => master.try_clone()?,
        None => output,
    });
    let ended = follow(&started, output, &mut log)?;
    container.entry.write_file(STATUS, ended.status().to_string().as_bytes())?;
    if remove {
        Container::delete(&context.store, name, true)?;
    }
    Ok(())
}

/// Copies output to the log until the program has ended, and what is left of it then.
fn follow(started: &Started, mut output: File, log: &mut Log) -> Result<process::Ended> {
    let mut buffer = [0; 4096];
    let mut open = true;
    while open {
        let fds = [output.as_fd(), started.pidfd.as_fd()];
        let ready = process::poll(&fds, None)?.unwrap_or_default();
        if ready.first() == Some(&true) {
            match output.read(&mut buffer) {
                Ok(0) | Err(_) => open = false,
                Ok(count) => log.write(&buffer[..count])?,
            }
        } else {
            // The program has ended and nothing waits to be read; its children may hold the pipe for ever.
            open = false;
        }
    }
    Ok(process::wait(started.pidfd.as_fd())?)
}

/// A log of bounded size: when half of it is full, it becomes the older half.
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl Log {
    fn open(path: PathBuf, limit: u64) -> Result<Self> {
        let file = Self::file(&path)?;
        Ok(Log { path, file, size: 0, limit })
    }

    fn file(path: &PathBuf) -> Result<File> {
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        options.open(path).with_context(|| format!("open the log {}", path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.size + bytes.len() as u64 > self.limit / 2 {
            std::fs::rename(&self.path, self.path.with_extension("1"))?;
            self.file = Self::file(&self.path)?;
            self.size = 0;
        }
        self.size += bytes.len() as u64;
        Ok(self.file.write_all(bytes)?)
    }
}
