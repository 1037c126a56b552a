//! The life of a container: from a bundle through a plan to a process, and back to nothing.
//!
//! "Decide, then do": [`plan`] turns a configuration and facts about the host into a [`plan::Plan`] without asking
//! anybody; [`launch`] and [`init`] carry it out in a straight line; [`release`] undoes it from its record.
#![forbid(unsafe_code)]

/// Tells whoever listens (`--trace`) what has been done; it costs the comparison of a number where nobody does.
#[macro_export]
macro_rules! phase {
    ($($text:tt)*) => { ::tracing::trace!(target: "phase", $($text)*) };
}

pub mod bundle;
pub mod checkpoint;
pub mod confine;
pub mod container;
pub mod death;
pub mod error;
pub mod executable;
pub mod facts;
pub mod hooks;
pub mod init;
pub mod launch;
pub mod limits;
pub mod mounts;
pub mod plan;
pub mod protocol;
pub mod release;
pub mod state;
pub mod stuck;
pub mod update;
pub mod witness;

pub use error::{Error, Result};
pub use state::{Status, Store};
