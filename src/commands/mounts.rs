//! `mounts`: file systems that come into a running container, and go.

use super::context::Context;
use crate::cli::oci::{Mounts, MountsAction};
use anyhow::{Context as _, Result};
use ctr_runtime::facts::Facts;
use ctr_runtime::mounts::parse;
use ctr_runtime::state::absolute;
use std::path::Path;

/// Makes or removes the mounts that a file lists.
///
/// # Errors
/// What is wrong with the file, or of the first mount that cannot be made or removed.
pub fn mounts(context: &Context, flags: &Mounts) -> Result<()> {
    let container = context.container(&flags.id)?;
    let file = flags.file.display().to_string();
    let what = || format!("read the mounts from {file}");
    let text = super::read_named(&flags.file).with_context(what)?;
    let (list, warnings) = parse(&text, &file).with_context(what)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match flags.action {
        // Relative sources are meant from where the caller is.
        MountsAction::Add => container.add_mounts(&list, &absolute(Path::new("."))?, &Facts::read())?,
        MountsAction::Remove => container.remove_mounts(&list)?,
    }
    Ok(())
}
