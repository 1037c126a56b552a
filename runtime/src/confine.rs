//! The cgroup of a container: made, by us or by systemd, and its limits.

use crate::death::Usage;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::plan::{self, Plan, resources};
use crate::state::Record;
use ctr_isolation::Context;
use ctr_isolation::cgroup::{self, Cgroup, systemd, v1};
use ctr_isolation::sys::fs;
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cgroup below our own into which we and our callers go where the containers' must be beside us.
const CALLERS: &str = "callers";

/// How many containers of one name may have cgroups in one place.
const NAMESAKES: u32 = 1000;

/// The cgroup we make; one that systemd makes is not known yet. What is there now belongs to somebody else, so it is not
/// to be in our record.
///
/// # Errors
/// When it was named and is another container's.
pub fn choose_cgroup(plan: &Plan, facts: &Facts) -> Result<Option<Cgroup>> {
    let wanted = plan.cgroup.as_ref().filter(|wanted| wanted.unit.is_none());
    let (Some(wanted), Some(hierarchy)) = (wanted, &facts.hierarchy) else { return Ok(None) };
    let old = v1::directories(&wanted.v1, &facts.v1);
    let named = |suffix: &str| {
        let longer = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        let old = old.iter().map(|(name, path)| (name.clone(), longer(path))).collect();
        hierarchy.cgroup(&longer(&wanted.path)).with_v1(old)
    };
    let cgroup = named("");
    if !wanted.unnamed {
        refuse_used(&cgroup)?;
        return Ok(Some(cgroup));
    }
    // An empty one, too, is somebody's: of a container that has stopped, and whose end would then be ours.
    if !cgroup.exists() {
        return Ok(Some(cgroup));
    }
    let free = (2..NAMESAKES).map(|number| named(&format!("-{number}"))).find(|another| !another.exists());
    free.map(Some).ok_or_else(|| used(&cgroup))
}

/// Has systemd make the unit around the process, which waits meanwhile: there is no scope without a process.
///
/// # Errors
/// When systemd refuses, or puts it elsewhere than we asked for.
pub fn start_unit(
    wanted: &plan::Cgroup,
    unit: &plan::Unit,
    pid: i32,
    record: &mut Record,
    facts: &Facts,
) -> Result<Cgroup> {
    let description = format!("container {}", record.id);
    let mut properties = resources::unit_properties(&with_room(wanted, &unit.limits));
    properties.extend(unit.properties.iter().cloned());
    systemd::start_scope(bus(record), &unit.name, &unit.slice, pid, &description, &properties)?;
    let text = fs::read_small(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let path = cgroup::path_from_proc(&text).unwrap_or(Path::new("/"));
    // Whatever we take for the container's cgroup will be killed and removed one day.
    let Some(hierarchy) = facts.hierarchy.as_ref().filter(|_| path.ends_with(&unit.name)) else {
        return Err(Error::text(format!(
            "systemd started {}, but the container's process is in the cgroup {}",
            unit.name,
            path.display()
        )));
    };
    // In version 1 systemd has its units at the same place, and knows few controllers.
    let same = wanted.v1.keys().map(|name| (name.clone(), path.to_owned())).collect();
    let cgroup = hierarchy.cgroup(path).with_v1(v1::directories(&same, &facts.v1));
    record.name_cgroup(Some(&cgroup), Some(unit));
    refuse_frozen(&cgroup)?;
    Ok(cgroup)
}

/// The systemd that has the unit of `record`.
pub fn bus(record: &Record) -> systemd::Bus {
    if record.user_unit { systemd::Bus::User } else { systemd::Bus::System }
}

/// Makes the cgroup with its limits; `None` when it is optional and may not be made.
///
/// # Errors
/// The kernel's, `EEXIST` of one that nobody has named, or that it is another container's, or of the first limit that
/// cannot be had.
pub fn make_cgroup(
    cgroup: &Cgroup,
    plan: &Plan,
    record: &mut Record,
    facts: &Facts,
) -> Result<Option<OwnedFd>> {
    let Some(wanted) = &plan.cgroup else { return Ok(None) };
    if cgroup.exists() {
        // It is not ours to remove.
        refuse_frozen(cgroup).inspect_err(|_| record.forget_cgroup())?;
    }
    let room = wanted.make_room.as_ref().map_or(Ok(()), |own| {
        let own = facts.hierarchy.as_ref().map(|hierarchy| hierarchy.cgroup(own)).filter(Cgroup::is_full);
        own.map_or(Ok(()), |own| own.make_room(CALLERS))
    });
    match room.and_then(|()| cgroup.create(wanted.unnamed)) {
        Err(error) if error.errno == libc::EROFS && !wanted.optional && !wanted.best_effort => {
            return Err(error
                .under("cgroups are read-only here, as in a container (use --cgroup-manager disabled, or mount them writable)")
                .into());
        }
        Err(error)
            if (wanted.optional || wanted.best_effort)
                && matches!(error.errno, libc::EACCES | libc::EPERM | libc::EROFS) =>
        {
            tracing::debug!("no cgroup: {error}");
            for (file, value) in &wanted.files {
                tracing::warn!("not limited: {file} to {value}: {error}");
            }
            give_up(record);
            return Ok(None);
        }
        other => other?,
    }
    let dir = cgroup.open()?;
    // Another of this name may be on the same way: whoever has the lock goes on, and has it until its process is in.
    if let Err(error) = fs::lock(dir.as_fd()).map_err(Error::from).and_then(|()| refuse_used(cgroup)) {
        record.forget_cgroup();
        return Err(match error {
            Error::Failed(cause) if cause.errno == libc::EWOULDBLOCK => used(cgroup),
            other => other,
        });
    }
    refuse_frozen(cgroup)?;
    limit(cgroup, &first_limits(wanted), wanted.best_effort)?;
    Ok(Some(dir))
}

/// Goes on without a cgroup. Where it is in version 1, too, a part of it may have been made.
pub fn give_up(record: &mut Record) {
    if let Some(cgroup) = record.own_cgroup().filter(|cgroup| !cgroup.v1().is_empty()) {
        cgroup.remove_empty();
    }
    record.forget_cgroup();
}

/// The limits that hold from the beginning.
pub fn first_limits(wanted: &plan::Cgroup) -> Cow<'_, [resources::File]> {
    with_room(wanted, &wanted.files)
}

