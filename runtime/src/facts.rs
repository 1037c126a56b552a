//! What the host is, as far as a plan depends on it: plain data that a test can write down.

use ctr_isolation::cgroup::{Hierarchy, v1};
use ctr_isolation::sys::{fs, process};
use ctr_isolation::{cgroup, identity};
use std::path::{Path, PathBuf};

/// Where we may make cgroups that limits hold in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delegated {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Beside our own.
    Beside,
    /// Below our own, once no process is in that any more, ourselves included.
    Below,
}

/// Facts about the host and the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Our effective user id.
    pub uid: u32,
    /// Our effective group id.
    pub gid: u32,
    /// We are in a user namespace: what is root here is an ordinary user to the host.
    pub in_user_namespace: bool,
    /// setgroups(2) is denied in our user namespace, and so in every one below.
    pub setgroups_denied: bool,
    /// Where cgroup version 2 is mounted, if it is.
    pub hierarchy: Option<Hierarchy>,
    /// Our own cgroup in it.
    pub own_cgroup: PathBuf,
    /// Our own cgroups in hierarchies of version 1, by controller.
    pub v1: v1::Paths,
    /// Where we may make cgroups that limits hold in. Only known after [`Facts::ask_for_cgroups`].
    pub delegated: Delegated,
    /// A systemd that makes cgroups for us can be reached: the host's for root, that of the session for others. Only
    /// known after [`Facts::ask_for_cgroups`].
    pub systemd: bool,
    /// The highest capability the kernel knows.
    pub last_capability: u8,
    /// The capabilities we hold, by number.
    pub capabilities: u64,
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
}

static NOWHERE: v1::Paths = v1::Paths::new();

impl Facts {
    /// Asks the host.
    pub fn read() -> Self {
        let (uid, gid) = process::effective_ids();
        let own = fs::read_small(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let in_user_namespace = fs::read_small(Path::new("/proc/self/uid_map"))
            .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]));
        Facts {
            uid,
            gid,
            in_user_namespace,
            setgroups_denied: in_user_namespace
                && fs::read_small(Path::new("/proc/self/setgroups")).is_ok_and(|text| text.trim() == "deny"),
            hierarchy: Hierarchy::find(),
            own_cgroup: cgroup::path_from_proc(&own).unwrap_or(Path::new("/")).to_owned(),
            v1: v1::paths_from_proc(&own),
            delegated: Delegated::Nowhere,
            systemd: false,
            last_capability: identity::last_capability(),
            capabilities: process::capget().map_or(0, |sets| sets.permitted),
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with(b"Y")),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// Asks who can make a cgroup that limits hold in: what few callers need to know.
    pub fn ask_for_cgroups(&mut self) {
        if let Some(hierarchy) = &self.hierarchy {
            let beside = hierarchy.cgroup(self.own_cgroup.parent().unwrap_or(Path::new("/")));
            self.delegated = match () {
                () if beside.is_delegated() && !beside.is_full() => Delegated::Beside,
                () if hierarchy.cgroup(&self.own_cgroup).is_delegated() => Delegated::Below,
                () => Delegated::Nowhere,
            };
        }
        self.systemd = if self.is_root() && !self.in_user_namespace {
            Path::new("/run/systemd/system").is_dir()
        } else {
            std::env::var_os("XDG_RUNTIME_DIR")
                .is_some_and(|dir| Path::new(&dir).join("systemd/private").exists())
        };
    }

    /// Our own cgroups in version 1, where there is that beside version 2: /proc names them even where it is not mounted.
    pub fn hybrid(&self) -> &v1::Paths {
        let is_hybrid = self.hierarchy.as_ref().is_some_and(|hierarchy| !hierarchy.unified);
        if is_hybrid { &self.v1 } else { &NOWHERE }
    }

    /// The same, where we are who may make others there: the host's root alone.
    pub fn usable_v1(&self) -> &v1::Paths {
        if self.is_root() && !self.in_user_namespace { self.hybrid() } else { &NOWHERE }
    }

    /// Whether we are the host's root, as far as file owners go.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}
