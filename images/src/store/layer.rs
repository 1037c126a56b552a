//! One layer: fetched, checked, decompressed and unpacked in one go, each byte once.
//!
//! A layer unpacked is a lower directory of overlays, the same whatever is below it, and is kept under its diff ID. Only
//! where it names files but not all of the directories they are in, what these look like depends on the layers below:
//! such a one is kept under the ID of its chain.

use super::{Store, lock_within, unique};
use crate::digest::{Digest, Hasher, Verified};
use crate::error::{Context, Error, Result};
use crate::manifest::Compression;
use crate::source::{Blob, Event, Source, Watcher};
use crate::unpack::{self, Unpacked, copy_metadata, open_below};
use ctr_isolation::sys::fs as sys;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How much is passed on at once, and how many parts are under way.
const PART: usize = 256 << 10;
const PARTS: usize = 4;

/// What is known of an unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// The digest of the archive it was.
    pub diff_id: Digest,
    /// The bytes of its files.
    pub size: u64,
    /// How many entries the archive had.
    pub entries: u64,
    /// Directories that no entry describes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub implied: BTreeSet<PathBuf>,
    /// An entry describes the root.
    #[serde(default)]
    pub root: bool,
    /// What could not be kept.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub notes: BTreeSet<String>,
}

/// An unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The name of its directory.
    pub key: String,
    /// What is known of it.
    pub info: LayerInfo,
}

/// A directory in `work` that is ours, and goes with us unless it is renamed.
#[derive(Debug)]
pub(super) struct Work {
    pub path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Layer `index` of an image: which, and on what.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub blob: &'a Blob,
    pub diff_id: &'a Digest,
    pub chain: &'a Digest,
}

/// The IDs of the chains that end with each layer (image-spec config.md, "Layer ChainID").
pub(super) fn chains(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut all: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        let next = match all.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        all.push(next);
    }
    all
}

impl Store {
    fn layer_path(&self, key: &str) -> PathBuf {
        self.part("layers").join(key)
    }

    /// The layer of that key, if it is here.
    pub(super) fn layer_of(&self, key: &str) -> Option<Layer> {
        let text = fs::read(self.layer_path(key).join("layer.json")).ok()?;
        Some(Layer { key: key.to_owned(), info: serde_json::from_slice(&text).ok()? })
    }

    /// The unpacked layer with that diff ID on top of that chain, if it is here.
    pub(super) fn find_layer(&self, diff_id: &Digest, chain: &Digest) -> Option<Layer> {
        let alone = || self.layer_of(diff_id.hex()).filter(|layer| layer.info.implied.is_empty());
        self.layer_of(chain.hex()).or_else(alone)
    }

    /// Whether there is nothing to fetch of a layer.
    pub(super) fn has_layer(&self, place: &Place<'_>) -> bool {
        self.find_layer(place.diff_id, place.chain).is_some()
            && (self.has_blob(&place.blob.digest) || !self.rules.keep_blobs)
    }

    /// The unpacked layers of an image, the lowest first; `None` for one that is not here.
    pub fn layers(&self, diff_ids: &[Digest]) -> Vec<Option<Layer>> {
        let chains = chains(diff_ids);
        diff_ids.iter().zip(&chains).map(|(diff_id, chain)| self.find_layer(diff_id, chain)).collect()
    }

    /// The directory that a layer is unpacked in.
    pub fn tree(&self, layer: &Layer) -> PathBuf {
        self.layer_path(&layer.key).join("tree")
    }

