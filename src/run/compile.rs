//! The configuration of a container from an image. Pure: the same input, the same config.json.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ctr_images::host::{HostImage, Lower};
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, Process, Root, RootBuilder, Spec, User,
    UserBuilder,
};

use super::{
    Accounts, Caller, IdRange, Request,
    accounts::Identity,
    devices::Node,
    mounts::{mount, options, shm_options},
    working_directory::{Appearance, appearance},
};
use crate::{
    cli::{SPEC_VERSION, run::Network},
    settings::{self, Settings},
};

/// The root file system a container starts from.
#[derive(Clone, Debug)]
pub struct RootFs<'a> {
    /// The directory.
    pub path: PathBuf,
    /// The image `host` it was made for, if it was.
    pub image: Option<&'a HostImage>,
    /// Upper and work directory for each of the image's lowers. Empty where an overlay cannot be: the lowers are
    /// then read-only.
    pub layers: Vec<(PathBuf, PathBuf)>,
    /// The layers of a stored image, the lowest first; what is written goes to the only one of `layers`.
    pub lowers: Vec<PathBuf>,
    /// Its users and groups.
    pub accounts: Accounts,
}

/// A configuration, and what the user should know of it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// config.json.
    pub spec: Spec,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Makes the configuration of what was asked for.
///
/// # Errors
/// When the user is not one of the container's, or has an id that the caller cannot map.
pub fn compile(
    request: &Request,
    rootfs: &RootFs<'_>,
    settings: &Settings,
    caller: &Caller,
) -> Result<Compiled> {
    let mut warnings = Vec::new();
    let identity = rootfs.accounts.find(request.user.as_deref().unwrap_or("0"))?;
    let ids = Ids::of(caller);
    ids.check(&identity)?;
    let directory = show_directory(request, rootfs, caller, &mut warnings);
    let mut spec = Spec::default();
    spec.set_version(SPEC_VERSION.to_owned())
        .set_root(Some(root(request, rootfs)?))
        .set_hostname(Some(request.hostname.clone()))
        .set_process(Some(process(request, &identity, directory.start)?))
        .set_mounts(Some(all_mounts(request, rootfs, &settings.run, caller, &ids, directory.bind)?))
        .set_hooks(request.devices.hooks())
        .set_annotations((!request.annotations.is_empty()).then(|| request.annotations.clone()))
        .set_linux(Some(linux(request, &settings.run, caller, &ids)?));
    Ok(Compiled { spec, warnings })
}

fn root(request: &Request, rootfs: &RootFs<'_>) -> Result<Root> {
    Ok(RootBuilder::default().path(rootfs.path.clone()).readonly(request.read_only).build()?)
}

fn process(request: &Request, identity: &Identity, directory: PathBuf) -> Result<Process> {
    let mut env = request.env.clone();
    env.entry("HOME".to_owned()).or_insert_with(|| identity.home.clone());
    let mut process = Process::default();
    process
        .set_terminal(Some(request.terminal))
        .set_user(user(identity, &request.devices.groups)?)
        .set_args(Some(request.args.clone()))
        .set_env(Some(env.iter().map(|(key, value)| format!("{key}={value}")).collect()))
        .set_cwd(directory)
        .set_capabilities(Some(request.capabilities.of_user(identity.uid)?))
        .set_rlimits((!request.rlimits.is_empty()).then(|| request.rlimits.clone()))
        .set_no_new_privileges(Some(request.security.no_new_privileges))
        .set_apparmor_profile(request.security.apparmor.clone())
        .set_selinux_label(request.security.label.clone());
    Ok(process)
}

fn user(identity: &Identity, more: &[u32]) -> Result<User> {
    let user = UserBuilder::default().uid(identity.uid).gid(identity.gid);
    let mut groups = identity.groups.clone();
    groups.extend(more);
    Ok(if groups.is_empty() { user.build()? } else { user.additional_gids(groups).build()? })
}

/// Where the program starts, and what is bound for it.
struct Directory {
    start: PathBuf,
    bind: Option<PathBuf>,
}

/// The caller's current directory appears at its own path, if it may: `-- ./my-test` then finds its program.
fn show_directory(
    request: &Request,
    rootfs: &RootFs<'_>,
    caller: &Caller,
    warnings: &mut Vec<String>,
) -> Directory {
    let (start, bind) = match appearance(caller) {
        _ if rootfs.image.is_none() => (None, None),
        Appearance::Present(directory) => (Some(directory), None),
        Appearance::Bound(directory) => (Some(directory.clone()), Some(directory)),
        Appearance::Refused(directory) => {
            warnings.push(format!(
                "the current directory {0} is not shown inside, since it holds what the image hides: \
                 to show it nevertheless, use --volume {0}:{0}",
                directory.display()
            ));
            (None, None)
        }
        Appearance::Unknown => (None, None),
    };
    let start = request.working_directory.clone().or(start).unwrap_or_else(|| PathBuf::from("/"));
    Directory { start, bind }
}

