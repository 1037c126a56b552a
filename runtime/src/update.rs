//! Changing the limits of a container.

use crate::confine;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::limits;
use crate::plan::create::cgroup_path;
use crate::plan::validate::Check;
use crate::plan::{change, resources, resources_v1};
use crate::state::{Record, Status, file};
use ctr_isolation::cgroup::{self, Cgroup, systemd, v1};
use ctr_isolation::resctrl::{self, Resctrl};
use ctr_isolation::sys::fs;
use oci_spec::runtime::LinuxResources;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

impl Container {
    /// The limits that were asked for, at `create` or by the last [`Container::update`].
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn resources(&self) -> Result<LinuxResources> {
        if let Ok(text) = std::fs::read(self.entry.path(file::RESOURCES)) {
            let path = self.entry.path(file::RESOURCES);
            return serde_json::from_slice(&text).map_err(|error| {
                Error::text(format!(
                    "{}, which has the limits of the last `update`, is damaged: {error} (without it those of `create` count)",
                    path.display()
                ))
            });
        }
        Ok(self
            .bundle()?
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().clone())
            .unwrap_or_default())
    }

    /// Changes its limits to those that `change` names, and the lines `schemata` of its group of `linux.intelRdt`; all
    /// else stays as it is. What cannot be honoured is warned of. After a failure those hold that held before.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it has processes; [`Error::Invalid`] with every value that makes no sense; the first
    /// limit that cannot be had.
    pub fn update(&self, change: &LinuxResources, schemata: &[String], facts: &Facts) -> Result<()> {
        let _lock = self.entry.lock()?;
        self.again()?.update_locked(change, schemata, facts)
    }

    fn update_locked(&self, change: &LinuxResources, schemata: &[String], facts: &Facts) -> Result<()> {
        let status = self.status();
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.wrong_status("update", status, " (container not running)"));
        }
        let held = self.resources()?;
        let merged = change::merge(&held, change).map_err(|error| Error::text(error.to_string()))?;
        let (mut check, mut warnings) = (Check::default(), Vec::new());
        let all = resources_v1::files(&merged, facts.usable_v1(), &mut check, &mut Vec::new());
        // Of what held before it has been warned before; and of what makes no sense alone, the sum has been checked.
        resources_v1::files(change, facts.usable_v1(), &mut Check::default(), &mut warnings);
        if check.problems.is_empty() {
            resources::check_unified(change, &mut check);
        }
        let rules = change.devices().as_ref().is_some_and(|rules| !rules.is_empty());
        let filter = rules.then(|| resources::device_filter(change, facts, &mut check)).flatten();
        if !check.problems.is_empty() {
            return Err(Error::Invalid(check.problems));
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        // Where nothing is named, what is set otherwise than it was asked for is set again.
        let names_nothing = *change == LinuxResources::default() && schemata.is_empty();
        let drifting = self.cgroup().filter(|_| names_nothing);
        let is_meant = |limit: &&resources::File| {
            change::concerns(change, &limit.0)
                || drifting.as_ref().is_some_and(|cgroup| !limits::is_set(limit, cgroup))
        };
        let named: Vec<_> = all.iter().filter(is_meant).cloned().collect();
        let is_spread = drifting.is_some_and(|cgroup| !cgroup.v1().is_empty());
        if named.is_empty() && filter.is_none() && !is_spread {
            self.set_schemata(schemata)?;
            return self.keep(&merged);
        }
        let before = self.need_cgroup("update")?;
        let mut texts = Vec::new();
        let mut set = || -> Result<()> {
            let (cgroup, needed) = self.with_v1(&before, &named, facts)?;
            check_usage(&cgroup, change)?;
            texts = remember(&cgroup, &named);
            self.tell_systemd(&merged, facts)?;
            set_all(&cgroup, &named)?;
            gather(&before, if names_nothing { before.v1() } else { &needed })?;
            self.keep(&merged)?;
            self.set_schemata(schemata)?;
            if let Some(program) = &filter {
                Cgroup::filter_devices(cgroup.open()?.as_fd(), program, true)?;
            }
            Ok(())
        };
        set().inspect_err(|_| self.restore(&before, &held, &texts, facts))
    }

    /// After a failure, what was there before. The reason that is told is that of the failure.
    fn restore(&self, before: &Cgroup, held: &LinuxResources, texts: &[(String, String)], facts: &Facts) {
        let now = self.again().ok();
        let cgroup = now.as_ref().and_then(Container::cgroup).unwrap_or_else(|| before.clone());
        let _ = self.tell_systemd(held, facts);
        // Twice, for those that go with another only when that is what it was.
        for (file, text) in texts.iter().rev().chain(texts) {
            let _ = cgroup.write(file, text);
        }
        if self.resources().is_ok_and(|kept| kept != *held) {
            let _ = self.keep(held);
        }
        let mut new = cgroup.v1().clone();
        new.retain(|name, _| !before.v1().contains_key(name));
        if !new.is_empty() && Cgroup::at(Path::new("")).with_v1(new).remove_empty() {
            let _ = self.entry.write(&self.record);
        }
    }

    /// Writes down what is asked for now.
    fn keep(&self, limits: &LinuxResources) -> Result<()> {
        let text = serde_json::to_vec(limits).map_err(|error| Error::text(error.to_string()))?;
        self.entry.write_file(file::RESOURCES, &text)
    }

    /// systemd writes what it knows of whenever it reloads.
    fn tell_systemd(&self, limits: &LinuxResources, facts: &Facts) -> Result<()> {
        let Some(unit) = &self.record.unit else { return Ok(()) };
        let files = resources_v1::for_systemd(limits, facts.usable_v1());
        let properties = resources::limit_properties(&files);
        Ok(systemd::set_unit_properties(confine::bus(&self.record), unit, &properties)?)
    }

    /// The same cgroup, with what `limits` need of version 1 and it has not yet; and that part of it. Where it was to have
    /// it already, whoever made it may have come no further than to say so.
    fn with_v1(
        &self,
        cgroup: &Cgroup,
        limits: &[resources::File],
        facts: &Facts,
    ) -> Result<(Cgroup, v1::Paths)> {
        let needed = resources_v1::needed(limits, facts.usable_v1());
        let mut missing = needed.clone();
        missing.retain(|name, _| !cgroup.v1().contains_key(name));
        if needed.is_empty() {
            return Ok((cgroup.clone(), needed));
        }
        // Where its first process still is, is where its maker was.
        let text = fs::read_small(Path::new(&format!("/proc/{}/cgroup", self.record.pid)))?;
        let now = v1::paths_from_proc(&text);
        let linux = self.bundle()?.spec.linux().clone().unwrap_or_default();
        let given = linux.cgroups_path().clone().unwrap_or_default();
        for (name, path) in &mut missing {
            let own = now.get(name).map_or(Path::new("/"), PathBuf::as_path);
            *path = match self.record.unit {
                Some(_) => cgroup::path_from_proc(&text).unwrap_or(Path::new("/")).to_owned(),
                None => cgroup_path(&given, &self.record.id, own),
            };
        }
        let new = v1::directories(&missing, &facts.v1);
        confine::refuse_used(&Cgroup::at(Path::new("")).with_v1(new.clone()))?;
        let all: v1::Paths = cgroup.v1().clone().into_iter().chain(new).collect();
        if all.len() > cgroup.v1().len() {
            self.entry.write(&Record { cgroup_v1: all.clone(), ..self.record.clone() })?;
        }
        let used = needed.keys().filter_map(|name| all.get_key_value(name));
        let used: v1::Paths = used.map(|(name, dir)| (name.clone(), dir.clone())).collect();
        Cgroup::at(cgroup.dir()).with_v1(used.clone()).create_v1()?;
        Ok((Cgroup::at(cgroup.dir()).with_v1(all), used))
    }

    fn set_schemata(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let resctrl = Resctrl::default();
        resctrl.check()?;
        let bundle = self.bundle()?;
        let rdt = bundle.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().clone());
        let Some(rdt) = rdt else {
            return Err(Error::text(format!(
                "container {:?} was made without linux.intelRdt, so it has no group of resctrl",
                self.record.id
            )));
        };
        let group =
            rdt.clos_id().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| self.record.id.clone());
        Ok(resctrl::set_schemata(&resctrl.group(&group), lines)?)
    }
}

