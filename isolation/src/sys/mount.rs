//! The mount calls: the descriptor-based ones of Linux 5.2 and later, and the few old ones still needed.

use super::{check, cpath, cstring};
use crate::{Error, Result};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-ID programs.
    pub const NOSUID: u64 = 0x2;
    /// No device files.
    pub const NODEV: u64 = 0x4;
    /// No programs.
    pub const NOEXEC: u64 = 0x8;
    /// All bits of the access time mode; the modes exclude each other.
    pub const ATIME_MASK: u64 = 0x70;
    /// Access times never.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Shift owners by a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Do not follow symbolic links.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A change of mount attributes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// `attr::*` to set.
    pub set: u64,
    /// `attr::*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE` or 0 for no change.
    pub propagation: u64,
    /// The user namespace by which owners are shifted, with [`attr::IDMAP`].
    pub idmap: Option<BorrowedFd<'a>>,
    /// For the whole tree of mounts, not only the top one.
    pub recursive: bool,
}

const AT_RECURSIVE: i32 = 0x8000;
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: only called with descriptors that the kernel has just opened for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A detached copy of the mount at `path` below `dir`, or of `dir` itself when `path` is empty (open_tree(2)).
/// With `recursive` the mounts below come along.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` when the mount belongs to another mount namespace, is unbindable, or,
/// not recursive in a user namespace, hides locked mounts.
pub fn open_tree(dir: Option<BorrowedFd<'_>>, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let at = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    let name = cpath(path)?;
    let empty = if path.as_os_str().is_empty() { libc::AT_EMPTY_PATH as u32 } else { 0 };
    let deep = if recursive { AT_RECURSIVE as u32 } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty | deep;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_open_tree, at, name.as_ptr(), flags) };
    check(ret, || format!("open_tree({}, CLONE{})", show(path), if recursive { "|RECURSIVE" } else { "" }))
        .map(owned)
}

fn show(path: &Path) -> String {
    if path.as_os_str().is_empty() { "[fd]".into() } else { format!("{path:?}") }
}

/// Attaches the detached mount `tree` on top of `target` (move_mount(2)).
///
/// # Errors
/// `EINVAL` when the target is not in our mount namespace, `ENOTDIR` when one is a directory and the other not,
/// `ELOOP` when the target lies inside the mount.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both names are empty C strings.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    check(ret, || "move_mount()").map(drop)
}

/// Changes the attributes of the mount that `mount` is the root of (mount_setattr(2)).
///
/// # Errors
/// `EPERM` when a flag is locked by a more privileged user namespace, `EINVAL` when the file system cannot be
/// idmapped or `mount` is not the root of a mount.
pub fn set_attributes(mount: BorrowedFd<'_>, change: Change<'_>) -> Result<()> {
    setattr(mount.as_raw_fd(), c"", change)
}

/// The same of the mount at our root.
///
/// # Errors
/// As [`set_attributes`].
pub fn set_root_attributes(change: Change<'_>) -> Result<()> {
    setattr(libc::AT_FDCWD, c"/", change)
}

fn setattr(dir: RawFd, path: &CStr, change: Change<'_>) -> Result<()> {
    let raw = MountAttr {
        set: change.set,
        clear: change.clear,
        propagation: change.propagation,
        userns_fd: change.idmap.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path outlives the call and `raw` is struct mount_attr in its first size.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            &raw const raw,
            size_of::<MountAttr>(),
        )
    };
    check(ret, || {
        format!(
            "mount_setattr(set={:#x}, clear={:#x}, propagation={:#x}{})",
            change.set,
            change.clear,
            change.propagation,
            if change.recursive { ", RECURSIVE" } else { "" }
        )
    })
    .map(drop)
}

/// A file system being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    kind: String,
}

