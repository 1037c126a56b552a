//! The life of a container: create, start, exec, signals, pause, delete.

use crate::bundle::{self, Bundle};
use crate::checkpoint;
use crate::confine;
use crate::error::{Error, Result};
use crate::executable::{self, Place};
use crate::facts::Facts;
use crate::hooks;
use crate::launch::{self, Io, Launched};
use crate::plan::validate::prestart;
use crate::plan::{self, Plan, Request, ns};
use crate::protocol::{Channel, Message};
use crate::release;
use crate::state::{self, Entry, RECORD_VERSION, Record, Recording, Status, Store, file};
use crate::stuck;
use crate::witness;
use ctr_isolation::cgroup::{self, Cgroup};
use ctr_isolation::resctrl::{self, Resctrl};
use ctr_isolation::sys::process::Ended;
use ctr_isolation::sys::socket::{self, Kind};
use ctr_isolation::sys::{fs, process};
use ctr_isolation::{Context, Error as Cause};
use ctr_isolation::{guard, network, signal};
use oci_spec::runtime::{Hook, LinuxNamespaceType, Process};
use std::fs::Permissions;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long freezing may take.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the caller gives along with a plan.
#[derive(Debug, Default)]
pub struct Options {
    /// Where the first process's pid is written.
    pub pid_file: Option<PathBuf>,
    /// Where the master of the terminal is sent; without it, it is ours.
    pub console_socket: Option<PathBuf>,
    /// Where a descriptor of the first process is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Go on without waiting for `start`.
    pub run: bool,
    /// Directories that belong to the container alone and go with it.
    pub owned: Vec<PathBuf>,
    /// For `exec`: the cgroup, below the container's own, that the process is put into.
    pub cgroup: Option<PathBuf>,
    /// The socket for sd_notify(3) whose directory the plan has among its mounts.
    pub notify: Option<Notify>,
    /// We are a program that may start again, with the same arguments, where processes of the container could
    /// otherwise open its file: see [`guard`]. A library's caller must see to that itself.
    pub may_start_again: bool,
}

/// A socket for sd_notify(3) in a directory of the container's own.
#[derive(Debug)]
pub enum Notify {
    /// Who starts the container makes it.
    Later,
    /// This one, which gets its name before there is a process.
    Now(OwnedFd),
}

/// The name of that socket.
pub const NOTIFY_SOCKET: &str = "notify.sock";

/// A process that was just started, and our part of it.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub pid: i32,
    /// A descriptor for it.
    pub pidfd: OwnedFd,
    /// The master of its terminal, when it has one and no console socket was given.
    pub terminal: Option<OwnedFd>,
}

/// A container that exists.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its directory.
    pub entry: Entry,
    /// Its record.
    pub record: Record,
}

impl Container {
    /// The container `id`. One that has no record yet is found as `creating`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; that its record is torn.
    pub fn open(store: &Store, id: &str) -> Result<Self> {
        let entry = store.open(id)?;
        let record = entry.record()?;
        if record.is_none() && entry.is_torn() {
            return Err(entry.torn());
        }
        Ok(Self::new(entry, record, id))
    }

    /// The same, as it is now that the lock is ours: another may have changed it since it was found.
    pub(crate) fn again(&self) -> Result<Self> {
        Ok(Self::new(self.entry.clone(), self.entry.record()?, &self.record.id))
    }

    fn new(entry: Entry, record: Option<Record>, id: &str) -> Self {
        let record = record.unwrap_or_else(|| Record { id: id.into(), ..Record::default() });
        Container { entry, record }
    }

    /// What it is doing, observed.
    pub fn status(&self) -> Status {
        if self.record.pid == 0 {
            return Status::Creating;
        }
        match state::start_time(self.record.pid) {
            Some((time, false)) if time == self.record.start_time => {}
            _ => return Status::Stopped,
        }
        // One that waits for `start` can be frozen as well; while it is made it cannot.
        match self.waiting() {
            Some(Status::Creating) => Status::Creating,
            _ if self.cgroup().is_some_and(|cgroup| cgroup.is_frozen()) => Status::Paused,
            waiting => waiting.unwrap_or(Status::Running),
        }
    }

    /// `Created` or `Creating`, as its start socket tells; `None` once it was started.
    fn waiting(&self) -> Option<Status> {
        if self.entry.path(file::START).exists() {
            return Some(Status::Created);
        }
        self.entry.path(file::START_NEW).exists().then_some(Status::Creating)
    }

    /// Its cgroup, where it has one.
    pub fn cgroup(&self) -> Option<Cgroup> {
        self.record.own_cgroup()
    }

