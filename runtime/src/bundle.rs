//! A bundle: a directory with a `config.json` (runtime-spec bundle.md).

use crate::error::{Error, Result};
use crate::plan::annotations;
use crate::plan::validate::Problem;
use crate::state;
use ctr_isolation::Context;
use ctr_isolation::sys::fs;
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// No configuration is larger; what is may be no file at all (`/dev/zero`).
pub const TEXT_MAX: u64 = 64 << 20;

/// A bundle, read.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// The configuration.
    pub spec: Spec,
    /// The configuration's text, as it was read.
    pub text: Vec<u8>,
    /// What was left out of it, as the specification demands.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads the bundle in `dir`; the configuration is `config`, or `config.json` in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every value that is not what the specification wants.
    pub fn load(dir: &Path, config: Option<&Path>) -> Result<Self> {
        let dir = state::absolute(dir)?;
        let path = config.map_or_else(|| dir.join("config.json"), |config| dir.join(config));
        let text = fs::read_bounded(&path, TEXT_MAX)
            .doing(|| format!("read the configuration {}", path.display()))?;
        Self::parse(dir, text)
    }

    /// Takes a configuration that is at hand as text.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn parse(dir: PathBuf, text: Vec<u8>) -> Result<Self> {
        let (mut spec, mut warnings) = parse(&text, "config.json")?;
        let (problems, more) = annotations::apply(&mut spec);
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        warnings.extend(more);
        Ok(Bundle { dir, spec, text, warnings })
    }
}

/// Reads JSON, the text of `file`, as `T`: the value and warnings.
///
/// What does not fit is taken out and the rest is read again, so that all problems are found at once. An unknown
/// capability is only a warning (runtime-spec config.md: "MUST log a warning ... SHOULD NOT fail").
///
/// # Errors
/// [`Error::Invalid`] with the JSON pointer of every value that does not fit.
pub fn parse<T: DeserializeOwned>(text: &[u8], file: &str) -> Result<(T, Vec<String>)> {
    // serde takes a list for a struct, field by field; the specification does not.
    if !text.trim_ascii_start().starts_with(b"{") {
        let what = "it is not a JSON object (line 1 does not begin with a brace)";
        return Err(Error::Invalid(vec![Problem::new(file, what)]));
    }
    if let Ok(value) = serde_json::from_slice(text) {
        return Ok((value, Vec::new()));
    }
    let mut json: Value = serde_json::from_slice(text)
        .map_err(|error| Error::Invalid(vec![Problem::new(file, format!("it is not JSON: {error}"))]))?;
    respell(&mut json);
    add_user(&mut json);
    let (mut warnings, mut problems) = (Vec::new(), Vec::new());
    loop {
        match serde_path_to_error::deserialize::<_, T>(&json) {
            Ok(value) if problems.is_empty() => return Ok((value, warnings)),
            Ok(_) => return Err(Error::Invalid(problems)),
            Err(error) => {
                let pointer = pointer(&json, error.path());
                let reason = error.inner().to_string();
                let removed = remove(&mut json, &pointer);
                match removed {
                    Some(Value::String(name)) if pointer.contains("/capabilities/") => {
                        warnings.push(format!("{pointer}: unknown capability {name:?} is ignored"));
                    }
                    Some(_) => problems.push(Problem::new(&pointer, reason)),
                    // What is missing cannot be taken out, so this is the last problem that can be found.
                    None => {
                        problems.push(Problem::new(&pointer, reason));
                        return Err(Error::Invalid(problems));
                    }
                }
            }
        }
    }
}

/// Names of the specification that the library which reads it has another spelling for: those of
/// `process.scheduler.flags` (config.md, "Linux Process"), in a configuration or in a process alone.
fn respell(json: &mut Value) {
    for place in ["/process/scheduler/flags", "/scheduler/flags"] {
        for flag in json.pointer_mut(place).and_then(Value::as_array_mut).into_iter().flatten() {
            match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
                _ => {}
            }
        }
    }
}

/// Who is not named is root: the specification's schema does not ask for a user, the library which reads it does.
fn add_user(json: &mut Value) {
    let process = if json.get("cwd").is_some() { Some(json) } else { json.get_mut("process") };
    if let Some(process) = process.and_then(Value::as_object_mut) {
        process.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
}

/// The JSON pointer of a path, as far as it exists in `json`.
fn pointer(json: &Value, path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => break,
        };
        let longer = format!("{pointer}/{part}");
        if json.pointer(&longer).is_none() {
            break;
        }
        pointer = longer;
    }
    pointer
}

/// Takes the value at `pointer` out of `json`; `None` for the whole.
fn remove(json: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    match json.pointer_mut(parent)? {
        Value::Object(map) => map.remove(&name),
        Value::Array(list) => {
            let index = name.parse().ok().filter(|index| *index < list.len())?;
            Some(list.remove(index))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> std::result::Result<Vec<String>, String> {
        match parse::<Spec>(json.as_bytes(), "config.json") {
            Ok((_, warnings)) => Ok(warnings),
            Err(error) => Err(error.to_string()),
        }
    }

    /// runtime-spec config.md: a capability that cannot be mapped is warned of, not refused.
    #[test]
    fn unknown_capability_is_a_warning() {
        let json = r#"{"ociVersion":"1.3.0","process":{"cwd":"/","args":["x"],"user":{"uid":0,"gid":0},
            "capabilities":{"bounding":["CAP_KILL","CAP_FOO"],"effective":["CAP_BAR"]}}}"#;
        let warnings = check(json).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("CAP_FOO"));
    }

    /// runtime-spec config.md, "Extensibility": unknown properties are ignored.
    #[test]
    fn unknown_keys_are_ignored() {
        assert_eq!(check(r#"{"ociVersion":"1.3.0","nonsense":{"a":1},"linux":{"more":[]}}"#), Ok(vec![]));
    }

    /// runtime-spec config.md, `scheduler`.
    #[test]
    fn the_flags_of_a_scheduler_are_the_specification_s() {
        let json = r#"{"ociVersion":"1.3.0","process":{"cwd":"/","args":["x"],"user":{"uid":0,"gid":0},
            "scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN","SCHED_FLAG_KEEP_POLICY","SCHED_FLAG_KEEP_PARAMS","SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX"]}}}"#;
        assert_eq!(check(json), Ok(vec![]));
    }

    #[test]
    fn all_wrong_values_are_named_at_once() {
        let json = r#"{"ociVersion":"1.3.0","hostname":7,"linux":{"namespaces":[{"type":"nonsense"}],
            "maskedPaths":"x"},"mounts":[{"destination":"/a","options":[1]}]}"#;
        let error = check(json).unwrap_err();
        for pointer in ["/hostname", "/linux/namespaces/0/type", "/linux/maskedPaths", "/mounts/0/options/0"]
        {
            assert!(error.contains(pointer), "{pointer} in {error}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_position() {
        assert!(check("{\"a\":").unwrap_err().contains("line 1"));
        assert!(check("[]").is_err());
        assert!(check("").is_err());
    }
}
