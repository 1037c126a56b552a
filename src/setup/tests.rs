//! What is the same for all engines, with one whose settings are lines.

use std::{cell::Cell, fs, rc::Rc};

use super::*;

/// `ours PROGRAM` and `default` are our part of its settings.
#[derive(Clone, Debug, Default)]
struct Fake {
    refuses: Rc<Cell<bool>>,
    fails: Rc<Cell<bool>>,
    told: Rc<Cell<usize>>,
}

impl Engine for Fake {
    fn settings(&self) -> Result<PathBuf> {
        bail!("the test says where")
    }

    fn with(&self, text: Option<&str>, wish: &Wish) -> Result<String> {
        let text = text.unwrap_or_default();
        let found = self.found(text)?;
        if found.program.is_some() && (found.is_default || !wish.as_default) {
            return Ok(text.to_owned());
        }
        let theirs = self.without(text, None)?.unwrap_or_default();
        let default = if wish.as_default { "default\n" } else { "" };
        Ok(format!("{theirs}ours {}\n{default}", wish.program))
    }

    fn without(&self, text: &str, _before: Option<&str>) -> Result<Option<String>> {
        let theirs =
            text.split_inclusive('\n').filter(|line| !line.starts_with("ours") && *line != "default\n");
        Ok(Some(theirs.collect::<String>()).filter(|text| !text.is_empty()))
    }

    fn found(&self, text: &str) -> Result<Found> {
        if text.contains("malformed") {
            bail!("line 1 is malformed");
        }
        let program = text.lines().find_map(|line| line.strip_prefix("ours ")).map(str::to_owned);
        Ok(Found { program, is_default: text.contains("default\n") })
    }

    fn answers(&self) -> Result<()> {
        Ok(())
    }

    fn accepts(&self, _file: &Path) -> Result<()> {
        if self.refuses.get() { bail!("not so") } else { Ok(()) }
    }

    fn tell(&self, _settings: &Path, _changed: bool) -> Result<Option<String>> {
        self.told.set(self.told.get() + 1);
        Ok(None)
    }

    fn meanwhile(&self, text: Option<&str>) -> Result<Option<String>> {
        Ok(Some(format!("{}meanwhile\n", text.unwrap_or_default())))
    }

    fn prove(&self, root: &Path, program: &str) -> Result<String> {
        assert!(root.join(program.trim_start_matches('/')).is_file());
        if self.fails.get() {
            bail!("no container")
        } else {
            Ok(format!("x version {}\n", env!("CARGO_PKG_VERSION")))
        }
    }
}

struct Case {
    place: tempfile::TempDir,
    engine: Fake,
    setup: Setup,
}

impl Case {
    fn new(text: Option<&str>) -> Case {
        let place = tempfile::tempdir().unwrap();
        let settings = place.path().join("etc/engine/settings");
        if let Some(text) = text {
            fs::create_dir_all(settings.parent().unwrap()).unwrap();
            fs::write(&settings, text).unwrap();
        }
        let engine = Fake::default();
        let setup = Setup {
            name: Name::Docker,
            engine: Box::new(engine.clone()),
            settings,
            store: place.path().join("store"),
            program: fs::canonicalize("/bin/sh").unwrap().to_str().unwrap().to_owned(),
        };
        Case { place, engine, setup }
    }

    fn text(&self) -> Option<String> {
        fs::read_to_string(&self.setup.settings).ok()
    }

    /// Every file below the place, but the settings.
    fn others(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.place.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path != self.setup.settings {
                    found.push(path);
                }
            }
        }
        found
    }
}

#[test]
fn what_was_there_comes_back_to_the_byte_and_nothing_is_left() {
    for before in [None, Some(""), Some("theirs"), Some("theirs\n\n")] {
        let case = Case::new(before);
        let report = case.setup.make(false, false).unwrap();
        assert_eq!((report.changed, report.works, report.is_default), (true, Some(true), false));
        let again = case.setup.make(true, false).unwrap();
        assert_eq!((again.changed, again.is_default), (true, true));
        assert!(!case.setup.make(true, false).unwrap().changed);
        assert_eq!(case.setup.check().unwrap().works, Some(true));
        assert!(case.setup.undo().unwrap().changed);
        assert_eq!(case.text().as_deref(), before);
        assert_eq!(case.others(), Vec::<PathBuf>::new());
        assert!(!case.place.path().join("store").exists());
        assert_eq!(case.place.path().join("etc").exists(), before.is_some());
        assert!(!case.setup.undo().unwrap().changed);
    }
}

