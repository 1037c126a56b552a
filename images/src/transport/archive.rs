//! A layout of images in a tar: `oci-archive:FILE[:REF]`.

use super::layout::{LayoutSink, LayoutSource, Which};
use super::scratch::{Output, Scratch, Staging};
use super::tarball::{Input, Tarball};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::source::{Blob, Document, Sink, Source};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

/// An image in an archive of a layout.
#[derive(Debug)]
pub struct ArchiveSource(LayoutSource);

impl ArchiveSource {
    /// Looks through an archive; of a compressed one, or a pipe, a decompressed copy is made.
    ///
    /// # Errors
    /// As [`LayoutSource::open`], and that it is no such archive.
    pub fn open(input: Input<'_>, which: &Which, scratch: &Scratch) -> Result<ArchiveSource> {
        let tarball = Tarball::open(input, scratch)?;
        let name = format!("oci-archive:{}", tarball.name());
        LayoutSource::of(Arc::new(tarball), name, which).map(ArchiveSource)
    }
}

impl Source for ArchiveSource {
    fn name(&self) -> String {
        self.0.name()
    }

    fn reference(&self) -> Option<String> {
        self.0.reference()
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Document> {
        self.0.document(digest)
    }

    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        self.0.blob(blob, offset)
    }
}

/// An archive that is being made: a layout that is put into a tar at the end.
#[derive(Debug)]
pub struct ArchiveSink {
    name: String,
    layout: LayoutSink,
    staging: Staging,
    output: Mutex<Option<Output>>,
}

impl ArchiveSink {
    /// Begins an archive, which replaces one that is there. `reference`: what the image is to be called.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(output: Output, reference: Option<&str>, scratch: &Scratch) -> Result<ArchiveSink> {
        let name = match (&output, reference) {
            (Output::File(path), None) => format!("oci-archive:{}", path.display()),
            (Output::File(path), Some(reference)) => format!("oci-archive:{}:{reference}", path.display()),
            (Output::Stream(_), _) => "oci-archive:-".to_owned(),
        };
        let staging = scratch.staging()?;
        let layout = LayoutSink::open(&staging.path, reference)?;
        Ok(ArchiveSink { name, layout, staging, output: Mutex::new(Some(output)) })
    }
}

impl Sink for ArchiveSink {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn has(&self, blob: &Blob) -> Result<bool> {
        self.layout.has(blob)
    }

    fn put(&self, blob: &Blob, again: &dyn Fn() -> Result<Box<dyn Read + Send>>) -> Result<()> {
        self.layout.put(blob, again)
    }

    fn document(&self, document: &Document, is_top: bool) -> Result<()> {
        self.layout.document(document, is_top)
    }

    fn finish(&self) -> Result<()> {
        self.layout.finish()?;
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let output = output.ok_or_else(|| Error::other("it has been written already"))?;
        output.write(|to| self.staging.archive(to)).doing(|| format!("write {}", self.name))
    }
}
