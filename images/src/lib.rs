//! What a container's files are made from.
//!
//! This crate knows images; it never starts anything.

#![forbid(unsafe_code)]

pub mod digest;
pub mod error;
pub mod host;
pub mod manifest;
pub mod source;
pub mod store;
pub mod tar;
pub mod unpack;

pub use error::{Context, Error, Kind, Result};
