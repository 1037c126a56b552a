//! The log of a detached container: what its program wrote, on which stream and when.
//!
//! The format is Kubernetes' CRI log, which readers of logs know: a record is `TIME STREAM F|P TEXT` and a line break,
//! which is the program's own after `F` (full) and not after `P` (partial). So every byte comes back as it was. A log
//! has a bounded size: once half of it is full that half becomes `log.1`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::time;

/// The name of a log in the directory of a container.
const NAME: &str = "log";

/// Where the program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output, or its terminal.
    Output,
    /// Its standard error.
    Error,
    /// It is no word of the program but one about the log, such as that something is missing.
    Note,
}

const STREAMS: [(Stream, &str); 3] =
    [(Stream::Output, "stdout"), (Stream::Error, "stderr"), (Stream::Note, "note")];

/// A part of a line, and perhaps its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was written, as RFC 3339.
    pub time: String,
    /// Where to.
    pub stream: Stream,
    /// Whether a line break follows.
    pub is_full: bool,
    /// The text, without it.
    pub text: Vec<u8>,
}

impl Record {
    /// Reads a record without its line break.
    fn parse(line: &[u8]) -> Option<Record> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(parts.next()?).ok();
        let (time, stream, tag) = (word()?.to_owned(), word()?, word()?);
        let (stream, _) = STREAMS.into_iter().find(|(_, name)| *name == stream)?;
        let text = parts.next()?.to_vec();
        Some(Record { time, stream, is_full: tag == "F", text })
    }

    /// What the program wrote.
    pub fn bytes(&self) -> Vec<u8> {
        let end: &[u8] = if self.is_full { b"\n" } else { b"" };
        [&self.text, end].concat()
    }
}

/// The log as its one writer has it.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    lost: u64,
}

impl Writer {
    /// Goes on with the log in `directory`, or begins one; it holds at most `limit` bytes.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(directory: &Path, limit: u64) -> io::Result<Writer> {
        let file = create(directory)?;
        let mut writer =
            Writer { directory: directory.to_owned(), size: file.metadata()?.len(), file, limit, lost: 0 };
        // Whoever wrote before us may have been killed within a record.
        if writer.size > 0 {
            writer.append(b"\n");
        }
        Ok(writer)
    }

    /// Takes down what the program wrote. A disk that is full must not end the container: what finds no room is
    /// left out, and the log says so as soon as it can.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: SystemTime) {
        if self.lost > 0 {
            let note = format!("{} bytes are missing: the log could not be written", self.lost);
            let mut record = Vec::new();
            push_record(&mut record, Stream::Note, format!("{note}\n").as_bytes(), &time::rfc3339_nanos(now));
            if self.append(&record) {
                self.lost = 0;
            }
        }
        let time = time::rfc3339_nanos(now);
        let (mut records, mut length) = (Vec::with_capacity(bytes.len() + 64), 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            push_record(&mut records, stream, line, &time);
            length += line.len() as u64;
            // Short lines are many times as long with their times.
            if records.len() as u64 > self.limit / 8 {
                self.append_or_lose(&mut records, &mut length);
            }
        }
        self.append_or_lose(&mut records, &mut length);
    }

    fn append_or_lose(&mut self, records: &mut Vec<u8>, length: &mut u64) {
        if !records.is_empty() && !self.append(records) {
            self.lost += *length;
        }
        records.clear();
        *length = 0;
    }

    /// Whether it found room, as a whole.
    fn append(&mut self, records: &[u8]) -> bool {
        if self.size + records.len() as u64 > self.limit / 2 && self.size > 0 {
            let path = self.directory.join(NAME);
            match std::fs::rename(&path, path.with_extension("1")).and_then(|()| create(&self.directory)) {
                Ok(file) => (self.file, self.size) = (file, 0),
                Err(_) => return false,
            }
        }
        if self.file.write_all(records).is_err() {
            let _ = self.file.set_len(self.size);
            return false;
        }
        self.size += records.len() as u64;
        true
    }
}

fn create(directory: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(directory.join(NAME))
}

