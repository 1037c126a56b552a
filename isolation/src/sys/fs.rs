//! Files, relative to directory descriptors.

use super::{check, cpath, cstring};
use crate::{Context, Error, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `O_DIRECTORY` of open(2), for callers without libc.
pub const O_DIRECTORY: i32 = libc::O_DIRECTORY;

/// `O_RDWR` of open(2), for callers without libc.
pub const O_RDWR: i32 = libc::O_RDWR;

/// `RESOLVE_*` of openat2(2).
pub mod resolve {
    /// Treat the directory as the root: absolute paths, `..` and symbolic links stay below it.
    pub const IN_ROOT: u64 = 0x10;
    /// Refuse to leave the directory.
    pub const BENEATH: u64 = 0x08;
    /// Refuse symbolic links everywhere.
    pub const NO_SYMLINKS: u64 = 0x04;
    /// Refuse the links of `/proc` that are no real links.
    pub const NO_MAGICLINKS: u64 = 0x02;
    /// Refuse to cross into another mount.
    pub const NO_XDEV: u64 = 0x01;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: only called with descriptors that the kernel has just opened for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Opens `path` from `dir`, resolved as `resolve` (`resolve::*`) says, close-on-exec (openat2(2)).
///
/// # Errors
/// The kernel's; `EXDEV` or `ELOOP` when the path breaks a rule of `resolve`.
pub fn openat2(dir: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    let name = cpath(path)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    loop {
        // SAFETY: `name` and `how` outlive the call and the size of `how` is given.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                name.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        match check(ret, || format!("openat2({path:?}, flags={flags:#x}, resolve={resolve:#x})")) {
            Ok(fd) => return Ok(owned(fd)),
            // The kernel could not rule out a race with a rename and asks to try again.
            Err(error) if error.errno == libc::EAGAIN || error.errno == libc::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens `path` as open(2) does, close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn open(path: &Path, flags: i32) -> Result<OwnedFd> {
    let name = cpath(path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o600) };
    check(ret, || format!("open({path:?})")).map(owned)
}

/// Makes a directory `name` in `dir`.
///
/// # Errors
/// The kernel's; `EEXIST` when there is something of that name.
pub fn mkdirat(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    let c_name = cpath(name)?;
    // SAFETY: the name outlives the call.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), c_name.as_ptr(), mode) }, || format!("mkdirat({name:?})"))
        .map(drop)
}

/// Makes a node `name` in `dir`; `mode` includes the type (`S_IFCHR`, ...).
///
/// # Errors
/// The kernel's; `EPERM` without `CAP_MKNOD` in the initial user namespace.
pub fn mknodat(dir: BorrowedFd<'_>, name: &Path, mode: u32, major: u32, minor: u32) -> Result<()> {
    let c_name = cpath(name)?;
    let device = libc::makedev(major, minor);
    // SAFETY: the name outlives the call.
    let ret = unsafe { libc::mknodat(dir.as_raw_fd(), c_name.as_ptr(), mode, device) };
    check(ret, || format!("mknodat({name:?}, {mode:#o}, {major}:{minor})")).map(drop)
}

/// Makes a symbolic link `name` to `target` in `dir`.
///
/// # Errors
/// The kernel's.
pub fn symlinkat(target: &Path, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let (c_target, c_name) = (cpath(target)?, cpath(name)?);
    // SAFETY: both strings outlive the call.
    let ret = unsafe { libc::symlinkat(c_target.as_ptr(), dir.as_raw_fd(), c_name.as_ptr()) };
    check(ret, || format!("symlinkat({target:?}, {name:?})")).map(drop)
}

/// Makes `name` in `dir` another name of `old` in `from`, of the link itself if it is one (linkat(2)).
///
/// # Errors
/// The kernel's; `EPERM` for a directory.
pub fn linkat(from: BorrowedFd<'_>, old: &Path, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let (c_old, c_name) = (cpath(old)?, cpath(name)?);
    // SAFETY: both strings outlive the call.
    let ret = unsafe { libc::linkat(from.as_raw_fd(), c_old.as_ptr(), dir.as_raw_fd(), c_name.as_ptr(), 0) };
    check(ret, || format!("linkat({old:?}, {name:?})")).map(drop)
}

/// Sets when `name` in `dir` was read and changed last, of the link itself if it is one: seconds and nanoseconds
/// (utimensat(2)). An empty name means `dir`.
///
/// # Errors
/// The kernel's.
pub fn set_times(
    dir: BorrowedFd<'_>,
    name: &Path,
    (read, read_nanos): (i64, u32),
    (changed, changed_nanos): (i64, u32),
) -> Result<()> {
    let c_name = cpath(name)?;
    let times = [(read, read_nanos), (changed, changed_nanos)]
        .map(|(seconds, nanos)| libc::timespec { tv_sec: seconds, tv_nsec: nanos.into() });
    let ret = match name.as_os_str().is_empty() {
        // SAFETY: the array of two outlives the call.
        true => unsafe { libc::futimens(dir.as_raw_fd(), times.as_ptr()) },
        // SAFETY: as above, and the name does, too.
        false => unsafe {
            libc::utimensat(dir.as_raw_fd(), c_name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
        },
    };
    check(ret, || format!("utimensat({name:?})")).map(drop)
}

/// Gives the open file `fd` the extended attribute `name` (fsetxattr(2)).
///
/// # Errors
/// The kernel's; `EOPNOTSUPP` where the file system has none of that kind.
pub fn set_attribute(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    let c_name = cstring(name)?;
    // SAFETY: the name outlives the call, and the value's own length is given.
    let ret =
        unsafe { libc::fsetxattr(fd.as_raw_fd(), c_name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(ret, || format!("fsetxattr({c_name:?})")).map(drop)
}

/// Gives `name` in `dir`, the link itself if it is one, the extended attribute `key` (lsetxattr(2)): for what cannot be
/// opened without doing more, as a device.
///
/// # Errors
/// As [`set_attribute`].
pub fn set_attribute_at(dir: BorrowedFd<'_>, name: &Path, key: &[u8], value: &[u8]) -> Result<()> {
    let (path, c_key) = (cpath(&fd_path(dir).join(name))?, cstring(key)?);
    // SAFETY: both strings outlive the call, and the value's own length is given.
    let ret =
        unsafe { libc::lsetxattr(path.as_ptr(), c_key.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(ret, || format!("lsetxattr({name:?}, {c_key:?})")).map(drop)
}

/// The names of the extended attributes of `path`, of the link itself if it is one (llistxattr(2)).
///
/// # Errors
/// The kernel's.
pub fn attribute_names(path: &Path) -> Result<Vec<Vec<u8>>> {
    let c_path = cpath(path)?;
    let bytes = grown(|buffer| {
        // SAFETY: the path outlives the call, and the buffer is as long as said.
        unsafe { libc::llistxattr(c_path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) as i64 }
    })
    .doing(|| format!("llistxattr({path:?})"))?;
    Ok(bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The extended attribute `name` of `path`, of the link itself if it is one (lgetxattr(2)).
///
/// # Errors
/// The kernel's; `ENODATA` where it has no such.
pub fn attribute_value(path: &Path, name: &[u8]) -> Result<Vec<u8>> {
    let (c_path, c_name) = (cpath(path)?, cstring(name)?);
    grown(|buffer| {
        // SAFETY: both strings outlive the call, and the buffer is as long as said.
        unsafe {
            libc::lgetxattr(c_path.as_ptr(), c_name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) as i64
        }
    })
    .doing(|| format!("lgetxattr({path:?}, {c_name:?})"))
}

/// What a call writes into a buffer whose size nobody knows before.
fn grown(call: impl Fn(&mut [u8]) -> i64) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        let length = call(&mut buffer);
        if let Ok(length) = usize::try_from(length) {
            buffer.truncate(length);
            return Ok(buffer);
        }
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        // The kernel has none larger than 64 KiB (XATTR_SIZE_MAX, XATTR_LIST_MAX).
        if errno != libc::ERANGE || buffer.len() >= 1 << 16 {
            return Err(Error { layers: Vec::new(), errno });
        }
        buffer.resize(buffer.len() * 4, 0);
    }
}

/// Removes `name` from `dir`: a file, or with `directory` an empty directory.
///
/// # Errors
/// The kernel's.
pub fn unlinkat(dir: BorrowedFd<'_>, name: &Path, directory: bool) -> Result<()> {
    let c_name = cpath(name)?;
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: the name outlives the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), c_name.as_ptr(), flags) }, || {
        format!("unlinkat({name:?})")
    })
    .map(drop)
}

/// Sets owner and group of `name` in `dir`, of the link itself if it is one, or of `dir` when `name` is empty.
///
/// # Errors
/// The kernel's.
pub fn chownat(dir: BorrowedFd<'_>, name: &Path, uid: u32, gid: u32) -> Result<()> {
    let c_name = cpath(name)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: the name outlives the call.
    let ret = unsafe { libc::fchownat(dir.as_raw_fd(), c_name.as_ptr(), uid, gid, flags) };
    check(ret, || format!("fchownat({name:?}, {uid}, {gid})")).map(drop)
}

/// Sets the mode of `name` in `dir`, which must not be a symbolic link that others can put there.
///
/// # Errors
/// The kernel's.
pub fn chmodat(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    let c_name = cpath(name)?;
    // SAFETY: the name outlives the call.
    let ret = unsafe { libc::fchmodat(dir.as_raw_fd(), c_name.as_ptr(), mode, 0) };
    check(ret, || format!("fchmodat({name:?}, {mode:#o})")).map(drop)
}

/// What fstat(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode: the identity of the file.
    pub id: (u64, u64),
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device file.
    pub device: (u32, u32),
    /// Hard links.
    pub links: u64,
}

impl Stat {
    /// The type bits: `S_IFDIR` and so on.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Whether it is the character device `major`:`minor`.
    pub fn is_char_device(&self, major: u32, minor: u32) -> bool {
        self.kind() == libc::S_IFCHR && self.device == (major, minor)
    }
}

/// What `name` in `dir` is, or `dir` itself when `name` is empty; a symbolic link is not followed.
///
/// # Errors
/// The kernel's.
pub fn statat(dir: BorrowedFd<'_>, name: &Path) -> Result<Stat> {
    stat_with(dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH)
}

/// What `path` leads to.
///
/// # Errors
/// The kernel's.
pub fn stat(path: &Path) -> Result<Stat> {
    stat_with(libc::AT_FDCWD, path, 0)
}

fn stat_with(dir: RawFd, name: &Path, flags: i32) -> Result<Stat> {
    let c_name = cpath(name)?;
    // SAFETY: all-zero is a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: name and buffer outlive the call.
    let ret = unsafe { libc::fstatat(dir, c_name.as_ptr(), &raw mut stat, flags) };
    check(ret, || format!("fstatat({name:?})"))?;
    Ok(Stat {
        id: (stat.st_dev, stat.st_ino),
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        device: (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
        links: stat.st_nlink,
    })
}

/// What `fd` is.
///
/// # Errors
/// The kernel's.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    statat(fd, Path::new(""))
}

/// The type of the file system that `fd` is on: its magic number (fstatfs(2)).
///
/// # Errors
/// The kernel's.
pub fn filesystem(fd: BorrowedFd<'_>) -> Result<i64> {
    statfs(fd).map(|stat| stat.f_type)
}

/// The same of the file system that `path` is on (statfs(2)).
///
/// # Errors
/// The kernel's.
pub fn filesystem_at(path: &Path) -> Result<i64> {
    let name = cpath(path)?;
    // SAFETY: all-zero is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: name and buffer outlive the call.
    check(unsafe { libc::statfs(name.as_ptr(), &raw mut stat) }, || format!("statfs({path:?})"))?;
    Ok(stat.f_type)
}

/// Whether we may write `path` (faccessat(2) with `AT_EACCESS`).
pub fn is_writable(path: &Path) -> bool {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    use nix::unistd::{AccessFlags, faccessat};
    faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// The mount flags (`ST_*` of statvfs(3)) of the mount that `fd` is on.
///
/// # Errors
/// The kernel's.
pub fn mount_flags(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: all-zero is a valid statvfs.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer outlives the call.
    check(unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut stat) }, || "fstatvfs()")?;
    Ok(stat.f_flag)
}

fn statfs(fd: BorrowedFd<'_>) -> Result<libc::statfs> {
    // SAFETY: all-zero is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer outlives the call.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut stat) }, || "fstatfs()")?;
    Ok(stat)
}

/// The target of the symbolic link `name` in `dir`; of `dir`, an `O_PATH` descriptor of a link, when it is empty.
///
/// # Errors
/// The kernel's; `EINVAL` when it is no link.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &Path) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let c_name = cpath(name)?;
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer's own length is given.
    let ret = unsafe {
        libc::readlinkat(dir.as_raw_fd(), c_name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    let length = check(ret, || format!("readlinkat({name:?})"))?;
    buffer.truncate(length as usize);
    Ok(std::ffi::OsString::from_vec(buffer).into())
}

/// Makes the directory of `fd` the current one.
///
/// # Errors
/// The kernel's.
pub fn fchdir(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }, || "fchdir()").map(drop)
}

/// Makes `path` the current directory.
///
/// # Errors
/// The kernel's.
pub fn chdir(path: &Path) -> Result<()> {
    let name = cpath(path)?;
    // SAFETY: the name outlives the call.
    check(unsafe { libc::chdir(name.as_ptr()) }, || format!("chdir({path:?})")).map(drop)
}

/// Makes `path` our root directory (chroot(2)): the fallback where pivot_root(2) cannot work.
///
/// # Errors
/// The kernel's.
pub fn chroot(path: &Path) -> Result<()> {
    let name = cpath(path)?;
    // SAFETY: the name outlives the call.
    check(unsafe { libc::chroot(name.as_ptr()) }, || format!("chroot({path:?})")).map(drop)
}

/// The current directory as the kernel tells it: `(unreachable)/...` when it lies outside our root.
///
/// # Errors
/// `ENOENT` when it has been removed.
pub fn getcwd() -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer's own length is given. The raw call, for libc hides what lies outside the root.
    let length =
        check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }, || "getcwd()")?;
    buffer.truncate((length as usize).saturating_sub(1));
    Ok(std::ffi::OsString::from_vec(buffer).into())
}

