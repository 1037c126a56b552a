//! The plan of `create`.

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::facts::{Delegated, Facts};
use crate::plan::annotations;
use crate::plan::mounts::{self, Situation};
use crate::plan::validate::{self, Check};
use crate::plan::{
    Cgroup, IdMaps, Init, Launch, Manager, Plan, Rdt, Request, Unit, ns, process, resources, resources_v1,
};
use ctr_isolation::cgroup::v1;
use ctr_isolation::personality;
use ctr_isolation::root::clean;
use oci_spec::runtime::{Linux, LinuxIntelRdt, LinuxNamespaceType, LinuxTimeOffset, ProcessBuilder};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Decides everything about a container.
///
/// # Errors
/// [`Error::Invalid`] with every problem of the configuration.
pub fn create(bundle: &Bundle, request: &Request, facts: &Facts) -> Result<Plan> {
    let mut check = Check::default();
    let mut warnings = bundle.warnings.clone();
    validate::spec(&bundle.spec, &mut check);
    let plan = build(bundle, request, facts, &mut check, &mut warnings);
    match plan {
        Some(plan) if check.problems.is_empty() => Ok(Plan { warnings, ..plan }),
        _ => Err(Error::Invalid(check.problems)),
    }
}

fn build(
    bundle: &Bundle,
    request: &Request,
    facts: &Facts,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> Option<Plan> {
    let spec = &bundle.spec;
    let nothing_set = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&nothing_set);
    // Without a process a container can be created, only not started (runtime-spec config.md, "Process").
    let nothing = || ProcessBuilder::default().args(Vec::new()).env(Vec::new()).cwd("/").build().ok();
    let proc = &spec.process().clone().or_else(nothing)?;
    let (new, join) = namespaces(linux);
    let joined = join.iter().fold(0, |all, (kind, _)| all | kind);
    let user_namespace = (new | joined) & ns::USER != 0;
    let mut cgroup = cgroup(linux, request, facts, check, warnings);
    let properties = annotations::unit_properties(spec, check);
    if let Some(unit) = cgroup.as_mut().and_then(|cgroup| cgroup.unit.as_mut()) {
        unit.properties = properties;
    }
    let situation = Situation {
        context: annotations::context_type(spec, check),
        user_namespace,
        prepare: user_namespace && facts.is_root(),
        own_mount_namespace: (new | joined) & ns::MOUNT != 0,
        old_controllers: cgroup
            .as_ref()
            .map(|cgroup| cgroup.v1.keys().cloned().collect())
            .unwrap_or_default(),
        own_cgroup_namespace: new & ns::CGROUP != 0,
    };
    let (rootfs, prepare) = mounts::rootfs(spec, &bundle.dir, request, facts, &situation, check, warnings);
    let ids = (new & ns::USER != 0).then(|| id_maps(linux));
    let groups_allowed = !facts.setgroups_denied
        && (facts.is_root() || !user_namespace || ids.as_ref().is_none_or(|ids| needs_helper(ids, facts)));
    let groups = process::groups(spec, groups_allowed);
    if !facts.is_root() && !user_namespace {
        check.problem(
            "/linux/namespaces",
            "an ordinary user needs a user namespace: `spec --rootless` makes such a configuration",
        );
    }
    let console = process::console(proc);
    check.that(console.is_none() || request.has_console, "/process/terminal", || {
        "a terminal needs --console-socket, or `run` without --detach".into()
    });
    let (affinity, final_affinity) = process::affinity(proc, check);
    let hooks = spec.hooks().clone().unwrap_or_default();
    // Without a cgroup of its own yet, a new cgroup namespace would begin at ours.
    let late_cgroup = cgroup.as_ref().is_none_or(Cgroup::is_joined_late);
    let unshare_cgroup = new & ns::CGROUP != 0 && late_cgroup;
    let late = ns::TIME | if unshare_cgroup { ns::CGROUP } else { 0 };
    let filter = process::filter(linux, check);
    if annotations::fails_unknown_calls(spec) {
        for unknown in filter.iter().flat_map(|filter| &filter.warnings) {
            check.problem("/linux/seccomp", unknown);
        }
    }
    let net_devices = net_devices(linux);
    let init = Init {
        at_once: ids.is_none()
            && prepare.is_empty()
            && net_devices.is_empty()
            && linux.intel_rdt().is_none()
            && !cgroup.as_ref().is_some_and(Cgroup::is_joined_late)
            // The parent raises them, which cannot be done from inside.
            && !(user_namespace && proc.rlimits().is_some()),
        hold: cgroup.as_ref().is_some_and(|cgroup| cgroup.small.is_some()),
        own_user_namespace: user_namespace,
        keyring: (!request.no_new_keyring)
            .then(|| CString::new(format!("_ses.{}", request.id)).unwrap_or_default()),
        unshare_cgroup,
        time_offsets: (new & ns::TIME != 0).then(|| time_offsets(linux, check)),
        loopback: new & ns::NETWORK != 0,
        schedule: process::schedule(proc, linux.memory_policy().as_ref(), check),
        rootfs: Some(rootfs),
        ask_for_hooks: validate::prestart(&hooks).is_some_and(|hooks| !hooks.is_empty())
            || hooks.create_runtime().as_ref().is_some_and(|hooks| !hooks.is_empty()),
        create_container: hooks.create_container().clone().unwrap_or_default(),
        console,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        sysctl: sysctl(linux),
        personality: linux.personality().as_ref().map(|persona| {
            let flags = persona.flags().as_ref().is_some_and(|flags| !flags.is_empty());
            check.that(!flags, "/linux/personality/flags", || "no flags are supported".into());
            personality::domain(persona.domain())
        }),
        labels: process::labels(proc, facts, check),
        rlimits: process::rlimits(proc),
        affinity: final_affinity,
        identity: process::identity(proc, facts, groups, user_namespace, check, warnings),
        filter,
        listener_metadata: listener_metadata(linux),
        start_container: hooks.start_container().clone().unwrap_or_default(),
        program: process::program(proc, request, true),
    };
    let launch = Launch {
        new: new & !late,
        join,
        join_process: None,
        ids,
        oom_score_adj: proc.oom_score_adj(),
        affinity,
        prepare,
        net_devices,
        // Who is in a PID namespace that is joined, and with which capabilities, is not known.
        traced: joined & ns::PID != 0 && !user_namespace,
        rdt: linux.intel_rdt().as_ref().map(|rdt| self::rdt(rdt, &request.id, check)),
    };
    Some(Plan { id: request.id.clone(), cgroup, launch, init, hooks, warnings: Vec::new() })
}