    /// Its configuration, as it was at `create`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bundle(&self) -> Result<Bundle> {
        let path = self.entry.path(file::CONFIG);
        let text = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
        Bundle::parse(self.record.bundle.clone(), text)
    }

    /// The process that waits for `start` becomes the container's program.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it is created; what the program's start ran into; what a `poststart` hook did.
    pub fn start(&self) -> Result<()> {
        let _lock = self.entry.lock()?;
        match self.status() {
            Status::Creating => {
                let made = self.when_made()?;
                made.start_made(made.status())
            }
            status => self.start_made(status),
        }
    }

    /// The container once it is made: for other runtimes it does not exist before, so callers that wait for `state` to
    /// succeed start it too early. Where its maker was killed that does not come.
    fn when_made(&self) -> Result<Container> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let started = Instant::now();
        let mut now = self.again()?;
        while now.status() == Status::Creating && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
            now = self.again()?;
        }
        Ok(now)
    }

    fn start_made(&self, status: Status) -> Result<()> {
        let why = match status {
            Status::Created => "",
            Status::Stopped => " (cannot start a container that has stopped)",
            Status::Paused => " (resume it first)",
            _ => " (cannot start an already running container)",
        };
        if status != Status::Created {
            return Err(self.wrong_status("start", status, why));
        }
        let dir = fs::open(self.entry.dir(), fs::O_DIRECTORY)?;
        let path = fs::fd_path(dir.as_fd()).join(file::START);
        let channel = Channel::new(
            socket::connect(&path, Kind::Packet).doing(|| "reach the container's first process")?,
        );
        channel.go(&[])?;
        phase!("process told to go on");
        let no_end = || {
            self.bundle()
                .is_ok_and(|bundle| bundle.spec.hooks().as_ref().is_some_and(hooks::may_take_for_ever))
        };
        wait_for_program(&channel, no_end).and_then(|()| confine::was_room(&self.record)).map_err(
            |error| {
                let bundle = self.bundle().ok();
                executable::explain(
                    error,
                    bundle.and_then(|bundle| Place::of_spec(&self.record.rootfs, &bundle.spec)),
                )
            },
        )?;
        phase!("program runs");
        std::fs::remove_file(self.entry.path(file::START)).doing(|| "mark the container as started")?;
        self.run_poststart()
    }

    /// runtime-spec runtime.md, "Lifecycle": when a `poststart` hook fails, the container is stopped.
    fn run_poststart(&self) -> Result<()> {
        if !self.record.post_hooks {
            return Ok(());
        }
        let bundle = self.bundle()?;
        let hooks =
            bundle.spec.hooks().as_ref().and_then(|hooks| hooks.poststart().clone()).unwrap_or_default();
        let state = self.record.oci(Status::Running, self.record.pid);
        let result = hooks::run("poststart", &hooks, &state);
        if result.is_err() {
            release::kill(&self.record)?;
        }
        Ok(result?)
    }

    pub(crate) fn wrong_status(&self, verb: &'static str, status: Status, why: &'static str) -> Error {
        Error::WrongStatus { verb, id: self.record.id.clone(), status, why }
    }

    /// Sends `signal` to its first process, or with `all` to every one; `by` is the verb that does.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] when it has stopped.
    pub fn kill(&self, signal: i32, all: bool, by: &str) -> Result<()> {
        let status = self.status();
        if all {
            // Without its first process, others of a shared PID namespace may be left.
            if let Some(cgroup) = self.cgroup().filter(Cgroup::exists) {
                witness::note_signal(&self.entry, signal, by);
                return Ok(cgroup.signal(signal)?);
            }
            // As for runc: there is nobody whom it could miss.
            if status == Status::Stopped {
                return Ok(());
            }
        }
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.wrong_status("kill", status, " (container not running)"));
        }
        let pidfd = open_process(&self.record)
            .ok_or_else(|| self.wrong_status("kill", Status::Stopped, " (container not running)"))?;
        witness::note_signal(&self.entry, signal, by);
        process::pidfd_send_signal(pidfd.as_fd(), signal)?;
        // Without a PID namespace of its own the others do not end with the first.
        if signal == libc::SIGKILL
            && !self.record.own_pids
            && let Some(cgroup) = self.cgroup().filter(Cgroup::exists)
        {
            cgroup.signal(signal)?;
        }
        Ok(())
    }

    /// Stops every process where it is.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it runs; [`Error::Unsupported`] without a cgroup.
    pub fn pause(&self) -> Result<()> {
        let _lock = self.entry.lock()?;
        let status = self.status();
        if !matches!(status, Status::Running | Status::Created) {
            return Err(self.wrong_status("pause", status, " (container not running or created)"));
        }
        let cgroup = self.need_cgroup("pause")?;
        Ok(cgroup.freeze(FREEZE_TIMEOUT).map_err(|error| match error.errno {
            0 => ctr_isolation::Error::new(format!(
                "{error}: {}",
                stuck::reason(&cgroup.processes().unwrap_or_default())
            )),
            _ => error,
        })?)
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it is paused.
    pub fn resume(&self) -> Result<()> {
        let _lock = self.entry.lock()?;
        let status = self.status();
        if status != Status::Paused {
            return Err(self.wrong_status("resume", status, " (container not paused)"));
        }
        Ok(self.need_cgroup("resume")?.thaw()?)
    }

    pub(crate) fn need_cgroup(&self, verb: &str) -> Result<Cgroup> {
        self.cgroup().ok_or_else(|| Error::Unsupported {
            what: format!("{verb} of container {:?}", self.record.id),
            needs: "it has no cgroup, because none could be had when it was made: `ctr doctor` tells why, and what to do"
                .into(),
        })
    }

    /// The pids of its processes, as we see them: those in its cgroup or, without one, in its PID namespace.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it has neither of its own.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.status() {
            Status::Stopped | Status::Creating => Ok(Vec::new()),
            _ if self.record.cgroup.is_none() && self.record.own_pids => Ok(inside_of(self.record.pid)),
            _ => Ok(self.need_cgroup("ps")?.processes()?),
        }
    }

    /// Removes the container `id`; with `force`, or where it was never started, ends it first. `last` is called before
    /// that for one that was never started, and after it for others that had a process, while the cgroup is still there.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Error::WrongStatus`] when it still runs; everything that could not
    /// be undone.
    pub fn delete(store: &Store, id: &str, force: bool, last: &dyn Fn(&Container, Status)) -> Result<()> {
        let entry = store.open(id)?;
        let _lock = entry.lock()?;
        let whole = entry.record()?;
        let record = whole.clone().or_else(|| entry.rescued());
        let container = Self::new(entry, record.clone(), id);
        let status = container.status();
        // runtime-spec runtime.md, "Delete"; runc and crun let one go that was never started.
        if !force && !matches!(status, Status::Stopped | Status::Created) {
            return Err(container.wrong_status(
                "delete",
                status,
                " (the container is not stopped: use --force)",
            ));
        }
        let hooks = container.poststop();
        checkpoint::end(&container.entry)?;
        if matches!(status, Status::Running | Status::Paused) {
            witness::note_signal(&container.entry, libc::SIGKILL, "delete");
            release::kill(&container.record).map_err(|error| release::unfinished(&error.to_string()))?;
            phase!("processes killed");
        }
        if status != Status::Creating {
            last(&container, status);
            phase!("end recorded");
        }
        if whole.is_none() {
            container.entry.warn_of_torn(record.as_ref());
        }
        release::release(&container.entry, record.as_ref())?;
        phase!("all it held removed");
        let state = container.record.oci(Status::Stopped, 0);
        for hook in hooks {
            // runtime-spec runtime.md: a failed poststop hook is warned of, and the rest goes on.
            if let Err(error) = hooks::run("poststop", std::slice::from_ref(&hook), &state) {
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }

    /// Gives up all that it has of the host but its name and what it owns, to be made again. It must have stopped.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it has stopped; everything that could not be undone.
    pub fn renew(&self) -> Result<()> {
        let _lock = self.entry.lock()?;
        let now = self.again()?;
        let status = now.status();
        if status != Status::Stopped {
            return Err(now.wrong_status("renew", status, ""));
        }
        release::undo(&Record { owned: Vec::new(), ..now.record.clone() })?;
        now.entry.clear(&now.record)
    }

    fn poststop(&self) -> Vec<Hook> {
        if !self.record.post_hooks {
            return Vec::new();
        }
        match self.bundle() {
            Ok(bundle) => {
                bundle.spec.hooks().as_ref().and_then(|hooks| hooks.poststop().clone()).unwrap_or_default()
            }
            Err(error) => {
                tracing::warn!("the poststop hooks are not run: {error}");
                Vec::new()
            }
        }
    }

    /// Starts one more process in it.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it runs; what the start ran into.
    pub fn exec(
        &self,
        wanted: &Process,
        request: &Request,
        options: &Options,
        ignore_paused: bool,
        facts: &Facts,
    ) -> Result<Started> {
        let status = self.status();
        match status {
            Status::Running | Status::Created => {}
            Status::Paused if ignore_paused => {}
            Status::Paused => {
                return Err(self.wrong_status("exec in", status, " (cannot exec in a paused container)"));
            }
            _ => return Err(self.wrong_status("exec in", status, " (cannot exec in a stopped container)")),
        }
        check_pid_file(options)?;
        let request = Request { traced: self.record.traced, ..request.clone() };
        let bundle = self.bundle()?;
        let namespaces = self.namespaces(&bundle);
        let plan = plan::exec::exec(&bundle, wanted, self.record.pid, namespaces, &request, facts)?;
        guard_program(&plan, options)?;
        self.note_tracer(wanted)?;
        // Whoever is in the container's PID namespace sees the new process before it is one of theirs.
        process::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
        let listener = connect_listener(&bundle)?;
        let mut io = Io { start: None, console: connect_console(options)?, listener };
        let state = self.record.oci(status, self.record.pid).to_json();
        let launched = self.spawn_inside(&plan, &mut io, &state, options.cgroup.as_deref())?;
        phase!("process {} made", launched.pid);
        drop(io);
        let result = self
            .cgroup()
            .map_or(Ok(()), |cgroup| Ok(cgroup.add_v1(launched.pid)?))
            .and_then(|()| finish_exec(&launched, &plan, options, facts, || self.status() == Status::Paused))
            .map_err(|error| tell_end(error, &launched));
        if result.is_err() {
            // Nobody has been told of it, so nobody would end it. That it has ended already is no matter.
            let _ = process::pidfd_send_signal(launched.pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(launched.pidfd.as_fd());
        }
        let Launched { pid, pidfd, .. } = launched;
        result.map(|terminal| Started { pid, pidfd, terminal })
    }

    /// From the first process that may trace others on, all that come later are guarded from it.
    fn note_tracer(&self, wanted: &Process) -> Result<()> {
        if self.record.traced || !plan::process::may_trace(wanted) {
            return Ok(());
        }
        let _lock = self.entry.lock()?;
        match self.entry.record()? {
            Some(record) => self.entry.write(&Record { traced: true, ..record }),
            None => Ok(()),
        }
    }

    /// What [`Container::exec`] would do.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every problem of the process.
    pub fn plan_exec(&self, wanted: &Process, request: &Request, facts: &Facts) -> Result<Plan> {
        let bundle = self.bundle()?;
        let namespaces = self.namespaces(&bundle);
        plan::exec::exec(&bundle, wanted, self.record.pid, namespaces, request, facts)
    }

    /// The kinds of namespaces in which its first process differs from us. One's own user namespace cannot be joined.
    fn namespaces(&self, bundle: &Bundle) -> i32 {
        let namespaces =
            bundle.spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
        let names = [
            (LinuxNamespaceType::User, ns::USER, "user"),
            (LinuxNamespaceType::Mount, ns::MOUNT, "mnt"),
            (LinuxNamespaceType::Pid, ns::PID, "pid"),
            (LinuxNamespaceType::Network, ns::NETWORK, "net"),
            (LinuxNamespaceType::Ipc, ns::IPC, "ipc"),
            (LinuxNamespaceType::Uts, ns::UTS, "uts"),
            (LinuxNamespaceType::Cgroup, ns::CGROUP, "cgroup"),
            (LinuxNamespaceType::Time, ns::TIME, "time"),
        ];
        let link = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
        let is_joined = |kind: LinuxNamespaceType, name: &str| {
            let is_named = namespaces.iter().any(|found| found.typ() == kind);
            // CRIU restores into a time namespace, so that the clocks go on from where they stood.
            (is_named || self.record.restored && kind == LinuxNamespaceType::Time)
                && (kind != LinuxNamespaceType::User
                    || link("self", name) != link(&self.record.pid.to_string(), name))
        };
        names.iter().filter(|(kind, _, name)| is_joined(*kind, name)).fold(0, |all, (_, flag, _)| all | flag)
    }

    /// The cgroup `below` the container's own, which must be there.
    fn open_cgroup(&self, below: Option<&Path>) -> Result<Option<OwnedFd>> {
        let Some(below) = below else { return Ok(self.cgroup().map(|cgroup| cgroup.open()).transpose()?) };
        let own = self.need_cgroup("exec --cgroup")?.open()?;
        // It may be the container that makes cgroups there.
        let rules = fs::resolve::BENEATH | fs::resolve::NO_SYMLINKS | fs::resolve::NO_XDEV;
        let path = below.strip_prefix("/").unwrap_or(below);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let dir = fs::openat2(own.as_fd(), path, libc::O_RDONLY | libc::O_DIRECTORY, 0, rules);
        Ok(Some(dir.doing(|| format!("open the cgroup {below:?} below the container's own"))?))
    }

    fn spawn_inside(&self, plan: &Plan, io: &mut Io, state: &str, below: Option<&Path>) -> Result<Launched> {
        let dir = self.open_cgroup(below)?;
        match launch::spawn(plan, io, state, dir.as_ref().map(AsFd::as_fd)) {
            // An init that made cgroups of its own has left no room for processes at the top: join it where it is.
            Err(error) if error.errno == libc::EBUSY && below.is_none() => {
                let text =
                    std::fs::read_to_string(format!("/proc/{}/cgroup", self.record.pid)).unwrap_or_default();
                let hierarchy = cgroup::Hierarchy::find();
                let (Some(hierarchy), Some(path)) = (hierarchy, cgroup::path_from_proc(&text)) else {
                    return Err(error.into());
                };
                let dir = hierarchy.cgroup(path).open()?;
                Ok(launch::spawn(plan, io, state, Some(dir.as_fd()))?)
            }
            other => Ok(other?),
        }
    }
}

fn guard_program(plan: &Plan, options: &Options) -> Result<()> {
    if plan.launch.traced && options.may_start_again { Ok(guard::own_program()?) } else { Ok(()) }
}

fn finish_exec(
    launched: &Launched,
    plan: &Plan,
    options: &Options,
    facts: &Facts,
    is_paused: impl Fn() -> bool,
) -> Result<Option<OwnedFd>> {
    if let Some(score) = plan.launch.oom_score_adj {
        set_oom_score(launched.pid, score, facts)?;
    }
    launch::raise_limits(launched.pid, &plan.init);
    launched.channel.begin(&[])?;
    let (mut terminal, mut ready) = (None, false);
    loop {
        match listen(&launched.channel, "the new process", &is_paused)? {
            Message::Terminal(master) => terminal = Some(master),
            Message::Ready => {
                phase!("process ready");
                write_outputs(launched.pid, &launched.pidfd, options)?;
                ready = true;
            }
            Message::End if ready => {
                phase!("program runs");
                return Ok(terminal);
            }
            other => fail(other)?,
        }
    }
}

/// A descriptor for the first process of a container, if that still is the one of the record.
pub fn open_process(record: &Record) -> Option<OwnedFd> {
    let pidfd = (record.pid > 0).then(|| process::pidfd_open(record.pid).ok())??;
    // Only now: between a look and the open another process may have got the pid.
    state::start_time(record.pid).filter(|(time, _)| *time == record.start_time)?;
    Some(pidfd)
}

/// Every process in the PID namespace of `first` and, by way of their parents, in those below it.
fn inside_of(first: i32) -> Vec<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(first) else { return Vec::new() };
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut inside = Vec::new();
    // A parent's pid is the lower one until numbers begin anew, so that one pass nearly always does.
    let mut others: Vec<i32> = pids.collect();
    loop {
        let found = |pid: &i32| {
            namespace(*pid).as_ref() == Some(&own)
                || state::parent(*pid).is_some_and(|parent| inside.contains(&parent))
        };
        let (new, rest): (Vec<i32>, Vec<i32>) = others.into_iter().partition(found);
        if new.is_empty() {
            return inside;
        }
        inside.extend(new);
        others = rest;
    }
}

/// Makes a container from its plan.
///
/// # Errors
/// What went wrong; nothing is left then.
pub fn create(
    store: &Store,
    bundle: &Bundle,
    plan: &Plan,
    options: &Options,
    facts: &Facts,
) -> Result<Started> {
    guard_program(plan, options)?;
    let entry = store.reserve(&plan.id)?;
    let created = create_reserved(&entry, bundle, plan, options, facts);
    if created.is_err() {
        warn_of(entry.remove());
    }
    created
}

/// The same, with the name reserved before.
///
/// # Errors
/// What went wrong; nothing is left then but the name and what it owns.
pub fn create_reserved(
    entry: &Entry,
    bundle: &Bundle,
    plan: &Plan,
    options: &Options,
    facts: &Facts,
) -> Result<Started> {
    let mut record = new_record(bundle, plan, options, facts);
    create_in(entry, &mut record, bundle, plan, options, facts).map_err(|error| {
        let (usage, above) = witness::of_failed(&record);
        let error = confine::explain_killed(error, &usage, plan.cgroup.as_ref(), &record);
        warn_of(release::undo(&Record { owned: Vec::new(), ..record }));
        Error::NotMade { error: Box::new(error), usage: Box::new(usage), above }
    })
}

/// What is known of a container before there is anything of it.
pub(crate) fn new_record(bundle: &Bundle, plan: &Plan, options: &Options, facts: &Facts) -> Record {
    Record {
        version: RECORD_VERSION,
        id: plan.id.clone(),
        oci_version: bundle.spec.version().clone(),
        bundle: bundle.dir.clone(),
        rootfs: plan.init.rootfs.as_ref().map(|rootfs| rootfs.path.clone()).unwrap_or_default(),
        created: state::now(),
        owner: facts.uid,
        owned: options.owned.clone(),
        own_pids: plan.launch.new & ns::PID != 0,
        post_hooks: [plan.hooks.poststart(), plan.hooks.poststop()]
            .into_iter()
            .any(|hooks| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty())),
        traced: bundle.spec.process().as_ref().is_some_and(plan::process::may_trace),
        annotations: bundle.spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        ..Record::default()
    }
}

