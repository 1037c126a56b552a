//! `why`, `trace` and `stuck`.

use clap::Args;

/// Tells why a container ended.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Tell why a container ended, or did not start",
    long_about = "Tell why a container ended, or did not start.\n\n\
                  A record is kept of each, after the container and its cgroup are gone: how its program ended, who \
                  killed it, whose limit was used up, what it had used. Where we reaped it (run, attached or detached \
                  from an image) that is all; of containers that an engine creates, starts and reaps it is what could \
                  still be seen at state, kill and delete. What nobody saw is `not observed`, never guessed. The exit \
                  status is 1 where nothing is known."
)]
pub struct Why {
    /// The container; without it, whichever ended last
    #[arg(value_name = "NAME")]
    pub id: Option<String>,

    /// Each time that it ended, the last one first
    #[arg(short, long)]
    pub all: bool,

    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Tells what was done to a container, and when.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Tell what was done to a container, and when",
    long_about = "Tell what was done to a container, and when, after it is gone, too.\n\n\
                  Verbs that are called with --trace before them, or with CTR_LOG_TRACE=true, note each of their phases in the \
                  store when it is over, so that the last line of one that hangs tells what it was at. Of others it is what the \
                  container's state and the record of its end tell."
)]
pub struct Trace {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Tells what the processes of a container wait for.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Tell what the processes of a container wait for",
    long_about = "Tell what the processes of a container wait for: the system call and the file or socket it is about, where in \
                  the kernel they sleep, and what that means. Nothing is read that could make the asker wait, too."
)]
pub struct Stuck {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,

    /// The kernel's functions that led to where each sleeps, for who may see them
    #[arg(long)]
    pub stack: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
