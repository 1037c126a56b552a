//! `mounts`, `root` and the devices of a configuration as a root file system to be built.

use crate::facts::Facts;
use crate::plan::validate::{self, Check};
use crate::plan::{IdMaps, Idmap, Prepare, Request};
use ctr_isolation::device::{self, Device};
use ctr_isolation::mount::options::{self, Bind, Links, Options};
use ctr_isolation::mount::{Mount, What};
use ctr_isolation::root::clean;
use ctr_isolation::rootfs::{RootChange, Rootfs};
use oci_spec::runtime::{
    Linux, LinuxDeviceType, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Mount as OciMount,
    Spec,
};
use std::path::{Path, PathBuf};

/// What only we, outside a new user namespace, can do for the child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// The container is in a user namespace that is made or joined for it.
    pub user_namespace: bool,
    /// And we are the host's root: we open what the container's root may not reach.
    pub prepare: bool,
    /// It shares the mount namespace it is started from.
    pub own_mount_namespace: bool,
    /// The option by which a mount gets its SELinux label.
    pub context: &'static str,
    /// The controllers of cgroup version 1 whose hierarchies it has a cgroup of its own in.
    pub old_controllers: Vec<String>,
    /// It has a cgroup namespace of its own.
    pub own_cgroup_namespace: bool,
}

/// The root file system and the mounts to be prepared for it.
pub fn rootfs(
    spec: &Spec,
    bundle: &Path,
    request: &Request,
    facts: &Facts,
    situation: &Situation,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> (Rootfs, Vec<Prepare>) {
    let root = spec.root().clone().unwrap_or_default();
    let path = clean(&bundle.join(root.path()));
    let nothing_set = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&nothing_set);
    let mut prepare = Vec::new();
    let prepared = situation.prepare.then(|| {
        prepare.push(Prepare { source: path.clone(), recursive: true, links: Links::default(), idmap: None });
        0
    });
    let mut mounts = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let pointer = format!("/mounts/{index}");
        mounts.extend(self::mount(
            mount,
            &pointer,
            bundle,
            linux,
            facts,
            situation,
            &mut prepare,
            check,
            warnings,
        ));
    }
    let fill_dev = !mounts
        .iter()
        .any(|mount| mount.target == Path::new("/dev") && matches!(mount.what, What::Bind { .. }));
    let wanted = linux.rootfs_propagation().as_deref().filter(|name| !name.is_empty());
    let propagation = wanted.and_then(|name| {
        let known = options::propagation(name);
        check.value(
            "/linux/rootfsPropagation",
            known.ok_or_else(|| {
                format!("{name:?} is no propagation: use shared, slave, private or unbindable")
            }),
        )
    });
    let change = match (situation.own_mount_namespace, request.no_pivot) {
        (false, _) => RootChange::Chroot,
        (true, true) => RootChange::Move,
        (true, false) => RootChange::Pivot,
    };
    let paths =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|path| clean(Path::new(path))).collect();
    let rootfs = Rootfs {
        path,
        prepared,
        change,
        propagation_before: propagation.map_or(libc::MS_SLAVE | libc::MS_REC, |kind| kind | libc::MS_REC),
        propagation_after: propagation,
        read_only: root.readonly().unwrap_or(false),
        mounts,
        fill_dev,
        devices: devices(linux, situation, check),
        masked: paths(linux.masked_paths()),
        read_only_paths: paths(linux.readonly_paths()),
    };
    (rootfs, prepare)
}

