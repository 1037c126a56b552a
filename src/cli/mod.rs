//! The command line: types that say what was typed, and nothing of what it means.
//!
//! Building clap's tree of all verbs takes longer than many a verb itself. So [`parse`] first tries [`plain`], which
//! reads what engines send, then builds the global flags and the one verb that is named; whatever is unusual there
//! (help, a mistake, an unknown verb) is left to the whole tree, which alone words what the user reads.

pub mod checkpoint;
mod examples;
pub mod global;
pub mod image;
pub mod limits;
pub mod oci;
mod one_dash;
mod plain;
pub mod run;
pub mod setup;
#[cfg(test)]
mod tests;
pub mod why;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub use global::Global;

/// A verb and its flags.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Verb {
    Create(oci::Create),
    Start(oci::Start),
    Run(Box<run::Run>),
    Exec(Box<oci::Exec>),
    Kill(oci::Kill),
    Delete(oci::Delete),
    State(oci::State),
    List(oci::List),
    Ps(oci::Ps),
    Pause(oci::Pause),
    Resume(oci::Resume),
    Checkpoint(Box<checkpoint::Checkpoint>),
    Restore(Box<checkpoint::Restore>),
    Mounts(oci::Mounts),
    Spec(oci::Spec),
    Features(oci::Features),
    Plan(oci::Plan),
    Update(Box<limits::Update>),
    Events(limits::Events),
    Fit(limits::Fit),
    Limits(limits::Limits),
    Logs(run::Logs),
    Why(why::Why),
    Trace(why::Trace),
    Stuck(why::Stuck),
    Attach(run::Attach),
    Stop(run::Stop),
    Restart(run::Restart),
    Doctor(run::Doctor),
    Setup(setup::Setup),
    Image(Box<image::Image>),
    Completion(run::Completion),
    Man(run::Man),
}

impl Verb {
    /// What changes a container: the name of the verb, and of the container where it is known.
    pub fn traced(&self) -> Option<(&'static str, Option<&str>)> {
        Some(match self {
            Verb::Create(flags) => ("create", Some(&flags.id)),
            Verb::Start(flags) => ("start", Some(&flags.id)),
            Verb::Run(flags) => ("run", flags.name()),
            Verb::Exec(flags) => ("exec", Some(&flags.id)),
            Verb::Kill(flags) => ("kill", Some(&flags.id)),
            Verb::Delete(flags) => ("delete", Some(&flags.id)),
            Verb::Pause(flags) => ("pause", Some(&flags.id)),
            Verb::Resume(flags) => ("resume", Some(&flags.id)),
            Verb::Update(flags) => ("update", Some(&flags.id)),
            Verb::Mounts(flags) => ("mounts", Some(&flags.id)),
            Verb::Checkpoint(flags) => ("checkpoint", Some(&flags.id)),
            Verb::Restore(flags) => ("restore", Some(&flags.id)),
            Verb::Stop(flags) => ("stop", flags.ids.first().map(String::as_str)),
            Verb::Restart(flags) => ("restart", flags.ids.first().map(String::as_str)),
            _ => return None,
        })
    }

    /// The status for an error of our own: podman's at the doors with its manners, else runc's.
    pub fn own_error_status(&self) -> u8 {
        match self {
            Verb::Run(run) if run.is_image_door() => 125,
            Verb::Logs(_) | Verb::Attach(_) | Verb::Stop(_) | Verb::Restart(_) => 125,
            Verb::Doctor(_) | Verb::Setup(_) | Verb::Image(_) => 125,
            // As runc: 1 may be the program's own.
            Verb::Exec(_) => 255,
            _ => 1,
        }
    }
}

/// How one verb is built and read.
struct Entry {
    name: &'static str,
    build: fn(Command) -> Command,
    read: fn(&ArgMatches) -> Result<Verb, clap::Error>,
    hidden: bool,
}

macro_rules! entry {
    ($name:literal, $type:ty, $verb:expr) => {
        entry!($name, $type, $verb, false)
    };
    ($name:literal, $type:ty, $verb:expr, $hidden:literal) => {
        Entry {
            name: $name,
            build: |command| as_go(<$type>::augment_args(command)),
            read: |matches| <$type>::from_arg_matches(matches).map($verb),
            hidden: $hidden,
        }
    };
}

