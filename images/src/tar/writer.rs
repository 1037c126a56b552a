//! Entries as a tar stream: ustar headers, and pax records for what these have no room for (tar(5)). Nothing in
//! it depends on when or by whom it is written.

use super::{BLOCK, Entry, Kind, Time};
use crate::error::{Context, Error, Result};
use std::io::{self, Read, Write};

/// Writes entries one by one.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
}

impl<W: Write> Writer<W> {
    /// Writes an archive to `inner`.
    pub fn new(inner: W) -> Writer<W> {
        Writer { inner }
    }

    /// Writes an entry; where it is a file, `contents` has its `size` bytes. Holes are written as zeros.
    ///
    /// # Errors
    /// That of writing or reading; that `contents` ends too early, or that the entry has what no archive can
    /// say.
    pub fn entry(&mut self, entry: &Entry, contents: impl Read) -> Result<()> {
        let mut records = Records::default();
        let header = header(entry, &mut records)?;
        if !records.0.is_empty() {
            self.records(entry, &records.0)?;
        }
        self.inner.write_all(header.as_bytes())?;
        let size = stored(entry);
        if size > 0 {
            let copied = io::copy(&mut contents.take(size), &mut self.inner)?;
            if copied < size {
                return Err(Error::damaged(format!("it ends {} bytes too early", size - copied)));
            }
            self.pad(size)?;
        }
        Ok(())
    }

    /// Marks the archive's end; returns what it was written to.
    ///
    /// # Errors
    /// That of writing.
    pub fn finish(mut self) -> Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK]).doing(|| "write the archive's end")?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// An entry that says more of the next one.
    fn records(&mut self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_ustar_mut().ok_or_else(not_ustar)?;
        // Programs that do not know these records make a file of this name of them.
        let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        fill(&mut fields.name, &[b"PaxHeaders.0/", name].concat());
        octal(&mut fields.mode, 0o644);
        octal(&mut fields.uid, 0);
        octal(&mut fields.gid, 0);
        octal(&mut fields.mtime, 0);
        octal(&mut fields.size, bytes.len() as u64);
        fields.typeflag = *b"x";
        header.set_cksum();
        self.inner.write_all(header.as_bytes())?;
        self.inner.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = size.wrapping_neg() % BLOCK as u64;
        Ok(self.inner.write_all(&[0; BLOCK][..padding as usize])?)
    }
}

fn stored(entry: &Entry) -> u64 {
    if entry.kind == Kind::File { entry.size } else { 0 }
}

fn not_ustar() -> Error {
    Error::other("the header is not of the format ustar")
}

/// The header of `entry`; what it has no room for goes to `records`.
fn header(entry: &Entry, records: &mut Records) -> Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_ustar_mut().ok_or_else(not_ustar)?;
    if !fill(&mut fields.name, &entry.path) {
        records.add(b"path", &entry.path);
    }
    if !fill(&mut fields.linkname, &entry.link) {
        records.add(b"linkpath", &entry.link);
    }
    octal(&mut fields.mode, u64::from(entry.mode & 0o7777));
    let mut number = |field: &mut [u8], key: &[u8], value: u64| {
        if !octal(field, value) {
            records.add(key, value.to_string().as_bytes());
        }
    };
    number(&mut fields.uid, b"uid", entry.uid.into());
    number(&mut fields.gid, b"gid", entry.gid.into());
    number(&mut fields.size, b"size", stored(entry));
    let whole = u64::try_from(entry.mtime.seconds);
    let fits = octal(&mut fields.mtime, whole.unwrap_or_default());
    if entry.mtime.nanoseconds > 0 || whole.is_err() || !fits {
        records.add(b"mtime", decimal(entry.mtime).as_bytes());
    }
    if let Some(time) = entry.atime {
        records.add(b"atime", decimal(time).as_bytes());
    }
    // Their numbers have 12 and 20 bits (makedev(3)): they fit.
    octal(&mut fields.dev_major, entry.device.0.into());
    octal(&mut fields.dev_minor, entry.device.1.into());
    fields.typeflag = [match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }];
    for (key, value) in &entry.xattrs {
        if !can_be_written(key) {
            let key = String::from_utf8_lossy(key);
            return Err(Error::other(format!(
                "the name of its attribute {key:?} cannot be written to a tar"
            )));
        }
        records.add(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    header.set_cksum();
    Ok(header)
}

/// Whether a record can have an extended attribute of that name: its name ends at the first `=`.
pub fn can_be_written(attribute: &[u8]) -> bool {
    !attribute.is_empty() && !attribute.iter().any(|byte| matches!(byte, b'=' | 0))
}

/// Writes as much of `text` as there is room for; false where that is not all.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    let length = field.len().min(text.len());
    field[..length].copy_from_slice(&text[..length]);
    length == text.len()
}

