//! The flags before the verb: those of runc, and of crun where they add to them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Flags that every verb has in common, given before it.
///
/// Each is absent unless it was given: what then holds is [`crate::settings`]'s to say.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Keep the state of containers in DIR
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Write the log, and as its last line the error the program ended with, to FILE
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// How a line of the log is written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub log_format: LogFormat,

    /// The least severe that is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", hide_possible_values = true)]
    pub log_level: Option<LogLevel>,

    /// Log everything: the same as --log-level debug
    #[arg(long)]
    pub debug: bool,

    /// Note each phase of what is done to a container, for `trace`
    #[arg(long)]
    pub trace: bool,

    /// Let systemd make the cgroups; cgroupsPath is then SLICE:PREFIX:NAME
    #[arg(long)]
    pub systemd_cgroup: bool,

    /// Who makes the cgroups: auto, cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER", hide_possible_values = true, conflicts_with = "systemd_cgroup")]
    pub cgroup_manager: Option<CgroupManager>,

    /// Whether to forgive what an ordinary user cannot do to cgroups: true, false or auto
    #[arg(long, value_name = "BOOL|auto", default_value = "auto", value_parser = rootless)]
    pub rootless: Rootless,

    /// Accepted as runc does; criu is found on PATH
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
}

/// The form of a line of the log.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="..." level=error msg="..."`
    #[default]
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

/// The least severe event that is logged.
#[derive(ValueEnum, Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What the program ended with.
    Error,
    /// What the specification wants the user warned of.
    #[value(alias = "warning")]
    #[serde(alias = "warning")]
    Warn,
    /// What was done.
    Info,
    /// With what each step was done.
    Debug,
    /// Every call to the kernel.
    Trace,
}

/// Who makes and removes cgroups.
#[derive(ValueEnum, Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CgroupManager {
    /// systemd for limits at the image door, where it manages the cgroup that we are in; else the program itself.
    Auto,
    /// The program itself, in the cgroup file system.
    Cgroupfs,
    /// systemd, asked over D-Bus for a scope.
    Systemd,
    /// Nobody: the container stays in its caller's cgroup.
    Disabled,
}

/// Whether failing to make a cgroup is forgiven, as it must be for an ordinary user without delegation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rootless {
    /// Where the caller is not root of the initial user namespace.
    #[default]
    Auto,
    /// As the flag says.
    Is(bool),
}

/// Reads `--rootless`: `auto` or any of Go's words for a truth value, as runc does.
fn rootless(text: &str) -> Result<Rootless, String> {
    match text {
        "" | "auto" => Ok(Rootless::Auto),
        _ => truth(text).map(Rootless::Is).ok_or_else(|| "expected true, false or auto".to_owned()),
    }
}

/// Go's words for a truth value.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
