//! From a mount namespace that is a copy of the host's to one that holds the container's root file system alone.

use crate::device::{Device, Directory};
use crate::mount::{self, Mount};
use crate::mountinfo::{self, Point};
use crate::root::Root;
use crate::sys::fs::{self, Proc};
use crate::sys::mount::{self as call, Change};
use crate::sys::process;
use crate::{Context, Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How the root is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootChange {
    /// pivot_root(2): the old root is gone.
    Pivot,
    /// Move the mount to `/` and chroot(2): for hosts whose root is an initramfs (`--no-pivot`).
    Move,
    /// chroot(2) alone: the container shares a mount namespace.
    Chroot,
}

/// The root file system to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The directory on the host.
    pub path: PathBuf,
    /// The index of the parent's detached mount of it, when only the parent may open it.
    pub prepared: Option<usize>,
    /// How the root is changed.
    pub change: RootChange,
    /// Propagation of the host's mounts into ours before anything is mounted (`MS_SLAVE | MS_REC`, ...).
    pub propagation_before: u64,
    /// Propagation of `/` at the end, where the configuration sets one.
    pub propagation_after: Option<u64>,
    /// Read-only at the end.
    pub read_only: bool,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Whether `/dev` is ours to fill: no bind mount covers it.
    pub fill_dev: bool,
    /// Device files.
    pub devices: Vec<Device>,
    /// Paths that nobody inside may read.
    pub masked: Vec<PathBuf>,
    /// Paths that nobody inside may write.
    pub read_only_paths: Vec<PathBuf>,
}

/// A root file system under construction: mounts made, root not yet changed.
#[derive(Debug)]
pub struct Built {
    /// The handle on it.
    pub root: Root,
    later: Vec<mount::Later>,
    /// The host's `/dev/null`, to mask files with: the container's cannot be trusted (CVE-2025-31133).
    null: OwnedFd,
}

impl Rootfs {
    /// Makes the mounts and devices. Runs in the new mount namespace, still with the host's root.
    ///
    /// # Errors
    /// The kernel's, with the mount or device that failed.
    pub fn build(&self, proc: &Proc, prepared: &[OwnedFd]) -> Result<Built> {
        let null = null_device()?;
        if self.change == RootChange::Chroot {
            let root =
                Root::open(&self.path).doing(|| format!("open the root file system {:?}", self.path))?;
            return Ok(Built { root, later: Vec::new(), null });
        }
        let mut root =
            self.mount_root(prepared).doing(|| format!("mount the root file system {:?}", self.path))?;
        let mut later = Vec::new();
        for mount in &self.mounts {
            later.extend(mount.make(&root, proc, prepared)?);
            if mount.covers_root() {
                // Only a path leads to what is mounted on top of what we have a handle on.
                root = Root::open(&self.path).doing(|| "open what is mounted on /")?;
            }
        }
        if self.fill_dev {
            let mask = process::umask(0);
            let mut dir = Directory::default();
            self.devices.iter().try_for_each(|device| device.make(&root, &mut dir))?;
            process::umask(mask);
            make_dev_links(&root).doing(|| "make the links in /dev")?;
        }
        Ok(Built { root, later, null })
    }

    fn mount_root(&self, prepared: &[OwnedFd]) -> Result<Root> {
        // What is unbindable could not be bound to become our root: that comes at the end.
        let before = match self.propagation_before & !libc::MS_REC {
            libc::MS_UNBINDABLE => libc::MS_PRIVATE | libc::MS_REC,
            _ => self.propagation_before,
        };
        change_propagation(None, before)?;
        let target = fs::open(&self.path, libc::O_PATH | libc::O_DIRECTORY)?;
        if self.propagation_before & libc::MS_SHARED != 0 {
            // pivot_root(2) refuses a root whose parent mount is shared.
            make_parent_private(&self.path)?;
        }
        let tree = match self.prepared {
            Some(index) => {
                let tree = prepared.get(index).ok_or_else(|| Error::new("the parent has not sent it"))?;
                tree.try_clone().doing(|| "keep the mount open")?
            }
            None => call::open_tree(Some(target.as_fd()), Path::new(""), true)?,
        };
        call::attach(tree.as_fd(), target.as_fd())?;
        // `target` still means what the mount covers.
        Ok(Root::new(tree))
    }
}

