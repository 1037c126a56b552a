//! The small process that stays with a detached container: it keeps the log, passes on the input of those who attach,
//! reaps, and notes how the program ended.
//!
//! It is a fork of the `ctr` that was called, not a program of its own: nothing to find, nothing to start, and an
//! upgrade of the program file does not concern it.

use crate::attachment::{self, Answer, Say};
use crate::commands::context::Context;
use crate::foreground::Waited;
use crate::input::{self, Input};
use crate::journal::{Stream, Writer};
use crate::private::{Note, Private};
use anyhow::{Context as _, Result, bail};
use ctr_isolation::sys::process::{self, Cloned};
use ctr_isolation::sys::{fs, socket, terminal};
use ctr_runtime::container::{Container, Started};
use ctr_runtime::witness::Watch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

/// The name of the file, in a container's directory, with the status of its program once that has ended.
pub const STATUS: &str = "exit";

/// How many may be attached at one time.
const CLIENTS: usize = 32;

/// How a container's program is started, in the supervisor.
pub struct Start<'a> {
    /// The container's name and place.
    pub private: &'a Private,
    /// How it is kept.
    pub note: &'a Note,
    /// Whether the program gets a terminal.
    pub terminal: bool,
    /// How many descriptors from 3 on are the program's.
    pub keep_fds: u32,
    /// Starts it.
    pub make: &'a dyn Fn() -> Result<Started>,
}

impl std::fmt::Debug for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start")
            .field("private", self.private)
            .field("note", self.note)
            .finish_non_exhaustive()
    }
}

/// Starts a container under a supervisor, and returns as soon as its program runs. Until then both hold its lock.
///
/// # Errors
/// What its making ran into.
pub fn detach(context: &Context, start: &Start<'_>, lock: &OwnedFd) -> Result<()> {
    let (ours, theirs) = socket::pair()?;
    match process::clone(0, None)? {
        Cloned::Parent { .. } => {
            drop(theirs);
            let (answer, _) = socket::receive(ours.as_fd(), 16 * 1024)?;
            match answer.split_first() {
                Some((b'+', warnings)) => {
                    // There is nowhere left to complain of standard error to.
                    let _ = std::io::stderr().write_all(warnings);
                    Ok(())
                }
                Some((_, text)) => bail!("{}", String::from_utf8_lossy(text)),
                None => bail!("the supervisor ended before the program began (killed, or out of memory?)"),
            }
        }
        Cloned::Child => {
            drop(ours);
            let begun = begin(context, start, theirs);
            // For the caller too, which has it from where we have it.
            let _ = fs::unlock(lock.as_fd());
            let done = begun.and_then(|mut supervisor| supervisor.run());
            process::exit(i32::from(done.is_err()))
        }
    }
}

/// Gets away from the caller, starts the program and tells the caller of it.
fn begin<'a>(context: &'a Context, start: &Start<'a>, answer: OwnedFd) -> Result<Supervisor<'a>> {
    // Standard error becomes the container's before all is said.
    crate::log::hold();
    let begun = Supervisor::begin(context, start);
    let mut warnings = crate::log::release();
    warnings.truncate(8192);
    let told = match &begun {
        Ok(_) => socket::send(answer.as_fd(), &[b"+", warnings.as_slice()].concat(), &[]),
        Err(error) => {
            context.failed(&start.private.name, error);
            let text: String = format!("-{}", crate::output::chain(error)).chars().take(4096).collect();
            socket::send(answer.as_fd(), text.as_bytes(), &[])
        }
    };
    begun.and_then(|supervisor| told.map(|()| supervisor).map_err(Into::into))
}

/// What a supervisor has at hand.
struct Supervisor<'a> {
    context: &'a Context,
    private: &'a Private,
    container: Container,
    watch: Watch,
    /// The container's directory, whoever has its name by the end.
    directory: OwnedFd,
    started: Started,
    outputs: Outputs,
    input: Option<Input>,
    interactive: bool,
    listener: OwnedFd,
    clients: Vec<OwnedFd>,
    journal: Writer,
    /// Never read: signals meant for the caller's terminal wait in it for ever.
    _signals: OwnedFd,
}

