//! `why`.

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
