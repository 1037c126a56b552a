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
