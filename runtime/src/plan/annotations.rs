//! Annotations that change what is done: crun's `run.oci.*`, and `org.systemd.property.*`, which runc and crun have alike.
//!
//! What can be said in the configuration itself is put there; what is not done is refused or, where the container does
//! as well without, warned of, by its name.

use crate::plan::validate::{Check, Problem};
use ctr_isolation::cgroup::systemd::{Property, Value};
use oci_spec::runtime::{LinuxTimeOffsetBuilder, Spec};
use std::collections::HashMap;

/// What all of crun's begin with.
const CRUN: &str = "run.oci.";

/// What is not done and the container would not be what was asked for without.
const REFUSED: [(&str, &str); 4] = [
    ("handler", "only programs of this machine are run, no WebAssembly and no virtual machines"),
    ("systemd.force_cgroup_v1", "containers see cgroup version 2"),
    ("seccomp.plugins", "name an agent by linux.seccomp.listenerPath"),
    ("seccomp_bpf_data", "give the filter as linux.seccomp"),
];

/// What is not done and changes no more than where something lies.
const WARNED: [(&str, &str); 2] = [
    ("systemd.subgroup", "the container's cgroup is the unit's own"),
    ("delegate-cgroup", "the container's own cgroup is delegated to it"),
];

fn find<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    let annotations = spec.annotations().as_ref()?;
    annotations.get(&format!("{CRUN}{name}")).map(String::as_str)
}

/// Puts into `spec` what its annotations say; the problems and warnings of the others.
pub fn apply(spec: &mut Spec) -> (Vec<Problem>, Vec<String>) {
    let (mut check, mut warnings) = (Check::default(), Vec::new());
    let is_ours = |key: &String| key.starts_with(CRUN);
    if !spec.annotations().iter().flatten().any(|(key, _)| is_ours(key)) {
        return (Vec::new(), Vec::new());
    }
    for (name, instead) in REFUSED {
        if find(spec, name).is_some_and(|value| !value.is_empty()) {
            check.problem(pointer(name), format!("is not supported: {instead}"));
        }
    }
    for (name, instead) in WARNED {
        if find(spec, name).is_some_and(|value| !value.is_empty()) {
            warnings.push(format!("{}: ignored: {instead}", pointer(name)));
        }
    }
    if let Some(path) = find(spec, "seccomp.receiver").map(str::to_owned) {
        check.that(path.starts_with('/'), &pointer("seccomp.receiver"), || "is not absolute".into());
        let seccomp = spec.linux_mut().as_mut().and_then(|linux| linux.seccomp_mut().as_mut());
        if let Some(seccomp) = seccomp.filter(|seccomp| seccomp.listener_path().is_none()) {
            seccomp.set_listener_path(Some(path.into()));
        }
    }
    if let Some(text) = find(spec, "timens_offset").map(str::to_owned) {
        match time_offset(&text) {
            Some((clock, offset)) => {
                if let Some(linux) = spec.linux_mut() {
                    let mut offsets = linux.time_offsets().clone().unwrap_or_default();
                    offsets.insert(clock, offset);
                    linux.set_time_offsets(Some(offsets));
                }
            }
            None => {
                check.problem(pointer("timens_offset"), format!("{text:?} is not CLOCK SECONDS NANOSECONDS"))
            }
        }
    }
    (check.problems, warnings)
}

fn pointer(name: &str) -> String {
    format!("/annotations/{CRUN}{name}")
}

/// `monotonic 100 0`, as it is written to timens_offsets (time_namespaces(7)).
fn time_offset(text: &str) -> Option<(String, oci_spec::runtime::LinuxTimeOffset)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [clock, seconds, nanoseconds] = words.as_slice() else { return None };
    let clock = match *clock {
        "monotonic" | "1" => "monotonic",
        "boottime" | "7" => "boottime",
        _ => return None,
    };
    let offset = LinuxTimeOffsetBuilder::default()
        .secs(seconds.parse::<i64>().ok()?)
        .nanosecs(nanoseconds.parse::<u32>().ok()?);
    Some((clock.to_owned(), offset.build().ok()?))
}