/// The reason that is told is the first one.
pub(crate) fn warn_of(undone: Result<()>) {
    if let Err(error) = undone {
        tracing::warn!("{error}");
    }
}

fn create_in(
    entry: &Entry,
    record: &mut Record,
    bundle: &Bundle,
    plan: &Plan,
    options: &Options,
    facts: &Facts,
) -> Result<Started> {
    let optional = plan.cgroup.as_ref().is_some_and(|cgroup| cgroup.optional);
    record.resctrl = plan_resctrl(&plan.launch, &plan.id)?;
    let mut recording = entry.begin()?;
    if let Some(notify) = &options.notify {
        make_notify(entry, notify)?;
    }
    let (cgroup, mut dir) = take_cgroup(record, &mut recording, plan, facts)?;
    phase!("recorded; cgroup made and limited");
    let start = if options.run { None } else { Some(listen_for_start(entry)?) };
    let mut io = Io { start, console: connect_console(options)?, listener: connect_listener(bundle)? };
    let state = record.oci(Status::Creating, 0);
    let launched = match launch::spawn(plan, &mut io, &state.to_json(), dir.as_ref().map(AsFd::as_fd)) {
        // It is ours, but what is above both it and us is not.
        Err(error) if optional && dir.is_some() && error.errno == libc::EACCES => {
            confine::give_up(record);
            dir = None;
            cgroup.as_ref().map(Cgroup::remove_empty);
            launch::spawn(plan, &mut io, &state.to_json(), None)?
        }
        other => other?,
    };
    phase!("process {} made", launched.pid);
    // The child has them; the start socket must end with it.
    drop(io);
    record.above = cgroup.iter().filter(|_| dir.is_some()).flat_map(witness::above).collect();
    record.pid = launched.pid;
    record.start_time = state::start_time(launched.pid).map_or(0, |(time, _)| time);
    recording.note(record)?;
    // All this while the child makes its mounts; before it is let go nothing in it is the container's.
    write_new(&entry.path(file::CONFIG), &bundle.text)?;
    enter_cgroup(launched.pid, cgroup.as_ref().zip(dir), record, &mut recording, plan, facts)?;
    let terminal = converse(entry, record, &launched, plan, options, facts)
        .map_err(|error| executable::explain(error, Place::of_plan(plan)))
        .map_err(|error| tell_end(error, &launched))?;
    let Launched { pid, pidfd, .. } = launched;
    Ok(Started { pid, pidfd, terminal })
}

