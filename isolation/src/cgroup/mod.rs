//! Control groups, version 2 (cgroups(7), the kernel's cgroup-v2.rst), and controllers that are still in version 1.

pub mod devices;
pub mod limit;
pub mod stat;
pub mod systemd;
pub mod v1;

use crate::sys::bpf;
use crate::sys::fs;
use crate::sys::process;
use crate::{Context, Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Where the version 2 hierarchy is mounted on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mount point.
    pub mount: PathBuf,
    /// It is the only hierarchy: all controllers are here. Otherwise (hybrid) version 1 has the controllers.
    pub unified: bool,
}

impl Hierarchy {
    /// Finds it; `None` on a host with version 1 alone.
    pub fn find() -> Option<Self> {
        [("/sys/fs/cgroup", true), ("/sys/fs/cgroup/unified", false)].into_iter().find_map(
            |(mount, unified)| {
                let found =
                    fs::filesystem_at(Path::new(mount)).is_ok_and(|magic| magic == CGROUP2_SUPER_MAGIC);
                found.then(|| Hierarchy { mount: mount.into(), unified })
            },
        )
    }

    /// The cgroup `path`, which begins at the mount point.
    pub fn cgroup(&self, path: &Path) -> Cgroup {
        let inside = path.strip_prefix("/").unwrap_or(path);
        Cgroup { dir: self.mount.join(inside), mount: self.mount.clone(), old: v1::Paths::new() }
    }
}

/// The path in the version 2 hierarchy that the text of `/proc/PID/cgroup` names.
pub fn path_from_proc(text: &str) -> Option<&Path> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

/// A cgroup, by its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    dir: PathBuf,
    mount: PathBuf,
    /// The directories of those that are one with it in hierarchies of version 1, by controller.
    old: v1::Paths,
}

impl Cgroup {
    /// The cgroup whose directory is `dir`, made before.
    pub fn at(dir: &Path) -> Self {
        Cgroup { dir: dir.to_owned(), mount: dir.to_owned(), old: v1::Paths::new() }
    }

    /// The same, for some controllers with a directory in version 1.
    #[must_use]
    pub fn with_v1(self, old: v1::Paths) -> Self {
        Cgroup { old, ..self }
    }

    /// Its directories in version 1, by controller.
    pub fn v1(&self) -> &v1::Paths {
        &self.old
    }

    /// Its directories in version 1, each once.
    fn old_dirs(&self) -> impl Iterator<Item = &PathBuf> {
        let first = |(at, dir): &(usize, &PathBuf)| !self.old.values().take(*at).any(|before| before == *dir);
        self.old.values().enumerate().filter(first).map(|(_, dir)| dir)
    }

    /// The directory in version 1 that has to do with `file`. Pressure is told by version 2 alone.
    fn old_dir(&self, file: &str) -> Option<&PathBuf> {
        if self.old.is_empty() || file.ends_with(".pressure") {
            return None;
        }
        self.old.get(v1::controller_of(file))
    }

    /// Where `file` is.
    pub(crate) fn path_of(&self, file: &str) -> PathBuf {
        self.old_dir(file).unwrap_or(&self.dir).join(file)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes it, its parents included, and enables in them every controller they have. One that is to be `new` must not
    /// be there already.
    ///
    /// # Errors
    /// The kernel's; `EACCES` where the cgroup above is not delegated to us.
    pub fn create(&self, new: bool) -> Result<()> {
        let inside = self.dir.strip_prefix(&self.mount).unwrap_or(&self.dir);
        let mut parent = self.mount.clone();
        for part in inside {
            enable_controllers(&parent)?;
            parent.push(part);
            match std::fs::create_dir(&parent) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists || new && parent == self.dir => {
                    return Err(error).doing(|| format!("make cgroup {}", parent.display()));
                }
                Err(_) if parent == self.dir && !self.exists() => {
                    let error = Error::call(format!("mkdir({parent:?})"), libc::ENOTDIR);
                    return Err(error.under(format!("make cgroup {}", parent.display())));
                }
                _ => {}
            }
        }
        self.create_v1()
    }

