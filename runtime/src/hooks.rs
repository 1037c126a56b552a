//! Hooks: programs that the configuration has us run at points of a container's life
//! (runtime-spec config.md, "POSIX-platform Hooks").

use crate::state::OciState;
use ctr_isolation::sys::process;
use ctr_isolation::{Context, Error, Result};
use oci_spec::runtime::Hook;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Runs `hooks` in order with `state` on their standard input. `kind` names them in errors.
///
/// # Errors
/// When one cannot be started, exits with a status other than 0 (its standard error is in the error) or runs longer
/// than its timeout.
pub fn run(kind: &str, hooks: &[Hook], state: &OciState) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state).doing(|| format!("run {kind} hook {index} {:?}", hook.path()))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &OciState) -> Result<()> {
    let mut command = Command::new(hook.path());
    if let Some([name, rest @ ..]) = hook.args().as_deref() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for entry in hook.env().iter().flatten() {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().doing(|| "start it")?;
    let text = state.to_json();
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()) {
            // A hook need not read its input.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                return Err(error).doing(|| "write the state to it");
            }
            _ => {}
        }
    }
    wait(&mut child, hook.timeout())
}

fn wait(child: &mut Child, timeout: Option<i64>) -> Result<()> {
    if let Some(seconds) = timeout.and_then(|seconds| u64::try_from(seconds).ok()) {
        let pidfd = process::pidfd_open(child.id() as i32)?;
        if process::poll(&[pidfd.as_fd()], Some(Duration::from_secs(seconds)))?.is_none() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(format!("it ran longer than its timeout of {seconds} s and was killed")));
        }
    }
    let status = child.wait().doing(|| "wait for it")?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(4096).read_to_string(&mut said);
    }
    let said = said.trim();
    Err(Error::new(if said.is_empty() { format!("{status}") } else { format!("{status}, stderr: {said}") }))
}