impl Built {
    /// Makes it the root, with masks and read-only parts, and nothing left of the host's.
    ///
    /// # Errors
    /// The kernel's, with the path that failed.
    pub fn enter(self, plan: &Rootfs) -> Result<()> {
        self.restrict(plan)?;
        fs::fchdir(self.root.dir())?;
        match plan.change {
            RootChange::Pivot => pivot().doing(|| format!("change the root to {:?}", plan.path))?,
            RootChange::Move => move_root(&plan.path)?,
            RootChange::Chroot => fs::chroot(Path::new("."))?,
        }
        fs::chdir(Path::new("/"))?;
        match plan.propagation_after {
            Some(kind) => change_propagation(None, kind).doing(|| "set the propagation of /"),
            None => Ok(()),
        }
    }

    /// Makes the directory `path` in it, where that is missing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        self.root.ensure_dir(path).map(drop)
    }

    /// Read-only parts and masks: while the host's `/dev/null`, which covers files, can still be cloned.
    fn restrict(&self, plan: &Rootfs) -> Result<()> {
        for path in &plan.read_only_paths {
            make_path_read_only(&self.root, path).doing(|| format!("make {path:?} read-only"))?;
        }
        for path in &plan.masked {
            mask(&self.root, path, self.null.as_fd()).doing(|| format!("mask {path:?}"))?;
        }
        for mount in &self.later {
            mount::make_read_only(mount.as_fd())?;
        }
        if plan.read_only {
            mount::make_read_only(self.root.dir()).doing(|| "make / read-only")?;
        }
        Ok(())
    }
}

/// Of `mount`, or of our root.
fn change_propagation(mount: Option<BorrowedFd<'_>>, kind: u64) -> Result<()> {
    let recursive = kind & libc::MS_REC != 0;
    let change = Change { propagation: kind & !libc::MS_REC, recursive, ..Change::default() };
    match mount {
        Some(mount) => call::set_attributes(mount, change),
        None => call::set_root_attributes(change),
    }
}

/// Makes the mount that holds `path` private: the nearest ancestor that is the root of a mount.
fn make_parent_private(path: &Path) -> Result<()> {
    for ancestor in path.ancestors() {
        let dir = fs::open(ancestor, libc::O_PATH | libc::O_DIRECTORY)?;
        match change_propagation(Some(dir.as_fd()), libc::MS_PRIVATE) {
            // Not the root of a mount: look further up.
            Err(error) if error.errno == libc::EINVAL => {}
            other => return other,
        }
    }
    Ok(())
}

/// pivot_root(2) with both roots in one place: the old one ends up on top of the new and is detached from there.
fn pivot() -> Result<()> {
    let old = fs::open(Path::new("/"), libc::O_PATH | libc::O_DIRECTORY)?;
    call::pivot_root_here()?;
    fs::fchdir(old.as_fd())?;
    // As slave, what we unmount here is not unmounted on the host.
    change_propagation(Some(old.as_fd()), libc::MS_SLAVE | libc::MS_REC)?;
    call::detach(Path::new("."))
}

