//! Groups of resource director technology: shares of caches and of memory bandwidth (the kernel's resctrl.rst).

use crate::{Context, Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file system of the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resctrl {
    /// Where it is mounted.
    pub base: PathBuf,
}

impl Default for Resctrl {
    fn default() -> Self {
        Resctrl { base: "/sys/fs/resctrl".into() }
    }
}

impl Resctrl {
    /// Refuses a host without it.
    ///
    /// # Errors
    /// What is missing, and what would help.
    pub fn check(&self) -> Result<()> {
        if self.base.join("schemata").exists() && self.base.join("tasks").exists() {
            return Ok(());
        }
        Err(Error::new(format!(
            "there is no resctrl at {}: mount -t resctrl resctrl /sys/fs/resctrl; the processor must support it",
            self.base.display()
        )))
    }

    /// The directory of the group `name`.
    pub fn group(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// The directory of the monitoring group `id` in the group `name`.
    pub fn monitor(&self, name: &str, id: &str) -> PathBuf {
        self.group(name).join("mon_groups").join(id)
    }
}

/// Makes the group `dir`; that it exists is no error.
///
/// # Errors
/// `ENOSPC` when the processor can have no more of them.
pub fn create(dir: &Path) -> Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let full = error.raw_os_error() == Some(libc::ENOSPC);
            let why = if full { " (the processor has no class left)" } else { "" };
            Err(error).doing(|| format!("make the resctrl group {}{why}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Sets what the group `dir` gets: lines such as `L3:0=f;1=f`.
///
/// # Errors
/// The kernel's, with its own words about what it does not like.
pub fn set_schemata(dir: &Path, lines: &[String]) -> Result<()> {
    let text: String = lines.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    write(&dir.join("schemata"), &text).map_err(|error| {
        // Beside the group directories there is one with the reason of the last refusal.
        let base = dir.parent().unwrap_or(dir);
        let status = std::fs::read_to_string(base.join("info/last_cmd_status")).unwrap_or_default();
        match status.trim() {
            "" | "ok" => error,
            status => error.under(status),
        }
    })
}

/// Puts the process `pid` into the group `dir`; what it starts later will be in there, too.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn add(dir: &Path, pid: i32) -> Result<()> {
    write(&dir.join("tasks"), &pid.to_string())
}

/// Removes the group `dir` with its monitoring groups; that it is gone already is no error.
///
/// # Errors
/// The kernel's.
pub fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("remove the resctrl group {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .doing(|| format!("write {text:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like the file system, as far as we look.
    fn stand_in() -> (tempfile::TempDir, Resctrl) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().to_owned();
        for name in ["g", "g/mon_groups", "info"] {
            std::fs::create_dir(base.join(name)).unwrap();
        }
        for file in ["schemata", "tasks", "g/schemata", "g/tasks"] {
            std::fs::write(base.join(file), "").unwrap();
        }
        (dir, Resctrl { base })
    }

    #[test]
    fn a_host_without_it_is_told_what_to_do() {
        let error = Resctrl { base: "/nonexistent".into() }.check().unwrap_err().to_string();
        assert!(error.contains("mount -t resctrl resctrl /sys/fs/resctrl"), "{error}");
    }

    #[test]
    fn a_group_gets_its_lines_and_its_process() {
        let (_dir, resctrl) = stand_in();
        resctrl.check().unwrap();
        let group = resctrl.group("g");
        create(&group).unwrap();
        set_schemata(&group, &["L3:0=f".into(), "MB:0=20\n".into()]).unwrap();
        add(&group, 7).unwrap();
        let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap();
        assert_eq!((read("schemata"), read("tasks")), ("L3:0=f\nMB:0=20\n".into(), "7".into()));
    }

    #[test]
    fn monitoring_groups_come_and_go() {
        let (_dir, resctrl) = stand_in();
        let monitor = resctrl.monitor("g", "id");
        create(&monitor).unwrap();
        assert!(monitor.ends_with("g/mon_groups/id"));
        remove(&monitor).unwrap();
        remove(&monitor).unwrap();
    }

    #[test]
    fn a_refusal_has_the_reason_of_the_kernel() {
        let (_dir, resctrl) = stand_in();
        std::fs::write(resctrl.base.join("info/last_cmd_status"), "mask 0 is not in range\n").unwrap();
        std::fs::create_dir(resctrl.group("bad")).unwrap();
        let error = set_schemata(&resctrl.group("bad"), &["L3:0=0".into()]).unwrap_err().to_string();
        assert!(error.starts_with("mask 0 is not in range: write"), "{error}");
    }
}