fn with_room<'a>(wanted: &plan::Cgroup, limits: &'a [resources::File]) -> Cow<'a, [resources::File]> {
    match wanted.small {
        Some(_) => resources::with_room(limits).into(),
        None => limits.into(),
    }
}

/// Sets the small limit of memory, now that all is there but the program, and notes what that holds.
///
/// # Errors
/// When it holds as much as the limit, and what the kernel or systemd refuses.
pub fn limit_memory(limit: u64, record: &mut Record) -> Result<()> {
    let Some(cgroup) = record.own_cgroup() else { return Ok(()) };
    let held = memory_held(&cgroup, limit)?;
    record.before_program = held;
    if let Some(held) = held.filter(|held| *held >= limit) {
        return Err(Error::text(format!(
            "{}: what comes before its program takes {} KiB",
            too_small(limit),
            held.div_ceil(1024)
        )));
    }
    let file = ("memory.max".to_owned(), limit.to_string());
    if let Some(unit) = &record.unit {
        let properties = resources::limit_properties(std::slice::from_ref(&file));
        systemd::set_unit_properties(bus(record), unit, &properties)?;
    }
    Ok(cgroup.set_limit(&file.0, &file.1)?)
}

/// The memory that `cgroup` holds; it is looked at again while that is not below `limit`. Each processor has some in
/// advance, which it gives back, when it comes to it, after a write of a lower `memory.high`.
fn memory_held(cgroup: &Cgroup, limit: u64) -> Result<Option<u64>> {
    let high = cgroup.text("memory.high").unwrap_or_default();
    cgroup.write("memory.high", "0")?;
    let mut held = cgroup.number("memory.current");
    for _ in 0..50 {
        if held.is_none_or(|held| held < limit) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        held = cgroup.number("memory.current");
    }
    cgroup.write("memory.high", high.trim_end())?;
    Ok(held)
}

fn too_small(limit: u64) -> String {
    // The kernel counts pages: less than one is none.
    let amount = if limit < 4096 { "less than a page".to_owned() } else { format!("{} KiB", limit / 1024) };
    format!("the memory limit of {amount} is too small to start this container in")
}

