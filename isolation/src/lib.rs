//! What the kernel offers for partitioning: namespaces, mounts, cgroups, identities, filters.
//!
//! This crate knows the kernel and nothing of `config.json` or command lines. It may name leaf types of the
//! OCI specification (`LinuxSeccomp`, `LinuxResources`), never the whole of it. `unsafe` lives in [`sys`] alone.
#![deny(unsafe_code)]

pub mod attempt;
pub mod capabilities;
pub mod cgroup;
pub mod console;
pub mod device;
pub mod error;
pub mod guard;
pub mod identity;
pub mod mount;
pub mod mountinfo;
mod netlink;
pub mod network;
pub mod personality;
pub mod problem;
pub mod resctrl;
pub mod rlimit;
pub mod root;
pub mod rootfs;
pub mod schedule;
pub mod seccomp;
pub mod signal;
pub mod sockets;
pub mod sys;

pub use error::{Context, Error, Result};
