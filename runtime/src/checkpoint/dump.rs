//! A container saved to files.

use super::criu::{Criu, Start};
use super::look::{self, File};
use super::rpc::{Kind, Options, PageServer, Request};
use super::{Common, DESCRIPTORS, Directories, EXTERNAL, GHOST_LIMIT, make, mounts};
use crate::bundle::Bundle;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::plan::{self, Plan, ns};
use crate::state::{Status, replace};
use crate::witness;
use ctr_isolation::Context;
use ctr_isolation::mountinfo;
use ctr_isolation::root::Root;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const LOG: &str = "dump.log";

/// How a container is to be saved.
#[derive(Debug, Default)]
pub struct Dump {
    /// What restoring has, too.
    pub common: Common,
    /// Earlier images, as seen from the new ones: only what has changed since is saved.
    pub parent: Option<PathBuf>,
    /// Save memory only, and only to have less to do later.
    pub pre_dump: bool,
    /// The container goes on afterwards.
    pub leave_running: bool,
    /// Leave out connections that are still being made.
    pub tcp_skip_in_flight: bool,
    /// Save removed files that have another name under that.
    pub link_remap: bool,
    /// Where memory is sent, instead of being written.
    pub page_server: Option<(String, u16)>,
    /// Where a zero byte is written once `lazy_pages` can be asked for memory.
    pub status: Option<OwnedFd>,
}

impl Container {
    /// Saves it. Unless it is to go on, its processes end.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it runs or is paused; what CRIU cannot save, in its words. The container goes on
    /// then.
    pub fn checkpoint(&self, mut wanted: Dump) -> Result<()> {
        let _lock = self.entry.lock()?;
        self.check_status("checkpoint")?;
        let ends = !wanted.leave_running && !wanted.pre_dump;
        if ends && !self.record.owned.is_empty() {
            return Err(Error::Unsupported {
                what: format!("checkpoint of container {:?} without --leave-running", self.record.id),
                needs: "it was made from an image, and its root file system would go with it".into(),
            });
        }
        make(&wanted.common.images)?;
        check_parent(&wanted)?;
        let bundle = self.bundle()?;
        let plan = self.plan_again(&bundle)?;
        let directories = Directories::open(&wanted.common, LOG)?;
        let mut criu = Criu::start(&Start::default())?;
        criu.note(&self.entry)?;
        let track = wanted.pre_dump || wanted.parent.is_some();
        criu.need(track, wanted.common.lazy_pages)?;
        let mut options = self.options(&wanted, &directories, track);
        if !wanted.pre_dump {
            self.name_outside(&mut options, &plan, &wanted.common.images)?;
        }
        criu.log = Some(directories.log.clone());
        let kind = if wanted.pre_dump { Kind::PreDump } else { Kind::Dump };
        let mut status = wanted.status.take();
        let mut notice = |notice: super::criu::Notice| {
            match notice.script.as_str() {
                "post-dump" if ends => witness::note_signal(&self.entry, libc::SIGKILL, "checkpoint"),
                "status-ready" => tell_ready(status.take()),
                _ => {}
            }
            Ok(())
        };
        criu.ask(kind, Request { options: Some(options), ..Request::default() }, &mut notice)?;
        // After a pre-dump it waits for the next one, and fails when none comes.
        if wanted.pre_dump { Ok(()) } else { criu.finish() }
    }

    pub(super) fn check_status(&self, verb: &'static str) -> Result<()> {
        match self.status() {
            Status::Running | Status::Paused => Ok(()),
            status => Err(self.wrong_status(verb, status, "")),
        }
    }

    /// What was decided when it was made: the same configuration leads to the same plan.
    pub(super) fn plan_again(&self, bundle: &Bundle) -> Result<Plan> {
        let request =
            plan::Request { id: self.record.id.clone(), has_console: true, ..plan::Request::default() };
        plan::create::create(bundle, &request, &Facts::read())
    }

