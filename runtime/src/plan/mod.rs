//! Plans: everything decided, nothing done.
//!
//! [`create::create`] and [`exec::exec`] turn a configuration, what the caller asked for and [`Facts`](crate::facts)
//! into a [`Plan`]. They ask nobody: no file is opened and no call is made here.

pub mod annotations;
pub mod change;
pub mod create;
pub mod describe;
pub mod exec;
pub mod mounts;
pub mod process;
pub mod resources;
pub mod resources_v1;
pub mod validate;

use ctr_isolation::cgroup::systemd::Property;
use ctr_isolation::cgroup::v1;
use ctr_isolation::console::Console;
use ctr_isolation::identity::Identity;
use ctr_isolation::mount::options::Links;
use ctr_isolation::rootfs::Rootfs;
use ctr_isolation::schedule::{Rlimit, Schedule};
use ctr_isolation::seccomp::Filter;
use oci_spec::runtime::{Hook, Hooks, LinuxIdMapping};
use std::ffi::CString;
use std::path::PathBuf;

/// Namespace flags, by the names of clone(2).
pub mod ns {
    /// Time.
    pub const TIME: i32 = libc::CLONE_NEWTIME;
    /// Mount.
    pub const MOUNT: i32 = libc::CLONE_NEWNS;
    /// Cgroup.
    pub const CGROUP: i32 = libc::CLONE_NEWCGROUP;
    /// Host and domain name.
    pub const UTS: i32 = libc::CLONE_NEWUTS;
    /// System V IPC and POSIX message queues.
    pub const IPC: i32 = libc::CLONE_NEWIPC;
    /// Users.
    pub const USER: i32 = libc::CLONE_NEWUSER;
    /// Processes.
    pub const PID: i32 = libc::CLONE_NEWPID;
    /// Network.
    pub const NETWORK: i32 = libc::CLONE_NEWNET;
}

/// A container to be made, or a process to be started in one.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// Its cgroup; `None` where there is nothing to make one of.
    pub cgroup: Option<Cgroup>,
    /// How the first process comes to be.
    pub launch: Launch,
    /// What it does before it becomes the program.
    pub init: Init,
    /// Hooks of the runtime namespace (`prestart`, `createRuntime`, `poststart`, `poststop`).
    pub hooks: Hooks,
    /// What cannot be honoured and, by the specification, is only warned of.
    pub warnings: Vec<String>,
}

/// The cgroup of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroup {
    /// Where it is, from the mount point of the hierarchy. For systemd it is found once the unit exists.
    pub path: PathBuf,
    /// Where it is in hierarchies of version 1, by controller; only for those that are needed there.
    pub v1: v1::Paths,
    /// The unit to have systemd make.
    pub unit: Option<Unit>,
    /// Files to be written, in order.
    pub files: Vec<(String, String)>,
    /// The limit of memory among them that is written last: so small that what comes before the program would hardly
    /// have room below it.
    pub small: Option<u64>,
    /// The device filter: one eBPF instruction each.
    pub device_filter: Option<Vec<u64>>,
    /// Nobody has named it: where there is one already it gets another name.
    pub unnamed: bool,
    /// Go on without it when it may not be made: an ordinary user without delegation, no limit asked for.
    pub optional: bool,
    /// Warn of a limit that cannot be had, instead of giving up.
    pub best_effort: bool,
    /// Our own cgroup, when it is there that it is made: what is in that must be moved first.
    pub make_room: Option<PathBuf>,
}

impl Cgroup {
    /// Whether the process is put into it, or a part of it, only when it is there.
    pub fn is_joined_late(&self) -> bool {
        self.unit.is_some() || !self.v1.is_empty()
    }
}

/// A systemd scope (`slice:prefix:name` of `cgroupsPath`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The slice it goes into.
    pub slice: String,
    /// The slice is made for it alone. systemd removes the cgroup of a scope as soon as the last process has left, and
    /// that of a slice only when it is stopped: there it can still be read what was used.
    pub own_slice: bool,
    /// Its name, with `.scope`.
    pub name: String,
    /// On the user's own manager instead of the system's.
    pub user: bool,
    /// The limits, in the words of version 2: systemd itself makes of them what the host has.
    pub limits: Vec<(String, String)>,
    /// What its caller wants it to have besides (`org.systemd.property.*`).
    pub properties: Vec<Property>,
}

/// How the first process comes to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Launch {
    /// Namespaces to be made (`ns::*`).
    pub new: i32,
    /// Namespaces to be joined, by kind and path.
    pub join: Vec<(i32, PathBuf)>,
    /// A process whose namespaces are joined, instead of paths: for `exec`.
    pub join_process: Option<(i32, i32)>,
    /// Ids of a new user namespace.
    pub ids: Option<IdMaps>,
    /// Score for the out-of-memory killer.
    pub oom_score_adj: Option<i32>,
    /// CPUs while the process is made, and after: `execCPUAffinity`.
    pub affinity: Option<Vec<usize>>,
    /// Mounts that only we, outside the user namespace, can open, and that the child attaches.
    pub prepare: Vec<Prepare>,
    /// Network devices to be moved in: name here and name there.
    pub net_devices: Vec<(String, String)>,
    /// The group under `resctrl`.
    pub rdt: Option<Rdt>,
    /// Processes that see the new one may hold `CAP_SYS_PTRACE` over us: see [`ctr_isolation::guard`].
    pub traced: bool,
}

