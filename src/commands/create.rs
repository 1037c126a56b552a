//! `create`.

use super::context::Context;
use crate::cli::oci::{BundleFlags, Create};
use crate::notify;
use anyhow::Result;
use ctr_runtime::bundle::Bundle;
use ctr_runtime::container::{self, Options};
use ctr_runtime::facts::Facts;
use ctr_runtime::phase;
use ctr_runtime::plan::{self, Plan, Request};
use ctr_runtime::state::absolute;

/// Makes a container that waits for `start`.
///
/// # Errors
/// What is wrong with the bundle, or what the kernel refused.
pub fn create(context: &Context, flags: &Create) -> Result<()> {
    make(context, flags).inspect_err(|error| context.failed(&flags.id, error))
}

fn make(context: &Context, flags: &Create) -> Result<()> {
    let request = request(context, &flags.id, &flags.bundle, flags.bundle.console_socket.is_some())?;
    let (bundle, plan, facts) = planned(context, &flags.bundle, &request)?;
    container::create(&context.store, &bundle, &plan, &options(&flags.bundle, &bundle), &facts)?;
    Ok(())
}

/// What the flags of a bundle ask for.
///
/// # Errors
/// When a descriptor to be kept is not open.
pub fn request(context: &Context, id: &str, flags: &BundleFlags, has_console: bool) -> Result<Request> {
    Ok(Request {
        no_pivot: flags.no_pivot,
        no_new_keyring: flags.no_new_keyring,
        has_console,
        ..context.request(id, flags.preserve_fds)?
    })
}

/// Reads the bundle and decides.
///
/// # Errors
/// What is wrong with the bundle.
pub fn planned(context: &Context, flags: &BundleFlags, request: &Request) -> Result<(Bundle, Plan, Facts)> {
    let mut bundle = load(flags)?;
    if notify::host().is_some() {
        notify::configure(&mut bundle.spec, &context.root().join(&request.id))?;
    }
    phase!("bundle read");
    let (plan, facts) = decide(&bundle, request)?;
    Ok((bundle, plan, facts))
}

/// Reads the bundle.
///
/// # Errors
/// What is wrong with it.
pub fn load(flags: &BundleFlags) -> Result<Bundle> {
    // As with crun, relative to where the caller is, not to the bundle.
    let config = flags.config.as_deref().map(absolute).transpose()?;
    Ok(Bundle::load(&flags.bundle, config.as_deref())?)
}

/// Decides, and warns of what is to be warned of.
///
/// # Errors
/// What the bundle asks for and cannot be had.
pub fn decide(bundle: &Bundle, request: &Request) -> Result<(Plan, Facts)> {
    let facts = Facts::read();
    let plan = plan::create::create(bundle, request, &facts)?;
    phase!("planned");
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    // Profiles name the calls of every kernel and architecture: engines would be told of these at each start.
    for warning in plan.init.filter.iter().flat_map(|filter| &filter.warnings) {
        tracing::debug!("{warning}");
    }
    Ok((plan, facts))
}

/// Where the flags of a bundle want things written.
pub fn options(flags: &BundleFlags, bundle: &Bundle) -> Options {
    let receiver = plan::annotations::pidfd_receiver(&bundle.spec).map(Into::into);
    Options {
        pid_file: flags.pid_file.clone(),
        console_socket: flags.console_socket.clone(),
        pidfd_socket: flags.pidfd_socket.clone().or(receiver),
        may_start_again: true,
        notify: notify::host().map(|_| container::Notify::Later),
        ..Options::default()
    }
}
