//! D-Bus messages as bytes (the D-Bus specification, "Message Protocol"), as far as we speak it: little-endian.

use crate::{Error, Result};

/// A value of a property, in the type that systemd wants for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`: limits and weights; `u64::MAX` is infinity.
    U64(u64),
    /// `s`
    String(String),
    /// `ay`: sets of CPUs and memory nodes, bit by bit.
    Bytes(Vec<u8>),
    /// `as`
    Strings(Vec<String>),
    /// `au`: process ids.
    U32s(Vec<u32>),
    /// `a(st)`: limits of devices, by the paths of their nodes.
    Amounts(Vec<(String, u64)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::String(_) => "s",
            Value::Bytes(_) => "ay",
            Value::Strings(_) => "as",
            Value::U32s(_) => "au",
            Value::Amounts(_) => "a(st)",
        }
    }
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name on the bus: `MemoryMax`, `CPUWeight`, `Delegate` and so on.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Property {
    /// The property `name` with `value`.
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Property { name: name.into(), value }
    }
}

/// Values in the order of a signature. Padding counts from its begin, so it must begin at a multiple of eight.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        Writer::default()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    pub(super) fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `to`.
    pub(super) fn array(&mut self, to: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(to);
        let begin = self.0.len();
        elements(self);
        let size = (self.0.len() - begin) as u32;
        self.0[length..length + 4].copy_from_slice(&size.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.u64(value.cast_unsigned()),
            Value::U64(value) => self.u64(*value),
            Value::String(text) => self.string(text),
            Value::Bytes(bytes) => self.array(1, |w| w.0.extend(bytes)),
            Value::Strings(texts) => self.array(4, |w| texts.iter().for_each(|text| w.string(text))),
            Value::U32s(numbers) => self.array(4, |w| numbers.iter().for_each(|number| w.u32(*number))),
            Value::Amounts(amounts) => self.array(8, |w| {
                for (path, amount) in amounts {
                    w.align(8);
                    w.string(path);
                    w.u64(*amount);
                }
            }),
        }
    }

    /// `a(sv)`
    pub(super) fn properties(&mut self, properties: &[Property]) {
        self.array(8, |w| {
            for property in properties {
                w.align(8);
                w.string(&property.name);
                w.variant(&property.value);
            }
        });
    }

    /// A field of a header: its number, and its value as a variant of the type `signature`.
    pub(super) fn field(&mut self, number: u8, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.0.push(number);
        self.signature(signature);
        value(self);
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The bytes of a message.
pub(super) fn build(
    kind: Kind,
    serial: u32,
    fields: impl FnOnce(&mut Writer),
    signature: &str,
    body: &Writer,
) -> Vec<u8> {
    // Little-endian, the kind, no flags, version 1 of the protocol.
    let mut message = Writer(vec![b'l', kind as u8, 0, 1]);
    message.u32(body.0.len() as u32);
    message.u32(serial);
    message.array(8, |w| {
        fields(w);
        if !signature.is_empty() {
            w.field(SIGNATURE, "g", |w| w.signature(signature));
        }
    });
    message.align(8);
    message.0.extend(body.bytes());
    message.0
}

/// The bytes of a call.
pub(super) fn call(
    serial: u32,
    to: &str,
    path: &str,
    interface: &str,
    method: &str,
    signature: &str,
    body: &Writer,
) -> Vec<u8> {
    let fields = |w: &mut Writer| {
        w.field(PATH, "o", |w| w.string(path));
        w.field(INTERFACE, "s", |w| w.string(interface));
        w.field(MEMBER, "s", |w| w.string(method));
        w.field(DESTINATION, "s", |w| w.string(to));
    };
    build(Kind::Call, serial, fields, signature, body)
}

/// A message we got.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests' bus answers by it"))]
    pub(super) serial: u32,
    /// The call it answers.
    pub(super) reply_to: u32,
    /// The name of the error, or of the signal or method.
    pub(super) name: String,
    /// The types in its body.
    pub(super) signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The length of the message whose first 16 bytes these are.
    pub(super) fn length(head: &[u8]) -> Result<usize> {
        let mut reader = Reader { bytes: head, at: 4 };
        if head.first() != Some(&b'l') || head.get(3) != Some(&1) {
            return Err(Error::new("a message of an unknown kind of D-Bus"));
        }
        let (body, _serial, fields) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Ok((16 + fields as usize).next_multiple_of(8) + body as usize)
    }

    /// Reads a whole message.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            // What later versions may bring is to be ignored, as are signals nobody waits for.
            _ => Kind::Signal,
        };
        let mut reader = Reader { bytes, at: 4 };
        let (_length, serial, fields) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let end = 16 + fields as usize;
        let mut message = Message {
            kind,
            serial,
            reply_to: 0,
            name: String::new(),
            signature: String::new(),
            body: Vec::new(),
        };
        while reader.at < end {
            reader.align(8);
            let number = reader.byte()?;
            match (number, reader.signature()?) {
                (MEMBER | ERROR_NAME, "s") => message.name = reader.string()?.to_owned(),
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (SIGNATURE, "g") => message.signature = reader.signature()?.to_owned(),
                (_, "s" | "o") => drop(reader.string()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                (number, kind) => {
                    return Err(Error::new(format!(
                        "field {number} of a D-Bus message has the type {kind:?}"
                    )));
                }
            }
        }
        reader.align(8);
        message.body = bytes.get(reader.at..).ok_or_else(cut_off)?.to_vec();
        Ok(message)
    }

    pub(super) fn body(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

fn cut_off() -> Error {
    Error::new("a D-Bus message is cut off")
}

/// Reads values one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut_off)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|taken| taken[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let four = self.take(4)?;
        Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    }

    /// A string or an object's path.
    pub(super) fn string(&mut self) -> Result<&'a str> {
        let length = self.u32()?;
        self.text(length as usize)
    }

    /// A signature: what a variant begins with.
    pub(super) fn signature(&mut self) -> Result<&'a str> {
        let length = self.byte()?;
        self.text(length.into())
    }

    fn text(&mut self, length: usize) -> Result<&'a str> {
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Error::new("a string in a D-Bus message is not UTF-8"))
    }
}
