//! `exec`.

use super::context::Context;
use crate::cli::oci::Exec;
use crate::foreground::{AS_RUNC, Foreground};
use anyhow::{Context as _, Result, bail};
use ctr_isolation::capabilities;
use ctr_isolation::sys::fs;
use ctr_runtime::bundle::TEXT_MAX;
use ctr_runtime::container::{self, Container, Options};
use ctr_runtime::facts::Facts;
use ctr_runtime::plan::Request;
use ctr_runtime::state::Status;
use ctr_runtime::witness::Watch;
use oci_spec::runtime::{LinuxCapabilitiesBuilder, Process, UserBuilder};
use std::path::PathBuf;

/// Starts one more process in a container; returns its status unless detached.
///
/// # Errors
/// What is wrong with the process, or what the kernel refused.
pub fn exec(context: &Context, flags: &Exec) -> Result<u8> {
    let container = context.container(&flags.id)?;
    let request = request(context, flags)?;
    let process = process(&container, flags)?;
    let options = Options {
        pid_file: flags.pid_file.clone(),
        console_socket: flags.console_socket.clone(),
        pidfd_socket: flags.pidfd_socket.clone(),
        may_start_again: true,
        cgroup: cgroup(&flags.cgroup)?,
        ..Options::default()
    };
    // In a paused one nothing comes further until somebody resumes it: whoever waits for that may be ended meanwhile.
    let waits = flags.ignore_paused && container.status() == Status::Paused;
    let foreground = (!flags.detach && !waits).then(Foreground::begin).transpose()?;
    let started = container.exec(&process, &request, &options, flags.ignore_paused, &Facts::read())?;
    let foreground = if waits && !flags.detach { Some(Foreground::begin()?) } else { foreground };
    match foreground {
        Some(foreground) => Ok(foreground.wait(started, AS_RUNC, Watch::default())?.ended.status() as u8),
        None => Ok(0),
    }
}

/// The cgroup of `--cgroup`, below the container's own. A list of controllers before it is for cgroup v1, as in runc.
fn cgroup(words: &[String]) -> Result<Option<PathBuf>> {
    match words {
        [] => Ok(None),
        [path] if !path.contains(':') => {
            if path.split('/').any(|part| part == "..") {
                bail!("--cgroup {path}: it is not below the container's own cgroup");
            }
            Ok(Some(path.into()))
        }
        [path] => bail!("--cgroup {path}: cgroup v2 has one hierarchy: give PATH, without controllers"),
        _ => bail!("--cgroup: cgroup v2 has one hierarchy: give one PATH"),
    }
}

/// What the flags ask for besides the process.
///
/// # Errors
/// When a descriptor to be kept is not open.
pub fn request(context: &Context, flags: &Exec) -> Result<Request> {
    let has_console = !flags.detach || flags.console_socket.is_some();
    Ok(Request { has_console, ..context.request_for_exec(&flags.id, flags.preserve_fds)? })
}

/// The process that is wanted: a file, or the container's own with the flags laid over it.
///
/// # Errors
/// What is wrong with either.
pub fn process(container: &Container, flags: &Exec) -> Result<Process> {
    if let Some(path) = &flags.process {
        let text = fs::read_bounded(path, TEXT_MAX)
            .with_context(|| format!("read the process {}", path.display()))?;
        let file = path.display().to_string();
        let read = container::parse_process(&text, &file);
        let (mut process, warnings) = read.with_context(|| format!("read the process {file}"))?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        if flags.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    let bundle = container.bundle()?;
    let mut process =
        bundle.spec.process().clone().context("the container's configuration has no process")?;
    process.set_args(Some(flags.command.clone())).set_terminal(Some(flags.tty)).set_exec_cpu_affinity(None);
    if let Some(cwd) = &flags.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(flags.env.iter().cloned());
    process.set_env(Some(env));
    if flags.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if flags.apparmor.is_some() {
        process.set_apparmor_profile(flags.apparmor.clone());
    }
    if flags.process_label.is_some() {
        process.set_selinux_label(flags.process_label.clone());
    }
    set_user(&mut process, flags)?;
    add_capabilities(&mut process, &flags.cap)?;
    Ok(process)
}

/// `--user UID[:GID]` are numbers, as in runc; text that is no number is refused and never root (CVE-2026-30892).
fn set_user(process: &mut Process, flags: &Exec) -> Result<()> {
    let mut gids = process.user().additional_gids().clone().unwrap_or_default();
    gids.extend(&flags.additional_gids);
    let (mut uid, mut gid, umask) = (process.user().uid(), process.user().gid(), process.user().umask());
    if let Some(text) = &flags.user {
        let (user, group) =
            text.split_once(':').map_or((text.as_str(), None), |(user, group)| (user, Some(group)));
        let number = |what: &str, text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let value = text.parse::<u32>().ok().filter(|value| digits && *value != u32::MAX);
            value.with_context(|| format!("--user: the {what} id {text:?} is not a number: give UID[:GID]"))
        };
        uid = number("user", user)?;
        if let Some(group) = group {
            gid = number("group", group)?;
        }
    }
    let mut user = UserBuilder::default().uid(uid).gid(gid);
    if let Some(umask) = umask {
        user = user.umask(umask);
    }
    if !gids.is_empty() {
        user = user.additional_gids(gids);
    }
    process.set_user(user.build()?);
    Ok(())
}

/// `--cap` adds to every set but the inheritable and ambient ones, as in runc since 1.1.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut more = oci_spec::runtime::Capabilities::new();
    for name in names {
        let Some(known) = capabilities::parse(name) else {
            // As in a configuration (runtime-spec config.md, "capabilities").
            tracing::warn!("--cap: unknown capability {name:?} is ignored");
            continue;
        };
        more.insert(serde_json::from_value(serde_json::Value::String(known.to_string()))?);
    }
    let sets = process.capabilities().clone();
    let with = |set: Option<&oci_spec::runtime::Capabilities>| {
        let mut all = set.cloned().unwrap_or_default();
        all.extend(&more);
        all
    };
    let set = |get: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<oci_spec::runtime::Capabilities>| {
        sets.as_ref().and_then(|sets| get(sets).as_ref())
    };
    let plain = |set: Option<&oci_spec::runtime::Capabilities>| set.cloned().unwrap_or_default();
    let built = LinuxCapabilitiesBuilder::default()
        .bounding(with(set(|s| s.bounding())))
        .effective(with(set(|s| s.effective())))
        .permitted(with(set(|s| s.permitted())))
        .inheritable(plain(set(|s| s.inheritable())))
        .ambient(plain(set(|s| s.ambient())))
        .build()?;
    process.set_capabilities(Some(built));
    Ok(())
}
