//! What holds where a command line says nothing: config.toml, the environment and the global flags, read once.
//!
//! The verbs of the OCI door need two of these values and start in less than a millisecond. So the defaults
//! exist as [`Settings::default`] too (a test compares them with config.toml), and TOML is parsed only where
//! a file or a variable says something else.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use ctr_images::registry::Registries;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    cli::{
        Global,
        global::{CgroupManager, LogLevel},
        limits::Policy,
        run::Network,
    },
    size::Size,
};

/// The default configuration, as its reader knows it.
pub const CONFIG: &str = include_str!("../config.toml");

const SYSTEM_FILE: &str = "/etc/ctr/config.toml";

/// Every setting, with its final value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the state of containers is kept.
    pub root: PathBuf,
    /// Where images and root file systems are kept.
    pub store: PathBuf,
    /// What is logged.
    pub log: Log,
    /// Who makes cgroups.
    pub cgroup: Cgroup,
    /// What `run --image` begins with.
    pub run: Run,
    /// What is kept of containers that have ended.
    pub record: Record,
    /// How images are kept.
    pub image: Image,
    /// Which registries there are and how they are reached.
    pub registries: Registries,
    /// What the user should know of where these values came from.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least severe that is logged.
    pub level: LogLevel,
    /// Whether each phase of a verb is noted.
    pub trace: bool,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: LogLevel::Warn, trace: false }
    }
}

/// Who makes cgroups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cgroup {
    /// The program itself, systemd, or nobody.
    pub manager: CgroupManager,
}

impl Default for Cgroup {
    fn default() -> Self {
        Cgroup { manager: CgroupManager::Auto }
    }
}

/// What is kept of containers that have ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    /// How much.
    pub size: Size,
}

impl Default for Record {
    fn default() -> Self {
        Record { size: Size(4 << 20) }
    }
}

/// How images are kept; config.toml says what each means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Image {
    pub absolute_paths: bool,
    pub keep_layers: bool,
    pub parallel: usize,
    pub max_layer_size: Size,
    pub max_entries: u64,
}

impl Default for Image {
    fn default() -> Self {
        Image {
            absolute_paths: false,
            keep_layers: true,
            parallel: 0,
            max_layer_size: Size(64 << 30),
            max_entries: 4_000_000,
        }
    }
}

/// What `run --image` begins with; config.toml says what each means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Run {
    pub limits: Policy,
    pub capabilities: Vec<String>,
    pub seccomp: String,
    pub network: Network,
    pub env: Vec<String>,
    pub ulimits: Vec<String>,
    pub mounts: Vec<String>,
    pub cdi_dirs: Vec<PathBuf>,
    pub shm_size: Size,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub stop_timeout: u64,
    pub log_size: Size,
}

impl Default for Run {
    fn default() -> Self {
        let list = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Run {
            limits: Policy::Require,
            capabilities: list(&CAPABILITIES),
            seccomp: "default".to_owned(),
            network: Network::None,
            env: list(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            ulimits: Vec::new(),
            mounts: Vec::new(),
            cdi_dirs: ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec(),
            shm_size: Size(64 << 20),
            masked_paths: list(&MASKED_PATHS),
            readonly_paths: list(&READONLY_PATHS),
            stop_timeout: 10,
            log_size: Size(16 << 20),
        }
    }
}

const CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const MASKED_PATHS: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Who calls, as far as settings depend on it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The effective user.
    pub uid: u32,
    /// The same user as the world outside our user namespace knows it.
    pub outer_uid: u32,
    /// /run is root's: the machine is ours, or the container whose root we are.
    pub owns_run: bool,
    /// The variables that settings come from.
    pub variables: BTreeMap<OsString, OsString>,
}

