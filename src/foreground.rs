//! Waiting for a process in the foreground: signals go on to it, and its terminal is joined to ours.

use anyhow::Result;
use ctr_isolation::sys::process::{self, Ended};
use ctr_isolation::sys::terminal::{self, Settings};
use ctr_runtime::container::Started;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What becomes of our standard input while we have the process's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It goes to the process.
    Forward,
    /// It is left alone.
    Leave,
}

/// Signals caught from before the process exists, so that none is lost.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
}

/// Signals that are ours, or that the kernel sends for faults of our own, are not passed on.
const OURS: [i32; 10] = [
    libc::SIGCHLD,
    libc::SIGURG,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGPIPE,
    libc::SIGTSTP,
];

impl Foreground {
    /// Begins to catch signals.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin() -> Result<Self> {
        let forwarded: Vec<i32> = (1..=64).filter(|signal| !OURS.contains(signal)).collect();
        Ok(Foreground { signals: process::signalfd(&forwarded)? })
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(self, started: &Started, input: Input) -> Result<Ended> {
        match &started.terminal {
            Some(master) => self.with_terminal(started, master, input),
            None => self.without_terminal(started),
        }
    }

    fn without_terminal(&self, started: &Started) -> Result<Ended> {
        loop {
            let ready =
                process::poll(&[started.pidfd.as_fd(), self.signals.as_fd()], None)?.unwrap_or_default();
            if ready.get(1) == Some(&true) {
                self.pass_on(started, None);
            }
            if ready.first() == Some(&true) {
                return Ok(process::wait(started.pidfd.as_fd())?);
            }
        }
    }

    fn with_terminal(&self, started: &Started, master: &OwnedFd, input: Input) -> Result<Ended> {
        let stdin = std::io::stdin();
        let _raw = RawMode::enter(stdin.as_fd());
        copy_size(master.as_fd());
        let mut terminal = File::from(master.try_clone()?);
        let mut forward = input == Input::Forward;
        loop {
            let mut sources = vec![
                (Source::Signals, self.signals.as_fd()),
                (Source::Process, started.pidfd.as_fd()),
                (Source::Terminal, master.as_fd()),
            ];
            if forward {
                sources.push((Source::Stdin, stdin.as_fd()));
            }
            let ready = ready(&sources, None)?;
            if ready.contains(&Source::Signals) {
                self.pass_on(started, Some(master.as_fd()));
            }
            if ready.contains(&Source::Terminal) && !copy(&mut terminal, &mut std::io::stdout()) {
                // Everybody has closed the terminal, and only the process's end is left to wait for.
                return self.without_terminal(started);
            }
            if ready.contains(&Source::Stdin) {
                forward = copy(&mut stdin.lock(), &mut terminal);
                if !forward {
                    // To a terminal the end of the input is control-D.
                    let _ = terminal.write_all(&[4]);
                }
            }
            if ready.contains(&Source::Process) {
                drain(&mut terminal, master.as_fd())?;
                return Ok(process::wait(started.pidfd.as_fd())?);
            }
        }
    }

    fn pass_on(&self, started: &Started, master: Option<BorrowedFd<'_>>) {
        while let Some(signal) = process::next_signal(self.signals.as_fd()) {
            match master {
                Some(master) if signal == libc::SIGWINCH => copy_size(master),
                // That it has ended meanwhile will be seen next.
                _ => drop(process::pidfd_send_signal(started.pidfd.as_fd(), signal)),
            }
        }
    }
}

/// Where something can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Process,
    Terminal,
    Stdin,
}

/// Waits until something happens, and says where; nowhere when `timeout` has passed.
fn ready(sources: &[(Source, BorrowedFd<'_>)], timeout: Option<Duration>) -> Result<Vec<Source>> {
    let fds: Vec<BorrowedFd<'_>> = sources.iter().map(|(_, fd)| *fd).collect();
    let ready = process::poll(&fds, timeout)?.unwrap_or_default();
    Ok(sources.iter().zip(ready).filter(|(_, ready)| *ready).map(|((source, _), _)| *source).collect())
}

/// Copies what the terminal still holds after the process has ended; others may keep it open.
fn drain(terminal: &mut File, master: BorrowedFd<'_>) -> Result<()> {
    while !ready(&[(Source::Terminal, master)], Some(Duration::from_millis(20)))?.is_empty() {
        if !copy(terminal, &mut std::io::stdout()) {
            break;
        }
    }
    Ok(())
}

/// Copies once; false at the end or when nobody listens.
fn copy(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut buffer = [0; 8192];
    match from.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok(),
    }
}

fn copy_size(master: BorrowedFd<'_>) {
    if let Ok((rows, columns)) = terminal::size(std::io::stdin().as_fd()) {
        let _ = terminal::set_size(master, rows, columns);
    }
}

/// Our terminal without processing, for as long as this lives.
struct RawMode {
    before: Option<Settings>,
}

impl RawMode {
    fn enter(stdin: BorrowedFd<'_>) -> Self {
        let before = terminal::settings(stdin).ok();
        if let Some(settings) = &before {
            let _ = terminal::set_settings(stdin, &settings.raw());
        }
        RawMode { before }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(settings) = &self.before {
            let _ = terminal::set_settings(std::io::stdin().as_fd(), settings);
        }
    }
}
