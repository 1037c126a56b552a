//! Pseudo-terminals.

use super::check;
use crate::Result;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Unlocks the slave of `master` and opens it without a path (`TIOCSPTLCK`, `TIOCGPTPEER`), so that nothing
/// mounted over its name can be opened in its place.
///
/// # Errors
/// The kernel's.
pub fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) };
    check(ret, || "ioctl(TIOCSPTLCK)")?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags by value.
    let fd =
        check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }, || "ioctl(TIOCGPTPEER)")?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The number of the pseudo-terminal `master` in its devpts.
///
/// # Errors
/// The kernel's.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes an unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) }, || "ioctl(TIOCGPTN)")?;
    Ok(number)
}

/// Makes `slave` the controlling terminal of our session.
///
/// # Errors
/// `EPERM` when we do not lead a session or have a terminal already.
pub fn set_controlling(slave: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }, || "ioctl(TIOCSCTTY)").map(drop)
}

/// Sets the size of a terminal, in characters.
///
/// # Errors
/// `ENOTTY` when it is none.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, || {
        format!("ioctl(TIOCSWINSZ, {rows}x{columns})")
    })
    .map(drop)
}

/// The size of a terminal: rows and columns.
///
/// # Errors
/// `ENOTTY` when it is none.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    check(ret, || "ioctl(TIOCGWINSZ)")?;
    Ok((size.ws_row, size.ws_col))
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    settings(fd).is_ok()
}

/// The settings of a terminal, to be put back later.
#[derive(Clone)]
pub struct Settings(libc::termios);

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settings")
    }
}

/// Reads the settings of a terminal.
///
/// # Errors
/// `ENOTTY` when it is none.
pub fn settings(terminal: BorrowedFd<'_>) -> Result<Settings> {
    // SAFETY: all-zero is a valid termios.
    let mut termios: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer outlives the call.
    check(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut termios) }, || "tcgetattr()")?;
    Ok(Settings(termios))
}

/// Changes the settings of a terminal.
///
/// # Errors
/// The kernel's.
pub fn set_settings(terminal: BorrowedFd<'_>, settings: &Settings) -> Result<()> {
    // SAFETY: the settings outlive the call.
    check(
        unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings.0) },
        || "tcsetattr()",
    )
    .map(drop)
}

impl Settings {
    /// The same without any processing of input or output: every byte goes through as it is.
    #[must_use]
    pub fn raw(&self) -> Settings {
        let mut termios = self.0;
        // SAFETY: changes the struct only.
        unsafe { libc::cfmakeraw(&raw mut termios) };
        Settings(termios)
    }
}