/// Makes the container's cgroup, whose place is in the record before.
pub(crate) fn take_cgroup(
    record: &mut Record,
    recording: &mut Recording,
    plan: &Plan,
    facts: &Facts,
) -> Result<(Option<Cgroup>, Option<OwnedFd>)> {
    let unnamed = plan.cgroup.as_ref().is_some_and(|cgroup| cgroup.unnamed);
    loop {
        let cgroup = confine::choose_cgroup(plan, facts)?;
        record.name_cgroup(cgroup.as_ref(), plan.cgroup.as_ref().and_then(|cgroup| cgroup.unit.as_ref()));
        recording.note(record)?;
        let Some(made) = cgroup.as_ref().map(|cgroup| confine::make_cgroup(cgroup, plan, record, facts))
        else {
            return Ok((None, None));
        };
        match made {
            Err(Error::Failed(cause)) if unnamed && cause.errno == libc::EEXIST => {
                // Another of this name was quicker.
                record.forget_cgroup();
            }
            other => return other.map(|dir| (cgroup, dir)),
        }
    }
}

/// Puts the process into what of its cgroup it was not made in: `made` is the one that we made, open; or systemd makes it
/// around the process now. Then its devices are filtered.
pub(crate) fn enter_cgroup(
    pid: i32,
    made: Option<(&Cgroup, OwnedFd)>,
    record: &mut Record,
    recording: &mut Recording,
    plan: &Plan,
    facts: &Facts,
) -> Result<()> {
    let Some(wanted) = &plan.cgroup else { return Ok(()) };
    let mut dir = None;
    if let Some((cgroup, made)) = made {
        cgroup.add_v1(pid)?;
        dir = Some(made);
    }
    if let Some(unit) = &wanted.unit {
        let cgroup = confine::start_unit(wanted, unit, pid, record, facts)?;
        record.above = witness::above(&cgroup);
        recording.note(record)?;
        phase!("systemd has made the unit");
        cgroup.create_v1()?;
        cgroup.add_v1(pid)?;
        confine::limit(&cgroup, &confine::first_limits(wanted), wanted.best_effort)?;
        dir = Some(cgroup.open()?);
    }
    dir.map_or(Ok(()), |dir| confine::filter_devices(dir.as_fd(), wanted))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true).mode(0o600);
    Ok(options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .doing(|| format!("write {}", path.display()))?)
}

