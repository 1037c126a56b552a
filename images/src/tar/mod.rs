//! The entries of a tar stream (tar(5)): ustar, GNU and pax, sparse files included.
//!
//! The `tar` crate's reader takes what an archive says of itself for granted: it reads extended headers whole, whatever
//! their size, and divides pax records at newlines, which extended attributes may have. So the framing is here, every
//! part of it bounded, and the crate lays out the header blocks.

mod pax;
mod sparse;
mod writer;

use crate::error::{Error, Result};
pub use pax::Time;
use std::io::{BufRead, Seek};
use tar::EntryType;
pub use writer::{Writer, can_be_written};

const BLOCK: usize = 512;
/// The kernel takes no longer path (PATH_MAX).
const LONGEST_NAME: u64 = 4096;
/// All extended attributes of a file are below 64 KiB each, and a map of holes is bounded by this, too.
const LONGEST_RECORDS: u64 = 1 << 20;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes, holes of sparse files and all that is no file's contents included.
    pub bytes: u64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A hard link to an entry before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry, without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as it is written there.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// What a link leads to.
    pub link: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed last.
    pub mtime: Time,
    /// When it was read last, if that is said.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// The size of a file.
    pub size: u64,
    /// Extended attributes, in order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where a file has contents, in order and apart: offset and length. All else is holes.
    pub segments: Vec<(u64, u64)>,
}

/// Reads entries one by one.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    entries: u64,
    /// What is left of the bytes that are allowed.
    budget: u64,
    /// What of the entry's stored bytes has not been read.
    stored: u64,
    /// What follows them up to a whole block.
    padding: u64,
    segments: Vec<(u64, u64)>,
    global: pax::Records,
    /// The end was marked, not only reached.
    marked: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the archive that `inner` gives, as far as `limits` goes.
    pub fn new(inner: R, limits: Limits) -> Reader<R> {
        Reader {
            inner,
            limits,
            entries: 0,
            budget: limits.bytes,
            stored: 0,
            padding: 0,
            segments: Vec::new(),
            global: pax::Records::default(),
            marked: false,
        }
    }

    /// Whether the archive had an end, where there are no more entries: else it may have been cut off.
    pub fn is_whole(&self) -> bool {
        self.marked
    }

    /// How many entries there were so far.
    pub fn count(&self) -> u64 {
        self.entries
    }

    /// The next entry; what was not read of the one before is passed over.
    ///
    /// # Errors
    /// That of reading; what the archive says that cannot be, or that is more than is allowed.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let (mut own, mut name, mut link) = (pax::Records::default(), None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Error::damaged(format!("it has more than {} entries", self.limits.entries)));
            }
            let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| Error::damaged("the size of an entry is no number"))?;
            match header.entry_type() {
                EntryType::XHeader => own.add(&self.small(size, LONGEST_RECORDS)?)?,
                EntryType::XGlobalHeader => {
                    let records = self.small(size, LONGEST_RECORDS)?;
                    self.global.add(&records)?;
                }
                EntryType::GNULongName => name = Some(until_nul(self.small(size, LONGEST_NAME + 1)?)),
                EntryType::GNULongLink => link = Some(until_nul(self.small(size, LONGEST_NAME + 1)?)),
                kind => {
                    let records = own.over(&self.global);
                    let entry = self.entry(&header, kind, size, records, name, link)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        kind: EntryType,
        size: u64,
        records: pax::Records,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let path = records.path.or(name).unwrap_or_else(|| header.path_bytes().into_owned());
        let said = |what: &str| {
            Error::damaged(format!(
                "entry {:?}: its {what} is no number that can be",
                String::from_utf8_lossy(&path)
            ))
        };
        let field = |value: Option<u64>, bytes: &[u8], what: &str| match value {
            Some(value) => Ok(value),
            None => number(bytes).and_then(|value| u64::try_from(value).ok()).ok_or_else(|| said(what)),
        };
        let old = header.as_old();
        let id = |value, bytes: &[u8], what| {
            // The last one means "do not change" to chown(2).
            u32::try_from(field(value, bytes, what)?)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| said(what))
        };
        let (uid, gid) = (id(records.uid, &old.uid, "uid")?, id(records.gid, &old.gid, "gid")?);
        let mode = field(None, &old.mode, "mode")? & 0o7777;
        let mtime = match records.mtime {
            Some(time) => time,
            None => Time { seconds: number(&old.mtime).ok_or_else(|| said("time"))?, nanoseconds: 0 },
        };
        let kind = match kind {
            // Before ustar a directory was a file whose name ends so.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let what = char::from(other.as_byte());
                return Err(Error::damaged(format!(
                    "entry {:?} is of a type that images have not: {what:?}",
                    String::from_utf8_lossy(&path)
                )));
            }
        };
        let stored = match kind {
            Kind::File => records.size.unwrap_or(size),
            // Some programs write the size of the file that a hard link leads to, but no contents.
            Kind::HardLink if records.size.unwrap_or(size) > 0 && header.as_gnu().is_some() => 0,
            _ => records.size.unwrap_or(size),
        };
        self.stored = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let (size, segments) = match (kind, header.as_gnu(), &records.sparse) {
            (Kind::File, Some(gnu), _) if header.entry_type() == EntryType::GNUSparse => {
                let size = field(None, &gnu.realsize, "size")?;
                (size, self.gnu_map(gnu)?)
            }
            (Kind::File, _, Some(map)) => {
                let segments = if map.in_data { self.map_in_data()? } else { map.segments()? };
                (map.size.ok_or_else(|| said("size"))?, segments)
            }
            _ => (stored, vec![(0, stored)]),
        };
        sparse::check(&segments, size, self.stored)
            .map_err(|error| error.under(format!("entry {:?}", String::from_utf8_lossy(&path))))?;
        let holes = size.saturating_sub(self.stored);
        self.spend(holes)?;
        self.segments = segments.clone();
        let number_of = |bytes: &[u8]| number(bytes).and_then(|value| u32::try_from(value).ok());
        let device = match (kind, header.as_ustar(), header.as_gnu()) {
            (Kind::CharDevice | Kind::BlockDevice, Some(ustar), _) => {
                (number_of(&ustar.dev_major), number_of(&ustar.dev_minor))
            }
            (Kind::CharDevice | Kind::BlockDevice, None, Some(gnu)) => {
                (number_of(&gnu.dev_major), number_of(&gnu.dev_minor))
            }
            _ => (Some(0), Some(0)),
        };
        let device = device.0.zip(device.1).ok_or_else(|| said("device number"))?;
        Ok(Entry {
            kind,
            link: records.link.or(link).unwrap_or_else(|| {
                header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
            }),
            mode: mode as u32,
            uid,
            gid,
            mtime,
            atime: records.atime,
            device,
            size,
            xattrs: records.xattrs,
            segments,
            path: records.sparse.and_then(|map| map.name).unwrap_or(path),
        })
    }

    /// Gives the contents of the entry to `write`, part by part, each with its place in the file.
    ///
    /// # Errors
    /// That of reading, or of `write`.
    pub fn contents(&mut self, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        for (offset, length) in std::mem::take(&mut self.segments) {
            let mut done = 0;
            while done < length {
                let place = offset + done;
                done += self.part(length - done, |bytes| write(place, bytes))?;
            }
        }
        Ok(())
    }

    /// Passes on what is at hand, `most` bytes at most; returns how many there were.
    fn part(&mut self, most: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let buffer = self.inner.fill_buf()?;
        if buffer.is_empty() {
            return Err(Error::damaged("it ends in the middle of an entry"));
        }
        let count = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.budget = self.budget.checked_sub(count as u64).ok_or_else(|| too_large(self.limits))?;
        take(&buffer[..count])?;
        self.inner.consume(count);
        self.stored = self.stored.saturating_sub(count as u64);
        Ok(count as u64)
    }

    fn spend(&mut self, bytes: u64) -> Result<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or_else(|| too_large(self.limits))?;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        while self.stored > 0 {
            self.part(self.stored, |_| Ok(()))?;
        }
        let mut padding = std::mem::take(&mut self.padding);
        while padding > 0 {
            padding -= self.part(padding, |_| Ok(()))?;
        }
        Ok(())
    }

    /// The next header block that is one; none at the end.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            self.marked = true;
            // What comes after the end is no entry; it counts for the digest of the whole, and for the limits.
            while !self.inner.fill_buf()?.is_empty() {
                self.part(u64::MAX, |_| Ok(()))?;
            }
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        let sum = |as_number: fn(u8) -> i64| -> i64 {
            let is_sum = |place: usize| (148..156).contains(&place);
            block
                .iter()
                .enumerate()
                .map(|(place, byte)| as_number(if is_sum(place) { b' ' } else { *byte }))
                .sum()
        };
        let said = number(&header.as_old().cksum);
        // Some old programs added the bytes as signed numbers.
        if said != Some(sum(i64::from)) && said != Some(sum(|byte| i64::from(byte.cast_signed()))) {
            return Err(Error::damaged(
                "a header's checksum is wrong: it is no tar archive, or a damaged one",
            ));
        }
        Ok(Some(header))
    }

    /// A whole block; none where there is nothing more.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            if filled == 0 && self.inner.fill_buf()?.is_empty() {
                return Ok(None);
            }
            filled += self.part((BLOCK - filled) as u64, |bytes| {
                block[filled..filled + bytes.len()].copy_from_slice(bytes);
                Ok(())
            })? as usize;
        }
        Ok(Some(block))
    }

    /// The contents of an entry that says something of the next one.
    fn small(&mut self, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(Error::damaged(format!(
                "what is said of an entry has {size} bytes, more than {most}"
            )));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        (self.stored, self.padding) = (size, size.wrapping_neg() % BLOCK as u64);
        while (bytes.len() as u64) < size {
            self.part(size - bytes.len() as u64, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
        }
        self.skip_rest()?;
        Ok(bytes)
    }
}

