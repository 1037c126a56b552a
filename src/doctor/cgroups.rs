//! Control groups: what a limit would find where a container's cgroup is made.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use ctr_isolation::{
    Error, Result,
    attempt::attempt,
    cgroup::{Cgroup, Hierarchy, v1},
    mountinfo,
    sys::fs::is_writable,
};

use super::{Finding, host::Host};

/// What `run --memory`, `--pids` and `--cpus` need.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// What other limits need.
const USEFUL: [&str; 2] = ["cpuset", "io"];

pub(super) fn probe(host: &Host) -> Vec<Finding> {
    let first = version(host);
    let Some(hierarchy) = &host.facts.hierarchy else { return vec![first, pressure(host, None)] };
    // As the runtime has it: beside our own.
    let own = &host.facts.own_cgroup;
    let parent = hierarchy.cgroup(own.parent().unwrap_or(Path::new("/")));
    let tried = format!("made a cgroup in {}, put a process into it and removed both", shown(&parent));
    let scratch = match Scratch::make(&parent).and_then(Scratch::take_process) {
        Ok(scratch) => scratch,
        Err(error) => {
            let mut findings = vec![first, refused(host, hierarchy, tried, &error)];
            let here = Here::look(host, hierarchy, &parent, None);
            // What no cgroup of one's own would change.
            if NEEDED.iter().any(|name| here.old.iter().any(|old| old == name)) {
                findings.push(controllers(host, &parent, &here));
            }
            findings.push(pressure(host, None));
            return findings;
        }
    };
    let here = Here::look(host, hierarchy, &parent, Some(&scratch.0));
    let mut findings = vec![
        first,
        Finding::ok("cgroup", tried, format!("containers get theirs in {}", shown(&parent))),
        controllers(host, &parent, &here),
    ];
    findings.extend(limits(&scratch.0, &here));
    findings.push(pressure(host, Some(&scratch.0)));
    findings
}

/// The directory of a cgroup, for people.
fn shown(cgroup: &Cgroup) -> String {
    // The root of all has a slash too many.
    cgroup.dir().components().collect::<PathBuf>().display().to_string()
}

/// A cgroup of our own for as long as it is needed.
struct Scratch(Cgroup);

