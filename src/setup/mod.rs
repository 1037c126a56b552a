//! `setup`: an engine is told of this runtime, shows by one container that it works, and can have its settings back.
//!
//! Each engine knows its file of settings, how to lay our part into it and take that out again (pure functions of the
//! text), and how to have the file read and a container run. What is the same for all is here. Before the file is
//! replaced, in one step, what it was and what it becomes are recorded in the store: whoever is killed in between leaves
//! the old file or the new one, and what `--undo` needs.

mod containerd;
mod docker;
mod file;
mod json;
mod podman;
mod proof;
mod record;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::{cli::setup::Name, scratch::Scratch};
use record::Record;

/// What engines call us.
const RUNTIME: &str = "ctr";

/// What is to be in an engine's settings.
#[derive(Clone, Debug)]
struct Wish {
    /// The program that the engine is to call.
    program: String,
    /// Whether it is to be what containers get unasked.
    as_default: bool,
}

/// What is in an engine's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// What the name stands for.
    program: Option<String>,
    /// Whether containers get it unasked.
    is_default: bool,
}

/// One engine.
trait Engine {
    /// Its file of settings.
    fn settings(&self) -> Result<PathBuf>;

    /// The text of the settings with our part in it.
    fn with(&self, text: Option<&str>, wish: &Wish) -> Result<String>;

    /// The text without our part, where that has become another than we wrote; `before` is what it was before us. None
    /// if nothing is left of it.
    fn without(&self, text: &str, before: Option<&str>) -> Result<Option<String>>;

    /// What of ours is in the text.
    fn found(&self, text: &str) -> Result<Found>;

    /// Whether the engine is there, to be told and to run a container.
    fn answers(&self) -> Result<()>;

    /// Whether the engine itself would take this file.
    fn accepts(&self, file: &Path) -> Result<()>;

    /// Has a running engine read its settings, the file `settings`, which was changed now or not; what was done. None if
    /// there is nothing to do.
    fn tell(&self, settings: &Path, changed: bool) -> Result<Option<String>>;

    /// What the settings must say for a moment, for a running engine to forget what `text` does not name.
    fn meanwhile(&self, _text: Option<&str>) -> Result<Option<String>> {
        Ok(None)
    }

    /// Runs one container, which is `program` itself in the root file system `root`; what it said.
    fn prove(&self, root: &Path, program: &str) -> Result<String>;
}

/// What was found or done, for people and programs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The engine.
    pub engine: &'static str,
    /// What it calls us.
    pub runtime: &'static str,
    /// Its file of settings.
    pub settings: PathBuf,
    /// The program that stands for the name there.
    pub program: Option<String>,
    /// Whether containers get it unasked.
    pub is_default: bool,
    /// Whether the file was changed now.
    pub changed: bool,
    /// Whether a container ran; none if none was tried.
    pub works: Option<bool>,
    /// What the container said, or why it did not run.
    pub proof: Option<String>,
    /// What else was done.
    pub done: Vec<String>,
}

/// An engine's settings, with what is needed to change them.
pub struct Setup {
    name: Name,
    engine: Box<dyn Engine>,
    settings: PathBuf,
    store: PathBuf,
    program: String,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("name", &self.name).field("settings", &self.settings).finish()
    }
}

impl Setup {
    /// Of the engine `name`; the record of a change is kept in `store`.
    ///
    /// # Errors
    /// When there is no place for the settings or the record, or no way to name ourselves.
    pub fn new(name: Name, store: &Path) -> Result<Setup> {
        let engine: Box<dyn Engine> = match name {
            Name::Podman => Box::new(podman::Podman::new()),
            Name::Containerd => Box::new(containerd::Containerd),
            Name::Docker => Box::new(docker::Docker::new()),
        };
        let settings = engine.settings()?;
        // A link stays one: what it leads to is replaced.
        let settings = std::fs::canonicalize(&settings).unwrap_or(settings);
        let program = std::env::current_exe().context("find out which program we are")?;
        let program = program.into_os_string().into_string();
        let Ok(program) = program else { bail!("the path of this program is not UTF-8, as settings are") };
        if store.as_os_str().is_empty() {
            bail!(
                "no place for the record of the change: neither HOME nor XDG_DATA_HOME nor CTR_STORE says where"
            );
        }
        Ok(Setup { name, engine, settings, store: store.to_owned(), program })
    }

