//! An archive whose files are read where they are: it is looked through once, not unpacked.

use super::files::{Files, Section};
use super::scratch::Scratch;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::Compression;
use crate::tar::{self, Entry, Limits, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// No archive of images has more.
const MOST_ENTRIES: u64 = 1 << 16;
/// From one link to the next.
const LONGEST_CHAIN: usize = 8;

/// Where an archive is read from.
pub enum Input<'a> {
    /// A file, or whatever else has a path.
    File(&'a Path),
    /// What is open already, as a pipe.
    Stream(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Input::File(path) => f.debug_tuple("File").field(path).finish(),
            Input::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Input<'_> {
    /// What people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Stream(_) => "-".to_owned(),
        }
    }

    /// As a file that can be read at any place: itself, or a copy of it.
    pub(super) fn regular(self, scratch: &Scratch) -> Result<File> {
        let mut stream: Box<dyn Read + Send> = match self {
            Input::File(path) => match File::open(path).doing(|| format!("open {}", path.display()))? {
                file if file.metadata()?.is_file() => return Ok(file),
                other => Box::new(other),
            },
            Input::Stream(stream) => stream,
        };
        let mut copy = scratch.file()?;
        super::scratch::copy_bounded(&mut *stream, &mut copy, scratch.most).doing(|| "copy it")?;
        copy.rewind()?;
        Ok(copy)
    }
}

/// What there is under a name.
#[derive(Clone, Debug)]
enum Member {
    /// A file: where it begins, and its size.
    File(u64, u64),
    /// Another name, or where that leads out of the archive, none.
    Link(Option<String>),
    /// Neither file nor directory.
    Other,
}

/// An archive that has been looked through.
#[derive(Debug)]
pub(super) struct Tarball {
    file: Arc<File>,
    name: String,
    members: BTreeMap<String, Member>,
}

impl Tarball {
    /// Looks through an archive; of a compressed one, or a pipe, it makes a copy first.
    pub(super) fn open(input: Input<'_>, scratch: &Scratch) -> Result<Tarball> {
        let name = input.name();
        let opened = match input {
            Input::Stream(stream) => scratch.decompressed(BufReader::new(stream)),
            Input::File(path) => plain_file(path, scratch),
        };
        let opened = opened.and_then(|mut file| {
            file.rewind()?;
            let members = members(&file)?;
            Ok(Tarball { file: Arc::new(file), name: name.clone(), members })
        });
        opened.doing(|| format!("read the archive {name}"))
    }

    /// The names at the top of an archive, whatever it is, `most` bytes long at most.
    pub(super) fn names(file: File, most: u64) -> Result<BTreeSet<String>> {
        let from = super::scratch::decompressed(BufReader::with_capacity(128 << 10, file))?;
        let mut reader = Reader::new(BufReader::new(from), Limits { entries: u64::MAX, bytes: most });
        let mut names = BTreeSet::new();
        while let Some(entry) = reader.next_entry()? {
            let path = String::from_utf8_lossy(&entry.path);
            let first = path.split('/').find(|part| !matches!(*part, "" | ".")).unwrap_or_default();
            if names.len() < MOST_ENTRIES as usize && !names.contains(first) {
                names.insert(first.to_owned());
            }
        }
        Ok(names)
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has something of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// As [`Files::open`], but links to other files of the archive are followed.
    pub(super) fn open_linked(&self, name: &str) -> Result<Section> {
        let mut at = clean(name.as_bytes())?;
        for _ in 0..LONGEST_CHAIN {
            match self.members.get(&at) {
                Some(Member::Link(Some(next))) => at.clone_from(next),
                Some(Member::Link(None)) => {
                    return Err(Error::damaged(format!("{name} is a link that leads out of {}", self.name)));
                }
                _ => return self.open(&at),
            }
        }
        Err(Error::damaged(format!("{name} leads from one link to the next in {}", self.name)))
    }
}

impl Files for Tarball {
    fn open(&self, name: &str) -> Result<Section> {
        match self.members.get(name) {
            Some(Member::File(at, size)) => Ok(Section::new(Arc::clone(&self.file), *at, *size)),
            Some(_) => Err(Error::damaged(format!("{name} is no regular file in {}", self.name))),
            None => Err(Error::new(Kind::NotFound, format!("there is no {name} in {}", self.name))),
        }
    }
}

/// The file itself where it is one, and not compressed.
fn plain_file(path: &Path, scratch: &Scratch) -> Result<File> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return scratch.decompressed(BufReader::new(file));
    }
    let mut start = [0; 6];
    let count = (&file).take(6).read(&mut start)?;
    file.rewind()?;
    let is_other = start.starts_with(b"\xfd7zXZ") || start.starts_with(b"BZh");
    match Compression::of(&start[..count]) == Compression::None && !is_other {
        true => Ok(file),
        false => scratch.decompressed(BufReader::with_capacity(128 << 10, file)),
    }
}