/// An anonymous file in memory (memfd_create(2)) that may be sealed.
///
/// # Errors
/// The kernel's.
pub fn memfd(name: &str) -> Result<OwnedFd> {
    const MFD_EXEC: u32 = 0x10;
    let c_name = cstring(name.as_bytes())?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name outlives the call. MFD_EXEC exists since Linux 6.3, without it a file is executable anyway.
    let mut ret = unsafe { libc::memfd_create(c_name.as_ptr(), flags | MFD_EXEC) };
    if ret < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        // SAFETY: as above.
        ret = unsafe { libc::memfd_create(c_name.as_ptr(), flags) };
    }
    check(ret, || format!("memfd_create({name:?})")).map(owned)
}

/// Forbids every later change of the anonymous file `fd`.
///
/// # Errors
/// The kernel's; `EBUSY` while it is mapped for writing.
pub fn seal(fd: BorrowedFd<'_>) -> Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, || "fcntl(F_ADD_SEALS)").map(drop)
}

/// Whether we may execute the file `path`, with our effective ids (faccessat2(2)).
///
/// # Errors
/// The kernel's; `EACCES` when we may not.
pub fn access_executable(path: &Path) -> Result<()> {
    let name = cpath(path)?;
    // SAFETY: the name outlives the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, name.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    };
    check(ret, || format!("faccessat2({path:?}, X_OK)")).map(drop)
}

