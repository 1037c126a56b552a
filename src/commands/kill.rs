//! `kill` and `delete`.

use super::context::Context;
use crate::cli::oci::{Delete, Kill};
use anyhow::{Context as _, Result, bail};
use ctr_isolation::signal;
use ctr_runtime::Error;
use ctr_runtime::container::Container;

/// Sends a signal to a container.
///
/// # Errors
/// When it is no signal, or the container does not run.
pub fn kill(context: &Context, flags: &Kill) -> Result<()> {
    if flags.regex {
        bail!("kill --regex is not supported yet: name the container");
    }
    let number =
        signal::parse(&flags.signal).with_context(|| format!("unknown signal {:?}", flags.signal))?;
    Ok(context.container(&flags.id)?.kill(number, flags.all)?)
}

/// Removes a container.
///
/// # Errors
/// When it still runs and `--force` was not given, or something of it cannot be removed.
pub fn delete(context: &Context, flags: &Delete) -> Result<()> {
    if flags.regex {
        bail!("delete --regex is not supported yet: name the container");
    }
    match Container::delete(&context.store, &flags.id, flags.force) {
        // With --force what is to be gone is gone.
        Err(Error::NotFound(_)) if flags.force => Ok(()),
        other => Ok(other?),
    }
}