    /// The directory that looks as the root of an image of these layers, the lowest first, is to look: most layers
    /// say nothing of it, but overlayfs shows that of the uppermost one. Whoever makes the directory above them
    /// copies it.
    pub fn root<'a>(&self, layers: impl DoubleEndedIterator<Item = &'a Layer>) -> Option<PathBuf> {
        layers.rev().find(|layer| layer.info.root).map(|layer| self.tree(layer))
    }

    /// How layers are unpacked here.
    pub(super) fn options(&self) -> unpack::Options {
        unpack::Options {
            limits: self.rules.limits,
            absolute: self.rules.absolute_paths,
            whiteouts: true,
            userxattr: self.rules.userxattr,
            squash: self.rules.squash,
        }
    }

    pub(super) fn work(&self) -> Result<Work> {
        // Under the lock `prune` finds none that is made but not locked.
        let _lock = self.lock(false)?;
        let path = self.part("work").join(unique());
        let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| File::open(&path));
        let dir = made.doing(|| format!("make {}", path.display()))?;
        let lock = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno);
        Ok(Work { path, _lock: lock.doing(|| "lock a new directory")? })
    }

    /// Fetches a layer that is not unpacked here, and unpacks it. Returns the directory with `tree`, not in its place yet,
    /// or nothing where somebody else has done it meanwhile.
    pub(super) fn fetch_layer(
        &self,
        source: &dyn Source,
        place: &Place<'_>,
        watcher: Watcher<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<(Work, Unpacked)>> {
        let partial = self.partial(&place.blob.digest, watcher)?;
        if self.has_layer(place) {
            return Ok(None);
        }
        let work = self.work()?;
        let tree = work.path.join("tree");
        let made = DirBuilder::new().mode(0o755).create(&tree).and_then(|()| File::open(&tree));
        let tree = made.doing(|| format!("make {}", tree.display()))?;
        let incoming = self.incoming(source, place.blob, &partial, watcher, stop)?;
        let options = self.options();
        let unpacked =
            decoded(incoming, place.diff_id, |reader| unpack::unpack(reader, tree.as_fd(), options));
        match unpacked {
            Ok(unpacked) => {
                self.finish_partial(&partial, &place.blob.digest, self.rules.keep_blobs)?;
                Ok(Some((work, unpacked)))
            }
            Err(error) => {
                // What is not what it should be would be the same the next time.
                if error.kind == crate::error::Kind::Damaged && !self.has_blob(&place.blob.digest) {
                    let _ = fs::remove_file(&partial.path);
                }
                Err(error)
            }
        }
    }

    /// Fetches a blob that is not unpacked.
    pub(super) fn fetch_blob(
        &self,
        source: &dyn Source,
        blob: &Blob,
        watcher: Watcher<'_>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let partial = self.partial(&blob.digest, watcher)?;
        if self.has_blob(&blob.digest) {
            return Ok(());
        }
        let mut incoming = self.incoming(source, blob, &partial, watcher, stop)?;
        let copied = io::copy(&mut incoming, &mut io::sink());
        if let Err(error) = copied {
            let error = Error::from(error);
            if error.kind == crate::error::Kind::Damaged {
                let _ = fs::remove_file(&partial.path);
            }
            return Err(error);
        }
        self.finish_partial(&partial, &blob.digest, true)
    }

    /// What has come of a blob, locked: others that want it wait.
    fn partial(&self, digest: &Digest, watcher: Watcher<'_>) -> Result<Partial> {
        let path = self.part("partial").join(digest.as_str().replace(':', "-"));
        let open =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut told = false;
        loop {
            let file = open().doing(|| format!("open {}", path.display()))?;
            let wait = Duration::from_millis(if told { 1000 } else { 50 });
            match lock_within(file, FlockArg::LockExclusiveNonblock, wait) {
                // Whoever had it before may have moved it away.
                Ok(file) => match fs::metadata(&path) {
                    Ok(now) if now.ino() == file.metadata()?.ino() => return Ok(Partial { path, file }),
                    _ => {}
                },
                Err(error) if error.kind == crate::error::Kind::Busy => {
                    if !told {
                        watcher(Event::Note(&format!(
                            "waiting for another process that fetches {}",
                            digest.short()
                        )));
                    }
                    told = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of a blob: of the store, or those that came before and then the source's, which are kept as they come.
    fn incoming<'a>(
        &self,
        source: &dyn Source,
        blob: &'a Blob,
        partial: &'a Partial,
        watcher: Watcher<'a>,
        stop: &'a AtomicBool,
    ) -> Result<Verified<Incoming<'a>>> {
        let mut incoming = Incoming { kept: None, source: None, copy: None, blob, watcher, stop };
        if let Ok((file, _)) = self.open_blob(&blob.digest) {
            incoming.kept = Some(file.take(u64::MAX));
            return Ok(Verified::new(incoming, &blob.digest, blob.size));
        }
        let mut file = &*partial.file;
        let has = file.metadata()?.len();
        if has > blob.size {
            file.set_len(0)?;
        }
        let has = if has > blob.size { 0 } else { has };
        if has < blob.size || blob.size == 0 {
            let (start, reader) = source.blob(blob, has).doing(|| format!("fetch {}", blob.digest))?;
            if start != has {
                file.set_len(start.min(has))?;
            }
            if start > has {
                return Err(Error::other(format!(
                    "{} sends the bytes from {start}, not from {has}",
                    source.name()
                )));
            }
            incoming.source = Some(reader);
        }
        let kept = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        incoming.kept = Some(file.try_clone()?.take(kept));
        incoming.copy = Some(&partial.file);
        Ok(Verified::new(incoming, &blob.digest, blob.size))
    }

    /// What has come is whole: it becomes the blob, or is not needed any more.
    fn finish_partial(&self, partial: &Partial, digest: &Digest, keep: bool) -> Result<()> {
        let path = self.blob_path(digest);
        if keep && !path.exists() {
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            return fs::rename(&partial.path, &path).doing(|| format!("keep blob {digest}"));
        }
        Ok(fs::remove_file(&partial.path)?)
    }

    /// Makes directories that no entry describes look as they do `below`; false where they are in no layer there.
    fn describe_implied(&self, tree: &Path, implied: &BTreeSet<PathBuf>, below: &[Layer]) -> Result<bool> {
        const DIRECTORY: i32 = libc::O_DIRECTORY | libc::O_PATH;
        if implied.is_empty() {
            return Ok(false);
        }
        let tree = sys::open(tree, libc::O_DIRECTORY)?;
        let lower = below.iter().rev().map(|layer| sys::open(&self.tree(layer), DIRECTORY));
        let lower = lower.collect::<ctr_isolation::Result<Vec<OwnedFd>>>()?;
        let mut depends = false;
        for path in implied {
            // The uppermost that has it is what an overlay would have shown. A link there leads nowhere.
            let model = lower.iter().find_map(|lower| open_below(lower.as_fd(), path, DIRECTORY).ok());
            if let Some(model) = model {
                let own = open_below(tree.as_fd(), path, libc::O_DIRECTORY)?;
                copy_metadata(model.as_fd(), own.as_fd())?;
                depends = true;
            }
        }
        Ok(depends)
    }

    /// Puts an unpacked layer in its place. Those `below` it are there.
    pub(super) fn place_layer(
        &self,
        work: &Work,
        unpacked: Unpacked,
        place: &Place<'_>,
        below: &[Layer],
    ) -> Result<Layer> {
        let depends = self.describe_implied(&work.path.join("tree"), &unpacked.implied, below)?;
        let key = if depends { place.chain.hex() } else { place.diff_id.hex() };
        let info = LayerInfo {
            diff_id: place.diff_id.clone(),
            size: unpacked.bytes,
            entries: unpacked.entries,
            implied: if depends || place.chain == place.diff_id { unpacked.implied } else { BTreeSet::new() },
            root: unpacked.root,
            notes: unpacked.notes,
        };
        let mut file = File::create_new(work.path.join("layer.json"))?;
        file.write_all(&serde_json::to_vec(&info)?)?;
        let target = self.layer_path(key);
        match fs::rename(&work.path, &target) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {}
            other => other.doing(|| format!("put the layer in its place {}", target.display()))?,
        }
        Ok(Layer { key: key.to_owned(), info })
    }
}

/// What has come of a blob.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    file: Flock<File>,
}