/// The way without pivot_root(2): the mount is moved over `/`. What it covers stays mounted underneath.
///
/// It could still be reached, were a new `/proc` or `/sys` to be mounted in a user namespace inside: the kernel allows
/// that as long as one is wholly visible somewhere, however much the container's own are masked. So the host's go.
fn move_root(path: &Path) -> Result<()> {
    let is_whole =
        |point: &Point| matches!(point.kind.as_str(), "proc" | "sysfs") && point.root == Path::new("/");
    let (here, all) = (fs::getcwd()?, mountinfo::points("self")?);
    let is_outside = |point: &Point| !point.target.starts_with(&here);
    for Point { target, .. } in all.into_iter().filter(|point| is_whole(point) && is_outside(point)) {
        let doing = || format!("unmount the host's {}", target.display());
        let mount = match fs::open(&target, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW) {
            Ok(mount) => mount,
            // Below another that went before it.
            Err(error) if error.errno == libc::ENOENT => continue,
            Err(error) => return Err(error).doing(doing),
        };
        match change_propagation(Some(mount.as_fd()), libc::MS_SLAVE | libc::MS_REC) {
            // It is no mount any more.
            Err(error) if error.errno == libc::EINVAL => continue,
            other => other.doing(doing)?,
        }
        match call::detach(&target) {
            // In a user namespace it is locked: then it is covered.
            Err(error) if matches!(error.errno, libc::EINVAL | libc::EPERM) => {
                call::mount("tmpfs", &target, "tmpfs", 0, "mode=0").doing(doing)?;
            }
            other => other.doing(doing)?,
        }
    }
    call::mount(".", Path::new("/"), "", libc::MS_MOVE, "").doing(|| format!("move {path:?} to /"))?;
    fs::chroot(Path::new("."))
}

/// The host's null device, made sure to be it.
fn null_device() -> Result<OwnedFd> {
    let null = fs::open(Path::new("/dev/null"), libc::O_PATH | libc::O_NOFOLLOW)?;
    if fs::fstat(null.as_fd())?.is_char_device(1, 3) {
        Ok(null)
    } else {
        Err(Error::new("the host's /dev/null is not the null device"))
    }
}

/// The links that every container's `/dev` has (runtime-spec config-linux.md, "Default Filesystems" and "Devices").
fn make_dev_links(root: &Root) -> Result<()> {
    let dev = root.ensure_dir(Path::new("/dev"))?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        link(dev.as_fd(), name, target)?;
    }
    if root.resolve(Path::new("/proc/kcore")).is_ok() {
        link(dev.as_fd(), "core", "/proc/kcore")?;
    }
    replace_with_link(dev.as_fd(), "ptmx", "pts/ptmx")
}

fn link(dir: BorrowedFd<'_>, name: &str, target: &str) -> Result<()> {
    match fs::symlinkat(Path::new(target), dir, Path::new(name)) {
        Err(error) if error.errno != libc::EEXIST => Err(error),
        _ => Ok(()),
    }
}

fn replace_with_link(dir: BorrowedFd<'_>, name: &str, target: &str) -> Result<()> {
    match fs::unlinkat(dir, Path::new(name), false) {
        Err(error) if error.errno != libc::ENOENT => return Err(error),
        _ => {}
    }
    link(dir, name, target)
}

/// What is absent cannot be read or written: nothing to do. So also where we may not even look.
fn find(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match root.resolve(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR | libc::EACCES) => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_path_read_only(root: &Root, path: &Path) -> Result<()> {
    let Some(found) = find(root, path)? else { return Ok(()) };
    let tree = call::open_tree(Some(found.as_fd()), Path::new(""), true)?;
    mount::make_read_only(tree.as_fd())?;
    call::attach(tree.as_fd(), found.as_fd())
}

/// Covers a file with the null device and a directory with an empty read-only tmpfs.
fn mask(root: &Root, path: &Path, null: BorrowedFd<'_>) -> Result<()> {
    const FLAGS: u64 = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let Some(found) = find(root, path)? else { return Ok(()) };
    if !fs::fstat(found.as_fd())?.is_dir() {
        return call::bind(null, found.as_fd());
    }
    call::mount("tmpfs", &fs::fd_path(found.as_fd()), "tmpfs", FLAGS, "mode=0755,nr_blocks=1,nr_inodes=1")
}