/// Mounts for a container that runs already, and what is to be prepared for them: all that is bound is opened outside.
pub fn added(
    list: &[OciMount],
    dir: &Path,
    linux: &Linux,
    facts: &Facts,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> (Vec<Mount>, Vec<Prepare>) {
    let situation =
        Situation { prepare: true, own_mount_namespace: true, context: "context", ..Situation::default() };
    let (mut mounts, mut prepare) = (Vec::new(), Vec::new());
    for (index, given) in list.iter().enumerate() {
        let pointer = format!("/mounts/{index}");
        check.that(given.destination().is_absolute(), &format!("{pointer}/destination"), || {
            "is not absolute".into()
        });
        let mount = mount(given, &pointer, dir, linux, facts, &situation, &mut prepare, check, warnings);
        let remount = mount.as_ref().is_some_and(|mount| matches!(mount.what, What::Remount { .. }));
        check
            .that(!remount, &format!("{pointer}/options"), || "remount changes nothing that is added".into());
        mounts.extend(mount);
    }
    for mount in mounts.iter_mut().filter(|mount| mount.propagation.is_empty()) {
        // What has one is attached by its descriptor: mount(2) is led to its target by the container's own /proc.
        mount.propagation.push(libc::MS_PRIVATE);
    }
    (mounts, prepare)
}

#[expect(clippy::too_many_arguments)] // One mount depends on all of these; a struct of them would have one user.
fn mount(
    mount: &OciMount,
    pointer: &str,
    bundle: &Path,
    linux: &Linux,
    facts: &Facts,
    situation: &Situation,
    prepare: &mut Vec<Prepare>,
    check: &mut Check,
    warnings: &mut Vec<String>,
) -> Option<Mount> {
    let given = mount.options().clone().unwrap_or_default();
    let mut options = match options::parse(&given) {
        Ok(options) => options,
        Err(problems) => {
            for problem in &problems {
                check.problem(format!("{pointer}/options{}", problem.pointer), &problem.message);
            }
            return None;
        }
    };
    let kind = mount.typ().clone().unwrap_or_default();
    let bind = options.bind.or((kind == "bind").then_some(Bind::One));
    let source = mount.source().clone().unwrap_or_default();
    let idmap = idmap(mount, &options, pointer, linux, check);
    let what = if options.remount {
        What::Remount {
            data: std::mem::take(&mut options.data),
            flags: options.flags,
            bind: options.bind.is_some(),
        }
    } else if let Some(bind) = bind {
        let source = clean(&bundle.join(&source));
        let recursive = bind == Bind::Recursive;
        if !options.data.is_empty() {
            // The kernel ignores them, and so do runc and crun.
            warnings.push(format!(
                "{pointer}/options: {:?} means nothing to a bind mount; ignored",
                options.data.join(",")
            ));
        }
        let prepared = (situation.prepare || idmap.is_some()).then(|| {
            prepare.push(Prepare { source: source.clone(), recursive, links: options.links, idmap });
            prepare.len() - 1
        });
        What::Bind { source, recursive, prepared, links: options.links }
    } else {
        check.that(!kind.is_empty(), &format!("{pointer}/type"), || {
            "is missing, and it is no bind mount".into()
        });
        check.that(idmap.is_none(), &format!("{pointer}/options"), || {
            "only a bind mount can be idmapped".into()
        });
        new_file_system(&kind, &source, &mut options, linux, facts, situation)
    };
    Some(Mount {
        target: clean(mount.destination()),
        what,
        set: options.set,
        clear: options.clear,
        set_recursive: options.set_recursive,
        clear_recursive: options.clear_recursive,
        propagation: options.propagation,
    })
}

fn new_file_system(
    kind: &str,
    source: &Path,
    options: &mut Options,
    linux: &Linux,
    facts: &Facts,
    situation: &Situation,
) -> What {
    let mut data = std::mem::take(&mut options.data);
    if kind == "cgroup" && !situation.old_controllers.is_empty() {
        return What::Cgroups {
            controllers: situation.old_controllers.clone(),
            namespaced: situation.own_cgroup_namespace,
        };
    }
    // runc's name for whatever cgroup file system the host has.
    let kind = if kind == "cgroup" { "cgroup2" } else { kind };
    if kind == "cgroup2" {
        data.clear();
    }
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty() && facts.selinux);
    if let Some(label) = label.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup2")) {
        data.push(format!("{}={label}", situation.context));
    }
    What::New {
        kind: kind.into(),
        source: source.to_string_lossy().into_owned(),
        data,
        flags: options.flags,
        copy_up: options.copy_up,
    }
}