/// The bytes of a blob, from where they are.
struct Incoming<'a> {
    kept: Option<io::Take<File>>,
    source: Option<Box<dyn Read + Send>>,
    /// Where those of the source are kept.
    copy: Option<&'a File>,
    blob: &'a Blob,
    watcher: Watcher<'a>,
    stop: &'a AtomicBool,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::other("another part has failed").into());
        }
        let mut count = match &mut self.kept {
            Some(kept) => kept.read(buffer)?,
            None => 0,
        };
        if count == 0 {
            self.kept = None;
            if let Some(source) = &mut self.source {
                count = source.read(buffer)?;
                if let Some(mut copy) = self.copy {
                    copy.write_all(&buffer[..count])?;
                }
            }
        }
        (self.watcher)(Event::Advance { digest: &self.blob.digest, bytes: count as u64 });
        Ok(count)
    }
}

/// Decompresses `incoming` and gives it to `take`; at the end all of it must have the digest `diff_id`. The two sides are
/// two threads.
pub(super) fn decoded<T>(
    incoming: impl Read + Send,
    diff_id: &Digest,
    take: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let (full, parts) = sync_channel(PARTS);
        let (used, free) = sync_channel(PARTS + 2);
        let decoder = scope.spawn(move || decode(incoming, &full, &free));
        let mut reader = Parts { parts, used, part: Vec::new(), place: 0, hasher: Hasher::like(diff_id) };
        let taken = take(&mut reader);
        // What the archive's reader did not want: nothing is left where it came to its end.
        let rest = taken.is_ok().then(|| io::copy(&mut reader, &mut io::sink()));
        let found = reader.end();
        let decoded =
            decoder.join().unwrap_or_else(|_| Err(Error::other("the decompressing thread has panicked")));
        match (taken, decoded) {
            // Where the bytes are wrong, so is what they are read as; and where they are not wanted, sending has failed.
            (Err(error), Ok(())) => Err(error),
            (_, Err(error)) => Err(error),
            (Ok(taken), Ok(())) => {
                rest.transpose()?;
                match found == *diff_id {
                    true => Ok(taken),
                    false => Err(Error::damaged(format!(
                        "its contents have the digest {found}, and not {diff_id} as the image's configuration says"
                    ))),
                }
            }
        }
    })
}

