//! Something tried in a process of its own, which takes along what it changed.

use crate::sys::process::{self, Cloned};
use crate::sys::socket;
use crate::{Context, Error, Result};
use std::os::fd::{AsFd, BorrowedFd};

/// No answer is longer.
const LONGEST: usize = 16 << 10;

/// Runs `act` in a new process with new `namespaces` (`CLONE_NEW*`), in `cgroup` if there is one, and brings back what
/// it says. While the process waits to begin, `prepare` is told its pid: there its ids are mapped, say.
///
/// # Errors
/// That of making the process, of `prepare` or of `act`.
pub fn attempt(
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
    prepare: impl FnOnce(i32) -> Result<()>,
    act: impl FnOnce() -> Result<String>,
) -> Result<String> {
    let (ours, theirs) = socket::pair()?;
    match process::clone(u64::from(namespaces.cast_unsigned()), cgroup)? {
        Cloned::Child => {
            drop(ours);
            // Nothing, where the preparation has failed.
            let word = socket::receive(theirs.as_fd(), 1).map(|(bytes, _)| bytes);
            if word.is_ok_and(|word| !word.is_empty()) {
                // Whoever waits for it is told by the end of the conversation, too.
                let _ = socket::send(theirs.as_fd(), &to_bytes(act()), &[]);
            }
            process::exit(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let answer = prepare(pid)
                .and_then(|()| socket::send(ours.as_fd(), b"!", &[]))
                .and_then(|()| socket::receive(ours.as_fd(), LONGEST));
            drop(ours);
            process::wait(pidfd.as_fd())?;
            from_bytes(&answer?.0)
        }
    }
}

/// Makes the user `uid` and the group `gid` root of the new user namespace of the process `pid`.
///
/// # Errors
/// The kernel's; `EPERM` where they are not ours and we are not privileged.
pub fn map_root(pid: i32, uid: u32, gid: u32) -> Result<()> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &text).doing(|| format!("write {text:?} to {path}"))
    };
    // Without privilege only this makes a map of groups possible (user_namespaces(7)).
    write("setgroups", "deny".into())?;
    write("gid_map", format!("0 {gid} 1"))?;
    write("uid_map", format!("0 {uid} 1"))
}

/// A byte that says which, then the text or the error.
fn to_bytes(result: Result<String>) -> Vec<u8> {
    let mut bytes = match result {
        Ok(text) => [b"+", text.as_bytes()].concat(),
        Err(error) => [b"-", error.to_bytes(LONGEST - 1).as_slice()].concat(),
    };
    bytes.truncate(LONGEST);
    bytes
}

fn from_bytes(bytes: &[u8]) -> Result<String> {
    match bytes {
        [b'+', said @ ..] => Ok(String::from_utf8_lossy(said).into_owned()),
        [b'-', error @ ..] => Err(Error::from_bytes(error)),
        _ => Err(Error::new("the process that tried it ended without an answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_whole() {
        for answer in [
            Ok("two\nlines".to_owned()),
            Ok(String::new()),
            Err(Error::call("call()", libc::EPERM).under("try")),
            Err(Error::new("words")),
        ] {
            assert_eq!(from_bytes(&to_bytes(answer.clone())), answer);
        }
        assert!(from_bytes(b"").is_err());
        assert!(to_bytes(Ok("x".repeat(LONGEST))).len() <= LONGEST);
    }
}