/// By which mappings the owners of a mount are shifted, if at all (runtime-spec config.md, "uidMappings" of a mount).
fn idmap(
    mount: &OciMount,
    options: &Options,
    pointer: &str,
    linux: &Linux,
    check: &mut Check,
) -> Option<Idmap> {
    let own = |list: &Option<Vec<LinuxIdMapping>>| list.clone().unwrap_or_default();
    let mut maps = IdMaps { uids: own(mount.uid_mappings()), gids: own(mount.gid_mappings()) };
    check.that(maps.uids.is_empty() == maps.gids.is_empty(), &format!("{pointer}/uidMappings"), || {
        "uidMappings and gidMappings must both be given, or neither".into()
    });
    let recursive = options.idmap.as_ref().is_some_and(|idmap| idmap.recursive);
    if let Some(idmap) = &options.idmap
        && !(idmap.users.is_empty() && idmap.groups.is_empty())
    {
        let mut ranges = |list: &[options::Range], namespace: &Option<Vec<LinuxIdMapping>>| {
            let namespace = namespace.as_deref().unwrap_or_default();
            let ranges = list.iter().flat_map(|range| match range.relative {
                true => relative_to(range, namespace),
                false => vec![Some((range.file, range.host, range.count))],
            });
            let ranges: Option<Vec<_>> = ranges.collect();
            check.that(ranges.is_some(), &format!("{pointer}/options"), || {
                "an idmap range with @ has ids that the container's user namespace does not map".into()
            });
            ranges.unwrap_or_default().into_iter().map(id_mapping).collect()
        };
        maps.uids = ranges(&idmap.users, linux.uid_mappings());
        maps.gids = ranges(&idmap.groups, linux.gid_mappings());
    }
    if !maps.uids.is_empty() {
        return Some(Idmap::Own { maps, recursive });
    }
    options.idmap.as_ref()?;
    let new_user = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|found| found.typ() == LinuxNamespaceType::User && validate::is_new(found));
    check.that(new_user, &format!("{pointer}/options"), || {
        "idmap without mappings needs a new user namespace in /linux/namespaces".into()
    });
    Some(Idmap::Container { recursive })
}

fn id_mapping((inside, outside, size): (u32, u32, u32)) -> LinuxIdMapping {
    let builder = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size);
    builder.build().unwrap_or_default()
}

/// A range whose second ids are those of the container's user namespace, as ranges of ids outside: one for each
/// mapping that has a part of it, and `None` for ids that no mapping has.
fn relative_to(range: &options::Range, namespace: &[LinuxIdMapping]) -> Vec<Option<(u32, u32, u32)>> {
    let (mut file, mut id, mut left) = (range.file, range.host, range.count);
    let mut ranges = Vec::new();
    while left > 0 {
        let has =
            |map: &&LinuxIdMapping| id.checked_sub(map.container_id()).is_some_and(|at| at < map.size());
        let Some(map) = namespace.iter().find(has) else { return vec![None] };
        let at = id - map.container_id();
        let count = left.min(map.size() - at);
        ranges.push(Some((file, map.host_id().wrapping_add(at), count)));
        (file, id, left) = (file.wrapping_add(count), id.wrapping_add(count), left - count);
    }
    ranges
}

fn devices(linux: &Linux, situation: &Situation, check: &mut Check) -> Vec<Device> {
    let bind = situation.user_namespace;
    let mut devices: Vec<Device> = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let pointer = format!("/linux/devices/{index}");
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                check.problem(format!("{pointer}/type"), "a is for rules only: use b, c, u or p");
                continue;
            }
        };
        let number = |value: i64| u32::try_from(value).ok();
        let (Some(major), Some(minor)) = (number(device.major()), number(device.minor())) else {
            check.problem(&pointer, "major and minor must not be below 0");
            continue;
        };
        devices.push(Device {
            path: clean(device.path()),
            kind,
            major,
            minor,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            bind: bind && kind != libc::S_IFIFO,
        });
    }
    for (path, major, minor) in device::DEFAULTS {
        if !devices.iter().any(|device| device.path == Path::new(path)) {
            let (path, kind) = (PathBuf::from(path), libc::S_IFCHR);
            devices.push(Device {
                path,
                kind,
                major: *major,
                minor: *minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
                bind,
            });
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    /// crun.1, `idmap`: with `@` the second id is one of the container's user namespace.
    #[test]
    fn relative_ranges_are_those_of_the_user_namespace() {
        let namespace = [(0, 1000, 1), (1, 100_000, 10), (20, 200_000, 5)].map(id_mapping);
        let check = |host, count, expected: &[Option<(u32, u32, u32)>]| {
            let range = options::Range { file: 50, host, count, relative: true };
            assert_eq!(relative_to(&range, &namespace), expected);
        };
        check(0, 1, &[Some((50, 1000, 1))]);
        check(0, 5, &[Some((50, 1000, 1)), Some((51, 100_000, 4))]);
        check(22, 3, &[Some((50, 200_002, 3))]);
        check(5, 10, &[None]);
    }
}
