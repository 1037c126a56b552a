//! Installing a system call filter.

use super::check;
use crate::Result;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One instruction of a classic BPF program, `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump when true.
    pub jt: u8,
    /// Jump when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    filter: *const Instruction,
}

const SECCOMP_SET_MODE_FILTER: u32 = 1;

/// Installs `program` with `flags` (`SECCOMP_FILTER_FLAG_*`) for the calling process (seccomp(2)); returns the
/// listener when `SECCOMP_FILTER_FLAG_NEW_LISTENER` is among them.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` or no_new_privs, `EINVAL` for a program the kernel refuses, `EBUSY` for a second
/// listener.
pub fn install(program: &[Instruction], flags: u32) -> Result<Option<OwnedFd>> {
    const NEW_LISTENER: u32 = 8;
    let raw = Program { length: program.len() as u16, filter: program.as_ptr() };
    // SAFETY: `raw` is struct sock_fprog; it and the instructions outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const raw) };
    let fd =
        check(ret, || format!("seccomp(SET_MODE_FILTER, flags={flags:#x}, {} instructions)", program.len()))?;
    // SAFETY: with NEW_LISTENER the return value is a descriptor just opened for us.
    Ok((flags & NEW_LISTENER != 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}
