//! `image`: the verbs of the image door.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Fetches, keeps and hands on images.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Fetch, list, name, send and remove images",
    subcommand_required = true,
    arg_required_else_help = true,
    subcommand_value_name = "VERB"
)]
pub struct Image {
    /// What is done
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is done with images.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Fetch images: of a registry by NAME, or oci:DIR[:REF], oci-archive:FILE, docker-archive:FILE, dir:DIR
    Pull(Pull),
    /// List the images that are here
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Print all that is known of images, as JSON
    Inspect(Names),
    /// Print how an image was made
    History(History),
    /// Give an image another name
    Tag(Tag),
    /// Take names from images; what then has none is removed
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Remove what no name and no container needs
    Prune(Prune),
    /// Send an image to a registry, or to oci:DIR[:REF], dir:DIR
    Push(Push),
    /// Write an image into an archive
    Save(Save),
    /// Take images out of an archive, a layout or a directory
    Load(Load),
    /// Make an image of a root file system: a tar archive or a directory
    Import(Import),
    /// Check that what is here is what it was, and mend what can be mended
    Fsck(Fsck),
    /// Tell a registry who you are, and keep that for later
    Login(Login),
    /// Forget what a registry was told
    Logout(Logout),
}

/// How one wants to hear of what is going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A line for each part.
    Plain,
    /// A JSON object for each step.
    Json,
    /// Nothing.
    None,
}

/// What reaches for a registry has in common.
#[derive(Args, Clone, Debug, Default)]
pub struct Transfer {
    /// Who you are there; better is `image login`, for others see this line
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,

    /// Allow plain HTTP and a certificate that nobody vouches for
    #[arg(long)]
    pub insecure: bool,

    /// How progress is shown: auto, plain, json or none
    #[arg(
        long,
        value_name = "HOW",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub progress: Progress,

    /// Print only what a program needs
    #[arg(short, long)]
    pub quiet: bool,
}

/// `image pull`.
#[derive(Args, Clone, Debug)]
pub struct Pull {
    /// Which
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// For which machine, as linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    /// What it is called here, where the source has no name for it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub transfer: Transfer,
}

/// `image ls`.
#[derive(Args, Clone, Debug)]
pub struct Ls {
    /// Only images whose name has this in it
    #[arg(value_name = "TEXT")]
    pub filter: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print only IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// Images by name or ID.
#[derive(Args, Clone, Debug)]
pub struct Names {
    /// Which: a name, or the beginning of an ID
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// `image history`.
#[derive(Args, Clone, Debug)]
pub struct History {
    /// Which
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `image tag`.
#[derive(Args, Clone, Debug)]
pub struct Tag {
    /// Which
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// What it is called too
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `image rm`.
#[derive(Args, Clone, Debug)]
pub struct Rm {
    /// Which: a name, or the beginning of an ID, which takes all names
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// Say nothing of what is not there
    #[arg(short, long)]
    pub force: bool,
}

/// `image prune`.
#[derive(Args, Clone, Debug)]
pub struct Prune {
    /// Also images that have names, but no container
    #[arg(short, long)]
    pub all: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `image push`.
#[derive(Args, Clone, Debug)]
pub struct Push {
    /// Which
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Where to: another name, oci:DIR[:REF] or dir:DIR; without it, where its name says
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub transfer: Transfer,
}

/// `image save`.
#[derive(Args, Clone, Debug)]
pub struct Save {
    /// Which
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Into this file; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,

    /// oci-archive, or docker-archive, which Docker reads
    #[arg(long, value_name = "FORMAT", default_value = "oci-archive")]
    pub format: Format,
}

/// In which form an image is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A tar of an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
}

/// `image load`.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// From this file or directory; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub input: PathBuf,

    /// Print only what a program needs
    #[arg(short, long)]
    pub quiet: bool,
}

/// `image import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// The archive or the directory
    #[arg(value_name = "PATH")]
    pub source: PathBuf,

    /// What the image is called
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The program that its containers run: a JSON array, or a line for a shell
    #[arg(long, value_name = "CMD")]
    pub cmd: Option<String>,

    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
}

/// `image login`.
#[derive(Args, Clone, Debug)]
pub struct Login {
    /// The registry's host, with its port where it has one
    #[arg(value_name = "REGISTRY")]
    pub registry: String,

    /// Your name there; without it one is asked for
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,

    /// The file in which that is kept
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// Allow plain HTTP and a certificate that nobody vouches for
    #[arg(long)]
    pub insecure: bool,
}

/// `image logout`.
#[derive(Args, Clone, Debug)]
pub struct Logout {
    /// The registry's host
    #[arg(value_name = "REGISTRY")]
    pub registry: String,

    /// The file in which that is kept
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

/// `image fsck`.
#[derive(Args, Clone, Debug)]
pub struct Fsck {
    /// Only say what is damaged
    #[arg(long)]
    pub check: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
