//! What every verb works with.

use crate::cli::Global;
use crate::cli::global::{CgroupManager, Rootless};
use crate::commands::logs;
use crate::ended::Ended;
use crate::foreground::Waited;
use crate::notify::{self, Notify};
use crate::settings::Settings;
use crate::{log, output};
use anyhow::Result;
use ctr_runtime::container::{Container, open_process};
use ctr_runtime::death::{Death, Failure, Sent};
use ctr_runtime::plan::{Manager, Request};
use ctr_runtime::state::{absolute, check_id, now};
use ctr_runtime::witness::{self, Look};
use ctr_runtime::{Error, Status, Store};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the supervisor of a container that was killed may take to note how it ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Flags and settings, read once, and the store they lead to.
#[derive(Debug)]
pub struct Context {
    /// The global flags.
    pub global: Global,
    /// Settings, with the flags laid over them.
    pub settings: Settings,
    /// The containers.
    pub store: Store,
}

impl Context {
    /// Reads settings and begins to log.
    ///
    /// # Errors
    /// What is wrong in a configuration file, or with the log.
    pub fn new(global: Global) -> Result<Self> {
        let settings = Settings::read(&global)?;
        log::start(&global, settings.log.level, settings.log.trace)?;
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let store = Store::new(&settings.root);
        Ok(Context { global, settings, store })
    }

    /// The container `id`.
    ///
    /// # Errors
    /// When there is none.
    pub fn container(&self, id: &str) -> Result<Container> {
        Ok(Container::open(&self.store, id)?)
    }

    /// The records of containers that have ended.
    pub fn ended(&self) -> Ended {
        Ended::new(&self.settings.store, self.settings.record.size.0)
    }

    /// The state directory, as records name it.
    pub fn root(&self) -> PathBuf {
        absolute(&self.settings.root).unwrap_or_else(|_| self.settings.root.clone())
    }

    /// Keeps a record. That it cannot be kept must not keep anybody from what they are doing.
    fn note(&self, death: &Death) {
        if self.settings.store.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = self.ended().note(&Death { root: self.root(), ..death.clone() }) {
            tracing::debug!("keep the record in {}: {error}", self.ended().directory().display());
        }
    }

    /// Records the end of `container`, whose directory is `directory`, which we have waited for; and what it was.
    pub fn reaped(&self, container: &Container, directory: &Path, waited: &Waited) -> Death {
        let mut death = container.death(Some(waited.ended.into()), Look::Whole);
        let watched = waited.watch.last();
        death.early = death.usage.memory.is_none() && watched.memory.is_some() && !waited.watch.saw_end();
        death.usage = death.usage.or(watched);
        if let Some(memory) = &mut death.usage.memory {
            memory.outlived = waited.watch.outlived();
        }
        let passed = waited.passed.iter().map(|signal| Sent { signal: *signal, at: now(), by: "run".into() });
        death.sent.extend(passed);
        let killed = Sent { signal: libc::SIGKILL, at: now(), by: "run --timeout".into() };
        death.sent.extend(waited.timed_out.then_some(killed));
        self.note(&death);
        witness::claim(directory);
        death
    }

    /// Records the end of `container` by what there is still to be seen, if nobody has.
    pub fn notice(&self, container: &Container) {
        let is_seen = witness::is_noted(container.entry.dir()) || logs::supervisor(container).is_some();
        if !is_seen && witness::claim(container.entry.dir()) {
            self.note(&container.death(None, Look::Brief));
        }
    }

    /// The same of one that is about to be removed, and had this status.
    pub fn notice_last(&self, container: &Container, status: Status) {
        if status == Status::Created {
            let failure =
                Failure { phase: "created".into(), error: "it was deleted before it was started".into() };
            self.note(&Death { failure: Some(failure), ..container.death(None, Look::Brief) });
        } else if !self.is_noted_soon(container) {
            self.note(&container.death(None, Look::Brief));
        }
    }

