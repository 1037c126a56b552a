//! Limits: the flags by which `run` sets them, and the verbs that change and show them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{report::Expectation, size::Size};

/// The limits that `run --image` and `run --rootfs` take, named as podman's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits, from an image or a root file system")]
pub struct LimitFlags {
    /// The most memory it may use, as 64M
    #[arg(short, long, value_name = "SIZE", requires = "source")]
    pub memory: Option<Size>,

    /// The most swap it may use besides, 0 for none
    #[arg(long, value_name = "SIZE", requires = "source", conflicts_with = "memory_swap")]
    pub swap: Option<Size>,

    /// The most memory and swap together, as podman and Docker count it, -1 for no limit
    #[arg(long, value_name = "SIZE", requires_all = ["source", "memory"], value_parser = amount)]
    pub memory_swap: Option<i64>,

    /// Memory that is not taken from it while others have some to spare
    #[arg(long, value_name = "SIZE", requires = "source")]
    pub memory_reservation: Option<Size>,

    /// The most processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "N", requires = "source")]
    pub pids: Option<i64>,

    /// How many processors' time it may use, as 0.5
    #[arg(long, value_name = "N", requires = "source", value_parser = cpus)]
    #[arg(conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub cpus: Option<f64>,

    /// Its share of the processors where they are short: 1024 is one share
    #[arg(long, value_name = "N", requires = "source")]
    pub cpu_shares: Option<u64>,

    /// How many microseconds of each period it may use
    #[arg(long, value_name = "US", requires = "source")]
    pub cpu_quota: Option<i64>,

    /// The period of --cpu-quota, in microseconds
    #[arg(long, value_name = "US", requires = "source")]
    pub cpu_period: Option<u64>,

    /// The processors it may use, as 0-2,7
    #[arg(long, value_name = "LIST", requires = "source")]
    pub cpuset_cpus: Option<String>,

    /// The memory nodes it may use
    #[arg(long, value_name = "LIST", requires = "source")]
    pub cpuset_mems: Option<String>,

    /// Its share of the disks where they are short, from 10 to 1000
    #[arg(long, value_name = "N", requires = "source")]
    pub blkio_weight: Option<u16>,

    /// The most bytes it may read of a disk in a second
    #[arg(long, value_name = "DEVICE:RATE", requires = "source")]
    pub device_read_bps: Vec<String>,

    /// The most bytes it may write to a disk in a second
    #[arg(long, value_name = "DEVICE:RATE", requires = "source")]
    pub device_write_bps: Vec<String>,

    /// The most reads of a disk in a second
    #[arg(long, value_name = "DEVICE:RATE", requires = "source")]
    pub device_read_iops: Vec<String>,

    /// The most writes to a disk in a second
    #[arg(long, value_name = "DEVICE:RATE", requires = "source")]
    pub device_write_iops: Vec<String>,

    /// The most it may use of huge pages of a size, as 2MB=64M
    #[arg(long, value_name = "PAGE=SIZE", requires = "source")]
    pub hugetlb: Vec<String>,

    /// A file of its cgroup and what is written to it, as memory.high=64M
    #[arg(long, value_name = "FILE=VALUE", requires = "source")]
    pub cgroup_conf: Vec<String>,

    /// What a limit that cannot be had is: an error (require) or a warning (best-effort)
    #[arg(long, value_name = "require|best-effort", requires = "source", hide_possible_values = true)]
    pub limits: Option<Policy>,
}

/// What `run` takes to test what a program needs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Tests of what a program needs, from an image or a root file system")]
pub struct TestFlags {
    /// End it after TIME, as 30s; the exit status is then 124
    #[arg(long, value_name = "TIME", requires = "source", conflicts_with = "detach", value_parser = crate::time::duration)]
    pub timeout: Option<Duration>,

    /// What must be so in the end, as memory.peak<48M,pids.peak<20,no-oom; if it is not, the exit status is 123
    #[arg(
        long,
        value_name = "EXPECTATION",
        requires = "source",
        conflicts_with = "detach",
        value_delimiter = ','
    )]
    pub expect: Vec<Expectation>,

    /// Write what it did and used to FILE, as JSON
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with = "detach")]
    pub report: Option<PathBuf>,

    /// Write whether it did as expected to FILE, as JUnit's XML
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with = "detach")]
    pub junit: Option<PathBuf>,
}

