//! `features`: what this program can do, in the form of the specification's features.md.

use std::collections::HashMap;

use anyhow::Result;
use ctr_isolation::{capabilities, mount::options};
use ctr_runtime::hooks;
use oci_spec::runtime::{
    ApparmorBuilder, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder, IntelRdtBuilder, LinuxFeature,
    LinuxFeatureBuilder, LinuxNamespaceType as Namespace, LinuxSeccompAction as Action, MemoryPolicyBuilder,
    MountExtensionsBuilder, NetDevicesBuilder, Seccomp, SeccompBuilder, SelinuxBuilder,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{cli::SPEC_VERSION, output};

/// Prints the document.
///
/// # Errors
/// When it cannot be written.
pub fn print() -> Result<()> {
    Ok(output::json(&features()?)?)
}

/// The document. It says what is compiled in, whatever this host has of it.
///
/// # Errors
/// None in practice: the parts are constants.
pub fn features() -> Result<Features> {
    Ok(FeaturesBuilder::default()
        .oci_version_min("1.0.0")
        .oci_version_max(SPEC_VERSION)
        .hooks(strings(&hooks::KINDS))
        .mount_options(options::names().map(str::to_owned).collect::<Vec<_>>())
        .linux(linux()?)
        .annotations(annotations())
        .potentially_unsafe_config_annotations(strings(&UNSAFE_ANNOTATIONS))
        .build()?)
}

fn linux() -> Result<LinuxFeature> {
    let cgroup = CgroupBuilder::default().v1(true).v2(true).systemd(true).systemd_user(true).rdma(true);
    let rdt = IntelRdtBuilder::default().enabled(true).schemata(true).monitoring(true);
    let policy = MemoryPolicyBuilder::default().modes(strings(&POLICY_MODES)).flags(strings(&POLICY_FLAGS));
    let idmap = IDMapBuilder::default().enabled(true).build()?;
    Ok(LinuxFeatureBuilder::default()
        .namespaces(NAMESPACES.to_vec())
        .capabilities(capabilities::KNOWN.map(|capability| capability.to_string()).to_vec())
        .cgroup(cgroup.build()?)
        .seccomp(seccomp()?)
        .apparmor(ApparmorBuilder::default().enabled(true).build()?)
        .selinux(SelinuxBuilder::default().enabled(true).build()?)
        .intel_rdt(rdt.build()?)
        .memory_policy(policy.build()?)
        .mount_extensions(MountExtensionsBuilder::default().idmap(idmap).build()?)
        .net_devices(NetDevicesBuilder::default().enabled(true).build()?)
        .build()?)
}

fn seccomp() -> Result<Seccomp> {
    Ok(SeccompBuilder::default()
        .enabled(true)
        .actions(ACTIONS.to_vec())
        .operators(strings(&OPERATORS))
        .archs(named(&ARCHITECTURES)?)
        // The oldest kernel that is supported knows them all.
        .known_flags(strings(&FLAGS))
        .supported_flags(strings(&FLAGS))
        .build()?)
}

fn annotations() -> HashMap<String, String> {
    let commit = option_env!("CTR_COMMIT").map(|commit| ("ctr.commit", commit));
    // By runc's name, which engines look for.
    let checkpoint = ("org.opencontainers.runc.checkpoint.enabled", "true");
    let all = [("ctr.version", env!("CARGO_PKG_VERSION")), checkpoint].into_iter().chain(commit);
    all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Values by the names the specification gives them.
fn named<T: DeserializeOwned>(names: &[&str]) -> Result<Vec<T>> {
    Ok(serde_json::from_value(json!(names))?)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Those that change what is done on the host, or with which rights; a name that ends in a dot stands for all it begins.
const UNSAFE_ANNOTATIONS: [&str; 8] = [
    "org.systemd.property.",
    "run.oci.hooks.stderr",
    "run.oci.hooks.stdout",
    "run.oci.keep_original_groups",
    "run.oci.mount_context_type",
    "run.oci.pidfd_receiver",
    "run.oci.seccomp.receiver",
    "run.oci.timens_offset",
];

const NAMESPACES: [Namespace; 8] = [
    Namespace::Cgroup,
    Namespace::Ipc,
    Namespace::Mount,
    Namespace::Network,
    Namespace::Pid,
    Namespace::Time,
    Namespace::User,
    Namespace::Uts,
];

const ACTIONS: [Action; 9] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const ARCHITECTURES: [&str; 5] =
    ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

const POLICY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];

const POLICY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

#[cfg(test)]
mod tests {
    use super::*;

    /// features.md: everything must be said; null would mean "unknown".
    #[test]
    fn nothing_is_unknown() {
        let text = serde_json::to_string(&features().unwrap()).unwrap();
        assert!(!text.contains("null"), "{text}");
    }

    #[test]
    fn callers_find_what_they_look_for() {
        let document = serde_json::to_value(features().unwrap()).unwrap();
        assert_eq!(document["ociVersionMin"], "1.0.0");
        assert_eq!(document["ociVersionMax"], "1.3.0");
        for kind in ["v1", "v2", "systemdUser"] {
            assert_eq!(document["linux"]["cgroup"][kind], true, "{kind}");
        }
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        let options = document["mountOptions"].as_array().unwrap();
        for option in ["rbind", "rro", "ridmap", "tmpcopyup"] {
            assert!(options.iter().any(|known| known == option), "{option}");
        }
    }
}