fn namespaces(linux: &Linux) -> (i32, Vec<(i32, PathBuf)>) {
    let mut new = 0;
    let mut join = Vec::new();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = flag(namespace.typ());
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => join.push((kind, path.clone())),
            None => new |= kind,
        }
    }
    // The user namespace first: it gives the right to join the others. The mount namespace last: it changes paths.
    join.sort_by_key(|(kind, _)| match *kind {
        ns::USER => 0,
        ns::MOUNT => 2,
        _ => 1,
    });
    (new, join)
}

/// The flag of clone(2) for a kind of namespace.
pub fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => ns::MOUNT,
        LinuxNamespaceType::Cgroup => ns::CGROUP,
        LinuxNamespaceType::Uts => ns::UTS,
        LinuxNamespaceType::Ipc => ns::IPC,
        LinuxNamespaceType::User => ns::USER,
        LinuxNamespaceType::Pid => ns::PID,
        LinuxNamespaceType::Network => ns::NETWORK,
        LinuxNamespaceType::Time => ns::TIME,
    }
}

fn id_maps(linux: &Linux) -> IdMaps {
    IdMaps {
        uids: linux.uid_mappings().clone().unwrap_or_default(),
        gids: linux.gid_mappings().clone().unwrap_or_default(),
    }
}

/// Whether the maps of an ordinary user need newuidmap(1) and newgidmap(1): all but a single id, one's own.
pub fn needs_helper(ids: &IdMaps, facts: &Facts) -> bool {
    let single = |list: &[oci_spec::runtime::LinuxIdMapping], own: u32| matches!(list, [one] if one.size() == 1 && one.host_id() == own);
    let own = single(&ids.uids, facts.uid) && single(&ids.gids, facts.gid);
    !facts.is_root() && !own
}

fn time_offsets(linux: &Linux, check: &mut Check) -> String {
    let empty = HashMap::new();
    let offsets: &HashMap<String, LinuxTimeOffset> = linux.time_offsets().as_ref().unwrap_or(&empty);
    let mut lines: Vec<String> = Vec::new();
    for (clock, offset) in offsets {
        let pointer = format!("/linux/timeOffsets/{clock}");
        check.that(matches!(clock.as_str(), "monotonic" | "boottime"), &pointer, || {
            "is no clock of a time namespace: use monotonic or boottime".into()
        });
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        check.that(nanoseconds < 1_000_000_000, &pointer, || format!("{nanoseconds} ns is a second or more"));
        lines.push(format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0)));
    }
    lines.sort_unstable();
    lines.concat()
}