/// Whether the program keeps our supplementary groups (`podman run --group-add keep-groups`).
pub fn keeps_groups(spec: &Spec) -> bool {
    find(spec, "keep_original_groups").is_some_and(|value| value != "0")
}

/// Whether a system call that nobody knows is an error.
pub fn fails_unknown_calls(spec: &Spec) -> bool {
    find(spec, "seccomp_fail_unknown_syscall").is_some_and(|value| value != "0")
}

/// Where a descriptor of the first process is sent.
pub fn pidfd_receiver(spec: &Spec) -> Option<&str> {
    find(spec, "pidfd_receiver")
}

/// By which option a mount gets its SELinux label: `context`, or what the annotation has.
pub fn context_type(spec: &Spec, check: &mut Check) -> &'static str {
    match find(spec, "mount_context_type") {
        None | Some("context") => "context",
        Some("fscontext") => "fscontext",
        Some("defcontext") => "defcontext",
        Some("rootcontext") => "rootcontext",
        Some(other) => {
            check.problem(
                pointer("mount_context_type"),
                format!("{other:?} is no option of mount(8) for labels"),
            );
            "context"
        }
    }
}

/// The properties of the container's unit that annotations name, in GVariant's text form.
pub fn unit_properties(spec: &Spec, check: &mut Check) -> Vec<Property> {
    let empty = HashMap::new();
    let annotations = spec.annotations().as_ref().unwrap_or(&empty);
    let mut properties = Vec::new();
    let mut named: Vec<_> = annotations.iter().collect();
    named.sort();
    for (key, text) in named {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let pointer = format!("/annotations/{key}");
        check.that(name.len() > 2 && name.bytes().all(|byte| byte.is_ascii_alphabetic()), &pointer, || {
            "is not the name of a property".into()
        });
        let seconds = name.strip_suffix("Sec").filter(|rest| !rest.ends_with('U'));
        let property = match (variant(text), seconds) {
            // As in unit files; on the bus there are microseconds only.
            (Some(value), Some(rest)) => {
                microseconds(&value, text).map(|value| (format!("{rest}USec"), value))
            }
            (value, _) => value.map(|value| (name.to_owned(), value)),
        };
        match property {
            Some((name, value)) => properties.push(Property::new(&name, value)),
            None => check.problem(
                pointer,
                format!("{text:?} is no value that systemd is sent, as 'text', true or uint64 7"),
            ),
        }
    }
    properties
}

fn microseconds(value: &Value, text: &str) -> Option<Value> {
    let seconds = match value {
        Value::I32(seconds) => f64::from(*seconds),
        Value::U32(seconds) => f64::from(*seconds),
        Value::U64(seconds) => *seconds as f64,
        Value::I64(seconds) => *seconds as f64,
        _ => text.trim().parse().ok()?,
    };
    (0.0..1e12).contains(&seconds).then_some(Value::U64((seconds * 1e6) as u64))
}

/// A value in GVariant's text form, as far as units have properties of its type.
fn variant(text: &str) -> Option<Value> {
    let text = text.trim();
    let (kind, rest) = text.split_once(' ').unwrap_or(("", text));
    match (kind, text) {
        (_, "true") => Some(Value::Bool(true)),
        (_, "false") => Some(Value::Bool(false)),
        ("uint64", _) => rest.trim().parse().ok().map(Value::U64),
        ("int64", _) => rest.trim().parse().ok().map(Value::I64),
        ("uint32", _) => rest.trim().parse().ok().map(Value::U32),
        ("int32", _) => rest.trim().parse().ok().map(Value::I32),
        ("@as", _) => strings(rest.trim()).map(Value::Strings),
        _ if text.starts_with('[') => strings(text).map(Value::Strings),
        _ if text.starts_with(['\'', '"']) => {
            let (string, rest) = string(text)?;
            rest.trim().is_empty().then_some(Value::String(string))
        }
        // A time with a fraction of a second, of which only the name tells that it is one.
        _ => text
            .parse()
            .ok()
            .map(Value::I32)
            .or_else(|| text.parse::<f64>().ok().map(|_| Value::String(text.into()))),
    }
}

