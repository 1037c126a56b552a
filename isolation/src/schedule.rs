//! Scheduling, memory policy and resource limits of a process.

use crate::rlimit;
use crate::sys::process::{self, SchedAttr};
use crate::{Context, Result};

/// How the kernel is to treat the container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// CPU scheduling policy.
    pub cpu: Option<SchedAttr>,
    /// I/O class (`IOPRIO_CLASS_*`) and priority 0 to 7.
    pub io: Option<(u32, u32)>,
    /// Memory policy: mode with flags (`MPOL_*`) and NUMA nodes.
    pub memory: Option<(u32, Vec<usize>)>,
}

impl Schedule {
    /// Applies it to the calling process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn apply(&self) -> Result<()> {
        if let Some((mode, nodes)) = &self.memory {
            process::set_mempolicy(*mode, nodes).doing(|| "set the memory policy")?;
        }
        if let Some((class, priority)) = self.io {
            process::ioprio_set(class, priority).doing(|| "set the I/O priority")?;
        }
        match &self.cpu {
            Some(cpu) => process::sched_setattr(cpu).doing(|| "set the scheduler"),
            None => Ok(()),
        }
    }
}

/// A resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// In force.
    pub soft: u64,
    /// How far the soft limit may be raised.
    pub hard: u64,
}

impl Rlimit {
    /// Sets our limit if that raises how far it may go.
    ///
    /// # Errors
    /// As [`Rlimit::set`].
    pub fn raise(&self) -> Result<()> {
        if self.hard > process::hard_limit(self.resource)? { self.set(0) } else { Ok(()) }
    }

    /// Sets the limit of process `pid`, 0 being the caller.
    ///
    /// # Errors
    /// `EPERM` when the hard limit would be raised without `CAP_SYS_RESOURCE`.
    pub fn set(&self, pid: i32) -> Result<()> {
        process::prlimit(pid, self.resource, self.soft, self.hard).doing(|| {
            let name = rlimit::name(self.resource).unwrap_or_else(|| self.resource.to_string());
            format!("set the resource limit {name}")
        })
    }
}

/// Reads a list such as `0-3,7` (cpuset(7), "List format").
///
/// # Errors
/// What in it is no number or range.
pub fn cpu_list(text: &str) -> std::result::Result<Vec<usize>, String> {
    const MAX: usize = 8192;
    let number = |text: &str| {
        let number: usize =
            text.trim().parse().map_err(|_| format!("{text:?} is not a number or range like 0-3,7"))?;
        if number < MAX { Ok(number) } else { Err(format!("{number} is not below {MAX}")) }
    };
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // `0-31:2/4` are the first two of every four (cpuset(7) has it of bitmap_parselist).
        let (range, stride) = part.split_once(':').unwrap_or((part, "1/1"));
        let (used, group) = stride.split_once('/').ok_or_else(|| format!("{part:?} has no USED/GROUP"))?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last, used, group) = (number(first)?, number(last)?, number(used)?, number(group)?);
        if first > last {
            return Err(format!("{part:?} runs backwards"));
        }
        if used == 0 || used > group {
            return Err(format!("{part:?}: of {group} in a row, {used} cannot be used"));
        }
        list.extend((first..=last).filter(|number| (number - first) % group < used));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(cpu_list("0-2,7"), Ok(vec![0, 1, 2, 7]));
        assert_eq!(cpu_list(""), Ok(vec![]));
        for bad in ["x", "3-1", "-1", "99999999999", "1-"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
    }
}
