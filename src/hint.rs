//! What a user can do about an error: the next step, printed below it.
//!
//! [`choose`] is a pure function of what was said and of facts about the host; most errors carry their next step in
//! their own words and get none here.

use crate::cli::Global;
use crate::output;
use crate::settings::Settings;
use ctr_isolation::sys::fs::programs;
use ctr_runtime::{Error, Status, Store};
use std::path::Path;

/// What is known where an error is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// What the program was called by.
    program: String,
    /// The names of all containers.
    names: Vec<String>,
    /// The state directory.
    root: String,
    is_root: bool,
    /// It was asked for at the door where there is no config.json.
    is_image_door: bool,
    /// The user's name or number.
    user: String,
    /// Whether newuidmap and newgidmap are there.
    has_helpers: bool,
    /// Controllers of cgroup v1 hide those of version 2.
    is_hybrid: bool,
    /// systemd runs the machine.
    has_systemd: bool,
    /// `kernel.unprivileged_userns_clone`, `kernel.apparmor_restrict_unprivileged_userns` and
    /// `user.max_user_namespaces`, where the kernel has them.
    userns_clone: Option<u64>,
    apparmor_restricts: Option<u64>,
    max_user_namespaces: Option<u64>,
}

/// The next step after `error`, where there is one that its own words do not name.
pub fn of(error: &anyhow::Error, flags: &Global, program: &str, is_image_door: bool) -> Option<String> {
    let facts = Facts { is_image_door, ..Facts::read(flags, program) };
    choose(&output::chain(error), error.downcast_ref(), &facts)
}

fn choose(text: &str, kind: Option<&Error>, facts: &Facts) -> Option<String> {
    let has = |part: &str| text.contains(part);
    let program = &facts.program;
    match kind {
        Some(Error::NotFound(id)) => return Some(not_found(id, facts)),
        Some(Error::Exists(id)) => {
            return Some(format!("choose another name, or remove that one: `{program} delete --force {id}`"));
        }
        Some(Error::WrongStatus { verb, id, status, .. }) => return wrong_status(verb, id, *status, program),
        _ => {}
    }
    if has("exec: ") {
        return not_executed(text);
    }
    let hint = match () {
        () if has("clone3(") || has("_map: operation not permitted") => return user_namespace(facts),
        () if has("nobody outside") || has("newuidmap") || has("newgidmap") => ids(facts),
        () if has("hands no controller down") => return None,
        () if has("needs the cgroup controller") => controller(text, facts),
        () if has("make cgroup") && has("permission denied") => delegation(facts),
        () if has("read the configuration") && has("no such file") => {
            format!("a bundle is a directory with a config.json, named by --bundle; `{program} spec` writes one")
        }
        () if has("/process/terminal") && has("`exec`") => {
            "leave out --detach to have the terminal here, or --tty to do without".to_owned()
        }
        () if has("/process/terminal") => {
            "or set \"terminal\": false below \"process\" in config.json, if no terminal is needed".to_owned()
        }
        () if has("open the cgroup") && has("no such file") => {
            "it must have been made below the container's own, by the container or in its place".to_owned()
        }
        () if has("has no user") || has("has no group") => {
            "name an account of the container's /etc/passwd and /etc/group, or give numbers".to_owned()
        }
        () if has("mount the root file system") && has("no such file") => {
            "root.path of config.json, which is relative to the bundle, must be there".to_owned()
        }
        () if has("fsopen(") && has("no such device") => {
            "the kernel has no such file system, or not loaded its module: /proc/filesystems lists those it has".to_owned()
        }
        () if has("console socket") => {
            "whoever wants the terminal (an engine, or runc's recvtty) must listen on that socket first".to_owned()
        }
        () if has("seccomp profile") => {
            "a profile is a JSON object as of Docker or podman, with defaultAction and syscalls; `--security-opt \
             seccomp=default` is the built-in one"
                .to_owned()
        }
        () if has("cpuset") && has("no space left on device") => {
            "the cgroup has no processor, or no memory node, that a process could run on: name some with --cpuset-cpus \
             and --cpuset-mems"
                .to_owned()
        }
        () if has("no space left on device") => {
            "`df` and `df -i` tell which file system is full; CTR_STORE and --root name places on another".to_owned()
        }
        () if has("state directory") || facts.root.starts_with('/') && has(&facts.root) => {
            format!("the state directory is {}: choose another with --root or CTR_ROOT", facts.root)
        }
        () if has("inotify_init") && has("too many open files") => {
            "raise the number of watches a user may have: `sysctl fs.inotify.max_user_instances=1024`".to_owned()
        }
        () if has("mount proc on /proc") && has("operation not permitted") => {
            "where we are, parts of /proc are hidden, as in another container: start that one with its /proc unmasked \
             (podman, Docker: --security-opt systempaths=unconfined)"
                .to_owned()
        }
        () if has("CRIU could not save") && has("Connected TCP socket") => {
            "--tcp-established takes connections along, now and on restore".to_owned()
        }
        () if has("CRIU could not save") => {
            format!("`{program} checkpoint --check ID` names what is in the way, and what to do about it")
        }
        () if has("unknown signal") => "a signal is a number or a name, as in `kill -l`: TERM, SIGKILL, 9".to_owned(),
        () if has("is not a capability") || has("unknown capability") => {
            "capabilities are named as in capabilities(7), with or without CAP_: NET_ADMIN, CAP_SYS_PTRACE".to_owned()
        }
        () if has("open_tree(\"") && has("operation not permitted") => {
            "an ordinary user cannot bind the host's files into a container that runs: name them when it is made".to_owned()
        }
        () if has("open_tree(\"") && has("no such file") => {
            "what is to be mounted must be there first: make the directory, or correct its path".to_owned()
        }
        () => return None,
    };
    Some(hint)
}

