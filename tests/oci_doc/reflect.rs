//! The properties a type can be read from, found out by reading it.
//!
//! `derive(Deserialize)` tells the deserializer the names of a struct's fields. This one answers with a value for
//! each of them and notes where it was: what a library can parse is thereby known, whatever version it has.

use std::{cell::RefCell, collections::BTreeSet, fmt, rc::Rc};

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

/// Pointers to all properties of `T`; `*` stands for an item of a list or a key of a map.
///
/// # Panics
/// When `T` takes none of the values that are offered.
pub(crate) fn properties<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
    let found = Rc::default();
    let at = Place { pointer: String::new(), found: Rc::clone(&found), text: "" };
    if let Err(error) = T::deserialize(at) {
        panic!("{error}");
    }
    found.take()
}

/// A place in a document, which holds whatever is asked for.
#[derive(Clone)]
struct Place {
    pointer: String,
    found: Rc<RefCell<BTreeSet<String>>>,
    /// What a string here is, where that is known: the key of a map.
    text: &'static str,
}

impl Place {
    fn below(&self, name: &str) -> Place {
        Place { pointer: format!("{}/{name}", self.pointer), ..self.clone() }
    }

    /// The place of one field, which is a property.
    fn field(&self, name: &str) -> Place {
        let place = self.below(name);
        self.found.borrow_mut().insert(place.pointer.clone());
        place
    }
}

/// A string that is a path, a version, a name, and a capability where one is wanted.
const TEXT: &str = "CHOWN";

impl<'de> de::Deserializer<'de> for Place {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(match self.text {
            "" if self.pointer.contains("/execCPUAffinity/") => "0",
            "" => TEXT,
            key => key,
        })
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(true)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i8(1)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i32(1)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i64(1)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u8(1)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u16(1)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u32(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(1)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Once(Some(self.below("*"))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Fields { names: vec!["*"], value: None, at: self, are_properties: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        // Backwards, since they are taken from the end.
        let names = fields.iter().rev().copied().collect();
        visitor.visit_map(Fields { names, value: None, at: self, are_properties: true })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(StrDeserializer::<Fault>::new(variants[0]))
    }

    forward_to_deserialize_any! {
        i16 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

/// A list of one.
struct Once(Option<Place>);

impl<'de> de::SeqAccess<'de> for Once {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.0.take().map(|place| seed.deserialize(place)).transpose()
    }
}

/// The fields of a struct, or one entry of a map.
struct Fields {
    names: Vec<&'static str>,
    value: Option<&'static str>,
    at: Place,
    are_properties: bool,
}

impl<'de> de::MapAccess<'de> for Fields {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.names.pop();
        let key = |text| seed.deserialize(Place { text, ..self.at.clone() });
        self.value.map(key).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let name = self.value.take().unwrap_or_default();
        let place = if self.are_properties { self.at.field(name) } else { self.at.below(name) };
        seed.deserialize(Place { text: "", ..place })
    }
}

/// Why a type took none of the values.
#[derive(Debug)]
pub(crate) struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault(message.to_string())
    }
}
