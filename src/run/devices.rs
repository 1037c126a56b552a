//! `--device`: a device of the host, or one that a file of the Container Device Interface describes
//! (github.com/cncf-tags/container-device-interface, SPEC.md, versions 0.3 to 1.0).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use ctr_isolation::sys::fs::{Stat, read_bounded, stat};
use ctr_runtime::hooks;
use oci_spec::runtime::{
    Hook, Hooks, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, Mount,
};
use serde::Deserialize;

use super::mounts::{destination, mount, options};

/// No file of descriptions is larger.
const LONGEST: u64 = 4 << 20;

/// What devices bring into a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Devices {
    pub(super) nodes: Vec<Node>,
    pub(super) mounts: Vec<Mount>,
    pub(super) env: Vec<String>,
    pub(super) hooks: Vec<(String, Hook)>,
    pub(super) groups: Vec<u32>,
}

/// A device of the host's, in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: PathBuf,
    pub(super) path: PathBuf,
    pub(super) kind: LinuxDeviceType,
    pub(super) number: (i64, i64),
    /// Some of `rwm`.
    pub(super) access: String,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl Node {
    /// As it is made by who may.
    pub(super) fn device(&self) -> Result<LinuxDevice> {
        let mut device = LinuxDeviceBuilder::default()
            .path(&self.path)
            .typ(self.kind)
            .major(self.number.0)
            .minor(self.number.1);
        if let Some(mode) = self.mode {
            device = device.file_mode(mode);
        }
        if let Some(uid) = self.uid {
            device = device.uid(uid);
        }
        if let Some(gid) = self.gid {
            device = device.gid(gid);
        }
        Ok(device.build()?)
    }

    /// That it may be used.
    pub(super) fn rule(&self) -> Result<LinuxDeviceCgroup> {
        let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(self.kind).access(&self.access);
        Ok(rule.major(self.number.0).minor(self.number.1).build()?)
    }

    /// As it comes in where nobody may make one, in a user namespace.
    pub(super) fn bind(&self) -> Result<Mount> {
        mount(&self.path, "bind", &self.host, options(&["bind", "rprivate", "nosuid", "noexec"]))
    }
}

/// A file of descriptions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specification {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    container_edits: Edits,
    #[serde(default)]
    devices: Vec<Described>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What is to be changed in a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<HostMount>,
    hooks: Vec<NamedHook>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<serde_json::Value>,
    net_devices: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedHook {
    hook_name: String,
    #[serde(flatten)]
    hook: Hook,
}

/// Reads what `--device` names; `directories` have files of descriptions, of which later ones count for more.
///
/// # Errors
/// When there is no such device.
pub(super) fn read(words: &[String], directories: &[PathBuf]) -> Result<Devices> {
    let mut devices = Devices::default();
    let mut descriptions = None;
    for word in words {
        let fault = || format!("--device {word}");
        if word.starts_with('/') {
            devices.nodes.push(plain(word).with_context(fault)?);
            continue;
        }
        let all = match descriptions.take() {
            Some(all) => all,
            None => Descriptions::read(directories)?,
        };
        descriptions.insert(all).add(word, &mut devices).with_context(fault)?;
    }
    Ok(devices)
}

/// `HOST[:INSIDE[:rwm]]`.
fn plain(word: &str) -> Result<Node> {
    let parts: Vec<&str> = word.split(':').collect();
    let (host, path, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if is_access(access) => (*host, *host, *access),
        [host, path] => (*host, *path, "rwm"),
        [host, path, access] if is_access(access) => (*host, *path, *access),
        _ => bail!("expected DEVICE[:PATH[:rwm]]"),
    };
    node(host.into(), path, None, None, access)
}

fn is_access(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|letter| "rwm".contains(letter))
}

/// The device at `host`, if it is one, or is described as one.
fn node(
    host: PathBuf,
    path: &str,
    kind: Option<&str>,
    number: Option<(i64, i64)>,
    access: &str,
) -> Result<Node> {
    let stat = stat(&host).with_context(|| format!("look at {}", host.display()));
    let found = |stat: &Stat| match stat.kind() {
        libc::S_IFCHR => Ok("c"),
        libc::S_IFBLK => Ok("b"),
        libc::S_IFIFO => Ok("p"),
        _ => Err(anyhow!("{} is no device", host.display())),
    };
    let (kind, number) = match (kind, number) {
        (Some(kind), Some(number)) => (kind, number),
        (kind, number) => {
            let stat = stat.as_ref().map_err(|error| anyhow!("{error:#}"))?;
            let (major, minor) = stat.device;
            (kind.map_or_else(|| found(stat), Ok)?, number.unwrap_or((major.into(), minor.into())))
        }
    };
    let kind = match kind {
        "c" | "u" => LinuxDeviceType::C,
        "b" => LinuxDeviceType::B,
        "p" => LinuxDeviceType::P,
        other => bail!("{other:?} is no type of a device"),
    };
    let stat = stat.ok();
    Ok(Node {
        path: destination(path)?,
        kind,
        number,
        access: access.to_owned(),
        mode: stat.as_ref().map(|stat| stat.mode & 0o777),
        uid: stat.as_ref().map(|stat| stat.uid),
        gid: stat.as_ref().map(|stat| stat.gid),
        host,
    })
}