impl FsContext {
    /// Starts configuring a file system of type `kind`.
    ///
    /// # Errors
    /// `ENODEV` when the kernel does not have it, `EPERM` without `CAP_SYS_ADMIN`.
    pub fn open(kind: &str) -> Result<Self> {
        let name = cstring(kind.as_bytes())?;
        // SAFETY: `name` outlives the call.
        let ret = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
        Ok(FsContext { fd: owned(check(ret, || format!("fsopen({kind:?})"))?), kind: kind.into() })
    }

    /// Sets `key` to `value`; a value longer than 255 bytes is refused by the kernel.
    ///
    /// # Errors
    /// `EINVAL` for a key or value the file system does not take; its own words are in the error.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, key, Some(value))
    }

    /// Sets the flag `key`.
    ///
    /// # Errors
    /// As [`FsContext::set`].
    pub fn flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, key, None)
    }

    /// Makes the file system and a detached mount of it with the attributes `attr::*`.
    ///
    /// # Errors
    /// The file system's; its own words are in the error.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes neither key nor value.
        let ret = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
        };
        check(ret, || format!("fsconfig({}, CREATE)", self.kind)).map_err(|error| self.explain(error))?;
        // SAFETY: takes no pointers.
        let ret =
            unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) };
        check(ret, || format!("fsmount({}, {attributes:#x})", self.kind))
            .map(owned)
            .map_err(|error| self.explain(error))
    }

    fn config(&self, command: u32, key: &str, value: Option<&str>) -> Result<()> {
        let key = cstring(key.as_bytes())?;
        let text = value.map(|value| cstring(value.as_bytes())).transpose()?;
        let pointer = text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: key and value outlive the call.
        let ret = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, key.as_ptr(), pointer, 0)
        };
        check(ret, || format!("fsconfig({}, {:?}, {:?})", self.kind, key, value.unwrap_or_default()))
            .map(drop)
            .map_err(|error| self.explain(error))
    }

    /// Adds the messages that the file system left in the context: `e ext4: Unknown parameter 'x'`.
    fn explain(&self, mut error: Error) -> Error {
        let mut buffer = [0_u8; 512];
        loop {
            // SAFETY: the buffer's own length is given.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if read <= 2 {
                return error;
            }
            let text = String::from_utf8_lossy(&buffer[2..read as usize]).trim_end().to_owned();
            if let Some(call) = error.layers.last_mut() {
                call.push_str(&format!(" ({text})"));
            }
        }
    }
}

/// mount(2), for what the new calls cannot do.
///
/// # Errors
/// The kernel's.
pub fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> Result<()> {
    let (c_source, c_target) = (cstring(source.as_bytes())?, cpath(target)?);
    let (c_kind, c_data) = (cstring(kind.as_bytes())?, cstring(data.as_bytes())?);
    // SAFETY: all four strings outlive the call.
    let ret = unsafe {
        libc::mount(
            c_source.as_ptr(),
            c_target.as_ptr(),
            c_kind.as_ptr(),
            flags as libc::c_ulong,
            c_data.as_ptr().cast(),
        )
    };
    check(ret, || format!("mount({source:?}, {target:?}, {kind:?}, {flags:#x}, {data:?})")).map(drop)
}

/// Mounts what `source` is also on top of `target` (mount(2) `MS_BIND`), without the mounts below it.
///
/// # Errors
/// As [`mount`].
pub fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let source = super::fs::fd_path(source);
    mount(&source.to_string_lossy(), &super::fs::fd_path(target), "", libc::MS_BIND, "")
}

/// Detaches the mount at `target` and all below, at once for us, later for those still inside (umount2(2)).
///
/// # Errors
/// `EINVAL` when it is no mount point or is locked.
pub fn detach(target: &Path) -> Result<()> {
    let name = cpath(target)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    check(ret, || format!("umount2({target:?}, DETACH)")).map(drop)
}

/// Makes the current directory, which must be a mount, the root, with the old root on top of it (pivot_root(2)).
///
/// # Errors
/// `EINVAL` when either is not a mount or is shared, or when the root is an initramfs.
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: both names are C strings.
    let ret = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check(ret, || "pivot_root(\".\", \".\")").map(drop)
}
