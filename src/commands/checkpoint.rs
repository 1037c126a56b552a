//! `checkpoint` and `restore`.

use super::context::Context;
use super::{create, run};
use crate::cli::checkpoint::{Checkpoint, Common, Restore};
use crate::cli::oci::BundleFlags;
use crate::foreground::Foreground;
use crate::output;
use anyhow::{Context as _, Result};
use ctr_isolation::sys::process;
use ctr_runtime::checkpoint::{self, Blocker, Dump};
use ctr_runtime::container::{Container, Options, Started};
use ctr_runtime::state::absolute;
use serde::Serialize;

/// Saves a container, which is then removed unless it is to go on; with `--check` tells what would be in the way.
///
/// # Errors
/// What cannot be saved.
pub fn checkpoint(context: &Context, flags: &Checkpoint) -> Result<u8> {
    let container = context.container(&flags.id)?;
    let wanted = dump(flags)?;
    if flags.check {
        return tell(&flags.id, container.blockers(&wanted)?, flags.json);
    }
    let goes_on = wanted.leave_running || wanted.pre_dump;
    container.checkpoint(wanted)?;
    if !goes_on {
        // As runc does: what is left of it is the checkpoint.
        Container::delete(&context.store, &flags.id, true, &|container, status| {
            context.notice_last(container, status);
        })?;
    }
    Ok(0)
}

fn dump(flags: &Checkpoint) -> Result<Dump> {
    // Whatever the caller left open is not CRIU's, which would hold it open until its end.
    process::cloexec_from(3)?;
    let status = (flags.status_fd >= 0).then(|| process::adopt(flags.status_fd)).transpose();
    Ok(Dump {
        common: common(&flags.common)?,
        parent: flags.parent_path.clone(),
        pre_dump: flags.pre_dump,
        leave_running: flags.leave_running,
        tcp_skip_in_flight: flags.tcp_skip_in_flight,
        link_remap: flags.link_remap,
        page_server: flags.page_server.clone(),
        status: status.with_context(|| format!("--status-fd {}", flags.status_fd))?,
    })
}

fn common(flags: &Common) -> Result<checkpoint::Common> {
    Ok(checkpoint::Common {
        images: absolute(&flags.image_path)?,
        work: flags.work_path.as_deref().map(absolute).transpose()?,
        tcp_established: flags.tcp_established,
        external_unix_sockets: flags.ext_unix_sk,
        shell_job: flags.shell_job,
        file_locks: flags.file_locks,
        lazy_pages: flags.lazy_pages,
        auto_dedup: flags.auto_dedup,
        cgroups: Some(flags.manage_cgroups_mode.into()),
        network_lock: flags.network_lock.map(Into::into),
    })
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    possible: bool,
    blockers: &'a [Blocker],
}

/// Tells what is in the way, for people or as JSON; the status is 1 if anything is.
fn tell(id: &str, blockers: Vec<Blocker>, json: bool) -> Result<u8> {
    let status = u8::from(!blockers.is_empty());
    if json {
        output::json(&Answer { id, possible: blockers.is_empty(), blockers: &blockers })?;
        return Ok(status);
    }
    let mut text = match blockers.len() {
        0 => format!("nothing is seen to keep {id} from being saved\n"),
        1 => format!("{id} cannot be saved as it is:\n"),
        count => format!("{id} cannot be saved as it is, for {count} reasons:\n"),
    };
    for blocker in &blockers {
        text += &line(blocker);
    }
    output::print(&text)?;
    Ok(status)
}

fn line(blocker: &Blocker) -> String {
    let command = blocker.command.as_deref().unwrap_or_default();
    let place = match (blocker.pid, blocker.descriptor) {
        (Some(pid), Some(fd)) => format!("process {pid} ({command}), descriptor {fd}: "),
        (Some(pid), None) => format!("process {pid} ({command}): "),
        (None, _) => String::new(),
    };
    match blocker.remedy.as_str() {
        "" => format!("  {place}{}\n", blocker.what),
        remedy => format!("  {place}{}\n      {remedy}\n", blocker.what),
    }
}

/// Brings a container back; attached, returns the status of its program.
///
/// # Errors
/// What cannot be restored, or what the kernel refused.
pub fn restore(context: &Context, flags: &Restore) -> Result<u8> {
    let (started, foreground) =
        start(context, flags).inspect_err(|error| context.failed(&flags.id, error))?;
    match foreground {
        Some(foreground) => run::wait(context, &flags.id, started, foreground, false),
        None => Ok(0),
    }
}

fn start(context: &Context, flags: &Restore) -> Result<(Started, Option<Foreground>)> {
    let bundle = BundleFlags {
        bundle: flags.bundle.clone(),
        console_socket: flags.console_socket.clone(),
        pid_file: flags.pid_file.clone(),
        ..BundleFlags::default()
    };
    let has_console = !flags.detach || flags.console_socket.is_some();
    let request = create::request(context, &flags.id, &bundle, has_console)?;
    let loaded = create::load(&bundle)?;
    let (plan, facts) = create::decide(&loaded, &request)?;
    let wanted = checkpoint::Restore {
        common: common(&flags.common)?,
        tcp_close: flags.tcp_close,
        lsm_profile: flags.lsm_profile.clone(),
        lsm_mount_context: flags.lsm_mount_context.clone(),
    };
    let options = Options { notify: None, ..create::options(&bundle, &loaded) };
    let foreground = (!flags.detach).then(Foreground::begin).transpose()?;
    let started = checkpoint::restore(&context.store, &loaded, &plan, &options, &wanted, &facts)?;
    Ok((started, foreground))
}
