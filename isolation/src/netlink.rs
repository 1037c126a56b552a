//! Messages to the kernel's networking and its answers (netlink(7)).

use crate::sys::{fs, process, socket};
use crate::{Context, Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The length of a message's header.
pub(crate) const HEADER: usize = 16;
/// The low bits of an attribute's type are its number.
const NUMBER: u16 = 0x3fff;

/// A message to the kernel.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: i32) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(HEADER, 0);
        Request { bytes }
    }

    pub(crate) fn attribute(&mut self, number: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Netlink(socket)
    }

    /// For another namespace than ours: this thread goes there, calls `open` and comes back.
    pub(crate) fn open_in(namespace: BorrowedFd<'_>, open: fn() -> Result<OwnedFd>) -> Result<Self> {
        let ours = fs::open(Path::new("/proc/thread-self/ns/net"), 0)?;
        process::setns(namespace, libc::CLONE_NEWNET)?;
        let socket = open();
        process::setns(ours.as_fd(), libc::CLONE_NEWNET).doing(|| "come back")?;
        socket.map(Netlink)
    }

    /// Sends a request and waits until it has been done.
    pub(crate) fn ask(&mut self, mut request: Request) -> Result<()> {
        request.bytes[6] |= libc::NLM_F_ACK as u8;
        self.talk(request, |_, _| {})
    }

    /// Sends a request; what is answered goes to `each`, by type and content.
    pub(crate) fn talk(&mut self, mut request: Request, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let length = request.bytes.len() as u32;
        request.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        socket::send(self.0.as_fd(), &request.bytes, &[])?;
        loop {
            let (bytes, _) = socket::receive(self.0.as_fd(), 1 << 16)?;
            let mut rest = bytes.as_slice();
            while rest.len() >= HEADER {
                let length = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
                let (kind, content) = (u16_at(rest, 4), &rest[HEADER..length]);
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        return match u32_at(content, 0).cast_signed() {
                            0 => Ok(()),
                            errno => Err(Error::call("netlink", -errno)),
                        };
                    }
                    _ => each(kind, content),
                }
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}

/// The attributes of a message behind its own header.
pub(crate) fn attributes(content: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = content.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.len() < 4 {
            return None;
        }
        let length = usize::from(u16_at(rest, 0)).clamp(4, rest.len());
        let found = (u16_at(rest, 2) & NUMBER, &rest[4..length]);
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some(found)
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
