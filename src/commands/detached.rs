//! `logs`, `stop` and the other verbs for containers that a supervisor keeps.

use super::context::Context;
use crate::cli::run::{Logs, Stop};
use crate::supervisor;
use anyhow::{Context as _, Result, bail};
use ctr_isolation::sys::process;
use ctr_runtime::Status;
use ctr_runtime::container::{Container, open_process};
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

/// Prints what a detached container has written.
///
/// # Errors
/// When there is no such container, or it has no log.
pub fn logs(context: &Context, flags: &Logs) -> Result<()> {
    if flags.timestamps {
        bail!("logs --timestamps is not supported: the log keeps what was written, not when");
    }
    let container = context.container(&flags.id)?;
    let path = container.entry.path(supervisor::LOG);
    let older = std::fs::read(path.with_extension("1")).unwrap_or_default();
    let mut text = older;
    let newer = std::fs::read(&path)
        .with_context(|| format!("container {:?} has no log: only `run --detach` keeps one", flags.id))?;
    text.extend(newer);
    let from = flags.tail.map_or(0, |count| last_lines(&text, count));
    let mut out = std::io::stdout().lock();
    out.write_all(&text[from..])?;
    let mut printed = text.len();
    while flags.follow && container.status() != Status::Stopped {
        std::thread::sleep(Duration::from_millis(100));
        let text = std::fs::read(&path).unwrap_or_default();
        if text.len() < printed {
            printed = 0;
        }
        out.write_all(&text[printed..])?;
        out.flush()?;
        printed = text.len();
    }
    Ok(())
}

/// Where the last `count` lines begin.
fn last_lines(text: &[u8], count: u64) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count == 0 {
        return text.len();
    }
    breaks.map(|(at, _)| at + 1).nth(count - 1).unwrap_or(0)
}

/// Ends containers: SIGTERM, and SIGKILL when that was not enough in time.
///
/// # Errors
/// When one of them does not exist or does not end.
pub fn stop(context: &Context, flags: &Stop) -> Result<()> {
    let timeout = Duration::from_secs(flags.time.unwrap_or(context.settings.run.stop_timeout));
    for id in &flags.ids {
        stop_one(&context.container(id)?, timeout).with_context(|| format!("stop {id:?}"))?;
        crate::output::print(&format!("{id}\n"))?;
    }
    Ok(())
}

fn stop_one(container: &Container, timeout: Duration) -> Result<()> {
    let Some(pidfd) = open_process(&container.record) else { return Ok(()) };
    if container.status() == Status::Stopped {
        return Ok(());
    }
    container.kill(libc::SIGTERM, false)?;
    if process::poll(&[pidfd.as_fd()], Some(timeout))?.is_none() {
        tracing::warn!(
            "container {:?} did not end {} s after SIGTERM, so it is killed",
            container.record.id,
            timeout.as_secs()
        );
        container.kill(libc::SIGKILL, false)?;
        if process::poll(&[pidfd.as_fd()], Some(Duration::from_secs(10)))?.is_none() {
            bail!("it does not end after SIGKILL: it waits for a device or a network file system");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), 2);
        assert_eq!(last_lines(b"a\nb\nc", 1), 4);
        assert_eq!(last_lines(b"a\n", 5), 0);
        assert_eq!(last_lines(b"a\n", 0), 2);
    }
}