fn members(file: &File) -> Result<BTreeMap<String, Member>> {
    let copy: OwnedFd = file.as_fd().try_clone_to_owned()?;
    let limits = Limits { entries: MOST_ENTRIES, bytes: u64::MAX };
    let mut reader = Reader::new(BufReader::new(File::from(copy)), limits);
    let (length, mut members) = (file.metadata()?.len(), BTreeMap::new());
    while let Some(entry) = reader.next_entry()? {
        let position = reader.position()?;
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let found = member(&entry, position, length, &members);
        let found = found.doing(|| format!("entry {path:?}"))?;
        if let Some((name, member)) = found
            && members.insert(name, member).is_some()
        {
            return Err(Error::damaged(format!("entry {path:?}: it is in the archive twice")));
        }
        reader.pass_over()?;
    }
    Ok(members)
}

/// The name of an entry, and what it is; nothing for a directory.
fn member(
    entry: &Entry,
    position: u64,
    length: u64,
    members: &BTreeMap<String, Member>,
) -> Result<Option<(String, Member)>> {
    let name = clean(&entry.path)?;
    let member = match entry.kind {
        tar::Kind::Directory => return Ok(None),
        tar::Kind::File if entry.segments != [(0, entry.size)] => {
            return Err(Error::damaged("it is stored with holes"));
        }
        tar::Kind::File => match position.checked_add(entry.size).is_some_and(|end| end <= length) {
            true => Member::File(position, entry.size),
            false => return Err(Error::damaged("the archive ends in it")),
        },
        tar::Kind::HardLink => match clean(&entry.link).ok().and_then(|target| members.get(&target)) {
            Some(target) => target.clone(),
            None => return Err(Error::damaged("it is a hard link to what is not before it")),
        },
        tar::Kind::Symlink => Member::Link(target(&name, &entry.link)),
        _ => Member::Other,
    };
    Ok(Some((name, member)))
}

/// A name without `.` and with nothing that leads out.
fn clean(path: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(path).map_err(|_| Error::damaged("its name is no text"))?;
    if text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(Error::damaged("its name leads out of the archive"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(parts.join("/"))
}

/// The name that a symbolic link leads to, if it is one of the archive.
fn target(name: &str, link: &[u8]) -> Option<String> {
    let link = std::str::from_utf8(link).ok()?;
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        return None;
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_archive() {
        assert_eq!(clean(b"./a//b/./c").unwrap(), "a/b/c");
        for wrong in [&b"/a"[..], b"../a", b"a/../../b", b"a/..", b"\xff"] {
            assert!(clean(wrong).is_err());
        }
        assert_eq!(target("a/layer.tar", b"../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(target("x", b"y").as_deref(), Some("y"));
        assert_eq!(target("a/x", b"../../y"), None);
        assert_eq!(target("a/x", b"/y"), None);
    }
}
