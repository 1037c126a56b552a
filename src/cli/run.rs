//! `run`, which serves both doors, and the verbs for containers it left running.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use serde::{Deserialize, Serialize};

use super::limits::{LimitFlags, TestFlags};
use super::oci::BundleFlags;

/// Makes a container and runs it: from a bundle, or from an image or root file system.
#[derive(Args, Clone, Debug, Default)]
#[command(about = "Make a container, run it, and remove it when it ends")]
pub struct Run {
    /// The new container's name; needed for a bundle, made up for an image
    #[arg(value_name = "NAME", required_unless_present_any = ["image", "rootfs"], conflicts_with = "name")]
    pub id: Option<String>,

    /// The program and its arguments, instead of the image's own
    #[arg(value_name = "CMD", last = true, requires = "source")]
    pub command: Vec<String>,

    /// Return as soon as the program runs
    #[arg(short, long)]
    pub detach: bool,

    /// What the OCI door takes
    #[command(flatten)]
    pub bundle: BundleFlags,

    /// Keep the container when its program has ended
    #[arg(long)]
    pub keep: bool,

    /// What the image door takes
    #[command(flatten)]
    pub image: ImageFlags,

    /// The limits it takes
    #[command(flatten)]
    pub limits: LimitFlags,

    /// How it tests a program
    #[command(flatten)]
    pub test: TestFlags,
}

impl Run {
    /// Whether this is the image door (podman's manners) or the OCI door (runc's).
    pub fn is_image_door(&self) -> bool {
        self.image.image.is_some() || self.image.rootfs.is_some()
    }

    /// The name that was asked for, by flag or by position.
    pub fn name(&self) -> Option<&str> {
        self.image.name.as_deref().or(self.id.as_deref())
    }
}

/// What `run --image` and `run --rootfs` take.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "From an image or a root file system")]
pub struct ImageFlags {
    /// Start from IMAGE, fetched if it is not here; `host` is this machine's own userland, without its secrets
    #[arg(long, value_name = "IMAGE", group = "source")]
    #[arg(conflicts_with_all = BUNDLE_ONLY)]
    pub image: Option<String>,

    /// When IMAGE is fetched: missing, always or never
    #[arg(long, value_name = "WHEN", requires = "image", default_value = "missing")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub pull: Pull,

    /// Start in the directory DIR; what is written inside stays there
    #[arg(long, value_name = "DIR", group = "source")]
    #[arg(conflicts_with_all = BUNDLE_ONLY)]
    pub rootfs: Option<PathBuf>,

    /// Remove the container when its program has ended
    #[arg(long, requires = "source")]
    pub rm: bool,

    /// The container's name
    #[arg(long, value_name = "NAME", requires = "source")]
    pub name: Option<String>,

    /// Set an environment variable; KEY alone takes the caller's value
    #[arg(short, long, value_name = "KEY[=VALUE]", requires = "source")]
    pub env: Vec<String>,

    /// Set the environment variables in FILE, one KEY=VALUE a line
    #[arg(long, value_name = "FILE", requires = "source")]
    pub env_file: Vec<PathBuf>,

    /// Run as this user: UID[:GID] or NAME[:GROUP] of the container
    #[arg(short, long, value_name = "USER", requires = "source")]
    pub user: Option<String>,

    /// The working directory inside
    #[arg(short, long, value_name = "DIR", requires = "source")]
    pub workdir: Option<PathBuf>,

    /// Attach a file system: type=bind|tmpfs,src=..,dst=..[,ro][,OPTION..]
    #[arg(long, value_name = "SPEC", requires = "source")]
    pub mount: Vec<String>,

    /// Show the directory or file SRC at DST
    #[arg(short, long, value_name = "SRC:DST[:OPTS]", requires = "source")]
    pub volume: Vec<String>,

    /// Put an empty directory in memory at DST
    #[arg(long, value_name = "DST[:OPTS]", requires = "source")]
    pub tmpfs: Vec<String>,

    /// Give it a device: DEVICE[:PATH[:rwm]], or one of a CDI file by its name, as vendor.com/class=name
    #[arg(long, value_name = "DEVICE", requires = "source")]
    pub device: Vec<String>,

    /// The host name inside
    #[arg(long, value_name = "NAME", requires = "source")]
    pub hostname: Option<String>,

    /// Make the root file system read-only
    #[arg(long, requires = "source")]
    pub read_only: bool,

    /// Give the program a capability, or all
    #[arg(long, value_name = "CAP", requires = "source", value_delimiter = ',')]
    pub cap_add: Vec<String>,

    /// Take a capability, or all, from the program
    #[arg(long, value_name = "CAP", requires = "source", value_delimiter = ',')]
    pub cap_drop: Vec<String>,

    /// seccomp=FILE|default|unconfined, no-new-privileges, apparmor=PROFILE or label=LABEL
    #[arg(long, value_name = "OPTION", requires = "source", value_parser = security_option)]
    pub security_opt: Vec<SecurityOption>,