/// The files `name` along our `PATH` that we may execute, in its order.
pub fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).map(|directory| directory.join(name)).collect();
    places.into_iter().filter(|place| is_program(place))
}

/// Whether `path` is a file that we may execute.
pub fn is_program(path: &Path) -> bool {
    access_executable(path).is_ok() && path.is_file()
}

/// Whether the file `path` has the extended attribute `name` (getxattr(2)).
pub fn has_attribute(path: &Path, name: &std::ffi::CStr) -> bool {
    let Ok(path) = cpath(path) else { return false };
    // SAFETY: both strings outlive the call; a size of 0 writes nothing.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// The extended attribute `name` of the file `path`, a short text; none where it has no such.
pub fn attribute(path: &Path, name: &std::ffi::CStr) -> Option<String> {
    let path = cpath(path).ok()?;
    let mut bytes = [0_u8; 64];
    // SAFETY: both strings outlive the call, and the buffer is as long as said.
    let size =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    let text = bytes.get(..usize::try_from(size).ok()?)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// Takes an exclusive lock on `fd` (flock(2)).
///
/// # Errors
/// The kernel's; `EWOULDBLOCK` when it is held.
pub fn lock(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, || "flock()").map(drop)
}

/// The same, waiting for whoever has it, `limit` at most.
///
/// # Errors
/// As [`lock`].
pub fn lock_within(fd: BorrowedFd<'_>, limit: Duration) -> Result<()> {
    let until = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        match lock(fd) {
            Err(error) if error.errno == libc::EWOULDBLOCK && Instant::now() < until => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Gives the lock on `fd` back, for all who have the descriptor from where we have it.
///
/// # Errors
/// The kernel's.
pub fn unlock(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) }, || "flock(UN)").map(drop)
}

