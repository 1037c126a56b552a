//! `spec`: a config.json to begin with.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{cli::oci::Spec, output};

const DEFAULT: &str = include_str!("spec/default.json");
const ROOTLESS: &str = include_str!("spec/rootless.json");

/// Writes it, where none is yet.
///
/// # Errors
/// When there is one, or the directory cannot be written.
pub fn spec(flags: &Spec) -> Result<()> {
    let text = text(flags.rootless, nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if flags.file.as_deref() == Some(Path::new("-")) {
        return Ok(output::print(&text)?);
    }
    let file = file(flags);
    let mut new = match OpenOptions::new().write(true).create_new(true).open(&file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already: remove the file first", file.display())
        }
        other => other.with_context(|| format!("write {}", file.display()))?,
    };
    new.write_all(text.as_bytes()).with_context(|| format!("write {}", file.display()))
}

fn file(flags: &Spec) -> PathBuf {
    let name = flags.file.as_deref().unwrap_or(Path::new("config.json"));
    flags.bundle.as_deref().unwrap_or(Path::new("")).join(name)
}

/// The text. An ordinary user's names the user: only that user can start it.
fn text(rootless: bool, uid: u32, gid: u32) -> String {
    if rootless {
        ROOTLESS.replace("\"@UID@\"", &uid.to_string()).replace("\"@GID@\"", &gid.to_string())
    } else {
        DEFAULT.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(rootless: bool) -> Value {
        serde_json::from_str(&text(rootless, 1000, 100)).unwrap()
    }

    /// Nothing that a reader of the specification does not know.
    #[test]
    fn both_are_configurations() {
        for rootless in [false, true] {
            let spec: oci_spec::runtime::Spec = serde_json::from_value(read(rootless)).unwrap();
            let again = serde_json::to_value(&spec).unwrap();
            assert_eq!(again["mounts"], read(rootless)["mounts"]);
            assert_eq!(again["linux"], read(rootless)["linux"]);
            assert_eq!(spec.version(), crate::cli::SPEC_VERSION);
        }
    }

    /// What an ordinary user cannot have is all that differs.
    #[test]
    fn rootless_differs_where_it_must() {
        let mut expected = read(false);
        let linux = expected["linux"].as_object_mut().unwrap();
        linux.remove("resources");
        linux.insert("uidMappings".into(), json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        linux.insert("gidMappings".into(), json!([{"containerID": 0, "hostID": 100, "size": 1}]));
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
        for mount in expected["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys" {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            if let Some(words) = mount.get_mut("options").and_then(Value::as_array_mut) {
                words.retain(|word| word != "gid=5");
            }
        }
        assert_eq!(read(true), expected);
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let bundle = tempfile::tempdir().unwrap();
        let flags = Spec { bundle: Some(bundle.path().into()), rootless: false, file: None };
        spec(&flags).unwrap();
        assert_eq!(std::fs::read_to_string(bundle.path().join("config.json")).unwrap(), DEFAULT);
        assert!(spec(&flags).unwrap_err().to_string().contains("remove the file first"));
    }
}
