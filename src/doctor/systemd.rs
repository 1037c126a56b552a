//! systemd: the host's and the user's own, and what a scope of each is given.

use std::path::Path;

use ctr_isolation::{
    Context, Error, Result,
    attempt::attempt,
    cgroup::{
        self,
        systemd::{self, Bus, Property, Value},
    },
    sys::fs::read_small,
};

use ctr_runtime::facts::Delegated;

use super::{Finding, host::Host};

pub(super) fn probe(host: &Host) -> Vec<Finding> {
    let mut findings = vec![system(host)];
    if !host.is_root() {
        findings.push(user(host));
    }
    let bus = if host.is_root() { Bus::System } else { Bus::User };
    let answers = match &host.user_systemd {
        Some(answer) => answer.is_ok(),
        None => findings[0].verdict == super::Verdict::Ok,
    };
    // Without a systemd there is nothing to ask for, which has been said.
    if answers {
        findings.push(scope(host, bus));
    }
    findings
}

fn system(host: &Host) -> Finding {
    let tried = "asked the host's systemd for its version, over D-Bus";
    match systemd::version(Bus::System) {
        Ok(version) => Finding::ok("system", tried, format!("systemd {version}")),
        Err(error) => {
            let loses = "the cgroup manager systemd (--systemd-cgroup)";
            let found =
                if host.has_systemd { "it does not answer" } else { "systemd does not run this machine" };
            let mend = host.has_systemd.then(|| match &host.container {
                Some(engine) => format!(
                    "{engine} run --volume /run/dbus/system_bus_socket:/run/dbus/system_bus_socket ..."
                ),
                None => host.install("dbus", &[("dnf", "dbus-daemon"), ("zypper", "dbus-1")]),
            });
            Finding::warning("system", tried, found, loses, mend).because(error)
        }
    }
}

fn user(host: &Host) -> Finding {
    let tried = "asked the user's own systemd for its version, over D-Bus";
    let error = match &host.user_systemd {
        Some(Ok(version)) => return Finding::ok("user", tried, format!("systemd {version}")),
        Some(Err(error)) => error.as_str(),
        None => "",
    };
    let loses = "cgroups of an ordinary user's own, which limits need";
    let found = "it does not answer";
    let runtime = format!("/run/user/{}", host.facts.uid);
    let export = format!("export XDG_RUNTIME_DIR={runtime}");
    let mend = match () {
        () if Path::new(&runtime).join("systemd").is_dir() => Some(export),
        () if host.has_systemd => {
            Some(format!("{} && {export}", host.as_root(&format!("loginctl enable-linger {}", host.user))))
        }
        () => None,
    };
    Finding::warning("user", tried, found, loses, mend).because(error)
}

/// What a scope has that systemd makes for us.
fn scope(host: &Host, bus: Bus) -> Finding {
    let whose = if bus == Bus::System { "the host's" } else { "the user's" };
    let tried =
        format!("had {whose} systemd make a scope with Delegate=yes, made a cgroup in it, and stopped it");
    match controllers_of_scope(host, bus) {
        Ok(controllers) => {
            let missing: Vec<&str> = ["cpu", "memory", "pids"]
                .into_iter()
                .filter(|name| !controllers.split(' ').any(|found| found == *name))
                .collect();
            if missing.is_empty() {
                return Finding::ok("scope", tried, format!("delegates {controllers}"));
            }
            let loses = format!("limits of {} in cgroups that systemd makes", missing.join(", "));
            let found = if controllers.is_empty() {
                "delegates nothing".to_owned()
            } else {
                format!("delegates {controllers}")
            };
            match delegate(host) {
                // Limits have no other place to go.
                Some(mend) if host.facts.delegated == Delegated::Nowhere => {
                    Finding::problem("scope", tried, found, loses, mend)
                }
                mend => Finding::warning("scope", tried, found, loses, mend),
            }
        }
        Err(error) => {
            let mend = match bus {
                Bus::System => format!("{} --cgroup-manager cgroupfs run ...", host.program),
                Bus::User => "systemctl --user daemon-reexec".to_owned(),
            };
            let loses = "limits, whose cgroups systemd makes where it manages the tree";
            Finding::problem("scope", tried, "cannot be had", loses, mend).because(error)
        }
    }
}

/// Gives ordinary users all controllers; None where it is not systemd's to give.
fn delegate(host: &Host) -> Option<String> {
    let is_unified = host.facts.hierarchy.as_ref().is_some_and(|found| found.unified);
    (is_unified && !host.is_root()).then(|| super::cgroups::delegate_to_users(host))
}

fn controllers_of_scope(host: &Host, bus: Bus) -> Result<String> {
    let unit = format!("ctr-doctor-{}.scope", std::process::id());
    let properties = [
        Property::new("Delegate", Value::Bool(true)),
        Property::new("CollectMode", Value::String("inactive-or-failed".into())),
    ];
    let mut found = String::new();
    let look = |pid: i32| {
        systemd::start_scope(bus, &unit, "", pid, "ctr doctor", &properties)?;
        let text = read_small(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let path = cgroup::path_from_proc(&text).unwrap_or(Path::new("/"));
        let hierarchy = host.facts.hierarchy.as_ref().ok_or_else(|| Error::new("there is no cgroup v2"))?;
        if !path.ends_with(&unit) {
            return Err(Error::new(format!("the process is in {} instead", path.display())));
        }
        let scope = hierarchy.cgroup(path);
        let inside = scope.dir().join("inside");
        std::fs::create_dir(&inside)
            .and_then(|()| std::fs::remove_dir(&inside))
            .doing(|| "make a cgroup in it")?;
        found = scope.controllers()?.join(" ");
        Ok(())
    };
    let result = attempt(0, None, look, || Ok(String::new()));
    systemd::stop_unit(bus, &unit)?;
    result.map(|_| found)
}
