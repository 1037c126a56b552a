//! What a container sees of cgroups on a host with controllers in version 1: a directory for each hierarchy in which it
//! has a cgroup of its own, as runc has it, and one for version 2.

use super::{FileSystem, Mount};
use crate::cgroup::{self, Hierarchy, v1};
use crate::sys::fs;
use crate::sys::mount as call;
use crate::{Context, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Mounts the hierarchies with these controllers, as `how` says, in new directories of `tree`. In a cgroup namespace of
/// one's own that is done by their kind, else the directories of our own cgroups are bound.
///
/// # Errors
/// The kernel's.
pub(super) fn fill(
    how: &Mount,
    tree: BorrowedFd<'_>,
    controllers: &[String],
    namespaced: bool,
) -> Result<()> {
    let text = fs::read_small(Path::new("/proc/self/cgroup"))?;
    let own = v1::paths_from_proc(&text);
    let directories = v1::directories(&own, &own);
    for names in v1::hierarchies(&text).filter(|names| names.iter().any(|name| controllers.contains(name))) {
        let Some(place) = names.first().and_then(|name| v1::mount_point(name)) else { continue };
        let Some(directory) = place.file_name().map(Path::new) else { continue };
        let mount = match directories.get(names.first().map_or("", String::as_str)) {
            Some(source) if !namespaced => call::open_tree(None, source, false)?,
            _ => new("cgroup", &names)?,
        };
        put(how, tree, directory, &mount)?;
        // Who knows a controller's name finds it where controllers share a hierarchy, too.
        for name in names.iter().map(Path::new).filter(|name| *name != directory) {
            if !name.as_os_str().as_encoded_bytes().starts_with(b"name=") {
                fs::symlinkat(directory, tree, name)?;
            }
        }
    }
    let unified = match Hierarchy::find().filter(|_| !namespaced) {
        Some(hierarchy) => {
            let own = cgroup::path_from_proc(&text).unwrap_or(Path::new("/"));
            call::open_tree(None, hierarchy.cgroup(own).dir(), false)?
        }
        None => new("cgroup2", &[])?,
    };
    put(how, tree, Path::new("unified"), &unified)
}

fn new(kind: &str, names: &[String]) -> Result<OwnedFd> {
    let unnamed = names.iter().any(|name| name.starts_with("name="));
    let data = unnamed.then(|| "none".to_owned()).into_iter().chain(names.iter().cloned()).collect();
    FileSystem { kind, source: kind, flags: 0, data }.detached(0)
}

fn put(how: &Mount, tree: BorrowedFd<'_>, name: &Path, mount: &OwnedFd) -> Result<()> {
    how.set_attributes(mount.as_fd(), how.set)?;
    fs::mkdirat(tree, name, 0o755)?;
    let target = fs::openat2(tree, name, libc::O_PATH | libc::O_DIRECTORY, 0, libc::RESOLVE_NO_SYMLINKS)?;
    call::attach(mount.as_fd(), target.as_fd()).doing(|| format!("mount {}", name.display()))?;
    how.set_propagation(mount.as_fd())
}