/// As callers know flags from Go: the last of several counts, and a number may be negative.
fn as_go(command: Command) -> Command {
    let lenient = |arg: Arg| match arg.get_action().takes_values() && !arg.is_allow_hyphen_values_set() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    let mut command = command.args_override_self(true).mut_args(lenient);
    for verb in command.get_subcommands_mut() {
        *verb = as_go(std::mem::take(verb));
    }
    command
}

/// Every verb, in the order of the help text.
const VERBS: &[Entry] = &[
    entry!("run", run::Run, |run| Verb::Run(Box::new(run))),
    entry!("exec", oci::Exec, |exec| Verb::Exec(Box::new(exec))),
    entry!("logs", run::Logs, Verb::Logs),
    entry!("why", why::Why, Verb::Why),
    entry!("trace", why::Trace, Verb::Trace),
    entry!("stuck", why::Stuck, Verb::Stuck),
    entry!("attach", run::Attach, Verb::Attach),
    entry!("stop", run::Stop, Verb::Stop),
    entry!("restart", run::Restart, Verb::Restart),
    entry!("list", oci::List, Verb::List),
    entry!("ps", oci::Ps, Verb::Ps),
    entry!("state", oci::State, Verb::State),
    entry!("create", oci::Create, Verb::Create),
    entry!("start", oci::Start, Verb::Start),
    entry!("kill", oci::Kill, Verb::Kill),
    entry!("delete", oci::Delete, Verb::Delete),
    entry!("pause", oci::Pause, Verb::Pause),
    entry!("resume", oci::Resume, Verb::Resume),
    entry!("checkpoint", checkpoint::Checkpoint, |flags| Verb::Checkpoint(Box::new(flags))),
    entry!("restore", checkpoint::Restore, |flags| Verb::Restore(Box::new(flags))),
    entry!("mounts", oci::Mounts, Verb::Mounts),
    entry!("limits", limits::Limits, Verb::Limits),
    entry!("update", limits::Update, |update| Verb::Update(Box::new(update))),
    entry!("events", limits::Events, Verb::Events),
    entry!("fit", limits::Fit, Verb::Fit),
    entry!("plan", oci::Plan, Verb::Plan),
    entry!("doctor", run::Doctor, Verb::Doctor),
    entry!("setup", setup::Setup, Verb::Setup),
    entry!("image", image::Image, |image| Verb::Image(Box::new(image))),
    entry!("spec", oci::Spec, Verb::Spec),
    entry!("features", oci::Features, Verb::Features),
    entry!("completion", run::Completion, Verb::Completion),
    entry!("man", run::Man, Verb::Man, true),
];

/// The verbs whose manners are podman's, so that a mistake in their flags ends with 125.
const PODMAN_MANNERS: [&str; 7] = ["logs", "attach", "stop", "restart", "doctor", "setup", "image"];

/// The flags by which `run` is known to be meant at the image door, whatever is wrong with the others.
const IMAGE_DOOR: [&str; 4] = ["--image", "--rootfs", "--rm", "--name"];

/// Why the program ends before it has begun: a mistake in the flags, or a question answered.
#[derive(Debug)]
pub struct Exit {
    error: clap::Error,
    status: u8,
}