#[test]
fn what_others_have_written_since_stays() {
    let case = Case::new(Some("theirs\n"));
    case.setup.make(true, false).unwrap();
    fs::write(&case.setup.settings, case.text().unwrap() + "new\n").unwrap();
    assert!(case.setup.undo().unwrap().done[0].contains("only our part"));
    assert_eq!(case.text().as_deref(), Some("theirs\nnew\n"));
    // And when we are told to do more in between.
    case.setup.make(false, false).unwrap();
    fs::write(&case.setup.settings, case.text().unwrap() + "newer\n").unwrap();
    case.setup.make(true, false).unwrap();
    case.setup.undo().unwrap();
    assert_eq!(case.text().as_deref(), Some("theirs\nnew\nnewer\n"));
    assert_eq!(case.others(), Vec::<PathBuf>::new());
}

#[test]
fn a_change_that_does_not_work_is_taken_back() {
    for before in [None, Some("theirs\n")] {
        let case = Case::new(before);
        case.engine.fails.set(true);
        let error = crate::output::chain(&case.setup.make(true, false).unwrap_err());
        assert!(error.contains("was taken back: no container"), "{error}");
        assert_eq!(case.text().as_deref(), before);
        assert_eq!(case.others(), Vec::<PathBuf>::new());
        // The engine was told of both.
        assert_eq!(case.engine.told.get(), 2);
    }
}

#[test]
fn what_does_not_work_later_is_told_and_left() {
    let case = Case::new(None);
    case.setup.make(true, false).unwrap();
    let text = case.text();
    case.engine.fails.set(true);
    assert!(case.setup.make(true, false).is_err());
    let report = case.setup.check().unwrap();
    assert_eq!((report.works, report.proof.as_deref()), (Some(false), Some("no container")));
    assert_eq!(case.text(), text);
}

#[test]
fn nothing_is_changed_that_is_not_understood_or_refused() {
    let case = Case::new(Some("malformed"));
    assert!(crate::output::chain(&case.setup.make(true, false).unwrap_err()).contains("line 1 is malformed"));
    assert_eq!(case.text().as_deref(), Some("malformed"));
    let case = Case::new(Some("theirs\n"));
    case.engine.refuses.set(true);
    let error = crate::output::chain(&case.setup.make(true, false).unwrap_err());
    assert!(error.contains("nothing was changed: not so"), "{error}");
    assert_eq!(case.text().as_deref(), Some("theirs\n"));
    assert_eq!(case.others(), Vec::<PathBuf>::new());
    assert!(!case.place.path().join("store").exists());
    assert_eq!(case.engine.told.get(), 0);
}

#[test]
fn who_is_killed_leaves_what_can_be_undone() {
    // Between the record and the settings.
    let case = Case::new(Some("theirs\n"));
    case.setup.make(true, true).unwrap();
    let after = case.text().unwrap();
    fs::write(&case.setup.settings, "theirs\n").unwrap();
    assert!(!case.setup.undo().unwrap().changed);
    assert_eq!((case.text().as_deref(), case.others()), (Some("theirs\n"), Vec::new()));
    // The same, and it is done again.
    case.setup.make(true, true).unwrap();
    fs::write(&case.setup.settings, "theirs\n").unwrap();
    case.setup.make(true, true).unwrap();
    assert_eq!(case.text().as_deref(), Some(after.as_str()));
    case.setup.undo().unwrap();
    assert_eq!((case.text().as_deref(), case.others()), (Some("theirs\n"), Vec::new()));
    // While the engine is made to forget.
    case.setup.make(true, true).unwrap();
    let record = Record {
        settings: case.setup.settings.clone(),
        before: Some("theirs\n".into()),
        after: "theirs\nmeanwhile\n".into(),
        made: Vec::new(),
    };
    record.write(&case.setup.record()).unwrap();
    fs::write(&case.setup.settings, &record.after).unwrap();
    case.setup.undo().unwrap();
    assert_eq!((case.text().as_deref(), case.others()), (Some("theirs\n"), Vec::new()));
}

#[test]
fn what_we_have_not_written_we_do_not_take_out() {
    let case = Case::new(Some("ours /by/hand\n"));
    assert!(case.setup.undo().unwrap_err().to_string().contains("no record"));
    assert_eq!(case.text().as_deref(), Some("ours /by/hand\n"));
}
