//! Plans in words: the same configuration gives the same plan, wherever the tests run.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/fuzz/src/check.rs"]
#[allow(dead_code)] // Each user of it uses a part.
mod check;

use ctr_runtime::bundle::Bundle;
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