/// What the names of variables begin with that settings come from.
const VARIABLES: [&[u8]; 3] = [b"CTR_", b"XDG_", b"HOME"];

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let concerns =
            |name: &OsString| VARIABLES.iter().any(|start| name.as_encoded_bytes().starts_with(start));
        let uid = nix::unistd::geteuid().as_raw();
        let owns_run = uid == 0 && fs::metadata("/run").is_ok_and(|run| run.uid() == 0);
        let outer_uid = if uid == 0 && !owns_run { outer_uid(&uid_map(), uid) } else { uid };
        let variables = std::env::vars_os().filter(|(name, _)| concerns(name)).collect();
        Environment { uid, outer_uid, owns_run, variables }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.variables.get(&OsString::from(name)).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    }

    /// A directory of the user's own by the XDG rules: a variable's, or one below the home directory.
    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        self.path(name).or_else(|| Some(self.path("HOME")?.join(below_home)))
    }

    /// Whether the machine's own directories are this caller's.
    ///
    /// An engine that runs without privileges makes itself root of a user namespace before it calls a
    /// runtime; there the user's own directories are meant.
    fn is_system(&self) -> bool {
        self.uid == 0 && self.owns_run
    }

    fn default_root(&self, is_system: bool) -> PathBuf {
        match self.path("XDG_RUNTIME_DIR") {
            _ if is_system => PathBuf::from("/run/ctr"),
            Some(directory) => directory.join("ctr"),
            None => PathBuf::from(format!("/tmp/ctr-{}", self.outer_uid)),
        }
    }

    fn default_store(&self, is_system: bool) -> PathBuf {
        match self.xdg("XDG_DATA_HOME", ".local/share") {
            Some(directory) if !is_system => directory.join("ctr"),
            _ if is_system => PathBuf::from("/var/lib/ctr"),
            // Nowhere: whoever needs it says so.
            _ => PathBuf::new(),
        }
    }

    fn user_file(&self, is_system: bool) -> Option<PathBuf> {
        if is_system {
            return None;
        }
        Some(self.xdg("XDG_CONFIG_HOME", ".config")?.join("ctr/config.toml"))
    }
}

/// Whether user ids here are not the machine's: the initial namespace maps all of them to themselves.
pub(crate) fn in_user_namespace() -> bool {
    !uid_map().split_whitespace().eq(["0", "0", "4294967295"])
}

fn uid_map() -> String {
    fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
}

/// Whom `map`, worded as user_namespaces(7), has outside for `uid`.
fn outer_uid(map: &str, uid: u32) -> u32 {
    let outer = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        uid.checked_sub(inside).filter(|offset| *offset < count).map(|offset| outside + offset)
    };
    map.lines().find_map(outer).unwrap_or(uid)
}

impl Settings {
    /// Reads what holds for this process.
    pub fn read(flags: &Global) -> Result<Settings> {
        Settings::read_from(Path::new(SYSTEM_FILE), &Environment::of_process(), flags)
    }

    fn read_from(system_file: &Path, environment: &Environment, flags: &Global) -> Result<Settings> {
        let is_system = environment.is_system();
        let mut table = Table::new();
        merge(&mut table, read_file(system_file, &[io::ErrorKind::NotFound])?);
        if let Some(file) = environment.user_file(is_system) {
            // A home directory that is another's (after setpriv, say) holds no settings of this user.
            merge(&mut table, read_file(&file, &[io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied])?);
        }
        let (variables, warnings) = read_variables(environment)?;
        merge(&mut table, variables);
        let mut settings = if table.is_empty() { Settings::default() } else { table.try_into()? };
        settings.warnings = warnings;
        settings.apply(flags);
        settings.locate(environment, is_system);
        Ok(settings)
    }

    fn apply(&mut self, flags: &Global) {
        if let Some(root) = &flags.root {
            self.root.clone_from(root);
        }
        if let Some(manager) = flags.systemd_cgroup.then_some(CgroupManager::Systemd).or(flags.cgroup_manager)
        {
            self.cgroup.manager = manager;
        }
        if let Some(level) = flags.log_level.or(flags.debug.then_some(LogLevel::Debug)) {
            self.log.level = level;
        }
        self.log.trace |= flags.trace;
    }

    /// Finds the directories that nothing has named.
    fn locate(&mut self, environment: &Environment, is_system: bool) {
        if self.root.as_os_str().is_empty() {
            self.root = environment.default_root(is_system);
        }
        if self.store.as_os_str().is_empty() {
            self.store = environment.default_store(is_system);
        }
    }
}

/// Lays `over` on `under`: tables key by key, all else whole.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// The settings in `file`; none if it cannot be read for one of the `forgiven` reasons.
fn read_file(file: &Path, forgiven: &[io::ErrorKind]) -> Result<Table> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if forgiven.contains(&error.kind()) => return Ok(Table::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    toml::from_str::<Settings>(&text).map_err(|error| explain(file, &text, &error))?;
    Ok(text.parse()?)
}

/// Says where in `file` the mistake is, and what was probably meant.
fn explain(file: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = &text[..error.span().map_or(0, |span| span.start)];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
    let meant =
        did_you_mean(error.message()).map(|key| format!("; did you mean `{key}`?")).unwrap_or_default();
    anyhow!("{}:{line}:{column}: {}{meant}", file.display(), error.message())
}

