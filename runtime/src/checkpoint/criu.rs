//! A CRIU of our own: started as `criu swrk`, with one end of a socket pair, it does what it is asked and ends.

use super::rpc::{Features, Kind, Notify, Request, Response};
use crate::error::{Error, Result};
use crate::state::{self, Entry, file};
use ctr_isolation::sys::process::{self, CStrings, Cloned};
use ctr_isolation::sys::{cstring, fs, socket};
use ctr_isolation::{Context, Error as Cause};
use prost::Message;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The oldest that knows external PID namespaces, time namespaces and the freezer of cgroup v2.
const OLDEST: (i32, i32) = (3, 15);

/// How long it may take to undo what it was doing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it has to notice that nobody waits for it.
const GRACE: Duration = Duration::from_secs(5);

/// No message of CRIU's is longer.
const MESSAGE_MAX: usize = 64 << 10;

/// How it is started.
#[derive(Default)]
pub(super) struct Start<'a> {
    /// Its standard streams are ours: those of a restored process may be.
    pub(super) streams: bool,
    /// What else it has open, by the same numbers.
    pub(super) keep: Vec<BorrowedFd<'a>>,
    /// The cgroup it begins in.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// The name of a session keyring of its own, which what it restores will have.
    pub(super) keyring: Option<&'a CStr>,
}

/// One that is running.
pub(super) struct Criu {
    socket: OwnedFd,
    pub(super) pid: i32,
    pidfd: OwnedFd,
    /// What it said before it had a log.
    said: File,
    /// Its log, once it was asked for something that is logged.
    pub(super) log: Option<PathBuf>,
    pub(super) version: (i32, i32),
}

/// A point of its work that it waits at, and what it has sent along.
pub(super) struct Notice {
    pub(super) script: String,
    pub(super) pid: i32,
    pub(super) fds: Vec<OwnedFd>,
}

impl Criu {
    /// Starts it, and makes sure that it is not too old.
    ///
    /// # Errors
    /// When there is none, or it is of no use here.
    pub(super) fn start(start: &Start<'_>) -> Result<Self> {
        check_user()?;
        let program = find("criu").ok_or_else(|| Error::Unsupported {
            what: "checkpoint and restore".into(),
            needs: "the program criu is not on PATH: install it (Debian, Ubuntu: `apt install criu`; Fedora: `dnf \
                    install criu`)"
                .into(),
        })?;
        let (ours, theirs) = socket::pair()?;
        let said = File::from(fs::memfd("criu").doing(|| "make a file for what CRIU says")?);
        match process::clone(0, start.cgroup).doing(|| "make a process for CRIU")? {
            Cloned::Child => {
                drop(ours);
                let error = become_criu(start, &program, &theirs, &said);
                let _ = (&said).write_all(error.to_string().as_bytes());
                process::exit(1)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let mut criu = Criu { socket: ours, pid, pidfd, said, log: None, version: (0, 0) };
                criu.check_version(&program)?;
                Ok(criu)
            }
        }
    }