impl Exit {
    /// Prints the answer or the mistake; what is returned is the exit status.
    pub fn print(self) -> u8 {
        // Nobody is left to tell that standard error is closed.
        let _ = self.error.print();
        self.status
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// What is printed, without colour.
    pub fn text(&self) -> String {
        self.error.render().to_string()
    }
}

/// Reads the command line, `argv[0]` included.
pub fn parse(argv: Vec<OsString>) -> Result<(Global, Verb), Exit> {
    if let Some(parsed) = plain::parse(&argv) {
        return Ok(parsed);
    }
    let program = program_name(&argv);
    let globals = as_go(Global::augment_args(Command::new(""))).allow_external_subcommands(true);
    let argv = one_dash::lengthen(&globals, argv);
    let Some((global, verb, rest)) = read_global(globals, &argv) else {
        return read_whole(&program, &argv);
    };
    let command = (verb.build)(Command::new(verb.name));
    let rest = one_dash::lengthen(&command, rest);
    match command.try_get_matches_from(&rest).and_then(|matches| (verb.read)(&matches)) {
        Ok(verb) => Ok((global, verb)),
        Err(_) => {
            let before = argv.len() - rest.len();
            read_whole(&program, &[&argv[..before], &rest].concat())
        }
    }
}

/// Reads what precedes the verb; none where that is not a plain matter.
fn read_global(globals: Command, argv: &[OsString]) -> Option<(Global, &'static Entry, Vec<OsString>)> {
    let matches = globals.disable_help_flag(true).try_get_matches_from(argv).ok()?;
    let (name, after) = matches.subcommand()?;
    let verb = VERBS.iter().find(|verb| verb.name == name)?;
    let after = after.get_many::<OsString>("").into_iter().flatten().cloned();
    Some((
        Global::from_arg_matches(&matches).ok()?,
        verb,
        std::iter::once(name.into()).chain(after).collect(),
    ))
}

/// Reads the whole line with the whole tree.
fn read_whole(program: &str, argv: &[OsString]) -> Result<(Global, Verb), Exit> {
    read_tree(tree(program), argv)
        .map_err(|error| Exit { status: status(&error, argv), error: reword(error) })
}

/// podman looks for runc's words, or crun's, to know whether a runtime has a flag.
fn reword(error: clap::Error) -> clap::Error {
    let is_missing =
        matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if value.is_empty());
    match error.get(ContextKind::InvalidArg) {
        Some(flag) if is_missing && error.kind() == ErrorKind::InvalidValue => {
            clap::Error::raw(error.kind(), format!("flag needs an argument: {flag}\n"))
        }
        _ => error,
    }
}

fn read_tree(tree: Command, argv: &[OsString]) -> Result<(Global, Verb), clap::Error> {
    let matches = tree.try_get_matches_from(argv)?;
    let missing = || clap::Error::new(ErrorKind::MissingSubcommand);
    let (name, flags) = matches.subcommand().ok_or_else(missing)?;
    let verb = VERBS.iter().find(|verb| verb.name == name).ok_or_else(missing)?;
    Ok((Global::from_arg_matches(&matches)?, (verb.read)(flags)?))
}

/// All verbs and flags, for help, completion, manual pages and mistakes.
pub fn tree(program: &str) -> Command {
    let root = as_go(Global::augment_args(Command::new(program.to_owned())))
        .about("Containers and zones on one Linux kernel, and an OCI runtime")
        .long_about(None)
        .version(version())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_version_flag(true)
        .arg(version_flag());
    let verbs = VERBS.iter().map(|verb| {
        let command = (verb.build)(Command::new(verb.name)).hide(verb.hidden);
        match examples::of(verb.name, program) {
            Some(text) => command.after_help(text),
            None => command,
        }
    });
    root.subcommands(verbs)
}

/// `--version`, which is `-v` for runc and `-V` for crun.
fn version_flag() -> Arg {
    Arg::new("version")
        .short('v')
        .short_alias('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the versions of this program and of the specification")
}

/// What follows the program's name in the answer to `--version`; podman and others look at its last line.
fn version() -> String {
    let commit = option_env!("CTR_COMMIT").map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!(
        "version {}\n{commit}spec: {SPEC_VERSION}\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU",
        env!("CARGO_PKG_VERSION")
    )
}

/// The version of the runtime specification that is implemented.
pub const SPEC_VERSION: &str = "1.3.0";

/// The name the program was called by, which its texts use: it may be installed under any.
pub fn program_name(argv: &[OsString]) -> String {
    let name = argv.first().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    name.unwrap_or("ctr").to_owned()
}

/// 0 for an answer; for a mistake runc's 1, or podman's 125 where the manners are podman's.
fn status(error: &clap::Error, argv: &[OsString]) -> u8 {
    if !error.use_stderr() {
        return 0;
    }
    let ours = argv.iter().skip(1).take_while(|word| *word != "--");
    let mut words = ours.filter_map(|word| word.to_str());
    let podman = match words.find(|word| VERBS.iter().any(|verb| verb.name == *word)) {
        Some("run") => words.any(|word| IMAGE_DOOR.iter().any(|flag| word.starts_with(flag))),
        Some(verb) => PODMAN_MANNERS.contains(&verb),
        None => false,
    };
    if podman { 125 } else { 1 }
}