/// Adds the record of `line` to `records`.
fn push_record(records: &mut Vec<u8>, stream: Stream, line: &[u8], time: &str) {
    let name = STREAMS.iter().find(|(found, _)| *found == stream).map_or("", |(_, name)| name);
    let (line, tag) = line.strip_suffix(b"\n").map_or((line, b"P"), |line| (line, b"F"));
    for part in [time.as_bytes(), b" ", name.as_bytes(), b" ", tag, b" ", line, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the oldest record.
    Oldest,
    /// So many lines before the end.
    Lines(u64),
    /// At the end, or where the line begins that is not ended yet: a prompt, most often.
    Now,
}

/// The log as a reader has it.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    file: Option<BufReader<File>>,
    torn: Vec<u8>,
}

impl Reader {
    /// Opens the log in `directory`.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub fn open(directory: &Path) -> io::Result<Reader> {
        let path = directory.join(NAME);
        // Its half may just be turning into the older one.
        let newest = File::open(&path);
        let file = match File::open(path.with_extension("1")) {
            Ok(older) => older,
            Err(_) => newest?,
        };
        Ok(Reader {
            directory: directory.to_owned(),
            file: Some(BufReader::with_capacity(32 << 10, file)),
            torn: Vec::new(),
        })
    }

    /// Reads on to where the log ends now, in what form `begin` says.
    ///
    /// # Errors
    /// What `each` runs into.
    pub fn begin(&mut self, begin: Begin, mut each: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
        let count = match begin {
            Begin::Oldest => return self.read(each),
            Begin::Lines(count) => count,
            Begin::Now => 1,
        };
        let mut last = Last::new(count);
        self.read(|record| {
            last.take(record);
            Ok(())
        })?;
        if begin == Begin::Now && !last.is_open() {
            return Ok(());
        }
        last.records.into_iter().try_for_each(|(record, _)| each(record))
    }

    /// Reads on to where the log ends now.
    ///
    /// # Errors
    /// The kernel's, or what `each` runs into.
    pub fn read(&mut self, mut each: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
        loop {
            self.read_file(&mut each)?;
            let Some(next) = self.next() else { return Ok(()) };
            // It may have grown between our end and its end.
            self.read_file(&mut each)?;
            self.torn.clear();
            self.file = Some(BufReader::with_capacity(32 << 10, next));
        }
    }

    fn read_file(&mut self, each: &mut impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        loop {
            file.read_until(b'\n', &mut self.torn)?;
            let Some(line) = self.torn.strip_suffix(b"\n") else { return Ok(()) };
            let record = Record::parse(line);
            self.torn.clear();
            record.map_or(Ok(()), &mut *each)?;
        }
    }

    /// The file that follows ours, if ours is no longer the one that is written.
    fn next(&self) -> Option<File> {
        let ours = self.file.as_ref()?.get_ref().metadata().ok()?.ino();
        let path = self.directory.join(NAME);
        let newest = File::open(&path).ok()?;
        if newest.metadata().ok()?.ino() == ours {
            return None;
        }
        // Two halves may have been filled meanwhile.
        let older = File::open(path.with_extension("1")).ok();
        let skipped = older.filter(|older| older.metadata().is_ok_and(|meta| meta.ino() != ours));
        skipped.or(Some(newest))
    }
}

/// The last lines of what has been read, and which streams are within one.
#[derive(Debug)]
struct Last {
    count: u64,
    lines: u64,
    /// With each, whether a line begins there.
    records: VecDeque<(Record, bool)>,
    open: [bool; STREAMS.len()],
}

impl Last {
    fn new(count: u64) -> Last {
        Last { count, lines: 0, records: VecDeque::new(), open: [false; STREAMS.len()] }
    }

    fn take(&mut self, record: Record) {
        let open = &mut self.open[record.stream as usize];
        let begins = !*open;
        *open = !record.is_full;
        self.lines += u64::from(begins);
        self.records.push_back((record, begins));
        while self.lines > self.count || self.records.front().is_some_and(|(_, begins)| !begins) {
            let first = self.records.pop_front();
            self.lines -= u64::from(first.is_some_and(|(_, begins)| begins));
        }
    }

