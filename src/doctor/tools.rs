//! Programs of others that we call.

use std::{path::Path, process::Command};

use ctr_isolation::{Result, attempt::attempt, sys::mount};

use super::{
    Finding,
    host::{Host, find_program},
    namespaces::{allow, is_about_namespaces},
};
use crate::tool::run;

pub(super) fn probe(host: &Host, scratch: Option<&Path>) -> Vec<Finding> {
    vec![criu(host, scratch)]
}

fn criu(host: &Host, scratch: Option<&Path>) -> Finding {
    let loses = "checkpoint and restore";
    let Some(path) = find_program("criu") else {
        let tried = "looked for criu along PATH";
        return Finding::warning("criu", tried, "not found", loses, Some(host.install("criu", &[])));
    };
    let arguments: &[&str] = if host.is_root() { &["check"] } else { &["check", "--unprivileged"] };
    let tried = format!("ran {} {}", path.display(), arguments.join(" "));
    let version = run(Command::new(&path).arg("--version"));
    let version = version.unwrap_or_default().lines().next().unwrap_or_default().replace("Version: ", "");
    match in_private(host, Command::new(&path).args(arguments), scratch) {
        Ok(_) => Finding::ok("criu", tried, format!("{} {version}", path.display())),
        Err(error) => {
            // With this it does for ordinary users what it can.
            let give = format!("setcap cap_checkpoint_restore+eip {}", path.display());
            let mend = match host.is_root() {
                false => Some(host.as_root(&give)),
                true => is_about_namespaces(&error).then(|| allow(host, &error)),
            };
            let found = format!("{} {version} cannot work here", path.display());
            Finding::warning("criu", tried, found, loses, mend).because(error)
        }
    }
}

/// Runs a program where what it notes about this machine for later is its own: CRIU keeps a file in /run.
fn in_private(host: &Host, command: &mut Command, scratch: Option<&Path>) -> Result<String> {
    if let Some(scratch) = scratch {
        command.env("XDG_RUNTIME_DIR", scratch);
    }
    if !host.is_root() {
        return run(command);
    }
    let act = || {
        mount::set_root_attributes(mount::Change {
            propagation: libc::MS_PRIVATE,
            recursive: true,
            ..mount::Change::default()
        })?;
        mount::mount("tmpfs", Path::new("/run"), "tmpfs", 0, "")?;
        run(command)
    };
    attempt(libc::CLONE_NEWNS, None, |_| Ok(()), act)
}
