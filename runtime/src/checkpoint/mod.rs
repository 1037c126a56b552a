//! Containers saved to files and brought back, by CRIU (criu(8)), which does the work; here is what it has to be told.
//!
//! Names in the images are runc's, so that what one has saved the other can restore.

mod blockers;
mod criu;
mod dump;
mod look;
mod mounts;
mod restore;
mod rpc;

pub use blockers::Blocker;
pub(crate) use criu::end;
pub use dump::Dump;
pub use restore::{Restore, restore};
pub use rpc::{CgroupsMode, NetworkLock};

use crate::error::Result;
use ctr_isolation::Context;
use ctr_isolation::sys::fs;
use oci_spec::runtime::LinuxNamespaceType;
use rpc::Options;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What saving and restoring have in common.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// The directory of the images.
    pub images: PathBuf,
    /// The directory of the log and of sockets; that of the images, where there is none.
    pub work: Option<PathBuf>,
    /// Take TCP connections along.
    pub tcp_established: bool,
    /// Take Unix sockets along that are connected to others outside.
    pub external_unix_sockets: bool,
    /// Its terminal, or its session, is one outside.
    pub shell_job: bool,
    /// Take file locks along.
    pub file_locks: bool,
    /// Memory is moved only when it is used.
    pub lazy_pages: bool,
    /// Free in earlier images what later ones have anew.
    pub auto_dedup: bool,
    /// How cgroups are saved and restored.
    pub cgroups: Option<CgroupsMode>,
    /// How traffic is held up meanwhile.
    pub network_lock: Option<NetworkLock>,
}

/// Which standard streams were pipes, so that others can take their places; runc's name.
const DESCRIPTORS: &str = "descriptors.json";

/// Names in the images for namespaces that were joined, as runc and crun have them.
const EXTERNAL: [(LinuxNamespaceType, &str, &str); 2] =
    [(LinuxNamespaceType::Network, "net", "extRootNetNS"), (LinuxNamespaceType::Pid, "pid", "extRootPidNS")];

/// A removed file that is still open is saved with its content up to this size.
const GHOST_LIMIT: u32 = 1 << 30;

/// As much as CRIU can tell, as runc asks for.
const LOG_LEVEL: i32 = 4;

/// The directories that CRIU works in, open.
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    log: PathBuf,
}

impl Directories {
    fn open(common: &Common, log: &str) -> Result<Self> {
        let open = |path: &Path| fs::open(path, fs::O_DIRECTORY).doing(|| format!("open {}", path.display()));
        let work = common.work.as_deref();
        if let Some(work) = work {
            make(work)?;
        }
        Ok(Directories {
            images: open(&common.images)?,
            work: work.map(open).transpose()?,
            log: work.unwrap_or(&common.images).join(log),
        })
    }
}

/// Makes the directory `path`, which is ours alone, where it is missing.
fn make(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    Ok(made.doing(|| format!("make the directory {}", path.display()))?)
}

impl Common {
    fn options(
        &self,
        directories: &Directories,
        log: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Options {
        Options {
            images: directories.images.as_raw_fd(),
            work: directories.work.as_ref().map(AsRawFd::as_raw_fd),
            log_level: Some(LOG_LEVEL),
            log_file: Some(log.into()),
            notify_scripts: Some(true),
            tcp_established: Some(self.tcp_established),
            external_unix_sockets: Some(self.external_unix_sockets),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            lazy_pages: Some(self.lazy_pages),
            auto_dedup: Some(self.auto_dedup),
            orphan_terminal: Some(true),
            manage_cgroups: Some(true),
            cgroups_mode: Some(self.cgroups.unwrap_or(CgroupsMode::Soft) as i32),
            network_lock: self.network_lock.map(|lock| lock as i32),
            // Devices and addresses are whoever's made the network: an engine's, whose hooks bring them again.
            empty_namespaces: Some(libc::CLONE_NEWNET.cast_unsigned()),
            config_file: config_file(annotations),
            ..Options::default()
        }
    }
}

/// What CRIU reads besides, and prefers to what we say: the file that an annotation names, else runc's.
fn config_file(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get("org.criu.config") {
        Some(named) => Some(named.clone()).filter(|named| !named.is_empty()),
        None => Some("/etc/criu/runc.conf".into()),
    }
}
