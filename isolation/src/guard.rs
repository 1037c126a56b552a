//! Keeping this program's own file from a container whose processes may look into every other (CVE-2019-5736).
//!
//! Whoever holds `CAP_SYS_PTRACE` over us can open `/proc/PID/exe` although we may not be dumped, keep the
//! descriptor until we have ended, and then write to the host's program through it. So where such a process can see
//! us, we start again from a read-only mount of our file: writing through that is refused, whatever one may do.

use crate::sys::cstring;
use crate::sys::fs::{self, Proc};
use crate::sys::mount::{self as call, Change, attr};
use crate::sys::process::{self, CStrings};
use crate::{Context, Result};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Starts this program again, with its arguments and environment, from a read-only mount of its file. Returns only
/// when it is on one already.
///
/// # Errors
/// The kernel's.
pub fn own_program() -> Result<()> {
    start_again().doing(|| "keep the container from this program's own file")
}

fn start_again() -> Result<()> {
    let file = Proc::open()?.follow("self/exe", libc::O_PATH)?;
    if fs::mount_flags(file.as_fd())? & libc::ST_RDONLY != 0 {
        return Ok(());
    }
    let mount = call::open_tree(Some(file.as_fd()), Path::new(""), false)?;
    call::set_attributes(mount.as_fd(), Change { set: attr::RDONLY, ..Change::default() })?;
    let args = std::env::args_os().map(|arg| cstring(arg.as_bytes())).collect::<Result<Vec<_>>>()?;
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        cstring(&[name.into_vec(), value.into_vec()].join(&b'='))
    };
    let env = std::env::vars_os().map(entry).collect::<Result<Vec<_>>>()?;
    Err(process::fexecve(mount.as_fd(), &CStrings::new(args), &CStrings::new(env)))
}
