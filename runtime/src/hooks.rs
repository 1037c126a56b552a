//! Hooks: programs that the configuration has us run at points of a container's life
//! (runtime-spec config.md, "POSIX-platform Hooks").

use crate::launch::explain_clone;
use crate::state::OciState;
use ctr_isolation::sys::{fs, process};
use ctr_isolation::{Context, Error, Result};
use oci_spec::runtime::{Hook, Hooks};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `hooks` in order with `state` on their standard input. `kind` names them in errors.
///
/// # Errors
/// When one cannot be started, exits with a status other than 0 (its standard error is in the error) or runs longer
/// than its timeout.
pub fn run(kind: &str, hooks: &[Hook], state: &OciState) -> Result<()> {
    let outputs = if INSIDE.contains(&kind) { Outputs::default() } else { Outputs::of(state)? };
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, &outputs).doing(|| format!("run {kind} hook {index} {:?}", hook.path()))?;
    }
    Ok(())
}

/// All kinds of hooks (runtime-spec config.md, "POSIX-platform Hooks"), in the order in which they run.
pub const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Hooks that run in the container, whose paths are its own.
const INSIDE: [&str; 2] = ["createContainer", "startContainer"];

/// Files that crun's annotations `run.oci.hooks.stdout` and `run.oci.hooks.stderr` name.
#[derive(Debug, Default)]
struct Outputs {
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Outputs {
    fn of(state: &OciState) -> Result<Self> {
        let open = |name: &str| {
            let path = state.annotations.get(&format!("run.oci.hooks.{name}"));
            let open = |path: &String| File::options().append(true).create(true).mode(0o600).open(path);
            path.map(|path| open(path).doing(|| format!("open {path} for what hooks say"))).transpose()
        };
        Ok(Outputs { stdout: open("stdout")?, stderr: open("stderr")? })
    }
}

/// Whether there is a hook inside the container without a time limit.
pub fn may_take_for_ever(hooks: &Hooks) -> bool {
    let inside = [hooks.create_container(), hooks.start_container()];
    inside.into_iter().flatten().flatten().any(|hook| hook.timeout().is_none())
}

fn run_one(hook: &Hook, state: &OciState, outputs: &Outputs) -> Result<()> {
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
    // A file, not a pipe: whether a hook reads it is its own business, and never holds us up.
    let mut input = File::from(fs::memfd("state").doing(|| "make a file for the state")?);
    let written = input.write_all(state.to_json().as_bytes()).and_then(|()| input.rewind());
    written.doing(|| "write the state for it")?;
    // A group of its own, so that with it all end that it has started.
    command.process_group(0).stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(file) = &outputs.stdout {
        command.stdout(file.try_clone().doing(|| "share the file of its output")?);
    }
    if let Some(file) = &outputs.stderr {
        command.stderr(file.try_clone().doing(|| "share the file of its errors")?);
    }
    let mut child = command.spawn().doing(|| "start it").map_err(explain_clone)?;
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let said = listen(&mut child, limit.map(Duration::from_secs));
    let Some(said) = said? else {
        let _ = process::kill(-(child.id() as i32), libc::SIGKILL);
        let _ = child.wait();
        let seconds = limit.unwrap_or_default();
        return Err(Error::new(format!("it ran longer than its timeout of {seconds} s and was killed")));
    };
    let status = child.wait().doing(|| "wait for it")?;
    match (status.success(), said.trim()) {
        (true, _) => Ok(()),
        (false, "") => Err(Error::new(format!("{status}"))),
        (false, said) => Err(Error::new(format!("{status}, stderr: {said}"))),
    }
}

/// How much of a hook's standard error is kept.
const SAID_MAX: usize = 4096;

/// Takes in what the hook says, so that it never waits for us, until it ends; `None` when `limit` has passed.
fn listen(child: &mut Child, limit: Option<Duration>) -> Result<Option<String>> {
    let pidfd = process::pidfd_open(child.id() as i32)?;
    let mut errors = child.stderr.take();
    let mut said = Vec::new();
    let until = limit.map(|limit| Instant::now() + limit);
    loop {
        let fds: Vec<BorrowedFd<'_>> =
            [Some(pidfd.as_fd()), errors.as_ref().map(AsFd::as_fd)].into_iter().flatten().collect();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let Some(ready) = process::poll(&fds, left)? else { return Ok(None) };
        let ended = ready.first() == Some(&true);
        if ready.get(1) == Some(&true) && !(ended && said.len() == SAID_MAX) {
            let mut part = [0; SAID_MAX];
            match errors.as_mut().map(|errors| errors.read(&mut part)) {
                Some(Ok(count)) if count > 0 => {
                    let room = SAID_MAX - said.len();
                    said.extend_from_slice(&part[..count.min(room)]);
                }
                _ => errors = None,
            }
        } else if ended {
            // Whoever else has its standard error open may go on; what the hook itself said has been read.
            return Ok(Some(String::from_utf8_lossy(&said).into_owned()));
        }
    }
}
