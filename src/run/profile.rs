//! Seccomp profiles in files: the specification's form, and the form podman and Docker ship theirs in, which
//! has rules that hold only for some capabilities, architectures and kernels.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use ctr_isolation::capabilities::parse as parse_capability;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Map, Value};

/// What the conditions of a profile are about.
#[derive(Clone, Debug)]
struct Here {
    /// The capabilities of the container, by number.
    capabilities: u64,
    /// Major and minor version of the kernel.
    kernel: (u32, u32),
    /// The architecture's name to the specification and to Docker.
    architecture: (&'static str, &'static str),
}

/// Reads the profile in `file` for a container with these capabilities.
pub(super) fn read(file: &Path, capabilities: u64) -> Result<LinuxSeccomp> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = version(&release).unwrap_or_default();
    let architecture = match std::env::consts::ARCH {
        "aarch64" => ("SCMP_ARCH_AARCH64", "arm64"),
        _ => ("SCMP_ARCH_X86_64", "amd64"),
    };
    let text = fs::read_to_string(file).map_err(anyhow::Error::from);
    let profile = text.and_then(|text| parse(&text, &Here { capabilities, kernel, architecture }));
    profile.with_context(|| format!("read the seccomp profile {}", file.display()))
}

fn parse(text: &str, here: &Here) -> Result<LinuxSeccomp> {
    let mut profile: Map<String, Value> = serde_json::from_str(text)?;
    if let Some(Value::Array(families)) = profile.remove("archMap") {
        profile.insert("architectures".to_owned(), architectures(&families, here));
    }
    if let Some(Value::Array(rules)) = profile.get_mut("syscalls") {
        rules.retain(|rule| holds(rule, here));
        rules.iter_mut().for_each(name_all);
    }
    Ok(serde_json::from_value(Value::Object(profile))?)
}

/// This machine's architecture and those that run on it, from Docker's table of families.
fn architectures(families: &[Value], here: &Here) -> Value {
    let own = families.iter().find(|family| family["architecture"] == here.architecture.0);
    let others = own.and_then(|family| family["subArchitectures"].as_array()).into_iter().flatten().cloned();
    Value::Array(std::iter::once(Value::from(here.architecture.0)).chain(others).collect())
}

/// Whether a rule holds here: all it includes is so, and nothing it excludes.
fn holds(rule: &Value, here: &Here) -> bool {
    let words = |of: &Value, key: &str| {
        let words: Vec<_> = of[key].as_array().into_iter().flatten().cloned().collect();
        words.into_iter().filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let has = |name: &String| {
        parse_capability(name).is_some_and(|capability| capability.bitmask() & here.capabilities != 0)
    };
    let is_here = |name: &String| name == here.architecture.1;
    let is_new = |of: &Value| of["minKernel"].as_str().and_then(version).map(|least| here.kernel >= least);
    let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
    let arches = words(includes, "arches");
    words(includes, "caps").iter().all(has)
        && (arches.is_empty() || arches.iter().any(is_here))
        && is_new(includes).unwrap_or(true)
        && !words(excludes, "caps").iter().any(has)
        && !words(excludes, "arches").iter().any(is_here)
        && !is_new(excludes).unwrap_or(false)
}

/// Docker once had a rule name one call.
fn name_all(rule: &mut Value) {
    if rule["names"].is_null() && rule["name"].is_string() {
        rule["names"] = Value::Array(vec![rule["name"].clone()]);
    }
}

/// `6.12` of `6.12.3-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {}, "excludes": {}},
            {"name": "one", "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["plain"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.20"}}
        ]
    }"#;

    fn names(capabilities: u64) -> (LinuxSeccomp, Vec<String>) {
        let here = Here { capabilities, kernel: (6, 12), architecture: ("SCMP_ARCH_X86_64", "amd64") };
        let profile = parse(DOCKER, &here).unwrap();
        let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect();
        (profile, names)
    }

    #[test]
    fn conditions_of_a_docker_profile_are_judged_here() {
        assert_eq!(names(0).1, ["read", "one", "plain", "new"]);
        assert_eq!(
            names(parse_capability("SYS_ADMIN").unwrap().bitmask()).1,
            ["read", "one", "admin", "new"]
        );
        assert_eq!(names(0).0.architectures().as_ref().map(Vec::len), Some(3));
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.12.3-amd64\n"), Some((6, 12)));
        assert_eq!(version("4.8"), Some((4, 8)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn a_faulty_profile_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.json");
        fs::write(&file, "{\"defaultAction\": 1}").unwrap();
        let text = format!("{:#}", read(&file, 0).unwrap_err());
        assert!(text.starts_with(&format!("read the seccomp profile {}: ", file.display())), "{text}");
    }
}
