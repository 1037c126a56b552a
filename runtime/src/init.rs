//! The child: from a fresh process to the container's program, in the order the kernel demands.

use crate::hooks;
use crate::plan::{Init, Program, ns};
use crate::protocol::{Channel, Signal};
use crate::state::{OciState, Status};
use ctr_isolation::root::Root;
use ctr_isolation::rootfs::Built;
use ctr_isolation::schedule::Rlimit;
use ctr_isolation::sys::fs::{self, Proc};
use ctr_isolation::sys::hop::{self, Call, Steps};
use ctr_isolation::sys::process::{self, CStrings};
use ctr_isolation::sys::{cstring, seccomp, socket};
use ctr_isolation::{Context, Error, Result, console, seccomp as filter};
use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What the child has open.
#[derive(Debug)]
pub struct Handles {
    /// The conversation with the parent.
    pub channel: Channel,
    /// The host's `/proc`.
    pub proc: Proc,
    /// Namespaces still to be joined.
    pub joins: Vec<(i32, OwnedFd)>,
    /// Where it waits for `start`.
    pub start: Option<OwnedFd>,
    /// Where the master of the terminal goes.
    pub console: Option<OwnedFd>,
    /// The agent of the system call filter.
    pub listener: Option<OwnedFd>,
    /// The parent has let us go.
    pub let_go: bool,
}

impl Handles {
    /// Waits, if it has not yet, to be let go; what comes along are detached mounts.
    fn wait_go(&mut self) -> Result<Vec<OwnedFd>> {
        if self.let_go {
            return Ok(Vec::new());
        }
        // Without a parent nobody wants us.
        let Some(mounts) = self.channel.wait_go()? else { process::exit(1) };
        self.let_go = true;
        Ok(mounts)
    }
}

/// Becomes the container's program. `state` is the container's state as JSON, for hooks and agents.
pub fn run(plan: &Init, mut handles: Handles, state: &str) -> ! {
    let error = match become_program(plan, &mut handles, state) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let _ = handles.channel.fail(&error);
    process::exit(1)
}

/// Never made: a success is another program.
#[derive(Debug)]
enum Never {}

fn become_program(plan: &Init, handles: &mut Handles, state: &str) -> Result<Never> {
    let prepared = if plan.at_once { Vec::new() } else { handles.wait_go()? };
    enter_namespaces(plan, handles)?;
    phase!("inside: namespaces entered");
    plan.schedule.apply()?;
    let slave = match &plan.rootfs {
        Some(rootfs) => {
            let built = rootfs.build(&handles.proc, &prepared)?;
            phase!("inside: mounts made");
            drop(prepared);
            run_create_hooks(plan, handles, state)?;
            let slave = open_console(plan, handles, &built)?;
            if rootfs.read_only {
                // Where it cannot be made, entering it will tell.
                let _ = built.make_dir(&plan.program.cwd);
            }
            built.enter(rootfs)?;
            phase!("inside: root entered");
            slave
        }
        None => open_console_here(plan, handles)?,
    };
    set_machine(plan, &handles.proc)?;
    if let Some(slave) = slave {
        console::take(&slave)?;
    }
    finish(plan, handles, state)
}

fn enter_namespaces(plan: &Init, handles: &mut Handles) -> Result<()> {
    for (kinds, namespace) in handles.joins.drain(..) {
        process::setns(namespace.as_fd(), kinds).doing(|| "join the container's namespaces")?;
    }
    if plan.own_user_namespace {
        // Until now our ids were not mapped.
        process::setgid(0).doing(|| "become root in the user namespace")?;
        process::setuid(0).doing(|| "become root in the user namespace")?;
    }
    process::setsid()?;
    if let Some(name) = &plan.keyring {
        match process::join_session_keyring(name) {
            // A kernel without keyrings has nothing to leak.
            Err(error) if error.errno != libc::ENOSYS => return Err(error),
            _ => {}
        }
    }
    if plan.unshare_cgroup {
        process::unshare(ns::CGROUP)?;
    }
    if let Some(offsets) = &plan.time_offsets {
        enter_time_namespace(offsets, &handles.proc).doing(|| "make the time namespace")?;
    }
    // Not before: a process that may not be dumped owns none of its files in /proc.
    process::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    if plan.loopback {
        process::loopback_up().doing(|| "bring the loopback interface up")?;
    }
    Ok(())
}

