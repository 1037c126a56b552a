//! One error for everything that asks the kernel: what was being done, outermost first, and the kernel's reason.

use std::fmt;
use std::io;

/// A failed operation: a chain of what was being done and, at its end, the errno the kernel gave.
///
/// It is plain data, so a child process can send it to its parent whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What was being done, outermost first; the last one is the call itself, written as it was made.
    pub layers: Vec<String>,
    /// The kernel's reason, or 0 when the reason is in the last layer.
    pub errno: i32,
}

/// Result of an operation on the kernel.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error whose reason is its own text.
    pub fn new(what: impl Into<String>) -> Self {
        Error { layers: vec![what.into()], errno: 0 }
    }

    /// An error of the call `call` with the kernel's `errno`.
    pub fn call(call: impl Into<String>, errno: i32) -> Self {
        Error { layers: vec![call.into()], errno }
    }

    /// The error of the call `call`, with the errno of the calling thread.
    pub fn last(call: impl Into<String>) -> Self {
        Error::call(call, io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Puts the error below what was being done.
    #[must_use]
    pub fn under(mut self, doing: impl Into<String>) -> Self {
        self.layers.insert(0, doing.into());
        self
    }
}

impl Error {
    /// The whole of it, for a process that is not ours, in `longest` bytes at most: the errno and the layers with NUL
    /// between.
    pub fn to_bytes(&self, longest: usize) -> Vec<u8> {
        let mut text = format!("{}\0{}", self.errno, self.layers.join("\0"));
        let mut end = text.len().min(longest);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.into_bytes()
    }

    /// From what [`Error::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.split('\0');
        let errno = parts.next().and_then(|errno| errno.parse().ok()).unwrap_or(0);
        Error { layers: parts.map(str::to_owned).collect(), errno }
    }
}

/// The kernel's words for `errno`, in lower case as every OCI runtime's callers expect to match them.
pub fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.layers.join(": "))?;
        if self.errno != 0 { write!(f, ": {}", reason(self.errno)) } else { Ok(()) }
    }
}

impl std::error::Error for Error {}

/// Adds to an error what was being done.
pub trait Context<T> {
    /// Puts the error, if there is one, below what `doing` says was being done.
    ///
    /// # Errors
    /// The same error, one layer longer.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.under(doing()))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Error::call(doing(), errno),
            None => Error::new(error.to_string()).under(doing()),
        })
    }
}
