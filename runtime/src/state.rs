//! What is kept of a container on disk: one directory each, private to its owner.
//!
//! `state.json` names every resource of the host that the container holds, and each is written there before it is
//! made, so that whatever is killed at whatever moment, `delete` knows what to undo. Whether a container runs is
//! never stored: it is observed.

use crate::death::Level;
use crate::error::{Error, Result};
use crate::plan::Unit;
use crate::stuck;
use ctr_isolation::cgroup::{Cgroup, v1};
use ctr_isolation::sys::fs;
use ctr_isolation::{Context, root};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a call may wait for another that changes the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The version of the record; a newer one is refused, an older one is understood.
pub const RECORD_VERSION: u32 = 1;

/// What a container is doing (runtime-spec runtime.md, "State", and `paused`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made, its program not started.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The record of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u32,
    /// Name.
    pub id: String,
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system's directory.
    pub rootfs: PathBuf,
    /// When it was made: seconds and nanoseconds since 1970.
    pub created: (u64, u32),
    /// The user who made it.
    pub owner: u32,
    /// Its first process, 0 before that exists.
    pub pid: i32,
    /// When that process started, in clock ticks since boot: a pid alone may be another's by now.
    pub start_time: u64,
    /// Its cgroup's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// The directories of those that are one with it in version 1, by controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroup_v1: v1::Paths,
    /// Its systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The slice of that, where it is the container's own: it is stopped with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// The unit is one of the user's own systemd.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_unit: bool,
    /// Its group under `resctrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<PathBuf>,
    /// Directories that belong to it alone and go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owned: Vec<PathBuf>,
    /// It has a PID namespace of its own, whose processes all end with its first one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_pids: bool,
    /// Its configuration has `poststart` or `poststop` hooks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub post_hooks: bool,
    /// A process of it was given `CAP_SYS_PTRACE`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub traced: bool,
    /// It was restored from a checkpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// The supervisor's process, where there is one, and when that started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<(i32, u64)>,
    /// Where its limit of memory is small: what was held when all was there but its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_program: Option<u64>,
    /// What the cgroups above its own had counted when it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<Level>,
    /// Annotations of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The state that `state` prints and hooks read (runtime-spec runtime.md, "State").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// Version of the specification.
    pub oci_version: String,
    /// Name.
    pub id: String,
    /// What it is doing.
    pub status: Status,
    /// Its first process, 0 when there is none.
    pub pid: i32,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Annotations of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl OciState {
    /// From the JSON of [`OciState::to_json`].
    pub fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Record::default().oci(Status::Creating, 0))
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Record {
    /// Its cgroup, where it has one.
    pub fn own_cgroup(&self) -> Option<Cgroup> {
        self.cgroup.as_deref().map(|dir| Cgroup::at(dir).with_v1(self.cgroup_v1.clone()))
    }

    /// Names the cgroup, or the unit that it will be in, before it is made.
    pub(crate) fn name_cgroup(&mut self, cgroup: Option<&Cgroup>, unit: Option<&Unit>) {
        self.unit = unit.map(|unit| unit.name.clone());
        self.slice = unit.filter(|unit| unit.own_slice).map(|unit| unit.slice.clone());
        self.user_unit = unit.is_some_and(|unit| unit.user);
        self.cgroup = cgroup.map(|cgroup| cgroup.dir().to_owned());
        self.cgroup_v1 = cgroup.map(|cgroup| cgroup.v1().clone()).unwrap_or_default();
    }

    /// Forgets the cgroup: it was not made, or is gone, and may become another's.
    pub(crate) fn forget_cgroup(&mut self) {
        (self.cgroup, self.cgroup_v1) = Default::default();
    }

    /// The state to be told, with `status` and, while there is a process, `pid`.
    pub fn oci(&self, status: Status, pid: i32) -> OciState {
        OciState {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid,
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// It was seen to be ours alone, which then nobody else can change.
    checked: OnceCell<()>,
}

/// Files in a container's directory.
pub mod file {
    /// The record.
    pub const STATE: &str = "state.json";
    /// The configuration as it was at `create`.
    pub const CONFIG: &str = "config.json";
    /// The limits since the last `update`, where there was one.
    pub const RESOURCES: &str = "resources.json";
    /// Where `start` connects, once the container is created.
    pub const START: &str = "start";
    /// The same while it is being made.
    pub const START_NEW: &str = "start.new";
    /// The directory with its socket for sd_notify(3), where its maker has one.
    pub const NOTIFY: &str = "notify";
    /// The signals that we sent it, a line each.
    pub const SIGNALS: &str = "signals";
    /// The CRIU that saves it: its pid and when it started.
    pub const CRIU: &str = "criu";
    /// Its end has been written down.
    pub const NOTED: &str = "noted";
}

impl Store {
    /// The store in `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Store { dir: dir.into(), checked: OnceCell::new() }
    }

    /// The directory of the container `id`.
    pub fn dir_of(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Makes the directory of a new container. The mkdir is the lock: only one caller can win it.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of that name.
    pub fn reserve(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        self.check_owner()?;
        let dir = self.dir_of(id);
        let mut result = private_dir().create(&dir);
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.create()?;
            result = private_dir().create(&dir);
        }
        match result {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::Exists(id.into())),
            Err(error) => Err(error).doing(|| format!("make {}", dir.display())).map_err(Error::from),
            Ok(()) => Ok(Entry { dir }),
        }
    }

    /// The same, with directories that belong to the container alone, to be made only now: whatever becomes of us,
    /// they go with it.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of that name.
    pub fn reserve_with(&self, id: &str, owned: Vec<PathBuf>) -> Result<Entry> {
        let entry = self.reserve(id)?;
        let (owner, _) = ctr_isolation::sys::process::effective_ids();
        let record = Record {
            version: RECORD_VERSION,
            id: id.into(),
            created: now(),
            owner,
            owned,
            ..Record::default()
        };
        entry.begin()?.note(&record)?;
        Ok(entry)
    }

    fn create(&self) -> Result<()> {
        private_dir()
            .recursive(true)
            .create(&self.dir)
            .doing(|| format!("make the state directory {}", self.dir.display()))?;
        self.check_owner()
    }

    /// In `/tmp`, where an ordinary user without a session keeps it, anybody may have made it first; and whoever can
    /// write there can have us remove and kill what its records name.
    fn check_owner(&self) -> Result<()> {
        if self.checked.get().is_some() {
            return Ok(());
        }
        let meta = match std::fs::symlink_metadata(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.doing(|| format!("look at {}", self.dir.display()))?,
        };
        let uid = ctr_isolation::sys::process::effective_uid();
        if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o022 != 0 {
            return Err(Error::text(format!(
                "{} is not a directory that only we can write: remove it or choose another with --root",
                self.dir.display()
            )));
        }
        self.checked.get_or_init(|| ());
        Ok(())
    }

    /// The entry of the container `id`, if there is one.
    ///
    /// # Errors
    /// When it is no name, or others can write the store.
    pub fn open(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        self.check_owner()?;
        // Whether it is there, the reading of its record will tell.
        Ok(Entry { dir: self.dir_of(id) })
    }

    /// The names of all containers, sorted.
    ///
    /// # Errors
    /// The kernel's; a store that does not exist is empty.
    pub fn list(&self) -> Result<Vec<String>> {
        self.check_owner()?;
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(|| format!("read {}", self.dir.display()))?,
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The process that has a lock (flock(2)) on the file of that inode, as /proc/locks names it:
/// `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`. Those of other PID namespaces are not there.
fn lock_holder(inode: u64) -> Option<i32> {
    let text = std::fs::read_to_string("/proc/locks").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let pid = words.nth(4)?.parse().ok()?;
        let (_, found) = words.next()?.rsplit_once(':')?;
        (line.contains("FLOCK") && !line.contains("->") && found.parse() == Ok(inode)).then_some(pid)
    })
}

