//! Mounts, as data and as the calls that make them below a root.

mod cgroups;
pub mod copy_up;
pub mod options;

use self::options::Links;
use crate::cgroup::Hierarchy;
use crate::root::Root;
use crate::sys::fs::{self, Proc};
use crate::sys::mount::{self as call, Change, FsContext, attr};
use crate::{Context, Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// One mount inside a container, with nothing left to decide but what only the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, inside the root: absolute and clean.
    pub target: PathBuf,
    /// What.
    pub what: What,
    /// Attributes (`attr::*`) to set on the mount.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Attributes to set on the mount and all below it.
    pub set_recursive: u64,
    /// Attributes to clear on the mount and all below it.
    pub clear_recursive: u64,
    /// Propagation changes (`MS_SHARED` and so on, with or without `MS_REC`), in order.
    pub propagation: Vec<u64>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file or directory of the host.
    Bind {
        /// Where on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// The index of the detached mount that the parent has prepared, when only it may open the source.
        prepared: Option<usize>,
        /// What becomes of a source or target that is a symbolic link.
        links: Links,
    },
    /// A new file system.
    New {
        /// Its type: `tmpfs`, `proc`, ...
        kind: String,
        /// What it is mounted from, where the type has such a thing.
        source: String,
        /// Its options: `key` or `key=value`.
        data: Vec<String>,
        /// Super block flags (`MS_SYNCHRONOUS` and so on).
        flags: u64,
        /// Start a tmpfs with a copy of what its target held.
        copy_up: bool,
    },
    /// The cgroup hierarchies of version 1 that the container has a cgroup of its own in, and version 2 beside them.
    Cgroups {
        /// By their controllers.
        controllers: Vec<String>,
        /// The container has a cgroup namespace of its own.
        namespaced: bool,
    },
    /// A change of flags of what is mounted there already.
    Remount {
        /// Super block options.
        data: Vec<String>,
        /// Super block flags.
        flags: u64,
        /// Only the attributes of the mount, not of its super block.
        bind: bool,
    },
}

/// A mount that must become read-only once everything below it has been made.
pub type Later = OwnedFd;

impl Mount {
    /// Makes the mount below `root`; `prepared` are the parent's detached mounts. Returns the mount itself when it
    /// is to become read-only later.
    ///
    /// # Errors
    /// The kernel's and the file system's; a target inside `/proc` or behind a link there is refused.
    pub fn make(&self, root: &Root, proc: &Proc, prepared: &[OwnedFd]) -> Result<Option<Later>> {
        self.make_inner(root, proc, prepared)
            .map_err(|error| self.explain(error))
            .doing(|| format!("mount {self}"))
    }

    fn explain(&self, error: Error) -> Error {
        match &self.what {
            What::New { kind, .. }
                if error.errno == libc::EPERM && matches!(kind.as_str(), "proc" | "sysfs") =>
            {
                let namespace = if kind == "proc" { "PID" } else { "network" };
                error.under(format!(
                    "a user namespace may mount {kind} only with a {namespace} namespace of its own and, in a \
                     container, where none of it is masked (give the outer container no masked paths)"
                ))
            }
            _ => error,
        }
    }

    fn make_inner(&self, root: &Root, proc: &Proc, prepared: &[OwnedFd]) -> Result<Option<Later>> {
        match &self.what {
            What::Bind { source, recursive, prepared: index, links } => {
                let own;
                let tree = match index {
                    Some(index) => {
                        prepared.get(*index).ok_or_else(|| Error::new("the parent has not sent it"))?
                    }
                    None => {
                        own = open_source(source, *recursive, *links)?;
                        &own
                    }
                };
                if links.copy && fs::fstat(tree.as_fd())?.kind() == libc::S_IFLNK {
                    copy_link(root, &self.target, tree.as_fd())?;
                    return Ok(None);
                }
                let target = bind_target(root, &self.target, tree.as_fd(), *links)?;
                check_target(root, proc, target.as_fd(), Some(tree.as_fd()))?;
                self.set_attributes(tree.as_fd(), self.set)?;
                call::attach(tree.as_fd(), target.as_fd())?;
                self.set_propagation(tree.as_fd())?;
                Ok(None)
            }
            What::New { kind, .. } => match self.make_new(root, proc) {
                // In a user namespace without a cgroup namespace of its own.
                Err(error) if kind == "cgroup2" && matches!(error.errno, libc::EPERM | libc::EBUSY) => {
                    self.bind_cgroups(root, proc, error)
                }
                other => other,
            },
            What::Cgroups { controllers, namespaced } => {
                let target = new_target(root, "tmpfs", &self.target)?;
                check_target(root, proc, target.as_fd(), None)?;
                let data = vec!["mode=755".to_owned()];
                let tree = FileSystem { kind: "tmpfs", source: "tmpfs", flags: 0, data }
                    .detached(self.set & !attr::RDONLY)?;
                call::attach(tree.as_fd(), target.as_fd())?;
                cgroups::fill(self, tree.as_fd(), controllers, *namespaced)?;
                self.set_propagation(tree.as_fd())?;
                Ok((self.set & attr::RDONLY != 0).then_some(tree))
            }
            What::Remount { data, flags, bind } => {
                let target = root.resolve(&self.target)?;
                check_target(root, proc, target.as_fd(), None)?;
                if !bind && (!data.is_empty() || *flags != 0) {
                    let all = flags | libc::MS_REMOUNT | call_flags(self.set);
                    call::mount("", &fs::fd_path(target.as_fd()), "", all, &data.join(","))?;
                }
                self.set_attributes(target.as_fd(), self.set)?;
                self.set_propagation(target.as_fd())?;
                Ok(None)
            }
        }
    }

