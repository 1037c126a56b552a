//! containerd: /etc/containerd/config.toml, for its CRI plugin, which Kubernetes uses. It reads that when it starts.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use ctr_isolation::sys::fs::programs;
use toml_edit::{DocumentMut, Item, Table, TableLike, value};

use super::{Engine, Found, RUNTIME, Wish, proof};
use crate::{doctor::host::find_program, tool::run};

/// The tables on the way to the runtimes, in the second and the third version of the file.
const VERSION_2: [&str; 3] = ["plugins", "io.containerd.grpc.v1.cri", "containerd"];
const VERSION_3: [&str; 3] = ["plugins", "io.containerd.cri.v1.runtime", "containerd"];

/// The daemon of the machine.
#[derive(Debug)]
pub(super) struct Containerd;

impl Containerd {
    /// The file that is begun where there is none.
    fn new_file() -> Result<String> {
        let text =
            run(Command::new("containerd").arg("--version")).context("ask containerd for its version")?;
        // containerd github.com/containerd/containerd/v2 v2.1.0 ...; Debian leaves out the v.
        let is_version = |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        let number = text.split_whitespace().find(is_version).unwrap_or_default().trim_start_matches('v');
        let version = if number.starts_with("1.") { 2 } else { 3 };
        Ok(format!("version = {version}\n"))
    }
}

/// Where this file has the runtimes.
fn place(settings: &DocumentMut) -> Result<[&'static str; 3]> {
    match settings.get("version").map(Item::as_integer) {
        Some(Some(2)) => Ok(VERSION_2),
        Some(Some(3)) => Ok(VERSION_3),
        None | Some(Some(1)) => bail!(
            "it is of version 1, which newer versions of containerd no longer read: `containerd config migrate` prints it in \
             a newer one"
        ),
        _ => bail!("its version is none that is known: 2 and 3 are"),
    }
}

/// The table that `path` leads to; none where there is none.
fn table<'a>(settings: &'a DocumentMut, path: &[&str]) -> Option<&'a dyn TableLike> {
    let mut here: &dyn TableLike = settings.as_table();
    for name in path {
        here = here.get(name)?.as_table_like()?;
    }
    Some(here)
}

/// The same, made where it is missing.
fn table_mut<'a>(settings: &'a mut DocumentMut, path: &[&str]) -> Result<&'a mut dyn TableLike> {
    let mut here: &mut dyn TableLike = settings.as_table_mut();
    for name in path {
        let made = || {
            let mut table = Table::new();
            // No header for a table that has nothing but tables.
            table.set_implicit(true);
            Item::Table(table)
        };
        here = here
            .entry(name)
            .or_insert_with(made)
            .as_table_like_mut()
            .with_context(|| format!("{name:?} is no table"))?;
    }
    Ok(here)
}

impl Engine for Containerd {
    fn settings(&self) -> Result<PathBuf> {
        if !nix::unistd::geteuid().is_root() {
            bail!("containerd's settings are root's");
        }
        Ok("/etc/containerd/config.toml".into())
    }

    fn with(&self, text: Option<&str>, wish: &Wish) -> Result<String> {
        let made;
        let text = match text {
            Some(text) => text,
            None => {
                made = Containerd::new_file()?;
                &made
            }
        };
        let found = self.found(text)?;
        if found.program.as_deref() == Some(&wish.program) && (found.is_default || !wish.as_default) {
            return Ok(text.to_owned());
        }
        let mut settings: DocumentMut = text.parse()?;
        let place = place(&settings)?;
        let runc = [&place[..], &["runtimes", "runc", "options"]].concat();
        // The driver of cgroups is the machine's choice: as its runc has it.
        let systemd = table(&settings, &runc).and_then(|options| options.get("SystemdCgroup")?.as_bool());
        let ours = [&place[..], &["runtimes", RUNTIME]].concat();
        table_mut(&mut settings, &ours)?.insert("runtime_type", value("io.containerd.runc.v2"));
        let options = table_mut(&mut settings, &[&ours[..], &["options"]].concat())?;
        options.insert("BinaryName", value(&wish.program));
        if let Some(systemd) = systemd {
            options.insert("SystemdCgroup", value(systemd));
        }
        if wish.as_default {
            table_mut(&mut settings, &place)?.insert("default_runtime_name", value(RUNTIME));
        }
        Ok(settings.to_string())
    }

    fn without(&self, text: &str, before: Option<&str>) -> Result<Option<String>> {
        let mut settings: DocumentMut = text.parse()?;
        let place = place(&settings)?;
        let before: DocumentMut = before.unwrap_or_default().parse()?;
        let theirs = |path: &[&str], key| table(&before, path).and_then(|table| table.get(key)).cloned();
        let runtimes = [&place[..], &["runtimes"]].concat();
        put_back(table_mut(&mut settings, &runtimes)?, RUNTIME, theirs(&runtimes, RUNTIME));
        let containerd = table_mut(&mut settings, &place)?;
        if containerd.get("default_runtime_name").and_then(Item::as_str) == Some(RUNTIME) {
            put_back(containerd, "default_runtime_name", theirs(&place, "default_runtime_name"));
        }
        Ok(Some(settings.to_string()))
    }