    /// Whether the end of `container` is recorded. Its supervisor, if it has one, sees most and is given the time.
    pub fn is_noted_soon(&self, container: &Container) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            // Asked first: one that has ended meanwhile has noted it before.
            let is_awaited = logs::supervisor(container).is_some() && Instant::now() < until;
            if witness::is_noted(container.entry.dir()) {
                return true;
            }
            if !is_awaited {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Records that a container could not be made, or its program not be started.
    pub fn failed(&self, name: &str, error: &anyhow::Error) {
        let (kind, usage, above) = match error.downcast_ref() {
            // That is told of a container that goes on as it was.
            Some(Error::Exists(_) | Error::NotFound(_) | Error::WrongStatus { .. }) => return,
            Some(Error::NotMade { error, usage, above }) => {
                (Some(&**error), (**usage).clone(), above.clone())
            }
            other => (other, Default::default(), None),
        };
        if check_id(name).is_err() {
            return;
        }
        let failure = Failure::of(kind, &output::chain(error));
        let (name, now) = (name.to_owned(), now());
        self.note(&Death {
            name,
            began: now,
            ended: now,
            reaped: true,
            failure: Some(failure),
            usage,
            above,
            ..Death::default()
        });
    }

    /// The program of a created container becomes what it is to be.
    ///
    /// # Errors
    /// What its start ran into.
    pub fn start(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let notify = match notify::host() {
            Some(host) => Notify::of(host, container.entry.dir())?,
            None => None,
        };
        let started = container.start();
        if let Err(error) = &started
            && !matches!(error, Error::WrongStatus { .. })
            && witness::claim(container.entry.dir())
        {
            let failure = Some(Failure::of(Some(error), &error.to_string()));
            self.note(&Death { failure, exit: None, ..container.death(None, Look::Whole) });
        }
        started?;
        let Some(notify) = notify else { return Ok(()) };
        match open_process(&container.record) {
            Some(process) => notify.wait(process.as_fd(), container.record.pid),
            None => Ok(()),
        }
    }

    /// What the caller asked for that concerns cgroups and descriptors.
    ///
    /// # Errors
    /// When a descriptor that is to be kept is not open.
    pub fn request(&self, id: &str, preserve_fds: u32) -> Result<Request> {
        self.request_with(id, preserve_fds, listen_fds())
    }

    /// The same for one more process of a container: sockets of activation are not its, as for runc.
    ///
    /// # Errors
    /// As [`Context::request`].
    pub fn request_for_exec(&self, id: &str, preserve_fds: u32) -> Result<Request> {
        self.request_with(id, preserve_fds, None)
    }

    fn request_with(
        &self,
        id: &str,
        preserve_fds: u32,
        listen: Option<(u32, Option<String>)>,
    ) -> Result<Request> {
        let keep = preserve_fds + listen.as_ref().map_or(0, |(count, _)| *count);
        for number in 3..3 + keep {
            // crun passes over them, and runc does not: who sends one that is closed is told.
            if let Err(error) = ctr_isolation::sys::process::keep_across_exec(number as i32) {
                tracing::warn!("--preserve-fds: descriptor {number} is not open: {error}");
            }
        }
        // Whatever else the caller left open is not the container's (CVE-2024-21626).
        ctr_isolation::sys::process::cloexec_from(3 + keep)?;
        Ok(Request {
            id: id.to_owned(),
            keep_fds: preserve_fds,
            listen,
            manager: match self.settings.cgroup.manager {
                CgroupManager::Systemd => Manager::Systemd,
                CgroupManager::Disabled => Manager::Nobody,
                // An engine that wants systemd says so, as to runc.
                CgroupManager::Cgroupfs | CgroupManager::Auto => Manager::Cgroupfs,
            },
            need_cgroup: self.global.rootless == Rootless::Is(false),
            ..Request::default()
        })
    }
}

/// The descriptors of socket activation, when they are meant for us (sd_listen_fds(3)).
fn listen_fds() -> Option<(u32, Option<String>)> {
    let count: u32 = std::env::var("LISTEN_FDS").ok()?.parse().ok()?;
    let ours = std::env::var("LISTEN_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (ours && count > 0 && count < 1024).then(|| (count, std::env::var("LISTEN_FDNAMES").ok()))
}
