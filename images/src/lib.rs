//! What a container's files are made from.
//!
//! This crate knows images; it never starts anything.

#![forbid(unsafe_code)]

pub mod host;
