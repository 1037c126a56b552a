//! `run` at the image door: a root file system made for this container, podman's manners.

use super::context::Context;
use crate::cli::global::CgroupManager;
use crate::cli::image::Transfer;
use crate::cli::limits::{Policy, TestFlags};
use crate::cli::run::{Pull, Run};
use crate::foreground::{Foreground, Manners};
use crate::image;
use crate::output::Output;
use crate::private::{Note, Private};
use crate::report::{Expectation, Judged, Report};
use crate::run::{self, Caller, Compiled, Request, Stored};
use crate::supervisor::{self, Start};
use anyhow::{Context as _, Result, bail};
use ctr_images::manifest::Platform;
use ctr_isolation::sys::{fs, process};
use ctr_runtime::bundle::Bundle;
use ctr_runtime::container::{self, Started};
use ctr_runtime::facts::Facts;
use ctr_runtime::plan::{self, Plan};
use ctr_runtime::state::absolute;
use ctr_runtime::witness::Watch;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs an image or a root file system; returns the status of its program, or 0 when detached.
///
/// # Errors
/// What is wrong with the flags, or what the kernel refused.
pub fn run(context: &Context, flags: &Run) -> Result<u8> {
    if context.settings.store.as_os_str().is_empty() {
        bail!("there is no place for what the container writes: set HOME, XDG_DATA_HOME or CTR_STORE");
    }
    run::guard(flags, &context.settings)?;
    let name = name(context, flags);
    ctr_runtime::state::check_id(&name)?;
    crate::trace::name(&name);
    if context.store.dir_of(&name).exists() {
        bail!(ctr_runtime::Error::Exists(name));
    }
    let note = Note {
        root: context.settings.root.clone(),
        remove: flags.image.rm,
        interactive: flags.image.interactive,
        best_effort: policy(context, flags) == Policy::BestEffort,
        // The supervisor, and `restart`, are elsewhere.
        pid_file: flags.bundle.pid_file.as_deref().map(absolute).transpose()?,
        stop_signal: None,
    };
    let caller = Caller::of_process();
    let stored = stored(context, flags)?;
    let image = stored.as_ref().map(Stored::execution).unwrap_or_default();
    // What it reads may be a pipe: nothing is made yet, and no signal kept, while one waits for that.
    let request = Request::read(flags, &name, &context.settings, &caller, &image)?;
    let note = Note { stop_signal: image.stop_signal.filter(|signal| !signal.is_empty()), ..note };
    let wanted = Wanted { flags, caller, request, stored };
    if flags.detach {
        detached(context, &wanted, &name, &note)
    } else {
        attached(context, &wanted, &name, &note)
    }
}

/// What was asked for, and by whom.
struct Wanted<'a> {
    flags: &'a Run,
    caller: Caller,
    request: Request,
    stored: Option<Stored>,
}

/// The name of an image of the store, where one was asked for: none for `host` and `--rootfs`.
fn image_name(flags: &Run) -> Option<&str> {
    flags.image.image.as_deref().filter(|name| *name != run::HOST)
}

/// The image that was asked for, fetched if it is not here and may be.
fn stored(context: &Context, flags: &Run) -> Result<Option<Stored>> {
    let Some(name) = image_name(flags) else { return Ok(None) };
    let settings = &context.settings;
    let found = if flags.image.pull == Pull::Always { None } else { Stored::find(settings, name)? };
    if found.is_some() {
        return Ok(found);
    }
    if flags.image.pull == Pull::Never {
        bail!("image {name:?} is not here, and --pull never forbids to fetch it");
    }
    let fetch = || super::image::fetch(settings, name, None, &Platform::here(), &Transfer::default());
    image::as_root(fetch).with_context(|| format!("fetch image {name:?}, which is not here"))?;
    Stored::find(settings, name)
}

fn name(context: &Context, flags: &Run) -> String {
    let is_taken = |name: &str| context.store.dir_of(name).exists();
    flags.name().map_or_else(|| run::generate_name(is_taken), str::to_owned)
}