/// All that is described, by qualified name.
#[derive(Debug, Default)]
struct Descriptions {
    devices: BTreeMap<String, (usize, Edits)>,
    /// What goes with all devices of a file; none once it has been added.
    common: Vec<Option<Edits>>,
    /// Why files were left out.
    unread: Vec<String>,
}

impl Descriptions {
    fn read(directories: &[PathBuf]) -> Result<Self> {
        let mut all = Descriptions::default();
        for directory in directories {
            let mut here: BTreeMap<String, PathBuf> = BTreeMap::new();
            let mut files: Vec<PathBuf> =
                fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files {
                match file.extension().and_then(|extension| extension.to_str()) {
                    Some("json") => {}
                    Some("yaml" | "yml") => {
                        all.unread.push(format!("{} is not JSON", file.display()));
                        continue;
                    }
                    _ => continue,
                }
                match specification(&file) {
                    Ok(found) => all.keep(found, &file, &mut here)?,
                    // One that is broken keeps nobody from the devices of others.
                    Err(error) => all.unread.push(format!("{error:#}")),
                }
            }
        }
        Ok(all)
    }

    fn keep(
        &mut self,
        found: Specification,
        file: &Path,
        here: &mut BTreeMap<String, PathBuf>,
    ) -> Result<()> {
        self.common.push(Some(found.container_edits));
        for device in found.devices {
            let name = format!("{}={}", found.kind, device.name);
            if let Some(other) = here.insert(name.clone(), file.to_owned()) {
                bail!("the device {name} is described twice, in {} and {}", other.display(), file.display());
            }
            self.devices.insert(name, (self.common.len() - 1, device.container_edits));
        }
        Ok(())
    }

    fn add(&mut self, name: &str, devices: &mut Devices) -> Result<()> {
        let Some((file, edits)) = self.devices.get(name).cloned() else {
            let known: Vec<&str> = self.devices.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let unread: String = self.unread.iter().map(|why| format!("; {why}")).collect();
            bail!(
                "it is neither the path of a device nor one that a CDI file describes (there are: {known}{unread})"
            );
        };
        if let Some(common) = self.common[file].take() {
            edit(common, devices)?;
        }
        edit(edits, devices)
    }
}

fn specification(file: &Path) -> Result<Specification> {
    let what = || format!("read {}", file.display());
    let text = read_bounded(file, LONGEST).with_context(what)?;
    let found: Specification = serde_json::from_slice(&text).with_context(what)?;
    let known = found.cdi_version.strip_prefix("0.").or(found.cdi_version.strip_prefix("1."));
    if known.is_none() {
        bail!("{}: cdiVersion {:?} is not known", file.display(), found.cdi_version);
    }
    Ok(found)
}

fn edit(edits: Edits, devices: &mut Devices) -> Result<()> {
    if edits.intel_rdt.is_some() || !edits.net_devices.is_empty() {
        bail!("its intelRdt and netDevices are not supported");
    }
    for given in edits.device_nodes {
        let host = given.host_path.unwrap_or_else(|| given.path.clone().into());
        let number = given.major.zip(given.minor);
        let access = given.permissions.as_deref().filter(|text| is_access(text)).unwrap_or("rwm");
        let found = node(host, &given.path, given.kind.as_deref(), number, access)?;
        devices.nodes.push(Node {
            mode: given.file_mode.or(found.mode),
            uid: given.uid.or(found.uid),
            gid: given.gid.or(found.gid),
            ..found
        });
    }
    for given in edits.mounts {
        let words: Vec<String> = if given.options.is_empty() {
            options(&["bind", "ro", "nosuid", "nodev"])
        } else {
            given.options
        };
        let kind = given.kind.as_deref().unwrap_or("bind");
        devices.mounts.push(mount(&destination(&given.container_path)?, kind, &given.host_path, words)?);
    }
    for NamedHook { hook_name, hook } in edits.hooks {
        if !hooks::KINDS.contains(&hook_name.as_str()) {
            bail!("{hook_name:?} is no kind of hooks");
        }
        devices.hooks.push((hook_name, hook));
    }
    devices.env.extend(edits.env);
    devices.groups.extend(edits.additional_gids.into_iter().filter(|group| *group != 0));
    Ok(())
}