fn sysctl(linux: &Linux) -> Vec<(String, String)> {
    let mut list: Vec<_> = linux
        .sysctl()
        .iter()
        .flatten()
        .map(|(name, value)| (validate::sysctl_path(name), value.clone()))
        .collect();
    list.sort_unstable();
    list
}

/// What the agent of the system call filter is told besides the state.
pub fn listener_metadata(linux: &Linux) -> String {
    let seccomp = linux.seccomp().as_ref();
    seccomp.and_then(|seccomp| seccomp.listener_metadata().clone()).unwrap_or_default()
}

fn net_devices(linux: &Linux) -> Vec<(String, String)> {
    let devices = linux.net_devices().iter().flatten();
    let mut devices: Vec<_> = devices
        .map(|(name, device)| {
            let inside = device.name().clone().filter(|name| !name.is_empty());
            (name.clone(), inside.unwrap_or_else(|| name.clone()))
        })
        .collect();
    devices.sort_unstable();
    devices
}

fn rdt(rdt: &LinuxIntelRdt, id: &str, check: &mut Check) -> Rdt {
    let group = rdt.clos_id().clone().filter(|name| !name.is_empty());
    if let Some(name) = &group {
        let good = !name.contains(['/', '\n', '\0']) && name != "." && name != "..";
        check.that(good, "/linux/intelRdt/closID", || format!("{name:?} is not the name of a directory"));
    }
    let mut schemata: Vec<String> = Vec::new();
    for line in [rdt.l3_cache_schema(), rdt.mem_bw_schema()].into_iter().flatten() {
        schemata.push(line.clone());
    }
    schemata.extend(rdt.schemata().iter().flatten().cloned());
    for line in &schemata {
        check.that(!line.contains('\0'), "/linux/intelRdt", || format!("{line:?} is no schema"));
    }
    Rdt {
        shared: group.is_some() && schemata.is_empty(),
        group: group.unwrap_or_else(|| id.to_owned()),
        schemata,
        monitoring: rdt.enable_monitoring().unwrap_or(false),
    }
}