/// A new time namespace is for children; its offsets can be set until somebody is in it, and then we go in ourselves.
fn enter_time_namespace(offsets: &str, proc: &Proc) -> Result<()> {
    process::unshare(ns::TIME)?;
    if !offsets.is_empty() {
        proc.write("self/timens_offsets", offsets)?;
    }
    let namespace = proc.follow("self/ns/time_for_children", 0)?;
    process::setns(namespace.as_fd(), ns::TIME)
}

fn run_create_hooks(plan: &Init, handles: &mut Handles, state: &str) -> Result<()> {
    if plan.ask_for_hooks || !plan.create_container.is_empty() {
        handles.wait_go()?;
    }
    if plan.ask_for_hooks {
        handles.channel.say(&Signal::Hooks)?;
        if handles.channel.wait_go()?.is_none() {
            process::exit(1);
        }
    }
    hooks::run("createContainer", &plan.create_container, &hook_state(state, Status::Created))
}

/// The state for hooks in the container: its pid is the one they see.
fn hook_state(json: &str, status: Status) -> OciState {
    let mut state = OciState::from_json(json);
    state.status = status;
    state.pid = process::getpid();
    state
}

fn open_console(plan: &Init, handles: &mut Handles, built: &Built) -> Result<Option<OwnedFd>> {
    let Some(console) = plan.console else { return Ok(None) };
    let (master, slave) = console.open(&built.root, true)?;
    hand_over(handles, &master)?;
    Ok(Some(slave))
}

fn open_console_here(plan: &Init, handles: &mut Handles) -> Result<Option<OwnedFd>> {
    let Some(console) = plan.console else { return Ok(None) };
    let (master, slave) = console.open(&Root::open(Path::new("/"))?, false)?;
    hand_over(handles, &master)?;
    Ok(Some(slave))
}

