//! Disk quota.

use super::check;
use crate::Result;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FS_QUOTA_PDQ_ACCT` of linux/dqblk_xfs.h: what belongs to a project is counted.
pub const PROJECT_COUNTED: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD` of linux/dqblk_xfs.h: and held to its limits.
pub const PROJECT_ENFORCED: u16 = 1 << 5;

const Q_XGETQSTATV: u32 = 0x5808;
const PRJQUOTA: u32 = 2;

/// Which quota are on (`FS_QUOTA_*`) of the file system that `fd` is on (quotactl_fd(2)).
///
/// # Errors
/// `ENOSYS` where the file system, or the kernel, has none.
pub fn state(fd: BorrowedFd<'_>) -> Result<u16> {
    // struct fs_quota_statv: its version in the first byte, the flags in the third and fourth; in all shorter than this.
    let mut buffer = [0_u16; 128];
    buffer[0] = u16::from_ne_bytes([1, 0]);
    // SAFETY: the buffer is larger than what the kernel writes for version 1, and outlives the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            fd.as_raw_fd(),
            Q_XGETQSTATV << 8 | PRJQUOTA,
            0,
            buffer.as_mut_ptr(),
        )
    };
    check(ret, || "quotactl_fd(Q_XGETQSTATV, PRJQUOTA)")?;
    Ok(buffer[1])
}