/// The mounts, in order: the kernel's file systems, the image's parts, what was asked for. Of two at one path
/// the later takes the other's place.
fn all_mounts(
    request: &Request,
    rootfs: &RootFs<'_>,
    defaults: &settings::Run,
    caller: &Caller,
    ids: &Ids,
    directory: Option<PathBuf>,
) -> Result<Vec<Mount>> {
    let mut all = Vec::new();
    if let Some((upper, work)) = rootfs.layers.first().filter(|_| !rootfs.lowers.is_empty()) {
        all.push(overlay(Path::new("/"), &rootfs.lowers, upper, work, caller)?);
    }
    all.extend(kernel_mounts(request, defaults, caller, ids)?);
    if let Some(image) = rootfs.image {
        all.extend(image_mounts(image, rootfs, caller, request.read_only)?);
    }
    if request.read_only {
        let places = ["/run", "/tmp", "/var/tmp"].map(Path::new).into_iter();
        for place in places.chain(request.volumes.iter().map(PathBuf::as_path)) {
            let words = options(&["nosuid", "nodev", "tmpcopyup"]);
            all.push(mount(place, "tmpfs", Path::new("tmpfs"), words)?);
        }
    }
    if let Some(directory) = directory {
        let words = options(&["rbind", "rprivate", "nosuid", "nodev", "rro"]);
        all.push(mount(&directory, "bind", &directory, words)?);
    }
    all.extend(request.devices.mounts.iter().cloned());
    if caller.needs_user_namespace() || caller.in_user_namespace {
        for node in &request.devices.nodes {
            all.push(node.bind()?);
        }
    }
    for asked in &request.mounts {
        all.retain(|earlier| earlier.destination() != asked.destination());
        all.push(asked.clone());
    }
    Ok(all)
}

/// The file systems of the kernel's that every container has.
fn kernel_mounts(
    request: &Request,
    defaults: &settings::Run,
    caller: &Caller,
    ids: &Ids,
) -> Result<Vec<Mount>> {
    let simple = |place: &str, kind: &str, words: &[&str]| {
        mount(Path::new(place), kind, Path::new(kind), options(words))
    };
    let mut pts = options(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    if ids.has_group(TTY) {
        pts.push(format!("gid={TTY}"));
    }
    Ok(vec![
        simple("/proc", "proc", &["nosuid", "noexec", "nodev"])?,
        simple("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"])?,
        mount(Path::new("/dev/pts"), "devpts", Path::new("devpts"), pts)?,
        simple("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount(Path::new("/dev/shm"), "tmpfs", Path::new("shm"), shm_options(defaults.shm_size))?,
        sys(request, caller)?,
        simple("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])?,
    ])
}

/// The group of terminals.
const TTY: u32 = 5;

/// sysfs shows a network namespace, and only who owns that may mount one: in the host's, an ordinary user can
/// but bind the host's.
fn sys(request: &Request, caller: &Caller) -> Result<Mount> {
    let owns_network =
        request.network == Network::None || !(caller.needs_user_namespace() || caller.in_user_namespace);
    let sys = Path::new("/sys");
    if owns_network {
        return mount(sys, "sysfs", Path::new("sysfs"), options(&["nosuid", "noexec", "nodev", "ro"]));
    }
    mount(sys, "bind", sys, options(&["rbind", "rslave", "nosuid", "noexec", "nodev", "rro"]))
}

/// The parts of the image `host`.
fn image_mounts(
    image: &HostImage,
    rootfs: &RootFs<'_>,
    caller: &Caller,
    read_only_root: bool,
) -> Result<Vec<Mount>> {
    let mut all = Vec::new();
    for (number, lower) in image.lowers.iter().enumerate() {
        let layer = rootfs.layers.get(number).filter(|_| !read_only_root);
        all.extend(lower_mounts(lower, layer, caller)?);
    }
    for (inside, source) in &image.binds {
        all.push(read_only(inside, source)?);
    }
    Ok(all)
}

/// A directory of the host's with a private layer on it.
///
/// Where something is mounted in it, the overlay would show what is beneath, which the kernel does not let an
/// ordinary user see: then there is no layer.
fn lower_mounts(lower: &Lower, layer: Option<&(PathBuf, PathBuf)>, caller: &Caller) -> Result<Vec<Mount>> {
    let is_user = caller.needs_user_namespace() || caller.in_user_namespace;
    let Some((upper, work)) = layer.filter(|_| !is_user || lower.mounts.is_empty()) else {
        return Ok(vec![read_only(&lower.destination, &lower.source)?]);
    };
    let lowers = std::slice::from_ref(&lower.source);
    let mut all = vec![overlay(&lower.destination, lowers, upper, work, caller)?];
    for point in &lower.mounts {
        let below = point.strip_prefix(&lower.source)?;
        all.push(read_only(&lower.destination.join(below), point)?);
    }
    Ok(all)
}

/// An overlay of `lowers`, the lowest first, with a layer of its own.
fn overlay(
    destination: &Path,
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    caller: &Caller,
) -> Result<Mount> {
    // overlayfs wants the uppermost first.
    let lowers: Vec<&str> = lowers.iter().rev().map(|path| layer_path(path)).collect::<Result<_>>()?;
    let mut words = vec![
        format!("lowerdir={}", lowers.join(":")),
        option_path("upperdir", upper)?,
        option_path("workdir", work)?,
    ];
    if caller.needs_user_namespace() || caller.in_user_namespace {
        words.push("userxattr".to_owned());
    }
    mount(destination, "overlay", Path::new("overlay"), words)
}

/// An option of overlay with a path, in which `:` and `,` would divide.
fn option_path(name: &str, path: &Path) -> Result<String> {
    Ok(format!("{name}={}", layer_path(path)?))
}

fn layer_path(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.contains([':', ',', '\\']));
    text.with_context(|| {
        format!("{path:?} cannot be a layer: name a store without colon, comma and backslash in its path")
    })
}

fn read_only(inside: &Path, source: &Path) -> Result<Mount> {
    mount(inside, "bind", source, options(&["rbind", "rprivate", "nodev", "rro"]))
}

fn linux(request: &Request, defaults: &settings::Run, caller: &Caller, ids: &Ids) -> Result<Linux> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(request, caller)?)
        .masked_paths(defaults.masked_paths.clone())
        .readonly_paths(defaults.readonly_paths.clone())
        .build()?;
    linux.set_seccomp(request.security.seccomp.clone()).set_resources(request.resources.clone());
    if caller.needs_user_namespace() {
        linux.set_uid_mappings(Some(ids.users.clone())).set_gid_mappings(Some(ids.groups.clone()));
    } else if !caller.in_user_namespace {
        let nodes = &request.devices.nodes;
        if !nodes.is_empty() {
            linux.set_devices(Some(nodes.iter().map(Node::device).collect::<Result<_>>()?));
        }
        linux.resources_mut().get_or_insert_default().set_devices(Some(device_rules(nodes)?));
    }
    Ok(linux)
}