    fn make_new(&self, root: &Root, proc: &Proc) -> Result<Option<Later>> {
        let What::New { kind, source, data, flags, copy_up } = &self.what else { return Ok(None) };
        let target = new_target(root, kind, &self.target)?;
        check_target(root, proc, target.as_fd(), None)?;
        let late = kind == "tmpfs" && self.set & attr::RDONLY != 0;
        let now = if late { self.set & !attr::RDONLY } else { self.set };
        let file_system =
            FileSystem { kind, source, flags: *flags, data: with_mode(kind, data, target.as_fd())? };
        // What only the descriptor of a mount can be asked for.
        let more = late
            || *copy_up
            || self.set_recursive | self.clear_recursive != 0
            || !self.propagation.is_empty();
        if !more && file_system.mount(now, target.as_fd())? {
            return Ok(None);
        }
        let tree = file_system.detached(now)?;
        if *copy_up {
            copy_up::copy(target.as_fd(), tree.as_fd()).doing(|| "copy what the target held")?;
        }
        if self.set_recursive | self.clear_recursive != 0 {
            self.set_attributes(tree.as_fd(), 0)?;
        }
        call::attach(tree.as_fd(), target.as_fd())?;
        self.set_propagation(tree.as_fd())?;
        Ok(late.then_some(tree))
    }

    /// What of cgroup version 2 there is already, as with runc; else what kept it from being mounted anew.
    fn bind_cgroups(&self, root: &Root, proc: &Proc, error: Error) -> Result<Option<Later>> {
        let Some(hierarchy) = Hierarchy::find() else { return Err(error) };
        let target = new_target(root, "cgroup2", &self.target)?;
        check_target(root, proc, target.as_fd(), None)?;
        let tree = call::open_tree(None, hierarchy.cgroup(Path::new("/")).dir(), true)?;
        self.set_attributes(tree.as_fd(), self.set)?;
        call::attach(tree.as_fd(), target.as_fd())?;
        self.set_propagation(tree.as_fd())?;
        Ok(None)
    }

    /// Whether it takes the place of the root file system.
    pub fn covers_root(&self) -> bool {
        self.target == Path::new("/") && !matches!(self.what, What::Remount { .. })
    }

    /// What the mount is besides, in the words of its options: `ro,nosuid`; empty when nothing is set.
    pub fn attributes(&self) -> String {
        let names = |set: u64, prefix: &'static str| {
            let set = ATTRIBUTES.iter().filter(move |(bit, _)| set & bit != 0);
            set.map(move |(_, name)| format!("{prefix}{name}"))
        };
        let copied = matches!(self.what, What::New { copy_up: true, .. }).then(|| "tmpcopyup".to_owned());
        let all = names(self.set, "").chain(names(self.set_recursive, "r")).chain(copied);
        all.collect::<Vec<_>>().join(",")
    }

    fn set_attributes(&self, mount: BorrowedFd<'_>, set: u64) -> Result<()> {
        if set | self.clear != 0 {
            call::set_attributes(mount, Change { set, clear: self.clear, ..Change::default() })?;
        }
        if self.set_recursive | self.clear_recursive != 0 {
            let (set, clear) = (self.set_recursive, self.clear_recursive);
            call::set_attributes(mount, Change { set, clear, recursive: true, ..Change::default() })?;
        }
        Ok(())
    }

    fn set_propagation(&self, mount: BorrowedFd<'_>) -> Result<()> {
        for kind in &self.propagation {
            let recursive = kind & libc::MS_REC != 0;
            let propagation = kind & !libc::MS_REC;
            call::set_attributes(mount, Change { propagation, recursive, ..Change::default() })?;
        }
        Ok(())
    }
}

