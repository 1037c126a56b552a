//! The records of a pax extended header (tar(5), "Pax Interchange Format").

use super::sparse::Map;
use crate::error::{Error, Result};

/// A time: seconds since 1970 and the nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What records say of an entry; nothing is said twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub atime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<Map>,
}

impl Records {
    /// Takes in the records of one header. Of two of one name the later counts.
    pub(super) fn add(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)
                .ok_or_else(|| Error::damaged("a record of a pax header has not the length that it says"))?;
            self.set(key, value).ok_or_else(|| {
                let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
                Error::damaged(format!("the pax record {key}={value:?} makes no sense"))
            })?;
            bytes = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let name = |value: &[u8]| (!value.contains(&0)).then(|| value.to_vec());
        let text = || std::str::from_utf8(value).ok();
        match key {
            // An empty value takes back what a global header said.
            b"path" => self.path = Some(name(value)?).filter(|path| !path.is_empty()),
            b"linkpath" => self.link = Some(name(value)?).filter(|path| !path.is_empty()),
            b"size" => self.size = Some(text()?.parse().ok()?),
            b"uid" => self.uid = Some(text()?.parse().ok()?),
            b"gid" => self.gid = Some(text()?.parse().ok()?),
            b"mtime" => self.mtime = Some(time(text()?)?),
            b"atime" => self.atime = Some(time(text()?)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(name, value)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().set(name, value)?;
                }
            }
        }
        Some(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        self.xattrs.retain(|(earlier, _)| earlier != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Some(())
    }

    /// These records, and those of `global` where they say nothing.
    pub(super) fn over(self, global: &Records) -> Records {
        Records {
            path: self.path.or_else(|| global.path.clone()),
            link: self.link.or_else(|| global.link.clone()),
            size: self.size.or(global.size),
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            mtime: self.mtime.or(global.mtime),
            atime: self.atime.or(global.atime),
            xattrs: if self.xattrs.is_empty() { global.xattrs.clone() } else { self.xattrs },
            sparse: self.sparse.or_else(|| global.sparse.clone()),
        }
    }
}

/// Divides `LENGTH KEY=VALUE\n` and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let inner = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = inner.iter().position(|byte| *byte == b'=')?;
    Some((&inner[..equals], &inner[equals + 1..], &bytes[length..]))
}

/// Reads `SECONDS[.FRACTION]`.
fn time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    // -1.25 is a quarter of a second before -1.
    match whole.starts_with('-') && nanoseconds > 0 {
        true => Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds }),
        false => Some(Time { seconds, nanoseconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let of = |text| time(text).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(of("1700000000.123456789123"), Some((1_700_000_000, 123_456_789)));
        assert_eq!(of("5.5"), Some((5, 500_000_000)));
        assert_eq!(of("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(of("7"), Some((7, 0)));
        for wrong in ["", "x", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_value_may_have_a_newline() {
        let mut records = Records::default();
        records.add(b"30 SCHILY.xattr.user.a=b\nc\x00d=\n12 path=x/y\n").unwrap();
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"b\nc\0d=".to_vec())]);
        assert_eq!(records.path, Some(b"x/y".to_vec()));
    }

    #[test]
    fn records_that_lie_are_refused() {
        for wrong in [
            &b"999 path=x\n"[..],
            b"10 path=x",
            b"9 path=x\n\n",
            b"-1 path=x\n",
            b"5 x\n",
            b"path=x\n",
            b"11 size=ten\n",
            b"13 path=a\0b/c\n",
        ] {
            assert!(Records::default().add(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