/// Reads a small file of the kernel's, such as those of `/proc` and of cgroups, or of our own: in one call where it is
/// below 4 KiB, which std's way takes six for.
///
/// # Errors
/// The kernel's; that it is not text.
pub fn read_small(path: &Path) -> Result<String> {
    let mut file = File::from(open(path, libc::O_RDONLY)?);
    // On the stack, which has been touched before: a new page for each file costs more than the reading.
    let mut part = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        let read = file.read(&mut part).doing(|| format!("read {path:?}"))?;
        bytes.extend_from_slice(&part[..read]);
        // These files give all they have at once: less than there is room for is the end.
        if read < part.len() {
            break;
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::new(format!("{path:?} is not text")))
}

/// Reads the file `path`, of `limit` bytes at most.
///
/// # Errors
/// The kernel's; that it is larger.
pub fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    read_to_end(File::open(path)?, limit)
}

/// Reads all that comes from `from`, `limit` bytes at most.
///
/// # Errors
/// The kernel's; that it is more.
pub fn read_to_end(from: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

/// A pipe, close-on-exec: the end to read and the end to write.
///
/// # Errors
/// The kernel's.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, || "pipe2()")?;
    Ok((owned(i64::from(fds[0])), owned(i64::from(fds[1]))))
}

/// The device that an ioctl or a mount would see: a directory handle on the host's procfs, checked to be one.
#[derive(Debug)]
pub struct Proc {
    dir: OwnedFd,
}

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

