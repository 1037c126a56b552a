//! `kill` and `delete`.

use super::context::Context;
use crate::cli::oci::{Delete, Kill};
use crate::private;
use anyhow::{Context as _, Result};
use ctr_isolation::signal;
use ctr_runtime::container::Container;
use ctr_runtime::{Error, Status};
use regex_lite::Regex;

/// Sends a signal to a container, or to all whose names match.
///
/// # Errors
/// When it is no signal, or the container does not run.
pub fn kill(context: &Context, flags: &Kill) -> Result<()> {
    let number =
        signal::parse(&flags.signal).with_context(|| format!("unknown signal {:?}", flags.signal))?;
    let kill = |id: &str| {
        let container = context.container(id)?;
        let killed = container.kill(number, flags.all, "kill");
        if matches!(killed, Err(Error::WrongStatus { status: Status::Stopped, .. })) {
            context.notice(&container);
        }
        Ok(killed?)
    };
    if flags.regex { for_each_match(context, &flags.id, kill) } else { kill(&flags.id) }
}

/// Removes a container, or all whose names match.
///
/// # Errors
/// When it still runs and `--force` was not given, or something of it cannot be removed.
pub fn delete(context: &Context, flags: &Delete) -> Result<()> {
    let last = |container: &Container, status| context.notice_last(container, status);
    let delete = |id: &str| match Container::delete(&context.store, id, flags.force, &last) {
        // With --force what is to be gone is gone. A boot takes the state and leaves the store.
        Err(Error::NotFound(_)) if flags.force => private::remove_left(context, id).map(drop),
        other => Ok(other?),
    };
    if flags.regex { for_each_match(context, &flags.id, delete) } else { delete(&flags.id) }
}

/// Does `what` to every container whose name has `pattern` in it, and tells of the last failure, as crun does.
fn for_each_match(context: &Context, pattern: &str, what: impl Fn(&str) -> Result<()>) -> Result<()> {
    let pattern = Regex::new(pattern).with_context(|| format!("--regex {pattern:?}"))?;
    let mut last = Ok(());
    for name in context.store.list()?.iter().filter(|name| pattern.is_match(name)) {
        let done = what(name).with_context(|| format!("container {name:?}"));
        if let Err(error) = std::mem::replace(&mut last, done) {
            tracing::error!("{}", crate::output::chain(&error));
        }
    }
    last
}
