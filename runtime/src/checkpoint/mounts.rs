//! Mounts that are not the container's own: CRIU does not save them, it only notes by which name they will come again.

use super::rpc::ExternalMount;
use crate::plan::{Plan, ns};
use ctr_isolation::mount::{Mount, What};
use ctr_isolation::mountinfo::Point;
use ctr_isolation::root::Root;
use ctr_isolation::rootfs::Rootfs;
use ctr_isolation::sys::fs::{self, Proc};
use ctr_isolation::sys::mount as call;
use ctr_isolation::sys::process;
use ctr_isolation::{Context, Result};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What covers a file that nobody inside may read; runc saves it by this name, too.
const NULL: &str = "/dev/null";

/// What of `inside`, the mounts of a container, is not its own, with the name that it is saved by. `at` finds the mount
/// at a path of the container, and `host` are the mounts that we see.
pub(super) fn saved(
    plan: &Plan,
    inside: &[Point],
    host: &[Point],
    at: &dyn Fn(&Path) -> Option<i32>,
) -> Vec<ExternalMount> {
    let Some(rootfs) = &plan.init.rootfs else { return Vec::new() };
    let place = |target: &Path| {
        let found = inside.iter().rev().find(|point| point.target == target);
        found.or_else(|| {
            let id = at(target)?;
            inside.iter().find(|point| point.id == id && point.target != Path::new("/"))
        })
    };
    let places = |is_meant: fn(&What) -> bool| -> Vec<&Point> {
        let meant = rootfs.mounts.iter().filter(|mount| is_meant(&mount.what));
        meant.filter_map(|mount| place(&mount.target)).collect()
    };
    let binds = places(|what| matches!(what, What::Bind { .. }));
    let own = places(|what| matches!(what, What::New { .. } | What::Cgroups { .. }));
    // What came along with a bind mount is on the host, too; what the container has mounted there is not.
    let came_along = |point: &Point| {
        binds.iter().any(|bind| point.target != bind.target && point.target.starts_with(&bind.target))
            && !own.iter().any(|own| own.id == point.id)
            && host.iter().any(|known| known.device == point.device)
    };
    let masked = |point: &Point| rootfs.masked.contains(&point.target) && point.root != Path::new("/");
    let device = |point: &Point| rootfs.devices.iter().any(|device| device.path == point.target);
    let name = |point: &Point| {
        if binds.iter().any(|bind| bind.id == point.id) || came_along(point) {
            return Some(point.target.to_string_lossy().into_owned());
        }
        match (masked(point), device(point)) {
            (true, _) => Some(NULL.to_owned()),
            (_, true) => Some(point.target.to_string_lossy().into_owned()),
            _ => None,
        }
    };
    let external = |point: &Point| {
        Some(ExternalMount { value: name(point)?, key: point.target.to_string_lossy().into_owned() })
    };
    inside.iter().filter_map(external).collect()
}

/// What is mounted in the places of [`saved`]. `resolve` tells where in the root file system a path leads.
pub(super) fn restored(
    rootfs: &Rootfs,
    host: &[Point],
    resolve: &dyn Fn(&Path) -> Option<PathBuf>,
) -> Vec<ExternalMount> {
    let mut all: Vec<(PathBuf, PathBuf)> = Vec::new();
    for mount in &rootfs.mounts {
        let What::Bind { source, recursive, .. } = &mount.what else { continue };
        let resolved = resolve(&mount.target).filter(|resolved| *resolved != mount.target);
        for target in [Some(mount.target.clone()), resolved].into_iter().flatten() {
            let below = host.iter().filter(|point| *recursive && point.target != *source);
            let below = below.filter_map(|point| point.target.strip_prefix(source).ok());
            all.extend(below.map(|rest| (target.join(rest), source.join(rest))));
            all.push((target, source.clone()));
        }
    }
    all.push((NULL.into(), NULL.into()));
    all.extend(rootfs.devices.iter().map(|device| (device.path.clone(), device.path.clone())));
    let mut mounts: Vec<ExternalMount> = Vec::new();
    for (key, value) in all {
        let (key, value) = (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned());
        if !mounts.iter().any(|known| known.key == key) {
            mounts.push(ExternalMount { key, value });
        }
    }
    mounts
}

/// Where a path leads in the root file system, before anything is mounted there.
pub(super) fn resolve(root: &Root, proc: &Proc, path: &Path) -> Option<PathBuf> {
    let found = root.resolve(path).ok()?;
    root.path_of(proc, found.as_fd()).ok()
}

/// Makes the mount points that are missing, as `create` would have: in the root file system, or in what is mounted there.
pub(super) fn make_points(rootfs: &Rootfs) -> Result<()> {
    let whole = Root::open(&rootfs.path).doing(|| format!("open the root file system {:?}", rootfs.path))?;
    for mount in &rootfs.mounts {
        let is_below =
            |other: &&Mount| other.target != mount.target && mount.target.starts_with(&other.target);
        let made =
            match rootfs.mounts.iter().filter(is_below).max_by_key(|other| other.target.as_os_str().len()) {
                Some(Mount { what: What::Bind { source, .. }, target, .. }) => {
                    let rest = mount.target.strip_prefix(target).unwrap_or(Path::new(""));
                    Root::open(source)
                        .and_then(|source| make_point(&source, &Path::new("/").join(rest), &mount.what))
                }
                // CRIU brings back what was in it, and what the kernel keeps there appears with it.
                Some(_) => continue,
                None => make_point(&whole, &mount.target, &mount.what),
            };
        made.doing(|| format!("make the mount point {:?}", mount.target))?;
    }
    Ok(())
}

fn make_point(root: &Root, path: &Path, what: &What) -> Result<()> {
    let is_dir = match what {
        What::Bind { source, .. } => fs::stat(source)?.is_dir(),
        _ => true,
    };
    if is_dir { root.ensure_dir(path) } else { root.ensure_file(path) }.map(drop)
}

/// Calls `act` in a mount namespace of its own, with the root file system mounted at `place`, and comes back. There CRIU
/// wants it: at a mount point whose parent is not covered. Whatever becomes of us, nothing stays mounted on the host.
pub(super) fn aside<T>(
    rootfs: &Rootfs,
    place: &Path,
    act: impl FnOnce() -> crate::Result<T>,
) -> crate::Result<T> {
    let ours = fs::open(Path::new("/proc/self/ns/mnt"), 0)?;
    let here = fs::open(Path::new("."), libc::O_PATH | libc::O_DIRECTORY)?;
    process::unshare(ns::MOUNT)?;
    let mounted = mount_root(rootfs, place).doing(|| format!("mount {:?} for CRIU", rootfs.path));
    let done = mounted.map_err(Into::into).and_then(|()| act());
    let back = process::setns(ours.as_fd(), ns::MOUNT).and_then(|()| fs::fchdir(here.as_fd()));
    back.doing(|| "come back into our mount namespace")?;
    done
}

fn mount_root(rootfs: &Rootfs, place: &Path) -> Result<()> {
    // What is mounted on the host later may come in; nothing goes back.
    let change = call::Change { propagation: libc::MS_SLAVE, recursive: true, ..call::Change::default() };
    call::set_root_attributes(change)?;
    let source = fs::open(&rootfs.path, libc::O_PATH | libc::O_DIRECTORY)?;
    let tree = call::open_tree(Some(source.as_fd()), Path::new(""), true)?;
    let target = fs::open(place, libc::O_PATH | libc::O_DIRECTORY)?;
    call::attach(tree.as_fd(), target.as_fd())
}
