//! Taking out of the store what nobody needs.

use super::{Names, Store, layer::chains, unique};
use crate::digest::Digest;
use crate::error::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What containers use: keys of layers, and digests of manifests.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Names of directories of layers.
    pub layers: BTreeSet<String>,
    /// Digests of manifests.
    pub images: BTreeSet<Digest>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Manifests that no name meant any more.
    pub images: Vec<Digest>,
    /// How many blobs.
    pub blobs: u64,
    /// How many layers.
    pub layers: u64,
    /// How many bytes that was.
    pub bytes: u64,
}

impl Store {
    /// Removes what no name, no container and no living process needs. `containers` says what they use, and is asked while
    /// nobody can begin to use anything; with `all`, images that only have a name, and no container, go too.
    ///
    /// # Errors
    /// The kernel's; what is to go and could not is left for the next time.
    pub fn prune(&self, all: bool, containers: impl FnOnce() -> Result<InUse>) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let trash = self.part("work").join(format!("trash-{}", unique()));
        {
            let _lock = self.lock(true)?;
            let (claims, used, names) = (self.claims()?, containers()?, self.names()?);
            let keep = self.choose_images(&names, all, &claims, &used, &mut pruned);
            let wanted = self.needed(&keep, claims, used);
            if keep != names {
                let text = serde_json::to_vec_pretty(&keep)?;
                self.write_whole(&self.part("names.json"), &text).doing(|| "write the store's names")?;
            }
            fs::create_dir(&trash).doing(|| format!("make {}", trash.display()))?;
            self.sweep(&wanted, &trash, &mut pruned)?;
        }
        fs::remove_dir_all(&trash).doing(|| format!("remove {}", trash.display()))?;
        Ok(pruned)
    }

    fn choose_images(
        &self,
        names: &Names,
        all: bool,
        claims: &BTreeSet<String>,
        used: &InUse,
        pruned: &mut Pruned,
    ) -> Names {
        let mut keep = names.clone();
        keep.images.retain(|image| {
            let is_used = used.images.contains(&image.digest) || claims.contains(image.digest.as_str());
            let is_kept = is_used || (!all && names.names_of(&image.digest).next().is_some());
            if !is_kept {
                pruned.images.push(image.digest.clone());
            }
            is_kept
        });
        let images = &keep.images;
        keep.names.retain(|_, digest| images.iter().any(|image| image.digest == *digest));
        keep
    }

    /// Every name below `blobs` and `layers` that must stay.
    fn needed(&self, names: &Names, claims: BTreeSet<String>, used: InUse) -> BTreeSet<String> {
        let mut wanted: BTreeSet<String> = claims;
        wanted.extend(used.layers);
        for image in &names.images {
            let digests = [Some(&image.digest), Some(&image.config), image.index.as_ref()];
            wanted.extend(digests.into_iter().flatten().map(ToString::to_string));
            // Of an image that cannot be read its layers stay nevertheless: `fsck` may mend it.
            if let Ok((manifest, _)) = self.read_image(image) {
                wanted.extend(manifest.layers.iter().map(|layer| layer.digest.to_string()));
            }
            let keys = image.diff_ids.iter().cloned().chain(chains(&image.diff_ids));
            wanted.extend(keys.map(|digest| digest.hex().to_owned()));
        }
        wanted
    }

    fn sweep(&self, wanted: &BTreeSet<String>, trash: &Path, pruned: &mut Pruned) -> Result<()> {
        for algorithm in entries(&self.part("blobs"))? {
            for path in entries(&algorithm)? {
                let digest = format!("{}:{}", file_name(&algorithm), file_name(&path));
                if !wanted.contains(&digest) {
                    pruned.bytes += fs::metadata(&path).map_or(0, |data| data.len());
                    pruned.blobs += 1;
                    throw(&path, trash)?;
                }
            }
        }
        for path in entries(&self.part("layers"))? {
            let key = file_name(&path);
            if !wanted.contains(&key) {
                pruned.bytes += self.layer_of(&key).map_or(0, |layer| layer.info.size);
                pruned.layers += 1;
                throw(&path, trash)?;
            }
        }
        // What processes have left that are gone; and partial blobs that nobody is fetching.
        for path in entries(&self.part("work"))?.into_iter().chain(entries(&self.part("partial"))?) {
            let is_free = path != trash
                && File::open(&path)
                    .is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok());
            let is_draft = file_name(&path).starts_with("file-");
            if is_free && !is_draft || is_draft && is_older(&path, A_MOMENT) {
                throw(&path, trash)?;
            }
        }
        for path in entries(&self.part("scratch"))?.iter().filter(|path| is_older(path, A_DAY)) {
            throw(path, trash)?;
        }
        Ok(())
    }
}

/// Drafts of files have no lock, and live for a moment.
const A_MOMENT: u64 = 60;

/// Nothing is read or written by way of a file for longer; in seconds, too.
const A_DAY: u64 = 24 * 3600;

fn is_older(path: &Path, seconds: u64) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|data| data.modified()).ok();
    changed.and_then(|time| time.elapsed().ok()).is_some_and(|age| age.as_secs() > seconds)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read =
        || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    read().doing(|| format!("read {}", directory.display()))
}

fn throw(path: &Path, trash: &Path) -> Result<()> {
    fs::rename(path, trash.join(unique())).doing(|| format!("remove {}", path.display()))
}