impl<'a> Supervisor<'a> {
    fn begin(context: &'a Context, start: &Start<'a>) -> Result<Supervisor<'a>> {
        process::setsid()?;
        let entry = &start.private.entry;
        let null = fs::open(Path::new("/dev/null"), fs::O_RDWR)?;
        let pipes = Pipes::new(start.note.interactive && !start.terminal)?;
        pipes.take(null.as_fd())?;
        process::close_inherited(3 + start.keep_fds as i32)?;
        let made = (start.make)();
        // From here on only the container holds the far ends, so that its end is the end of the output.
        (0..3).try_for_each(|number| process::dup_onto(null.as_fd(), number))?;
        let started = made?;
        // What was for the program alone, and what would keep a file system of the caller's busy.
        process::close_inherited(3)?;
        fs::chdir(Path::new("/"))?;
        let signals = process::signalfd(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP])?;
        let (outputs, input) = pipes.ours(&started, start.note.interactive)?;
        let mut container = Container::open(&context.store, &start.private.name)?;
        let pid = process::getpid();
        container.record.supervisor = ctr_runtime::state::start_time(pid).map(|(time, _)| (pid, time));
        entry.write(&container.record)?;
        Ok(Supervisor {
            context,
            private: start.private,
            watch: Watch::new(&container),
            container,
            directory: fs::open(entry.dir(), fs::O_DIRECTORY)?,
            journal: Writer::open(&start.private.directory, context.settings.run.log_size.0)?,
            listener: attachment::listen(entry)?,
            started,
            outputs,
            input,
            interactive: start.note.interactive,
            clients: Vec::new(),
            _signals: signals,
        })
    }

    /// Serves until the program has ended, and sees to what is left then.
    fn run(&mut self) -> Result<()> {
        // All that it took to make the container is not needed again.
        process::trim_memory();
        while self.serve()? {}
        let ended = process::wait(self.started.pidfd.as_fd())?;
        let status = ended.status();
        let watch = std::mem::take(&mut self.watch);
        let waited = Waited { ended, passed: Vec::new(), timed_out: false, watch };
        self.context.reaped(&self.container, &fs::fd_path(self.directory.as_fd()), &waited);
        note_status(self.directory.as_fd(), status)?;
        for client in &self.clients {
            let _ = attachment::answer(client.as_fd(), Answer::Ended(status));
        }
        let note = Note::read(&self.private.directory)?;
        if note.remove { remove_own(self.context, self.private, self.started.pid) } else { Ok(()) }
    }

    /// Waits for something to happen and does what it asks for; false when the program and its output have ended.
    fn serve(&mut self) -> Result<bool> {
        let ready = self.wait()?;
        let has = |source: Source| ready.contains(&source);
        let is_over = has(Source::Process) && !ready.iter().any(|source| matches!(source, Source::Output(_)));
        // At the end too, before the output that is left is read.
        if has(Source::Cgroup) || has(Source::Process) {
            self.watch.look(has(Source::Process));
        }
        let journal = &mut self.journal;
        let mut number = 0;
        self.outputs.retain_mut(|(stream, file)| {
            number += 1;
            !has(Source::Output(number - 1)) || read_output(*stream, file, journal)
        });
        if has(Source::Input) && self.input.as_mut().is_some_and(|input| !input.flush()) {
            self.input = None;
        }
        for number in (0..self.clients.len()).rev().filter(|number| has(Source::Client(*number))) {
            self.hear_client(number);
        }
        if has(Source::Listener) {
            self.greet();
        }
        Ok(!is_over)
    }

    fn wait(&self) -> Result<Vec<Source>> {
        let mut sources = vec![
            (Source::Process, self.started.pidfd.as_fd(), PollFlags::POLLIN),
            (Source::Listener, self.listener.as_fd(), PollFlags::POLLIN),
        ];
        for (number, (_, file)) in self.outputs.iter().enumerate() {
            sources.push((Source::Output(number), file.as_fd(), PollFlags::POLLIN));
        }
        sources.extend(self.watch.files().map(|file| (Source::Cgroup, file, PollFlags::POLLPRI)));
        let has_room = self.input.as_ref().is_none_or(Input::has_room);
        for (number, client) in self.clients.iter().enumerate().filter(|_| has_room) {
            sources.push((Source::Client(number), client.as_fd(), PollFlags::POLLIN));
        }
        if let Some(input) = self.input.as_ref().filter(|input| input.is_pending()) {
            sources.push((Source::Input, input.as_fd(), PollFlags::POLLOUT));
        }
        let mut polls: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        match poll(&mut polls, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            other => other?,
        };
        let is_ready = |poll: &PollFd<'_>| poll.revents().is_some_and(|events| !events.is_empty());
        let ready = sources.iter().zip(&polls).filter(|(_, poll)| is_ready(poll));
        Ok(ready.map(|((source, ..), _)| *source).collect())
    }

    fn greet(&mut self) {
        let Ok(client) = socket::accept(self.listener.as_fd()) else { return };
        let hello =
            Answer::Hello { terminal: self.started.terminal.is_some(), interactive: self.interactive };
        if self.clients.len() < CLIENTS && attachment::answer(client.as_fd(), hello).is_ok() {
            self.clients.push(client);
        }
    }

    fn hear_client(&mut self, number: usize) {
        let said = attachment::listen_to(self.clients[number].as_fd());
        let terminal = self.started.terminal.as_ref();
        match (said, &mut self.input) {
            (None, _) => drop(self.clients.remove(number)),
            (Some(Say::Size(rows, columns)), _) => {
                let _ = terminal.map(|master| terminal::set_size(master.as_fd(), rows, columns));
            }
            (Some(Say::Input(bytes)), Some(input)) => input.push(&bytes),
            (Some(Say::End), Some(input)) if terminal.is_some() => input.push(input::END_OF_TRANSMISSION),
            (Some(Say::End), Some(input)) if input.is_pending() => input.end(),
            (Some(Say::End), Some(_)) => self.input = None,
            (Some(_), None) => {}
        }
    }
}