    /// Makes what of it is in version 1.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create_v1(&self) -> Result<()> {
        self.old.iter().try_for_each(|(controller, dir)| v1::create(controller, dir))
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// Opens it, to be cloned into or for a device filter.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self) -> Result<OwnedFd> {
        fs::open(&self.dir, libc::O_RDONLY | libc::O_DIRECTORY)
            .doing(|| format!("open cgroup {}", self.dir.display()))
    }

    /// Writes `value` to the file `file` in one call, as the kernel wants it.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when the controller of the file is not enabled here.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path_of(file);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .doing(|| format!("write {value:?} to {}", path.display()))
    }

    /// Reads the file `file`. Of a controller that is in version 1 it is told as version 2 would.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, file: &str) -> Result<String> {
        match self.old_dir(file) {
            Some(dir) => v1::read(self, dir, file),
            None => fs::read_small(&self.dir.join(file)),
        }
    }

    /// The controllers it has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn controllers(&self) -> Result<Vec<String>> {
        Ok(self.read("cgroup.controllers")?.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether we may make cgroups in it and hand controllers down to them.
    pub fn is_delegated(&self) -> bool {
        let files =
            [self.dir.clone(), self.dir.join("cgroup.procs"), self.dir.join("cgroup.subtree_control")];
        files.iter().all(|path| fs::is_writable(path))
    }

    /// Whether it has processes of its own, and so can hand no controller down: "no internal processes", which holds for
    /// all but the root of all cgroups.
    pub fn is_full(&self) -> bool {
        self.dir.join("cgroup.type").exists() && self.read("cgroup.procs").is_ok_and(|pids| !pids.is_empty())
    }

    /// Moves the processes in it, which are its caller's, into the cgroup `name` below, so that it can hand controllers
    /// down.
    ///
    /// # Errors
    /// The kernel's, or that ever more processes come.
    pub fn make_room(&self, name: &str) -> Result<()> {
        let leaf = Cgroup::at(&self.dir.join(name));
        match std::fs::create_dir(&leaf.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).doing(|| format!("make cgroup {}", leaf.dir.display()));
            }
            _ => {}
        }
        // What a process makes meanwhile is where that was.
        for _ in 0..16 {
            let pids = self.read("cgroup.procs")?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids.lines().filter_map(|line| line.parse().ok()) {
                match leaf.add(pid) {
                    Err(error) if error.errno != libc::ESRCH => return Err(error),
                    _ => {}
                }
            }
        }
        Err(Error::new(format!("{} does not become empty", self.dir.display())))
    }

    /// Puts the process `pid` into it.
    ///
    /// # Errors
    /// The kernel's; `EBUSY` when it has children with controllers.
    pub fn add(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Puts the process `pid` into what of it is in version 1: nothing is cloned into that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_v1(&self, pid: i32) -> Result<()> {
        self.old_dirs().try_for_each(|dir| v1::add(dir, pid))
    }

    /// The processes in it and in the cgroups below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids: Vec<i32> =
            self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect();
        for child in self.children() {
            // A child may be removed while we look.
            pids.extend(child.processes().unwrap_or_default());
        }
        Ok(pids)
    }

    /// Whether it is frozen, by its own wish.
    pub fn is_frozen(&self) -> bool {
        self.read("cgroup.freeze").is_ok_and(|text| text.trim() == "1")
    }

    /// The cgroup by whose wish it is frozen: itself or one above.
    pub fn frozen_by(&self) -> Option<Cgroup> {
        let own = self.is_frozen().then(|| self.clone());
        own.or_else(|| self.ancestors().find(Cgroup::is_frozen))
    }

    /// Freezes it and all below, and waits until every process in it has stopped; `timeout` at most.
    ///
    /// # Errors
    /// The kernel's, or when a process does not stop in time (it is thawed again then).
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        let until = Instant::now() + timeout;
        while !self.has_event("frozen 1")? {
            if Instant::now() > until {
                self.thaw()?;
                return Err(Error::new(format!(
                    "a process did not stop within {} s: it is in an uninterruptible call",
                    timeout.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Lets it run again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")
    }

    fn has_event(&self, line: &str) -> Result<bool> {
        Ok(self.read("cgroup.events")?.lines().any(|found| found == line))
    }

    /// Kills every process in it and below (`cgroup.kill`, since Linux 5.14), frozen or not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Sends `signal` to every process in it and below.
    ///
    /// # Errors
    /// The kernel's; a process that ends meanwhile is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL && self.kill().is_ok() {
            return Ok(());
        }
        for pid in self.processes()? {
            match process::kill(pid, signal) {
                Err(error) if error.errno != libc::ESRCH => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes it if nothing is in it, neither processes nor cgroups; true when it is gone.
    pub fn remove_empty(&self) -> bool {
        // Of a read-only file system the kernel says so first, even where nothing is.
        let stays = |dir: &&PathBuf| std::fs::remove_dir(dir).is_err() && dir.is_dir();
        std::iter::once(&self.dir).chain(self.old_dirs()).filter(stays).count() == 0
    }

    /// Removes it and the cgroups below, whose processes must have ended; waits for the last to go, `timeout` at most.
    ///
    /// # Errors
    /// `EBUSY` when a process is still there.
    pub fn remove(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        std::iter::once(&self.dir)
            .chain(self.old_dirs())
            .try_for_each(|dir| Cgroup::at(dir).remove_until(until))
    }

    fn remove_until(&self, until: Instant) -> Result<()> {
        loop {
            match self.remove_once() {
                Ok(()) => return Ok(()),
                Err(_) if !self.exists() => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error).doing(|| format!("remove cgroup {}", self.dir.display())),
            }
        }
    }

    fn remove_once(&self) -> std::io::Result<()> {
        match std::fs::remove_dir(&self.dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                for child in self.children() {
                    child.remove_once()?;
                }
                std::fs::remove_dir(&self.dir)
            }
            other => other,
        }
    }

    fn children(&self) -> Vec<Cgroup> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| Cgroup::at(&entry.path()))
            .collect()
    }

    /// Puts a device filter (one eBPF instruction in each u64) on it, in place of what was there.
    ///
    /// # Errors
    /// `EPERM` without privilege in the initial user namespace.
    pub fn set_device_filter(&self, program: &[u64], replace: bool) -> Result<()> {
        Self::filter_devices(self.open()?.as_fd(), program, replace)
    }

    /// The same with the cgroup's directory at hand.
    ///
    /// # Errors
    /// As [`Cgroup::set_device_filter`].
    pub fn filter_devices(dir: BorrowedFd<'_>, program: &[u64], replace: bool) -> Result<()> {
        let filter = bpf::load_device_filter(program)?;
        let old = if replace { bpf::device_filters(dir)? } else { Vec::new() };
        bpf::attach_device_filter(dir, filter.as_fd())?;
        old.iter().try_for_each(|old| bpf::detach_device_filter(dir, old.as_fd()))
    }
}

/// Enables in the cgroup `dir`, for its children, every controller it has. What cannot be enabled is left: a limit
/// that then lacks its file is an error of its own.
fn enable_controllers(dir: &Path) -> Result<()> {
    let read = |file| fs::read_small(&dir.join(file));
    let available = read("cgroup.controllers")?;
    if available.trim().is_empty() {
        return Ok(());
    }
    let enabled = read("cgroup.subtree_control")?;
    let mut missing = available
        .split_whitespace()
        .filter(|name| !enabled.split_whitespace().any(|on| on == *name))
        .peekable();
    // With processes in it, those it could enable would make of its children threaded ones, which take no process
    // (only the root of all, which has no type, is free of that).
    let is_full = || Cgroup::at(dir).is_full();
    if missing.peek().is_none() || is_full() {
        return Ok(());
    }
    for name in missing {
        if let Err(error) = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{name}")) {
            tracing::debug!("enable controller {name} below {}: {error}", dir.display());
        }
    }
    Ok(())
}