    fn check_version(&mut self, program: &Path) -> Result<()> {
        let answer = self.ask(Kind::Version, Request::default(), &mut |_| Ok(()))?;
        let version = answer.version.unwrap_or_default();
        self.version = (version.major, version.minor);
        tracing::debug!("{} is CRIU {}.{}", program.display(), version.major, version.minor);
        if self.version >= OLDEST {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "checkpoint and restore".into(),
            needs: format!(
                "{} is CRIU {}.{}, which is too old: it needs {}.{} or newer",
                program.display(),
                version.major,
                version.minor,
                OLDEST.0,
                OLDEST.1
            ),
        })
    }

    /// Refuses what neither it nor the kernel can.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn need(&mut self, memory_tracking: bool, lazy_pages: bool) -> Result<()> {
        if !memory_tracking && !lazy_pages {
            return Ok(());
        }
        let wanted = Features { memory_tracking: Some(memory_tracking), lazy_pages: Some(lazy_pages) };
        let request = Request { features: Some(wanted), ..Request::default() };
        let has = self.ask(Kind::FeatureCheck, request, &mut |_| Ok(()))?.features.unwrap_or_default();
        let refuse =
            |what: &str, needs: &str| Err(Error::Unsupported { what: what.into(), needs: needs.into() });
        if memory_tracking && has.memory_tracking != Some(true) {
            return refuse(
                "a checkpoint of what has changed since an earlier one (--pre-dump, --parent-path)",
                "the kernel does not track changes of memory for CRIU (CONFIG_MEM_SOFT_DIRTY)",
            );
        }
        if lazy_pages && has.lazy_pages != Some(true) {
            return refuse("--lazy-pages", "the kernel or CRIU lacks userfaultfd(2) (CONFIG_USERFAULTFD)");
        }
        Ok(())
    }

    /// Asks it for something; `notice` is called whenever it waits for us on the way.
    ///
    /// # Errors
    /// What CRIU says of its failure, in its log or elsewhere, or the failure of `notice`.
    pub(super) fn ask(
        &mut self,
        kind: Kind,
        request: Request,
        notice: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<Response> {
        let more = matches!(kind, Kind::Version | Kind::FeatureCheck);
        self.say(&Request { kind: kind as i32, keep_open: Some(more), ..request })?;
        loop {
            let (bytes, fds) = socket::receive(self.socket.as_fd(), MESSAGE_MAX)?;
            if bytes.is_empty() {
                return Err(self.explain(kind, "it ended without an answer"));
            }
            let answer = Response::decode(bytes.as_slice())
                .map_err(|error| Error::text(format!("CRIU's answer is no message: {error}")))?;
            if !answer.success {
                let said = answer.message.clone().unwrap_or_default();
                let errno = answer.errno.filter(|errno| *errno != 0);
                let said = match errno {
                    Some(errno) if said.is_empty() => ctr_isolation::error::reason(errno),
                    _ => said,
                };
                return Err(self.explain(kind, said.trim()));
            }
            if answer.kind() != Kind::Notify {
                return Ok(answer);
            }
            let Notify { script, pid } = answer.notify.unwrap_or_default();
            let (script, pid) = (script.unwrap_or_default(), pid.unwrap_or_default());
            tracing::debug!("CRIU is at {script}");
            notice(Notice { script, pid, fds })?;
            self.say(&Request {
                kind: Kind::Notify as i32,
                notify_success: Some(true),
                ..Request::default()
            })?;
        }
    }

    fn say(&self, request: &Request) -> Result<()> {
        match socket::send(self.socket.as_fd(), &request.encode_to_vec(), &[]) {
            // It has ended: that is told where its answer is read.
            Err(error) if error.errno == libc::EPIPE => Ok(()),
            other => Ok(other?),
        }
    }

    /// Notes in `entry` which process it is, so that [`end`] finds it when nobody waits for it any more.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn note(&self, entry: &Entry) -> Result<()> {
        let started = state::start_time(self.pid).map_or(0, |(time, _)| time);
        entry.write_file(file::CRIU, format!("{} {started}", self.pid).as_bytes())
    }

    /// Lets it end.
    ///
    /// # Errors
    /// When it ends otherwise than with success.
    pub(super) fn finish(self) -> Result<()> {
        let Criu { socket, pidfd, .. } = &self;
        let _ = socket::shut_down_writing(socket.as_fd());
        match process::wait(pidfd.as_fd())?.status() {
            0 => Ok(()),
            _ => Err(self.explain(Kind::Empty, "it failed at its end")),
        }
    }

    fn explain(&self, kind: Kind, said: &str) -> Error {
        let doing = match kind {
            Kind::Restore => "CRIU could not restore the container",
            Kind::Dump | Kind::PreDump => "CRIU could not save the container",
            _ => "CRIU cannot work here",
        };
        let log = self.log.as_ref().and_then(|log| Some((log, std::fs::read(log).ok()?)));
        let errors =
            log.as_ref().map(|(_, text)| excerpt(&String::from_utf8_lossy(text))).unwrap_or_default();
        match log {
            Some((log, _)) if !errors.is_empty() => {
                Error::text(format!("{doing}: {errors} (the whole log is {})", log.display()))
            }
            _ => {
                let mut file = &self.said;
                let mut early = String::new();
                let _ = file.rewind().and_then(|()| file.take(4096).read_to_string(&mut early));
                let early = early.split_whitespace().collect::<Vec<_>>().join(" ");
                let all: Vec<&str> = [said, &early].into_iter().filter(|text| !text.is_empty()).collect();
                Error::text(format!("{doing}: {}", all.join(": ")))
            }
        }
    }
}

impl Drop for Criu {
    /// Whatever it was doing it undoes when nobody wants it any more; one that has ended is reaped already.
    fn drop(&mut self) {
        let _ = socket::shut_down_writing(self.socket.as_fd());
        if !matches!(process::poll(&[self.pidfd.as_fd()], Some(PATIENCE)), Ok(Some(_))) {
            let _ = process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = process::wait(self.pidfd.as_fd());
    }
}

/// Ends the CRIU that saves the container of `entry`. When its caller is killed it undoes what it has done to the
/// container's processes, unless one of them is killed at the wrong moment: then it waits for that one for ever, and
/// the kernel keeps it for its tracer.
///
/// # Errors
/// The kernel's.
pub(crate) fn end(entry: &Entry) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(entry.path(file::CRIU)) else { return Ok(()) };
    let noted = text.split_once(' ').and_then(|(pid, time)| Some((pid.parse().ok()?, time.parse().ok()?)));
    let Some((pid, started)): Option<(i32, u64)> = noted else { return Ok(()) };
    let Ok(pidfd) = process::pidfd_open(pid) else { return Ok(()) };
    // Only now: another process may have got the pid before.
    if state::start_time(pid).is_none_or(|(time, _)| time != started) {
        return Ok(());
    }
    if process::poll(&[pidfd.as_fd()], Some(GRACE))?.is_none() {
        tracing::debug!("CRIU (process {pid}) still saves the container: it is killed");
        process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL)?;
        process::poll(&[pidfd.as_fd()], Some(GRACE))?;
    }
    Ok(())
}

