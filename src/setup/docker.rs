//! Docker: /etc/docker/daemon.json, which the daemon reads again when it is told to.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Engine, Found, RUNTIME, Wish,
    json::{Object, indent_of},
    proof,
};
use crate::{doctor::host::find_program, tool::run};

/// The daemon's settings by the names of its documentation.
const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";

/// How long a daemon may take to have read its settings.
const PATIENCE: Duration = Duration::from_secs(20);

/// The image of the proof: one file.
const IMAGE: &str = "ctr-setup:proof";

/// The daemon of the machine, or an ordinary user's own.
#[derive(Debug)]
pub(super) struct Docker {
    is_root: bool,
}

impl Docker {
    pub(super) fn new() -> Docker {
        Docker { is_root: nix::unistd::geteuid().is_root() }
    }

    /// What the daemon knows: the path of our runtime, and which one is the default.
    fn known(&self) -> Result<Found> {
        let format = "{{json .DefaultRuntime}} {{json .Runtimes}}";
        const START: &str = "`systemctl start docker` starts it, --only-write does without";
        let text = run(&mut docker(&["info", "--format", format]))
            .with_context(|| format!("ask the Docker daemon what it knows ({START})"))?;
        let (default, runtimes) = text.trim().split_once(' ').unwrap_or_default();
        // Some clients succeed without a daemon.
        if default.trim_matches('"').is_empty() {
            bail!("the Docker daemon does not answer: {START}");
        }
        let runtimes = Object::parse(runtimes)?;
        Ok(Found {
            program: runtimes.object(RUNTIME)?.string("path")?,
            is_default: default.trim_matches('"') == RUNTIME,
        })
    }

    /// Tells the daemon to read its settings, and waits until it knows what is wanted.
    fn reload(&self, wanted: &Found) -> Result<String> {
        let mut systemctl = proof::systemctl(self.is_root);
        let how = match run(systemctl.args(["is-active", "docker.service"])) {
            Ok(_) => {
                let mut reload = proof::systemctl(self.is_root);
                run(reload.args(["reload", "docker.service"])).context("have Docker read its settings")?;
                "systemctl reload docker"
            }
            Err(_) => {
                self.hang_up()?;
                "SIGHUP to dockerd"
            }
        };
        let until = Instant::now() + PATIENCE;
        while self.known()? != *wanted {
            if Instant::now() > until {
                bail!(
                    "the Docker daemon does not take its settings: flags of dockerd that say the same forbid it, and \
                     `journalctl -u docker` has its words"
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(format!("Docker has read its settings ({how}); its containers run on"))
    }

    fn hang_up(&self) -> Result<()> {
        let file = if self.is_root {
            PathBuf::from("/run/docker.pid")
        } else {
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default().join("docker.pid")
        };
        let what = || format!("find the daemon by {}", file.display());
        let pid: i32 =
            std::fs::read_to_string(&file).with_context(what)?.trim().parse().with_context(what)?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).with_context(what)?;
        if name.trim() != "dockerd" {
            bail!("{}: process {pid} is not dockerd", what());
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP)
            .context("send SIGHUP to dockerd")
    }
}

fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments);
    command
}

impl Engine for Docker {
    fn settings(&self) -> Result<PathBuf> {
        if self.is_root {
            return Ok("/etc/docker/daemon.json".into());
        }
        Ok(proof::user_config()?.join("docker/daemon.json"))
    }

    fn with(&self, text: Option<&str>, wish: &Wish) -> Result<String> {
        let text = text.unwrap_or_default();
        let mut settings = Object::parse(text)?;
        let mut runtimes = settings.object(RUNTIMES)?;
        let mut ours = runtimes.object(RUNTIME)?;
        let is_there = ours.string("path")?.as_deref() == Some(&wish.program);
        let is_default = settings.string(DEFAULT)?.as_deref() == Some(RUNTIME);
        if is_there && (is_default || !wish.as_default) {
            return Ok(text.to_owned());
        }
        let indent = indent_of(text);
        ours.set("path", &serde_json::to_string(&wish.program)?)?;
        runtimes.set(RUNTIME, &ours.text(indent, 2))?;
        settings.set(RUNTIMES, &runtimes.text(indent, 1))?;
        if wish.as_default {
            settings.set(DEFAULT, &serde_json::to_string(RUNTIME)?)?;
        }
        Ok(settings.text(indent, 0) + "\n")
    }

