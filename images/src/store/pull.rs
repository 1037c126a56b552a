//! From a source to the store.

use super::layer::{Place, chains};
use super::{Image, Layer, Lease, Store};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Descriptor, ImageConfig, LARGEST_DOCUMENT, Manifest, Parsed, Platform};
use crate::source::{Document, Event, Source, Watcher};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// An index may be of indexes; not of itself.
const DEEPEST: usize = 4;

/// What is wanted of a source.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// For which machine.
    pub platform: Platform,
    /// The document that must be there, where that was said.
    pub digest: Option<Digest>,
}

/// What a pull has brought, claimed until it is dropped.
#[derive(Debug)]
pub struct Pull {
    /// The image.
    pub image: Image,
    /// What could not be kept of its layers.
    pub notes: BTreeSet<String>,
    /// So that nobody prunes it before it has a name.
    pub lease: Lease,
}

/// An image of a source that has been chosen and described, but not fetched.
struct Chosen {
    document: Document,
    manifest: Manifest,
    index: Option<Document>,
    platform: Option<Platform>,
}

impl Store {
    /// Fetches what is not here of the image that `source` stands for, and unpacks its layers.
    ///
    /// # Errors
    /// The source's, the kernel's, and whatever is not what it was said to be: what was whole before that stays, for the
    /// next try.
    pub fn pull(&self, source: &dyn Source, wanted: &Wanted, watcher: Watcher<'_>) -> Result<Pull> {
        let lease = self.lease()?;
        let chosen = choose(source, wanted)?;
        let digest = chosen.document.digest();
        let index = chosen.index.as_ref().map(Document::digest);
        let documents = [Some(&digest), Some(&chosen.manifest.config.digest), index.as_ref()];
        lease.claim(self, documents.into_iter().flatten().map(Digest::as_str))?;
        let config = self.fetch_config(source, &chosen.manifest, watcher)?;
        let config = ImageConfig::read(&config, &chosen.manifest)?;
        let layers = self.fetch_layers(source, &chosen.manifest, &config, &lease, watcher)?;
        self.put_blob(&chosen.document.bytes)?;
        if let Some(index) = &chosen.index {
            self.put_blob(&index.bytes)?;
        }
        let own = Platform { os: config.os, architecture: config.architecture, variant: config.variant };
        let image = Image {
            digest,
            media_type: chosen.document.media_type,
            config: chosen.manifest.config.digest,
            index,
            platform: chosen.platform.unwrap_or(own),
            fetched_size: chosen.manifest.layers.iter().map(|layer| layer.size).sum(),
            diff_ids: config.rootfs.diff_ids,
            added: std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        };
        let notes = layers.into_iter().flat_map(|layer| layer.info.notes).collect();
        Ok(Pull { image, notes, lease })
    }

    fn fetch_config(
        &self,
        source: &dyn Source,
        manifest: &Manifest,
        watcher: Watcher<'_>,
    ) -> Result<Vec<u8>> {
        let config = &manifest.config;
        if !self.has_blob(&config.digest) {
            let stop = AtomicBool::new(false);
            self.fetch_blob(source, &config.blob(), watcher, &stop).doing(|| "fetch the configuration")?;
        }
        self.read_blob(&config.digest, crate::manifest::LARGEST_CONFIG)
    }