impl Scratch {
    /// Makes it in `parent`, where nothing else changes: [`Cgroup::create`] would enable controllers there.
    fn make(parent: &Cgroup) -> Result<Scratch> {
        let dir = parent.dir().join(format!("ctr-doctor-{}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => Ok(Scratch(Cgroup::at(&dir))),
            Err(error) => Err(Error::call(format!("mkdir({dir:?})"), error.raw_os_error().unwrap_or(0))),
        }
    }

    /// Has a process begin in it, as that of a container does.
    fn take_process(self) -> Result<Scratch> {
        let dir = self.0.open()?;
        attempt(0, Some(dir.as_fd()), |_| Ok(()), || Ok(String::new()))?;
        Ok(self)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove(Duration::from_secs(2)) {
            tracing::warn!("{error}");
        }
    }
}

fn version(host: &Host) -> Finding {
    let tried = "looked for cgroup2 at /sys/fs/cgroup and /sys/fs/cgroup/unified";
    match &host.facts.hierarchy {
        Some(Hierarchy { mount, unified: true }) => {
            Finding::ok("version", tried, format!("cgroup v2 alone, at {}", mount.display()))
        }
        Some(Hierarchy { mount, .. }) => Finding::ok(
            "version",
            tried,
            format!("hybrid: cgroup v2 at {}, with version 1 beside it", mount.display()),
        ),
        None => {
            let mounts = mountinfo::points("self").unwrap_or_default();
            let is_old = mounts.iter().any(|mount| mount.kind == "cgroup");
            let found = if is_old { "cgroup v1 alone" } else { "no cgroups are mounted" };
            let loses = "every limit, pause, and the sure end of all processes of a container";
            let mend = host.as_root(match is_old {
                // It does no harm beside version 1.
                true => {
                    "sh -c 'mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified'"
                }
                false => "mount -t cgroup2 none /sys/fs/cgroup",
            });
            Finding::problem("version", tried, found, loses, mend)
        }
    }
}

/// Boots without version 1.
fn unify(host: &Host) -> String {
    let word = if host.has_systemd { "systemd.unified_cgroup_hierarchy=1" } else { "cgroup_no_v1=all" };
    host.boot_with(word)
}

fn refused(host: &Host, hierarchy: &Hierarchy, tried: String, error: &Error) -> Finding {
    let mend = delegate(host, hierarchy, error);
    if host.has_user_systemd() && hierarchy.unified {
        let found = "none of our own; for limits the user's systemd makes one (see scope)";
        let loses =
            "pause and the sure end of all processes for containers without limits, and under engines";
        return Finding::warning("cgroup", tried, found, loses, Some(mend)).because(error);
    }
    let loses =
        "every limit: --memory, --pids and --cpus are refused; pause, and the sure end of all processes";
    Finding::problem("cgroup", tried, "no cgroup can be made for a container", loses, mend).because(error)
}

/// How to come by a cgroup to make others in.
fn delegate(host: &Host, hierarchy: &Hierarchy, error: &Error) -> String {
    let program = &host.program;
    let scope = format!("systemd-run --user --scope -p Delegate=yes {program} ...");
    match host.container.as_deref() {
        Some("docker") => return "docker run --privileged --cgroupns=private ...".to_owned(),
        Some(_) => return "podman run --security-opt unmask=/sys/fs/cgroup ...".to_owned(),
        None => {}
    }
    match () {
        () if error.errno == libc::EROFS => {
            host.as_root(&format!("mount -o remount,rw {}", hierarchy.mount.display()))
        }
        () if host.has_user_systemd() => scope,
        () if host.has_systemd && !host.is_root() => format!(
            "{} && export XDG_RUNTIME_DIR=/run/user/{} && {scope}",
            host.as_root(&format!("loginctl enable-linger {}", host.user)),
            host.facts.uid
        ),
        () => by_hand(host, &hierarchy.mount.join(format!("ctr-{}", host.user))),
    }
}

/// Makes the cgroup `dir` the caller's own and puts the shell into one below, as cgroups(7) wants it.
fn by_hand(host: &Host, dir: &Path) -> String {
    let (dir, user) = (dir.display(), &host.user);
    // The shell's own number: it is to be put in by the shell, not by the root's.
    let shell = if host.is_root() { "$$" } else { "'$$'" };
    let commands = format!(
        "mkdir -p {dir}/shell && chown {user} {dir} {dir}/cgroup.procs {dir}/cgroup.subtree_control {dir}/shell \
         {dir}/shell/cgroup.procs && echo {shell} > {dir}/shell/cgroup.procs"
    );
    if host.is_root() { commands } else { format!("{} '{commands}'", host.root_shell()) }
}

/// Which controllers there are where containers' cgroups are made.
struct Here {
    /// Those a container has.
    enabled: Vec<String>,
    /// Those it will have, for we shall enable them when we make the first.
    ready: Vec<String>,
    /// Those of version 1.
    old: Vec<String>,
    /// Those of them that containers of ours get all the same.
    usable: Vec<String>,
    /// Those the root of version 2 has.
    top: Vec<String>,
    /// That is the root of a cgroup namespace, not of all cgroups.
    is_part: bool,
    /// How they get here from there.
    way: Vec<Way>,
}

impl Here {
    /// With `scratch`, a cgroup where those of containers would be, if one can be made.
    fn look(host: &Host, hierarchy: &Hierarchy, parent: &Cgroup, scratch: Option<&Cgroup>) -> Here {
        let mut enabled = Vec::new();
        if let Some(scratch) = scratch {
            enabled = scratch.controllers().unwrap_or_default();
            // As a container with cgroups of its own would.
            enabled.retain(|name| scratch.write("cgroup.subtree_control", &format!("+{name}")).is_ok());
        }
        let top = hierarchy.cgroup(Path::new("/")).controllers().unwrap_or_default();
        let way = way_to(hierarchy, parent);
        let arrives = |name: &&String| way.iter().all(|part| part.lets_through(name));
        let ready = top.iter().filter(|name| !enabled.contains(name)).filter(arrives).cloned().collect();
        let is_part = hierarchy.mount.join("cgroup.type").exists();
        let names = |paths: &v1::Paths| -> Vec<String> {
            let names = paths.keys().filter(|name| !name.contains('='));
            names.map(|name| if name == "blkio" { "io" } else { name }.to_owned()).collect()
        };
        let (old, usable) =
            (names(&host.facts.v1), names(&v1::directories(host.facts.usable_v1(), &host.facts.v1)));
        Here { enabled, ready, old, usable, top, is_part, way }
    }