fn make_notify(entry: &Entry, notify: &Notify) -> Result<()> {
    let path = entry.path(file::NOTIFY);
    std::fs::create_dir(&path).doing(|| format!("make {}", path.display()))?;
    let Notify::Now(socket) = notify else { return Ok(()) };
    bind_notify(fs::open(&path, fs::O_DIRECTORY)?.as_fd(), socket.as_fd())
}

/// Gives `socket` its name in `dir`, the container's directory for it.
///
/// # Errors
/// The kernel's.
pub fn bind_notify(dir: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> Result<()> {
    // Through the descriptor: a socket's path may not be longer than 107 bytes.
    let name = fs::fd_path(dir).join(NOTIFY_SOCKET);
    socket::bind(socket, &name)?;
    // Whoever the program runs as is to reach it.
    let open = std::fs::set_permissions(&name, Permissions::from_mode(0o777));
    Ok(open.doing(|| "open the socket for sd_notify to all users")?)
}

fn listen_for_start(entry: &Entry) -> Result<OwnedFd> {
    let dir = fs::open(entry.dir(), fs::O_DIRECTORY)?;
    // Through the descriptor: a socket's path may not be longer than 107 bytes.
    Ok(socket::listen(&fs::fd_path(dir.as_fd()).join(file::START_NEW), Kind::Packet)?)
}

pub(crate) fn connect_console(options: &Options) -> Result<Option<OwnedFd>> {
    let connect = |path: &PathBuf| connect_soon(path).doing(|| "connect to the console socket");
    Ok(options.console_socket.as_ref().map(connect).transpose()?)
}

fn connect_listener(bundle: &Bundle) -> Result<Option<OwnedFd>> {
    let seccomp = bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let path = seccomp
        .and_then(|seccomp| seccomp.listener_path().clone())
        .filter(|path| !path.as_os_str().is_empty());
    let connect = |path: PathBuf| connect_soon(&path).doing(|| "connect to the seccomp agent");
    Ok(path.map(connect).transpose()?)
}

/// Connects to a socket that somebody else makes. Callers start who listens on it and do not wait for that: slower
/// runtimes find it ready.
fn connect_soon(path: &Path) -> ctr_isolation::Result<OwnedFd> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let started = Instant::now();
    let will_be_there = || path.parent().is_some_and(Path::is_dir) && started.elapsed() < PATIENCE;
    loop {
        match socket::connect(path, Kind::Stream) {
            Err(error) if matches!(error.errno, libc::ENOENT | libc::ECONNREFUSED) && will_be_there() => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// The parent's part of the conversation, until the container is created or its program runs.
fn converse(
    entry: &Entry,
    record: &mut Record,
    launched: &Launched,
    plan: &Plan,
    options: &Options,
    facts: &Facts,
) -> Result<Option<OwnedFd>> {
    let pid = launched.pid;
    if let Some(ids) = &plan.launch.ids {
        launch::map_ids(pid, ids, facts)?;
    }
    launch::raise_limits(pid, &plan.init);
    if let Some(score) = plan.launch.oom_score_adj {
        set_oom_score(pid, score, facts)?;
    }
    move_devices(&plan.launch, pid)?;
    enter_resctrl(&plan.launch, &record.id, pid)?;
    let mounts = launch::prepare_mounts(pid, &plan.launch.prepare)?;
    let fds: Vec<BorrowedFd<'_>> = mounts.iter().map(AsFd::as_fd).collect();
    launched.channel.begin(&fds)?;
    phase!("ids mapped, mounts prepared, process let go");
    drop(mounts);
    let (mut terminal, mut ready) = (None, false);
    loop {
        match listen(&launched.channel, FIRST, || hooks::may_take_for_ever(&plan.hooks))? {
            Message::Hooks => {
                // The environment is there: to the specification (runtime.md, "Lifecycle") that is `created`.
                let state = record.oci(Status::Created, pid);
                hooks::run("prestart", prestart(&plan.hooks).unwrap_or_default(), &state)?;
                hooks::run(
                    "createRuntime",
                    plan.hooks.create_runtime().as_deref().unwrap_or_default(),
                    &state,
                )?;
                phase!("hooks prestart and createRuntime run");
                launched.channel.go(&[])?;
            }
            Message::Terminal(master) => terminal = Some(master),
            Message::Ready => {
                phase!("process ready");
                if let Some(limit) = plan.cgroup.as_ref().and_then(|cgroup| cgroup.small) {
                    confine::limit_memory(limit, record)?;
                    entry.write(record)?;
                    launched.channel.go(&[])?;
                }
                write_outputs(launched.pid, &launched.pidfd, options)?;
                ready = true;
                if !options.run {
                    let (from, to) = (entry.path(file::START_NEW), entry.path(file::START));
                    std::fs::rename(from, to).doing(|| "mark the container as created")?;
                    return Ok(terminal);
                }
            }
            Message::End if ready => break,
            other => fail(other)?,
        }
    }
    phase!("program runs");
    confine::was_room(record)?;
    if plan.hooks.poststart().as_ref().is_some_and(|hooks| !hooks.is_empty()) {
        Container { entry: entry.clone(), record: record.clone() }.run_poststart()?;
    }
    Ok(terminal)
}

/// Moves the network devices in. A namespace that is joined the process has not joined yet.
pub(crate) fn move_devices(launch: &plan::Launch, pid: i32) -> Result<()> {
    if launch.net_devices.is_empty() {
        return Ok(());
    }
    let joined = launch.join.iter().find(|(kind, _)| kind & ns::NETWORK != 0).map(|(_, path)| path.clone());
    let path = joined.unwrap_or_else(|| format!("/proc/{pid}/ns/net").into());
    let namespace = fs::open(&path, 0).doing(|| format!("open the namespace {}", path.display()))?;
    for (name, inside) in &launch.net_devices {
        network::move_device(name, namespace.as_fd(), inside)?;
    }
    Ok(())
}

/// The group of `linux.intelRdt` that goes with the container: its own, or its monitoring group in another's.
pub(crate) fn plan_resctrl(launch: &plan::Launch, id: &str) -> Result<Option<PathBuf>> {
    let Some(rdt) = &launch.rdt else { return Ok(None) };
    let resctrl = Resctrl::default();
    resctrl.check().doing(|| "/linux/intelRdt")?;
    let group = resctrl.group(&rdt.group);
    match group.exists() {
        false if rdt.shared => {
            Err(Error::text(format!("/linux/intelRdt/closID: there is no group {}", group.display())))
        }
        false => Ok(Some(group)),
        true => Ok(rdt.monitoring.then(|| resctrl.monitor(&rdt.group, id))),
    }
}

/// Makes what [`plan_resctrl`] has found to be missing, and puts the process in.
pub(crate) fn enter_resctrl(launch: &plan::Launch, id: &str, pid: i32) -> Result<()> {
    let Some(rdt) = &launch.rdt else { return Ok(()) };
    let resctrl = Resctrl::default();
    let group = resctrl.group(&rdt.group);
    if !rdt.shared {
        resctrl::create(&group)?;
    }
    if !rdt.schemata.is_empty() {
        resctrl::set_schemata(&group, &rdt.schemata)?;
    }
    resctrl::add(&group, pid)?;
    if rdt.monitoring {
        let monitor = resctrl.monitor(&rdt.group, id);
        resctrl::create(&monitor)?;
        resctrl::add(&monitor, pid)?;
    }
    Ok(())
}

/// Only the host's root may lower a score; runc leaves it for others, so do we, and say so.
fn set_oom_score(pid: i32, score: i32, facts: &Facts) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // It has ended: why, it has told us, and that is heard next.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(()),
        Err(error)
            if error.raw_os_error() == Some(libc::EACCES)
                && (!facts.is_root() || facts.in_user_namespace) =>
        {
            tracing::warn!("/process/oomScoreAdj: an ordinary user cannot lower it to {score}; ignored");
            Ok(())
        }
        other => Ok(other.doing(|| format!("write {score} to {path}"))?),
    }
}

/// The pid file is put in the place of what is there, which must not be a device.
fn check_pid_file(options: &Options) -> Result<()> {
    match &options.pid_file {
        Some(path) if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) => {
            Err(Error::text(format!("the pid file {} exists and is no regular file", path.display())))
        }
        _ => Ok(()),
    }
}