/// What the words of the environment say, and warnings of those that say nothing.
fn read_variables(environment: &Environment) -> Result<(Table, Vec<String>)> {
    let mut table = Table::new();
    let mut warnings = Vec::new();
    for (name, text) in &environment.variables {
        let (Some(key), Some(text)) =
            (name.to_str().and_then(|name| name.strip_prefix("CTR_")), text.to_str())
        else {
            continue;
        };
        match read_variable(key, text) {
            Ok(setting) => merge(&mut table, setting),
            // Others use the prefix too: only what resembles a setting is worth a word.
            Err(error) if error.message().starts_with("unknown field") => {
                let meant = did_you_mean(error.message());
                warnings.extend(meant.map(|meant| {
                    format!("CTR_{key} is not a setting and is ignored; did you mean {}?", near(key, meant))
                }));
            }
            Err(error) => return Err(anyhow!("CTR_{key}={text}: {}", error.message())),
        }
    }
    Ok((table, warnings))
}

/// The setting in one variable. A value may be worded as in TOML; a string needs no quotes.
fn read_variable(key: &str, text: &str) -> Result<Table, toml::de::Error> {
    let plain = setting(key, Value::String(text.to_owned()));
    let worded = text.parse().map(|value| setting(key, value));
    let read = |table: &Table| table.clone().try_into::<Settings>();
    match worded {
        Ok(worded) if read(&worded).is_ok() => Ok(worded),
        _ => read(&plain).map(|_| plain),
    }
}

/// The variable that was meant by `key`, whose last part should have been `meant`.
fn near(key: &str, meant: &str) -> String {
    let section = key.split_once('_').map(|(section, _)| section.to_ascii_lowercase());
    let section = section.filter(|section| SECTIONS.contains(&section.as_str()));
    let name = section.map_or_else(|| meant.to_owned(), |section| format!("{section}_{meant}"));
    format!("CTR_{}", name.to_ascii_uppercase())
}

/// A table with one setting, whose section is the first word of `key`.
fn setting(key: &str, value: Value) -> Table {
    let key = key.to_ascii_lowercase();
    match key.split_once('_').filter(|(section, _)| SECTIONS.contains(section)) {
        Some((section, key)) => Table::from_iter([(section.to_owned(), setting_in(key, value))]),
        None => Table::from_iter([(key, value)]),
    }
}

fn setting_in(key: &str, value: Value) -> Value {
    Value::Table(Table::from_iter([(key.to_owned(), value)]))
}

const SECTIONS: [&str; 6] = ["log", "cgroup", "run", "record", "image", "registries"];

/// The known key nearest to the unknown one, from serde's list of both in `message`.
fn did_you_mean(message: &str) -> Option<&str> {
    let mut names = message.strip_prefix("unknown field `")?.split('`').step_by(2);
    let unknown = names.next()?;
    let near = names.map(|known| (distance(unknown, known), known)).min()?;
    (near.0 <= 1 + unknown.len() / 4).then_some(near.1)
}

