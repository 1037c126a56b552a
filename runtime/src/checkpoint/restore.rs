//! A container brought back from files.

use super::criu::{Criu, Notice, Start, check_user, find};
use super::rpc::{CgroupRoot, Inherited, Joined, Kind, Options, Request};
use super::{Common, DESCRIPTORS, Directories, EXTERNAL, mounts};
use crate::bundle::Bundle;
use crate::confine;
use crate::container::{self, Started};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::hooks;
use crate::plan::validate::prestart;
use crate::plan::{self, Idmap, Plan, ns};
use crate::release;
use crate::state::{Entry, Record, Recording, Status, Store, file, start_time};
use crate::witness;
use ctr_isolation::Context;
use ctr_isolation::attempt::attempt;
use ctr_isolation::mountinfo;
use ctr_isolation::root::Root;
use ctr_isolation::rootfs::Rootfs;
use ctr_isolation::sys::fs::{self, Proc};
use ctr_isolation::sys::{process, socket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

const LOG: &str = "restore.log";

/// Where the root file system is mounted for CRIU, in the container's directory and in a mount namespace of CRIU's.
const ROOT: &str = "criu-root";

/// No list of descriptors is longer.
const DESCRIPTORS_MAX: u64 = 64 << 10;

/// How a container is to be brought back.
#[derive(Debug, Default)]
pub struct Restore {
    /// What saving has, too.
    pub common: Common,
    /// TCP connections are closed, not taken up.
    pub tcp_close: bool,
    /// The LSM profile instead of the saved one.
    pub lsm_profile: Option<String>,
    /// The SELinux label of mounts instead of the saved one.
    pub lsm_mount_context: Option<String>,
}

/// Makes a container whose processes are those of the images.
///
/// # Errors
/// [`Error::Exists`] when there is one of that name; what CRIU cannot restore, in its words. Nothing is left then.
pub fn restore(
    store: &Store,
    bundle: &Bundle,
    plan: &Plan,
    options: &container::Options,
    wanted: &Restore,
    facts: &Facts,
) -> Result<Started> {
    check_user()?;
    refuse(plan)?;
    let entry = store.reserve(&plan.id)?;
    let mut making = Making {
        entry: &entry,
        record: Record { restored: true, ..container::new_record(bundle, plan, options, facts) },
        plan,
        facts,
    };
    making.restore(bundle, options, wanted).inspect_err(|_| {
        container::warn_of(release::undo(&making.record).and_then(|()| entry.remove()));
    })
}

/// What CRIU would restore as something else.
fn refuse(plan: &Plan) -> Result<()> {
    let shifted = plan
        .launch
        .prepare
        .iter()
        .find(|prepare| matches!(&prepare.idmap, Some(Idmap::Own { .. } | Idmap::Container { .. })));
    match shifted {
        Some(prepare) => Err(Error::Unsupported {
            what: format!("restore with the idmapped mount of {}", prepare.source.display()),
            needs: "CRIU mounts it without the shift of owners".into(),
        }),
        None => Ok(()),
    }
}

struct Making<'a> {
    entry: &'a Entry,
    record: Record,
    plan: &'a Plan,
    facts: &'a Facts,
}

