//! What this host offers and what it withholds, found by trying: a finding for each thing, with its cure.
//!
//! Nothing is decided by the number of a version. What is tried is tried in processes, namespaces, directories and
//! cgroups of our own, and nothing of them stays. A probe that fails is a finding, never an error.

mod cgroups;
pub mod host;
mod ids;
mod namespaces;
mod security;
mod storage;
mod systemd;
mod tools;

use crate::scratch::Scratch;
use host::Host;

/// Findings about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    #[allow(missing_docs)]
    pub findings: Vec<Finding>,
}

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: one of a fixed set of names in each group.
    pub name: &'static str,
    /// What was done to find out.
    pub tried: String,
    /// What was found.
    pub found: String,
    /// The kernel's reason, or that of a program, where something failed.
    pub reason: Option<String>,
    /// What follows.
    pub verdict: Verdict,
}

/// How bad it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something can be done without; and there may be no cure.
    Warning { loses: String, mend: Option<String> },
    /// Something that is promised does not work here; a command mends it.
    Problem { loses: String, mend: String },
}

impl Verdict {
    /// Its name, for machines.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning { .. } => "warning",
            Verdict::Problem { .. } => "problem",
        }
    }

    /// What one loses, and the command that mends it.
    pub fn trouble(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Verdict::Ok => (None, None),
            Verdict::Warning { loses, mend } => (Some(loses), mend.as_deref()),
            Verdict::Problem { loses, mend } => (Some(loses), Some(mend)),
        }
    }
}

impl Finding {
    fn new(name: &'static str, tried: impl Into<String>, found: impl Into<String>, verdict: Verdict) -> Self {
        Finding { name, tried: tried.into(), found: found.into(), reason: None, verdict }
    }

    fn ok(name: &'static str, tried: impl Into<String>, found: impl Into<String>) -> Self {
        Finding::new(name, tried, found, Verdict::Ok)
    }

    fn warning(
        name: &'static str,
        tried: impl Into<String>,
        found: impl Into<String>,
        loses: impl Into<String>,
        mend: Option<String>,
    ) -> Self {
        Finding::new(name, tried, found, Verdict::Warning { loses: loses.into(), mend })
    }

    fn problem(
        name: &'static str,
        tried: impl Into<String>,
        found: impl Into<String>,
        loses: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Finding::new(name, tried, found, Verdict::Problem { loses: loses.into(), mend: mend.into() })
    }

    fn because(self, reason: impl ToString) -> Self {
        Finding { reason: Some(reason.to_string()), ..self }
    }
}

/// Tries everything.
pub fn examine(host: &Host) -> Vec<Group> {
    let scratch = Scratch::make(&host.store, "doctor");
    let group = |name, findings| Group { name, findings };
    vec![
        group("cgroups", cgroups::probe(host)),
        group("systemd", systemd::probe(host)),
        group("namespaces", namespaces::probe(host)),
        group("ids", ids::probe(host)),
        group("store", storage::probe(host, &scratch)),
        group("security", security::probe(host)),
        group("tools", tools::probe(host, scratch.as_ref().ok().map(Scratch::path))),
    ]
}

/// Of how many findings the verdict has this name.
pub fn count(groups: &[Group], verdict: &str) -> usize {
    groups.iter().flat_map(|group| &group.findings).filter(|found| found.verdict.name() == verdict).count()
}