/// How many letters must be put in, taken out or changed to make `b` of `a` (Levenshtein).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(uid: u32, variables: &[(&str, &str)]) -> Environment {
        Environment {
            uid,
            outer_uid: uid,
            owns_run: uid == 0,
            variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    fn read(system: &str, uid: u32, variables: &[(&str, &str)], flags: &Global) -> Result<Settings> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("config.toml");
        fs::write(&file, system)?;
        let read = Settings::read_from(&file, &environment(uid, variables), flags);
        read.map_err(|error| anyhow!(format!("{error:#}").replace(&file.display().to_string(), "FILE")))
    }

    fn error(system: &str, variables: &[(&str, &str)]) -> String {
        read(system, 0, variables, &Global::default()).unwrap_err().to_string()
    }

    #[test]
    fn the_file_and_the_compiled_in_defaults_are_the_same() {
        assert_eq!(toml::from_str::<Settings>(CONFIG).unwrap(), Settings::default());
        let written: Table = CONFIG.parse().unwrap();
        assert_eq!(written, Table::try_from(Settings::default()).unwrap(), "config.toml names every setting");
    }

    #[test]
    fn without_files_or_variables_the_defaults_hold() {
        let absent = Path::new("/nonexistent/config.toml");
        let root = Settings::read_from(absent, &environment(0, &[]), &Global::default()).unwrap();
        assert_eq!((root.root, root.store), ("/run/ctr".into(), "/var/lib/ctr".into()));
        let variables = [("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/u")];
        let user = Settings::read_from(absent, &environment(7, &variables), &Global::default()).unwrap();
        assert_eq!((user.root, user.store), ("/run/user/7/ctr".into(), "/home/u/.local/share/ctr".into()));
        let bare = Settings::read_from(absent, &environment(7, &[]), &Global::default()).unwrap();
        assert_eq!(bare.root, Path::new("/tmp/ctr-7"));
        let root_of_a_namespace =
            Environment { outer_uid: 7, owns_run: false, ..environment(0, &[("HOME", "/home/u")]) };
        let nested = Settings::read_from(absent, &root_of_a_namespace, &Global::default()).unwrap();
        assert_eq!((nested.root, nested.store), (bare.root, "/home/u/.local/share/ctr".into()));
        assert_eq!(bare.run, Run::default());
    }

    #[test]
    fn later_wins() {
        let system = "root = '/file'\n[cgroup]\nmanager = 'systemd'\n[run]\nstop_timeout = 3\nenv = ['A=1']";
        let settings = read(system, 0, &[], &Global::default()).unwrap();
        assert_eq!((settings.root.to_str(), settings.run.stop_timeout), (Some("/file"), 3));
        assert_eq!(
            (settings.cgroup.manager, settings.run.env),
            (CgroupManager::Systemd, vec!["A=1".to_owned()])
        );
        assert_eq!(settings.run.capabilities, Run::default().capabilities);

        let variables =
            [("CTR_ROOT", "/variable"), ("CTR_RUN_STOP_TIMEOUT", "4"), ("CTR_RUN_ENV", "['B=2']")];
        let settings = read(system, 0, &variables, &Global::default()).unwrap();
        assert_eq!((settings.root.to_str(), settings.run.stop_timeout), (Some("/variable"), 4));
        assert_eq!(settings.run.env, ["B=2"]);

        let flags = Global {
            root: Some("/flag".into()),
            cgroup_manager: Some(CgroupManager::Disabled),
            debug: true,
            ..Global::default()
        };
        let settings = read(system, 0, &variables, &flags).unwrap();
        assert_eq!((settings.root.to_str(), settings.log.level), (Some("/flag"), LogLevel::Debug));
        assert_eq!(settings.cgroup.manager, CgroupManager::Disabled);
    }

    #[test]
    fn an_ordinary_user_has_a_file_of_his_own() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".config/ctr")).unwrap();
        fs::write(home.path().join(".config/ctr/config.toml"), "store = '/mine'").unwrap();
        let variables = [("HOME", home.path().to_str().unwrap())];
        let settings = read("store = '/system'\nroot = '/r'", 7, &variables, &Global::default()).unwrap();
        assert_eq!((settings.store.to_str(), settings.root.to_str()), (Some("/mine"), Some("/r")));
        let settings = read("store = '/system'", 0, &variables, &Global::default()).unwrap();
        assert_eq!(settings.store.to_str(), Some("/system"));
    }

    #[test]
    fn a_mistake_in_a_file_is_shown_with_its_place_and_what_was_meant() {
        let text = error("[run]\nenv = []\n  stop_timout = 3\n", &[]);
        assert!(text.starts_with("FILE:3:3: unknown field `stop_timout`"), "{text}");
        assert!(text.ends_with("did you mean `stop_timeout`?"), "{text}");
        assert!(
            error("[cgroup]\nmanager = 'system'", &[]).starts_with("FILE:2:11: unknown variant `system`")
        );
        assert!(error("root = \n", &[]).starts_with("FILE:1:"));
        assert!(!error("frobnicate = 1", &[]).contains("did you mean"));
        assert!(error("[run]\nshm_size = '64X'", &[]).contains("\"64X\" is not a size"));
    }

    #[test]
    fn a_mistake_in_a_variable_names_it() {
        let text = error("", &[("CTR_LOG_LEVEL", "loud")]);
        assert!(text.starts_with("CTR_LOG_LEVEL=loud: unknown variant"), "{text}");
        let variables = [("CTR_SERVICE_HOST", "10.0.0.1"), ("CTR_ROOTS", "/x"), ("CTR_RUN_STOP_TIMOUT", "1")];
        let settings = read("", 0, &variables, &Global::default()).unwrap();
        assert_eq!(
            settings.warnings,
            [
                "CTR_ROOTS is not a setting and is ignored; did you mean CTR_ROOT?",
                "CTR_RUN_STOP_TIMOUT is not a setting and is ignored; did you mean CTR_RUN_STOP_TIMEOUT?"
            ]
        );
    }
}