    fn has(&self, name: &str) -> bool {
        self.enabled.iter().chain(&self.ready).chain(&self.usable).any(|found| found == name)
    }
}

/// The cgroups from the root of all down to `cgroup`.
fn way_to(hierarchy: &Hierarchy, cgroup: &Cgroup) -> Vec<Way> {
    let is_below = |dir: &&Path| dir.starts_with(&hierarchy.mount);
    let mut way: Vec<Way> = cgroup.dir().ancestors().take_while(is_below).map(Way::look).collect();
    way.reverse();
    way
}

/// A cgroup that controllers come through, to those below it.
struct Way {
    /// Its directory.
    dir: String,
    /// Those it hands on.
    on: Vec<String>,
    /// Whether its own processes keep it from handing on: only the root of all is free of that.
    is_full: bool,
    /// Whether we may have it hand on others.
    is_ours: bool,
}

impl Way {
    fn look(dir: &Path) -> Way {
        let cgroup = Cgroup::at(dir);
        let on = cgroup.read("cgroup.subtree_control").unwrap_or_default();
        let is_root_of_all = !dir.join("cgroup.type").exists();
        Way {
            dir: shown(&cgroup),
            on: on.split_whitespace().map(str::to_owned).collect(),
            is_full: !is_root_of_all && cgroup.read("cgroup.procs").is_ok_and(|pids| !pids.is_empty()),
            is_ours: is_writable(&dir.join("cgroup.subtree_control")),
        }
    }

    fn lets_through(&self, name: &str) -> bool {
        self.is_ours && !self.is_full || self.on.iter().any(|found| found == name)
    }

    /// Why not.
    fn why(&self, name: &str) -> String {
        let dir = &self.dir;
        match self.is_full {
            true => format!("{dir} has processes of its own, so that it hands no {name} on (cgroups(7))"),
            false => format!("{dir}/cgroup.subtree_control has no {name}, and is not ours to write"),
        }
    }
}

fn controllers(host: &Host, parent: &Cgroup, here: &Here) -> Finding {
    let enabled = if here.enabled.is_empty() { "" } else { ", and enabled them in ours" };
    let tried = format!("looked which controllers reach cgroups in {}{enabled}", shown(parent));
    let missing = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| !here.has(name)).collect()
    };
    let (needed, useful) = (missing(&NEEDED), missing(&USEFUL));
    let (on, ready) = (here.enabled.join(" "), here.ready.join(" "));
    let has = match (on.is_empty(), ready.is_empty()) {
        (true, true) => "none".to_owned(),
        (false, true) => on,
        (true, false) => format!("{ready}, which are enabled with the first container"),
        (false, false) => format!("{on}; and {ready}, which are enabled with the first container"),
    };
    let has = match here.usable.as_slice() {
        [] => has,
        usable => format!("{has} in version 2; in version 1, which root may use: {}", usable.join(" ")),
    };
    let absent = [needed.as_slice(), useful.as_slice()].concat();
    let Some(first) = absent.first() else { return Finding::ok("controllers", tried, has) };
    let (reason, mend) = explain(host, here, first, &absent);
    let found = format!("{has}; without {}", absent.join(" "));
    let loses = absent.iter().map(|name| lost_with(name)).collect::<Vec<_>>().join("; ");
    let finding = match mend {
        Some(mend) if !needed.is_empty() => Finding::problem("controllers", tried, found, loses, mend),
        // Where nothing but the kernel's build is to blame no command helps.
        mend => Finding::warning("controllers", tried, found, loses, mend),
    };
    finding.because(reason)
}

/// Why the controller `name` is not to be had, and what gives it and its like.
fn explain(host: &Host, here: &Here, name: &str, absent: &[&str]) -> (String, Option<String>) {
    let is_in = |list: &[String], name: &str| list.iter().any(|found| found == name);
    if is_in(&here.old, name) {
        return (format!("{name} is mounted as version 1, which takes it from version 2"), Some(unify(host)));
    }
    if is_in(&here.top, name) {
        let stop = here.way.iter().find(|part| !part.lets_through(name));
        let reason = stop.map_or_else(|| format!("{name} cannot be enabled"), |part| part.why(name));
        let wanted: Vec<&str> = absent.iter().copied().filter(|name| is_in(&here.top, name)).collect();
        return (reason, hand_down(host, here, &wanted));
    }
    let is_needed = NEEDED.contains(&name);
    if here.is_part {
        // The engine's own cgroup had none to give.
        let engine = host.container.as_deref().unwrap_or("podman");
        let reason = format!("whoever made the cgroup namespace that we are in gave it no {name}");
        return (
            reason,
            is_needed.then(|| format!("systemd-run --user --scope -p Delegate=yes {engine} run ...")),
        );
    }
    let reason =
        format!("the kernel offers no controller {name}: not built in, or disabled when it was booted");
    (reason, is_needed.then(|| host.boot_with(&format!("cgroup_enable={name}"))))
}