impl Making<'_> {
    fn restore(
        &mut self,
        bundle: &Bundle,
        options: &container::Options,
        wanted: &Restore,
    ) -> Result<Started> {
        let plan = self.plan;
        let rootfs =
            plan.init.rootfs.as_ref().ok_or_else(|| Error::text("the container has no root file system"))?;
        self.record.resctrl = container::plan_resctrl(&plan.launch, &plan.id)?;
        let mut recording = self.entry.begin()?;
        let (cgroup, dir) = container::take_cgroup(&mut self.record, &mut recording, plan, self.facts)?;
        self.entry.write_file(file::CONFIG, &bundle.text)?;
        let console = container::connect_console(options)?;
        let place = self.entry.path(ROOT);
        std::fs::create_dir(&place).doing(|| format!("make {}", place.display()))?;
        mounts::make_points(rootfs)?;
        let joined = self.open_joined()?;
        let null = fs::open(Path::new("/dev/null"), fs::O_RDWR)?;
        // It works in the directories where it sees them.
        let (directories, mut criu) = mounts::aside(rootfs, &place, || {
            let directories = Directories::open(&wanted.common, LOG)?;
            let start = Start {
                streams: true,
                keep: joined.iter().map(|(_, file)| file.as_fd()).chain([null.as_fd()]).collect(),
                cgroup: dir.as_ref().map(AsFd::as_fd),
                keyring: plan.init.keyring.as_deref(),
            };
            Ok((directories, Criu::start(&start)?))
        })?;
        criu.need(false, wanted.common.lazy_pages)?;
        let made = cgroup.as_ref().zip(dir);
        self.record.above = made.iter().flat_map(|(cgroup, _)| witness::above(cgroup)).collect();
        container::enter_cgroup(criu.pid, made, &mut self.record, &mut recording, plan, self.facts)?;
        let mut request = self.options(wanted, &directories, rootfs, &place)?;
        request.cgroup_roots = cgroup_roots(criu.pid)?;
        request.joined = self.joined_by_path()?;
        let inherited =
            |(key, file): &(&str, OwnedFd)| Inherited { key: (*key).into(), fd: file.as_raw_fd() };
        request.inherited = joined.iter().map(inherited).collect();
        request.inherited.extend(streams(&wanted.common.images, &null)?);
        criu.log = Some(directories.log.clone());
        let mut terminal = None;
        let mut notice =
            |notice: Notice| self.answer(notice, &mut recording, console.as_ref(), &mut terminal);
        criu.ask(Kind::Restore, Request { options: Some(request), ..Request::default() }, &mut notice)?;
        criu.finish()?;
        let _ = std::fs::remove_dir(&place);
        let pid = self.record.pid;
        let pidfd = container::open_process(&self.record)
            .ok_or_else(|| Error::text("the restored container has ended at once"))?;
        self.set_small_limit()?;
        container::write_outputs(pid, &pidfd, options)?;
        Ok(Started { pid, pidfd, terminal })
    }

    fn options(
        &self,
        wanted: &Restore,
        directories: &Directories,
        rootfs: &Rootfs,
        place: &Path,
    ) -> Result<Options> {
        let (root, proc) = (Root::open(&rootfs.path)?, Proc::open()?);
        let resolve = |path: &Path| mounts::resolve(&root, &proc, path);
        Ok(Options {
            evasive_devices: Some(true),
            restore_sibling: Some(true),
            root: Some(place.to_string_lossy().into_owned()),
            external_mounts: mounts::restored(rootfs, &mountinfo::points("self")?, &resolve),
            tcp_close: wanted.tcp_close.then_some(true),
            lsm_profile: wanted.lsm_profile.clone(),
            lsm_mount_context: wanted.lsm_mount_context.clone(),
            ..wanted.common.options(directories, LOG, &self.record.annotations)
        })
    }

    /// The namespaces that go to CRIU open, with their names in the images.
    fn open_joined(&self) -> Result<Vec<(&'static str, OwnedFd)>> {
        let of =
            |kind| self.plan.launch.join.iter().find(move |(joined, _)| *joined == plan::create::flag(kind));
        let known = EXTERNAL.into_iter().filter_map(|(kind, _, key)| Some((key, &of(kind)?.1)));
        let open = |(key, path): (&'static str, &PathBuf)| {
            let opened = fs::open(path, 0).doing(|| format!("open the namespace {}", path.display()))?;
            Ok((key, opened))
        };
        known.map(open).collect()
    }

    /// Those that CRIU joins by their paths.
    fn joined_by_path(&self) -> Result<Vec<Joined>> {
        let mut joined = Vec::new();
        for (kind, path) in &self.plan.launch.join {
            let kind = match *kind {
                ns::NETWORK | ns::PID => continue,
                ns::UTS => "uts",
                ns::IPC => "ipc",
                ns::USER => "user",
                ns::TIME => "time",
                _ => {
                    return Err(Error::Unsupported {
                        what: format!("restore into the namespace {}", path.display()),
                        needs: "CRIU joins network, PID, IPC, UTS, time and user namespaces only".into(),
                    });
                }
            };
            joined.push(Joined { kind: kind.into(), file: path.to_string_lossy().into_owned() });
        }
        Ok(joined)
    }

    /// CRIU waits at a point of its work.
    fn answer(
        &mut self,
        mut notice: Notice,
        recording: &mut Recording,
        console: Option<&OwnedFd>,
        terminal: &mut Option<OwnedFd>,
    ) -> Result<()> {
        match notice.script.as_str() {
            "setup-namespaces" => self.set_up(notice.pid),
            "network-unlock" => self.lay_down_a_lock(),
            "post-restore" => {
                self.record.pid = notice.pid;
                self.record.start_time = start_time(notice.pid).map_or(0, |(time, _)| time);
                recording.note(&self.record)?;
                container::enter_resctrl(&self.plan.launch, &self.record.id, notice.pid)
            }
            "orphan-pts-master" => {
                let Some(master) = notice.fds.pop() else { return Ok(()) };
                match console {
                    Some(console) => socket::send(console.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                        .doing(|| "send the terminal to the console socket")?,
                    None => *terminal = Some(master),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The namespaces are there, and nothing in them yet: what `create` does with them.
    fn set_up(&self, pid: i32) -> Result<()> {
        let plan = self.plan;
        if plan.init.loopback {
            let namespace = fs::open(Path::new(&format!("/proc/{pid}/ns/net")), 0)?;
            let up = || {
                process::setns(namespace.as_fd(), ns::NETWORK)?;
                process::loopback_up().map(|()| String::new())
            };
            attempt(0, None, |_| Ok(()), up).doing(|| "bring the loopback interface up")?;
            container::move_devices(&plan.launch, pid)?;
        }
        let state = self.record.oci(Status::Created, pid);
        hooks::run("prestart", prestart(&plan.hooks).unwrap_or_default(), &state)?;
        hooks::run("createRuntime", plan.hooks.create_runtime().as_deref().unwrap_or_default(), &state)?;
        Ok(())
    }

    /// A network namespace that outlives its container is still locked since the checkpoint, and CRIU 3.17 locks it once
    /// more by the same rules of iptables(8). It then fails to take both away, which it says in its log alone, and no
    /// packet ever goes through again. So of each rule that is there twice, one is taken away before that.
    fn lay_down_a_lock(&self) -> Result<()> {
        let joined = self.plan.launch.join.iter().find(|(kind, _)| *kind == ns::NETWORK);
        let Some((_, path)) = joined else { return Ok(()) };
        let namespace = fs::open(path, 0)?;
        let lay_down = || {
            process::setns(namespace.as_fd(), ns::NETWORK)?;
            for tables in ["iptables", "ip6tables"].iter().filter_map(|name| find(name)) {
                let run = |args: &[&str]| Command::new(&tables).arg("-w").args(args).output();
                for chain in ["INPUT", "OUTPUT"] {
                    let rule = format!("-A {chain} -j CRIU");
                    let listed = run(&["-S", chain]).map(|listed| listed.stdout).unwrap_or_default();
                    let count = String::from_utf8_lossy(&listed).lines().filter(|line| *line == rule).count();
                    for _ in 1..count {
                        run(&["-D", chain, "-j", "CRIU"]).doing(|| format!("take {rule:?} away"))?;
                    }
                }
            }
            Ok(String::new())
        };
        attempt(0, None, |_| Ok(()), lay_down).doing(|| "unlock the network namespace")?;
        Ok(())
    }

    /// Where the limit of memory is small, CRIU had more.
    fn set_small_limit(&self) -> Result<()> {
        let Some(wanted) = self.plan.cgroup.as_ref().filter(|cgroup| cgroup.small.is_some()) else {
            return Ok(());
        };
        match self.record.own_cgroup() {
            Some(cgroup) => confine::limit(&cgroup, &wanted.files, wanted.best_effort),
            None => Ok(()),
        }
    }
}

/// The cgroups that CRIU is in: what was in the saved container's goes there.
fn cgroup_roots(pid: i32) -> Result<Vec<CgroupRoot>> {
    let text = fs::read_small(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let root = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some(CgroupRoot { controllers: Some(controllers.into()), path: path.into() })
    };
    Ok(text.lines().filter_map(root).collect())
}

/// Standard streams that were pipes are now ours, whatever those are; the host's null device is itself again.
fn streams(images: &Path, null: &OwnedFd) -> Result<Vec<Inherited>> {
    let path = images.join(DESCRIPTORS);
    let text = fs::read_bounded(&path, DESCRIPTORS_MAX)
        .doing(|| format!("read {} (is it the directory of a checkpoint?)", path.display()))?;
    let names: Vec<String> = serde_json::from_slice(&text)
        .map_err(|error| Error::text(format!("{} is no list of descriptors: {error}", path.display())))?;
    let mut inherited: Vec<Inherited> = Vec::new();
    for (name, fd) in names.into_iter().zip(0..) {
        let fd = match () {
            () if name.starts_with("pipe:") && fd < 3 => fd,
            () if name.starts_with("file[") => null.as_raw_fd(),
            () => continue,
        };
        if !inherited.iter().any(|known| known.key == name) {
            inherited.push(Inherited { key: name, fd });
        }
    }
    Ok(inherited)
}
