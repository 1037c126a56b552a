//! Sockets to the kernel's network configuration (rtnetlink(7)).

use super::check;
use crate::Result;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A socket for the configuration of the network namespace of the calling thread, which it keeps for good.
///
/// # Errors
/// The kernel's.
pub fn route() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = check(
        unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) },
        || "socket(AF_NETLINK, NETLINK_ROUTE)",
    )?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
