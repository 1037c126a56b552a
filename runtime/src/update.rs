//! Changing the limits of a container.

use crate::confine;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::plan::validate::Check;
use crate::plan::{change, resources};
use crate::state::{Status, file};
use ctr_isolation::cgroup::{Cgroup, systemd};
use ctr_isolation::resctrl::{self, Resctrl};
use oci_spec::runtime::LinuxResources;
use std::os::fd::AsFd;

impl Container {
    /// The limits that were asked for, at `create` or by the last [`Container::update`].
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn resources(&self) -> Result<LinuxResources> {
        if let Ok(text) = std::fs::read(self.entry.path(file::RESOURCES)) {
            return serde_json::from_slice(&text).map_err(|error| Error::text(error.to_string()));
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
        let status = self.status();
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.wrong_status("update", status, " (container not running)"));
        }
        let held = self.resources()?;
        let merged = change::merge(&held, change).map_err(|error| Error::text(error.to_string()))?;
        let (mut check, mut warnings) = (Check::default(), Vec::new());
        let all = resources::files(&merged, &mut check, &mut warnings);
        let rules = change.devices().as_ref().is_some_and(|rules| !rules.is_empty());
        let filter = rules.then(|| resources::device_filter(change, facts, &mut check)).flatten();
        if !check.problems.is_empty() {
            return Err(Error::Invalid(check.problems));
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let named: Vec<_> = all.iter().filter(|(file, _)| change::concerns(change, file)).cloned().collect();
        if !named.is_empty() || filter.is_some() {
            let cgroup = self.need_cgroup("update")?;
            check_usage(&cgroup, change)?;
            let before = remember(&cgroup, &named);
            let set = self.tell_systemd(&all).and_then(|()| set_all(&cgroup, &named));
            if let Err(error) = set {
                // The reason that is told is the first one.
                let old = resources::files(&held, &mut Check::default(), &mut Vec::new());
                let _ = self.tell_systemd(&old);
                for (file, text) in before.iter().rev() {
                    let _ = cgroup.write(file, text);
                }
                return Err(error);
            }
            if let Some(program) = filter {
                Cgroup::filter_devices(cgroup.open()?.as_fd(), &program, true)?;
            }
        }
        self.set_schemata(schemata)?;
        let text = serde_json::to_vec(&merged).map_err(|error| Error::text(error.to_string()))?;
        self.entry.write_file(file::RESOURCES, &text)
    }

    /// systemd writes what it knows of whenever it reloads.
    fn tell_systemd(&self, files: &[resources::File]) -> Result<()> {
        let Some(unit) = &self.record.unit else { return Ok(()) };
        let properties = resources::limit_properties(files);
        Ok(systemd::set_unit_properties(confine::bus(&self.record), unit, &properties)?)
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

/// Sets the limits.
fn set_all(cgroup: &Cgroup, limits: &[resources::File]) -> Result<()> {
    if limits.iter().any(|(file, _)| file == "cpu.max")
        && cgroup.number("cpu.max.burst").is_some_and(|burst| burst > 0)
    {
        // The quota may go below it; what is wanted of it comes after.
        cgroup.write("cpu.max.burst", "0")?;
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
