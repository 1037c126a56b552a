//! Credential helpers: `docker-credential-NAME get`, which is told a host and answers in JSON.

use super::credentials::Credentials;
use crate::error::{Context, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long one may take: it may ask a person for leave to open a key ring.
const LIMIT: Duration = Duration::from_secs(60);

/// More than any answer has.
const LARGEST: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper `name` for the credentials of `host`.
pub(super) fn get(name: &str, host: &str) -> Result<Option<Credentials>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Error::other(format!("{name:?} is no name of a credential helper")));
    }
    let program = format!("docker-credential-{name}");
    ask(Command::new(&program).arg("get"), host, LIMIT).doing(|| format!("{program} get"))
}

fn ask(command: &mut Command, host: &str, limit: Duration) -> Result<Option<Credentials>> {
    let (answer, status) = run(command, host, limit)?;
    understand(&answer, status)
}

/// Runs a program that is told `input`: what it answers within `limit`, and how it ended.
pub(super) fn run(command: &mut Command, input: &str, limit: Duration) -> Result<(Vec<u8>, ExitStatus)> {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = pipes.spawn()?;
    let answer = talk(&mut child, input, limit);
    if answer.is_err() {
        // It may be gone already.
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok((answer?, status))
}

/// Tells it what it is to know, and reads until its output ends.
fn talk(child: &mut Child, said: &str, limit: Duration) -> Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it may still answer.
        let _ = input.write_all(said.as_bytes());
    }
    let mut output = child.stdout.take().ok_or_else(|| Error::other("it has no output"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], timeout);
        match ready {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(0) => return Err(Error::other(format!("no answer within {} s", limit.as_secs()))),
            other => other?,
        };
        match output.read(&mut buffer)? {
            0 => return Ok(answer),
            count => answer.extend_from_slice(&buffer[..count]),
        }
        if answer.len() > LARGEST {
            return Err(Error::damaged("its answer does not end"));
        }
    }
}

fn understand(answer: &[u8], status: ExitStatus) -> Result<Option<Credentials>> {
    if !status.success() {
        let text = String::from_utf8_lossy(answer);
        // The protocol has no other way to say this.
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::other(format!("{status}: {}", super::failure::plain(&text))));
    }
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| Error::damaged("not the expected JSON in its answer"))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        match ask(command.args(["-c", script]), "r.io", Duration::from_millis(700)) {
            Ok(Some(Credentials::Password { user, password })) => format!("{user}:{password}"),
            Ok(Some(Credentials::Identity(token))) => format!("token {token}"),
            Ok(None) => "none".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn answers_are_understood() {
        assert_eq!(
            told(r#"read h; echo "{\"ServerURL\":\"$h\",\"Username\":\"me\",\"Secret\":\"$h\"}""#),
            "me:r.io"
        );
        assert_eq!(told(r#"echo '{"Username":"<token>","Secret":"t"}'"#), "token t");
        assert_eq!(told("echo credentials not found in native keychain; exit 1"), "none");
        assert!(told("echo no key ring; exit 3").ends_with("no key ring"));
        assert!(!told("echo hunter2").contains("hunter2"));
        assert!(told("exec sleep 60").contains("no answer within"));
        assert!(get("../x", "r.io").is_err());
    }
}