/// Which ids of a user namespace are which outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<LinuxIdMapping>,
    /// Group ids.
    pub gids: Vec<LinuxIdMapping>,
}

/// A detached mount to be made for the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// The directory or file on the host.
    pub source: PathBuf,
    /// With the mounts below it.
    pub recursive: bool,
    /// What becomes of a link.
    pub links: Links,
    /// Owners shifted.
    pub idmap: Option<Idmap>,
}

/// How owners are shifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idmap {
    /// By the container's own user namespace.
    Container {
        /// On the mounts below, too.
        recursive: bool,
    },
    /// By mappings of its own.
    Own {
        /// The mappings.
        maps: IdMaps,
        /// On the mounts below, too.
        recursive: bool,
    },
}

/// A group of resource director technology (`linux.intelRdt`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rdt {
    /// The name of the group.
    pub group: String,
    /// The group is somebody else's: join it, never remove it.
    pub shared: bool,
    /// Lines of its `schemata` file.
    pub schemata: Vec<String>,
    /// Make a monitoring group.
    pub monitoring: bool,
}

/// What the first process does, in the order of the fields, before it becomes the program.
#[derive(Debug, Clone)]
pub struct Init {
    /// Begin at once: nothing it needs is made by the parent meanwhile. It still does not say that it is ready, nor
    /// run hooks, before it is let go.
    pub at_once: bool,
    /// Wait once more when it is ready: the limit of memory is set then.
    pub hold: bool,
    /// It is root in a user namespace of its own.
    pub own_user_namespace: bool,
    /// The name of its session keyring.
    pub keyring: Option<CString>,
    /// Leave the cgroup namespace only now, when the process is in its cgroup.
    pub unshare_cgroup: bool,
    /// Clock offsets of a new time namespace: lines of `timens_offsets`.
    pub time_offsets: Option<String>,
    /// Bring the loopback interface up.
    pub loopback: bool,
    /// Scheduling.
    pub schedule: Schedule,
    /// The root file system; `None` for `exec`, whose namespace has one.
    pub rootfs: Option<Rootfs>,
    /// Ask for the hooks of the runtime namespace.
    pub ask_for_hooks: bool,
    /// Hooks to be run in the container's namespaces with the host's root.
    pub create_container: Vec<Hook>,
    /// A terminal.
    pub console: Option<Console>,
    /// Host name.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: Option<String>,
    /// Kernel parameters: files below `/proc/sys` and values.
    pub sysctl: Vec<(String, String)>,
    /// Execution domain.
    pub personality: Option<u64>,
    /// Labels for the program: files below `/proc` and values.
    pub labels: Vec<(String, String)>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// CPUs for the program.
    pub affinity: Option<Vec<usize>>,
    /// Credentials.
    pub identity: Identity,
    /// The system call filter.
    pub filter: Option<Filter>,
    /// What its agent is told besides the state.
    pub listener_metadata: String,
    /// Hooks to be run before the program.
    pub start_container: Vec<Hook>,
    /// The program.
    pub program: Program,
}

/// The container's program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Its name or path, and its arguments.
    pub args: Vec<String>,
    /// Its environment: `NAME=value`.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Make that where it is missing.
    pub may_make_cwd: bool,
    /// How many descriptors from 3 on it keeps.
    pub keep_fds: u32,
}

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// We, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, asked for a scope.
    Systemd,
    /// systemd where there are limits and it is the one that can make them hold, else we.
    Auto,
    /// Nobody.
    Nobody,
}

/// What the caller asked for beyond the configuration.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The container's name.
    pub id: String,
    /// Change the root without pivot_root(2).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the program keeps.
    pub keep_fds: u32,
    /// Descriptors of socket activation among them: `LISTEN_FDS` and `LISTEN_FDNAMES`.
    pub listen: Option<(u32, Option<String>)>,
    /// Who makes the cgroup.
    pub manager: Manager,
    /// Warn of a limit that cannot be had, instead of giving up.
    pub best_effort: bool,
    /// Fail where none can be made, even if nothing asks for one (`--rootless=false`).
    pub need_cgroup: bool,
    /// What it uses is of interest: of who could make a cgroup, take the one whose cgroups have controllers.
    pub counted: bool,
    /// A terminal is taken by somebody: a console socket is given or we are attached.
    pub has_console: bool,
    /// For `exec`: an earlier process of the container was given `CAP_SYS_PTRACE`.
    pub traced: bool,
}
