//! `checkpoint` and `restore`: runc's flags, with crun's additions.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ctr_runtime::checkpoint::{CgroupsMode, NetworkLock};

/// What both verbs take.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,

    /// The directory of CRIU's log; that of the images, where there is none
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,

    /// Take TCP connections along
    #[arg(long)]
    pub tcp_established: bool,

    /// Take Unix sockets along that are connected to others outside
    #[arg(long)]
    pub ext_unix_sk: bool,

    /// Its terminal is the one we were called from
    #[arg(long)]
    pub shell_job: bool,

    /// Take file locks along
    #[arg(long)]
    pub file_locks: bool,

    /// Move memory only when it is used
    #[arg(long)]
    pub lazy_pages: bool,

    /// Free in earlier images what later ones have anew
    #[arg(long)]
    pub auto_dedup: bool,

    /// How cgroups are saved and restored: soft, full, strict or ignore
    #[arg(long, value_name = "MODE", default_value = "soft", hide_possible_values = true)]
    pub manage_cgroups_mode: Cgroups,

    /// How traffic is held up meanwhile: iptables, nftables or skip
    #[arg(long, value_name = "METHOD", hide_possible_values = true)]
    pub network_lock: Option<Lock>,

    /// Accepted as runc does; what is in a network namespace is never saved
    #[arg(long, value_name = "NAMESPACE", hide = true)]
    pub empty_ns: Vec<EmptyNamespace>,
}

/// The values of `--manage-cgroups-mode`.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Cgroups {
    /// Their limits where they have to be made.
    Soft,
    /// Their limits, in any case.
    Full,
    /// They must not be there yet.
    Strict,
    /// Not at all.
    Ignore,
}

impl From<Cgroups> for CgroupsMode {
    fn from(mode: Cgroups) -> Self {
        match mode {
            Cgroups::Soft => CgroupsMode::Soft,
            Cgroups::Full => CgroupsMode::Full,
            Cgroups::Strict => CgroupsMode::Strict,
            Cgroups::Ignore => CgroupsMode::Ignore,
        }
    }
}

/// The values of `--network-lock`.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Lock {
    /// By iptables(8).
    Iptables,
    /// By nft(8).
    Nftables,
    /// It is not.
    Skip,
}

impl From<Lock> for NetworkLock {
    fn from(lock: Lock) -> Self {
        match lock {
            Lock::Iptables => NetworkLock::Iptables,
            Lock::Nftables => NetworkLock::Nftables,
            Lock::Skip => NetworkLock::Skip,
        }
    }
}

/// The values of `--empty-ns`.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum EmptyNamespace {
    /// The only kind that runc knows.
    Network,
}

/// Saves a container to files.
#[derive(Args, Clone, Debug)]
#[command(about = "Save a running container to files, from which restore brings it back")]
pub struct Checkpoint {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// Only tell what would keep it from being saved; the status is 1 if anything does
    #[arg(long)]
    pub check: bool,

    /// Tell it as JSON
    #[arg(long, requires = "check")]
    pub json: bool,

    /// What restoring has, too
    #[command(flatten)]
    pub common: Common,

    /// Earlier images, relative to --image-path: only what has changed since is saved
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,

    /// Save memory only, to have less to do later; the container goes on
    #[arg(long)]
    pub pre_dump: bool,

    /// Let the container go on afterwards
    #[arg(long)]
    pub leave_running: bool,

    /// Leave out connections that are still being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,

    /// Save removed files that have another name under that
    #[arg(long)]
    pub link_remap: bool,

    /// Send memory to the CRIU that listens there
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = page_server)]
    pub page_server: Option<(String, u16)>,

    /// Write a zero byte to descriptor N when memory can be asked for
    #[arg(long, value_name = "N", default_value_t = -1, hide_default_value = true)]
    pub status_fd: i32,

    /// Closes connections on restore; accepted here as podman sends it
    #[arg(long, hide = true)]
    pub tcp_close: bool,
}

/// Brings a container back from files.
#[derive(Args, Clone, Debug)]
#[command(about = "Bring a container back that checkpoint has saved")]
pub struct Restore {
    /// The container's name, which may be another now
    #[arg(value_name = "ID")]
    pub id: String,

    /// The bundle: the directory with config.json, to which root.path is relative
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub bundle: PathBuf,

    /// Return as soon as it runs
    #[arg(short, long)]
    pub detach: bool,

    /// What saving has, too
    #[command(flatten)]
    pub common: Common,

    /// Close TCP connections instead of taking them up
    #[arg(long)]
    pub tcp_close: bool,

    /// Send the terminal's master end to the Unix socket SOCK
    #[arg(long, value_name = "SOCK")]
    pub console_socket: Option<PathBuf>,

    /// Write the process id of the container's first process to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// The LSM profile instead of the saved one, as apparmor:NAME or selinux:LABEL
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,

    /// The SELinux label of mounts instead of the saved one
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,

    /// Accepted as runc does; CRIU enters the root file system in its own way
    #[arg(long, hide = true)]
    pub no_pivot: bool,

    /// Accepted as runc does; nothing here is a subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

fn page_server(text: &str) -> Result<(String, u16), String> {
    let wrong = || "use ADDRESS:PORT".to_owned();
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match (address.is_empty(), port.parse::<u16>()) {
        (false, Ok(port)) if port > 0 => Ok((address.to_owned(), port)),
        _ => Err(wrong()),
    }
}