/// No device but those every container has, and those that were asked for.
fn device_rules(nodes: &[Node]) -> Result<Vec<LinuxDeviceCgroup>> {
    let none = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?;
    std::iter::once(Ok(none)).chain(nodes.iter().map(Node::rule)).collect()
}

fn namespaces(request: &Request, caller: &Caller) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let kinds = [
        (Type::Pid, true),
        (Type::Network, request.network == Network::None),
        (Type::Ipc, true),
        (Type::Uts, true),
        (Type::Mount, true),
        (Type::Cgroup, true),
        (Type::User, caller.needs_user_namespace()),
    ];
    let wanted = kinds.into_iter().filter(|(_, wanted)| *wanted);
    wanted.map(|(kind, _)| Ok(LinuxNamespaceBuilder::default().typ(kind).build()?)).collect()
}

/// Which ids of the container are which outside.
#[derive(Clone, Debug, Default)]
struct Ids {
    /// Empty where every id there is, is one of the caller's.
    users: Vec<LinuxIdMapping>,
    groups: Vec<LinuxIdMapping>,
}

impl Ids {
    /// An ordinary user is root inside, and the ranges given to it are the others, from 1 on.
    fn of(caller: &Caller) -> Ids {
        if !caller.needs_user_namespace() {
            let same = |ranges: &[IdRange]| {
                ranges.iter().map(|range| id_mapping(range.first, range.first, range.count)).collect()
            };
            return Ids { users: same(&caller.uids), groups: same(&caller.gids) };
        }
        // newuidmap and newgidmap want ranges of both kinds; without them one id of each is all.
        let has_both = !caller.subuids.is_empty() && !caller.subgids.is_empty();
        let map = |own: u32, ranges: &[IdRange]| {
            let mut all = vec![id_mapping(0, own, 1)];
            let mut next = 1u32;
            for range in ranges.iter().filter(|_| has_both) {
                let count = range.count.min(u32::MAX - next);
                all.push(id_mapping(next, range.first, count));
                next += count;
            }
            all
        };
        Ids { users: map(caller.uid, &caller.subuids), groups: map(caller.gid, &caller.subgids) }
    }

    fn has_group(&self, gid: u32) -> bool {
        has(&self.groups, gid)
    }

    /// Refuses an identity that does not exist outside.
    fn check(&self, identity: &Identity) -> Result<()> {
        let groups = std::iter::once(&identity.gid).chain(&identity.groups);
        let missing = groups.map(|gid| ("group", "/etc/subgid", *gid, has(&self.groups, *gid)));
        let user = ("user", "/etc/subuid", identity.uid, has(&self.users, identity.uid));
        for (kind, file, id, is_mapped) in std::iter::once(user).chain(missing) {
            if !is_mapped {
                bail!("{kind} {id} of the container is nobody outside: it needs a larger range in {file}");
            }
        }
        Ok(())
    }
}

fn has(mappings: &[LinuxIdMapping], id: u32) -> bool {
    let is_in = |mapping: &LinuxIdMapping| {
        id.checked_sub(mapping.container_id()).is_some_and(|offset| offset < mapping.size())
    };
    mappings.is_empty() || mappings.iter().any(is_in)
}

fn id_mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
    // A builder of three numbers cannot fail.
    LinuxIdMappingBuilder::default()
        .container_id(container)
        .host_id(host)
        .size(size)
        .build()
        .unwrap_or_default()
}
