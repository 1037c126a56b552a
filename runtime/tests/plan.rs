//! Plans in words: the same configuration gives the same plan, wherever the tests run.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/fuzz/src/check.rs"]
#[allow(dead_code)] // Each user of it uses a part.
mod check;

use ctr_runtime::bundle::Bundle;
use ctr_runtime::facts::Facts;
use ctr_runtime::plan::{Manager, Plan, Request, create, describe, exec, ns};
use std::path::Path;

fn bundle(name: &str) -> Bundle {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
    Bundle::parse("/bundle".into(), std::fs::read(file).unwrap()).unwrap()
}

fn request(systemd: bool) -> Request {
    let manager = if systemd { Manager::Systemd } else { Manager::Cgroupfs };
    Request { id: "web".into(), manager, has_console: true, ..Request::default() }
}

fn words(plan: &Plan) -> String {
    let steps = describe::steps(plan).into_iter().map(|step| format!("{}: {}\n", step.phase, step.what));
    let warnings = plan.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    steps.chain(warnings).collect()
}

#[test]
fn the_default_configuration_as_root() {
    let plan = create::create(&bundle("default.json"), &request(false), &check::facts(0)).unwrap();
    insta::assert_snapshot!(words(&plan));
}

#[test]
fn the_rootless_configuration_as_an_ordinary_user() {
    let plan = create::create(&bundle("rootless.json"), &request(false), &check::facts(1000)).unwrap();
    insta::assert_snapshot!(words(&plan));
}

/// Every property of the specification, in one configuration.
#[test]
fn everything_at_once_under_systemd() {
    let plan = create::create(&bundle("everything.json"), &request(true), &check::facts(0)).unwrap();
    insta::assert_snapshot!(words(&plan));
}

#[test]
fn one_more_process() {
    let bundle = bundle("default.json");
    let process = bundle.spec.process().clone().unwrap();
    let plan =
        exec::exec(&bundle, &process, 7, ns::PID | ns::MOUNT, &request(false), &check::facts(0)).unwrap();
    insta::assert_snapshot!(words(&plan));
}

/// setresuid(2) takes -1 for "leave it as it is", which is root.
#[test]
fn an_id_that_is_none_is_refused() {
    for key in ["uid", "gid"] {
        let mut json: serde_json::Value = serde_json::from_slice(&bundle("default.json").text).unwrap();
        json["process"]["user"][key] = u32::MAX.into();
        let bundle = Bundle::parse("/bundle".into(), serde_json::to_vec(&json).unwrap()).unwrap();
        let error = create::create(&bundle, &request(false), &check::facts(0)).unwrap_err().to_string();
        assert!(error.contains(&format!("/process/user/{key}")), "{error}");
    }
}

/// Hybrid: of version 1 a container is in what its limits need, or, where its caller has a place for it, in all there is.
#[test]
fn version_1_is_used_where_it_is_needed() {
    let own = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "/own".into())).collect();
    let hybrid = |uid: u32| {
        let mut facts = check::facts(uid);
        facts.hierarchy.as_mut().unwrap().unified = false;
        Facts { v1: own(&["cpu", "freezer", "memory"]), ..facts }
    };
    let plan = |name: &str, change: &dyn Fn(&mut serde_json::Value), request: &Request, facts: &Facts| {
        let mut json: serde_json::Value = serde_json::from_slice(&bundle(name).text).unwrap();
        change(&mut json);
        let bundle = Bundle::parse("/bundle".into(), serde_json::to_vec(&json).unwrap()).unwrap();
        create::create(&bundle, request, facts)
    };
    let limit = |json: &mut serde_json::Value| {
        json["linux"]["resources"]["memory"] = serde_json::json!({"limit": 9 << 20})
    };
    let place = |json: &mut serde_json::Value| json["linux"]["cgroupsPath"] = "/there/web".into();
    let nothing = |_: &mut serde_json::Value| {};
    let paths = |plan: &Plan| -> Vec<(String, String)> {
        let v1 = &plan.cgroup.as_ref().unwrap().v1;
        v1.iter().map(|(name, path)| (name.clone(), path.display().to_string())).collect()
    };
    let pairs = |names: &[&str], path: &str| -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), path.to_owned())).collect()
    };
    let without = plan("default.json", &nothing, &request(false), &hybrid(0)).unwrap();
    assert_eq!((paths(&without), without.init.at_once), (vec![], true));
    let limited = plan("default.json", &limit, &request(false), &hybrid(0)).unwrap();
    assert_eq!(paths(&limited), pairs(&["memory"], "/own/web"));
    assert_eq!((limited.init.at_once, limited.init.unshare_cgroup), (false, true), "it waits to be put in");
    assert!(words(&limited).contains("cgroup: make /own/web for memory, which is in version 1\n"));
    assert!(words(&limited).contains("cgroup: write \"9437184\" to memory.limit_in_bytes\n"));
    let placed = plan("default.json", &place, &request(false), &hybrid(0)).unwrap();
    assert_eq!(paths(&placed), pairs(&["cpu", "freezer", "memory"], "/there/web"));
    let counted = Request { counted: true, ..request(false) };
    assert_eq!(
        paths(&plan("default.json", &nothing, &counted, &hybrid(0)).unwrap()),
        pairs(&["cpu", "memory"], "/own/web")
    );
    // /proc names them on a host with version 2 alone as well, if they were mounted before.
    let unified = Facts { v1: own(&["memory"]), ..check::facts(0) };
    assert_eq!(paths(&plan("default.json", &limit, &request(false), &unified).unwrap()), vec![]);
    // Others than the host's root are told.
    let why =
        "memory.max to 9437184: the limit needs the cgroup controller memory, which is in version 1 here";
    let inside = Facts { in_user_namespace: true, ..hybrid(0) };
    for (name, facts) in [("rootless.json", hybrid(1000)), ("default.json", inside)] {
        let error = plan(name, &limit, &request(false), &facts).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let best_effort = Request { best_effort: true, ..request(false) };
        let plan = plan(name, &limit, &best_effort, &facts).unwrap();
        assert!(plan.warnings.iter().any(|warning| warning.contains(why)), "{:?}", plan.warnings);
        assert!(plan.cgroup.unwrap().files.is_empty());
    }
}