fn cgroup(
    linux: &Linux,
    request: &Request,
    facts: &Facts,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> Option<Cgroup> {
    let resources = linux.resources().clone().unwrap_or_default();
    let mut files = resources_v1::files(&resources, facts.usable_v1(), check, warnings);
    let none = match request.manager {
        Manager::Nobody => Some("--cgroup-manager disabled forbids one"),
        // Beside version 1 it is of use without a controller: what freezes, kills and filters devices is there alone.
        _ if facts.hierarchy.is_none() => Some(
            "cgroup version 2 is mounted neither at /sys/fs/cgroup nor at /sys/fs/cgroup/unified (where root may mount it \
             beside version 1: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`)",
        ),
        _ => None,
    };
    if let Some(why) = none {
        let lost = |(file, value): &resources::File| format!("not limited: {file} to {value}: {why}");
        if request.best_effort {
            warnings.extend(files.iter().map(lost));
        } else {
            check.that(files.is_empty(), "/linux/resources", || format!("limits need a cgroup, and {why}"));
        }
        return None;
    }
    if facts.usable_v1().is_empty() {
        refuse_v1(&mut files, facts.hybrid(), request, check, warnings);
    }
    let device_filter = resources::device_filter(&resources, facts, check);
    let given = linux.cgroups_path().clone().unwrap_or_default();
    let wanted = request.manager == Manager::Auto && (!files.is_empty() || request.counted);
    let ours = facts.delegated != Delegated::Nowhere && (!facts.is_root() || !facts.systemd);
    // Of what systemd manages and did not give us, it takes the limits away again when it reloads; not so in version 1, and
    // what was counted in a scope of that is gone with it before anybody is told.
    let by_choice = wanted && facts.systemd && !ours && facts.usable_v1().is_empty();
    let systemd = request.manager == Manager::Systemd || by_choice;
    let below = wanted && ours && facts.delegated == Delegated::Below;
    let limits = || match facts.usable_v1().is_empty() {
        true => files.clone(),
        false => resources_v1::for_systemd(&resources, facts.usable_v1()),
    };
    let mut unit = systemd.then(|| unit(&given, &request.id, limits(), facts, check)).flatten();
    if let Some(unit) =
        unit.as_mut().filter(|_| given.as_os_str().is_empty() && (by_choice || request.counted))
        && let Some(slice) = own_slice(&unit.slice, &request.id)
    {
        (unit.slice, unit.own_slice) = (slice, true);
    }
    let asked_for =
        !files.is_empty() || device_filter.is_some() || unit.is_some() || !given.as_os_str().is_empty();
    Some(Cgroup {
        v1: cgroups_v1(&files, &given, request, facts.usable_v1()),
        path: if below {
            facts.own_cgroup.join(&request.id)
        } else {
            cgroup_path(&given, &request.id, facts.own_cgroup.parent().unwrap_or(Path::new("/")))
        },
        make_room: below.then(|| facts.own_cgroup.clone()),
        unnamed: unit.is_none() && given.as_os_str().is_empty(),
        unit,
        small: resources::small_limit(&files).filter(|_| !request.best_effort),
        files,
        device_filter,
        optional: !asked_for && !request.need_cgroup,
        best_effort: request.best_effort,
    })
}

/// Of version 1 only the host's root has what it could limit others with.
fn refuse_v1(
    files: &mut Vec<resources::File>,
    old: &v1::Paths,
    request: &Request,
    check: &mut Check,
    warnings: &mut Vec<String>,
) {
    files.retain(|(file, value)| {
        let controller = v1::controller_of(file);
        if !old.contains_key(controller) {
            return true;
        }
        let why = format!(
            "the limit needs the cgroup controller {controller}, which is in version 1 here, for the host's root alone"
        );
        match request.best_effort {
            true => warnings.push(format!("not limited: {file} to {value}: {why}")),
            false => check.problem("/linux/resources", format!("{file} to {value}: {why}")),
        }
        false
    });
}

/// The cgroups of version 1: those with limits, or whose counts are wanted; where the caller has a place of its own for the
/// container, as engines do, all of them, for it will look there. Relative paths are below our own cgroups, as runc has it.
fn cgroups_v1(files: &[resources::File], given: &Path, request: &Request, old: &v1::Paths) -> v1::Paths {
    let mut needed = resources_v1::needed(files, old);
    if !given.as_os_str().is_empty() {
        needed.clone_from(old);
    } else if request.counted {
        let counting = ["memory", "pids", "cpu"].into_iter().filter_map(|name| old.get_key_value(name));
        needed.extend(counting.map(|(name, path)| (name.clone(), path.clone())));
    }
    for own in needed.values_mut() {
        *own = cgroup_path(given, &request.id, own);
    }
    needed
}

/// Where `cgroupsPath` leads, as runc has it: an absolute path from the mount point, a relative one (and none, which
/// is the container's name) below `above`: in version 2 what our own cgroup is in, in version 1 that itself.
pub fn cgroup_path(given: &Path, id: &str, above: &Path) -> PathBuf {
    if given.is_absolute() {
        return clean(given);
    }
    // `..` in a relative path must not lead above.
    let inside = clean(if given.as_os_str().is_empty() { Path::new(id) } else { given });
    clean(&above.join(inside.strip_prefix("/").unwrap_or(&inside)))
}

fn unit(
    given: &Path,
    id: &str,
    limits: Vec<resources::File>,
    facts: &Facts,
    check: &mut Check,
) -> Option<Unit> {
    let text = given.to_string_lossy();
    let user = !facts.is_root() || facts.in_user_namespace;
    let parts: Vec<&str> = text.split(':').collect();
    let (slice, prefix, name) = match parts.as_slice() {
        [""] => ("", "ctr", id),
        [slice, prefix, name] if !name.is_empty() => (*slice, *prefix, *name),
        _ => {
            check.problem(
                "/linux/cgroupsPath",
                format!("{text:?} is not slice:prefix:name, which the systemd cgroup manager needs"),
            );
            return None;
        }
    };
    let default = if user { "user.slice" } else { "system.slice" };
    let slice = if slice.is_empty() { default } else { slice };
    check.that(slice.ends_with(".slice") && !slice.contains('/'), "/linux/cgroupsPath", || {
        format!("{slice:?} is not the name of a slice")
    });
    // No character of a unit's name.
    let name = name.replace('+', "\\x2b");
    let name = if name.ends_with(".slice") {
        name
    } else if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    };
    Some(Unit { slice: slice.into(), own_slice: false, name, user, limits, properties: Vec::new() })
}

/// The name of a slice in `parent` for the container `id` alone (systemd.slice(5)); `None` when it is too long.
fn own_slice(parent: &str, id: &str) -> Option<String> {
    let id = id.replace('-', "\\x2d").replace('+', "\\x2b");
    let name = format!("{}-ctr\\x2d{id}.slice", parent.strip_suffix(".slice")?);
    (name.len() <= UNIT_NAME_MAX).then_some(name)
}

/// No name of a unit is longer (systemd.unit(5)).
const UNIT_NAME_MAX: usize = 255;