    fn without(&self, text: &str, before: Option<&str>) -> Result<Option<String>> {
        let indent = indent_of(text);
        let mut settings = Object::parse(text)?;
        let before = Object::parse(before.unwrap_or_default())?;
        let mut runtimes = settings.object(RUNTIMES)?;
        match before.object(RUNTIMES)?.get(RUNTIME) {
            Some(theirs) => runtimes.set(RUNTIME, theirs)?,
            None => runtimes.remove(RUNTIME),
        }
        if runtimes.is_empty() && before.get(RUNTIMES).is_none() {
            settings.remove(RUNTIMES);
        } else {
            settings.set(RUNTIMES, &runtimes.text(indent, 1))?;
        }
        if settings.string(DEFAULT)?.as_deref() == Some(RUNTIME) {
            match before.get(DEFAULT) {
                Some(theirs) => settings.set(DEFAULT, theirs)?,
                None => settings.remove(DEFAULT),
            }
        }
        Ok((!settings.is_empty()).then(|| settings.text(indent, 0) + "\n"))
    }

    fn found(&self, text: &str) -> Result<Found> {
        let settings = Object::parse(text)?;
        Ok(Found {
            program: settings.object(RUNTIMES)?.object(RUNTIME)?.string("path")?,
            is_default: settings.string(DEFAULT)?.as_deref() == Some(RUNTIME),
        })
    }

    fn answers(&self) -> Result<()> {
        self.known().map(drop)
    }

    fn accepts(&self, file: &Path) -> Result<()> {
        let Some(daemon) = find_program("dockerd") else { return Ok(()) };
        run(Command::new(daemon).args(["--validate", "--config-file"]).arg(file))?;
        Ok(())
    }

    fn tell(&self, settings: &Path, _changed: bool) -> Result<Option<String>> {
        let wanted = self.found(&super::file::read(settings)?.unwrap_or_default())?;
        if self.known()? == wanted {
            return Ok(None);
        }
        let mut done = self.reload(&wanted)?;
        let left = if wanted.program.is_none() { containers_of_ours() } else { Vec::new() };
        if !left.is_empty() {
            done += &format!("; made with {RUNTIME}, and not to be started without it: {}", left.join(" "));
        }
        Ok(Some(done))
    }

    /// What its settings do not name the daemon leaves as it is, so they have to name what is to hold without us.
    fn meanwhile(&self, text: Option<&str>) -> Result<Option<String>> {
        if self.known()? == self.found(text.unwrap_or_default())? {
            return Ok(None);
        }
        let mut settings = Object::parse(text.unwrap_or_default())?;
        if settings.get(DEFAULT).is_none() {
            settings.set(DEFAULT, "\"runc\"")?;
        }
        settings.set(RUNTIMES, &settings.object(RUNTIMES)?.text("  ", 1))?;
        Ok(Some(settings.text("  ", 0) + "\n"))
    }

    fn prove(&self, root: &Path, program: &str) -> Result<String> {
        let archive = root.with_extension("tar");
        run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg("."))?;
        let imported =
            run(docker(&["import"]).arg(&archive).arg(IMAGE)).context("import an image of one file");
        std::fs::remove_file(&archive)?;
        imported?;
        let run_it = ["run", "--rm", "--network", "none", "--runtime", RUNTIME, IMAGE, program, "--version"];
        let said = run(&mut docker(&run_it)).with_context(|| format!("docker run --runtime {RUNTIME}"));
        run(&mut docker(&["rmi", "--force", IMAGE])).context("remove the image of the proof")?;
        said
    }
}

