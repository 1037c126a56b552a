//! `setup`.

use clap::{Args, ValueEnum};

/// Tells an engine of this runtime.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Tell podman, containerd or Docker of this runtime, and prove it with one container",
    long_about = "Tell podman, containerd or Docker of this runtime, and prove it with one container.\n\n\
                  podman gets a file in containers.conf.d, root's or yours. Docker's daemon.json gets an entry, all else in \
                  it stays, and the daemon is told to read it again. containerd's config.toml, of version 2 or 3, gets an \
                  entry for its CRI plugin, comments stay, and containerd is restarted. Containers run on through all of \
                  it. The file is replaced in one step, what was there before is kept in the store, and if the proof fails \
                  the change is taken back. The engine calls the runtime `ctr`, whatever this program's file is called.\n\n\
                  The exit status is 0 when it is set up and works (with --undo: when it is undone), 1 with --check when it \
                  is not, and 125 for an error."
)]
pub struct Setup {
    /// The engine
    #[arg(value_name = "ENGINE", value_enum)]
    pub engine: Name,

    /// Say whether it is set up and works; change nothing
    #[arg(long, conflicts_with_all = ["undo", "print", "as_default", "only_write"])]
    pub check: bool,

    /// Put the settings back as they were; if others have changed them since, take this runtime out of them
    #[arg(long, conflicts_with_all = ["print", "as_default", "only_write"])]
    pub undo: bool,

    /// Print the settings as they would be; change nothing
    #[arg(long, conflicts_with_all = ["only_write", "json"])]
    pub print: bool,

    /// Make it the runtime that containers get unasked
    #[arg(long)]
    pub as_default: bool,

    /// Only write the settings: neither have the engine read them nor run a container
    #[arg(long)]
    pub only_write: bool,

    /// Print what was found or done as JSON: engine, runtime, settings, program, is_default, changed, works, proof, done
    #[arg(long)]
    pub json: bool,
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Name {
    Podman,
    Containerd,
    Docker,
}

impl Name {
    /// As it is typed.
    pub fn text(self) -> &'static str {
        match self {
            Name::Podman => "podman",
            Name::Containerd => "containerd",
            Name::Docker => "docker",
        }
    }

    /// A command that uses it.
    pub fn example(self) -> &'static str {
        match self {
            Name::Podman => "podman --runtime ctr run --rm IMAGE",
            Name::Containerd => "a RuntimeClass with `handler: ctr`, for Kubernetes",
            Name::Docker => "docker run --rm --runtime ctr IMAGE",
        }
    }
}
