//! Where images come from and go to: what a registry, a layout and an archive have in common.

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use std::fmt::Debug;
use std::io::Read;

/// The bytes of a manifest or an index, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its media type, as it was told or as it says itself.
    pub media_type: String,
    /// The bytes, unchanged: their digest is its name.
    pub bytes: Vec<u8>,
}

impl Document {
    /// What it is called.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The document, for who has asked `source`, which has no other, for it or for that of `digest`.
    pub(crate) fn asked(self, digest: Option<&Digest>, source: &str) -> Result<Document> {
        match digest.is_none_or(|digest| *digest == self.digest()) {
            true => Ok(self),
            false => Err(Error::new(Kind::NotFound, format!("there is no such manifest in {source}"))),
        }
    }
}

/// A blob: what a manifest says of its configuration or of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Other places where it may be had (descriptor.md, `urls`).
    pub urls: Vec<String>,
}

/// Something that an image can be read from. Used by several threads at once.
pub trait Source: Debug + Sync {
    /// What people call it: `docker.io/library/debian:13`, `oci:dir:tag`.
    fn name(&self) -> String;

    /// What the image is called there, where that is the whole name of an image.
    fn reference(&self) -> Option<String> {
        None
    }

    /// The document that the source stands for, or that of `digest`. Of one that was asked for by digest, the digest is
    /// checked by the caller.
    ///
    /// # Errors
    /// `NotFound` when it is not there.
    fn document(&self, digest: Option<&Digest>) -> Result<Document>;

    /// The bytes of `blob` from `offset` on; the caller checks them. A source that cannot start there may start at the
    /// beginning: it says where it starts.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `Lost` when it may be worth another try.
    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)>;
}

/// Something that an image can be written to.
pub trait Sink: Debug + Sync {
    /// What people call it.
    fn name(&self) -> String;

    /// Whether it has the blob already.
    ///
    /// # Errors
    /// When that cannot be told.
    fn has(&self, blob: &Blob) -> Result<bool>;

    /// Takes in the blob, whose bytes `bytes` has; `again` begins anew, where a first try was cut short.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put(&self, blob: &Blob, again: &dyn Fn() -> Result<Box<dyn Read + Send>>) -> Result<()>;

    /// Takes in a manifest or an index. What it refers to is there. `is_top`: it is what the sink's name is to mean.
    ///
    /// # Errors
    /// When it cannot be written.
    fn document(&self, document: &Document, is_top: bool) -> Result<()>;

    /// Everything is there: what had to wait for that is done.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish(&self) -> Result<()>;
}

/// What an operation tells of how far it is. Told by several threads at once.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Work on a part begins: what kind it is, and how many bytes it has.
    Begin {
        /// Which.
        blob: &'a Blob,
        /// In words: `layer`, `config`.
        kind: &'static str,
    },
    /// So many bytes more of it are done; the first may be those of an earlier try.
    Advance {
        /// Which.
        digest: &'a Digest,
        /// How many more.
        bytes: u64,
    },
    /// It is wholly there.
    Done {
        /// Which.
        digest: &'a Digest,
        /// It was there before.
        known: bool,
    },
    /// Something that a person should read.
    Note(&'a str),
}

/// Who is told.
pub type Watcher<'a> = &'a (dyn Fn(Event<'_>) + Sync);