/// `'it''s text'`, with backslashes, and what follows.
fn string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let (mut string, mut letters) = (String::new(), text[1..].char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => string.push(letters.next()?.1),
            letter if letter == quote => return Some((string, &text[at + 2..])),
            letter => string.push(letter),
        }
    }
    None
}

fn strings(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('[')?.trim_start();
    let mut list = Vec::new();
    while !rest.starts_with(']') {
        let (string, after) = string(rest)?;
        list.push(string);
        rest = after.trim_start();
        rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
    }
    (rest == "]").then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(annotations: serde_json::Value) -> Spec {
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        let spec = json!({"ociVersion": "1.0.0", "annotations": annotations, "linux": {"seccomp": seccomp}});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn what_the_configuration_has_words_for_is_put_there() {
        let mut spec = spec(json!({
            "run.oci.seccomp.receiver": "/run/agent", "run.oci.timens_offset": "boottime 7 3", "other": "x",
            "run.oci.keep_original_groups": "1", "run.oci.mount_context_type": "rootcontext",
        }));
        assert_eq!(apply(&mut spec), (Vec::new(), Vec::new()));
        let linux = spec.linux().clone().unwrap();
        assert!(linux.seccomp().clone().unwrap().listener_path().clone().unwrap().ends_with("agent"));
        assert_eq!(linux.time_offsets().clone().unwrap()["boottime"].secs(), Some(7));
        assert!(keeps_groups(&spec) && !fails_unknown_calls(&spec));
        assert_eq!(context_type(&spec, &mut Check::default()), "rootcontext");
    }

    #[test]
    fn what_is_not_done_is_named() {
        for (name, value) in REFUSED
            .map(|(name, _)| (name, "x"))
            .into_iter()
            .chain([("timens_offset", "monotonic"), ("seccomp.receiver", "x")])
        {
            let key = format!("run.oci.{name}");
            let (problems, _) = apply(&mut spec(json!({key.as_str(): value})));
            assert!(problems.len() == 1 && problems[0].pointer.ends_with(name), "{name}: {problems:?}");
        }
        for (name, _) in WARNED {
            let key = format!("run.oci.{name}");
            let (problems, warnings) = apply(&mut spec(json!({key.as_str(): "x"})));
            assert!(problems.is_empty() && warnings[0].contains(name), "{name}");
            assert_eq!(
                apply(&mut spec(json!({key.as_str(): ""}))),
                (Vec::new(), Vec::new()),
                "crun's word for none"
            );
        }
    }

    /// What podman sends, and runc's tests of the forms.
    #[test]
    fn properties_of_units_are_read() {
        let mut check = Check::default();
        let found = unit_properties(
            &spec(json!({
                "org.systemd.property.KillSignal": "15",
                "org.systemd.property.TimeoutStopUSec": "uint64 10000000",
                "org.systemd.property.TimeoutStopSec": "1.5",
                "org.systemd.property.CollectMode": "'inactive-or-failed'",
                "org.systemd.property.After": "['a.service', \"b.service\"]",
                "org.systemd.property.SendSIGHUP": "true",
                "another": "x",
            })),
            &mut check,
        );
        assert_eq!(check.problems, []);
        let wanted = [
            Property::new("After", Value::Strings(vec!["a.service".into(), "b.service".into()])),
            Property::new("CollectMode", Value::String("inactive-or-failed".into())),
            Property::new("KillSignal", Value::I32(15)),
            Property::new("SendSIGHUP", Value::Bool(true)),
            Property::new("TimeoutStopUSec", Value::U64(1_500_000)),
            Property::new("TimeoutStopUSec", Value::U64(10_000_000)),
        ];
        assert_eq!(found, wanted);
        for (name, text) in [
            ("A", "true"),
            ("Kill-Signal", "1"),
            ("KillSignal", "uint64 x"),
            ("After", "['a'"),
            ("Description", "bare words"),
        ] {
            let mut check = Check::default();
            let key = format!("org.systemd.property.{name}");
            unit_properties(&spec(json!({key.as_str(): text})), &mut check);
            assert_eq!(check.problems.len(), 1, "{name} {text}");
        }
    }
}
