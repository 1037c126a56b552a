//! The caller's own terminal, while a program's terminal is joined to it.

use ctr_isolation::sys::terminal::{self, Settings};
use std::os::fd::AsFd;

/// Our terminal, if standard input is one, passing every key on as it is for as long as this lives.
#[derive(Debug)]
pub struct Raw {
    before: Option<Settings>,
}

impl Raw {
    /// Stops the processing of input.
    pub fn enter() -> Raw {
        let raw = Raw { before: terminal::settings(std::io::stdin().as_fd()).ok() };
        raw.again();
        raw
    }

    /// Leaves the terminal as it is.
    pub fn unchanged() -> Raw {
        Raw { before: None }
    }

    /// The same again, after a shell had the terminal meanwhile.
    pub fn again(&self) {
        if let Some(settings) = &self.before {
            let _ = terminal::set_settings(std::io::stdin().as_fd(), &settings.raw());
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(settings) = &self.before {
            let _ = terminal::set_settings(std::io::stdin().as_fd(), settings);
        }
    }
}

/// The size of our terminal, rows and columns, whichever of our standard streams it is.
pub fn size() -> Option<(u16, u16)> {
    let of = |fd: std::os::fd::BorrowedFd<'_>| terminal::size(fd).ok();
    of(std::io::stdin().as_fd()).or_else(|| of(std::io::stdout().as_fd()))
}
