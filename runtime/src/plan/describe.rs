//! A plan in words: what `ctr plan` prints.

use crate::plan::validate::prestart;
use crate::plan::{Idmap, Plan, ns};
use ctr_isolation::mount::What;
use ctr_isolation::{capabilities, rlimit};
use oci_spec::runtime::Hook;
use serde::Serialize;

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When: `cgroup`, `launch`, `mounts`, `machine`, `identity`, `program`, ...
    pub phase: &'static str,
    /// What.
    pub what: String,
}

const NAMES: &[(i32, &str)] = &[
    (ns::USER, "user"),
    (ns::MOUNT, "mount"),
    (ns::PID, "pid"),
    (ns::NETWORK, "network"),
    (ns::IPC, "ipc"),
    (ns::UTS, "uts"),
    (ns::CGROUP, "cgroup"),
    (ns::TIME, "time"),
];

fn kinds(flags: i32) -> String {
    let names: Vec<&str> =
        NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    names.join(", ")
}

/// The steps of a plan, in order.
pub fn steps(plan: &Plan) -> Vec<Step> {
    let mut steps = Steps(Vec::new());
    cgroup(plan, &mut steps);
    launch(plan, &mut steps);
    rootfs(plan, &mut steps);
    machine(plan, &mut steps);
    identity(plan, &mut steps);
    program(plan, &mut steps);
    steps.0
}

struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, phase: &'static str, what: impl Into<String>) {
        self.0.push(Step { phase, what: what.into() });
    }

    fn hooks(&mut self, kind: &str, hooks: Option<&[Hook]>) {
        for hook in hooks.unwrap_or_default() {
            self.add("hooks", format!("run the {kind} hook {}", hook.path().display()));
        }
    }
}

fn cgroup(plan: &Plan, steps: &mut Steps) {
    let Some(cgroup) = &plan.cgroup else { return };
    match &cgroup.unit {
        Some(unit) => steps.add("cgroup", format!("have systemd start {} in {}", unit.name, unit.slice)),
        None => {
            if let Some(own) = &cgroup.make_room {
                steps.add("cgroup", format!("move the processes in {} into one below", own.display()));
            }
            steps.add("cgroup", format!("make {}", cgroup.path.display()));
        }
    }
    for (controller, path) in &cgroup.v1 {
        steps.add("cgroup", format!("make {} for {controller}, which is in version 1", path.display()));
    }
    for (file, value) in &cgroup.files {
        steps.add("cgroup", format!("write {value:?} to {file}"));
    }
    if let Some(filter) = &cgroup.device_filter {
        steps.add("cgroup", format!("attach a device filter of {} instructions", filter.len()));
    }
}

fn launch(plan: &Plan, steps: &mut Steps) {
    let launch = &plan.launch;
    if launch.new != 0 {
        steps.add("launch", format!("make a process in new namespaces: {}", kinds(launch.new)));
    }
    for (kind, path) in &launch.join {
        steps.add("launch", format!("join the {} namespace {}", kinds(*kind), path.display()));
    }
    if let Some((pid, flags)) = launch.join_process {
        steps.add("launch", format!("join the namespaces of process {pid}: {}", kinds(flags)));
    }
    for (name, maps) in launch.ids.iter().flat_map(|ids| [("user", &ids.uids), ("group", &ids.gids)]) {
        for map in maps {
            let (inside, outside, size) = (map.container_id(), map.host_id(), map.size());
            steps.add("launch", format!("map {size} {name} ids from {inside} inside to {outside} outside"));
        }
    }
    if let Some(score) = launch.oom_score_adj {
        steps.add("launch", format!("set the out-of-memory score to {score}"));
    }
    if let Some(cpus) = &launch.affinity {
        steps.add("launch", format!("begin on the CPUs {cpus:?}"));
    }
    for (name, inside) in &launch.net_devices {
        steps.add("launch", format!("move the network device {name} in, as {inside}"));
    }
    if let Some(rdt) = &launch.rdt {
        let verb = if rdt.shared { "join" } else { "make" };
        steps.add("launch", format!("{verb} the resctrl group {} {:?}", rdt.group, rdt.schemata));
        if rdt.monitoring {
            steps.add("launch", "make a monitoring group in it");
        }
    }
    if let Some(offsets) = &plan.init.time_offsets {
        steps.add("launch", "make a time namespace");
        for line in offsets.lines() {
            steps.add("launch", format!("shift the clock {line}"));
        }
    }
    if plan.init.keyring.is_some() {
        steps.add("launch", "join a session keyring of its own");
    }
    if plan.init.loopback {
        steps.add("launch", "bring the loopback interface up");
    }
    schedule(plan, steps);
}

fn schedule(plan: &Plan, steps: &mut Steps) {
    let schedule = &plan.init.schedule;
    if let Some(cpu) = &schedule.cpu {
        steps.add("launch", format!("schedule it by {cpu:?}"));
    }
    if let Some((class, priority)) = schedule.io {
        steps.add("launch", format!("set the I/O class {class}, priority {priority}"));
    }
    if let Some((mode, nodes)) = &schedule.memory {
        steps.add("launch", format!("set the memory policy {mode:#x} for the nodes {nodes:?}"));
    }
}

