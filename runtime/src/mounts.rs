//! Mounts that come into a running container, and go.
//!
//! A process of ours joins its user and mount namespaces. What is bound is opened by us before, outside; where it goes is
//! found below a handle on the container's root, whose links and whose `/proc` are not to be trusted.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::launch;
use crate::plan::ns;
use crate::plan::validate::Check;
use crate::plan::{Prepare, mounts};
use crate::state::Status;
use ctr_isolation::attempt::attempt;
use ctr_isolation::mount::{self, Mount};
use ctr_isolation::root::{Root, clean};
use ctr_isolation::sys::fs::{self, Proc};
use ctr_isolation::sys::{mount as call, process};
use ctr_isolation::{Context, Result as Done};
use oci_spec::runtime::{Linux, Mount as OciMount};
use serde::Deserialize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    mounts: Vec<OciMount>,
}

/// Reads a list of mounts, as `mounts` of a configuration is one: the list alone or the object that has it.
///
/// # Errors
/// [`Error::Invalid`] with every value that does not fit.
pub fn parse(text: &[u8], file: &str) -> Result<(Vec<OciMount>, Vec<String>)> {
    let list = text.trim_ascii_start().starts_with(b"[");
    let text = if list { [b"{\"mounts\":", text, b"}"].concat() } else { text.to_vec() };
    let (listed, warnings) = crate::bundle::parse::<Listed>(&text, file)?;
    if listed.mounts.is_empty() {
        return Err(Error::text(format!(
            "{file} has no mounts: it is to be a list like mounts of config.json"
        )));
    }
    Ok((listed.mounts, warnings))
}

impl Container {
    /// Makes `wanted`, in order, in its mount namespace; sources are taken from `dir`. What cannot be honoured is warned of.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it has processes, [`Error::Invalid`] with every problem of the mounts; of the first
    /// that cannot be made: those before it stay.
    pub fn add_mounts(&self, wanted: &[OciMount], dir: &Path, facts: &Facts) -> Result<()> {
        let _lock = self.entry.lock()?;
        self.need_mounts("add mounts to")?;
        let bundle = self.bundle()?;
        let nothing_set = Linux::default();
        let linux = bundle.spec.linux().as_ref().unwrap_or(&nothing_set);
        let (mut check, mut warnings) = (Check::default(), Vec::new());
        let (list, prepare) = mounts::added(wanted, dir, linux, facts, &mut check, &mut warnings);
        if !check.problems.is_empty() {
            return Err(Error::Invalid(check.problems));
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let prepared = self.prepare(&prepare)?;
        Ok(self.inside(|root, proc| make(&list, root, proc, &prepared))?)
    }

    /// Takes the mounts at the destinations of `wanted` away, the last one first.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it has processes; of the first that is not there: the others stay.
    pub fn remove_mounts(&self, wanted: &[OciMount]) -> Result<()> {
        let _lock = self.entry.lock()?;
        self.need_mounts("remove mounts of")?;
        let targets: Vec<PathBuf> = wanted.iter().rev().map(|mount| clean(mount.destination())).collect();
        Ok(self.inside(|root, _| targets.iter().try_for_each(|target| remove(root, target)))?)
    }

    fn need_mounts(&self, verb: &'static str) -> Result<()> {
        let status = self.status();
        match status {
            Status::Stopped | Status::Creating => {
                return Err(self.wrong_status(verb, status, " (container not running)"));
            }
            _ => {}
        }
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if link("self") == link(&self.record.pid.to_string()) {
            return Err(Error::text(format!(
                "cannot {verb} container {:?}: it has no mount namespace of its own, so they would be the host's",
                self.record.id
            )));
        }
        Ok(())
    }

    fn prepare(&self, list: &[Prepare]) -> Result<Vec<OwnedFd>> {
        Ok(launch::prepare_mounts(self.record.pid, list)?)
    }

    /// Does `act` in a process of ours that has its root and its mounts.
    fn inside(&self, act: impl FnOnce(&Root, &Proc) -> Done<()>) -> Done<()> {
        let pidfd = crate::container::open_process(&self.record)
            .ok_or_else(|| ctr_isolation::Error::new("its first process has just ended"))?;
        // Still the host's: the container's may be anything.
        let proc = Proc::open()?;
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let own_user = link("self") != link(&self.record.pid.to_string());
        let kinds = ns::MOUNT | if own_user { ns::USER } else { 0 };
        let joined = || -> Done<String> {
            // Nobody inside is to look into us.
            process::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
            process::setns(pidfd.as_fd(), kinds).doing(|| "join the container's mount namespace")?;
            if own_user {
                process::setgid(0).doing(|| "become root in the user namespace")?;
                process::setuid(0).doing(|| "become root in the user namespace")?;
            }
            process::umask(0o022);
            act(&Root::open(Path::new("/"))?, &proc).map(|()| String::new())
        };
        attempt(0, None, |_| Ok(()), joined).map(drop)
    }
}

fn make(list: &[Mount], root: &Root, proc: &Proc, prepared: &[OwnedFd]) -> Done<()> {
    for mount in list {
        if let Some(later) = mount.make(root, proc, prepared)? {
            mount::make_read_only(later.as_fd())?;
        }
    }
    Ok(())
}

/// By its name in a directory that we are in: no path leads elsewhere meanwhile.
fn remove(root: &Root, target: &Path) -> Done<()> {
    let what = || format!("unmount {}", target.display());
    let name = target.file_name().ok_or_else(|| ctr_isolation::Error::new("it is the root")).doing(what)?;
    let parent = target.parent().unwrap_or(Path::new("/"));
    let dir = root.open_with(parent, libc::O_PATH | libc::O_DIRECTORY).doing(what)?;
    fs::fchdir(dir.as_fd())?;
    call::detach(Path::new(name)).doing(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_and_an_object_with_one_are_read_alike() {
        let list = r#"[{"destination": "/a", "type": "tmpfs"}]"#;
        let (alone, _) = parse(list.as_bytes(), "f").unwrap();
        let (inside, _) = parse(format!("{{\"mounts\": {list}}}").as_bytes(), "f").unwrap();
        assert_eq!((alone.len(), &alone), (1, &inside));
        for bad in ["[]", "{}", "[7]", "{\"mounts\": 7}", "7"] {
            assert!(parse(bad.as_bytes(), "f").is_err(), "{bad}");
        }
    }
}
