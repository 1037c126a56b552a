//! What was asked for, settled: flags over settings, and the files they name read.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use ctr_images::manifest::Execution;
use oci_spec::runtime::{
    LinuxResources, LinuxSeccomp, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};

use super::{
    Caller,
    capabilities::Granted,
    devices::{self, Devices},
    limits, mounts, profile,
};
use crate::{
    cli::run::{ImageFlags, Network, Run, Seccomp, SecurityOption},
    settings::{self, Settings},
};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The container's name.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// The network it sees.
    pub network: Network,
    /// Whether its program gets a terminal.
    pub terminal: bool,
    /// As whom the program runs, if that was said: `UID[:GID]` or `NAME[:GROUP]`.
    pub user: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_directory: Option<PathBuf>,
    pub(super) mounts: Vec<Mount>,
    pub(super) devices: Devices,
    pub(super) read_only: bool,
    /// Directories of the image that its program writes to (config.md, `Volumes`).
    pub(super) volumes: Vec<PathBuf>,
    pub(super) capabilities: Granted,
    pub(super) security: Security,
    pub(super) annotations: HashMap<String, String>,
    pub(super) rlimits: Vec<PosixRlimit>,
    pub(super) resources: Option<LinuxResources>,
}

/// What `--security-opt` and the settings say.
#[derive(Clone, Debug, Default)]
pub(super) struct Security {
    pub seccomp: Option<LinuxSeccomp>,
    pub no_new_privileges: bool,
    pub apparmor: Option<String>,
    pub label: Option<String>,
}

impl Request {
    /// Whether there is a limit on what it may use.
    pub fn is_limited(&self) -> bool {
        self.resources.is_some()
    }

    /// Settles what was asked for a container called `name`; `image` is what its image says of its program.
    ///
    /// # Errors
    /// When a flag makes no sense or names a file that cannot be read.
    pub fn read(
        run: &Run,
        name: &str,
        settings: &Settings,
        caller: &Caller,
        image: &Execution,
    ) -> Result<Request> {
        let (flags, defaults) = (&run.image, &settings.run);
        let capabilities = Granted::new(&defaults.capabilities, &flags.cap_add, &flags.cap_drop)?;
        let hostname = flags.hostname.clone().unwrap_or_else(|| host_name_of(name));
        let devices = devices::read(&flags.device, &defaults.cdi_dirs)?;
        Ok(Request {
            name: name.to_owned(),
            network: flags.network.unwrap_or(defaults.network),
            terminal: flags.tty,
            user: flags.user.clone().or_else(|| image.user.clone().filter(|user| !user.is_empty())),
            args: args(flags.entrypoint.as_deref(), &run.command, image)?,
            env: environment(flags, defaults, &hostname, image, &devices.env, caller)?,
            hostname,
            working_directory: match &flags.workdir {
                Some(path) => Some(inside(path.clone())?),
                None => image
                    .working_dir
                    .as_ref()
                    .map(|path| Path::new("/").join(path))
                    .filter(|path| path != Path::new("/")),
            },
            mounts: read_mounts(flags, defaults, caller)?,
            devices,
            read_only: flags.read_only,
            volumes: image
                .volumes
                .iter()
                .flat_map(BTreeMap::keys)
                .map(|path| Path::new("/").join(path))
                .collect(),
            security: security(flags, defaults, capabilities.bounding)?,
            capabilities,
            annotations: flags.annotation.iter().map(|text| annotation(text)).collect::<Result<_>>()?,
            rlimits: read_rlimits(defaults.ulimits.iter().chain(&flags.ulimit))?,
            resources: limits::read(&run.limits)?,
        })
    }
}

/// A host name has at most 64 letters.
fn host_name_of(name: &str) -> String {
    name.chars().take(64).collect()
}

fn inside(path: PathBuf) -> Result<PathBuf> {
    if !path.is_absolute() {
        bail!("--workdir {}: the path inside is not absolute", path.display());
    }
    Ok(path)
}

/// The program and its arguments, as podman puts them together: an entry point that was asked for takes the place of the
/// image's, and of its arguments; those that were asked for take the place of the image's.
fn args(entrypoint: Option<&str>, command: &[String], image: &Execution) -> Result<Vec<String>> {
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut args = match entrypoint {
        None => of_image(&image.entrypoint),
        Some("") => Vec::new(),
        Some(json) if json.starts_with('[') => serde_json::from_str(json)
            .with_context(|| format!("--entrypoint {json}: not a JSON array of strings"))?,
        Some(program) => vec![program.to_owned()],
    };
    match command.is_empty() && entrypoint.is_none() {
        true => args.extend(of_image(&image.cmd)),
        false => args.extend_from_slice(command),
    }
    if args.is_empty() {
        args.push("/bin/sh".to_owned());
    }
    Ok(args)
}