    /// The network it sees: none (of its own, empty) or host
    #[arg(
        long,
        visible_alias = "net",
        value_name = "none|host",
        requires = "source",
        hide_possible_values = true
    )]
    pub network: Option<Network>,

    /// Keep standard input open
    #[arg(short, long, requires = "source")]
    pub interactive: bool,

    /// Give the program a terminal
    #[arg(short, long, requires = "source")]
    pub tty: bool,

    /// The program that CMD are arguments to: a name, or a JSON array
    #[arg(long, value_name = "CMD", requires = "source")]
    pub entrypoint: Option<String>,

    /// Note KEY=VALUE in the container's state
    #[arg(long, value_name = "KEY=VALUE", requires = "source")]
    pub annotation: Vec<String>,

    /// Set a resource limit of the program, as nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", requires = "source")]
    pub ulimit: Vec<String>,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// The flags of the OCI door that mean nothing without a bundle.
const BUNDLE_ONLY: [&str; 7] =
    ["bundle", "config", "keep", "console_socket", "pidfd_socket", "no_pivot", "no_new_keyring"];

/// The network of a container from an image.
#[derive(ValueEnum, Clone, Copy, Debug, Serialize, Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Its own, with nothing but a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
}

/// One `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityOption {
    /// The system calls the program may make.
    Seccomp(Seccomp),
    /// Whether set-user-id programs are barred from giving it privileges.
    NoNewPrivileges(bool),
    /// Its AppArmor profile.
    AppArmor(String),
    /// Its SELinux label.
    Label(String),
}

/// The system calls a program may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Those of the built-in profile.
    Default,
    /// All.
    Unconfined,
    /// Those of the profile in this file.
    File(PathBuf),
}

/// Reads `--security-opt`, whose names end at `=` or, as Docker once had it, at `:`.
fn security_option(text: &str) -> Result<SecurityOption, String> {
    let (name, value) = match text.find(['=', ':']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    match (name, value) {
        ("seccomp", "default") => Ok(SecurityOption::Seccomp(Seccomp::Default)),
        ("seccomp", "unconfined") => Ok(SecurityOption::Seccomp(Seccomp::Unconfined)),
        ("seccomp", file) if !file.is_empty() => Ok(SecurityOption::Seccomp(Seccomp::File(file.into()))),
        ("no-new-privileges", "" | "true") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
        ("apparmor", profile) if !profile.is_empty() => Ok(SecurityOption::AppArmor(profile.to_owned())),
        ("label", label) if !label.is_empty() => Ok(SecurityOption::Label(label.to_owned())),
        _ => Err("expected seccomp=FILE, seccomp=default, seccomp=unconfined, no-new-privileges, \
                  apparmor=PROFILE or label=LABEL"
            .to_owned()),
    }
}

/// Prints what a detached container wrote.
#[derive(Args, Clone, Debug)]
#[command(about = "Print what a detached container wrote")]
pub struct Logs {
    /// The container
    #[arg(value_name = "NAME")]
    pub id: String,

    /// Go on as more is written
    #[arg(short, long)]
    pub follow: bool,

    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<u64>,

    /// Put the time before each line
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Joins the caller's terminal to a detached container.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Join this terminal, or standard input and output, to a detached container",
    long_about = "Join this terminal, or standard input and output, to a detached container.\n\n\
                  Input goes to it if it was started with --interactive, and the end of the input too. Any number may \
                  be attached. Who leaves, by the keys, control-C without a terminal, or a signal, leaves it running. \
                  The exit status is its program's."
)]
pub struct Attach {
    /// The container
    #[arg(value_name = "NAME")]
    pub id: String,

    /// Show its output only
    #[arg(long)]
    pub no_stdin: bool,

    /// The keys that leave it running, if it has a terminal: letters, or ctrl- and a letter
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
}

/// Ends containers: politely, then by force.
#[derive(Args, Clone, Debug)]
#[command(about = "End a container: SIGTERM, and SIGKILL if that does not do")]
pub struct Stop {
    /// The containers
    #[arg(value_name = "NAME", required = true)]
    pub ids: Vec<String>,

    /// How long to wait before SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    pub time: Option<u64>,
}

/// Ends containers and starts them anew.
#[derive(Args, Clone, Debug)]
#[command(about = "Stop a container made by run --image and start it anew")]
pub struct Restart {
    /// The containers
    #[arg(value_name = "NAME", required = true)]
    pub ids: Vec<String>,

    /// How long to wait before SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    pub time: Option<u64>,
}

/// Prints a shell's completion script.
#[derive(Args, Clone, Debug)]
#[command(about = "Print the completion script of a shell")]
pub struct Completion {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Examines this host.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Say what works on this host and what does not, and what mends it",
    long_about = "Say what works on this host and what does not, and what mends it.\n\nEverything is found by trying, as \
                  the user who asks, in processes, namespaces, directories and cgroups that are gone afterwards. A \
                  finding is ok, a warning (something can be done without) or a problem: something that is promised does \
                  not work here, and the command that mends it stands below.\n\nThe exit status is 0 when there is no \
                  problem, 1 when there is one, and 125 when the findings cannot be told."
)]
pub struct Doctor {
    /// Print it as JSON: an object with the list `findings`, each with group, name, verdict, tried, found, reason, loses
    /// and mend
    #[arg(long)]
    pub json: bool,
}

/// Writes the manual pages.
#[derive(Args, Clone, Debug)]
#[command(about = "Write the manual pages")]
pub struct Man {
    /// Where to
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
