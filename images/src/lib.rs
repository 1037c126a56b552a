//! What a container's files are made from: images, and the built-in one.
//!
//! This crate knows images; it never starts anything.

#![forbid(unsafe_code)]

pub mod digest;
pub mod error;
pub mod host;
pub mod manifest;
pub mod name;
pub mod pack;
pub mod registry;
pub mod source;
pub mod store;
pub mod tar;
pub mod transport;
pub mod unpack;

pub use error::{Context, Error, Kind, Result};