fn detached(context: &Context, wanted: &Wanted<'_>, name: &str, note: &Note) -> Result<u8> {
    let flags = wanted.flags;
    let (private, lock) =
        Private::make(context, name, note).inspect_err(|error| context.failed(name, error))?;
    let start = Start {
        private: &private,
        note,
        terminal: flags.image.tty,
        keep_fds: flags.bundle.preserve_fds,
        make: &|| make(context, wanted, &private, note),
    };
    if let Err(error) = supervisor::detach(context, &start, &lock) {
        private.give_up(context, lock);
        return Err(error);
    }
    crate::output::print(&format!("{name}\n"))?;
    Ok(0)
}

fn attached(context: &Context, wanted: &Wanted<'_>, name: &str, note: &Note) -> Result<u8> {
    let flags = wanted.flags;
    let mut reports = Reports::open(&flags.test)?;
    let foreground = Foreground::begin()?;
    let (private, lock) =
        Private::make(context, name, note).inspect_err(|error| context.failed(name, error))?;
    if !flags.image.interactive && !flags.image.tty {
        // What is on our standard input is for who comes after us.
        process::dup_onto(fs::open(Path::new("/dev/null"), fs::O_RDWR)?.as_fd(), 0)?;
    }
    let started = match make(context, wanted, &private, note) {
        Ok(started) => started,
        Err(error) => {
            context.failed(name, &error);
            private.give_up(context, lock);
            let (name, command) = (name.to_owned(), flags.command.clone());
            let failure = Some(crate::output::chain(&error));
            reports.write(&Report { name, command, failure, ..Report::default() })?;
            return Err(error);
        }
    };
    drop(lock);
    let container = container::Container::open(&context.store, name);
    let (pid, directory) = (started.pid, fs::open(private.entry.dir(), fs::O_DIRECTORY)?);
    let deadline = flags.test.timeout.map(|timeout| Instant::now() + timeout);
    let manners = Manners { forward_input: flags.image.interactive, default_actions: true, deadline };
    let watch = container.as_ref().map(Watch::new).unwrap_or_default();
    let waited = foreground.wait(started, manners, watch)?;
    let status = waited.ended.status();
    let report = container.as_ref().ok().map(|container| {
        let death = context.reaped(container, &fs::fd_path(directory.as_fd()), &waited);
        Report::new(&death, &flags.command, waited.timed_out, &flags.test.expect)
    });
    // It may have been removed, or restarted, by others meanwhile.
    let is_ours =
        container::Container::open(&context.store, name).is_ok_and(|container| container.record.pid == pid);
    if is_ours {
        supervisor::note_status(directory.as_fd(), status)?;
        if Note::read(&private.directory)?.remove {
            supervisor::remove_own(context, &private, pid)?;
        }
    }
    match report {
        Some(report) => told(&report, &mut reports, status as u8),
        None => Ok(status as u8),
    }
}

/// The exit status where a program was ended by `--timeout`: that of timeout(1).
const TIMED_OUT: u8 = 124;
/// The exit status where a program ended well, but not as was expected.
const UNEXPECTED: u8 = 123;

/// Writes the report where it is wanted, says what was expected and is not so, and decides on the exit status.
fn told(report: &Report, reports: &mut Reports, status: u8) -> Result<u8> {
    if let Err(error) = reports.write(report) {
        // What the program did counts for more.
        tracing::error!("{}", crate::output::chain(&error));
        return Ok(if status == 0 { 125 } else { status });
    }
    if report.timed_out {
        tracing::error!("the program was ended by --timeout, after {:.1} s", report.seconds);
        return Ok(TIMED_OUT);
    }
    for reason in report.unmet().filter_map(Judged::reason) {
        tracing::error!("{reason}");
    }
    Ok(if status == 0 && report.unmet().next().is_some() { UNEXPECTED } else { status })
}

/// The files of a report, made before the program runs: that one cannot be written is known while nothing is lost.
struct Reports {
    json: Option<Output>,
    junit: Option<Output>,
}

