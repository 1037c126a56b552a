//! System calls as safe functions. The only place with `unsafe`; nothing here decides anything.
//!
//! A failed call returns an [`Error`](crate::Error) that prints the call as it was made.
#![allow(unsafe_code)]

pub mod arena;
pub mod bpf;
pub mod entry;
pub mod fs;
pub mod hop;
pub mod lsm;
pub mod mount;
pub mod netlink;
pub mod process;
pub mod quota;
pub mod seccomp;
pub mod socket;
pub mod terminal;

use crate::{Error, Result};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns the return value of a call into a result; `call` is only built on failure.
fn check<R: TryInto<i64>, S: Into<String>>(ret: R, call: impl FnOnce() -> S) -> Result<i64> {
    match ret.try_into() {
        Ok(value) if value >= 0 => Ok(value),
        _ => {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            Err(Error::call(call(), errno))
        }
    }
}

/// A NUL-terminated copy of `bytes`.
///
/// # Errors
/// When a NUL byte is inside: the kernel would cut the string there.
pub fn cstring(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes)
        .map_err(|_| Error::new(format!("{:?} contains a NUL byte", String::from_utf8_lossy(bytes))))
}

fn cpath(path: &Path) -> Result<CString> {
    cstring(path.as_os_str().as_bytes())
}