/// Takes down what there is; false when nothing more will come.
fn read_output(stream: Stream, file: &mut File, journal: &mut Writer) -> bool {
    let mut buffer = [0; 8192];
    match file.read(&mut buffer) {
        Ok(count) if count > 0 => journal.write(stream, &buffer[..count], SystemTime::now()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        _ => return false,
    }
    true
}

/// Where something can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Process,
    /// The cgroup has counted something.
    Cgroup,
    Listener,
    Input,
    Output(usize),
    Client(usize),
}

/// What is read and what it is.
type Outputs = Vec<(Stream, File)>;

/// The pipes of a program: our end and its own.
struct Pipes {
    output: (OwnedFd, OwnedFd),
    error: (OwnedFd, OwnedFd),
    input: Option<(OwnedFd, OwnedFd)>,
}

impl Pipes {
    fn new(with_input: bool) -> Result<Pipes> {
        let input = with_input.then(fs::pipe).transpose()?;
        Ok(Pipes { output: fs::pipe()?, error: fs::pipe()?, input })
    }

    /// Makes the program's ends our standard streams, which it gets.
    fn take(&self, null: BorrowedFd<'_>) -> Result<()> {
        process::dup_onto(self.input.as_ref().map_or(null, |(theirs, _)| theirs.as_fd()), 0)?;
        process::dup_onto(self.output.1.as_fd(), 1)?;
        Ok(process::dup_onto(self.error.1.as_fd(), 2)?)
    }

    /// Our ends, or both ways of its terminal.
    fn ours(self, started: &Started, interactive: bool) -> Result<(Outputs, Option<Input>)> {
        let (outputs, input) = match &started.terminal {
            Some(master) => {
                let input = interactive.then(|| master.try_clone()).transpose()?;
                (vec![(Stream::Output, master.try_clone()?)], input)
            }
            None => {
                let outputs = vec![(Stream::Output, self.output.0), (Stream::Error, self.error.0)];
                (outputs, self.input.map(|(_, ours)| ours))
            }
        };
        let outputs = outputs.into_iter().map(|(stream, fd)| (stream, File::from(fd))).collect();
        Ok((outputs, input.map(Input::new).transpose()?))
    }
}

/// Notes in a container's directory how its program ended.
///
/// # Errors
/// The kernel's.
pub fn note_status(directory: BorrowedFd<'_>, status: i32) -> Result<()> {
    let path = fs::fd_path(directory).join(STATUS);
    std::fs::write(&path, status.to_string()).context("note how the program ended")
}

/// Removes a container if its name is still that of the one whose program was `pid`.
///
/// # Errors
/// What could not be undone.
pub fn remove_own(context: &Context, private: &Private, pid: i32) -> Result<()> {
    let name = &private.name;
    match Container::open(&context.store, name) {
        Ok(container) if container.record.pid == pid => {
            Ok(Container::delete(&context.store, name, true, &|_, _| {})?)
        }
        _ => Ok(()),
    }
}