    fn report(&self) -> Report {
        Report {
            engine: self.name.text(),
            runtime: RUNTIME,
            settings: self.settings.clone(),
            program: None,
            is_default: false,
            changed: false,
            works: None,
            proof: None,
            done: Vec::new(),
        }
    }

    fn record(&self) -> PathBuf {
        self.store.join("setup").join(format!("{}.json", self.name.text()))
    }

    /// The settings as they would be.
    ///
    /// # Errors
    /// When those that are there cannot be read or understood.
    pub fn planned(&self, as_default: bool) -> Result<String> {
        let text = file::read(&self.settings)?;
        self.lay(text.as_deref(), as_default)
    }

    fn lay(&self, text: Option<&str>, as_default: bool) -> Result<String> {
        let wish = Wish { program: self.program.clone(), as_default };
        self.engine.with(text, &wish).with_context(|| self.reading())
    }

    fn found(&self, text: Option<&str>) -> Result<Found> {
        text.map_or(Ok(Found::default()), |text| self.engine.found(text)).with_context(|| self.reading())
    }

    fn reading(&self) -> String {
        format!("read {}", self.settings.display())
    }

    /// Lays our part into the settings, has the engine read them, and runs a container; takes the change back if that
    /// fails.
    ///
    /// # Errors
    /// What went wrong; the settings are then as they were.
    pub fn make(&self, as_default: bool, only_write: bool) -> Result<Report> {
        file::check_program(Path::new(&self.program), self.name.text())?;
        if !only_write {
            self.engine.answers()?;
        }
        let _lock = record::lock(&self.record())?;
        let text = file::read(&self.settings)?;
        let wanted = self.lay(text.as_deref(), as_default)?;
        let mut report = self.report();
        report.changed = text.as_deref() != Some(wanted.as_str());
        let old = Record::read(&self.record())?;
        if report.changed {
            self.change(text.as_deref(), &wanted, old.as_ref())?;
        }
        if !only_write {
            let proven = self.engine.tell(&self.settings, report.changed).and_then(|done| {
                report.done.extend(done);
                self.prove()
            });
            match proven {
                Ok(proof) => (report.works, report.proof) = (Some(true), Some(proof)),
                Err(error) if report.changed => {
                    self.take_back(text.as_deref(), old.as_ref())?;
                    let what = format!("the change in {} was taken back", self.settings.display());
                    return Err(error.context(what));
                }
                Err(error) => return Err(error),
            }
        }
        let found = self.found(Some(&wanted))?;
        (report.program, report.is_default) = (found.program, found.is_default);
        Ok(report)
    }

    /// Records what is done, then does it.
    fn change(&self, text: Option<&str>, wanted: &str, old: Option<&Record>) -> Result<()> {
        let new = file::write_beside(&self.settings, wanted)?;
        self.engine.accepts(new.path()).with_context(|| {
            format!(
                "{} refuses {} as it would be, nothing was changed",
                self.name.text(),
                self.settings.display()
            )
        })?;
        let before = match old.filter(|old| old.settings == self.settings) {
            Some(old) if text == Some(old.after.as_str()) => old.before.clone(),
            // Others have edited it since: what is theirs stays.
            Some(old) if self.found(text)?.program.is_some() => {
                text.map_or(Ok(None), |text| self.engine.without(text, old.before.as_deref()))?
            }
            _ => text.map(str::to_owned),
        };
        let mut made = new.made().to_vec();
        made.extend(old.iter().flat_map(|old| old.made.clone()));
        let record = Record { settings: self.settings.clone(), before, after: wanted.to_owned(), made };
        record.write(&self.record())?;
        new.put_in_place()
    }