pub(crate) fn write_outputs(pid: i32, pidfd: &OwnedFd, options: &Options) -> Result<()> {
    if let Some(path) = &options.pidfd_socket {
        let agent = socket::connect(path, Kind::Stream).doing(|| "connect to the pidfd socket")?;
        socket::send(agent.as_fd(), b"pidfd", &[pidfd.as_fd()]).doing(|| "send the pidfd")?;
    }
    let Some(path) = &options.pid_file else { return Ok(()) };
    check_pid_file(options)?;
    // Whoever waits for the file must never find it half written.
    let new = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    let written = std::fs::write(&new, pid.to_string()).and_then(|()| std::fs::rename(&new, path));
    Ok(written.doing(|| format!("write the pid file {}", path.display()))?)
}

/// Within which a container's first process, without a hook that may take as long as it likes, does the next step: more
/// than a slow file system needs, and none that is gone gets in the way for longer.
const PATIENCE: Duration = Duration::from_secs(300);

const FIRST: &str = "the container's first process";

/// Waits for what a process that is not yet the container's program says next.
fn listen(channel: &Channel, who: &str, no_end: impl Fn() -> bool) -> Result<Message> {
    loop {
        match channel.listen_for(PATIENCE)? {
            Some(message) => return Ok(message),
            None if no_end() => {}
            None => {
                return Err(Error::text(format!(
                    "{who} has not come further for {} s: a file system that does not answer, \
                     in most cases (of a container that was created, `ctr stuck` shows what it waits for)",
                    PATIENCE.as_secs()
                )));
            }
        }
    }
}

