//! The store: whether its file system carries layers, shifts owners, and holds projects to a quota.

use std::{
    fs, io,
    os::{
        fd::AsFd,
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use ctr_isolation::{
    Context, Error, Result,
    attempt::{attempt, map_root},
    mountinfo::{self, Point},
    sys::{
        fs::{O_DIRECTORY, O_RDWR, chdir, fd_path, open, statat},
        mount::{self, Change, FsContext, attr},
        quota,
    },
};

use super::{
    Finding,
    host::{Host, quote, read},
    namespaces::{allow, is_about_namespaces},
};
use crate::scratch::Scratch;

pub(super) fn probe(host: &Host, scratch: &io::Result<Scratch>) -> Vec<Finding> {
    let tried = format!("made a directory in {} and removed it", host.store.display());
    let scratch = match scratch {
        Ok(scratch) => scratch.path(),
        Err(error) => return vec![unusable(host, tried, error), loops(host), fuse(host)],
    };
    let Point { kind, source, target, .. } = mount_of(scratch);
    let point = target.display();
    let found = format!("{} on {kind} ({source} at {point})", host.store.display());
    vec![
        Finding::ok("directory", tried, found),
        overlay(host, scratch, &kind),
        idmap(host, scratch, &kind),
        quotas(host, scratch),
        loops(host),
        fuse(host),
    ]
}

fn unusable(host: &Host, tried: String, error: &io::Error) -> Finding {
    let mend = match host.store.as_os_str().is_empty() {
        true => "export HOME=$(getent passwd $(id -u) | cut -d: -f6)".to_owned(),
        false => format!("export CTR_STORE={}", quote(&elsewhere(host))),
    };
    let loses = "run --image, and the log of detached containers";
    Finding::problem("directory", tried, "nothing can be kept there", loses, mend).because(error)
}

/// A place for the store that the caller most likely can write to.
fn elsewhere(host: &Host) -> String {
    format!("/var/tmp/ctr-{}", host.facts.uid)
}

/// The mount that a file is on.
fn mount_of(path: &Path) -> Point {
    let id = open(path, O_DIRECTORY).ok().and_then(|dir| mountinfo::mount_of(dir.as_fd()));
    let points = mountinfo::points("self").unwrap_or_default();
    points.into_iter().find(|point| Some(point.id) == id).unwrap_or_default()
}

fn overlay(host: &Host, scratch: &Path, kind: &str) -> Finding {
    let tried = format!(
        "mounted an overlay with all its layers in {}, and wrote, removed and replaced in it",
        scratch.display()
    );
    let dir = scratch.join("overlay");
    let mut options = vec![("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")];
    if !host.is_root() || host.facts.in_user_namespace {
        options.push(("userxattr", ""));
    }
    let kinds = host.namespaces(libc::CLONE_NEWNS);
    let result = make_layers(&dir)
        .and_then(|()| attempt(kinds, None, |pid| host.map(kinds, pid), || use_overlay(&dir, &options)));
    // The kernel makes it so that nobody may look in, whoever may remove it.
    let _ = fs::set_permissions(dir.join("work/work"), fs::Permissions::from_mode(0o700));
    match result {
        Ok(_) => Finding::ok("overlay", tried, format!("works on {kind}")),
        Err(error) => {
            let loses = "copy-on-write: containers of images could not write to their root file systems";
            let mend = other_place(host, kind, &error);
            Finding::problem("overlay", tried, format!("does not work on {kind}"), loses, mend).because(error)
        }
    }
}

fn make_layers(dir: &Path) -> Result<()> {
    let make = || {
        for name in ["lower/replaced", "upper", "work"] {
            fs::create_dir_all(dir.join(name))?;
        }
        fs::write(dir.join("lower/removed"), "")?;
        fs::write(dir.join("lower/replaced/file"), "")
    };
    make().doing(|| format!("make layers in {}", dir.display()))
}

/// Mounts the overlay, for this process alone, and does what makes each kind of mark in the upper layer.
fn use_overlay(dir: &Path, options: &[(&str, &str)]) -> Result<String> {
    // Relative names: in those of the store ':' and ',' would divide.
    chdir(dir)?;
    let overlay = FsContext::open("overlay")?;
    for (key, value) in options {
        if value.is_empty() { overlay.flag(key)? } else { overlay.set(key, value)? }
    }
    let mount = overlay.mount(0)?;
    let inside = fd_path(mount.as_fd());
    fs::write(inside.join("written"), "x").doing(|| "write a file in it")?;
    fs::remove_file(inside.join("removed")).doing(|| "remove a file of the layer below")?;
    fs::remove_dir_all(inside.join("replaced")).doing(|| "remove a directory of the layer below")?;
    fs::create_dir(inside.join("replaced")).doing(|| "make it anew")?;
    let left = fs::read_dir(inside.join("replaced")).doing(|| "read it")?.count();
    if left > 0 || inside.join("removed").exists() {
        return Err(Error::new("what was removed is still there"));
    }
    Ok(String::new())
}

/// Makes the file for a file system that is mounted on the store, which must not hide what is there.
fn image(host: &Host) -> String {
    let store = host.store.display();
    format!("mkdir -p {store} && rmdir {store} && mkdir {store} && truncate -s 20G {store}.img")
}

/// Puts the store on another file system, if it is the file system that `error` is about.
fn other_place(host: &Host, kind: &str, error: &Error) -> String {
    let store = host.store.display();
    if is_about_namespaces(error) {
        return allow(host, error);
    }
    match (kind, host.container.as_deref()) {
        ("overlay", Some(engine)) => format!("{engine} run --volume ctr-store:{store} ..."),
        _ if host.is_root() => {
            format!("{} && mkfs.ext4 -q {store}.img && mount -o loop {store}.img {store}", image(host))
        }
        _ => format!("export CTR_STORE={}", quote(&elsewhere(host))),
    }
}

/// To whom root shifts the files of user 0.
const SHIFTED: u32 = 100_000;

fn idmap(host: &Host, scratch: &Path, kind: &str) -> Finding {
    let tried = format!("shifted the owners of a mount of {}", scratch.display());
    let loses = "volumes with idmap, and one image shared by containers with ids of their own";
    let is_root = host.is_root() && !host.facts.in_user_namespace;
    match shift(host, scratch, is_root) {
        Ok(()) => Finding::ok("idmap", tried, format!("works on {kind}")),
        Err(error) if is_root => {
            let mend = other_place(host, kind, &error);
            Finding::warning("idmap", tried, format!("does not work on {kind}"), loses, Some(mend))
                .because(error)
        }
        // The kernel wants root of the user namespace in which the file system was mounted.
        Err(error) => {
            let found = "root's alone, as on every file system that root has mounted";
            let mend = (!host.is_root()).then(|| host.as_root(&format!("{} run ...", host.program)));
            Finding::warning("idmap", tried, found, loses, mend).because(error)
        }
    }
}

/// Makes a mount of `scratch` in which a file has another owner.
fn shift(host: &Host, scratch: &Path, is_root: bool) -> Result<()> {
    let file = scratch.join("owned");
    fs::write(&file, "").doing(|| "make a file")?;
    let owner = fs::metadata(&file).doing(|| "look at a file")?.uid().to_string();
    let own = (host.facts.uid, host.facts.gid);
    let (uid, gid) = if is_root { (SHIFTED, SHIFTED) } else { own };
    let mut namespace: Option<OwnedFd> = None;
    let map = |pid: i32| {
        map_root(pid, uid, gid)?;
        namespace = Some(open(Path::new(&format!("/proc/{pid}/ns/user")), 0)?);
        Ok(())
    };
    attempt(libc::CLONE_NEWUSER, None, map, || Ok(String::new()))?;
    let look = || {
        let tree = mount::open_tree(None, scratch, false)?;
        let idmap = namespace.as_ref().map(AsFd::as_fd);
        mount::set_attributes(tree.as_fd(), Change { set: attr::IDMAP, idmap, ..Change::default() })?;
        Ok(statat(tree.as_fd(), Path::new("owned"))?.uid.to_string())
    };
    let kinds = libc::CLONE_NEWNS | if is_root { 0 } else { libc::CLONE_NEWUSER };
    let enter = |pid| if is_root { Ok(()) } else { map_root(pid, own.0, own.1) };
    let shifted = attempt(kinds, None, enter, look)?;
    if shifted == owner {
        return Err(Error::new(format!("the owner is still {owner}")));
    }
    Ok(())
}

fn quotas(host: &Host, scratch: &Path) -> Finding {
    let Point { kind, source, target, .. } = mount_of(scratch);
    let point = target.to_string_lossy();
    let loses = "limits of the disk space and the files of a container or zone";
    if kind == "btrfs" {
        let tried = "looked for qgroups of the file system in /sys/fs/btrfs";
        return match has_qgroups(&source) {
            true => Finding::ok("quota", tried, "btrfs qgroups"),
            false => {
                let mend = host.as_root(&format!("btrfs quota enable {point}"));
                Finding::warning("quota", tried, "btrfs without qgroups", loses, Some(mend))
            }
        };
    }
    let tried = format!("asked for project quota of the {kind} at {point}");
    let state = open(scratch, O_DIRECTORY).and_then(|dir| quota::state(dir.as_fd()));
    let none = format!("none on this {kind}");
    // Whoever is in a container mounts no devices.
    let mend = host.container.is_none().then(|| with_quota(host, &kind, &source, &point));
    match state {
        Ok(on) if on & quota::PROJECT_ENFORCED != 0 => {
            Finding::ok("quota", tried, format!("project quota of {kind}"))
        }
        Ok(on) if on & quota::PROJECT_COUNTED != 0 => Finding::warning(
            "quota",
            tried,
            format!("project quota of {kind} are counted, not enforced"),
            loses,
            mend,
        ),
        Ok(_) => Finding::warning("quota", tried, none, loses, mend),
        Err(error) => Finding::warning("quota", tried, none, loses, mend).because(error),
    }
}

/// Whether the btrfs with the device `source` has qgroups.
fn has_qgroups(source: &str) -> bool {
    let name = Path::new(source).file_name().unwrap_or_default();
    let all = fs::read_dir("/sys/fs/btrfs").into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|fs| fs.join("devices").join(name).exists()).any(|fs| fs.join("qgroups").is_dir())
}

/// Gives the store quota: project quota on its own file system where that can be mounted anew, else a file system in a
/// file.
fn with_quota(host: &Host, kind: &str, source: &str, point: &str) -> String {
    let store = host.store.display();
    let image = image(host);
    let command = match (kind, point) {
        ("ext4", point) if point != "/" && has_quota_format() => format!(
            "umount {point} && tune2fs -O project,quota -Q prjquota {source} && mount -o prjquota {source} {point}"
        ),
        ("xfs", point) if point != "/" => format!("umount {point} && mount -o prjquota {source} {point}"),
        ("xfs", _) => return host.boot_with("rootflags=prjquota"),
        _ if has_quota_format() => {
            format!(
                "{image} && mkfs.ext4 -q -O project,quota -E quotatype=prjquota {store}.img && mount -o \
                     loop,prjquota {store}.img {store}"
            )
        }
        _ => format!(
            "{image} && mkfs.btrfs -q {store}.img && mount -o loop {store}.img {store} && btrfs quota enable {store}"
        ),
    };
    host.as_root(&command)
}

/// Whether the kernel has the module by which ext4 keeps quota.
fn has_quota_format() -> bool {
    let modules = format!("/lib/modules/{}", read("/proc/sys/kernel/osrelease").trim());
    let lists = ["modules.builtin", "modules.dep"].map(|name| Path::new(&modules).join(name));
    lists.iter().any(|list| fs::read_to_string(list).is_ok_and(|text| text.contains("/quota_v2.ko")))
}

fn loops(host: &Host) -> Finding {
    let tried = "opened /dev/loop-control";
    match open(Path::new("/dev/loop-control"), O_RDWR) {
        Ok(_) => Finding::ok("loop", tried, "can be used"),
        // As it should be: they are root's.
        Err(error) if error.errno == libc::EACCES => Finding::ok("loop", tried, "can be used by root"),
        Err(error) => {
            let loses = "disk images as root file systems, and quota on a file system in a file";
            let mend = device(host, "/dev/loop-control", "modprobe loop");
            Finding::warning("loop", tried, "cannot be used", loses, Some(mend)).because(error)
        }
    }
}

fn fuse(host: &Host) -> Finding {
    let tried = "opened /dev/fuse";
    match open(Path::new("/dev/fuse"), O_RDWR) {
        Ok(_) => Finding::ok("fuse", tried, "can be used"),
        Err(error) => {
            let loses = "file systems that programs in containers and zones make";
            let command = if error.errno == libc::EACCES { "chmod a+rw /dev/fuse" } else { "modprobe fuse" };
            let mend = device(host, "/dev/fuse", command);
            Finding::warning("fuse", tried, "cannot be used", loses, Some(mend)).because(error)
        }
    }
}

/// Gives us a device: from outside where we are in a container, else by `command`.
fn device(host: &Host, path: &str, command: &str) -> String {
    match host.container.as_deref() {
        Some(engine) => format!("{engine} run --device {path} ..."),
        None => host.as_root(command),
    }
}
