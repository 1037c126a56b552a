//! The Unix sockets of a network namespace, and who is connected to whom (sock_diag(7)).

use crate::netlink::{HEADER, Netlink, Request, attributes, u32_at};
use crate::{Context, Result, sys};
use std::os::fd::BorrowedFd;

/// A Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unix {
    /// By which `/proc` names it.
    pub inode: u64,
    /// `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`.
    pub kind: i32,
    /// It is bound to a name.
    pub named: bool,
    /// The socket that it is connected to.
    pub peer: Option<u64>,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct unix_diag_msg`.
const MESSAGE: usize = 16;
const NAME: u16 = 0;
const PEER: u16 = 2;
const SHOW_NAME_AND_PEER: u32 = 1 << NAME | 1 << PEER;

/// Those of `namespace`.
///
/// # Errors
/// The kernel's: `ENOENT` where it does not tell of Unix sockets (`CONFIG_UNIX_DIAG`).
pub fn unix(namespace: BorrowedFd<'_>) -> Result<Vec<Unix>> {
    let mut netlink = Netlink::open_in(namespace, sys::netlink::sock_diag)?;
    let mut request = Request::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP);
    // struct unix_diag_req: the family, all states, any inode, what to show, any cookie.
    request.bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [u32::MAX, 0, SHOW_NAME_AND_PEER, u32::MAX, u32::MAX] {
        request.bytes.extend(word.to_ne_bytes());
    }
    debug_assert_eq!(request.bytes.len(), HEADER + 24);
    let mut sockets = Vec::new();
    netlink
        .talk(request, |_, content| {
            let find = |wanted| attributes(content, MESSAGE).find(|(number, _)| *number == wanted);
            sockets.push(Unix {
                inode: u32_at(content, 4).into(),
                kind: content.get(1).copied().unwrap_or_default().into(),
                named: find(NAME).is_some_and(|(_, name)| !name.is_empty()),
                peer: find(PEER).map(|(_, inode)| u32_at(inode, 0).into()),
            });
        })
        .doing(|| "ask for Unix sockets")?;
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    /// The inode that `/proc` has.
    fn inode(socket: &UnixStream) -> u64 {
        std::fs::metadata(fs::fd_path(socket.as_fd())).unwrap().ino()
    }

    #[test]
    fn the_other_end_is_found() {
        let (one, other) = UnixStream::pair().unwrap();
        let namespace = fs::open(Path::new("/proc/thread-self/ns/net"), 0).unwrap();
        match unix(namespace.as_fd()) {
            Err(error) if error.errno == libc::EPERM => println!("SKIP: only root changes namespaces"),
            sockets => {
                let found = sockets.unwrap().into_iter().find(|socket| socket.inode == inode(&one)).unwrap();
                let expected = Unix {
                    inode: inode(&one),
                    kind: libc::SOCK_STREAM,
                    named: false,
                    peer: Some(inode(&other)),
                };
                assert_eq!(found, expected);
            }
        }
    }
}