/// `checkBeforeUpdate` (runtime-spec config-linux.md, "Memory"): the kernel would kill what does not fit any more.
fn check_usage(cgroup: &Cgroup, change: &LinuxResources) -> Result<()> {
    let memory = change.memory().unwrap_or_default();
    let limit = memory.limit().filter(|limit| *limit > 0 && memory.check_before_update() == Some(true));
    match (limit.map(i64::cast_unsigned), cgroup.number("memory.current")) {
        (Some(limit), Some(usage)) if usage > limit => Err(Error::text(format!(
            "/memory/limit: {limit} is below what the container uses, {usage}, and checkBeforeUpdate forbids that"
        ))),
        _ => Ok(()),
    }
}

/// Puts every process of `cgroup` into those of version 1, where it is not yet.
fn gather(cgroup: &Cgroup, old: &v1::Paths) -> Result<()> {
    if old.is_empty() {
        return Ok(());
    }
    let parts = Cgroup::at(cgroup.dir()).with_v1(old.clone());
    // What a process makes meanwhile is where that was.
    for _ in 0..16 {
        let inside = |dir: &PathBuf| Cgroup::at(dir).processes().unwrap_or_default();
        let inside: Vec<Vec<i32>> = old.values().map(inside).collect();
        let all = cgroup.processes()?;
        let outside = |pid: &&i32| inside.iter().any(|pids| !pids.contains(pid));
        let outside: Vec<&i32> = all.iter().filter(outside).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            match parts.add_v1(*pid) {
                Err(error) if error.errno != libc::ESRCH => return Err(error.into()),
                _ => {}
            }
        }
    }
    Err(Error::text(
        "its processes multiply faster than they can be put under the new limit: `pause` it first",
    ))
}

/// Sets the limits.
fn set_all(cgroup: &Cgroup, limits: &[resources::File]) -> Result<()> {
    for (quota, burst) in [("cpu.max", "cpu.max.burst"), ("cpu.cfs_quota_us", "cpu.cfs_burst_us")] {
        if limits.iter().any(|(file, _)| file == quota) && cgroup.number(burst).is_some_and(|burst| burst > 0)
        {
            // The quota may go below it; what is wanted of it comes after.
            cgroup.write(burst, "0")?;
        }
    }
    confine::limit(cgroup, limits, false)
}

/// What the files of `limits` hold now. Those with a line for each device are written line by line, and are left as they
/// are.
fn remember(cgroup: &Cgroup, limits: &[resources::File]) -> Vec<(String, String)> {
    let files = limits.iter().flat_map(|(files, _)| files.split('|'));
    let all = files.filter_map(|file| Some((file.to_owned(), cgroup.text(file)?.trim_end().to_owned())));
    all.filter(|(_, text)| !text.contains(['\n', '='])).collect()
}
