//! What every verb works with.

use crate::cli::Global;
use crate::cli::global::{CgroupManager, Rootless};
use crate::log;
use crate::settings::Settings;
use anyhow::Result;
use ctr_runtime::Store;
use ctr_runtime::container::Container;
use ctr_runtime::plan::{Manager, Request};

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
        log::start(&global, settings.log.level)?;
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

    /// What the caller asked for that concerns cgroups and descriptors.
    ///
    /// # Errors
    /// When a descriptor that is to be kept is not open.
    pub fn request(&self, id: &str, preserve_fds: u32) -> Result<Request> {
        let listen = listen_fds();
        let keep = preserve_fds + listen.as_ref().map_or(0, |(count, _)| *count);
        for number in 3..3 + keep {
            ctr_isolation::sys::process::keep_across_exec(number as i32).map_err(|error| {
                anyhow::anyhow!("--preserve-fds: descriptor {number} is not open: {error}")
            })?;
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