    fn options(&self, wanted: &Dump, directories: &Directories, track: bool) -> Options {
        let server = |(address, port): &(String, u16)| PageServer {
            address: Some(address.clone()),
            port: Some(i32::from(*port)),
        };
        Options {
            pid: Some(self.record.pid),
            root: Some(self.record.rootfs.to_string_lossy().into_owned()),
            parent: wanted.parent.as_ref().map(|parent| parent.to_string_lossy().into_owned()),
            track_memory: track.then_some(true),
            leave_running: Some(wanted.leave_running),
            tcp_skip_in_flight: Some(wanted.tcp_skip_in_flight),
            link_remap: Some(wanted.link_remap),
            ghost_limit: Some(GHOST_LIMIT),
            page_server: wanted.page_server.as_ref().map(server),
            freeze_cgroup: self.record.cgroup.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
            ..wanted.common.options(directories, LOG, &self.record.annotations)
        }
    }

    /// Names what is not the container's own: namespaces, mounts, standard streams.
    fn name_outside(&self, options: &mut Options, plan: &Plan, images: &Path) -> Result<()> {
        let pid = self.record.pid;
        for (kind, name, key) in EXTERNAL {
            if plan.launch.join.iter().any(|(joined, _)| *joined == plan::create::flag(kind)) {
                let path = format!("/proc/{pid}/ns/{name}");
                let inode = std::fs::metadata(&path).doing(|| format!("look at {path}"))?.ino();
                options.external.push(format!("{name}[{inode}]:{key}"));
            }
        }
        let inside = mountinfo::points(&pid.to_string())?;
        if plan.launch.new & ns::MOUNT != 0 {
            let root = Root::open(Path::new(&format!("/proc/{pid}/root")))?;
            let at = |path: &Path| mountinfo::mount_of(root.resolve(path).ok()?.as_fd());
            options.external_mounts = mounts::saved(plan, &inside, &mountinfo::points("self")?, &at);
        }
        let mut names: Vec<String> = (0..3).map(|fd| stream(pid, fd)).collect();
        // By runc's reckoning only the first three are standard streams.
        let nulls = foreign_nulls(&self.processes()?, &inside);
        options.external.extend(nulls.iter().cloned());
        names.extend(nulls);
        let text = serde_json::to_string(&names).map_err(|error| Error::text(error.to_string()))?;
        let written = replace(&images.join(DESCRIPTORS), text.as_bytes());
        Ok(written.doing(|| format!("write {DESCRIPTORS}"))?)
    }
}

/// What the standard stream `fd` of process `pid` is, as its link in `/proc` says.
fn stream(pid: i32, fd: i32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Standard input is often the host's null device, which the container cannot reach by any name. CRIU's name for it, as
/// a file of somebody else: its mount, and its inode.
fn foreign_nulls(pids: &[i32], inside: &[mountinfo::Point]) -> BTreeSet<String> {
    let is_foreign = |file: &File| {
        let is_null = file.kind == libc::S_IFCHR && file.device == (1, 3);
        is_null && !inside.iter().any(|point| Some(point.id) == file.mount)
    };
    let files = pids.iter().flat_map(|pid| look::files(*pid)).filter(is_foreign);
    files.filter_map(|file| Some(format!("file[{:x}:{:x}]", file.mount?, file.inode))).collect()
}

/// CRIU looks for earlier images from the new ones, and is at a loss for words when they are not there.
fn check_parent(wanted: &Dump) -> Result<()> {
    let Some(parent) = &wanted.parent else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::text("--parent-path must be relative to --image-path"));
    }
    match wanted.common.images.join(parent).is_dir() {
        true => Ok(()),
        false => Err(Error::text(format!(
            "--parent-path: {} is no directory in {}",
            parent.display(),
            wanted.common.images.display()
        ))),
    }
}

/// Whoever waits for it has a byte, and then the end.
fn tell_ready(status: Option<OwnedFd>) {
    if let Some(Err(error)) = status.map(|status| std::fs::File::from(status).write_all(&[0])) {
        tracing::warn!("--status-fd: {error}");
    }
}