    fn found(&self, text: &str) -> Result<Found> {
        let settings: DocumentMut = text.parse()?;
        let place = place(&settings)?;
        let options = [&place[..], &["runtimes", RUNTIME, "options"]].concat();
        let program = table(&settings, &options).and_then(|options| options.get("BinaryName")?.as_str());
        let default =
            table(&settings, &place).and_then(|containerd| containerd.get("default_runtime_name")?.as_str());
        Ok(Found { program: program.map(str::to_owned), is_default: default == Some(RUNTIME) })
    }

    fn answers(&self) -> Result<()> {
        client().map(drop)
    }

    fn accepts(&self, file: &Path) -> Result<()> {
        let Some(containerd) = find_program("containerd") else { return Ok(()) };
        run(Command::new(containerd).arg("--config").arg(file).args(["config", "dump"]))?;
        Ok(())
    }

    fn tell(&self, _settings: &Path, changed: bool) -> Result<Option<String>> {
        if !changed {
            return Ok(None);
        }
        if run(proof::systemctl(true).args(["is-active", "containerd.service"])).is_err() {
            return Ok(Some(
                "containerd does not run under systemd: it reads its settings when it starts".to_owned(),
            ));
        }
        run(proof::systemctl(true).args(["restart", "containerd.service"]))
            .context("have containerd read its settings")?;
        Ok(Some(
            "containerd has read its settings (systemctl restart containerd); its containers run on"
                .to_owned(),
        ))
    }

    fn prove(&self, root: &Path, program: &str) -> Result<String> {
        let ours = std::env::current_exe()?.into_os_string();
        let name = format!("ctr-setup-{}", std::process::id());
        let mut command = Command::new(client()?);
        command.args(["run", "--rm", "--runtime", "io.containerd.runc.v2", "--runc-binary"]).arg(ours);
        let said = run(command.arg("--rootfs").arg(root).args([&name, program, "--version"]));
        said.context("run a container by containerd's client")
    }
}

fn put_back(table: &mut dyn TableLike, key: &str, theirs: Option<Item>) {
    match theirs {
        Some(item) => drop(table.insert(key, item)),
        None => drop(table.remove(key)),
    }
}

/// containerd's own client, which has our name, where it is.
fn client() -> Result<PathBuf> {
    let is_theirs = |file: &PathBuf| {
        let version = run(Command::new(file).arg("--version")).unwrap_or_default();
        version.lines().next().is_some_and(|line| line.contains("containerd"))
    };
    programs("ctr")
        .find(is_theirs)
        .context("containerd's client `ctr`, which runs the container, is not along PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, as_default: bool) -> Result<String> {
        Containerd.with(Some(text), &Wish { program: "/usr/bin/ctr-runtime".into(), as_default })
    }

    #[test]
    fn ours_is_added_and_comments_stay() {
        let text = "# mine\nversion = 2 # two\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"overlayfs\" # fast\n\
                    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n";
        let new = with(text, true).unwrap();
        for kept in ["# mine\n", "# two\n", "# fast\n"] {
            assert!(new.contains(kept), "{new}");
        }
        let options = new
            .split("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.ctr.options]\n")
            .nth(1)
            .unwrap();
        assert_eq!(options, "BinaryName = \"/usr/bin/ctr-runtime\"\nSystemdCgroup = true\n");
        let found = Containerd.found(&new).unwrap();
        assert_eq!(found, Found { program: Some("/usr/bin/ctr-runtime".into()), is_default: true });
        assert_eq!(with(&new, false).unwrap(), new);
        assert_eq!(Containerd.without(&new, Some(text)).unwrap().as_deref(), Some(text));
    }

    #[test]
    fn the_third_version_has_another_place() {
        let new = with("version = 3\n", false).unwrap();
        let header = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.ctr]";
        assert!(new.contains(header), "{new}");
        assert!(!Containerd.found(&new).unwrap().is_default);
    }

    #[test]
    fn what_others_had_is_put_back() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"kata\"\n\
                    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.ctr.options]\nBinaryName = \"/theirs\"\n";
        let edited = with(text, true).unwrap() + "[debug]\nlevel = \"info\"\n";
        let back = Containerd.without(&edited, Some(text)).unwrap().unwrap();
        assert_eq!(
            Containerd.found(&back).unwrap(),
            Found { program: Some("/theirs".into()), is_default: false }
        );
        assert!(back.contains("\"kata\"") && back.contains("[debug]"), "{back}");
    }

    #[test]
    fn settings_that_are_not_understood_are_refused() {
        for (text, words) in [
            ("version = ", "line 1"),
            ("", "version 1"),
            ("version = 9\n", "none that is known"),
            ("version = 2\nplugins = 1\n", "no table"),
        ] {
            let error = crate::output::chain(&with(text, true).unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
