//! A JSON object as a text that people look after: its keys keep their order, and values nobody asked to change their text.

use std::fmt::{self, Write};

use anyhow::{Context, Result};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The object, and how it is indented.
#[derive(Debug, Default)]
pub(super) struct Object {
    entries: Vec<(String, Box<RawValue>)>,
}

impl Object {
    /// Reads it; nothing but blanks is an empty one.
    pub(super) fn parse(text: &str) -> Result<Object> {
        if text.trim().is_empty() {
            return Ok(Object::default());
        }
        Ok(serde_json::from_str(text)?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text of a value.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.get())
    }

    /// The value, read as a string.
    pub(super) fn string(&self, key: &str) -> Result<Option<String>> {
        self.get(key).map(|value| serde_json::from_str(value).with_context(|| format!("{key:?}"))).transpose()
    }

    /// The value, read as an object; an empty one if there is none.
    pub(super) fn object(&self, key: &str) -> Result<Object> {
        self.get(key).map_or_else(
            || Ok(Object::default()),
            |value| Object::parse(value).with_context(|| format!("{key:?}")),
        )
    }

    /// Gives a key the value that this text is, in its place or at the end.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let value = RawValue::from_string(value.to_owned())?;
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key.to_owned(), value)),
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.entries.retain(|(name, _)| name != key);
    }

    /// The text, indented by `indent` and standing `depth` levels deep.
    pub(super) fn text(&self, indent: &str, depth: usize) -> String {
        if self.is_empty() {
            return "{}".to_owned();
        }
        let inner = indent.repeat(depth + 1);
        let mut text = "{".to_owned();
        for (number, (key, value)) in self.entries.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let key = serde_json::Value::from(key.as_str());
            let _ = write!(text, "{comma}\n{inner}{key}: {}", value.get());
        }
        text + "\n" + &indent.repeat(depth) + "}"
    }
}

/// What the first key of `text` is indented by.
pub(super) fn indent_of(text: &str) -> &str {
    let after = text.split_once('{').map_or("", |(_, after)| after.trim_start_matches(['\r', '\n']));
    let indent = &after[..after.len() - after.trim_start_matches([' ', '\t']).len()];
    if indent.is_empty() { "  " } else { indent }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::default();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Which of them holds is each reader's own choice.
                    if object.get(&key).is_some() {
                        return Err(A::Error::custom(format!("{key:?} is there twice")));
                    }
                    object.entries.push((key, value));
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_keeps_its_order_and_its_text() {
        let text = "{\n\t\"z\": [1,   2],\n\t\"a\": {\"x\":1.50},\n\t\"s\": \"\\u0041\"\n}";
        let mut object = Object::parse(text).unwrap();
        assert_eq!(object.text(indent_of(text), 0), text);
        object.set("new", "true").unwrap();
        object.set("z", "0").unwrap();
        object.remove("a");
        assert_eq!(object.text("\t", 0), "{\n\t\"z\": 0,\n\t\"s\": \"\\u0041\",\n\t\"new\": true\n}");
        assert_eq!(object.string("s").unwrap().as_deref(), Some("A"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, words) in [
            ("[]", "an object"),
            ("{\"a\": 1,}", "trailing comma at line 1 column 9"),
            ("{\"a\": 1} x", "trailing characters"),
            ("{\"a\": 1, \"a\": 2}", "\"a\" is there twice"),
        ] {
            let error = Object::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(Object::parse(" \n").unwrap().is_empty());
    }
}
