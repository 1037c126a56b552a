//! The verbs of the OCI door: runc's, flag for flag, with crun's additions.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::run::Run;

/// What `create` and `run` take to make a container from a bundle.
#[derive(Args, Clone, Debug, Default)]
pub struct BundleFlags {
    /// The bundle: the directory with config.json, to which root.path is relative
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub bundle: PathBuf,

    /// Read FILE instead of the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Send the terminal's master end to the Unix socket SOCK
    #[arg(long, value_name = "SOCK")]
    pub console_socket: Option<PathBuf>,

    /// Write the process id of the container's first process to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Send a pidfd of the container's first process to the Unix socket SOCK
    #[arg(long, value_name = "SOCK")]
    pub pidfd_socket: Option<PathBuf>,

    /// Enter the root file system by moving its mount, not by pivot_root, as a RAM disk needs
    #[arg(long)]
    pub no_pivot: bool,

    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,

    /// Pass N more file descriptors to the container, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub preserve_fds: u32,

    /// Accepted as runc does; nothing here is a subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

/// Makes a container that waits for `start`.
#[derive(Args, Clone, Debug)]
#[command(about = "Make a container from a bundle; its program waits for start")]
pub struct Create {
    /// The new container's name, unique on this machine
    #[arg(value_name = "ID")]
    pub id: String,

    /// From what, and how
    #[command(flatten)]
    pub bundle: BundleFlags,
}

/// Runs the program of a created container.
#[derive(Args, Clone, Debug)]
#[command(about = "Run the program of a created container")]
pub struct Start {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Prints the state of a container.
#[derive(Args, Clone, Debug)]
#[command(about = "Print the state of a container, as JSON")]
pub struct State {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Sends a signal to a container.
#[derive(Args, Clone, Debug)]
#[command(about = "Send a signal to a container's first process")]
pub struct Kill {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// The signal: a number or a name, with or without SIG
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,

    /// Send it to every process of the container
    #[arg(short, long, hide = true)]
    pub all: bool,

    /// Send it to every container whose name the regular expression ID matches
    #[arg(short, long)]
    pub regex: bool,
}

/// Removes a container and all it held.
#[derive(Args, Clone, Debug)]
#[command(about = "Remove a container that has stopped or was never started, and all it held")]
pub struct Delete {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// Kill a running one first; succeed if there is none
    #[arg(short, long)]
    pub force: bool,

    /// Remove every container whose name the regular expression ID matches
    #[arg(short, long)]
    pub regex: bool,
}

/// Runs another program in a running container.
#[derive(Args, Clone, Debug, Default)]
#[command(about = "Run another program in a running container")]
pub struct Exec {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// The program and its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(required_unless_present = "process")]
    pub command: Vec<String>,

    /// Take all of the process from FILE, an object like config.json's "process"
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,

    /// Return as soon as the program runs
    #[arg(short, long)]
    pub detach: bool,

    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Accepted as podman does; standard input is always the caller's
    #[arg(short, long, hide = true)]
    pub interactive: bool,

    /// Send the terminal's master end to the Unix socket SOCK
    #[arg(long, value_name = "SOCK")]
    pub console_socket: Option<PathBuf>,

    /// Write the process id, as seen outside, to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Send a pidfd of the process to the Unix socket SOCK
    #[arg(long, value_name = "SOCK")]
    pub pidfd_socket: Option<PathBuf>,

    /// Pass N more file descriptors to the process, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub preserve_fds: u32,

    /// The working directory inside
    #[arg(long, short_alias = 'w', alias = "workdir", value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,

    /// Run as this user: UID[:GID], numbers of the container
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,

    /// One more group
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,

    /// Give it a capability
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,

    /// Put it into this cgroup below the container's: PATH, or CONTROLLER[,...]:PATH on cgroup v1
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,

    /// Let it gain no privileges from set-user-id programs
    #[arg(long)]
    pub no_new_privs: bool,

    /// Run it under this AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,

    /// Run it under this SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,

    /// Join a paused container: the program runs once it is resumed
    #[arg(long)]
    pub ignore_paused: bool,

    /// Accepted as runc does; nothing here is a subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

/// A table for people or JSON for programs.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns of text.
    #[default]
    #[value(alias = "text")]
    Table,
    /// JSON.
    Json,
}

/// Lists containers.
#[derive(Args, Clone, Debug)]
#[command(about = "List containers")]
pub struct List {
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    /// How to print them
    #[arg(short, long, value_name = "table|json", default_value = "table", hide_possible_values = true)]
    pub format: Format,
}

/// Lists the processes of a container.
#[derive(Args, Clone, Debug)]
#[command(about = "List the processes of a container")]
pub struct Ps {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// How to print them; json gives their ids
    #[arg(short, long, value_name = "table|json", default_value = "table", hide_possible_values = true)]
    pub format: Format,

    /// Options for ps(1)
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// Stops every process of a container where it is.
#[derive(Args, Clone, Debug)]
#[command(about = "Stop every process of a container where it is")]
pub struct Pause {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Lets the processes of a paused container run on.
#[derive(Args, Clone, Debug)]
#[command(about = "Let the processes of a paused container run on")]
pub struct Resume {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Makes mounts in a running container, or removes them.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Make mounts in a running container, or remove them",
    long_about = "Make mounts in a running container, or remove them. FILE is a list like `mounts` of config.json, or an object \
                  with one; to remove a mount its destination is enough. Sources are relative to the current directory."
)]
pub struct Mounts {
    /// What to do with them
    #[arg(value_name = "add|remove", hide_possible_values = true)]
    pub action: MountsAction,

    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// The list; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `mounts` does.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountsAction {
    /// Makes them.
    Add,
    /// Removes them.
    Remove,
}

/// Writes a default config.json.
#[derive(Args, Clone, Debug)]
#[command(about = "Write a default config.json")]
pub struct Spec {
    /// Write it into the bundle DIR
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,

    /// For a container that an ordinary user starts
    #[arg(long)]
    pub rootless: bool,

    /// Write it to FILE; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Prints what this runtime can do.
#[derive(Args, Clone, Debug)]
#[command(about = "Print what this runtime can do, as the OCI features document")]
pub struct Features {}

/// Shows what a verb would do.
#[derive(Args, Clone, Debug)]
#[command(about = "Print what create, run or exec would do, without doing it", subcommand_required = true)]
pub struct Plan {
    /// How to print it
    #[arg(short, long, value_name = "table|json", default_value = "table", hide_possible_values = true)]
    pub format: Format,

    /// The verb, with its own flags
    #[command(subcommand)]
    pub verb: Planned,
}

/// The verbs that `plan` explains, with their own flags.
#[derive(Subcommand, Clone, Debug)]
pub enum Planned {
    /// What create would do
    Create(Create),
    /// What run would do
    Run(Box<Run>),
    /// What exec would do
    Exec(Box<Exec>),
}
