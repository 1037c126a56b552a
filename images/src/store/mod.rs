//! The store: blobs by their digests, layers unpacked once, and what names mean.
//!
//! ```text
//! lock                   held while names.json changes, and by `prune` while it looks
//! names.json             what there is and what it is called
//! blobs/sha256/HEX       manifests, configurations and layers as they came
//! layers/HEX/tree        a layer unpacked, as overlayfs wants it; HEX is its diff ID's, or its chain's (`layer.rs`)
//! layers/HEX/layer.json  what is known of it
//! partial/HEX            what has come of a blob; locked by who fetches it
//! work/RANDOM            a layer being unpacked, or being removed; locked by whose it is
//! scratch/RANDOM         what an archive is read or written by way of
//! leases/RANDOM          digests that a process wants to find here, until it ends; locked by it
//! ```
//!
//! Several processes use it at once, and each may be killed at any point: what has a digest's name is whole, for it was
//! renamed to it; what nobody has a lock on in `partial`, `work` and `leases` is left over, and a partial blob is taken up
//! where it was left.

mod fsck;
mod layer;
mod lease;
mod names;
mod prune;
mod pull;

pub use fsck::{Finding, Report};
pub use layer::{Layer, LayerInfo};
pub use lease::Lease;
pub use names::{Image, Names};
pub use prune::{InUse, Pruned};
pub use pull::{Pull, Wanted};

use crate::digest::{Digest, Verified};
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{ImageConfig, LARGEST_CONFIG, LARGEST_DOCUMENT, Manifest, Parsed};
use crate::source::Document;
use crate::tar::Limits;
use crate::transport::Scratch;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one waits for the lock, which nobody holds for long.
const PATIENCE: Duration = Duration::from_secs(60);

const PARTS: [&str; 6] = ["blobs", "layers", "partial", "work", "leases", "scratch"];

/// How the store is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How much a layer may hold.
    pub limits: Limits,
    /// Paths in layers that begin with `/` mean the root of the image.
    pub absolute_paths: bool,
    /// Layers are kept as they came, too: for `push`, `save` and `fsck`.
    pub keep_blobs: bool,
    /// How many layers are worked on at once.
    pub parallel: usize,
    /// Overlays of it are mounted in a user namespace.
    pub userxattr: bool,
    /// No id but root's is mapped: all files are its.
    pub squash: bool,
}

/// A store that is there.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    rules: Rules,
}

impl Store {
    /// The store in `dir`, made where it is missing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(dir: &Path, rules: Rules) -> Result<Store> {
        for part in PARTS {
            let path = dir.join(part);
            if !path.is_dir() {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
                made.doing(|| format!("make the store {}", dir.display()))?;
            }
        }
        Ok(Store { dir: dir.to_owned(), rules })
    }

    /// How it is used.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where files may be kept for the time of an operation.
    pub fn scratch(&self) -> Scratch {
        Scratch { dir: self.part("scratch"), most: self.rules.limits.bytes }
    }

    fn part(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Whether the blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// The blob, open, and its size.
    ///
    /// # Errors
    /// `NotFound` when it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64)> {
        let opened = File::open(self.blob_path(digest)).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        opened.doing(|| format!("blob {digest} of the store"))
    }

    /// The bytes of a small blob, checked.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when it is not what it was.
    pub fn read_blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let (file, size) = self.open_blob(digest)?;
        if size > most {
            return Err(Error::damaged(format!("blob {digest} has {size} bytes")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        Verified::new(file, digest, size).read_to_end(&mut bytes).doing(|| "read it from the store")?;
        Ok(bytes)
    }

    /// Takes in a small blob; returns its digest.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            self.write_whole(&path, bytes).doing(|| format!("write blob {digest}"))?;
        }
        Ok(digest)
    }

    /// Writes a file all or nothing: whoever finds it finds all of it.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let draft = self.part("work").join(format!("file-{}", unique()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, path)
        })();
        Ok(written.inspect_err(|_| _ = fs::remove_file(&draft))?)
    }

    /// Takes the lock: what is found stays, or, with `alone`, nobody else looks or changes anything.
    fn lock(&self, alone: bool) -> Result<Flock<File>> {
        let path = self.part("lock");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.doing(|| format!("open {}", path.display()))?;
        let how = if alone { FlockArg::LockExclusiveNonblock } else { FlockArg::LockSharedNonblock };
        lock_within(file, how, PATIENCE).doing(|| format!("wait for the lock {}", path.display()))
    }

    /// The manifest and the configuration of an image that is here.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn read_image(&self, image: &Image) -> Result<(Manifest, ImageConfig)> {
        let bytes = self.read_blob(&image.digest, LARGEST_DOCUMENT)?;
        let document = Document { media_type: image.media_type.clone(), bytes };
        let Parsed::Manifest(manifest) = Parsed::read(&document)? else {
            return Err(Error::damaged(format!("{} is an index", image.digest)));
        };
        let config = self.read_blob(&manifest.config.digest, LARGEST_CONFIG)?;
        let config = ImageConfig::read(&config, &manifest)?;
        Ok((manifest, config))
    }
}

/// Takes a lock, waiting for whoever has it, `limit` at most.
fn lock_within(mut file: File, how: FlockArg, limit: Duration) -> Result<Flock<File>> {
    let until = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < until => file = back,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(Error::new(
                    Kind::Busy,
                    format!("another process holds it for {} s", limit.as_secs()),
                ));
            }
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A name that nothing else has.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{}-{since:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