fn private_dir() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Refuses names that are none: they become parts of paths.
///
/// # Errors
/// When the name is empty, `.`, `..`, longer than 1024 bytes or has a character outside `[a-zA-Z0-9_+.-]`.
pub fn check_id(id: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(fits) {
        return Err(Error::text(format!("invalid container ID {id:?}: use letters, digits and _ + . -")));
    }
    Ok(())
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Entry {
    dir: PathBuf,
}

impl Entry {
    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state directory that it is in.
    pub fn root(&self) -> PathBuf {
        self.dir.parent().unwrap_or(&self.dir).to_owned()
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes the lock of the container, waiting for whoever has it; it is given back when dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the container went away meanwhile; who has it, when that one does not come to an end.
    pub fn lock(&self) -> Result<OwnedFd> {
        self.lock_within(LOCK_TIMEOUT)
    }

    fn lock_within(&self, limit: Duration) -> Result<OwnedFd> {
        let dir = fs::open(&self.dir, fs::O_DIRECTORY).map_err(|_| self.gone())?;
        match fs::lock_within(dir.as_fd(), limit) {
            Err(error) if error.errno == libc::EWOULDBLOCK => {
                let holder = fs::fstat(dir.as_fd()).ok().and_then(|stat| lock_holder(stat.id.1));
                let who = holder.map_or_else(
                    || "another process".to_owned(),
                    |pid| format!("process {pid}, which goes on: {}", stuck::reason(&[pid])),
                );
                return Err(Error::text(format!(
                    "container {:?} has been in the hands of another call for {} s: its lock is held by {who}",
                    self.name(),
                    limit.as_secs()
                )));
            }
            other => other?,
        }
        // Removed while we waited, and perhaps made anew.
        let here = fs::fstat(dir.as_fd())?.id;
        let is_here = fs::stat(&self.dir).is_ok_and(|there| there.id == here);
        if is_here { Ok(dir) } else { Err(self.gone()) }
    }

    fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn gone(&self) -> Error {
        Error::NotFound(self.name())
    }

    /// Whether there is a record that cannot be read, and not only none yet.
    pub fn is_torn(&self) -> bool {
        let has_text = std::fs::metadata(self.path(file::STATE)).is_ok_and(|meta| meta.len() > 0);
        has_text && matches!(self.record(), Ok(None))
    }

    pub(crate) fn torn(&self) -> Error {
        Error::text(format!(
            "the record of container {0:?}, {1}, is torn, so nothing is known of it: `delete --force {0}` removes what there \
             is, and says what may be left",
            self.name(),
            self.path(file::STATE).display()
        ))
    }

    /// What a torn record still tells of a container that runs: a process, and a cgroup of the container's name with that
    /// process in it.
    pub(crate) fn rescued(&self) -> Option<Record> {
        let text = self.torn_text();
        let pid: i32 = value_in(&text, "pid")?.parse().ok()?;
        let (start_time, _) = start_time(pid)?;
        let cgroup = PathBuf::from(value_in(&text, "cgroup")?);
        let is_its_own = cgroup.file_name()?.to_string_lossy().contains(&self.name());
        let holds_it = is_its_own && Cgroup::at(&cgroup).processes().is_ok_and(|pids| pids.contains(&pid));
        holds_it.then(|| Record {
            id: self.name(),
            pid,
            start_time,
            cgroup: Some(cgroup),
            ..Record::default()
        })
    }

    fn torn_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(file::STATE)).unwrap_or_default()).into_owned()
    }

    /// Tells what can be told of a container whose record cannot be read, before its directory goes.
    pub(crate) fn warn_of_torn(&self, rescued: Option<&Record>) {
        let text = self.torn_text();
        if let Some(Record { pid, cgroup: Some(cgroup), .. }) = rescued {
            tracing::warn!(
                "the record of container {:?} is torn: of what it had, the processes of the cgroup {} are ended, the process \
                 {pid} among them, and that cgroup and the directory removed",
                self.name(),
                cgroup.display()
            );
            return;
        }
        if text.is_empty() && !self.path(file::CONFIG).exists() {
            // Whoever was making it came no further.
            return;
        }
        let named = |key: &str| {
            value_in(&text, key).map(|value| format!("; it names the {key} {value}")).unwrap_or_default()
        };
        tracing::warn!(
            "the record of container {:?} is torn, so only its directory is removed: processes and a cgroup that it may have \
             had are left{}{}",
            self.name(),
            named("pid"),
            named("cgroup")
        );
    }

    /// The record; `None` when it was never written or only half.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the container is gone; a record of a newer `ctr` is refused.
    pub fn record(&self) -> Result<Option<Record>> {
        let text = match fs::read_small(&self.path(file::STATE)) {
            Err(error) if error.errno == libc::ENOENT => {
                return if self.dir.is_dir() { Ok(None) } else { Err(self.gone()) };
            }
            // Not text: torn.
            Err(error) if error.errno == 0 => return Ok(None),
            other => other?,
        };
        // Each line takes the place of those before it; the last one may be torn.
        let parse = |line: &str| serde_json::from_str::<Record>(line).ok();
        let Some(record) = text.lines().rev().find_map(parse) else { return Ok(None) };
        if record.version > RECORD_VERSION {
            return Err(Error::text(format!(
                "{} was written by a newer ctr (record version {}, ours is {RECORD_VERSION}): use that one",
                self.path(file::STATE).display(),
                record.version
            )));
        }
        Ok(Some(record))
    }

    /// Begins the record of a new container, or goes on with that of one reserved, by [`Recording::note`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin(&self) -> Result<Recording> {
        let path = self.path(file::STATE);
        let mut options = File::options();
        let file = options.append(true).create(true).mode(0o600).open(&path);
        Ok(Recording { file: file.doing(|| format!("make {}", path.display()))? })
    }

    /// Writes the record in place of the old one, all or nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.write_file(file::STATE, line(record)?.as_bytes())
    }

    /// Writes the file `name` in place of the old one, all or nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        replace(&path, bytes).doing(|| format!("write {}", path.display()))?;
        Ok(())
    }

    /// Removes every file but the record, which becomes that of a container yet to be made, as `record` says.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&self, record: &Record) -> Result<()> {
        let Record { id, owner, owned, .. } = record.clone();
        let new = Record { version: RECORD_VERSION, id, created: now(), owner, owned, ..Record::default() };
        self.write(&new)?;
        for name in
            std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.file_name())
        {
            if name != file::STATE {
                let path = self.dir.join(&name);
                std::fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Removes the directory and all in it.
    ///
    /// # Errors
    /// The kernel's; that it is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        // Most have no more than these.
        for name in [file::STATE, file::CONFIG, file::SIGNALS, file::NOTED] {
            let _ = std::fs::remove_file(self.path(name));
        }
        if std::fs::remove_dir(&self.dir).is_ok() {
            return Ok(());
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).doing(|| format!("remove {}", self.dir.display())).map_err(Error::from)
            }
            _ => Ok(()),
        }
    }
}