    /// After a failure: the file and the record as they were a moment ago.
    fn take_back(&self, text: Option<&str>, old: Option<&Record>) -> Result<()> {
        let made = Record::read(&self.record())?.map(|record| record.made).unwrap_or_default();
        self.put(text, made)?;
        match old {
            Some(old) => old.write(&self.record()),
            None => record::remove(&self.record()),
        }
    }

    /// Puts `text` in the settings' place and has the engine forget us; what was done. Directories that were made for
    /// the settings go, if nothing is in them.
    fn put(&self, text: Option<&str>, made: Vec<PathBuf>) -> Result<Vec<String>> {
        let told = match self.engine.meanwhile(text) {
            Ok(Some(meanwhile)) => {
                let record = Record {
                    settings: self.settings.clone(),
                    before: text.map(str::to_owned),
                    after: meanwhile,
                    made: made.clone(),
                };
                let new = file::write_beside(&self.settings, &record.after)?;
                record.write(&self.record())?;
                new.put_in_place()?;
                let told = self.engine.tell(&self.settings, true);
                file::restore(&self.settings, text, &made)?;
                told
            }
            other => {
                file::restore(&self.settings, text, &made)?;
                other.and_then(|_| self.engine.tell(&self.settings, true))
            }
        };
        // The settings are what was asked for; an engine that does not listen now reads them when it starts.
        Ok(told.unwrap_or_else(|error| Some(crate::output::chain(&error))).into_iter().collect())
    }

    fn prove(&self) -> Result<String> {
        let scratch = Scratch::make(&self.store, "setup").context("make a root file system for the proof")?;
        let program = proof::make_root(scratch.path(), &self.program)?;
        let said = self.engine.prove(scratch.path(), &program)?;
        proof::judge(&said)
    }

    /// Whether it is set up, and whether a container runs; nothing is changed.
    ///
    /// # Errors
    /// When the settings cannot be read or understood.
    pub fn check(&self) -> Result<Report> {
        let text = file::read(&self.settings)?;
        let found = self.found(text.as_deref())?;
        let mut report = self.report();
        (report.program, report.is_default) = (found.program, found.is_default);
        if report.program.is_some() {
            let proven = self.prove();
            report.works = Some(proven.is_ok());
            report.proof = Some(proven.unwrap_or_else(|error| crate::output::chain(&error)));
        }
        Ok(report)
    }

    /// Puts the settings back as they were. If others have changed them since, our part alone is taken out.
    ///
    /// # Errors
    /// When there is no record of a change, or the settings cannot be read or written.
    pub fn undo(&self) -> Result<Report> {
        let _lock = record::lock(&self.record())?;
        let text = file::read(&self.settings)?;
        let mut report = self.report();
        let Some(record) = Record::read(&self.record())?.filter(|record| record.settings == self.settings)
        else {
            if self.found(text.as_deref())?.program.is_none() {
                return Ok(report);
            }
            bail!(
                "{} has the runtime {RUNTIME}, but not from `setup`: there is no record of it in {}",
                self.settings.display(),
                self.record().display()
            );
        };
        let wanted = match text.as_deref() {
            Some(text) if text == record.after => record.before.clone(),
            Some(text) if self.found(Some(text))?.program.is_some() => {
                report
                    .done
                    .push("others have changed the settings since: only our part was taken out".to_owned());
                self.engine.without(text, record.before.as_deref()).with_context(|| self.reading())?
            }
            other => other.map(str::to_owned),
        };
        report.changed = text != wanted;
        report.done.extend(self.put(wanted.as_deref(), record.made)?);
        record::remove(&self.record())?;
        let found = self.found(wanted.as_deref())?;
        (report.program, report.is_default) = (found.program, found.is_default);
        Ok(report)
    }
}
