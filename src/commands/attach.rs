//! `attach`.

use super::context::Context;
use super::logs;
use crate::attachment::{self, Answer, CHUNK, Say};
use crate::cli::run::Attach;
use crate::journal::{Begin, Record};
use crate::terminal::{self, Raw};
use anyhow::{Context as _, Result, anyhow, bail};
use ctr_isolation::sys::process;
use ctr_runtime::Status;
use ctr_runtime::container::Container;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Joins our terminal to a detached container, until that ends or the keys to leave it are typed; its status then, or
/// 0.
///
/// # Errors
/// When there is no such container, or it has no supervisor.
pub fn attach(context: &Context, flags: &Attach) -> Result<u8> {
    let keys = parse_keys(&flags.detach_keys)?;
    let container = context.container(&flags.id)?;
    let id = &flags.id;
    let directory = logs::directory(&container).map_err(|_| {
        anyhow!("only what `run --detach` made of an image can be attached to: `exec -t {id} sh` gets you into {id:?}")
    })?;
    if container.status() == Status::Stopped {
        bail!(
            "container {0:?} has ended: `logs {0}` has what it wrote, `restart {0}` starts it anew",
            flags.id
        );
    }
    let socket = connect(&container)?;
    let inotify = logs::watch(&directory)?;
    let mut reader = logs::open(&container)?;
    let mut session = Session::begin(socket, flags, keys)?;
    let mut print = |record: Record| logs::print(record.stream, &record.bytes());
    if !logs::is_read(reader.begin(Begin::Now, &mut print))? {
        return Ok(0);
    }
    loop {
        let mut fds = vec![session.socket.as_fd(), inotify.as_fd(), session.signals.as_fd()];
        let stdin = std::io::stdin();
        if session.reads {
            fds.push(stdin.as_fd());
        }
        let ready = process::poll(&fds, None)?.unwrap_or_default();
        let has = |number: usize| ready.get(number) == Some(&true);
        let answer = has(0).then(|| attachment::hear(session.socket.as_fd()));
        let _ = inotify.read_events();
        // All that it wrote is in the log before we hear of its end.
        if !logs::is_read(reader.read(&mut print))? {
            return Ok(0);
        }
        match answer {
            Some(Ok(Answer::Ended(status))) => return Ok(status as u8),
            Some(Err(error)) => return Err(error.context(format!("attached to {:?}", flags.id))),
            Some(Ok(Answer::Hello { .. })) | None => {}
        }
        if has(2)
            && let Some(status) = session.take_signals()
        {
            return Ok(status);
        }
        if has(3) && !session.pass_input() {
            drop(session);
            tracing::info!("left");
            return Ok(0);
        }
    }
}

fn connect(container: &Container) -> Result<OwnedFd> {
    let id = &container.record.id;
    attachment::connect(&container.entry).with_context(|| {
        format!(
            "container {id:?} has no supervisor any more (it was killed): `exec -t {id} sh` still gets you in"
        )
    })
}

/// What we have while we are attached.
struct Session {
    socket: OwnedFd,
    signals: OwnedFd,
    raw: Raw,
    terminal: bool,
    reads: bool,
    keys: Keys,
}

impl Session {
    fn begin(socket: OwnedFd, flags: &Attach, keys: Vec<u8>) -> Result<Session> {
        let Answer::Hello { terminal, interactive } = attachment::hear(socket.as_fd())? else {
            bail!("the supervisor of the container does not say hello");
        };
        let reads = interactive && !flags.no_stdin;
        let signals = process::signalfd(&[
            libc::SIGWINCH,
            libc::SIGCONT,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
        ])?;
        let raw = if terminal && reads { Raw::enter() } else { Raw::unchanged() };
        let session = Session { socket, signals, raw, terminal, reads, keys: Keys::new(keys) };
        // A size that changes makes the program draw its screen anew.
        session.send_size(1);
        session.send_size(0);
        Ok(session)
    }

    fn send_size(&self, more: u16) {
        if let Some((rows, columns)) = terminal::size().filter(|_| self.terminal) {
            let _ = attachment::say(self.socket.as_fd(), &Say::Size(rows + more, columns));
        }
    }

    /// The status to end with, if one of the signals asks us to.
    fn take_signals(&self) -> Option<u8> {
        while let Some(signal) = process::next_signal(self.signals.as_fd()) {
            match signal {
                libc::SIGWINCH => self.send_size(0),
                libc::SIGCONT => {
                    self.raw.again();
                    self.send_size(0);
                }
                // The container goes on; we were asked to leave.
                other => return Some(128 + other as u8),
            }
        }
        None
    }

    /// Sends what was typed; false when it were the keys to leave.
    fn pass_input(&mut self) -> bool {
        let mut buffer = [0; CHUNK / 2];
        let said = match std::io::stdin().lock().read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Ok(0) | Err(_) => {
                self.reads = false;
                Say::End
            }
            Ok(count) if self.terminal => match self.keys.take(&buffer[..count]) {
                Some(bytes) => Say::Input(bytes),
                None => return false,
            },
            Ok(count) => Say::Input(buffer[..count].to_vec()),
        };
        // That the supervisor is gone will be heard next.
        let _ = attachment::say(self.socket.as_fd(), &said);
        true
    }
}

/// Looks for the keys to leave in what is typed.
struct Keys {
    keys: Vec<u8>,
    typed: usize,
}

impl Keys {
    fn new(keys: Vec<u8>) -> Keys {
        Keys { keys, typed: 0 }
    }

    /// What of `bytes` is for the program: the first of the keys wait for the next. None once all were typed.
    fn take(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::new();
        for byte in bytes {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return None;
                }
                continue;
            }
            passed.extend(&self.keys[..self.typed]);
            self.typed = usize::from(self.keys.first() == Some(byte));
            if self.typed == 0 {
                passed.push(*byte);
            }
        }
        Some(passed)
    }
}

/// Reads `ctrl-p,ctrl-q`: keys that are a letter, or `ctrl-` with one of a-z @ [ \ ] ^ _. No key at all is allowed.
fn parse_keys(text: &str) -> Result<Vec<u8>> {
    let key = |word: &str| {
        let known = match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([letter], _) if letter.is_ascii_graphic() => Some(*letter),
            (_, Some([letter])) if letter.is_ascii_lowercase() || b"@[\\]^_".contains(letter) => {
                Some(letter & 0x1f)
            }
            _ => None,
        };
        known.with_context(|| {
            format!("--detach-keys {text}: {word:?} is not a key: give a letter, or ctrl- and a letter")
        })
    };
    text.split(',').filter(|word| !word.is_empty()).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_worded_as_podman_does() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(parse_keys("ctrl-@,a,ctrl-]").unwrap(), [0, b'a', 29]);
        assert_eq!(parse_keys("").unwrap(), b"");
        for text in ["ctrl-", "ctrl-P", "ctrl", "ab", "ctrl-é"] {
            assert!(parse_keys(text).unwrap_err().to_string().contains("is not a key"), "{text}");
        }
    }

    #[test]
    fn keys_to_leave_are_found_and_the_rest_goes_through() {
        let mut keys = Keys::new(vec![16, 17]);
        assert_eq!(keys.take(b"ab\x10").unwrap(), b"ab");
        assert_eq!(keys.take(b"c").unwrap(), b"\x10c");
        assert_eq!(keys.take(b"\x10\x10").unwrap(), b"\x10");
        assert_eq!(keys.take(b"\x11"), None);
        assert_eq!(Keys::new(Vec::new()).take(b"\x10\x11").unwrap(), b"\x10\x11");
    }
}
