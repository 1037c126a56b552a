use std::{ffi::OsString, path::PathBuf};

use ctr_images::host::{HostFacts, HostImage, Kind, Personal, parts};
use ctr_images::manifest::Execution;
use serde_json::Value;

use super::*;
use crate::{
    cli::{self, Verb},
    settings::Settings,
};

fn image() -> HostImage {
    let directory = |path: &str, mounts: &[&str]| host::Entry {
        path: path.into(),
        kind: Kind::Directory { mounts: mounts.iter().map(PathBuf::from).collect(), places: Vec::new() },
    };
    let facts = HostFacts {
        root: "/".into(),
        entries: vec![
            directory("opt", &["/opt/disk"]),
            directory("usr", &[]),
            directory("etc/ssl/certs", &[]),
        ],
        has_bash: true,
    };
    parts(&facts, &Personal { hostname: "demo".into(), ..Personal::default() })
}

fn root() -> Caller {
    Caller { directory: Some("/work/project".into()), ..Caller::default() }
}

fn user() -> Caller {
    let ranges = vec![IdRange { first: 100_000, count: 65536 }];
    Caller {
        uid: 1000,
        gid: 100,
        subuids: ranges.clone(),
        subgids: ranges,
        directory: Some("/home/u".into()),
        homes: vec!["/home/u".into()],
        environment: [("LANG", "C"), ("TERM", "vt100"), ("LC_ALL", "C"), ("LC_TIME", "C")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..Caller::default()
    }
}

fn flags(line: &str) -> Run {
    let words: Vec<OsString> = format!("ctr run {line}").split(' ').map(OsString::from).collect();
    match cli::parse(words) {
        Ok((_, Verb::Run(run))) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn compiled(line: &str, caller: &Caller) -> Result<Compiled> {
    let (run, image, settings) = (flags(line), image(), Settings::default());
    let request =
        Request::read(&run, run.name().unwrap_or("demo"), &settings, caller, &Execution::default())?;
    let is_host = run.image.image.is_some();
    let layers = (0..image.lowers.len()).map(|number| {
        (
            format!("/store/demo/layers/{number}-upper").into(),
            format!("/store/demo/layers/{number}-work").into(),
        )
    });
    let rootfs = RootFs {
        path: if is_host { "/store/demo/rootfs".into() } else { run.image.rootfs.unwrap_or_default() },
        image: is_host.then_some(&image),
        layers: if is_host { layers.collect() } else { Vec::new() },
        lowers: Vec::new(),
        accounts: Accounts {
            passwd: "root:*:0:0::/root:/bin/sh\nweb:*:33:33::/srv:/bin/sh\n".into(),
            group: "root:*:0:\nlog:*:4:web\n".into(),
        },
    };
    compile(&request, &rootfs, &settings, caller)
}

/// The configuration as text, with what a set has no order for sorted and the long list of calls left out.
fn config(line: &str, caller: &Caller) -> String {
    let compiled = compiled(line, caller).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    let mut spec = serde_json::to_value(&compiled.spec).unwrap();
    let sets = spec["process"]["capabilities"].as_object_mut().unwrap();
    for set in sets.values_mut() {
        set.as_array_mut().unwrap().sort_by_key(Value::to_string);
    }
    if let Some(rules) = spec.pointer_mut("/linux/seccomp/syscalls") {
        *rules = Value::from(format!("{} rules", rules.as_array().unwrap().len()));
    }
    let warnings =
        compiled.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>();
    format!("{warnings}{}", serde_json::to_string_pretty(&spec).unwrap())
}

fn value(line: &str, caller: &Caller, pointer: &str) -> Value {
    let compiled = compiled(line, caller).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    let spec = serde_json::to_value(&compiled.spec).unwrap();
    spec.pointer(pointer).cloned().unwrap_or_default()
}

fn error(line: &str, caller: &Caller) -> String {
    compiled(line, caller).map(|compiled| format!("{compiled:?}")).unwrap_err().to_string()
}

/// The mount at `place`, as a line.
fn mounted(line: &str, caller: &Caller, place: &str) -> String {
    let mounts = value(line, caller, "/mounts");
    let text = |mount: &Value, key: &str| mount[key].as_str().unwrap_or_default().to_owned();
    let options = |mount: &Value| {
        let words = mount["options"].as_array().cloned().unwrap_or_default();
        words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    let at_place = mounts.as_array().unwrap().iter().filter(|mount| text(mount, "destination") == place);
    let lines: Vec<_> = at_place
        .map(|mount| format!("{} {} {}", text(mount, "type"), text(mount, "source"), options(mount)))
        .collect();
    lines.join("\n")
}

#[test]
fn root_runs_the_image_host() {
    insta::assert_snapshot!(config("--rm --image host demo -- sh -c id", &root()));
}

#[test]
fn a_user_runs_the_image_host() {
    insta::assert_snapshot!(config("-it --image host --network host demo", &user()));
}

#[test]
fn a_read_only_root_file_system() {
    insta::assert_snapshot!(config(
        "--rootfs /srv/tree --read-only --user web --workdir /srv --cap-drop all --cap-add NET_RAW \
         --security-opt seccomp=unconfined --security-opt no-new-privileges --annotation a=b --ulimit nofile=1:2 \
         --tmpfs /scratch:size=1m --entrypoint [\"tini\",\"--\"] demo -- true",
        &root()
    ));
}

#[test]
fn the_network_decides_about_sys() {
    let bound = "bind /sys rbind,rslave,nosuid,noexec,nodev,rro";
    let own = "sysfs sysfs nosuid,noexec,nodev,ro";
    let nested = Caller { in_user_namespace: true, ..root() };
    for (network, caller, expected) in [
        ("none", root(), own),
        ("host", root(), own),
        ("none", user(), own),
        ("host", user(), bound),
        ("none", nested.clone(), own),
        ("host", nested, bound),
    ] {
        assert_eq!(mounted(&format!("--image host --network {network}"), &caller, "/sys"), expected);
    }
}

#[test]
fn layers_need_a_place_and_nothing_mounted_below() {
    let layer =
        "overlay overlay lowerdir=/opt,upperdir=/store/demo/layers/0-upper,workdir=/store/demo/layers/0-work";
    let shown = "bind /opt rbind,rprivate,nodev,rro";
    assert_eq!(mounted("--image host", &root(), "/opt"), layer);
    assert_eq!(mounted("--image host", &root(), "/opt/disk"), "bind /opt/disk rbind,rprivate,nodev,rro");
    assert_eq!(mounted("--image host", &user(), "/opt"), shown);
    assert_eq!(mounted("--image host", &user(), "/opt/disk"), "");
    assert!(mounted("--image host", &user(), "/usr").ends_with(",userxattr"));
}

#[test]
fn a_read_only_container_has_no_layers() {
    assert_eq!(mounted("--image host --read-only", &root(), "/opt"), "bind /opt rbind,rprivate,nodev,rro");
    assert!(mounted("--image host --read-only", &root(), "/tmp").starts_with("tmpfs"));
}

#[test]
fn preparing_the_image_host_makes_a_bundle_of_this_machine() {
    let private = tempfile::tempdir().unwrap();
    let run = flags("--image host --user 1000:1000 demo -- id");
    let caller = Caller::of_process();
    let request = Request::read(&run, "demo", &Settings::default(), &caller, &Execution::default()).unwrap();
    let compiled = prepare(&run, &request, &Settings::default(), &caller, private.path(), None);
    if caller.needs_user_namespace() && caller.subuids.is_empty() {
        return assert!(compiled.unwrap_err().to_string().contains("nobody outside"));
    }
    let spec = compiled.unwrap().spec;
    let root = spec.root().clone().unwrap();
    let passwd = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(passwd.contains("user1000:*:1000:1000"), "{passwd}");
    assert_eq!(spec.process().as_ref().map(|process| process.user().uid()), Some(1000));
}

#[test]
fn an_image_that_is_not_here_is_said() {
    let private = tempfile::tempdir().unwrap();
    let run = flags("--image debian:13 demo");
    let request = Request::read(&run, "demo", &Settings::default(), &root(), &Execution::default()).unwrap();
    let error = prepare(&run, &request, &Settings::default(), &root(), private.path(), None).unwrap_err();
    assert!(error.to_string().contains("is not here"));
}

#[test]
fn a_mount_that_was_asked_for_takes_the_place_of_ours() {
    assert_eq!(
        mounted("--image host -v /a:/work/project", &root(), "/work/project"),
        "bind /a rbind,rprivate,nosuid,nodev"
    );
    assert_eq!(mounted("--image host --tmpfs /dev/shm:size=1k", &root(), "/dev/shm").lines().count(), 1);
}

#[test]
fn ids_that_cannot_be_mapped_are_refused() {
    assert!(error("--image host --user nobody", &root()).contains("no user \"nobody\""));
    let line = "--image host --user 70000";
    assert!(error(line, &user()).contains("/etc/subuid"), "{}", error(line, &user()));
    let alone = Caller { subuids: Vec::new(), ..user() };
    assert!(error("--image host --user web", &alone).contains("nobody outside"));
    assert_eq!(value("--image host", &alone, "/linux/uidMappings").as_array().map(Vec::len), Some(1));
    assert!(!mounted("--image host", &alone, "/dev/pts").contains("gid=5"));
}

#[test]
fn variables_come_from_settings_files_flags_and_the_caller() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("env");
    std::fs::write(&file, "# comment\n\nA=file\nB=file=2\n LANG\n").unwrap();
    let line = format!("--image host --env-file {} -e A=flag -e GONE -e LC_* -e HOME=/h x", file.display());
    let env = value(&line, &user(), "/process/env");
    let env: Vec<_> = env.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(
        env,
        [
            "A=flag",
            "B=file=2",
            "HOME=/h",
            "HOSTNAME=x",
            "LANG=C",
            "LC_ALL=C",
            "LC_TIME=C",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "container=ctr"
        ]
    );
}

#[test]
fn the_seccomp_profile_knows_the_capabilities() {
    let rules = |line: &str| value(line, &root(), "/linux/seccomp").to_string();
    assert_ne!(rules("--image host"), rules("--image host --cap-add SYS_ADMIN"));
    assert_eq!(rules("--image host --security-opt seccomp=unconfined"), "null");
    assert!(error("--image host --security-opt seccomp=/nonexistent", &root()).contains("/nonexistent"));
}

#[test]
fn flags_that_make_no_sense_are_named() {
    for (line, part) in [
        ("--image host --workdir tmp", "--workdir tmp"),
        ("--image host --ulimit nofile=2:1", "--ulimit nofile=2:1"),
        ("--image host --ulimit bogus=1", "--ulimit bogus=1"),
        ("--image host --annotation =x", "--annotation =x"),
        ("--image host --entrypoint [1]", "--entrypoint [1]"),
        ("--image host --cap-add BOGUS", "\"BOGUS\" is not a capability"),
        ("--image host --env-file /nonexistent", "--env-file /nonexistent"),
        ("--image host -v a:/b", "--volume a:/b"),
    ] {
        assert!(error(line, &root()).contains(part), "{line}: {}", error(line, &root()));
    }
}

/// Whoever may make a device gets one, and the right to use it; others have the host's bound.
#[test]
fn a_device_is_made_or_bound() {
    let spec =
        serde_json::to_value(compiled("--image host --device /dev/full:/dev/x:rw", &root()).unwrap().spec)
            .unwrap();
    let device = &spec["linux"]["devices"][0];
    assert_eq!(
        (&device["path"], &device["major"], &device["minor"]),
        (&"/dev/x".into(), &1.into(), &7.into())
    );
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[0]["allow"], &rules[1]["access"]), (2, &false.into(), &"rw".into()));
    let spec =
        serde_json::to_value(compiled("--image host --device /dev/full:/dev/x", &user()).unwrap().spec)
            .unwrap();
    assert!(spec["linux"]["devices"].as_array().is_none_or(Vec::is_empty));
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["source"] == "/dev/full" && mount["destination"] == "/dev/x"));
}
