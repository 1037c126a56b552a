//! The ready files in examples/ are what the programs they are for can read, and say what they are there to say. Those of
//! podman, Docker, containerd and Swarm are used by the checks in tests/vm.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};

use toml::Table;
use yaml_rust2::{Yaml, YamlLoader};

const PROGRAM: &str = "/usr/bin/ctr-runtime";

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn toml(file: &str) -> Table {
    read(file).parse().unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(file: &str) -> Yaml {
    YamlLoader::load_from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}")).remove(0)
}

#[test]
fn podman_is_told_of_the_program() {
    let engine = &toml("podman/50-ctr.conf")["engine"];
    assert_eq!(engine["runtime"].as_str(), Some("ctr"));
    assert_eq!(engine["runtimes"]["ctr"][0].as_str(), Some(PROGRAM));
}

#[test]
fn docker_is_told_of_the_program() {
    let settings: serde_json::Value = serde_json::from_str(&read("docker/daemon.json")).unwrap();
    assert_eq!(settings["default-runtime"], "ctr");
    assert_eq!(settings["runtimes"]["ctr"]["path"], PROGRAM);
}

#[test]
fn containerd_is_told_of_the_program() {
    for (file, version, plugin) in [
        ("containerd/config-v2.toml", 2, "io.containerd.grpc.v1.cri"),
        ("containerd/config-v3.toml", 3, "io.containerd.cri.v1.runtime"),
    ] {
        let settings = toml(file);
        assert_eq!(settings["version"].as_integer(), Some(version));
        let containerd = &settings["plugins"][plugin]["containerd"];
        assert_eq!(containerd["default_runtime_name"].as_str(), Some("ctr"));
        let runtime = &containerd["runtimes"]["ctr"];
        assert_eq!(runtime["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
        assert_eq!(runtime["options"]["BinaryName"].as_str(), Some(PROGRAM));
    }
}

#[test]
fn cri_o_is_told_of_the_program() {
    let runtime = &toml("crio/50-ctr.conf")["crio"]["runtime"];
    assert_eq!(runtime["default_runtime"].as_str(), Some("ctr"));
    assert_eq!(runtime["runtimes"]["ctr"]["runtime_path"].as_str(), Some(PROGRAM));
    assert_eq!(runtime["runtimes"]["ctr"]["runtime_type"].as_str(), Some("oci"));
}

#[test]
fn a_pod_asks_for_the_class_and_has_limits() {
    let class = yaml("kubernetes/runtimeclass.yaml");
    assert_eq!(class["kind"].as_str(), Some("RuntimeClass"));
    assert_eq!(class["handler"].as_str(), Some("ctr"));
    let pod = yaml("kubernetes/pod.yaml");
    assert_eq!(pod["spec"]["runtimeClassName"], class["metadata"]["name"]);
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["memory"].as_str(), Some("64Mi"));
}

#[test]
fn a_stack_has_replicas_and_limits() {
    let stack = yaml("swarm/stack.yaml");
    let deploy = &stack["services"]["site"]["deploy"];
    assert_eq!(deploy["replicas"].as_i64(), Some(2));
    assert_eq!(deploy["resources"]["limits"]["memory"].as_str(), Some("64M"));
}

#[test]
fn a_job_s_runtime_is_one_that_the_client_allows() {
    let client: serde_json::Value = hcl::from_str(&read("nomad/client.hcl")).unwrap();
    let allowed = &client["plugin"]["docker"]["config"]["allow_runtimes"];
    let job: serde_json::Value = hcl::from_str(&read("nomad/job.hcl")).unwrap();
    let task = &job["job"]["bounded"]["group"]["main"]["task"]["main"];
    assert_eq!(task["config"]["runtime"].as_str(), Some("ctr"));
    assert!(allowed.as_array().unwrap().contains(&task["config"]["runtime"]), "{allowed}");
}