fn rootfs(plan: &Plan, steps: &mut Steps) {
    let Some(rootfs) = &plan.init.rootfs else { return };
    steps.add("root", format!("mount {} as the root file system", rootfs.path.display()));
    for mount in &rootfs.mounts {
        let attributes = mount.attributes();
        let attributes = if attributes.is_empty() { attributes } else { format!(", {attributes}") };
        steps.add("mounts", format!("mount {mount}{attributes}{}", shifted(plan, &mount.what)));
    }
    for device in rootfs.devices.iter().filter(|_| rootfs.fill_dev) {
        let how = if device.bind { "bind" } else { "make" };
        steps.add("devices", format!("{how} {} {}:{}", device.path.display(), device.major, device.minor));
    }
    for path in &rootfs.read_only_paths {
        steps.add("root", format!("make {} read-only", path.display()));
    }
    for path in &rootfs.masked {
        steps.add("root", format!("mask {}", path.display()));
    }
    if rootfs.read_only {
        steps.add("root", "make / read-only");
    }
    steps.hooks("prestart", prestart(&plan.hooks));
    steps.hooks("createRuntime", plan.hooks.create_runtime().as_deref());
    steps.hooks("createContainer", Some(&plan.init.create_container));
    steps.add("root", format!("change the root: {:?}", rootfs.change));
}

/// What is done to the owners of a bind mount.
fn shifted(plan: &Plan, what: &What) -> String {
    let What::Bind { prepared: Some(index), .. } = what else { return String::new() };
    match plan.launch.prepare.get(*index).and_then(|prepare| prepare.idmap.as_ref()) {
        None => String::new(),
        Some(Idmap::Container { .. }) => ", owners as in the container's user namespace".into(),
        Some(Idmap::Own { .. }) => ", owners shifted by mappings of its own".into(),
    }
}

fn machine(plan: &Plan, steps: &mut Steps) {
    let init = &plan.init;
    for (what, name) in [("host", &init.hostname), ("domain", &init.domainname)] {
        if let Some(name) = name {
            steps.add("machine", format!("set the {what} name to {name:?}"));
        }
    }
    for (file, value) in &init.sysctl {
        steps.add("machine", format!("write {value:?} to /proc/sys/{file}"));
    }
    if let Some(persona) = init.personality {
        steps.add("machine", format!("set the execution domain {persona:#x}"));
    }
    if init.console.is_some() {
        steps.add("machine", "open a terminal");
    }
}

fn identity(plan: &Plan, steps: &mut Steps) {
    let init = &plan.init;
    for limit in &init.rlimits {
        let name = rlimit::name(limit.resource).unwrap_or_else(|| limit.resource.to_string());
        steps.add("identity", format!("set {name} to {} (at most {})", limit.soft, limit.hard));
    }
    for (file, label) in &init.labels {
        steps.add("identity", format!("write {label:?} to /proc/{file}"));
    }
    let who = &init.identity;
    steps.add("identity", format!("become user {}, group {}", who.uid, who.gid));
    if let Some(groups) = who.groups.as_ref().filter(|groups| !groups.is_empty()) {
        steps.add("identity", format!("and of the groups {groups:?}"));
    }
    if let Some(mask) = who.umask {
        steps.add("identity", format!("set the umask {mask:04o}"));
    }
    if let Some(cpus) = &init.affinity {
        steps.add("identity", format!("run on the CPUs {cpus:?}"));
    }
    if let Some(sets) = &who.capabilities {
        for (set, mask) in [
            ("bounding", sets.bounding),
            ("effective", sets.effective),
            ("permitted", sets.permitted),
            ("inheritable", sets.inheritable),
            ("ambient", sets.ambient),
        ] {
            let names = capabilities::names(mask);
            let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
            steps.add("identity", format!("{set} capabilities: {names}"));
        }
    }
    if who.no_new_privileges {
        steps.add("identity", "never gain privileges by exec");
    }
    if let Some(filter) = &init.filter {
        steps.add(
            "identity",
            format!("install a system call filter of {} instructions", filter.program.len()),
        );
        if filter.notify {
            steps.add("identity", "send its listener to the agent");
        }
        for warning in &filter.warnings {
            steps.add("identity", format!("({warning})"));
        }
    }
}

fn program(plan: &Plan, steps: &mut Steps) {
    steps.hooks("startContainer", Some(&plan.init.start_container));
    let program = &plan.init.program;
    steps.add("program", format!("in {} execute {:?}", program.cwd.display(), program.args));
    for entry in &program.env {
        steps.add("program", format!("environment {entry}"));
    }
    if program.keep_fds > 0 {
        steps.add("program", format!("with {} more descriptors, from 3 on", program.keep_fds));
    }
    steps.hooks("poststart", plan.hooks.poststart().as_deref());
    steps.hooks("poststop", plan.hooks.poststop().as_deref());
}
