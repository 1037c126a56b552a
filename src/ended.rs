//! What is kept of containers that have ended, in the store: one record a life.
//!
//! A record is a JSON object on a line that begins, not ends, with its line break, so that one that was torn does no
//! harm to the next. The size is bounded: once the newer half is full it becomes the older one, and of the records that
//! are dropped then only the sums remain, of as many names as have room.

use ctr_isolation::sys::fs;
use ctr_runtime::death::{Death, Time, Usage};
use ctr_runtime::state::replace;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NEWER: &str = "log";
const OLDER: &str = "log.1";
const TOTALS: &str = "totals";

/// The store of records.
#[derive(Debug)]
pub struct Ended {
    directory: PathBuf,
    limit: u64,
}

/// All ended lives of one name together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Total {
    /// The container's name.
    pub name: String,
    /// The state directory that the name is in.
    pub root: PathBuf,
    /// How many there were.
    pub lives: u64,
    /// When the last one ended.
    pub until: Time,
    /// The highest peaks and the sums of what was refused, killed and throttled.
    pub usage: Usage,
}

impl Total {
    fn with(self, death: Death) -> Total {
        Total {
            name: death.name,
            root: death.root,
            lives: self.lives + 1,
            until: self.until.max(death.ended),
            usage: self.usage.and(death.usage),
        }
    }
}

impl Ended {
    /// The one in the directory of settings `store`, which holds `limit` bytes.
    pub fn new(store: &Path, limit: u64) -> Self {
        Ended { directory: store.join("ended"), limit }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// The kernel's.
    pub fn note(&self, death: &Death) -> io::Result<()> {
        let line = format!("\n{}", serde_json::to_string(death)?);
        let mut file = self.open()?;
        if file.metadata()?.size() + line.len() as u64 > self.limit / 8 * 3 {
            file = self.turn(file)?;
        }
        file.write_all(line.as_bytes())
    }

    fn open(&self) -> io::Result<File> {
        let path = self.directory.join(NEWER);
        let open = || {
            File::options().append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(&path)
        };
        match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
                open()
            }
            other => other,
        }
    }

    /// Makes the newer half, which is `full`, the older one, and begins anew. Another may be about to do the same.
    fn turn(&self, full: File) -> io::Result<File> {
        let path = self.directory.join(NEWER);
        fs::lock_within(full.as_fd(), Duration::from_secs(5))
            .map_err(|error| io::Error::from_raw_os_error(error.errno))?;
        let is_newer = |meta: std::fs::Metadata| meta.ino() == full.metadata().map_or(0, |full| full.ino());
        if std::fs::metadata(&path).is_ok_and(is_newer) {
            self.keep_totals()?;
            std::fs::rename(&path, self.directory.join(OLDER))?;
        }
        self.open()
    }

    /// Adds up what is about to be dropped.
    fn keep_totals(&self) -> io::Result<()> {
        let mut totals: BTreeMap<(PathBuf, String), Total> = self
            .totals()?
            .into_iter()
            .map(|total| ((total.root.clone(), total.name.clone()), total))
            .collect();
        for death in lives(self.read(OLDER)?) {
            let total = totals.entry((death.root.clone(), death.name.clone())).or_default();
            *total = std::mem::take(total).with(death);
        }
        let mut totals: Vec<Total> = totals.into_values().collect();
        totals.sort_by_key(|total| std::cmp::Reverse(total.until));
        let mut text = String::new();
        for total in totals {
            let line = serde_json::to_string(&total)?;
            if (text.len() + line.len()) as u64 > self.limit / 4 {
                break;
            }
            text.push('\n');
            text += &line;
        }
        replace(&self.directory.join(TOTALS), text.as_bytes())
    }

    /// The ended lives of containers of the state directory `root`, or of one of them, the oldest first.
    ///
    /// # Errors
    /// The kernel's; that nothing has been kept yet is none.
    pub fn deaths(&self, root: &Path, name: Option<&str>) -> io::Result<Vec<Death>> {
        // In this order one that becomes the older half meanwhile is found twice rather than not at all.
        let newer = self.read(NEWER)?;
        let all = self.read(OLDER)?.into_iter().chain(newer);
        let concerns = |death: &Death| death.root == root && name.is_none_or(|name| death.name == name);
        Ok(lives(all.filter(concerns).collect()))
    }

    /// The ended lives of the container `name` together; `ctr limits` adds those of the present one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn total(&self, root: &Path, name: &str) -> io::Result<Total> {
        let dropped = self.totals()?.into_iter().find(|total| total.root == root && total.name == name);
        Ok(self.deaths(root, Some(name))?.into_iter().fold(dropped.unwrap_or_default(), Total::with))
    }

    fn totals(&self) -> io::Result<Vec<Total>> {
        self.read(TOTALS)
    }

    /// The records of a file; those that are torn are left out.
    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> io::Result<Vec<T>> {
        let text = match std::fs::read(self.directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        // What somebody has put behind a record on its line is not part of it.
        let first = |line| serde_json::Deserializer::from_slice(line).into_iter().next()?.ok();
        Ok(text.split(|byte| *byte == b'\n').filter_map(first).collect())
    }
}