impl Reports {
    fn open(flags: &TestFlags) -> Result<Reports> {
        if flags.report.is_some() && flags.report == flags.junit {
            bail!("--report and --junit name the same file");
        }
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::new).transpose();
        Ok(Reports { json: open(&flags.report)?, junit: open(&flags.junit)? })
    }

    fn write(&mut self, report: &Report) -> Result<()> {
        let json = self.json.take().map_or(Ok(()), |file| {
            let text = serde_json::to_string_pretty(report)? + "\n";
            file.write(&text)
        });
        let junit = self.junit.take().map_or(Ok(()), |file| file.write(&report.junit()));
        json.and(junit)
    }
}

fn make(context: &Context, wanted: &Wanted<'_>, private: &Private, note: &Note) -> Result<Started> {
    let Wanted { flags, caller, request, stored } = wanted;
    let compiled =
        run::prepare(flags, request, &context.settings, caller, &private.directory, stored.as_ref())?;
    let (bundle, plan, facts) = planned(context, flags, request, &private.directory, compiled)?;
    let options = private.options(note.pid_file.clone());
    Ok(container::create_reserved(&private.entry, &bundle, &plan, &options, &facts)?)
}

/// What [`run`] would do, without making anything.
///
/// # Errors
/// What is wrong with the flags.
pub fn plan(context: &Context, flags: &Run) -> Result<Plan> {
    let name = name(context, flags);
    ctr_runtime::state::check_id(&name)?;
    let directory = crate::private::directory(context, &name);
    let caller = Caller::of_process();
    let find = |name: &str| {
        let missing = || format!("image {name:?} is not here: `ctr image pull {name}` fetches it");
        Stored::find(&context.settings, name)?.with_context(missing)
    };
    let stored = image_name(flags).map(find).transpose()?;
    let image = stored.as_ref().map(Stored::execution).unwrap_or_default();
    let request = Request::read(flags, &name, &context.settings, &caller, &image)?;
    let compiled = run::foresee(flags, &request, &context.settings, &caller, &directory, stored.as_ref())?;
    Ok(planned(context, flags, &request, &directory, compiled)?.1)
}

fn planned(
    context: &Context,
    flags: &Run,
    wanted: &Request,
    directory: &Path,
    compiled: Compiled,
) -> Result<(Bundle, Plan, Facts)> {
    let mut request =
        plan::Request { has_console: true, ..context.request(&wanted.name, flags.bundle.preserve_fds)? };
    request.manager = manager(context, request.manager);
    request.best_effort = policy(context, flags) == Policy::BestEffort;
    // Only a cgroup of its own tells what it used.
    let expects = flags.test.expect.iter().any(Expectation::needs_cgroup);
    request.counted = expects || flags.test.report.is_some() || flags.test.junit.is_some();
    request.need_cgroup |= expects && !request.best_effort;
    let text = serde_json::to_vec(&compiled.spec)?;
    let bundle = Bundle { dir: directory.to_owned(), spec: compiled.spec, text, warnings: Vec::new() };
    let mut facts = Facts::read();
    if wanted.is_limited() || request.counted {
        facts.ask_for_cgroups();
    }
    let plan = plan::create::create(&bundle, &request, &facts)?;
    for warning in compiled.warnings.iter().chain(&plan.warnings) {
        tracing::warn!("{warning}");
    }
    Ok((bundle, plan, facts))
}

/// Who makes the cgroup of a container of the image door.
pub fn manager(context: &Context, otherwise: plan::Manager) -> plan::Manager {
    if context.settings.cgroup.manager == CgroupManager::Auto { plan::Manager::Auto } else { otherwise }
}

fn policy(context: &Context, flags: &Run) -> Policy {
    flags.limits.limits.unwrap_or(context.settings.run.limits)
}

/// podman's status for an error: 127 when the program was not found, 126 when it cannot be executed, else 125.
pub fn status(error: &anyhow::Error) -> u8 {
    let text = format!("{error:#}");
    match text.contains("exec: ") {
        true if text.contains("executable file not found") || text.contains("no such file or directory") => {
            127
        }
        true if text.contains("permission denied") || text.contains("exec format error") => 126,
        _ => 125,
    }
}