impl Devices {
    /// Their hooks, by kind.
    pub(super) fn hooks(&self) -> Option<Hooks> {
        if self.hooks.is_empty() {
            return None;
        }
        let of = |kind: &str| {
            let list: Vec<Hook> =
                self.hooks.iter().filter(|(name, _)| name == kind).map(|(_, hook)| hook.clone()).collect();
            (!list.is_empty()).then_some(list)
        };
        let mut hooks = Hooks::default();
        // Deprecated, and still what CDI has.
        hooks.set_prestart(of("prestart"));
        hooks
            .set_create_runtime(of("createRuntime"))
            .set_create_container(of("createContainer"))
            .set_start_container(of("startContainer"))
            .set_poststart(of("poststart"))
            .set_poststop(of("poststop"));
        Some(hooks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn devices_of_the_host() {
        let found = read(&words(&["/dev/null", "/dev/zero:/dev/nothing:r", "/dev/full:rw"]), &[]).unwrap();
        let told: Vec<_> = found
            .nodes
            .iter()
            .map(|node| (node.path.to_str().unwrap(), node.kind, node.number, node.access.as_str()))
            .collect();
        let c = LinuxDeviceType::C;
        assert_eq!(
            told,
            [
                ("/dev/null", c, (1, 3), "rwm"),
                ("/dev/nothing", c, (1, 5), "r"),
                ("/dev/full", c, (1, 7), "rw")
            ]
        );
        for (word, part) in [
            ("/etc/passwd", "is no device"),
            ("/dev/nowhere", "no such file"),
            ("/dev/null:dev/x", "not absolute"),
            ("/dev/null:/a:/b:/c", "expected DEVICE"),
            ("vendor.com/class=x", "there are: none"),
        ] {
            let error = format!("{:#}", read(&words(&[word]), &[]).unwrap_err());
            assert!(error.contains(part) && error.contains(word), "{word}: {error}");
        }
    }

    /// SPEC.md, "CDI JSON Specification".
    #[test]
    fn devices_that_a_file_describes() {
        let (low, high) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |dir: &tempfile::TempDir, name: &str, text: &serde_json::Value| {
            fs::write(dir.path().join(name), text.to_string()).unwrap();
        };
        put(
            &low,
            "a.json",
            &json!({
                "cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "annotations": {"x": "y"},
                "containerEdits": {
                    "env": ["ALL=1"],
                    "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"], "timeout": 3}],
                },
                "devices": [
                    {"name": "one", "containerEdits": {
                        "env": ["ONE=1"],
                        "deviceNodes": [{"path": "/dev/one", "hostPath": "/dev/null", "permissions": "rw", "fileMode": 0o600}],
                        "mounts": [{"hostPath": "/usr", "containerPath": "/opt/usr", "options": ["ro", "rbind"]}],
                        "additionalGids": [0, 44],
                    }},
                    {"name": "two", "containerEdits": {"deviceNodes": [{"path": "/dev/two", "type": "b", "major": 7, "minor": 9}]}},
                ],
            }),
        );
        put(
            &low,
            "b.json",
            &json!({"cdiVersion": "0.3.0", "kind": "vendor.com/net", "devices": [{"name": "one", "containerEdits": {"env": ["LOW=1"]}}]}),
        );
        put(
            &high,
            "b.json",
            &json!({"cdiVersion": "1.0.0", "kind": "vendor.com/net", "devices": [{"name": "one", "containerEdits": {"env": ["HIGH=1"]}}]}),
        );
        fs::write(low.path().join("c.json"), "{").unwrap();
        fs::write(low.path().join("d.yaml"), "").unwrap();
        let places = [low.path().to_owned(), high.path().to_owned()];
        let wanted = words(&["vendor.com/gpu=one", "vendor.com/gpu=two", "vendor.com/net=one"]);
        let found = read(&wanted, &places).unwrap();
        assert_eq!(
            found.env,
            ["ALL=1", "ONE=1", "HIGH=1"],
            "what is common comes once, the later place wins"
        );
        assert_eq!((found.hooks.len(), found.groups.as_slice(), found.mounts.len()), (1, &[44][..], 1));
        let hooks = found.hooks().unwrap();
        assert!(hooks.create_container().is_some() && hooks.poststop().is_none());
        assert_eq!(
            (found.nodes[0].number, found.nodes[0].access.as_str(), found.nodes[0].mode),
            ((1, 3), "rw", Some(0o600))
        );
        assert_eq!((found.nodes[1].kind, found.nodes[1].number), (LinuxDeviceType::B, (7, 9)));
        let error = format!("{:#}", read(&words(&["vendor.com/gpu=three"]), &places).unwrap_err());
        assert!(
            error.contains("vendor.com/gpu=two")
                && error.contains("d.yaml is not JSON")
                && error.contains("c.json"),
            "{error}"
        );
        put(
            &high,
            "e.json",
            &json!({"cdiVersion": "1.0.0", "kind": "vendor.com/net", "devices": [{"name": "one"}]}),
        );
        assert!(format!("{:#}", read(&wanted, &places).unwrap_err()).contains("described twice"));
    }
}