/// One record for each life, in the order of their ends: who was asked to remove a container may have noticed its end
/// before who reaps it.
fn lives(records: Vec<Death>) -> Vec<Death> {
    let mut lives: BTreeMap<(PathBuf, String, Time), Death> = BTreeMap::new();
    for death in records {
        let key = (death.root.clone(), death.name.clone(), death.began);
        let life = match lives.remove(&key) {
            Some(before) => before.join(death),
            None => death,
        };
        lives.insert(key, life);
    }
    let mut lives: Vec<Death> = lives.into_values().collect();
    lives.sort_by_key(|death| death.ended);
    lives
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctr_runtime::death::{Exit, Memory};

    fn death(name: &str, began: u64, exit: Option<Exit>, peak: u64) -> Death {
        let memory = Memory { peak: Some(peak), killed: 1, ..Memory::default() };
        Death {
            name: name.into(),
            root: "/r".into(),
            began: (began, 0),
            ended: (began + 1, 0),
            reaped: exit.is_some(),
            exit,
            usage: Usage { memory: Some(memory), ..Usage::default() },
            ..Death::default()
        }
    }

    #[test]
    fn records_come_back_and_a_torn_one_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let ended = Ended::new(dir.path(), 1 << 20);
        assert_eq!(ended.deaths(Path::new("/r"), None).unwrap(), []);
        let (one, two) = (death("a", 1, Some(Exit::Status(3)), 5), death("b", 2, Some(Exit::Dumped(11)), 7));
        ended.note(&one).unwrap();
        let path = ended.directory().join(NEWER);
        let spoil =
            |bytes: &[u8]| File::options().append(true).open(&path).unwrap().write_all(bytes).unwrap();
        spoil(b"garbage \xff\n");
        spoil(b"\n{\"name\":\"a\",\"beg");
        ended.note(&two).unwrap();
        spoil(b"}");
        assert_eq!(ended.deaths(Path::new("/r"), None).unwrap(), [one.clone(), two]);
        assert_eq!(ended.deaths(Path::new("/r"), Some("a")).unwrap(), [one]);
        assert_eq!(ended.deaths(Path::new("/other"), Some("a")).unwrap(), []);
        let modes = [ended.directory(), &path].map(|path| path.metadata().unwrap().mode() & 0o777);
        assert_eq!(modes, [0o700, 0o600], "it is the owner's alone");
    }

    #[test]
    fn a_life_that_two_have_seen_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let ended = Ended::new(dir.path(), 1 << 20);
        ended.note(&death("a", 1, None, 5)).unwrap();
        ended.note(&death("a", 1, Some(Exit::Status(0)), 5)).unwrap();
        let found = ended.deaths(Path::new("/r"), Some("a")).unwrap();
        assert_eq!((found.len(), found[0].exit), (1, Some(Exit::Status(0))));
        assert_eq!(ended.total(Path::new("/r"), "a").unwrap().lives, 1);
    }

    /// However many containers die, the size is bounded, and a name's peak and counts survive its records.
    #[test]
    fn the_size_is_bounded_and_sums_remain() {
        let dir = tempfile::tempdir().unwrap();
        let ended = Ended::new(dir.path(), 40_000);
        ended.note(&death("web", 1, Some(Exit::Status(0)), 900)).unwrap();
        for number in 2..1000 {
            let name = if number % 10 == 0 { "web".to_owned() } else { format!("once-{number}") };
            ended.note(&death(&name, number, Some(Exit::Status(0)), 5)).unwrap();
        }
        let sizes: u64 = std::fs::read_dir(ended.directory())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(sizes <= 40_000, "{sizes}");
        let deaths = ended.deaths(Path::new("/r"), Some("web")).unwrap();
        assert!(!deaths.is_empty() && deaths.len() < 50, "{}", deaths.len());
        assert_eq!(deaths.last().unwrap().began, (990, 0));
        let total = ended.total(Path::new("/r"), "web").unwrap();
        let memory = total.usage.memory.unwrap();
        assert_eq!((total.lives, memory.peak, memory.killed), (100, Some(900), 100));
    }
}
