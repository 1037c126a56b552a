//! Hostile configurations: whatever the text, nothing panics and no unsound plan comes of it. The fuzzer
//! (tests/fuzz/run) checks the same for longer; what it finds becomes a file of its corpus and is checked here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/fuzz/src/check.rs"]
mod check;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn the_corpus_holds() {
    let corpus = corpus();
    assert!(corpus.len() >= 3);
    for (name, text) in &corpus {
        let plans = check::configuration(text);
        // Those that were written to be good are; findings of the fuzzer need not be.
        assert!(plans > 0 || name.contains("finding"), "{name} is refused");
    }
}

/// Every beginning of a configuration, and every one with a byte missing: torn files.
#[test]
fn torn_texts_hold() {
    for (_, text) in corpus() {
        for end in (0..text.len()).step_by(7) {
            check::configuration(&text[..end]);
            check::configuration(&[&text[..end], &text[end + 1..]].concat());
        }
    }
}

/// The JSON pointers of all values.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                pointers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

/// Values that nobody means.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(u32::MAX)),
        Just(json!(1e300)),
        any::<i64>().prop_map(|number| json!(number)),
    ];
    let texts = prop_oneof![
        Just(String::new()),
        Just("/".to_owned()),
        Just("../../..".to_owned()),
        Just("a\0b".to_owned()),
        Just("x".repeat(5000)),
        Just("\u{202e}".to_owned()),
        Just("0-4294967295".to_owned()),
        "[a-z/.:=@#;,0-9-]{0,24}",
        any::<String>(),
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers,
        texts.prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[]]]])),
        Just(json!({"type": "user", "path": "/"})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A configuration with everything in it, some values of which are others.
    #[test]
    fn odd_values_hold(changes in proptest::collection::vec((any::<prop::sample::Index>(), odd()), 1..6)) {
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/everything.json"));
        let mut json: Value = serde_json::from_slice(&text.unwrap()).unwrap();
        for (which, value) in changes {
            let mut all = Vec::new();
            pointers(&json, "", &mut all);
            *json.pointer_mut(which.get::<String>(&all)).unwrap() = value;
        }
        check::configuration(&serde_json::to_vec(&json).unwrap());
    }

    #[test]
    fn any_bytes_hold(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        check::configuration(&text);
    }
}