fn hand_over(handles: &mut Handles, master: &OwnedFd) -> Result<()> {
    match handles.console.take() {
        Some(socket) => socket::send(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
            .doing(|| "send the terminal to the console socket"),
        None => handles.channel.say(&Signal::Terminal(master.as_fd())),
    }
}

fn set_machine(plan: &Init, proc: &Proc) -> Result<()> {
    if let Some(name) = &plan.hostname {
        process::sethostname(name)?;
    }
    if let Some(name) = &plan.domainname {
        process::setdomainname(name)?;
    }
    for (file, value) in &plan.sysctl {
        proc.write(&format!("sys/{file}"), value).doing(|| format!("set the kernel parameter {file}"))?;
    }
    if let Some(persona) = plan.personality {
        process::personality(persona)?;
    }
    Ok(())
}

/// From here on everything is the container's: its user, its limits, its filter.
fn finish(plan: &Init, handles: &mut Handles, state: &str) -> Result<Never> {
    for (file, value) in &plan.labels {
        handles.proc.write(file, value).doing(|| "set the label of the program")?;
    }
    own_standard_streams(plan.identity.uid);
    let home = home(plan);
    let late_filter = plan.filter.as_ref().filter(|filter| plan.identity.no_new_privileges && !filter.notify);
    let early_filter = plan.filter.as_ref().filter(|_| late_filter.is_none());
    // Without no_new_privs the filter takes a privilege that the identity may take away: so the identity comes
    // last, and nothing that could fail before `start` comes after it.
    let is_late = early_filter.is_none();
    let is_there = match enter_directory(&plan.program) {
        // On some file systems the user may go where root may not.
        Err(error) if is_late && matches!(error.errno, libc::EACCES | libc::EPERM) => false,
        other => other.map(|()| true)?,
    };
    if is_late {
        take_identity(plan)?;
    }
    if !is_there {
        enter_directory(&plan.program)?;
    }
    let program = find_program(&plan.program)?;
    handles.wait_go()?;
    handles.channel.say(&Signal::Ready)?;
    if plan.hold && handles.channel.wait_go()?.is_none() {
        process::exit(1);
    }
    if let Some(socket) = handles.start.take() {
        // The parent is gone; whoever connects is `start`.
        handles.channel = Channel::new(socket::accept(socket.as_fd())?);
        if handles.channel.wait_go()?.is_none() {
            process::exit(1);
        }
    }
    if plan.program.args.is_empty() {
        return Err(Error::new("/process of config.json is missing: there is no program to start"));
    }
    // Hooks may run what is in the container, so the filter is for them, too.
    let (in_hop, before_hooks) =
        if plan.start_container.is_empty() { (late_filter, None) } else { (None, late_filter) };
    let report = handles.channel.socket();
    let filter = in_hop.map(|filter| (filter.program.as_slice(), filter.flags));
    // A filter that came before hooks may forbid what carrying needs.
    let carried = plan.identity.carried().filter(|_| before_hooks.is_none());
    let mut calls = vec![close_on_exec(report)];
    calls.extend(carried.iter().flat_map(|carried| &carried.calls));
    let steps = Steps { calls: &calls, capabilities: carried.as_ref().map(|carried| carried.sets), filter };
    let hop = hop::make(steps, report)?;
    if let Some(filter) = early_filter {
        install(filter, &plan.listener_metadata, handles, state)?;
        take_identity(plan)?;
    }
    if let Some(filter) = before_hooks {
        install(filter, &plan.listener_metadata, handles, state)?;
    }
    hooks::run("startContainer", &plan.start_container, &hook_state(state, Status::Created))?;
    if let Some(carried) = carried {
        carried.take().doing(|| "keep a capability for the start of the program")?;
    }
    phase!("inside: program about to be executed");
    exec(&plan.program, program, home, &hop, &plan.rlimits, handles)
}

/// Where the environment has no `HOME`, that of the user, as runc and crun have it: the container's passwd(5) tells, which
/// may be anything.
fn home(plan: &Init) -> Option<String> {
    const LONGEST: u64 = 1 << 20;
    if plan.program.env.iter().any(|entry| entry.starts_with("HOME=")) {
        return None;
    }
    let read = || {
        let root = Root::open(Path::new("/")).ok()?;
        let file = root.open_with(Path::new("/etc/passwd"), libc::O_NONBLOCK | libc::O_NOCTTY).ok()?;
        if fs::fstat(file.as_fd()).ok()?.kind() != libc::S_IFREG {
            return None;
        }
        let mut text = Vec::new();
        std::fs::File::from(file).take(LONGEST).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let of_user = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let uid: u32 = fields.next()?.parse().ok()?;
            (uid == plan.identity.uid).then(|| fields.nth(2).map(str::to_owned)).flatten()
        };
        text.lines().find_map(of_user).filter(|home| !home.is_empty() && !home.contains('\0'))
    };
    Some(format!("HOME={}", read().as_deref().unwrap_or("/")))
}

fn take_identity(plan: &Init) -> Result<()> {
    // What is raised takes a privilege that goes with the identity; what is lowered could stop us from going on, and
    // comes last.
    for limit in &plan.rlimits {
        limit.raise()?;
    }
    if let Some(cpus) = &plan.affinity {
        process::sched_setaffinity(cpus).doing(|| "set the CPU affinity")?;
    }
    plan.identity.take()
}

/// The program may open its standard streams again by name, so it must own them; what cannot be given away is left.
fn own_standard_streams(uid: u32) {
    for stream in process::standard_streams() {
        let Ok(stat) = fs::fstat(stream) else { continue };
        if stat.uid != uid && !stat.is_char_device(1, 3) && stat.kind() != libc::S_IFREG {
            let _ = fs::chownat(stream, Path::new(""), uid, u32::MAX);
        }
    }
}

/// Goes to the working directory, for a container's first process made where it is missing as runc does, and makes sure that it lies inside: a path through
/// `/proc/self/fd` could lead to a descriptor of the host (CVE-2024-21626).
fn enter_directory(program: &Program) -> Result<()> {
    let cwd = &program.cwd;
    match fs::chdir(cwd) {
        Err(error) if error.errno == libc::ENOENT && program.may_make_cwd => {
            Root::open(Path::new("/"))?
                .ensure_dir(cwd)
                .doing(|| format!("make the working directory {cwd:?}"))?;
            fs::chdir(cwd)?;
        }
        Err(error) => return Err(error.under(format!("enter the working directory {cwd:?}"))),
        Ok(()) => {}
    }
    match fs::getcwd() {
        Ok(here) if here.is_absolute() => Ok(()),
        _ => Err(Error::new(format!(
            "the working directory {cwd:?} is outside of the container's root file system"
        ))),
    }
}

