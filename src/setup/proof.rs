//! One container as proof that an engine works with us: this very program, alone in a root file system.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Fills `root` with nothing but our program, which needs nothing else; what it is called inside.
pub(super) fn make_root(root: &Path, program: &str) -> Result<String> {
    let inside = root.join("ctr");
    let copy = || {
        // Owners of other ids than ours may have to go through it.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        fs::copy(program, &inside)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))
    };
    copy().with_context(|| format!("copy {program} to {}", root.display()))?;
    Ok("/ctr".to_owned())
}

/// Whether what the container said is what our program says of itself.
pub(super) fn judge(said: &str) -> Result<String> {
    let line = said.lines().next().unwrap_or_default().trim();
    let wanted = format!("version {}", env!("CARGO_PKG_VERSION"));
    if !line.ends_with(&wanted) {
        bail!("the container ran and said {line:?}, not its {wanted:?}");
    }
    Ok(line.to_owned())
}

/// systemd's command, of the machine or of an ordinary user.
pub(super) fn systemctl(is_root: bool) -> Command {
    let mut command = Command::new("systemctl");
    if !is_root {
        command.arg("--user");
    }
    command
}

/// Where an ordinary user's settings are.
pub(super) fn user_config() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let place = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    place.context("neither XDG_CONFIG_HOME nor HOME says where your settings are")
}