/// What systemd gives to ordinary users if it is told to; it knows of no others.
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Has systemd give ordinary users all controllers.
pub(super) fn delegate_to_users(host: &Host) -> String {
    let (all, uid) = (DELEGATED.join(" "), host.facts.uid);
    let dir = "/etc/systemd/system/user@.service.d";
    host.as_root(&format!(
        "mkdir -p {dir} && printf \"[Service]\\nDelegate={all}\\n\" > {dir}/delegate.conf && systemctl daemon-reload && \
         systemctl restart user@{uid}.service"
    ))
}

/// Enables the controllers `names` all the way down.
fn hand_down(host: &Host, here: &Here, names: &[&str]) -> Option<String> {
    if host.has_systemd && !host.is_root() {
        return names.iter().any(|name| DELEGATED.contains(name)).then(|| delegate_to_users(host));
    }
    let all = names.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    let enable = here.way.iter().map(|Way { dir, is_full, .. }| {
        let move_away = format!(
            "mkdir -p {dir}/init && for p in $(cat {dir}/cgroup.procs); do echo $p > {dir}/init/cgroup.procs; done 2>/dev/null; "
        );
        let first = if *is_full { move_away } else { String::new() };
        format!("{first}echo '{all}' > {dir}/cgroup.subtree_control")
    });
    Some(host.as_root(&enable.collect::<Vec<_>>().join(" && ")))
}

fn lost_with(name: &str) -> &'static str {
    match name {
        "cpu" => "limits of cpu: --cpus, shares, quota",
        "memory" => "limits of memory: --memory, --swap, and who was out of it",
        "pids" => "limits of processes: --pids",
        "cpuset" => "cpus and memory nodes of a container's own",
        _ => "limits of disk traffic",
    }
}

/// Limits that are set and read back; what the kernel makes of them is compared.
const LIMITS: [(&str, &str, &str); 3] =
    [("memory", "memory.max", "67108864"), ("pids", "pids.max", "32"), ("cpu", "cpu.max", "50000 100000")];

/// None where no container has a controller yet.
fn limits(scratch: &Cgroup, here: &Here) -> Option<Finding> {
    let is_on = |(controller, ..): &&(&str, &str, &str)| here.enabled.iter().any(|name| name == controller);
    let wanted: Vec<_> = LIMITS.iter().filter(is_on).collect();
    let files = wanted.iter().map(|(_, file, _)| *file).collect::<Vec<_>>().join(", ");
    let tried = format!("wrote {files} of our cgroup and read them back");
    let hold = |(_, file, value): &(&str, &str, &str)| -> Result<()> {
        scratch.write(file, value)?;
        match scratch.read(file)?.trim() {
            read if read == *value => Ok(()),
            read => Err(Error::new(format!("{file} is {read}, not {value}"))),
        }
    };
    let finding = match wanted.iter().try_for_each(|limit| hold(limit)) {
        Ok(()) => Finding::ok("limits", tried, format!("{files} are kept as written")),
        Err(error) => Finding::warning("limits", tried, "a limit is not kept as written", "that limit", None)
            .because(error),
    };
    (!wanted.is_empty()).then_some(finding)
}

/// Whether the kernel tells of pressure, of the machine's and of a cgroup's.
fn pressure(host: &Host, scratch: Option<&Cgroup>) -> Finding {
    let loses =
        "pressure in limits, in the record of why a container died, and as a signal before memory ends";
    let host_file =
        |name: &str| ctr_isolation::sys::fs::read_small(Path::new("/proc/pressure").join(name).as_path());
    let mut result = ["cpu", "io", "memory"].iter().try_for_each(|name| host_file(name).map(drop));
    let mut tried = "read /proc/pressure/cpu, io and memory".to_owned();
    if let Some(scratch) = scratch {
        result = result.and_then(|()| scratch.read("cpu.pressure").map(drop));
        tried += ", and cpu.pressure of our cgroup";
    }
    match result {
        Ok(()) => Finding::ok("pressure", tried, "the kernel tells of it"),
        Err(error) => Finding::warning(
            "pressure",
            tried,
            "the kernel does not tell of it",
            loses,
            Some(host.boot_with("psi=1")),
        )
        .because(error),
    }
}
