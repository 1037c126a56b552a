//! A root file system, as a tar or as a directory, that becomes an image of one layer.

use super::files::Section;
use super::scratch::{Hashed, Scratch, copy_bounded, decompressed};
use super::tarball::Input;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Compression, Descriptor, Execution, History, ImageConfig, Layers, Manifest};
use crate::manifest::{Platform, media};
use crate::pack::pack;
use crate::source::{Blob, Document, Source};
use crate::tar::Writer;
use ctr_isolation::sys::fs;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read};
use std::os::fd::AsFd;
use std::path::Path;

/// What the image is to say besides.
#[derive(Clone, Debug)]
pub struct Import {
    /// For which machine it is.
    pub platform: Platform,
    /// How its program runs.
    pub execution: Execution,
    /// When it was made, as RFC 3339 has it: without it the same files make the same image at any time.
    pub created: Option<String>,
    /// What is said of how it was made; else where it comes from.
    pub comment: Option<String>,
    /// Of a directory: what is mounted in it belongs to it.
    pub cross_mounts: bool,
}

impl Default for Import {
    fn default() -> Import {
        Import {
            platform: Platform::here(),
            execution: Execution::default(),
            created: None,
            comment: None,
            cross_mounts: false,
        }
    }
}

/// A root file system as an image.
#[derive(Debug)]
pub struct RootfsSource {
    name: String,
    layer: Descriptor,
    contents: Section,
    config: (Descriptor, Vec<u8>),
    document: Document,
    notes: BTreeSet<String>,
}

impl RootfsSource {
    /// Reads a tar, which becomes the layer as it is.
    ///
    /// # Errors
    /// The kernel's; that it cannot be decompressed.
    pub fn tar(input: Input<'_>, import: &Import, scratch: &Scratch) -> Result<RootfsSource> {
        let name = input.name();
        let described = input.regular(scratch).and_then(|file| {
            let contents = Section::whole(file)?;
            let (layer, diff_id) = describe(contents.clone(), scratch.most)?;
            RootfsSource::of(name.clone(), (layer, diff_id, contents), import, BTreeSet::new())
        });
        described.doing(|| format!("import {name}"))
    }

    /// Packs the directory `path` into a tar first.
    ///
    /// # Errors
    /// The kernel's; those of [`pack`].
    pub fn directory(path: &Path, import: &Import, scratch: &Scratch) -> Result<RootfsSource> {
        let name = path.display().to_string();
        let packed = (|| {
            let root = fs::open(path, libc::O_DIRECTORY | libc::O_RDONLY)?;
            let file = scratch.file()?;
            let hashed = Hashed::new(BufWriter::with_capacity(256 << 10, file.try_clone()?));
            let mut writer = Writer::new(hashed);
            let notes = pack(root.as_fd(), import.cross_mounts, &mut writer)?;
            let (diff_id, size) = writer.finish()?.finish();
            let layer = Descriptor { digest: diff_id.clone(), size, ..Descriptor::of(media::LAYER, b"") };
            RootfsSource::of(name.clone(), (layer, diff_id, Section::whole(file)?), import, notes)
        })();
        packed.doing(|| format!("import {name}"))
    }

    /// What of the directory is left out: sentences.
    pub fn notes(&self) -> &BTreeSet<String> {
        &self.notes
    }

    fn of(
        name: String,
        (layer, diff_id, contents): (Descriptor, Digest, Section),
        import: &Import,
        notes: BTreeSet<String>,
    ) -> Result<RootfsSource> {
        let config = without_nulls(serde_json::to_value(config(&name, diff_id, import))?);
        let config = serde_json::to_vec(&config)?;
        let described = Descriptor::of(media::CONFIG, &config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            config: described.clone(),
            layers: vec![layer.clone()],
            annotations: None,
        };
        let bytes = serde_json::to_vec(&manifest)?;
        let document = Document { media_type: media::MANIFEST.to_owned(), bytes };
        Ok(RootfsSource { name, layer, contents, config: (described, config), document, notes })
    }
}

fn config(name: &str, diff_id: Digest, import: &Import) -> ImageConfig {
    let comment = import.comment.clone().unwrap_or_else(|| format!("imported from {name}"));
    let history = History { created: import.created.clone(), comment: Some(comment), ..History::default() };
    ImageConfig {
        created: import.created.clone(),
        author: None,
        architecture: import.platform.architecture.clone(),
        variant: import.platform.variant.clone(),
        os: import.platform.os.clone(),
        config: Some(import.execution.clone()),
        rootfs: Layers { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
        history: Some(vec![history]),
    }
}

/// What is not said is left out, as all others do.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let said = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(all) => Value::Array(all.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Reads a tar once, for its digest as it is and for that of what it is when decompressed.
fn describe(contents: Section, most: u64) -> Result<(Descriptor, Digest)> {
    let mut stored = BufReader::with_capacity(128 << 10, Hashed::new(contents));
    let compression = Compression::of(stored.fill_buf()?);
    let diff_id = match decompressed(&mut stored)? {
        _ if compression == Compression::None => None,
        mut contents => {
            let mut unpacked = Hashed::new(io::sink());
            copy_bounded(&mut *contents, &mut unpacked, most)?;
            Some(unpacked.finish().0)
        }
    };
    // The digest is that of all bytes.
    io::copy(&mut stored, &mut io::sink())?;
    let (digest, size) = stored.into_inner().finish();
    let diff_id = diff_id.unwrap_or_else(|| digest.clone());
    let media_type = match compression {
        Compression::None => media::LAYER,
        Compression::Gzip => media::LAYER_GZIP,
        Compression::Zstd => media::LAYER_ZSTD,
    };
    Ok((Descriptor { digest, size, ..Descriptor::of(media_type, b"") }, diff_id))
}

impl Source for RootfsSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Document> {
        match digest.is_none_or(|digest| *digest == self.document.digest()) {
            true => Ok(self.document.clone()),
            false => Err(Error::new(Kind::NotFound, format!("{} is another image", self.name))),
        }
    }

    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        if blob.digest == self.config.0.digest {
            return Ok((0, Box::new(io::Cursor::new(self.config.1.clone()))));
        }
        match blob.digest == self.layer.digest {
            true => Ok(self.contents.clone().past(offset)),
            false => Err(Error::new(Kind::NotFound, format!("{} has no blob {}", self.name, blob.digest))),
        }
    }
}

/// Whether what `path` leads to is a directory.
pub(super) fn is_directory(path: &Path) -> Result<bool> {
    let data = File::open(path).and_then(|file| file.metadata());
    Ok(data.doing(|| format!("open {}", path.display()))?.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_no_nulls() {
        let import = Import { created: Some("2020-01-01T00:00:00Z".into()), ..Import::default() };
        let config = config("x.tar", Digest::of(b""), &import);
        let value = without_nulls(serde_json::to_value(&config).unwrap());
        let text = value.to_string();
        assert!(!text.contains("null") && text.contains("imported from x.tar"), "{text}");
        assert_eq!(serde_json::from_str::<ImageConfig>(&text).unwrap(), config);
    }
}
