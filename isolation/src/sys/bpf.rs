//! Device filters: eBPF programs attached to a cgroup.

use super::check;
use crate::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

fn bpf<A>(command: i32, attr: &mut A, name: &str) -> Result<i64> {
    // SAFETY: each caller passes the part of union bpf_attr that its command reads and writes, with its size.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    check(ret, || format!("bpf({name})"))
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Loads a device filter; `program` holds one eBPF instruction in each u64.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` or `CAP_SYS_ADMIN` in the initial user namespace; `EINVAL` or `EACCES` with the verifier's words.
pub fn load_device_filter(program: &[u64]) -> Result<OwnedFd> {
    let mut attr = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        // Without helpers that want the GPL any licence will do.
        license: c"Apache-2.0".as_ptr() as u64,
        name: *b"ctr_devices\0\0\0\0\0",
        ..Load::default()
    };
    match bpf(BPF_PROG_LOAD, &mut attr, "PROG_LOAD, CGROUP_DEVICE") {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
        Err(error) if error.errno == libc::EPERM => Err(error),
        Err(error) => Err(with_verifier_log(attr, error)),
    }
}

/// Loads once more, only for the verifier's words.
fn with_verifier_log(mut attr: Load, error: Error) -> Error {
    let mut log = vec![0_u8; 16384];
    attr.log_level = 1;
    attr.log_size = log.len() as u32;
    attr.log = log.as_mut_ptr() as u64;
    let _ = bpf(BPF_PROG_LOAD, &mut attr, "PROG_LOAD");
    let text = String::from_utf8_lossy(&log);
    error.under(format!("the verifier says {:?}", text.trim_end_matches('\0').trim()))
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

/// Attaches a loaded device filter to the cgroup whose directory is `cgroup`.
///
/// # Errors
/// `EPERM` without privilege in the initial user namespace.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replace: 0,
    };
    bpf(BPF_PROG_ATTACH, &mut attr, "PROG_ATTACH, CGROUP_DEVICE").map(drop)
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The device filters attached to `cgroup` itself.
///
/// # Errors
/// The kernel's.
pub fn device_filters(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; 64];
    let mut attr = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr, "PROG_QUERY, CGROUP_DEVICE")?;
    ids.iter().take(attr.count as usize).map(|id| by_id(*id)).collect()
}

fn by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr, "PROG_GET_FD_BY_ID")?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes `program` off `cgroup`.
///
/// # Errors
/// `ENOENT` when it is not attached.
pub fn detach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(BPF_PROG_DETACH, &mut attr, "PROG_DETACH, CGROUP_DEVICE").map(drop)
}