/// The path of the program: as it is when it has a slash, else from the `PATH` of its own environment.
fn find_program(program: &Program) -> Result<PathBuf> {
    // A container without a process can be created, and `start` then says what is missing.
    let Some(name) = program.args.first().map(String::as_str) else { return Ok(PathBuf::new()) };
    if name.contains('/') {
        return executable(Path::new(name))
            .map(|()| name.into())
            .map_err(|errno| Error::call(format!("exec: {name:?}: stat {name}"), errno));
    }
    const DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = program.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT);
    let mut denied = false;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(errno) => denied |= errno == libc::EACCES,
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(Error::new(format!("exec: {name:?}: {why}")))
}

/// Whether `path` is a file that we may execute; else the errno that execve(2) would give.
fn executable(path: &Path) -> std::result::Result<(), i32> {
    let stat = fs::stat(path).map_err(|error| error.errno)?;
    if stat.kind() != libc::S_IFREG {
        return Err(libc::EACCES);
    }
    fs::access_executable(path).map_err(|error| error.errno)
}

fn install(filter: &filter::Filter, metadata: &str, handles: &mut Handles, state: &str) -> Result<()> {
    // Before the filter, which may stop the reading.
    let message = match &handles.listener {
        Some(_) => process_state(metadata, &handles.proc, state)?,
        None => String::new(),
    };
    let listener =
        seccomp::install(&filter.program, filter.flags).doing(|| "install the system call filter")?;
    if let (Some(listener), Some(agent)) = (listener, handles.listener.take()) {
        socket::send(agent.as_fd(), message.as_bytes(), &[listener.as_fd()])
            .doing(|| "send the listener of the system call filter to its agent")?;
    }
    Ok(())
}

/// What comes with the listener (runtime-spec config-linux.md, "The Container Process State"); pids are the host's.
fn process_state(metadata: &str, proc: &Proc, state: &str) -> Result<String> {
    let stat = proc.read("self/stat")?;
    let pid: i32 = stat.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or_default();
    let mut state = OciState::from_json(state);
    if state.pid == 0 {
        state.pid = pid;
    }
    let fds = ["seccompFd"];
    let version = state.oci_version.clone();
    let message = serde_json::json!({
        "ociVersion": version, "fds": fds, "pid": pid, "metadata": metadata, "state": state,
    });
    Ok(message.to_string())
}

fn close_on_exec(fd: BorrowedFd<'_>) -> Call {
    let arguments = [fd.as_raw_fd() as u64, libc::F_SETFD as u64, libc::FD_CLOEXEC as u64, 0, 0];
    Call { number: libc::SYS_fcntl, arguments }
}

/// Of several values for a variable the last one, as in runc and crun: getenv(3) finds the first.
fn last_of_each<'a>(entries: impl DoubleEndedIterator<Item = &'a String>) -> Vec<&'a String> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<_> =
        entries.rev().filter(|entry| seen.insert(entry.split('=').next().unwrap_or_default())).collect();
    kept.reverse();
    kept
}

fn exec(
    program: &Program,
    path: PathBuf,
    home: Option<String>,
    hop: &OwnedFd,
    limits: &[Rlimit],
    handles: &Handles,
) -> Result<Never> {
    use std::os::unix::ffi::OsStrExt;
    let mut args = vec![cstring(path.as_os_str().as_bytes())?];
    for arg in &program.args {
        args.push(cstring(arg.as_bytes())?);
    }
    let env = last_of_each(program.env.iter().chain(&home)).into_iter();
    let env = env.map(|entry| cstring(entry.as_bytes())).collect::<Result<Vec<_>>>()?;
    process::reset_signals();
    for limit in limits {
        limit.set(0)?;
    }
    process::keep_across_exec(handles.channel.socket().as_raw_fd())?;
    Err(process::fexecve(hop.as_fd(), &CStrings::new(args), &CStrings::new(env))
        .under("start the container's program"))
}
