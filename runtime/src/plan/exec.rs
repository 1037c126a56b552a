//! The plan of `exec`: the same as of `create`, with namespaces joined and no root file system to build.

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::plan::validate::{self, Check};
use crate::plan::{Init, Launch, Plan, Request, process};
use oci_spec::runtime::{Hooks, Linux, LinuxNamespaceType, Process};
use std::ffi::CString;

/// Decides everything about one more process of a container. `bundle` is the container's configuration, `namespaces`
/// are the kinds in which its first process (`pid`) differs from us.
///
/// # Errors
/// [`Error::Invalid`] with every problem of the process.
pub fn exec(
    bundle: &Bundle,
    wanted: &Process,
    pid: i32,
    namespaces: i32,
    request: &Request,
    facts: &Facts,
) -> Result<Plan> {
    let mut check = Check::default();
    let mut warnings = Vec::new();
    validate::process("/process", wanted, &mut check);
    let nothing_set = Linux::default();
    let linux = bundle.spec.linux().as_ref().unwrap_or(&nothing_set);
    let user_namespace =
        linux.namespaces().iter().flatten().any(|found| found.typ() == LinuxNamespaceType::User);
    let single = |list: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| matches!(list.as_deref(), Some([one]) if one.size() == 1);
    let groups_allowed =
        !facts.setgroups_denied && (facts.is_root() || !user_namespace || !single(linux.gid_mappings()));
    let console = process::console(wanted);
    check.that(console.is_none() || request.has_console, "/process/terminal", || {
        "a terminal needs --console-socket, or `exec` without --detach".into()
    });
    let filter = process::filter(linux, &mut check);
    let (affinity, final_affinity) = process::affinity(wanted, &mut check);
    let init = Init {
        // An ordinary user cannot write the score of a process that may not be dumped any more; and the parent raises
        // limits, which cannot be done from inside a user namespace.
        at_once: (facts.is_root() || wanted.oom_score_adj().is_none())
            && !(user_namespace && wanted.rlimits().is_some()),
        own_user_namespace: namespaces & super::ns::USER != 0,
        keyring: (!request.no_new_keyring)
            .then(|| CString::new(format!("_ses.{}", request.id)).unwrap_or_default()),
        unshare_cgroup: false,
        time_offsets: None,
        loopback: false,
        schedule: process::schedule(wanted, None, &mut check),
        rootfs: None,
        hold: false,
        ask_for_hooks: false,
        create_container: Vec::new(),
        console,
        hostname: None,
        domainname: None,
        sysctl: Vec::new(),
        personality: linux
            .personality()
            .as_ref()
            .map(|persona| ctr_isolation::personality::domain(persona.domain())),
        labels: process::labels(wanted, facts, &mut check),
        rlimits: process::rlimits(wanted),
        affinity: final_affinity,
        identity: process::identity(
            wanted,
            facts,
            process::groups(&bundle.spec, groups_allowed),
            user_namespace,
            &mut check,
            &mut warnings,
        ),
        filter,
        listener_metadata: super::create::listener_metadata(linux),
        start_container: Vec::new(),
        program: process::program(wanted, request, false),
    };
    let launch = Launch {
        join_process: Some((pid, namespaces)),
        oom_score_adj: wanted.oom_score_adj(),
        affinity,
        traced: !user_namespace
            && (request.traced
                || bundle.spec.process().as_ref().is_some_and(process::may_trace)
                || process::may_trace(wanted)),
        ..Launch::default()
    };
    if check.problems.is_empty() {
        let hooks = Hooks::default();
        Ok(Plan { id: request.id.clone(), cgroup: None, launch, init, hooks, warnings })
    } else {
        Err(Error::Invalid(check.problems))
    }
}
