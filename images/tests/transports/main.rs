//! Images from and to every transport, by us and by the tools of others.

#![allow(clippy::unwrap_used)]

mod common;
mod hostile;
mod round_trips;
mod tools;