/// Waits until the container's program runs.
fn wait_for_program(channel: &Channel, no_end: impl Fn() -> bool) -> Result<()> {
    loop {
        match listen(channel, FIRST, &no_end)? {
            Message::End => return Ok(()),
            other => fail(other)?,
        }
    }
}

/// What is said of a child that has said nothing.
const ENDED_EARLY: &str = "the container's first process ended before it was ready";

/// Says how a child ended that has said nothing of it.
fn tell_end(error: Error, launched: &Launched) -> Error {
    let has_said = !matches!(&error, Error::Failed(cause) if cause.layers == [ENDED_EARLY]);
    if has_said {
        return error;
    }
    match process::wait(launched.pidfd.as_fd()) {
        Ok(Ended::Exited(status)) => Error::text(format!("{ENDED_EARLY}, with status {status}")),
        Ok(Ended::Signaled(number) | Ended::Dumped(number)) => {
            let name = signal::name(number).unwrap_or_else(|| format!("signal {number}"));
            Error::text(format!("{ENDED_EARLY}, killed by {name}"))
        }
        // Another has reaped it.
        Err(_) => error,
    }
}

/// What the child says when it cannot go on.
fn fail(message: Message) -> Result<()> {
    Err(match message {
        Message::Failed(error) => error.into(),
        Message::Hop(failure) => Cause::call(executable::REFUSED, failure.errno).into(),
        Message::End => Error::text(ENDED_EARLY),
        other => Error::text(format!("the container's first process said {other:?} out of turn")),
    })
}

/// Reads a process from JSON, the text of `file`, for `exec --process`.
///
/// # Errors
/// [`Error::Invalid`] with every value that does not fit.
pub fn parse_process(text: &[u8], file: &str) -> Result<(Process, Vec<String>)> {
    bundle::parse(text, file)
}
