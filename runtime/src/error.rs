//! What can go wrong with a container, as callers need to tell it apart.

use crate::death::{Above, Usage};
use crate::plan::validate::Problem;
use crate::state::Status;

/// Result of an operation on a container.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no container of this name.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// There is one already.
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    /// The operation does not fit what the container is doing.
    #[error("cannot {verb} container {id:?}: it is {status}{why}")]
    WrongStatus {
        /// What was wanted.
        verb: &'static str,
        /// Of which container.
        id: String,
        /// What it is doing.
        status: Status,
        /// What callers look for in the text, or what to do.
        why: &'static str,
    },
    /// The configuration is wrong; every problem is named.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
    /// The host, the kernel or the caller's rights do not give what was asked for.
    #[error("{what} is not supported here: {needs}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What it would need.
        needs: String,
    },
    /// A container could not be made; what had come of it until then.
    #[error("{error}")]
    NotMade {
        /// Why.
        error: Box<Error>,
        /// What its processes had used.
        usage: Box<Usage>,
        /// What happened above its cgroup.
        above: Option<Above>,
    },
    /// An operation failed; the chain of what was being done and the kernel's reason.
    #[error("{0}")]
    Failed(#[from] ctr_isolation::Error),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [one] => format!("invalid configuration: {one}"),
        many => format!("invalid configuration, {} problems: {}", many.len(), many.join("; ")),
    }
}

impl Error {
    /// A failure whose reason is its own text.
    pub fn text(what: impl Into<String>) -> Self {
        Error::Failed(ctr_isolation::Error::new(what))
    }
}