/// The names of the containers that the daemon made with our runtime.
fn containers_of_ours() -> Vec<String> {
    let all = run(&mut docker(&["ps", "--all", "--quiet"])).unwrap_or_default();
    if all.trim().is_empty() {
        return Vec::new();
    }
    let format = "{{.HostConfig.Runtime}} {{.Name}}";
    let lines =
        run(docker(&["inspect", "--format", format]).args(all.split_whitespace())).unwrap_or_default();
    let ours =
        lines.lines().filter_map(|line| line.split_once(' ')).filter(|(runtime, _)| *runtime == RUNTIME);
    ours.map(|(_, name)| name.trim_start_matches('/').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(as_default: bool) -> Wish {
        Wish { program: "/usr/bin/ctr".into(), as_default }
    }

    fn with(text: Option<&str>, as_default: bool) -> String {
        Docker::new().with(text, &wish(as_default)).unwrap()
    }

    const OURS: &str =
        "{\n  \"runtimes\": {\n    \"ctr\": {\n      \"path\": \"/usr/bin/ctr\"\n    }\n  }\n}\n";

    #[test]
    fn ours_is_added_and_nothing_else_touched() {
        assert_eq!(with(None, false), OURS);
        assert_eq!(with(Some("  "), false), OURS);
        // What stands there is not written anew.
        let spaced = OURS.replace("  ", " ");
        assert_eq!(with(Some(&spaced), false), spaced);
        let text =
            "{\n    \"log-driver\": \"journald\",\n    \"runtimes\": {\"kata\": {\"path\": \"/k\"}}\n}";
        let wanted = "{\n    \"log-driver\": \"journald\",\n    \"runtimes\": {\n        \"kata\": {\"path\": \"/k\"},\n        \"ctr\": {\n            \"path\": \"/usr/bin/ctr\"\n        }\n    },\n    \"default-runtime\": \"ctr\"\n}\n";
        assert_eq!(with(Some(text), true), wanted);
        // Once the default it stays so until it is undone; another program of ours takes its place.
        assert_eq!(with(Some(wanted), false), wanted);
        let moved = wanted.replace("/usr/bin/ctr", "/old");
        assert_eq!(with(Some(&moved), false), wanted);
    }

    #[test]
    fn ours_is_found() {
        let docker = Docker::new();
        assert_eq!(docker.found("{}").unwrap(), Found::default());
        let found = docker.found(&with(None, true)).unwrap();
        assert_eq!(found, Found { program: Some("/usr/bin/ctr".into()), is_default: true });
    }

    #[test]
    fn ours_alone_is_taken_out() {
        let docker = Docker::new();
        let without = |text: &str, before| docker.without(text, before).unwrap();
        assert_eq!(without(OURS, None), None);
        let edited = with(Some("{\"debug\": true, \"runtimes\": {\"kata\": {\"path\": \"/k\"}}}"), true);
        let rest = "{\n  \"debug\": true,\n  \"runtimes\": {\n    \"kata\": {\"path\": \"/k\"}\n  }\n}\n";
        assert_eq!(without(&edited, None).as_deref(), Some(rest));
        let before = "{\"default-runtime\": \"crun\", \"runtimes\": {\"ctr\": {\"path\": \"/theirs\"}}}";
        let put_back = without(&with(Some(before), true), Some(before)).unwrap();
        assert_eq!(docker.found(&put_back).unwrap().program.as_deref(), Some("/theirs"));
        assert!(put_back.contains("\"default-runtime\": \"crun\""));
    }

    #[test]
    fn settings_that_are_not_understood_are_refused() {
        for text in
            ["{", "[]", "{\"runtimes\": []}", "{\"runtimes\": {\"ctr\": 1}}", "{\"default-runtime\": 1}"]
        {
            assert!(Docker::new().with(Some(text), &wish(true)).is_err(), "{text}");
        }
    }
}
