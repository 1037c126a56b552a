//! Waiting for a process in the foreground: signals go on to it, and its terminal is joined to ours.

use crate::input::{self, Input};
use crate::notify::Notify;
use crate::terminal::{self, Raw};
use anyhow::Result;
use ctr_isolation::sys::process::{self, Ended};
use ctr_isolation::sys::terminal as call;
use ctr_runtime::container::Started;
use ctr_runtime::witness::Watch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// How a process is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// Our standard input goes to its terminal.
    pub forward_input: bool,
    /// A signal does what it would do without a container. The kernel spares the first process of a PID namespace
    /// every signal that it has not asked for: control-C would not end `sleep`.
    pub default_actions: bool,
    /// When it is killed.
    pub deadline: Option<Instant>,
}

/// runc's: what is sent is passed on, and that is all.
pub const AS_RUNC: Manners = Manners { forward_input: true, default_actions: false, deadline: None };

/// Signals caught from before the process exists, so that none is lost.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
    /// Where the program says that it is ready, if whoever called us wants to know.
    pub notify: Option<Notify>,
}

/// Signals that are ours, or that the kernel sends for faults of our own, are not passed on.
const OURS: [i32; 9] = [
    libc::SIGCHLD,
    libc::SIGURG,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGPIPE,
];

/// Those by which people and scripts ask a program to end.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The most that is copied at one time: a pipe that has room at all has room for so much.
const CHUNK: usize = 4096;

impl Foreground {
    /// Begins to catch signals.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin() -> Result<Self> {
        let forwarded: Vec<i32> = (1..=64).filter(|signal| !OURS.contains(signal)).collect();
        Ok(Foreground { signals: process::signalfd(&forwarded)?, notify: None })
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(self, mut started: Started, manners: Manners, watch: Watch) -> Result<Waited> {
        let master = started.terminal.take();
        let mut waiting = Waiting {
            signals: self.signals,
            notify: self.notify,
            started,
            manners,
            watch,
            ended_by: None,
            passed: Vec::new(),
            timed_out: false,
        };
        if let Some(master) = master {
            waiting.with_terminal(&master)?;
        }
        let ended = waiting.without_terminal()?;
        Ok(Waited { ended, passed: waiting.passed, timed_out: waiting.timed_out, watch: waiting.watch })
    }
}

/// What came of the waiting.
#[derive(Debug)]
pub struct Waited {
    /// How the process ended.
    pub ended: Ended,
    /// The signals that were passed on to it.
    pub passed: Vec<i32>,
    /// The deadline has passed, and it was killed.
    pub timed_out: bool,
    /// What was seen of its cgroup meanwhile.
    pub watch: Watch,
}

struct Waiting {
    signals: OwnedFd,
    notify: Option<Notify>,
    started: Started,
    manners: Manners,
    watch: Watch,
    /// The signal whose default action we have taken.
    ended_by: Option<i32>,
    /// Those that were passed on, each once.
    passed: Vec<i32>,
    /// The deadline has passed, and it was killed.
    timed_out: bool,
}

impl Waiting {
    fn without_terminal(&mut self) -> Result<Ended> {
        loop {
            let left = self.time_left();
            let mut sources =
                vec![(Source::Process, self.started.pidfd.as_fd()), (Source::Signals, self.signals.as_fd())];
            sources.extend(self.watch.files().map(|file| (Source::Cgroup, file)));
            sources.extend(self.notify.as_ref().map(|notify| (Source::Notify, notify.as_fd())));
            let ready = ready(&sources, left)?;
            self.look(&ready);
            if ready.contains(&Source::Signals) {
                self.pass_signals(None);
            }
            if ready.contains(&Source::Process) {
                let ended = process::wait(self.started.pidfd.as_fd())?;
                return Ok(match (ended, self.ended_by) {
                    (Ended::Signaled(libc::SIGKILL), Some(signal)) => Ended::Signaled(signal),
                    (ended, _) => ended,
                });
            }
        }
    }

    /// At the end too, and at once: what systemd removes is gone in a moment.
    fn look(&mut self, ready: &[Source]) {
        let ended = ready.contains(&Source::Process);
        if ended || ready.contains(&Source::Cgroup) {
            self.watch.look(ended);
        }
        if ready.contains(&Source::Notify) {
            self.hear();
        }
    }

