//! Files with holes: where they have contents (GNU tar's manual, "Storing Sparse Files").

use super::{LONGEST_RECORDS, Reader, number};
use crate::error::{Error, Result};
use std::io::BufRead;

/// More segments than this no map has.
const MOST_SEGMENTS: usize = 1 << 16;

/// What pax records say of a file with holes, in any of the three versions of this format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// The file's real name; the header's is another, for programs that do not know the format.
    pub name: Option<Vec<u8>>,
    /// Its size with the holes.
    pub size: Option<u64>,
    /// Version 1.0: the map is at the beginning of the contents.
    pub in_data: bool,
    /// Offsets and lengths, one after the other.
    numbers: Vec<u64>,
}

impl Map {
    /// Takes in one record, without its prefix.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || std::str::from_utf8(value).ok();
        match key {
            b"name" => self.name = Some(value.to_vec()).filter(|name| !name.contains(&0)),
            b"size" | b"realsize" => self.size = Some(text()?.parse().ok()?),
            b"major" => self.in_data = text()? == "1",
            b"offset" | b"numbytes" => self.numbers.push(text()?.parse().ok()?),
            b"map" => {
                let numbers = text()?.split(',').map(|number| number.parse().ok());
                self.numbers = numbers.collect::<Option<_>>()?;
            }
            _ => {}
        }
        (self.numbers.len() <= 2 * MOST_SEGMENTS).then_some(())
    }

    pub(super) fn segments(&self) -> Result<Vec<(u64, u64)>> {
        pairs(&self.numbers)
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<(u64, u64)>> {
    match numbers.len() % 2 {
        0 => Ok(numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect()),
        _ => Err(Error::damaged("a map of holes has an offset without a length")),
    }
}

/// Refuses segments that overlap, leave the file, or are not what is stored of it.
pub(super) fn check(segments: &[(u64, u64)], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in segments {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        end = next.ok_or_else(|| Error::damaged("its map of holes does not fit its size"))?;
        sum += length;
    }
    match sum == stored {
        true => Ok(()),
        false => Err(Error::damaged("its map of holes is not that of its contents")),
    }
}

impl<R: BufRead> Reader<R> {
    /// The map of a sparse entry of GNU's own kind: four segments in the header, more in blocks that follow it.
    pub(super) fn gnu_map(&mut self, header: &tar::GnuHeader) -> Result<Vec<(u64, u64)>> {
        let mut segments = Vec::new();
        let mut parts = header.sparse.iter().map(|part| (part.offset, part.numbytes)).collect::<Vec<_>>();
        let mut more = header.isextended[0] == 1;
        loop {
            for (offset, length) in parts.iter().filter(|(offset, _)| offset[0] != 0) {
                let of = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
                let segment = of(offset).zip(of(length));
                segments.push(segment.ok_or_else(|| Error::damaged("a map of holes has no numbers"))?);
            }
            if !more {
                return Ok(segments);
            }
            if segments.len() > MOST_SEGMENTS {
                return Err(Error::damaged("a map of holes is too long"));
            }
            // These blocks do not count as the entry's contents.
            let stored = self.stored;
            let block = self.block()?.ok_or_else(|| Error::damaged("it ends in a map of holes"))?;
            self.stored = stored;
            let triples = block[..504].chunks_exact(24);
            let field = |bytes: &[u8]| <[u8; 12]>::try_from(bytes).unwrap_or_default();
            parts = triples.map(|part| (field(&part[..12]), field(&part[12..]))).collect();
            more = block[504] == 1;
        }
    }

    /// The map at the beginning of the contents: numbers, each on a line of its own, up to a whole block.
    pub(super) fn map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut text: Vec<u8> = Vec::new();
        let (mut lines, mut wanted) = (0, 1);
        // The first line says how many pairs of lines follow.
        while lines < wanted {
            if self.stored < 512 || text.len() as u64 >= LONGEST_RECORDS {
                return Err(Error::damaged("a map of holes is not whole"));
            }
            let block = self.block()?.ok_or_else(|| Error::damaged("it ends in a map of holes"))?;
            lines += block.iter().filter(|byte| **byte == b'\n').count();
            text.extend_from_slice(&block);
            if wanted == 1 && lines > 0 {
                let count = numbers(&text, 1)?[0];
                let count = usize::try_from(count).ok().filter(|count| *count <= MOST_SEGMENTS);
                wanted = 1 + 2 * count.ok_or_else(|| Error::damaged("a map of holes is too long"))?;
            }
        }
        pairs(&numbers(&text, wanted)?[1..])
    }
}

/// The numbers on the first `count` lines.
fn numbers(text: &[u8], count: usize) -> Result<Vec<u64>> {
    let lines = text.split(|byte| *byte == b'\n').take(count);
    let numbers: Option<Vec<u64>> = lines.map(|line| std::str::from_utf8(line).ok()?.parse().ok()).collect();
    numbers
        .filter(|numbers| numbers.len() == count)
        .ok_or_else(|| Error::damaged("a map of holes has no numbers"))
}
