//! What holds for any configuration, however hostile: nothing panics, and what becomes a plan is a sound one.

use ctr_isolation::cgroup::Hierarchy;
use ctr_isolation::mount::What;
use ctr_isolation::root::clean;
use ctr_isolation::seccomp::Filter;
use ctr_runtime::bundle::Bundle;
use ctr_runtime::container::parse_process;
use ctr_runtime::facts::{Delegated, Facts};
use ctr_runtime::plan::{self, Manager, Plan, Request, create, describe, exec};
use std::path::{Component, Path};

/// Facts of root's host, and of an ordinary user's.
pub(crate) fn facts(uid: u32) -> Facts {
    Facts {
        uid,
        gid: uid,
        in_user_namespace: false,
        setgroups_denied: false,
        hierarchy: Some(Hierarchy { mount: "/sys/fs/cgroup".into(), unified: true }),
        own_cgroup: "/user.slice/session".into(),
        v1: Default::default(),
        delegated: if uid == 0 { Delegated::Beside } else { Delegated::Below },
        systemd: true,
        last_capability: 40,
        capabilities: if uid == 0 { (1 << 41) - 1 } else { 0 },
        apparmor: true,
        selinux: uid == 0,
    }
}

/// Reads `text` as a configuration and as a process for `exec`, and checks whatever plans come of it: how many.
pub(crate) fn configuration(text: &[u8]) -> usize {
    let (id, mut plans) = ("fuzzed", 0);
    for (uid, manager) in
        [(0, Manager::Cgroupfs), (0, Manager::Systemd), (1000, Manager::Auto), (1000, Manager::Systemd)]
    {
        let facts = facts(uid);
        let request = Request { id: id.into(), manager, has_console: true, ..Request::default() };
        let Ok(bundle) = Bundle::parse("/bundle".into(), text.to_vec()) else { break };
        if let Ok(plan) = create::create(&bundle, &request, &facts) {
            sound(&plan, uid);
            plans += 1;
        }
        let Some(process) = bundle.spec.process() else { continue };
        if let Ok(plan) = exec::exec(&bundle, process, 7, plan::ns::PID | plan::ns::MOUNT, &request, &facts) {
            sound(&plan, uid);
        }
    }
    // Refused or not: it does not panic.
    let _ = parse_process(text, "process.json");
    plans
}

fn sound(plan: &Plan, uid: u32) {
    assert!(!describe::steps(plan).is_empty());
    if let Some(rootfs) = &plan.init.rootfs {
        absolute(&rootfs.path);
        let masked = rootfs.masked.iter().chain(&rootfs.read_only_paths);
        let devices = rootfs.devices.iter().map(|device| &device.path);
        let targets = rootfs.mounts.iter().map(|mount| &mount.target);
        masked.chain(devices).chain(targets).for_each(|path| absolute(path));
        for mount in &rootfs.mounts {
            if let What::Bind { prepared: Some(index), .. } = mount.what {
                assert!(index < plan.launch.prepare.len(), "a mount that nobody prepares");
            }
        }
        assert!(rootfs.prepared.is_none_or(|index| index < plan.launch.prepare.len()));
    }
    if let Some(cgroup) = &plan.cgroup {
        absolute(&cgroup.path);
        assert!(cgroup.device_filter.is_none() || uid == 0, "only root can load a device filter");
        for (file, _) in &cgroup.files {
            let good = file
                .split('|')
                .all(|name| name.contains('.') && !name.contains('/') && !name.starts_with("cgroup."));
            assert!(good, "{file:?} is no file of a controller");
        }
        if let Some(unit) = &cgroup.unit {
            assert!(unit.slice.ends_with(".slice") && !unit.slice.contains('/'), "{:?}", unit.slice);
        }
    }
    for (file, _) in &plan.init.sysctl {
        assert!(
            !file.split('/').any(|part| matches!(part, "" | "." | "..")),
            "{file:?} is no kernel parameter"
        );
    }
    if let Some(filter) = &plan.init.filter {
        acceptable(filter);
    }
    let identity = &plan.init.identity;
    if let Some(sets) = identity.capabilities {
        assert_eq!(sets.effective & !sets.permitted, 0, "effective needs permitted (capset(2))");
        assert_eq!(
            sets.ambient & !(sets.permitted & sets.inheritable),
            0,
            "ambient needs both (capabilities(7))"
        );
    }
    assert!(!plan.init.program.args.iter().chain(&plan.init.program.env).any(|word| word.contains('\0')));
}

fn absolute(path: &Path) {
    assert!(path.is_absolute() && clean(path) == path, "{path:?} is not clean");
    assert!(!path.components().any(|part| part == Component::ParentDir), "{path:?} leads up");
}

/// What the kernel's own check demands of a filter (net/core/filter.c, bpf_check_classic).
fn acceptable(filter: &Filter) {
    const RETURN: u16 = 0x06;
    const JUMP: u16 = 0x05;
    let program = &filter.program;
    assert!(!program.is_empty() && program.len() <= 4096, "{} instructions", program.len());
    assert_eq!(program.last().map(|last| last.code), Some(RETURN), "the last instruction returns");
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            JUMP => assert!((instruction.k as usize) < left, "a jump out of the filter"),
            code if code & 7 == 5 => {
                let (then, otherwise) = (usize::from(instruction.jt), usize::from(instruction.jf));
                assert!(then < left && otherwise < left, "a jump out of the filter");
            }
            _ => {}
        }
    }
}