impl<R: BufRead + Seek> Reader<R> {
    /// Where the contents of the entry begin.
    ///
    /// # Errors
    /// The kernel's.
    pub fn position(&mut self) -> Result<u64> {
        Ok(self.inner.stream_position()?)
    }

    /// Passes over the contents of the entry without reading them. Whether they are all there is not found out.
    ///
    /// # Errors
    /// The kernel's, and as [`Reader::next_entry`].
    pub fn pass_over(&mut self) -> Result<()> {
        let rest = self.stored.checked_add(self.padding).filter(|rest| i64::try_from(*rest).is_ok());
        let rest = rest.ok_or_else(|| too_large(self.limits))?;
        self.spend(rest)?;
        (self.stored, self.padding) = (0, 0);
        Ok(self.inner.seek_relative(rest as i64)?)
    }
}

fn too_large(limits: Limits) -> Error {
    Error::damaged(format!("it holds more than {} bytes, which is the limit", limits.bytes))
}

/// A number of a header: octal, or, where the first bit is set, binary (tar(5), "Numeric Extensions"). An empty field is 0.
fn number(field: &[u8]) -> Option<i64> {
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        let sign = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let mut value = (sign << 6) | i64::from(first & 0x3f);
        for byte in &field[1..] {
            value = value.checked_mul(256)? | i64::from(*byte);
        }
        return Some(value);
    }
    let is_filling = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_filling(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_filling).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

#[cfg(test)]
mod tests;
