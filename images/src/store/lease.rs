//! What a process wants to find in the store, from before it has looked until it has said so for good.

use super::{Store, unique};
use crate::error::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

/// A claim on digests and on layers. It ends with its process.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: Mutex<Flock<File>>,
}

impl Store {
    /// A claim on nothing yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lease(&self) -> Result<Lease> {
        // `prune` takes a lease without a lock for one that is left over: none is without, while it looks.
        let _lock = self.lock(false)?;
        let path = self.part("leases").join(unique());
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = file.doing(|| format!("make {}", path.display()))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno);
        Ok(Lease { path, file: Mutex::new(file.doing(|| "lock a lease")?) })
    }

    /// All that is claimed by processes that live; leases of others are removed. Only under the lock.
    pub(super) fn claims(&self) -> Result<BTreeSet<String>> {
        let mut claims = BTreeSet::new();
        let leases = self.part("leases");
        for entry in std::fs::read_dir(&leases).doing(|| format!("read {}", leases.display()))? {
            let path = entry?.path();
            let Ok(file) = File::open(&path) else { continue };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(_free) => std::fs::remove_file(&path)?,
                Err(_) => claims.extend(std::fs::read_to_string(&path)?.lines().map(str::to_owned)),
            }
        }
        Ok(claims)
    }
}

impl Lease {
    /// Claims blobs by their digests and layers by their keys, which are here or will be.
    ///
    /// # Errors
    /// The kernel's.
    pub fn claim<'a>(&self, store: &Store, what: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let lines: String = what.into_iter().flat_map(|one| [one, "\n"]).collect();
        let _lock = store.lock(false)?;
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(lines.as_bytes()).doing(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