/// Where the limit of memory is small: that the program was not killed while it started.
///
/// # Errors
/// When it was.
pub fn was_room(record: &Record) -> Result<()> {
    let (Some(held), Some(cgroup)) = (record.before_program, record.own_cgroup()) else {
        return Ok(());
    };
    let killed = cgroup.has_oom_kills();
    // It may have been changed since.
    let Some(limit) = cgroup.number("memory.max").filter(|_| killed) else { return Ok(()) };
    Err(Error::text(format!(
        "start the container's program: {}: what comes before its program takes {} KiB, and it was killed for want of \
         more than the rest",
        too_small(limit),
        held.div_ceil(1024)
    )))
}

/// A process that the kernel kills for want of memory cannot tell why it ended.
pub fn explain_killed(error: Error, usage: &Usage, wanted: Option<&plan::Cgroup>, record: &Record) -> Error {
    let memory = usage.memory.as_ref().filter(|memory| memory.killed > 0 && record.before_program.is_none());
    let Some(room) = memory.and_then(|memory| memory.limit) else { return error };
    let limit = wanted.and_then(|wanted| wanted.small).unwrap_or(room);
    Error::text(format!(
        "{error}: {}: what comes before its program takes more than {} KiB",
        too_small(limit),
        room / 1024
    ))
}

/// A cgroup that holds processes is another container's. What is below it may be hidden from us, and then is told
/// when it cannot be removed.
///
/// # Errors
/// When there is one.
pub fn refuse_used(cgroup: &Cgroup) -> Result<()> {
    let all = std::iter::once(cgroup.dir()).chain(cgroup.v1().values().map(PathBuf::as_path));
    for one in all.map(Cgroup::at) {
        match one.read("cgroup.procs") {
            Ok(pids) if !pids.is_empty() => return Err(used(&one)),
            // Not there yet, or of a kind that is not read (threaded): making it will tell.
            _ => {}
        }
    }
    Ok(())
}

/// Nothing would ever run in a cgroup that is frozen, or below one.
fn refuse_frozen(cgroup: &Cgroup) -> Result<()> {
    if cgroup.counters("cgroup.events").is_none_or(|events| events.get("frozen") != Some(&1)) {
        return Ok(());
    }
    let frozen = cgroup.frozen_by().unwrap_or_else(|| cgroup.clone());
    Err(Error::text(format!(
        "container's cgroup unexpectedly frozen: somebody has frozen {} (write 0 to its cgroup.freeze to thaw it)",
        frozen.dir().display()
    )))
}

fn used(cgroup: &Cgroup) -> Error {
    let dir = cgroup.dir().display();
    Error::text(format!(
        "cgroup {dir} is not empty: another container uses it (choose another name, or another cgroupsPath)"
    ))
}

/// Sets the limits and sees that they hold. Where as good as possible is good enough, one that does not is warned of.
///
/// # Errors
/// Of the first limit that cannot be had.
pub fn limit(cgroup: &Cgroup, limits: &[resources::File], best_effort: bool) -> Result<()> {
    // What does not go with one that is still the old one (in version 1 memory is never above memory and swap) goes
    // after it.
    let mut again = Vec::new();
    for (file, value) in limits {
        match cgroup.set_limit(file, value) {
            Err(error) if error.errno == libc::EINVAL && limits.len() > 1 => again.push((file, value)),
            other => settle(cgroup, file, value, other, best_effort)?,
        }
    }
    again
        .into_iter()
        .try_for_each(|(file, value)| settle(cgroup, file, value, cgroup.set_limit(file, value), best_effort))
}

fn settle(
    cgroup: &Cgroup,
    file: &str,
    value: &str,
    set: ctr_isolation::Result<()>,
    best_effort: bool,
) -> Result<()> {
    let no_swap = file == "memory.swap.max" && value == "0" && !cgroup.v1().contains_key("memory");
    let is_none = value.starts_with("max") || value == "-1" || no_swap;
    match set {
        // Without the controller nothing is limited, and without swap there is none to be used.
        Err(error) if error.errno == libc::ENOENT && is_none => Ok(()),
        Err(error) if best_effort => {
            tracing::warn!("not limited: {error}");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Puts the device filter of `wanted`, if it has one, on the cgroup whose directory is `dir`.
///
/// # Errors
/// The kernel's.
pub fn filter_devices(dir: BorrowedFd<'_>, wanted: &plan::Cgroup) -> Result<()> {
    match &wanted.device_filter {
        Some(program) => Ok(Cgroup::filter_devices(dir, program, false).doing(|| "set the device filter")?),
        None => Ok(()),
    }
}
