//! Sockets to the kernel's networking (netlink(7)).

use super::check;
use crate::Result;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A socket for the configuration of the network namespace of the calling thread, which it keeps for good.
///
/// # Errors
/// The kernel's.
pub fn route() -> Result<OwnedFd> {
    open(libc::NETLINK_ROUTE, "NETLINK_ROUTE")
}

/// A socket that tells of the sockets in the network namespace of the calling thread (sock_diag(7)).
///
/// # Errors
/// The kernel's.
pub fn sock_diag() -> Result<OwnedFd> {
    open(libc::NETLINK_SOCK_DIAG, "NETLINK_SOCK_DIAG")
}

fn open(protocol: i32, name: &str) -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) }, || {
        format!("socket(AF_NETLINK, {name})")
    })?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