/// Reads all of `incoming`, and passes it on decompressed.
fn decode(incoming: impl Read, full: &SyncSender<Vec<u8>>, free: &Receiver<Vec<u8>>) -> Result<()> {
    let mut incoming = BufReader::with_capacity(128 << 10, incoming);
    let is_wanted = match Compression::of(incoming.fill_buf()?) {
        Compression::None => pass(&mut incoming, full, free)?,
        Compression::Gzip => pass(&mut flate2::bufread::MultiGzDecoder::new(&mut incoming), full, free)
            .doing(|| "decompress it (gzip)")?,
        Compression::Zstd => pass(&mut zstd::stream::read::Decoder::with_buffer(&mut incoming)?, full, free)
            .doing(|| "decompress it (zstd)")?,
    };
    if is_wanted {
        // The digest is that of all bytes.
        io::copy(&mut incoming, &mut io::sink())?;
    }
    Ok(())
}

/// False where nobody listens any more: there has been an error, which they know.
fn pass(from: &mut dyn Read, full: &SyncSender<Vec<u8>>, free: &Receiver<Vec<u8>>) -> Result<bool> {
    loop {
        let mut part = free.try_recv().unwrap_or_default();
        part.resize(PART, 0);
        let mut filled = 0;
        while filled < PART {
            match from.read(&mut part[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        part.truncate(filled);
        if filled == 0 {
            return Ok(true);
        }
        if full.send(part).is_err() {
            return Ok(false);
        }
    }
}

/// The receiving side: what comes, part by part, and its digest.
struct Parts {
    parts: Receiver<Vec<u8>>,
    used: SyncSender<Vec<u8>>,
    part: Vec<u8>,
    place: usize,
    hasher: Hasher,
}

impl Parts {
    fn end(self) -> Digest {
        self.hasher.finish()
    }
}

impl BufRead for Parts {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.place == self.part.len()
            && let Ok(part) = self.parts.recv()
        {
            self.hasher.update(&part);
            let used = std::mem::replace(&mut self.part, part);
            let _ = self.used.try_send(used);
            self.place = 0;
        }
        Ok(&self.part[self.place..])
    }

    fn consume(&mut self, count: usize) {
        self.place += count;
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
