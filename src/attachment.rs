//! What `attach` and a supervisor say to each other, each in a message of its own on one socket.
//!
//! The container's output is not among it: who attaches reads that from the log as it is written, so that nobody who
//! is slow, stopped or many holds the container up.

use anyhow::{Context, Result, bail};
use ctr_isolation::sys::fs;
use ctr_isolation::sys::socket::{self, Kind};
use ctr_runtime::state::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The socket in a container's directory.
const NAME: &str = "attach";

/// The most input in one message.
pub const CHUNK: usize = 4096;

/// What the supervisor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// First of all: whether the program has a terminal, and whether it takes input.
    Hello {
        /// It has.
        terminal: bool,
        /// It does.
        interactive: bool,
    },
    /// Last of all: all output is in the log, and the program ended with this status.
    Ended(i32),
}

/// What who is attached says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// Input for the program.
    Input(Vec<u8>),
    /// The end of the input.
    End,
    /// The size of the terminal: rows and columns.
    Size(u16, u16),
}

/// Listens for those who attach to the container of `entry`.
///
/// # Errors
/// The kernel's.
pub fn listen(entry: &Entry) -> Result<OwnedFd> {
    let dir = fs::open(entry.dir(), fs::O_DIRECTORY)?;
    // Through the descriptor: a socket's path may not be longer than 107 bytes.
    Ok(socket::listen(&fs::fd_path(dir.as_fd()).join(NAME), Kind::Packet)?)
}

/// Connects to the supervisor of the container of `entry`.
///
/// # Errors
/// When it has none.
pub fn connect(entry: &Entry) -> Result<OwnedFd> {
    let dir = fs::open(entry.dir(), fs::O_DIRECTORY)?;
    Ok(socket::connect(&fs::fd_path(dir.as_fd()).join(NAME), Kind::Packet)?)
}

/// Says `answer` to one who is attached.
///
/// # Errors
/// When that one is gone.
pub fn answer(socket: BorrowedFd<'_>, answer: Answer) -> Result<()> {
    let bytes = match answer {
        Answer::Hello { terminal, interactive } => [b'h', u8::from(terminal), u8::from(interactive)].to_vec(),
        Answer::Ended(status) => [&b"x"[..], &status.to_le_bytes()].concat(),
    };
    Ok(socket::send(socket, &bytes, &[])?)
}

/// Hears the next answer.
///
/// # Errors
/// When the supervisor is gone.
pub fn hear(socket: BorrowedFd<'_>) -> Result<Answer> {
    let (bytes, _) = socket::receive(socket, 64)?;
    match bytes.as_slice() {
        [b'h', terminal, interactive] => {
            Ok(Answer::Hello { terminal: *terminal != 0, interactive: *interactive != 0 })
        }
        [b'x', status @ ..] => Ok(Answer::Ended(i32::from_le_bytes(status.try_into()?))),
        [] => bail!("the supervisor of the container has ended"),
        other => bail!("the supervisor of the container said {other:?}"),
    }
}

/// Says something to the supervisor.
///
/// # Errors
/// When the supervisor is gone.
pub fn say(socket: BorrowedFd<'_>, words: &Say) -> Result<()> {
    let bytes = match words {
        Say::Input(bytes) => [b"i", bytes.as_slice()].concat(),
        Say::End => b"e".to_vec(),
        Say::Size(rows, columns) => [&b"s"[..], &rows.to_le_bytes(), &columns.to_le_bytes()].concat(),
    };
    socket::send(socket, &bytes, &[]).context("reach the supervisor of the container")
}

/// What one who is attached says next; none when that one is gone or makes no sense.
pub fn listen_to(socket: BorrowedFd<'_>) -> Option<Say> {
    let (bytes, _) = socket::receive(socket, 1 + CHUNK).ok()?;
    match bytes.as_slice() {
        [b'i', input @ ..] => Some(Say::Input(input.to_vec())),
        [b'e'] => Some(Say::End),
        [b's', a, b, c, d] => Some(Say::Size(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let (ours, theirs) = socket::pair().unwrap();
        for words in [Say::Input(b"x".repeat(CHUNK)), Say::Input(Vec::new()), Say::End, Say::Size(24, 300)] {
            say(ours.as_fd(), &words).unwrap();
            assert_eq!(listen_to(theirs.as_fd()), Some(words));
        }
        for said in [Answer::Hello { terminal: true, interactive: false }, Answer::Ended(137)] {
            answer(theirs.as_fd(), said).unwrap();
            assert_eq!(hear(ours.as_fd()).unwrap(), said);
        }
        socket::send(ours.as_fd(), b"nonsense", &[]).unwrap();
        assert_eq!(listen_to(theirs.as_fd()), None);
        drop(theirs);
        assert!(hear(ours.as_fd()).is_err());
    }
}
