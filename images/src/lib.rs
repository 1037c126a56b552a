//! What a container's files are made from.
//!
//! This crate knows images; it never starts anything.

#![forbid(unsafe_code)]

pub mod digest;
pub mod error;
pub mod host;
pub mod source;

pub use error::{Context, Error, Kind, Result};