/// The program's environment: the settings', ours, the devices', the files', the flags'; later wins.
fn environment(
    flags: &ImageFlags,
    defaults: &settings::Run,
    hostname: &str,
    image: &Execution,
    of_devices: &[String],
    caller: &Caller,
) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    set_all(&mut variables, defaults.env.iter().map(String::as_str), caller);
    variables.insert("container".to_owned(), "ctr".to_owned());
    variables.insert("HOSTNAME".to_owned(), hostname.to_owned());
    // Only what it says in full: nothing of the caller's is an image's to take.
    let words = image.env.iter().flatten().filter_map(|word| word.split_once('='));
    variables.extend(words.map(|(key, value)| (key.to_owned(), value.to_owned())));
    if flags.tty {
        set_all(&mut variables, ["TERM=xterm", "TERM", "COLORTERM"].into_iter(), caller);
    }
    set_all(&mut variables, of_devices.iter().map(String::as_str), caller);
    for file in &flags.env_file {
        let text = fs::read_to_string(file).with_context(|| format!("--env-file {}", file.display()))?;
        let lines =
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        set_all(&mut variables, lines, caller);
    }
    set_all(&mut variables, flags.env.iter().map(String::as_str), caller);
    Ok(variables)
}

/// Sets variables worded `KEY=VALUE`, `KEY` (the caller's value, if it has one) or `KEY*` (all that begin so).
fn set_all<'a>(
    variables: &mut BTreeMap<String, String>,
    words: impl Iterator<Item = &'a str>,
    caller: &Caller,
) {
    for word in words {
        match (word.split_once('='), word.strip_suffix('*')) {
            (Some((key, value)), _) => {
                variables.insert(key.to_owned(), value.to_owned());
            }
            (None, Some(prefix)) => {
                let theirs = caller.environment.iter().filter(|(key, _)| key.starts_with(prefix));
                variables.extend(theirs.map(|(key, value)| (key.clone(), value.clone())));
            }
            (None, None) => {
                let theirs = caller.environment.get(word).map(|value| (word.to_owned(), value.clone()));
                variables.extend(theirs);
            }
        }
    }
}

/// The mounts that were asked for; a later one takes the place of an earlier one at the same path.
fn read_mounts(flags: &ImageFlags, defaults: &settings::Run, caller: &Caller) -> Result<Vec<Mount>> {
    let directory = caller.directory.as_deref();
    let worded = defaults.mounts.iter().chain(&flags.mount).map(|text| mounts::worded(text, directory));
    let volumes = flags.volume.iter().map(|text| mounts::volume(text, directory));
    let tmpfs = flags.tmpfs.iter().map(|text| mounts::tmpfs(text));
    let mut all: Vec<Mount> = Vec::new();
    for mount in worded.chain(volumes).chain(tmpfs) {
        let mount = mount?;
        all.retain(|earlier| earlier.destination() != mount.destination());
        all.push(mount);
    }
    all.sort_by_key(|mount| mount.destination().components().count());
    Ok(all)
}

fn security(flags: &ImageFlags, defaults: &settings::Run, capabilities: u64) -> Result<Security> {
    let mut security = Security::default();
    let mut seccomp = match defaults.seccomp.as_str() {
        "default" => Seccomp::Default,
        "unconfined" => Seccomp::Unconfined,
        file => Seccomp::File(file.into()),
    };
    for option in &flags.security_opt {
        match option.clone() {
            SecurityOption::Seccomp(profile) => seccomp = profile,
            SecurityOption::NoNewPrivileges(wanted) => security.no_new_privileges = wanted,
            SecurityOption::AppArmor(profile) => security.apparmor = Some(profile),
            SecurityOption::Label(label) => security.label = Some(label),
        }
    }
    security.seccomp = match seccomp {
        Seccomp::Default => Some(ctr_isolation::seccomp::default_profile(capabilities)),
        Seccomp::Unconfined => None,
        Seccomp::File(file) => Some(profile::read(&file, capabilities)?),
    };
    Ok(security)
}

fn annotation(text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| anyhow!("--annotation {text}: expected KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The limits, of which a later one takes the place of an earlier one of the same kind.
fn read_rlimits<'a>(words: impl Iterator<Item = &'a String>) -> Result<Vec<PosixRlimit>> {
    let mut all: Vec<PosixRlimit> = Vec::new();
    for text in words {
        let limit = rlimit(text).ok_or_else(|| {
            anyhow!("--ulimit {text}: expected NAME=SOFT or NAME=SOFT:HARD, as nofile=1024:4096")
        })?;
        all.retain(|earlier| earlier.typ() != limit.typ());
        all.push(limit);
    }
    Ok(all)
}

/// Reads `NAME=SOFT[:HARD]`, NAME as in ulimit's manual page: `nofile` is RLIMIT_NOFILE. -1 is unlimited.
fn rlimit(text: &str) -> Option<PosixRlimit> {
    let (name, values) = text.split_once('=')?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value =
        |text: &str| if ["-1", "unlimited"].contains(&text) { Some(u64::MAX) } else { text.parse().ok() };
    let kind: PosixRlimitType = format!("RLIMIT_{}", name.to_ascii_uppercase()).parse().ok()?;
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return None;
    }
    PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().ok()
}