    /// Fetches and unpacks the layers, several at once.
    fn fetch_layers(
        &self,
        source: &dyn Source,
        manifest: &Manifest,
        config: &ImageConfig,
        lease: &Lease,
        watcher: Watcher<'_>,
    ) -> Result<Vec<Layer>> {
        let diff_ids = &config.rootfs.diff_ids;
        let chains = chains(diff_ids);
        let blobs: Vec<_> = manifest.layers.iter().map(Descriptor::blob).collect();
        let keys = diff_ids.iter().chain(&chains).map(Digest::hex);
        lease.claim(self, blobs.iter().map(|blob| blob.digest.as_str()).chain(keys))?;
        let places: Vec<Place<'_>> = (0..blobs.len())
            .map(|index| Place { blob: &blobs[index], diff_id: &diff_ids[index], chain: &chains[index] })
            .collect();
        // The same layer twice is fetched once.
        let mut seen = BTreeSet::new();
        let missing: Vec<usize> = (0..places.len())
            .filter(|index| {
                let place = &places[*index];
                let is_here = self.has_layer(place);
                if is_here {
                    watcher(Event::Begin { blob: place.blob, kind: "layer" });
                    watcher(Event::Done { digest: &place.blob.digest, known: true });
                }
                !is_here && seen.insert(place.diff_id)
            })
            .collect();
        let works = self.fetch_missing(source, &places, &missing, watcher)?;
        let mut layers: Vec<Layer> = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let work =
                works.iter().position(|(of, _)| *of == index).and_then(|at| works[at].1.lock().ok()?.take());
            let layer = match work {
                Some((work, unpacked)) => self.place_layer(&work, unpacked, place, &layers)?,
                None => self.find_layer(place.diff_id, place.chain).ok_or_else(|| {
                    Error::other(format!(
                        "layer {} has gone while the image was fetched",
                        place.diff_id.short()
                    ))
                })?,
            };
            layers.push(layer);
        }
        Ok(layers)
    }

    /// Each of `missing`, with what is to be put in its place.
    #[allow(clippy::type_complexity)]
    fn fetch_missing(
        &self,
        source: &dyn Source,
        places: &[Place<'_>],
        missing: &[usize],
        watcher: Watcher<'_>,
    ) -> Result<Vec<(usize, Mutex<Option<(super::layer::Work, crate::unpack::Unpacked)>>)>> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let works: Vec<_> = missing.iter().map(|index| (*index, Mutex::new(None))).collect();
        let first_error = Mutex::new(None);
        let work = || {
            while let Some((index, result)) = works.get(next.fetch_add(1, Ordering::Relaxed)) {
                let place = &places[*index];
                watcher(Event::Begin { blob: place.blob, kind: "layer" });
                let fetched = self.fetch_layer(source, place, watcher, &stop).doing(|| {
                    format!("layer {} of {} ({})", index + 1, places.len(), place.blob.digest.short())
                });
                match fetched {
                    Ok(done) => {
                        watcher(Event::Done { digest: &place.blob.digest, known: done.is_none() });
                        if let Ok(mut result) = result.lock() {
                            *result = done;
                        }
                    }
                    Err(error) => {
                        // The others fail, too, because of this one.
                        if !stop.swap(true, Ordering::Relaxed)
                            && let Ok(mut first) = first_error.lock()
                        {
                            *first = Some(error);
                        }
                        return;
                    }
                }
            }
        };
        let workers = self.rules.parallel.clamp(1, 16).min(missing.len());
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        match first_error.into_inner() {
            Ok(Some(error)) => Err(error),
            _ => Ok(works),
        }
    }
}

/// Finds the manifest for the machine, through indexes.
fn choose(source: &dyn Source, wanted: &Wanted) -> Result<Chosen> {
    let mut document = source.document(wanted.digest.as_ref())?;
    let mut promised = wanted.digest.clone();
    let (mut index, mut platform) = (None, None);
    for _ in 0..DEEPEST {
        if document.bytes.len() as u64 > LARGEST_DOCUMENT {
            return Err(Error::damaged(format!("its manifest has {} bytes", document.bytes.len())));
        }
        if let Some(promised) = promised.filter(|promised| promised.recompute(&document.bytes) != *promised) {
            return Err(Error::damaged(format!(
                "{} sends a manifest with the digest {} for {promised}",
                source.name(),
                document.digest()
            )));
        }
        match Parsed::read(&document)? {
            Parsed::Manifest(manifest) => return Ok(Chosen { document, manifest, index, platform }),
            Parsed::Index(list) => {
                let chosen = list.choose(&wanted.platform)?.clone();
                let next = source.document(Some(&chosen.digest))?;
                if next.bytes.len() as u64 != chosen.size {
                    return Err(Error::damaged(format!(
                        "{} is not as large as its index says",
                        chosen.digest
                    )));
                }
                promised = Some(chosen.digest);
                platform = chosen.platform;
                index = Some(std::mem::replace(&mut document, next));
            }
        }
    }
    Err(Error::new(Kind::Damaged, "its index leads from one to the next"))
}
