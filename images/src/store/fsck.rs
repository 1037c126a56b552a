//! Whether the store has what it says, and mending it.
//!
//! A blob is what its digest says, or it is of no use. An unpacked layer is compared with the archive it came from, entry by
//! entry: where that is here, a layer that is not like it is unpacked again.

use super::layer::{Place, chains};
use super::prune::{entries, file_name};
use super::{Image, Store};
use crate::digest::{Digest, Verified};
use crate::error::{Context, Result};
use crate::manifest::{Descriptor, Manifest};
use crate::source::{Blob, Document, Source};
use crate::unpack::compare;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about: a digest of an image, a blob or a layer.
    pub what: String,
    /// What is wrong with it.
    pub wrong: String,
    /// It was mended.
    pub mended: bool,
}

/// What was looked at, and what of it is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many images.
    pub images: usize,
    /// How many blobs.
    pub blobs: usize,
    /// How many layers.
    pub layers: usize,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Looks at all there is; with `mend` takes away what is damaged and unpacks layers again, where their blobs are here.
    ///
    /// # Errors
    /// The kernel's; that of mending.
    pub fn fsck(&self, mend: bool) -> Result<Report> {
        let lease = self.lease()?;
        let names = self.names()?;
        let mut report = Report { images: names.images.len(), ..Report::default() };
        let mut seen = BTreeSet::new();
        lease.claim(self, names.images.iter().map(|image| image.digest.as_str()))?;
        self.check_blobs(mend, &mut report)?;
        for image in &names.images {
            match self.read_image(image) {
                Ok((manifest, _)) => self.check_layers(image, &manifest, mend, &mut seen, &mut report)?,
                // What of it is here was looked at; the rest only a pull brings back.
                Err(error) => report.add(&image.digest, format!("pull it again: {error}"), false),
            }
        }
        Ok(report)
    }

    fn check_blobs(&self, mend: bool, report: &mut Report) -> Result<()> {
        let blobs = self.part("blobs");
        for algorithm in entries(&blobs)? {
            for path in entries(&algorithm)? {
                report.blobs += 1;
                let name = format!("{}:{}", file_name(&algorithm), file_name(&path));
                let wrong = match name.parse::<Digest>() {
                    Ok(digest) => self.check_blob(&digest).err().map(|error| error.to_string()),
                    Err(_) => Some("it has no name that a blob has".to_owned()),
                };
                if let Some(wrong) = wrong {
                    // Without it a pull brings it back; with it that would not look.
                    if mend {
                        fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
                    }
                    report.add(&name, wrong, false);
                }
            }
        }
        Ok(())
    }

    fn check_blob(&self, digest: &Digest) -> Result<()> {
        let (file, size) = self.open_blob(digest)?;
        io::copy(&mut Verified::new(file, digest, size), &mut io::sink())?;
        Ok(())
    }

    fn check_layers(
        &self,
        image: &Image,
        manifest: &Manifest,
        mend: bool,
        seen: &mut BTreeSet<Digest>,
        report: &mut Report,
    ) -> Result<()> {
        let chains = chains(&image.diff_ids);
        let blobs: Vec<Blob> = manifest.layers.iter().map(Descriptor::blob).collect();
        for (index, blob) in blobs.iter().enumerate() {
            let place = Place { blob, diff_id: &image.diff_ids[index], chain: &chains[index] };
            if !seen.insert(place.chain.clone()) {
                continue;
            }
            report.layers += 1;
            let Some(wrong) = self.wrong_with(&place)? else { continue };
            let can = mend && self.has_blob(&blob.digest);
            if can {
                self.unpack_again(&place, image)?;
            }
            report.add(place.diff_id, wrong, can);
        }
        Ok(())
    }

    /// What an unpacked layer has that its archive has not, or otherwise.
    fn wrong_with(&self, place: &Place<'_>) -> Result<Option<String>> {
        let Some(layer) = self.find_layer(place.diff_id, place.chain) else {
            return Ok(Some("it is not unpacked here".to_owned()));
        };
        if !self.has_blob(&place.blob.digest) {
            let is_there = self.tree(&layer).is_dir();
            return Ok((!is_there).then(|| "its directory is gone, and its blob is not here".to_owned()));
        }
        let (file, _) = self.open_blob(&place.blob.digest)?;
        let options = self.options();
        let found = super::layer::decoded(file, place.diff_id, |reader| {
            compare(reader, &self.tree(&layer), &layer.info.implied, options)
        });
        Ok(found.unwrap_or_else(|error| Some(error.to_string())))
    }

    /// Unpacks a layer from its blob and puts it in the place of the damaged one.
    fn unpack_again(&self, place: &Place<'_>, image: &Image) -> Result<()> {
        if let Some(layer) = self.find_layer(place.diff_id, place.chain) {
            let work = self.work()?;
            let path = self.tree(&layer);
            let whole = path.parent().unwrap_or(&path);
            // It goes with the directory it is moved to.
            fs::rename(whole, work.path.join("damaged"))
                .doing(|| format!("move {} away", whole.display()))?;
        }
        let watcher = |_: crate::source::Event<'_>| {};
        let unpacked = self.fetch_layer(&Nowhere, place, &watcher, &AtomicBool::new(false))?;
        let Some((work, unpacked)) = unpacked else { return Ok(()) };
        let index = image.diff_ids.iter().position(|diff_id| diff_id == place.diff_id).unwrap_or_default();
        let below: Vec<_> = self.layers(&image.diff_ids[..index]).into_iter().flatten().collect();
        self.place_layer(&work, unpacked, place, &below).map(drop)
    }
}

impl Report {
    fn add(&mut self, what: &(impl ToString + ?Sized), wrong: String, mended: bool) {
        self.findings.push(Finding { what: what.to_string(), wrong, mended });
    }
}

/// A source that has nothing: what is not in the store is not fetched.
#[derive(Debug)]
struct Nowhere;

impl Source for Nowhere {
    fn name(&self) -> String {
        "the store".to_owned()
    }

    fn document(&self, _digest: Option<&Digest>) -> Result<Document> {
        Err(crate::Error::new(crate::Kind::NotFound, "it is not in the store"))
    }

    fn blob(&self, _blob: &Blob, _offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        Err(crate::Error::new(crate::Kind::NotFound, "it is not in the store"))
    }
}
