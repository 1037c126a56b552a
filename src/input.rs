//! Input on its way to a program that may not be reading.

use anyhow::Result;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What means the end of the input to a terminal: control-D.
pub const END_OF_TRANSMISSION: &[u8] = &[4];

/// How much waits for the program; then whoever types has to.
const ROOM: usize = 64 << 10;

/// The way to a program, and what it has not read yet.
#[derive(Debug)]
pub struct Input {
    file: File,
    pending: Vec<u8>,
    /// Nothing comes after that.
    ends: bool,
}

impl Input {
    /// The way that `fd` is; writing to it never waits from now on, whoever else has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(fd: OwnedFd) -> Result<Input> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Input { file: File::from(fd), pending: Vec::new(), ends: false })
    }

    /// Takes more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
    }

    /// Takes no more.
    pub fn end(&mut self) {
        self.ends = true;
    }

    /// Whether there is something to pass on.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether more may be taken.
    pub fn has_room(&self) -> bool {
        self.pending.len() < ROOM
    }

    /// Passes on what the program has room for; false when that was the last of it.
    pub fn flush(&mut self) -> bool {
        match self.file.write(&self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
        !(self.ends && self.pending.is_empty())
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_not_read_waits_and_the_end_comes_last() {
        let (ours, theirs) = ctr_isolation::sys::fs::pipe().unwrap();
        let mut input = Input::new(theirs).unwrap();
        let bytes = vec![b'x'; 100_000];
        input.push(&bytes);
        assert!(input.is_pending() && !input.has_room());
        // A pipe holds less than that.
        assert!(input.flush() && input.flush() && input.is_pending());
        input.end();
        let mut reader = File::from(ours);
        let mut read = vec![0; 65536];
        reader.read_exact(&mut read).unwrap();
        assert!(!input.flush());
        drop(input);
        read.clear();
        assert_eq!(reader.read_to_end(&mut read).unwrap(), bytes.len() - 65536);
    }
}