fn not_found(id: &str, facts: &Facts) -> String {
    let program = &facts.program;
    let near = facts.names.iter().map(|name| (crate::settings::distance(id, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + id.len() / 4 => format!("did you mean {name:?}?"),
        Some(_) => format!("`{program} list` names the containers there are"),
        None if facts.root.is_empty() => format!("`{program} list` names the containers there are"),
        None => format!(
            "there is none in {}; other users, and other --root directories, have their own",
            facts.root
        ),
    }
}

fn wrong_status(verb: &str, id: &str, status: Status, program: &str) -> Option<String> {
    let step = match (verb, status) {
        ("delete", _) => format!("`{program} delete --force {id}` ends it first"),
        ("start" | "exec in", Status::Stopped) => {
            format!(
                "what ran from an image starts anew with `{program} restart {id}`; a bundle is created anew"
            )
        }
        ("exec in", Status::Paused) => format!("`{program} resume {id}` lets it go on"),
        (_, Status::Creating) => {
            format!("it is being made; if whoever made it was killed: `{program} delete --force {id}`")
        }
        _ => return None,
    };
    Some(step)
}

/// The program of a container could not be executed.
fn not_executed(text: &str) -> Option<String> {
    let hint = if text.contains("executable file not found") {
        "it was looked for in the container, along the PATH of the container's environment"
    } else if text.contains("no such file or directory") {
        "the path is one in the container; a script's interpreter, or the loader of a program, must be there too"
    } else if text.contains("exec format error") {
        "it is neither a program for this machine's processor nor a script that begins with #!"
    } else if text.contains("permission denied") {
        "the container's user must have the right to execute it, and its mount must not be noexec"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn user_namespace(facts: &Facts) -> Option<String> {
    let setting = match facts {
        Facts { max_user_namespaces: Some(0), .. } => "user.max_user_namespaces=15000",
        Facts { is_root: true, .. } => return None,
        Facts { userns_clone: Some(0), .. } => "kernel.unprivileged_userns_clone=1",
        Facts { apparmor_restricts: Some(1), .. } => "kernel.apparmor_restrict_unprivileged_userns=0",
        _ => return None,
    };
    Some(format!("this host keeps ordinary users from user namespaces; root allows them: `sysctl {setting}`"))
}

fn ids(facts: &Facts) -> String {
    if !facts.has_helpers {
        return "newuidmap(1) and newgidmap(1) map more than one's own id: `apt install uidmap`".to_owned();
    }
    format!(
        "root gives a user more ids: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}`",
        facts.user
    )
}

/// Controllers that systemd does not know, and so delegates to nobody.
const NEVER_DELEGATED: [&str; 3] = ["hugetlb", "rdma", "misc"];

fn controller(text: &str, facts: &Facts) -> String {
    if facts.is_hybrid {
        return "this host has its controllers in cgroup v1; booted with systemd.unified_cgroup_hierarchy=1 it has them in \
                version 2"
            .to_owned();
    }
    if facts.is_root {
        let or = if facts.is_image_door { "" } else { ", or choose another cgroupsPath" };
        return format!(
            "enable it in cgroup.subtree_control of the cgroups above{or}; `{} doctor` tells more",
            facts.program
        );
    }
    let is_named = |name: &&&str| text.contains(&format!("controller {name},"));
    if let Some(name) = NEVER_DELEGATED.iter().find(is_named) {
        return format!("systemd delegates {name} to nobody: only root can set this limit");
    }
    delegation(facts)
}

fn delegation(facts: &Facts) -> String {
    let program = &facts.program;
    match facts.has_systemd {
        true => format!(
            "an ordinary user needs a cgroup of its own: `systemd-run --user --scope -p Delegate=yes {program} ...` gives one"
        ),
        false => format!(
            "an ordinary user needs a cgroup of its own, and root can give one: `{program} doctor` tells how"
        ),
    }
}

impl Facts {
    fn read(flags: &Global, program: &str) -> Facts {
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let (uid, _) = ctr_isolation::sys::process::effective_ids();
        let root = Settings::read(flags).map(|settings| settings.root).unwrap_or_default();
        let is_there = |name: &str| programs(name).next().is_some();
        Facts {
            program: program.to_owned(),
            names: Store::new(&root).list().unwrap_or_default(),
            root: root.display().to_string(),
            is_root: uid == 0,
            is_image_door: false,
            user: std::env::var("USER").unwrap_or_else(|_| uid.to_string()),
            has_helpers: is_there("newuidmap") && is_there("newgidmap"),
            is_hybrid: ctr_isolation::cgroup::Hierarchy::find().is_none_or(|found| !found.unified)
                && Path::new("/sys/fs/cgroup").is_dir(),
            has_systemd: Path::new("/run/systemd/system").is_dir(),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            program: "ctr".into(),
            names: ["web", "database"].map(str::to_owned).to_vec(),
            root: "/run/ctr".into(),
            user: "alice".into(),
            has_helpers: true,
            has_systemd: true,
            ..Facts::default()
        }
    }

    fn hint(text: &str, facts: &Facts) -> String {
        choose(text, None, facts).unwrap_or_default()
    }

    #[test]
    fn a_name_that_is_near_is_told() {
        let of = |id: &str, facts: &Facts| choose("", Some(&Error::NotFound(id.into())), facts).unwrap();
        assert_eq!(of("wed", &facts()), "did you mean \"web\"?");
        assert_eq!(of("databse", &facts()), "did you mean \"database\"?");
        assert_eq!(of("mail", &facts()), "`ctr list` names the containers there are");
        assert!(of("x", &Facts { names: Vec::new(), ..facts() }).contains("none in /run/ctr"));
    }

    /// What this machine cannot be brought to say.
    #[test]
    fn what_keeps_a_user_from_user_namespaces_is_named() {
        let text = "make the container's first process: clone3(0x7c020000): operation not permitted";
        for (facts, part) in [
            (Facts { userns_clone: Some(0), ..facts() }, "kernel.unprivileged_userns_clone=1"),
            (Facts { apparmor_restricts: Some(1), ..facts() }, "apparmor_restrict_unprivileged_userns=0"),
            (
                Facts { max_user_namespaces: Some(0), is_root: true, ..facts() },
                "user.max_user_namespaces=15000",
            ),
        ] {
            assert!(hint(text, &facts).contains(part), "{}", hint(text, &facts));
        }
        assert_eq!(hint(text, &Facts { is_root: true, userns_clone: Some(0), ..facts() }), "");
        let mapped = "write \"0 1000 1\" to /proc/7/uid_map: operation not permitted";
        assert!(hint(mapped, &Facts { apparmor_restricts: Some(1), ..facts() }).contains("apparmor"));
    }

    #[test]
    fn what_a_user_needs_for_more_ids_is_told() {
        let text = "user 33 of the container is nobody outside: it needs a larger range in /etc/subuid";
        assert!(hint(text, &facts()).ends_with("--add-subgids 100000-165535 alice`"));
        assert!(hint(text, &Facts { has_helpers: false, ..facts() }).contains("apt install uidmap"));
        assert!(
            hint("start newuidmap: no such file or directory", &Facts { has_helpers: false, ..facts() })
                .contains("apt")
        );
    }

    #[test]
    fn where_controllers_come_from_depends_on_the_host() {
        let text = "write \"1\" to memory.max: the limit needs the cgroup controller memory, which is not available here";
        assert!(hint(text, &Facts { is_hybrid: true, ..facts() }).contains("unified_cgroup_hierarchy"));
        assert!(hint(text, &facts()).contains("systemd-run --user"));
        let root = Facts { is_root: true, ..facts() };
        assert!(hint(text, &root).contains("subtree_control") && hint(text, &root).contains("cgroupsPath"));
        assert!(!hint(text, &Facts { is_image_door: true, ..root }).contains("cgroupsPath"));
        let pages = text.replace("controller memory", "controller hugetlb");
        assert!(hint(&pages, &facts()).contains("only root"), "systemd-run would not help");
        assert!(hint("make cgroup /sys/fs/cgroup/x: permission denied", &facts()).contains("Delegate=yes"));
    }

    #[test]
    fn common_mishaps() {
        for (text, part) in [
            ("watch /x: inotify_init1(): too many open files", "max_user_instances"),
            ("write /var/lib/x: no space left on device", "df -i"),
            ("mount proc on /proc: fsmount(): operation not permitted", "unmasked"),
            ("make the state directory /run/ctr: permission denied", "--root"),
        ] {
            assert!(hint(text, &facts()).contains(part), "{text}: {}", hint(text, &facts()));
        }
        assert_eq!(hint("something else", &facts()), "");
    }
}
