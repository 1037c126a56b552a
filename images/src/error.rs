//! One error for all that is done with images: its kind, for who has to decide, and a chain of words.

use std::fmt;
use std::io;

/// What went wrong, as far as a caller decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such image, manifest or blob where it was looked for.
    NotFound,
    /// Who asks may not have it.
    Denied,
    /// What was received or is stored is not what its digest, its size or its format says.
    Damaged,
    /// It is in use.
    Busy,
    /// The connection was lost: trying again may help.
    Lost,
    /// All else.
    Other,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub kind: Kind,
    /// What was being done, outermost first, and the reason.
    pub text: ctr_isolation::Error,
}

/// The result of an operation on images.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` whose reason is its own text.
    pub fn new(kind: Kind, text: impl Into<String>) -> Error {
        Error { kind, text: ctr_isolation::Error::new(text) }
    }

    /// An error of no particular kind.
    pub fn other(text: impl Into<String>) -> Error {
        Error::new(Kind::Other, text)
    }

    /// What is not as it should be.
    pub fn damaged(text: impl Into<String>) -> Error {
        Error::new(Kind::Damaged, text)
    }

    /// Puts the error below what was being done.
    #[must_use]
    pub fn under(mut self, doing: impl Into<String>) -> Error {
        self.text = self.text.under(doing);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<ctr_isolation::Error> for Error {
    fn from(text: ctr_isolation::Error) -> Error {
        let kind = match text.errno {
            libc::ENOENT => Kind::NotFound,
            libc::EACCES | libc::EPERM => Kind::Denied,
            libc::EBUSY => Kind::Busy,
            _ => Kind::Other,
        };
        Error { kind, text }
    }
}

impl From<io::Error> for Error {
    /// An error of ours that has travelled through a reader comes out as it went in.
    fn from(error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(errno) => ctr_isolation::Error { layers: Vec::new(), errno }.into(),
            None => match error.downcast::<Error>() {
                Ok(error) => error,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Error::damaged(error.to_string())
                }
                Err(error) => Error::other(error.to_string()),
            },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::other(error)
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Error {
        io::Error::from(errno).into()
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::damaged(error.to_string())
    }
}

/// Adds to an error what was being done.
pub trait Context<T> {
    /// Puts the error, if there is one, below what `doing` says was being done.
    ///
    /// # Errors
    /// The same error, one layer longer.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().under(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_out_of_a_reader_as_it_went_in() {
        let error = Error::damaged("the digest is another").under("read layer 3");
        let through = Error::from(io::Error::from(error.clone()));
        assert_eq!(through, error);
        let kernel = Error::from(io::Error::from_raw_os_error(libc::ENOSPC)).under("write x");
        assert_eq!(kernel.to_string(), "write x: no space left on device");
    }
}
