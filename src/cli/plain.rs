//! Command lines as engines send them thousands of times, read without clap: building even one verb's flags for it
//! takes longer than `state` takes. Whatever is not plain (another flag, a mistake, a word that begins with a dash where
//! a value is meant) is left to clap, which alone says what is right: a test compares the two.

use std::{ffi::OsString, slice::Iter};

use super::{
    Global, Verb,
    global::LogFormat,
    oci::{BundleFlags, Create, Delete, Exec, Format, Kill, List, Pause, Resume, Start, State},
    run::Run,
};

/// The global flags and the verb; none where that is not a plain matter.
pub(super) fn parse(argv: &[OsString]) -> Option<(Global, Verb)> {
    let mut words = Words(argv.get(1..)?.iter());
    let (global, name) = global(&mut words)?;
    let verb = match name {
        "state" => Verb::State(State { id: words.last()? }),
        "start" => Verb::Start(Start { id: words.last()? }),
        "pause" => Verb::Pause(Pause { id: words.last()? }),
        "resume" => Verb::Resume(Resume { id: words.last()? }),
        "list" if words.is_empty() => Verb::List(List { quiet: false, format: Format::Table }),
        "kill" => kill(words)?,
        "delete" => delete(words)?,
        "create" => {
            let (bundle, _, id) = bundle(words, false)?;
            Verb::Create(Create { id, bundle })
        }
        "run" => {
            let (bundle, detach, id) = bundle(words, true)?;
            Verb::Run(Box::new(Run { id: Some(id), bundle, detach, ..Run::default() }))
        }
        "exec" => exec(words)?,
        _ => return None,
    };
    Some((global, verb))
}

struct Words<'a>(Iter<'a, OsString>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.next()?.to_str()
    }

    fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// A word that is no flag.
    fn value(&mut self) -> Option<&'a str> {
        self.next().filter(|word| !word.is_empty() && !word.starts_with('-'))
    }

    /// The same, with nothing behind it.
    fn last(&mut self) -> Option<String> {
        let word = self.value()?;
        self.is_empty().then(|| word.to_owned())
    }
}

/// Sets a flag that may be given once.
fn once<T>(flag: &mut Option<T>, value: T) -> Option<()> {
    flag.is_none().then(|| *flag = Some(value))
}

/// The flags up to the verb, and its name.
fn global<'a>(words: &mut Words<'a>) -> Option<(Global, &'a str)> {
    let (mut global, mut format, mut debug, mut systemd) = (Global::default(), None, None, None);
    loop {
        match words.next()? {
            "--root" => once(&mut global.root, words.value()?.into())?,
            "--log" => once(&mut global.log, words.value()?.into())?,
            "--log-format" => match words.value()? {
                "json" => once(&mut format, LogFormat::Json)?,
                "text" => once(&mut format, LogFormat::Text)?,
                _ => return None,
            },
            "--debug" => once(&mut debug, true)?,
            "--systemd-cgroup" => once(&mut systemd, true)?,
            word if word.is_empty() || word.starts_with('-') => return None,
            verb => {
                global.log_format = format.unwrap_or_default();
                global.debug = debug.is_some();
                global.systemd_cgroup = systemd.is_some();
                return Some((global, verb));
            }
        }
    }
}

fn kill(mut words: Words<'_>) -> Option<Verb> {
    let id = words.value()?.to_owned();
    let signal = if words.is_empty() { "SIGTERM".to_owned() } else { words.last()? };
    Some(Verb::Kill(Kill { id, signal, all: false, regex: false }))
}

fn delete(mut words: Words<'_>) -> Option<Verb> {
    let force = matches!(words.0.as_slice().first()?.to_str()?, "--force" | "-f");
    if force {
        words.next();
    }
    Some(Verb::Delete(Delete { id: words.last()?, force, regex: false }))
}

/// The flags of a bundle and, where it may be given, `--detach`, up to the container's name, which is the last word.
fn bundle(mut words: Words<'_>, may_detach: bool) -> Option<(BundleFlags, bool, String)> {
    let (mut flags, mut bundle, mut detach) = (BundleFlags::default(), None, None);
    loop {
        match words.next()? {
            "--bundle" | "-b" => once(&mut bundle, words.value()?.into())?,
            "--pid-file" => once(&mut flags.pid_file, words.value()?.into())?,
            "--console-socket" => once(&mut flags.console_socket, words.value()?.into())?,
            "--detach" | "-d" if may_detach => once(&mut detach, true)?,
            word if word.is_empty() || word.starts_with('-') || !words.is_empty() => return None,
            id => {
                flags.bundle = bundle.unwrap_or_else(|| ".".into());
                return Some((flags, detach.is_some(), id.to_owned()));
            }
        }
    }
}

fn exec(mut words: Words<'_>) -> Option<Verb> {
    let id = words.value()?.to_owned();
    let mut command = vec![words.value()?.to_owned()];
    while !words.is_empty() {
        command.push(words.next()?.to_owned());
    }
    Some(Verb::Exec(Box::new(Exec { id, command, ..Exec::default() })))
}