/// The record of a container in the making. A line is added for each change: one call, and torn at worst at its end.
#[derive(Debug)]
pub struct Recording {
    file: File,
}

impl Recording {
    /// Notes the record as it is now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn note(&mut self, record: &Record) -> Result<()> {
        Ok(self.file.write_all(line(record)?.as_bytes()).doing(|| "write the container's record")?)
    }
}

/// The value of `key` in what is left of a record: of its last line the first one, which no nested object has.
fn value_in(text: &str, key: &str) -> Option<String> {
    let after = text.trim_end().lines().last()?.split_once(&format!("\"{key}\":"))?.1;
    Some(after.trim_start_matches('"').split(['"', ',', '}']).next()?.to_owned())
}

fn line(record: &Record) -> Result<String> {
    let text = serde_json::to_string(record).map_err(|error| Error::text(error.to_string()))?;
    Ok(text + "\n")
}

/// Writes the file `path`, for its owner alone, in place of the one before, all or nothing.
///
/// # Errors
/// The kernel's.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(bytes)?;
    std::fs::rename(new, path)
}

/// Now, in seconds and nanoseconds since 1970.
pub fn now() -> (u64, u32) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// The parent of process `pid` (proc_pid_stat(5)).
pub fn parent(pid: i32) -> Option<i32> {
    let text = fs::read_small(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// When process `pid` started, in clock ticks since boot, and whether it is only a zombie; `None` when there is none
/// (proc_pid_stat(5)).
pub fn start_time(pid: i32) -> Option<(u64, bool)> {
    let text = fs::read_small(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    // The name in brackets may hold anything, brackets and blanks included.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let zombie = matches!(fields.first(), Some(&"Z" | &"X"));
    Some((fields.get(19)?.parse().ok()?, zombie))
}

/// `path` made absolute from the current directory, without `.` and `..`.
///
/// # Errors
/// When the current directory is gone.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(root::clean(path));
    }
    let here = std::env::current_dir().doing(|| "find the current directory")?;
    Ok(root::clean(&here.join(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_store_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "ä", &"x".repeat(1025)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a.b", "web-1_2+x", "...", "-x"] {
            assert!(check_id(good).is_ok(), "{good:?}");
        }
    }

    /// What others can write in, or a link to it, is not taken for ours, whoever reads or writes.
    #[test]
    fn a_store_that_others_can_write_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        for store in [Store::new(&open), Store::new(dir.path().join("link"))] {
            assert!(store.reserve("a").is_err() && store.open("a").is_err() && store.list().is_err());
        }
    }

    /// No call waits for ever for another, and it says for whom it did.
    #[test]
    fn who_has_the_lock_for_too_long_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Store::new(dir.path()).reserve("a").unwrap();
        let held = entry.lock().unwrap();
        let error = entry.lock_within(Duration::from_millis(20)).unwrap_err().to_string();
        assert!(
            error.contains("\"a\"") && error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        entry.lock().unwrap();
    }

    /// A record as an older version may have written it, and one of a newer with words that we do not know.
    #[test]
    fn records_of_other_versions_are_understood_as_far_as_they_are_ours() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Store::new(dir.path()).reserve("a").unwrap();
        let old = "{\"version\":0,\"id\":\"a\",\"pid\":7,\"cgroup\":\"/c\"}\n";
        for text in [old.to_owned(), old.replace("\"id\"", "\"colour\":[1],\"id\"")] {
            std::fs::write(entry.path(file::STATE), text).unwrap();
            let record = entry.record().unwrap().unwrap();
            assert_eq!((record.pid, record.cgroup), (7, Some("/c".into())));
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("deep/er"));
        store.reserve("a").unwrap();
        assert!(matches!(store.reserve("a"), Err(Error::Exists(_))));
        assert_eq!(store.list().unwrap(), ["a"]);
    }

    #[test]
    fn a_torn_record_is_none_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Store::new(dir.path()).reserve("a").unwrap();
        assert_eq!(entry.record().unwrap(), None);
        std::fs::write(entry.path(file::STATE), "{\"version\":1,").unwrap();
        assert_eq!(entry.record().unwrap(), None);
        std::fs::write(entry.path(file::STATE), b"{\"\xff\xfe").unwrap();
        assert_eq!(entry.record().unwrap(), None);
        let record = Record { version: RECORD_VERSION + 1, ..Record::default() };
        entry.write(&record).unwrap();
        assert!(entry.record().unwrap_err().to_string().contains("newer"));
    }

    #[test]
    fn the_last_whole_line_of_a_record_holds() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Store::new(dir.path()).reserve("a").unwrap();
        let mut recording = entry.begin().unwrap();
        let mut record = Record { version: RECORD_VERSION, id: "a".into(), ..Record::default() };
        recording.note(&record).unwrap();
        record.pid = 7;
        recording.note(&record).unwrap();
        assert_eq!(entry.record().unwrap().unwrap().pid, 7);
        let text = std::fs::read_to_string(entry.path(file::STATE)).unwrap();
        for end in 1..text.len() {
            std::fs::write(entry.path(file::STATE), &text[..end]).unwrap();
            let first = text.find('\n').unwrap();
            let pid = entry.record().unwrap().map(|record| record.pid);
            assert_eq!(pid, (end >= first).then_some(if end >= text.len() - 1 { 7 } else { 0 }), "{end}");
        }
    }

    #[test]
    fn our_own_start_time_is_known() {
        assert!(start_time(std::process::id() as i32).is_some_and(|(time, zombie)| time > 0 && !zombie));
        assert_eq!(start_time(i32::MAX), None);
    }
}