/// Writes `value`, or zero where there is no room for it: then false.
fn octal(field: &mut [u8], value: u64) -> bool {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    let fits = digits.len() <= width;
    let digits = if fits { digits } else { "0".repeat(width) };
    fill(field, digits.as_bytes());
    fits
}

/// `SECONDS[.FRACTION]`.
fn decimal(time: Time) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Records of a pax extended header.
#[derive(Debug, Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // A blank, `=` and the end of line; and the length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        for part in [key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Reader};
    use super::*;

    fn entry(kind: Kind, path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: 0o4751,
            uid: 1,
            gid: 2,
            mtime: Time { seconds: 3, nanoseconds: 0 },
            atime: None,
            device: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            segments: vec![(0, 0)],
        }
    }

    /// What is written is read back the same; returns how many bytes it has.
    fn check(entry: &Entry, contents: &[u8]) -> usize {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry, contents).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(bytes.as_slice(), Limits { entries: 10, bytes: 1 << 20 });
        assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        let mut found = Vec::new();
        let all = reader.contents(|_, part| {
            found.extend_from_slice(part);
            Ok(())
        });
        all.unwrap();
        assert_eq!(found, contents);
        assert!(reader.next_entry().unwrap().is_none() && reader.is_whole());
        bytes.len()
    }

    #[test]
    fn a_header_is_enough_for_most() {
        assert_eq!(check(&entry(Kind::Directory, "a/b/"), b""), 3 * BLOCK);
        let file = Entry { size: 5, segments: vec![(0, 5)], ..entry(Kind::File, "f") };
        assert_eq!(check(&file, b"hello"), 4 * BLOCK);
        let name = "n".repeat(100);
        let link = Entry { link: name.clone().into(), ..entry(Kind::Symlink, &name) };
        assert_eq!(check(&link, b""), 3 * BLOCK);
        check(&Entry { device: (4095, 1_048_575), ..entry(Kind::BlockDevice, "b") }, b"");
        check(&entry(Kind::Fifo, "p"), b"");
        check(&Entry { link: "f".into(), ..entry(Kind::HardLink, "g") }, b"");
    }

    #[test]
    fn records_say_the_rest() {
        let long = "d/".repeat(300) + "f";
        for seconds in [-5_i64, -1, 0, 1_700_000_000, 1 << 40] {
            for nanoseconds in [0, 1, 250_000_000, 999_999_999] {
                let mtime = Time { seconds, nanoseconds };
                check(&Entry { mtime, atime: Some(mtime), ..entry(Kind::Fifo, "p") }, b"");
            }
        }
        let xattrs = vec![(b"user.a".to_vec(), b"x\n=\0y".to_vec()), (b"user.b".to_vec(), vec![7; 5000])];
        let entry = Entry {
            link: long.clone().into(),
            uid: 3_000_000,
            gid: u32::MAX - 1,
            xattrs,
            ..entry(Kind::Symlink, &long)
        };
        check(&entry, b"");
    }

    /// 8 to 12 bytes of it, so that the length's own digits count.
    #[test]
    fn a_record_has_the_length_that_it_says() {
        for length in 0..1200 {
            let mut records = Records::default();
            records.add(b"k", &vec![b'v'; length]);
            let said = String::from_utf8_lossy(&records.0);
            let said: usize = said.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, records.0.len());
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let short = Entry { size: 5, ..entry(Kind::File, "f") };
        assert!(Writer::new(Vec::new()).entry(&short, &b"abc"[..]).is_err());
        let strange = Entry { xattrs: vec![(b"user.a=b".to_vec(), Vec::new())], ..entry(Kind::File, "f") };
        assert!(Writer::new(Vec::new()).entry(&strange, &b""[..]).is_err());
    }
}