    /// The process that the caller knows, and is to watch, is ours.
    fn hear(&mut self) {
        let Some(notify) = &self.notify else { return };
        match notify.hear(process::getpid()) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::warn!("{}", crate::output::chain(&error)),
        }
        self.notify = None;
    }

    /// How long to wait for something to happen; when the deadline has passed, the program is killed.
    fn time_left(&mut self) -> PollTimeout {
        let Some(deadline) = self.manners.deadline.filter(|_| !self.timed_out) else {
            return PollTimeout::NONE;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.timed_out = true;
            // That it has ended meanwhile will be seen next.
            let _ = process::pidfd_send_signal(self.started.pidfd.as_fd(), libc::SIGKILL);
            return PollTimeout::NONE;
        }
        // A millisecond more than it may be, lest the last one be waited for without end.
        PollTimeout::try_from(left.as_millis().min(1 << 30) + 1).unwrap_or(PollTimeout::MAX)
    }

    /// Joins the terminals until the process has ended or either terminal is gone.
    fn with_terminal(&mut self, master: &OwnedFd) -> Result<()> {
        let (stdin, mut stdout) = (std::io::stdin(), std::io::stdout());
        let raw = if self.manners.forward_input { Raw::enter() } else { Raw::unchanged() };
        copy_size(master.as_fd());
        let mut terminal = File::from(master.try_clone()?);
        let mut input = Input::new(master.try_clone()?)?;
        let mut reads = self.manners.forward_input;
        loop {
            let left = self.time_left();
            let mut sources = vec![
                (Source::Signals, self.signals.as_fd()),
                (Source::Process, self.started.pidfd.as_fd()),
                (Source::Terminal, master.as_fd()),
            ];
            if reads && input.has_room() {
                sources.push((Source::Stdin, stdin.as_fd()));
            }
            if input.is_pending() {
                sources.push((Source::Room, input.as_fd()));
            }
            sources.extend(self.watch.files().map(|file| (Source::Cgroup, file)));
            sources.extend(self.notify.as_ref().map(|notify| (Source::Notify, notify.as_fd())));
            let ready = ready(&sources, left)?;
            self.look(&ready);
            if ready.contains(&Source::Signals) {
                self.pass_signals(Some((master.as_fd(), &raw)));
            }
            if ready.contains(&Source::Terminal) && !copy(&mut terminal, &mut stdout) {
                return Ok(());
            }
            if ready.contains(&Source::Stdin) {
                let mut buffer = [0; CHUNK];
                match stdin.lock().read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => {
                        reads = false;
                        input.push(input::END_OF_TRANSMISSION);
                    }
                    Ok(count) => input.push(&buffer[..count]),
                }
            }
            if ready.contains(&Source::Room) {
                input.flush();
            }
            if ready.contains(&Source::Process) {
                return drain(&mut terminal, master.as_fd(), &mut stdout);
            }
        }
    }

    fn pass_signals(&mut self, terminal: Option<(BorrowedFd<'_>, &Raw)>) {
        while let Some(signal) = process::next_signal(self.signals.as_fd()) {
            match terminal {
                Some((master, _)) if signal == libc::SIGWINCH => copy_size(master),
                // A shell had the terminal while we were stopped.
                Some((master, raw)) if signal == libc::SIGCONT => {
                    raw.again();
                    copy_size(master);
                }
                _ => self.pass_on(signal),
            }
        }
    }

    fn pass_on(&mut self, signal: i32) {
        if self.manners.default_actions && signal == libc::SIGTSTP {
            return self.stop();
        }
        let mut sent = signal;
        if self.manners.default_actions && is_lost(self.started.pid, signal) {
            self.ended_by = Some(signal);
            sent = libc::SIGKILL;
        }
        if !self.passed.contains(&signal) {
            self.passed.push(signal);
        }
        // That it has ended meanwhile will be seen next.
        let _ = process::pidfd_send_signal(self.started.pidfd.as_fd(), sent);
    }

    /// Control-Z: the program's process group stops, and so do we until a shell lets us go on.
    fn stop(&self) {
        let group = -self.started.pid;
        let _ = process::kill(group, libc::SIGSTOP);
        let _ = process::kill(process::getpid(), libc::SIGSTOP);
        let _ = process::kill(group, libc::SIGCONT);
    }
}

/// Whether the kernel would keep `signal`, which is to end it, from process `pid`, the first of a PID namespace, as
/// one that it has neither a handler for nor blocked nor ignored (pid_namespaces(7)).
pub fn is_lost(pid: i32, signal: i32) -> bool {
    if !ENDING.contains(&signal) {
        return false;
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let masks = text.lines().filter_map(|line| {
        let (name, mask) = line.split_once(':')?;
        let concerns = ["SigBlk", "SigIgn", "SigCgt"].contains(&name);
        concerns.then(|| u64::from_str_radix(mask.trim(), 16).ok()).flatten()
    });
    let masks: Vec<u64> = masks.collect();
    masks.len() == 3 && masks.iter().all(|mask| mask & 1 << (signal - 1) == 0)
}

/// Where something can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Process,
    Terminal,
    Stdin,
    /// The terminal takes input again.
    Room,
    /// The cgroup has counted something.
    Cgroup,
    /// The program has told how it is.
    Notify,
}

/// Waits until something happens, and says where; nowhere when `timeout` has passed.
fn ready(sources: &[(Source, BorrowedFd<'_>)], timeout: PollTimeout) -> Result<Vec<Source>> {
    let events = |source| match source {
        Source::Room => PollFlags::POLLOUT,
        Source::Cgroup => PollFlags::POLLPRI,
        _ => PollFlags::POLLIN,
    };
    let mut polls: Vec<PollFd<'_>> =
        sources.iter().map(|(source, fd)| PollFd::new(*fd, events(*source))).collect();
    match poll(&mut polls, timeout) {
        Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
        other => other?,
    };
    let is_ready = |poll: &PollFd<'_>| poll.revents().is_some_and(|events| !events.is_empty());
    let ready = sources.iter().zip(&polls).filter(|(_, poll)| is_ready(poll));
    Ok(ready.map(|((source, _), _)| *source).collect())
}

/// Copies what the terminal still holds after the process has ended; others may keep it open.
fn drain(terminal: &mut File, master: BorrowedFd<'_>, stdout: &mut impl Write) -> Result<()> {
    while !ready(&[(Source::Terminal, master)], PollTimeout::from(20_u8))?.is_empty() {
        if !copy(terminal, stdout) {
            break;
        }
    }
    Ok(())
}

/// Copies once; false at the end or when nobody listens.
fn copy(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut buffer = [0; CHUNK];
    match from.read(&mut buffer) {
        Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => true,
        Ok(0) | Err(_) => false,
        Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok(),
    }
}

fn copy_size(master: BorrowedFd<'_>) {
    if let Some((rows, columns)) = terminal::size() {
        let _ = call::set_size(master, rows, columns);
    }
}