impl Proc {
    /// Opens `/proc` and makes sure that it is the real one (CVE-2019-16884 and its kind: a fake `/proc`
    /// swallows what is written to it).
    ///
    /// # Errors
    /// When `/proc` is not mounted or is something else.
    pub fn open() -> Result<Self> {
        let dir = open(Path::new("/proc"), libc::O_PATH | libc::O_DIRECTORY)?;
        if filesystem(dir.as_fd())? != PROC_SUPER_MAGIC {
            return Err(Error::new("/proc is not a proc file system: mount it and try again"));
        }
        Ok(Proc { dir })
    }

    /// Opens the file `path` below it, refusing links and anything mounted over it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_file(&self, path: &str, flags: i32) -> Result<File> {
        let rules = resolve::BENEATH | resolve::NO_MAGICLINKS | resolve::NO_XDEV;
        openat2(self.dir.as_fd(), Path::new(path), flags, 0, rules).map(File::from)
    }

    /// Follows the magic link `path` below it, such as `self/ns/user` or `self/fd/3`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn follow(&self, path: &str, flags: i32) -> Result<OwnedFd> {
        openat2(self.dir.as_fd(), Path::new(path), flags, 0, 0)
    }

    /// Writes `text` to the file `path` in one call.
    ///
    /// # Errors
    /// The kernel's, with the path and the text.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut file =
            self.open_file(path, libc::O_WRONLY).doing(|| format!("write {text:?} to /proc/{path}"))?;
        file.write_all(text.as_bytes()).doing(|| format!("write {text:?} to /proc/{path}"))
    }

    /// Reads the file `path`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, path: &str) -> Result<String> {
        let mut text = String::new();
        let mut file = self.open_file(path, libc::O_RDONLY)?;
        file.read_to_string(&mut text).doing(|| format!("read /proc/{path}"))?;
        Ok(text)
    }
}

/// A path of ours that names the file `fd` has open, for calls that take no descriptor.
pub fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
