//! podman: a file of our own beside others' in containers.conf.d, which every podman reads when it starts.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use toml::Table;

use super::{Engine, Found, RUNTIME, Wish, proof};
use crate::tool::run;

/// The first line of the file, by which it is known to be ours.
const MARK: &str = "# Written by `setup podman`, and removed by `setup podman --undo`.";

/// Runtimes that podman has for able by itself. A list in a file replaces the one before it, and a way to add to it only
/// newer versions know.
const WITH_JSON: [&str; 7] = ["crun", "runc", "kata", "runsc", "youki", "krun", RUNTIME];
const WITHOUT_CGROUPS: [&str; 3] = ["crun", "krun", RUNTIME];

/// The machine's podman, or an ordinary user's.
#[derive(Debug)]
pub(super) struct Podman {
    is_root: bool,
}

impl Podman {
    pub(super) fn new() -> Podman {
        Podman { is_root: nix::unistd::geteuid().is_root() }
    }
}

fn podman(arguments: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command.args(arguments);
    command
}

impl Engine for Podman {
    fn settings(&self) -> Result<PathBuf> {
        let place = if self.is_root { "/etc".into() } else { proof::user_config()? };
        Ok(place.join("containers/containers.conf.d/50-ctr.conf"))
    }

    fn with(&self, text: Option<&str>, wish: &Wish) -> Result<String> {
        let there = text.map_or(Ok(Found::default()), |text| self.found(text))?;
        if text.is_some_and(|text| !text.starts_with(MARK)) {
            bail!(
                "it is there and not ours: move it away, or lay the settings into it by hand (see --print)"
            );
        }
        let list =
            |names: &[&str]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let default = match wish.as_default || there.is_default {
            true => format!("runtime = {RUNTIME:?}\n"),
            false => String::new(),
        };
        Ok(format!(
            "{MARK}\n\n[engine]\n{default}# podman knows by their names what runtimes can do; these are its own lists, and {RUNTIME}.\n\
             runtime_supports_json = [{}]\nruntime_supports_nocgroup = [{}]\n\n\
             [engine.runtimes]\n{RUNTIME} = [{}]\n",
            list(&WITH_JSON),
            list(&WITHOUT_CGROUPS),
            toml::Value::from(wish.program.as_str())
        ))
    }

    fn without(&self, _text: &str, _before: Option<&str>) -> Result<Option<String>> {
        Ok(None)
    }

    fn found(&self, text: &str) -> Result<Found> {
        let settings: Table = text.parse()?;
        let engine = settings.get("engine").and_then(|engine| engine.as_table());
        let get = |key| engine.and_then(|engine| engine.get(key));
        let paths = get("runtimes").and_then(|runtimes| runtimes.get(RUNTIME)?.as_array());
        Ok(Found {
            program: paths.and_then(|paths| Some(paths.first()?.as_str()?.to_owned())),
            is_default: get("runtime").and_then(|name| name.as_str()) == Some(RUNTIME),
        })
    }

    fn answers(&self) -> Result<()> {
        Ok(run(&mut podman(&["--version"])).map(drop)?)
    }

    fn accepts(&self, _file: &Path) -> Result<()> {
        Ok(())
    }

    fn tell(&self, _settings: &Path, _changed: bool) -> Result<Option<String>> {
        Ok(None)
    }

    fn prove(&self, root: &Path, program: &str) -> Result<String> {
        let called =
            run(&mut podman(&["--runtime", RUNTIME, "info", "--format", "{{.Host.OCIRuntime.Path}}"]))
                .context("ask podman which program that is")?;
        let ours = std::env::current_exe()?;
        if Path::new(called.trim()) != ours {
            bail!(
                "for podman {RUNTIME} is {}, not {}: another file says so, later",
                called.trim(),
                ours.display()
            );
        }
        let mut command = podman(&["--runtime", RUNTIME, "run", "--rm", "--network", "none", "--rootfs"]);
        let said = run(command.arg(root).args([program, "--version"]));
        said.with_context(|| format!("podman --runtime {RUNTIME} run"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_was_wished_and_is_known_again() {
        let podman = Podman { is_root: true };
        let wish = |as_default| Wish { program: "/opt/a \"b\"/ctr".into(), as_default };
        let text = podman.with(None, &wish(false)).unwrap();
        let found = podman.found(&text).unwrap();
        assert_eq!(found, Found { program: Some("/opt/a \"b\"/ctr".into()), is_default: false });
        let text = podman.with(Some(&text), &wish(true)).unwrap();
        assert!(podman.found(&text).unwrap().is_default);
        // Once the default it stays so until it is undone.
        assert_eq!(podman.with(Some(&text), &wish(false)).unwrap(), text);
    }

    #[test]
    fn another_s_file_is_left_alone() {
        let podman = Podman { is_root: true };
        let wish = Wish { program: "/ctr".into(), as_default: true };
        for text in ["", "[engine]\n", "not toml ="] {
            assert!(podman.with(Some(text), &wish).is_err(), "{text}");
        }
    }
}