/// Attributes of a mount and the options that set them.
const ATTRIBUTES: &[(u64, &str)] = &[
    (attr::RDONLY, "ro"),
    (attr::NOSUID, "nosuid"),
    (attr::NODEV, "nodev"),
    (attr::NOEXEC, "noexec"),
    (attr::NOATIME, "noatime"),
    (attr::STRICTATIME, "strictatime"),
    (attr::NODIRATIME, "nodiratime"),
    (attr::NOSYMFOLLOW, "nosymfollow"),
];

/// The old flags of mount(2) for attributes of mount_setattr(2), where a call knows only the old ones.
fn call_flags(attributes: u64) -> u64 {
    let table = [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
        (attr::NOSYMFOLLOW, 256),
    ];
    let flags: u64 =
        table.iter().filter(|(attribute, _)| attributes & attribute != 0).map(|(_, flag)| flag).sum();
    flags
        | match attributes & attr::ATIME_MASK {
            attr::NOATIME => libc::MS_NOATIME,
            attr::STRICTATIME => libc::MS_STRICTATIME,
            _ => 0,
        }
}

/// A detached mount of `source`, a file or directory of the host: of a link itself where `links` say so.
///
/// # Errors
/// The kernel's.
pub fn open_source(source: &Path, recursive: bool, links: Links) -> Result<OwnedFd> {
    if links.copy || links.source_no_follow {
        let file = fs::open(source, libc::O_PATH | libc::O_NOFOLLOW)?;
        return call::open_tree(Some(file.as_fd()), Path::new(""), recursive);
    }
    call::open_tree(None, source, recursive)
}

/// The target of a bind: what is there, else a directory for a directory and an empty file for anything else.
fn bind_target(root: &Root, path: &Path, source: BorrowedFd<'_>, links: Links) -> Result<OwnedFd> {
    let made = match fs::fstat(source)?.is_dir() {
        true => root.ensure_dir(path),
        false if links.target_no_follow => root.ensure_entry(path),
        false => root.ensure_file(path),
    };
    made.doing(|| format!("make the target {path:?} in the root file system"))
}

/// Makes at `path` the same link as `source` is.
fn copy_link(root: &Root, path: &Path, source: BorrowedFd<'_>) -> Result<()> {
    let target = fs::readlinkat(source, Path::new(""))?;
    let (dir, name) = root.parent(path)?;
    match fs::symlinkat(&target, dir.as_fd(), Path::new(&name)) {
        Err(error) if error.errno == libc::EEXIST => match fs::readlinkat(dir.as_fd(), Path::new(&name)) {
            Ok(there) if there == target => Ok(()),
            _ => Err(error.under(format!("{path:?} is not that link but something else"))),
        },
        other => other,
    }
}

/// The target of a new file system. `proc` and `sysfs` only go onto real directories: what an image's link would
/// have us mount elsewhere cannot be trusted as `/proc` later (CVE-2019-19921, CVE-2023-27561).
fn new_target(root: &Root, kind: &str, path: &Path) -> Result<OwnedFd> {
    let make = || root.ensure_dir(path).doing(|| format!("make the target {path:?} in the root file system"));
    if !matches!(kind, "proc" | "sysfs") {
        return make();
    }
    let open = || root.open_with(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let target = match open() {
        Err(error) if error.errno == libc::ENOENT => make().and_then(|_| open()),
        other => other,
    };
    match target {
        Err(error) if matches!(error.errno, libc::ENOTDIR | libc::ELOOP) => Err(Error::new(format!(
            "{kind} must be mounted on an ordinary directory and {path:?} is none (a link?)"
        ))),
        other => other,
    }
}

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const PROC_ROOT_INODE: u64 = 1;

/// Files of `/proc` that may be mounted over: pure information, as lxcfs provides it. Anything else there would let
/// an image swallow what we write (CVE-2019-16884, CVE-2025-52881).
const PROC_OVERLAYS: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Refuses a target inside a proc file system, however its path was spelt. `tree` is the mount to come, when it
/// may itself be a proc file system.
fn check_target(
    root: &Root,
    proc: &Proc,
    target: BorrowedFd<'_>,
    tree: Option<BorrowedFd<'_>>,
) -> Result<()> {
    if fs::filesystem(target)? != PROC_SUPER_MAGIC || fs::fstat(target)?.id.1 == PROC_ROOT_INODE {
        return Ok(());
    }
    let path = root.path_of(proc, target)?;
    let inside = path.strip_prefix("/proc").unwrap_or(&path);
    let is_proc = |tree| fs::filesystem(tree).is_ok_and(|magic| magic == PROC_SUPER_MAGIC);
    if PROC_OVERLAYS.iter().any(|name| inside == Path::new(name)) || tree.is_some_and(is_proc) {
        return Ok(());
    }
    Err(Error::new(format!("{path:?} is inside /proc and cannot be mounted over")))
}

/// A tmpfs takes on the permissions of the directory it covers, unless told otherwise: so does runc.
fn with_mode(kind: &str, data: &[String], target: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut data = data.to_vec();
    if kind == "tmpfs" && !data.iter().any(|option| option.starts_with("mode=")) {
        data.push(format!("mode={:o}", fs::fstat(target)?.mode & 0o7777));
    }
    Ok(data)
}

/// The longest value fsconfig(2) takes.
const VALUE_MAX: usize = 255;

/// mount(2) takes less than a page of options, and cuts off the rest.
const DATA_MAX: usize = 4095;

/// A file system to be mounted.
struct FileSystem<'a> {
    kind: &'a str,
    source: &'a str,
    flags: u64,
    data: Vec<String>,
}