/// What a limit that cannot be had is.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// An error.
    #[default]
    Require,
    /// A warning.
    BestEffort,
}

/// Changes the limits of a running container.
#[derive(Args, Clone, Debug, Default)]
#[command(
    about = "Change the limits of a running container",
    long_about = "Change the limits of a running container. What is not named keeps its value."
)]
pub struct Update {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// Read the limits from FILE, or with - from standard input: an object like config.json's linux.resources; other flags
    /// do not count then
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,

    /// The most memory, as 64M; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    pub memory: Option<i64>,

    /// Memory that is not taken while others have some to spare
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    pub memory_reservation: Option<i64>,

    /// The most memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    pub memory_swap: Option<i64>,

    /// The most processes and threads; -1 for no limit
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,

    /// Its share of the processors: 1024 is one share
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,

    /// How many microseconds of each period it may use; -1 for no limit
    #[arg(long, value_name = "US")]
    pub cpu_quota: Option<i64>,

    /// The period of the quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,

    /// How many unused microseconds it may save for later
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,

    /// 1 to run it only when nobody else wants the processor, 0 to treat it as others
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,

    /// The period of real-time scheduling, which cgroup version 2 does not limit
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,

    /// The real-time microseconds of each period, which cgroup version 2 does not limit
    #[arg(long, value_name = "US")]
    pub cpu_rt_runtime: Option<i64>,

    /// The processors it may use, as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,

    /// The memory nodes it may use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,

    /// Its share of the disks, from 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,

    /// The line of the L3 cache in its group of resctrl
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,

    /// The line of memory bandwidth in its group of resctrl
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,

    /// Accepted as runc does; kernels have no such limit any more
    #[arg(long, value_name = "SIZE", value_parser = amount, hide = true)]
    pub kernel_memory: Option<i64>,

    /// Accepted as runc does; kernels have no such limit any more
    #[arg(long, value_name = "SIZE", value_parser = amount, hide = true)]
    pub kernel_memory_tcp: Option<i64>,
}

/// Prints what a container uses, again and again, and when it runs out of memory.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Print what a container uses, and when memory runs out, as lines of JSON",
    long_about = "Print what a container uses, again and again, and when memory runs out, as lines of JSON in runc's \
                  form, until it ends."
)]
pub struct Events {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// Print what it uses once, and end
    #[arg(long)]
    pub stats: bool,

    /// How long to wait between two lines, as 5s or 100ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::time::duration)]
    pub interval: Duration,
}

/// Shows the limits of a container: what was asked for, what is set, what holds, and what of it was used.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Show a container's limits: asked for, set, in force, used",
    long_about = "Show a container's limits: what was asked for, what is set, what holds once every cgroup above has its say \
                  and which one that is, and what was used of it.\n\n\
                  HELD is in use now and MAXHELD the most there was, BARRIER is where the kernel begins to slow down or take \
                  back, LIMIT is where it refuses, and FAILCNT how often it has. MAXHELD and FAILCNT count earlier \
                  containers of the same name too. The exit status is 3 where a limit is not \
                  as it was asked for."
)]
pub struct Limits {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Finds the least limits that a command does with.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Find the least memory and the fewest processes that a command does with",
    long_about = "Find the least memory and the fewest processes that a command does with: it is run again and again in \
                  containers, with ever closer limits and no swap, and passes when it ends with status 0."
)]
pub struct Fit {
    /// The program and its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    pub command: Vec<String>,

    /// Start in the directory DIR instead of the image `host`
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,

    /// Show the directory or file SRC at DST
    #[arg(short, long, value_name = "SRC:DST[:OPTS]")]
    pub volume: Vec<String>,

    /// Set an environment variable
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,

    /// How often it must pass with a limit
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,

    /// How long one run may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::time::duration)]
    pub timeout: Duration,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads an amount of bytes, or -1 for no limit.
fn amount(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let Size(bytes) = text.parse()?;
    i64::try_from(bytes).map_err(|_| format!("{text:?} is more than there can be"))
}

/// Reads a number of processors.
fn cpus(text: &str) -> Result<f64, String> {
    let number: f64 =
        text.parse().map_err(|_| format!("{text:?} is not a number of processors, as 0.5 or 2"))?;
    // The kernel's least quota is a millisecond, in a period of a tenth of a second.
    if (0.01..=8192.0).contains(&number) {
        Ok(number)
    } else {
        Err("expected a number from 0.01 to 8192".to_owned())
    }
}