/// An ordinary user's containers have a user namespace. There CRIU 4.1, even with `CAP_CHECKPOINT_RESTORE`, is kept from
/// dropping its groups, which it insists on.
///
/// # Errors
/// For ordinary users.
pub(super) fn check_user() -> Result<()> {
    match process::effective_uid() {
        0 => Ok(()),
        _ => Err(Error::Unsupported {
            what: "checkpoint and restore for an ordinary user".into(),
            needs: "CRIU must be root to save or restore a container that is in a user namespace".into(),
        }),
    }
}

/// The program `name`, from our `PATH`.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    fs::programs(name).next()
}

fn become_criu(start: &Start<'_>, program: &Path, socket: &OwnedFd, said: &File) -> Cause {
    let become_it = || -> ctr_isolation::Result<Cause> {
        match start.keyring.map(process::join_session_keyring) {
            // A kernel without keyrings has nothing to leak.
            Some(Err(error)) if error.errno != libc::ENOSYS => return Err(error),
            _ => {}
        }
        if !start.streams {
            let null = fs::open(Path::new("/dev/null"), 0)?;
            process::dup_onto(null.as_fd(), 0)?;
            process::dup_onto(said.as_fd(), 1)?;
            process::dup_onto(said.as_fd(), 2)?;
        }
        for fd in start.keep.iter().chain([&socket.as_fd()]) {
            process::keep_across_exec(fd.as_raw_fd())?;
        }
        let number = socket.as_raw_fd().to_string();
        let args = ["criu", "swrk", &number].map(|arg| cstring(arg.as_bytes()));
        let args = args.into_iter().collect::<ctr_isolation::Result<Vec<_>>>()?;
        let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            cstring(&[name.as_bytes(), b"=", value.as_bytes()].concat())
        };
        let env = std::env::vars_os().map(entry).collect::<ctr_isolation::Result<Vec<_>>>()?;
        process::reset_signals();
        let path = cstring(program.as_os_str().as_bytes())?;
        Ok(process::execve(&path, &CStrings::new(args), &CStrings::new(env)))
    };
    match become_it() {
        Ok(error) | Err(error) => error.under("start CRIU"),
    }
}

/// The errors of a log, each once and without when it was written; of many the first, which tell the reason, and the
/// last.
fn excerpt(log: &str) -> String {
    const MOST: usize = 6;
    // What it says of every program that it runs, and of a limit that it does without.
    let is_noise =
        |error: &str| error.contains("exited, status=") || error.contains("Can't setup RLIMIT_NOFILE");
    let mut errors: Vec<&str> = Vec::new();
    for line in log.lines() {
        let found = line.strip_prefix("Error ").or(line.split_once(") Error ").map(|(_, error)| error));
        if let Some(error) = found.map(str::trim).filter(|error| !is_noise(error))
            && !errors.contains(&error)
        {
            errors.push(error);
        }
    }
    if errors.len() <= MOST {
        return errors.join("; ");
    }
    let (first, last) = (&errors[..MOST / 2], &errors[errors.len() - MOST / 2..]);
    format!("{}; ...; {}", first.join("; "), last.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_a_log_are_told() {
        let log = "(00.000001) Version: 4.1\n(00.01) 12 fdinfo 1: pos: 0\n\
                   (00.010733) Error (criu/files-reg.c:1790): Can't lookup mount=23 for fd=1 path=/tmp/x\n\
                   (00.010746) ----------------------------------------\n\
                   (00.011000) Error (criu/cr-dump.c:1669): Dump files (pid: 7) failed with -1\n";
        assert_eq!(
            excerpt(log),
            "(criu/files-reg.c:1790): Can't lookup mount=23 for fd=1 path=/tmp/x; \
             (criu/cr-dump.c:1669): Dump files (pid: 7) failed with -1"
        );
        let many: String = (1..=9).map(|n| format!("(00.1) Error (a.c:{n}): {n}\n")).collect();
        let text = excerpt(&many);
        assert!(text.starts_with("(a.c:1): 1; (a.c:2)") && text.ends_with("(a.c:9): 9"), "{text}");
        assert!(text.contains("; ...; (a.c:7)") && !text.contains("(a.c:4)"), "{text}");
        let noise = "Error (a.c:1): execvp failed\n(00.2) Error (a.c:2): exited, status=1\n(00.3) Error (a.c:1): execvp failed\n";
        assert_eq!(excerpt(noise), "(a.c:1): execvp failed");
        assert_eq!(excerpt("nothing"), "");
    }
}
