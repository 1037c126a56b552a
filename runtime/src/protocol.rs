//! The conversation between `ctr` and the process that becomes the container.
//!
//! One socket, messages in order. The child says nothing that is not in this table.
//!
//! | parent | child | meaning |
//! |---|---|---|
//! | `Go` + mounts | | ids are mapped, the cgroup is set, the record is written: begin; the descriptors are detached mounts. Where nothing is needed from the parent the child has begun already, and this is waited for before hooks and `Ready` |
//! | | `Hooks` | namespaces and mounts are there: run `prestart` and `createRuntime` hooks |
//! | `Go` | | they have run |
//! | | `Terminal` + master | attached: here is the terminal |
//! | | `Listener` + fd | the listener of the system call filter, for the agent that answers |
//! | `Go` | | it has been handed over |
//! | | `Ready` | all that can fail before `start` has been done |
//! | `Go` | | only where the limit of memory is small: it is set now |
//! | | `Failed` | this failed, and the child has ended |
//! | | 8 bytes | the last hop could not make a call or execute the program |
//! | | end of file | the container's program runs |
//!
//! After `Ready` a created container goes on with whoever connects to its start socket, in the same words.

use ctr_isolation::sys::hop::Failure;
use ctr_isolation::sys::{process, socket};
use ctr_isolation::{Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What the child says.
#[derive(Debug)]
pub enum Message {
    /// Run the hooks of the runtime namespace.
    Hooks,
    /// The master of the container's terminal.
    Terminal(OwnedFd),
    /// The listener of the system call filter.
    Listener(OwnedFd),
    /// All that can fail before `start` has been done.
    Ready,
    /// This failed.
    Failed(Error),
    /// The last hop failed at this call.
    Hop(Failure),
    /// The other end is closed.
    End,
}

/// The longest report of a failure.
const MESSAGE_MAX: usize = 16 * 1024;

/// One end of the conversation.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two ends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (ours, theirs) = socket::pair()?;
        Ok((Channel { socket: ours }, Channel { socket: theirs }))
    }

    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> Self {
        Channel { socket }
    }

    /// The socket, for poll(2) and for the last hop to report through.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Parent: lets the child begin. One that has ended already has told why: that is heard next.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin(&self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.go(fds) {
            Err(error) if error.errno == libc::EPIPE => Ok(()),
            other => other,
        }
    }

    /// Parent: lets the child go on, with descriptors.
    ///
    /// # Errors
    /// `EPIPE` when the child has ended.
    pub fn go(&self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        socket::send(self.socket(), b"G", fds)
    }

    /// Child: waits to be let go on. `None` when the parent has died.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_go(&self) -> Result<Option<Vec<OwnedFd>>> {
        let (bytes, fds) = socket::receive(self.socket(), 16)?;
        Ok((!bytes.is_empty()).then_some(fds))
    }

    /// Child: says something that carries no data.
    ///
    /// # Errors
    /// `EPIPE` when the parent has died.
    pub fn say(&self, what: &Signal<'_>) -> Result<()> {
        match what {
            Signal::Hooks => socket::send(self.socket(), b"H", &[]),
            Signal::Terminal(fd) => socket::send(self.socket(), b"T", &[*fd]),
            Signal::Listener(fd) => socket::send(self.socket(), b"L", &[*fd]),
            Signal::Ready => socket::send(self.socket(), b"R", &[]),
        }
    }

    /// Child: says what failed.
    ///
    /// # Errors
    /// `EPIPE` when the parent has died.
    pub fn fail(&self, error: &Error) -> Result<()> {
        let said = error.to_bytes(MESSAGE_MAX - 1);
        socket::send(self.socket(), &[b"F", said.as_slice()].concat(), &[])
    }

    /// Parent: waits for what the child says next, for so long; `None` when it has said nothing.
    ///
    /// # Errors
    /// As [`Channel::listen`].
    pub fn listen_for(&self, limit: Duration) -> Result<Option<Message>> {
        match process::poll(&[self.socket()], Some(limit))? {
            Some(_) => self.listen().map(Some),
            None => Ok(None),
        }
    }

    /// Parent: waits for what the child says next.
    ///
    /// # Errors
    /// The kernel's; words that are not in the table are refused.
    pub fn listen(&self) -> Result<Message> {
        let (bytes, mut fds) = socket::receive(self.socket(), MESSAGE_MAX)?;
        match (bytes.first(), fds.pop()) {
            (None, _) => Ok(Message::End),
            (Some(b'H'), _) => Ok(Message::Hooks),
            (Some(b'R'), _) => Ok(Message::Ready),
            (Some(b'T'), Some(fd)) => Ok(Message::Terminal(fd)),
            (Some(b'L'), Some(fd)) => Ok(Message::Listener(fd)),
            (Some(b'F'), _) => Ok(Message::Failed(Error::from_bytes(&bytes[1..]))),
            _ => Failure::parse(&bytes)
                .filter(|_| bytes.len() == 8)
                .map(Message::Hop)
                .ok_or_else(|| Error::new(format!("the child said {bytes:?}, which means nothing"))),
        }
    }
}

/// What the child can say without waiting for an answer.
#[derive(Debug, Clone, Copy)]
pub enum Signal<'a> {
    /// See [`Message::Hooks`].
    Hooks,
    /// See [`Message::Terminal`].
    Terminal(BorrowedFd<'a>),
    /// See [`Message::Listener`].
    Listener(BorrowedFd<'a>),
    /// See [`Message::Ready`].
    Ready,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_travels_whole() {
        let (parent, child) = Channel::pair().unwrap();
        let error = Error::call("open(\"/x\")", 2).under("mount /x");
        child.fail(&error).unwrap();
        assert!(matches!(parent.listen().unwrap(), Message::Failed(got) if got == error));
    }

    #[test]
    fn a_child_that_dies_is_the_end() {
        let (parent, child) = Channel::pair().unwrap();
        drop(child);
        assert!(matches!(parent.listen().unwrap(), Message::End));
    }

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let (parent, child) = Channel::pair().unwrap();
        assert!(parent.listen_for(Duration::from_millis(1)).unwrap().is_none());
        child.say(&Signal::Ready).unwrap();
        assert!(matches!(parent.listen_for(Duration::from_secs(10)).unwrap(), Some(Message::Ready)));
    }

    /// One that begins at once may fail before it has read what the parent said meanwhile.
    #[test]
    fn a_failure_arrives_though_the_child_heard_nothing() {
        let (parent, child) = Channel::pair().unwrap();
        parent.go(&[]).unwrap();
        child.fail(&Error::new("early")).unwrap();
        drop(child);
        assert!(matches!(parent.listen().unwrap(), Message::Failed(_)));
        assert!(matches!(parent.listen().unwrap(), Message::End));
    }

    #[test]
    fn a_parent_that_dies_lets_nobody_go() {
        let (parent, child) = Channel::pair().unwrap();
        drop(parent);
        assert!(child.wait_go().unwrap().is_none());
    }

    #[test]
    fn a_report_of_any_length_arrives() {
        let (parent, child) = Channel::pair().unwrap();
        child.fail(&Error::new("ä".repeat(MESSAGE_MAX))).unwrap();
        assert!(matches!(parent.listen().unwrap(), Message::Failed(_)));
    }
}