impl FileSystem<'_> {
    /// Whether only mount(2) takes its options.
    fn is_long(&self) -> bool {
        self.data.iter().any(|option| option.len() > VALUE_MAX && self.lowers(option).is_none())
    }

    /// The lower layers of an overlay, which can be told one by one (Linux 6.5), where their list is too long for one value.
    fn lowers<'b>(&self, option: &'b str) -> Option<std::str::Split<'b, char>> {
        let list = option.strip_prefix("lowerdir=").filter(|_| self.kind == "overlay")?;
        // There a backslash is no escape, and two colons divide other layers.
        (option.len() > VALUE_MAX && !list.contains('\\') && !list.contains("::")).then(|| list.split(':'))
    }

    /// Mounts it with one call; false when it could not be, and the other way, if there is one, tells why.
    fn mount(&self, attributes: u64, target: BorrowedFd<'_>) -> Result<bool> {
        let flags = self.flags | call_flags(attributes);
        let data = self.data.join(",");
        if data.len() > DATA_MAX {
            return Ok(false);
        }
        let result = call::mount(self.source, &fs::fd_path(target), self.kind, flags, &data);
        if self.is_long() { result.map(|()| true) } else { Ok(result.is_ok()) }
    }

    /// Makes it with a mount that is not attached: in many calls, whose errors have the file system's own words.
    fn detached(&self, attributes: u64) -> Result<OwnedFd> {
        if self.is_long() {
            return Err(Error::new(format!(
                "an option of more than {VALUE_MAX} bytes cannot go with tmpcopyup, propagation, recursive attributes \
                 or a read-only tmpfs"
            )));
        }
        let context = FsContext::open(self.kind)?;
        if !self.source.is_empty() {
            context.set("source", self.source)?;
        }
        for (flag, name) in SUPER_FLAGS {
            if self.flags & flag != 0 {
                context.flag(name)?;
            }
        }
        for option in &self.data {
            if let Some(mut lowers) = self.lowers(option) {
                lowers.try_for_each(|lower| context.set("lowerdir+", lower)).doing(|| {
                    format!("lower layers in a list of {} bytes (needs Linux 6.5)", option.len())
                })?;
                continue;
            }
            match option.split_once('=') {
                Some((key, value)) => context.set(key, value)?,
                None => context.flag(option)?,
            }
        }
        context.mount(attributes)
    }
}

/// Flags of a super block and what fsconfig(2) calls them.
const SUPER_FLAGS: &[(u64, &str)] = &[
    (libc::MS_SYNCHRONOUS, "sync"),
    (libc::MS_DIRSYNC, "dirsync"),
    (libc::MS_MANDLOCK, "mand"),
    (1 << 25, "lazytime"),
];

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = self.target.display();
        match &self.what {
            What::Bind { source, recursive, .. } => {
                write!(f, "{}bind {} on {target}", if *recursive { "r" } else { "" }, source.display())
            }
            What::New { kind, data, .. } if data.is_empty() => write!(f, "{kind} on {target}"),
            What::New { kind, data, .. } => write!(f, "{kind} on {target} ({})", data.join(",")),
            What::Cgroups { controllers, .. } => {
                write!(f, "cgroup on {target} ({}, version 2)", controllers.join(", "))
            }
            What::Remount { .. } => write!(f, "again on {target} with other flags"),
        }
    }
}

/// Makes a later mount read-only.
///
/// # Errors
/// The kernel's.
pub fn make_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    call::set_attributes(mount, Change { set: attr::RDONLY, ..Change::default() })
}
