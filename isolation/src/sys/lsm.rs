//! The security modules of the kernel.

use super::check;
use crate::Result;

/// lsm_list_modules(2), the same number on every architecture; libc has no name for it yet.
const SYS_LSM_LIST_MODULES: libc::c_long = 461;

/// The security modules in force, as `LSM_ID_*` of linux/lsm.h (lsm_list_modules(2)).
///
/// # Errors
/// `ENOSYS` before Linux 6.8.
pub fn list_modules() -> Result<Vec<u64>> {
    let mut ids = [0_u64; 64];
    let mut size = size_of_val(&ids) as u32;
    // SAFETY: the array has `size` bytes, and both outlive the call.
    let ret = unsafe { libc::syscall(SYS_LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut size, 0) };
    let count = check(ret, || "lsm_list_modules()")?;
    Ok(ids.into_iter().take(count as usize).collect())
}
