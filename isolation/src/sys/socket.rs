//! Unix sockets that carry messages and descriptors.

use super::{check, cstring};
use crate::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most descriptors the kernel takes in one message (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: only called with descriptors that the kernel has just opened for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Two connected sockets that keep message boundaries (`SOCK_SEQPACKET`), close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the array has room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, || "socketpair()")?;
    Ok((owned(i64::from(fds[0])), owned(i64::from(fds[1]))))
}

/// A datagram socket of the Internet family, for ioctls on interfaces.
pub(super) fn inet_datagram() -> Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let ret = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(ret, || "socket(AF_INET)").map(owned)
}

/// The two kinds of Unix socket we meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stream of bytes.
    Stream,
    /// Messages, in order.
    Packet,
}

fn unix(kind: Kind) -> Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => libc::SOCK_STREAM,
        Kind::Packet => libc::SOCK_SEQPACKET,
    };
    // SAFETY: takes no pointers.
    check(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) }, || "socket(AF_UNIX)")
        .map(owned)
}

fn address(path: &Path) -> Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all-zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.len() >= address.sun_path.len() {
        return Err(Error::new(format!("the path of the socket {path:?} is longer than 107 bytes")));
    }
    cstring(bytes)?;
    for (slot, byte) in address.sun_path.iter_mut().zip(bytes) {
        *slot = *byte as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// Connects to the socket at `path`.
///
/// # Errors
/// `ENOENT` when it does not exist, `ECONNREFUSED` when nobody listens, or the path is too long.
pub fn connect(path: &Path, kind: Kind) -> Result<OwnedFd> {
    let socket = unix(kind)?;
    let (address, length) = address(path)?;
    // SAFETY: the address outlives the call and its length is given.
    let ret = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    check(ret, || format!("connect({path:?})"))?;
    Ok(socket)
}

/// Gives `socket`, which is of the Unix family, the new name `path`.
///
/// # Errors
/// `EADDRINUSE` when there is something at the path, or the path is too long.
pub fn bind(socket: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let (address, length) = address(path)?;
    // SAFETY: the address outlives the call and its length is given.
    let ret = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    check(ret, || format!("bind({path:?})")).map(drop)
}

/// Listens on a new socket at `path`.
///
/// # Errors
/// `EADDRINUSE` when there is something at the path, or the path is too long.
pub fn listen(path: &Path, kind: Kind) -> Result<OwnedFd> {
    let socket = unix(kind)?;
    bind(socket.as_fd(), path)?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 8) }, || format!("listen({path:?})"))?;
    Ok(socket)
}

/// Waits for somebody to connect.
///
/// # Errors
/// The kernel's.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    loop {
        let (null, none) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the peer's address is not asked for.
        let ret = unsafe { libc::accept4(socket.as_raw_fd(), null, none, libc::SOCK_CLOEXEC) };
        match check(ret, || "accept4()") {
            Err(error) if error.errno == libc::EINTR => {}
            other => return other.map(owned),
        }
    }
}

/// Says that nothing more will be sent (shutdown(2)); what the other end sends can still be read.
///
/// # Errors
/// `ENOTCONN` when it is not connected.
pub fn shut_down_writing(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) }, || "shutdown()").map(drop)
}

/// Sends one message with descriptors.
///
/// # Errors
/// `EPIPE` when the other end is closed, `EMSGSIZE` when the message is too long.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let mut io = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let payload = size_of_val(raw.as_slice());
    // SAFETY: computes a size.
    let mut control = vec![0_u64; unsafe { libc::CMSG_SPACE(payload as u32) } as usize / 8 + 1];
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut io;
    message.msg_iovlen = 1;
    if !raw.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: computes a size; the first header lies inside `control`, which is aligned and large enough.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(payload as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload as u32) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), payload);
        }
    }
    // SAFETY: everything `message` points to outlives the call; the kernel does not write to the iovec.
    let ret = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check(ret, || format!("sendmsg({} bytes, {} descriptors)", bytes.len(), fds.len())).map(drop)
}

/// Receives one message of at most `limit` bytes with its descriptors; an empty one means the other end is closed.
///
/// # Errors
/// The kernel's; a message that was cut off is refused.
pub fn receive(socket: BorrowedFd<'_>, limit: usize) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    // Not filled: most messages are of one byte, and pages that nobody touches cost nothing.
    let mut bytes: Vec<u8> = Vec::with_capacity(limit);
    let mut io = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: limit };
    let payload = (MAX_FDS * size_of::<RawFd>()) as u32;
    // SAFETY: computes a size.
    let space = unsafe { libc::CMSG_SPACE(payload) } as usize;
    let mut control = vec![0_u64; space / 8 + 1];
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut io;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    let length = loop {
        // SAFETY: everything `message` points to outlives the call.
        let ret = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check(ret, || "recvmsg()") {
            // A peer that ended without reading all that we said is told of first, and what it said comes after.
            Err(error) if matches!(error.errno, libc::EINTR | libc::ECONNRESET) => {}
            other => break other?,
        }
    };
    let fds = received_fds(&message);
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(Error::new("recvmsg(): the message was cut off"));
    }
    // SAFETY: the kernel has written `length` bytes, at most `limit`.
    unsafe { bytes.set_len(length as usize) };
    Ok((bytes, fds))
}

fn received_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in the headers, CMSG_NXTHDR stays inside msg_controllen, and each descriptor
    // in an SCM_RIGHTS header has just been opened for us.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend((0..count).map(|i| owned(i64::from(data.add(i).read_unaligned()))));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_heard_from_who_did_not_listen() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd(), b"unread", &[]).unwrap();
        send(theirs.as_fd(), b"last words", &[]).unwrap();
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), 64).unwrap().0, b"last words");
        assert_eq!(receive(ours.as_fd(), 64).unwrap().0, b"");
    }
}
