//! Programs of others that we call.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use ctr_isolation::{Context, Error, Result, sys::process};

/// The longest that a program may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program for its output; what it says when it fails is the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| format!("start {name}"))?;
    let pidfd = process::pidfd_open(child.id().cast_signed())?;
    if process::poll(&[std::os::fd::AsFd::as_fd(&pidfd)], Some(LIMIT))?.is_none() {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::new(format!("{name} does not end in {} s", LIMIT.as_secs())));
    }
    let output = child.wait_with_output().doing(|| format!("wait for {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&[output.stderr, output.stdout].concat());
    let is_error = |line: &&str| line.contains("Error");
    let first = said.lines().find(is_error).or(said.lines().next()).unwrap_or_default();
    Err(Error::new(format!("{} ({})", first.trim(), output.status)))
}