    fn is_open(&self) -> bool {
        self.records.back().is_some_and(|(record, _)| !record.is_full)
    }
}

/// Tells when a log may have grown.
///
/// # Errors
/// `EMFILE` when this user has as many watches as `fs.inotify.max_user_instances` allows.
pub fn watch(directory: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify
        .add_watch(directory, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_CREATE)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1)
    }

    fn all(directory: &Path, begin: Begin) -> String {
        let mut text = Vec::new();
        let mut reader = Reader::open(directory).unwrap();
        let take = |record: Record| {
            text.extend(record.bytes());
            Ok(())
        };
        reader.begin(begin, take).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn a_record_is_one_of_cri() {
        let directory = tempfile::tempdir().unwrap();
        Writer::open(directory.path(), 1 << 20).unwrap().write(Stream::Error, b"one\ntw", now());
        let expected =
            "1970-01-01T00:00:01.000000000Z stderr F one\n1970-01-01T00:00:01.000000000Z stderr P tw\n";
        assert_eq!(std::fs::read_to_string(directory.path().join(NAME)).unwrap(), expected);
    }

    #[test]
    fn every_byte_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 1 << 20).unwrap();
        let mut written: Vec<u8> = Vec::new();
        for bytes in [&b"a"[..], b"b\n", b"\n\n", b" \x00\xff F P\r\n", b"no end"] {
            writer.write(Stream::Output, bytes, now());
            written.extend(bytes);
        }
        let mut read: Vec<u8> = Vec::new();
        let mut reader = Reader::open(directory.path()).unwrap();
        let mut take = |record: Record| {
            read.extend(record.bytes());
            Ok(())
        };
        reader.read(&mut take).unwrap();
        writer.write(Stream::Output, b" yet", now());
        written.extend(b" yet");
        reader.read(&mut take).unwrap();
        assert_eq!(read, written);
    }

    #[test]
    fn a_reader_begins_where_it_is_told_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 1 << 20).unwrap();
        writer.write(Stream::Output, b"one\ntw", now());
        writer.write(Stream::Error, b"err", now());
        writer.write(Stream::Output, b"o\n", now());
        writer.write(Stream::Error, b"or\n", now());
        for (begin, expected) in [
            (Begin::Oldest, "one\ntwerro\nor\n"),
            (Begin::Lines(0), ""),
            (Begin::Lines(1), "erro\nor\n"),
            (Begin::Lines(9), "one\ntwerro\nor\n"),
            (Begin::Now, ""),
        ] {
            assert_eq!(all(directory.path(), begin), expected, "{begin:?}");
        }
        writer.write(Stream::Output, b"$ ", now());
        assert_eq!(all(directory.path(), Begin::Now), "$ ");
    }

    #[test]
    fn the_older_half_is_dropped_and_a_reader_misses_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 1000).unwrap();
        let mut reader = Reader::open(directory.path()).unwrap();
        let mut read = String::new();
        for number in 0..100 {
            writer.write(Stream::Output, format!("{number}\n").as_bytes(), now());
            if number % 15 == 0 || number == 99 {
                let take = |record: Record| {
                    read += &String::from_utf8(record.bytes()).unwrap();
                    Ok(())
                };
                reader.read(take).unwrap();
            }
        }
        assert_eq!(read, (0..100).map(|number| format!("{number}\n")).collect::<String>());
        let size = ["log", "log.1"].map(|name| directory.path().join(name).metadata().unwrap().len());
        assert!(size.iter().sum::<u64>() <= 1000, "{size:?}");
        assert!(all(directory.path(), Begin::Oldest).ends_with("98\n99\n"));
    }

    #[test]
    fn a_log_goes_on_after_a_torn_record() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(NAME), "1970-01-01T00:00:01Z stdout F one\n1970-01").unwrap();
        let mut writer = Writer::open(directory.path(), 1 << 20).unwrap();
        writer.write(Stream::Output, b"two\n", now());
        assert_eq!(all(directory.path(), Begin::Oldest), "one\ntwo\n");
    }
}
