//! docs/oci.md has a row for every property of the specification, and none for what is no property.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

#[path = "oci_doc/reflect.rs"]
mod reflect;

use std::{collections::BTreeSet, fs};

use oci_spec::runtime::{ContainerProcessState, Features, Spec, State};

/// Properties of the specification that the library knows nothing of.
const BEYOND: [&str; 1] = ["/freebsd"];

/// Of these one row says all.
const OTHER_PLATFORMS: [&str; 4] = ["/solaris/", "/windows/", "/vm/", "/zos/"];

fn document() -> String {
    // Tests are run in the folder of their package.
    fs::read_to_string("docs/oci.md").unwrap()
}

/// The cells of each row below the heading `title`, up to the next of its kind.
fn rows(title: &str) -> Vec<Vec<String>> {
    let document = document();
    let section = document.split("\n## ").find(|section| section.starts_with(&format!("{title}\n")));
    let section = section.unwrap_or_else(|| panic!("docs/oci.md has no section {title}"));
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The paths that `pattern` stands for: `{a,b}` is either.
fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (words, after) = rest.split_once('}').expect("a brace that is closed");
    words.split(',').flat_map(|word| expand(&format!("{before}{word}{after}"))).collect()
}

fn check(title: &str, properties: BTreeSet<String>) {
    let named: Vec<String> = rows(title).iter().flat_map(|row| expand(row[0].trim_matches('`'))).collect();
    let unique: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(named.len(), unique.len(), "{title}: a property has two rows");
    let missing: Vec<_> = properties.difference(&unique).collect();
    assert!(missing.is_empty(), "{title}: no row for {missing:#?}");
    let unknown: Vec<_> = unique.difference(&properties).collect();
    assert!(unknown.is_empty(), "{title}: no property of the specification: {unknown:#?}");
}

#[test]
fn every_property_of_the_configuration_has_a_row() {
    let mut properties = reflect::properties::<Spec>();
    properties.retain(|property| !OTHER_PLATFORMS.iter().any(|platform| property.starts_with(platform)));
    properties.extend(BEYOND.map(str::to_owned));
    check("config.json", properties);
}

#[test]
fn every_property_of_the_states_has_a_row() {
    check("State", reflect::properties::<State>());
    check("Process state", reflect::properties::<ContainerProcessState>());
}

#[test]
fn every_property_of_the_features_has_a_row() {
    check("Features", reflect::properties::<Features>());
}

#[test]
fn every_row_says_what_is_done_and_names_a_test_that_exists() {
    for title in ["config.json", "State", "Process state", "Features"] {
        for row in rows(title) {
            let [property, does, test] = row.as_slice() else { panic!("{row:?} has not three cells") };
            assert!(!does.is_empty(), "{property}: nothing is said of it");
            let Some((file, name)) = test.trim_matches('`').split_once('#') else {
                assert!(test.is_empty(), "{property}: {test} is not FILE#TEST");
                continue;
            };
            let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{property}: {file}: {error}"));
            assert!(text.contains(&format!("fn {name}(")), "{property}: {file} has no test {name}");
        }
    }
}

/// The walk itself: fields of structs, lists, maps, options and enums.
#[test]
fn reflection_finds_what_a_type_can_be_read_from() {
    let found = reflect::properties::<Spec>();
    for property in
        ["/process/rlimits/*/type", "/linux/netDevices/*/name", "/linux/seccomp/syscalls/*/args/*/valueTwo"]
    {
        assert!(found.contains(property), "{property}");
    }
}
