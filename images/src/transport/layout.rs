//! A directory of the image layout (image-spec image-layout.md): `oci:DIR[:REF]`.

use super::files::{Directory, Files, Section, document, or_missing};
use super::scratch::{move_in, replace};
use crate::digest::{Digest, Verified};
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Descriptor, Index, LARGEST_DOCUMENT, Parsed, media};
use crate::source::{Blob, Document, Sink, Source};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a manifest is called in the index of a layout (annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's word for the whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Which of the images of a layout or an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The only one.
    #[default]
    Only,
    /// The one of this name.
    Named(String),
    /// By its place, the first being 0.
    At(usize),
}

/// An image in a layout.
#[derive(Debug)]
pub struct LayoutSource {
    files: Arc<dyn Files>,
    name: String,
    top: Descriptor,
}

impl LayoutSource {
    /// Opens the layout in the directory `path`.
    ///
    /// # Errors
    /// `NotFound`; that it is no layout, or that there are several images where none was chosen.
    pub fn open(path: &Path, which: &Which) -> Result<LayoutSource> {
        let name = format!("oci:{}", path.display());
        let files = Directory::open(path).doing(|| format!("open the layout {}", path.display()))?;
        LayoutSource::of(Arc::new(files), name, which)
    }

    /// The same, of files that are anywhere.
    pub(super) fn of(files: Arc<dyn Files>, name: String, which: &Which) -> Result<LayoutSource> {
        let chosen = check_version(&*files).and_then(|()| choose(&read_index(&*files)?, which));
        let top = chosen.doing(|| format!("read {name}"))?;
        let name = match which {
            Which::Only => name,
            Which::Named(reference) => format!("{name}:{reference}"),
            Which::At(index) => format!("{name}:@{index}"),
        };
        Ok(LayoutSource { files, name, top })
    }
}

fn check_version(files: &dyn Files) -> Result<()> {
    let read = files.read("oci-layout", 4096);
    let text = or_missing(read, || Error::damaged("it has no file oci-layout: it is no layout of images"))?;
    let value: Value = serde_json::from_slice(&text).doing(|| "read oci-layout")?;
    match value.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => Ok(()),
        other => {
            let other = other.unwrap_or("none");
            Err(Error::other(format!("its layout has version {other}; 1.0.0 is known")))
        }
    }
}

fn read_index(files: &dyn Files) -> Result<Index> {
    let bytes = files.read("index.json", LARGEST_DOCUMENT)?;
    let document = Document { media_type: media::INDEX.to_owned(), bytes };
    match Parsed::read(&document).doing(|| "read index.json")? {
        Parsed::Index(index) => Ok(index),
        Parsed::Manifest(_) => Err(Error::damaged("its index.json is a manifest")),
    }
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations.as_ref()?.get(key).map(String::as_str)
}

/// What people may choose by.
fn name_of(descriptor: &Descriptor) -> String {
    let name = annotation(descriptor, REF_NAME).or(annotation(descriptor, IMAGE_NAME));
    name.map_or_else(|| descriptor.digest.to_string(), str::to_owned)
}

fn choose(index: &Index, which: &Which) -> Result<Descriptor> {
    let all = &index.manifests;
    let names = || all.iter().map(name_of).collect::<Vec<_>>().join(", ");
    let by = |key: &str, wanted: &str| -> Vec<&Descriptor> {
        all.iter().filter(|one| annotation(one, key) == Some(wanted)).collect()
    };
    let found = match which {
        Which::Only => all.iter().collect(),
        Which::At(place) => all.get(*place).into_iter().collect(),
        Which::Named(wanted) => match by(REF_NAME, wanted) {
            none if none.is_empty() => by(IMAGE_NAME, wanted),
            found => found,
        },
    };
    match (found.as_slice(), which) {
        ([one], _) => Ok((*one).clone()),
        ([], Which::Only) => Err(Error::new(Kind::NotFound, "it has no image")),
        ([], _) => Err(Error::new(Kind::NotFound, format!("it has no such image, but {}", names()))),
        (_, Which::Named(wanted)) => Err(Error::other(format!(
            "several of its images are called {wanted}: choose with :@0 to :@{}",
            all.len() - 1
        ))),
        _ => Err(Error::other(format!("it has several images, of which one is to be chosen: {}", names()))),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

impl Source for LayoutSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn reference(&self) -> Option<String> {
        // Some write a tag alone.
        let names = [REF_NAME, IMAGE_NAME].into_iter().filter_map(|key| annotation(&self.top, key));
        names.into_iter().find(|name| name.contains(['/', ':'])).map(str::to_owned)
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Document> {
        let wanted = digest.unwrap_or(&self.top.digest);
        let section = self.files.open(&blob_name(wanted))?;
        let bytes = section.clone().all(LARGEST_DOCUMENT).doing(|| format!("manifest {wanted}"))?;
        if digest.is_some() {
            return Ok(document(bytes));
        }
        std::io::copy(&mut Verified::new(section, wanted, self.top.size), &mut std::io::sink())?;
        Ok(Document { media_type: self.top.media_type.clone(), bytes })
    }

    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        self.files.open(&blob_name(&blob.digest)).map(|section| Section::past(section, offset))
    }
}

/// A layout that an image is added to.
#[derive(Debug)]
pub struct LayoutSink {
    dir: PathBuf,
    reference: Option<String>,
    tops: Mutex<Vec<Descriptor>>,
}

impl LayoutSink {
    /// Opens the layout `dir`, or makes one where there is nothing yet. `reference`: what the image is to be
    /// called.
    ///
    /// # Errors
    /// The kernel's; that there is something else.
    pub fn open(dir: &Path, reference: Option<&str>) -> Result<LayoutSink> {
        let opened = (|| {
            DirBuilder::new().recursive(true).create(dir)?;
            let files = Directory::open(dir)?;
            match check_version(&files) {
                Err(_) if fs::read_dir(dir)?.next().is_none() => {
                    replace(&dir.join("oci-layout"), |file| Ok(file.write_all(LAYOUT.as_bytes())?))
                }
                other => other,
            }
        })();
        opened.doing(|| format!("open the layout {}", dir.display()))?;
        let tops = Mutex::default();
        Ok(LayoutSink { dir: dir.to_owned(), reference: reference.map(str::to_owned), tops })
    }

    /// The path of a blob, whose directory is there and is one.
    fn place(&self, digest: &Digest) -> Result<PathBuf> {
        let mut path = self.dir.clone();
        for part in ["blobs", digest.algorithm()] {
            path.push(part);
            match DirBuilder::new().create(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.doing(|| format!("make {}", path.display()))?,
            }
            if !fs::symlink_metadata(&path)?.is_dir() {
                return Err(Error::damaged(format!("{} is no directory", path.display())));
            }
        }
        Ok(path.join(digest.hex()))
    }

    fn write(&self, digest: &Digest, size: u64, from: impl Read) -> Result<()> {
        let path = self.place(digest)?;
        move_in(&self.dir, &path, &mut Verified::new(from, digest, size)).map(drop)
    }

    /// Adds the images to the index; what was called as they are now is not any more.
    fn add(&self, tops: &[Descriptor]) -> Result<()> {
        let lock = Flock::lock(File::open(&self.dir)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        let _lock = lock.doing(|| "lock it")?;
        let files = Directory::open(&self.dir)?;
        let mut index: Value = match files.read("index.json", LARGEST_DOCUMENT) {
            Err(error) if error.kind == Kind::NotFound => {
                json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": []})
            }
            other => serde_json::from_slice(&other?).doing(|| "read index.json")?,
        };
        let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
        let manifests = manifests.ok_or_else(|| Error::damaged("its index.json is no index"))?;
        for top in tops {
            let name = annotation(top, REF_NAME);
            manifests.retain(|other| {
                let said = other.get("annotations").and_then(|all| all.get(REF_NAME)).and_then(Value::as_str);
                let is_same = other.get("digest").and_then(Value::as_str) == Some(top.digest.as_str());
                said != name || name.is_none() && !is_same
            });
            manifests.push(serde_json::to_value(top)?);
        }
        let text = serde_json::to_vec(&index)?;
        replace(&self.dir.join("index.json"), |file| Ok(file.write_all(&text)?))
    }
}

impl Sink for LayoutSink {
    fn name(&self) -> String {
        let name = format!("oci:{}", self.dir.display());
        self.reference.as_ref().map_or(name.clone(), |reference| format!("{name}:{reference}"))
    }

    fn has(&self, blob: &Blob) -> Result<bool> {
        let path = self.dir.join(blob_name(&blob.digest));
        Ok(fs::symlink_metadata(path).is_ok_and(|data| data.is_file() && data.len() == blob.size))
    }

    fn put(&self, blob: &Blob, again: &dyn Fn() -> Result<Box<dyn Read + Send>>) -> Result<()> {
        self.write(&blob.digest, blob.size, again()?)
    }

    fn document(&self, document: &Document, is_top: bool) -> Result<()> {
        let mut descriptor = Descriptor::of(&document.media_type, &document.bytes);
        self.write(&descriptor.digest, descriptor.size, document.bytes.as_slice())?;
        if is_top {
            let name = |reference: &String| (REF_NAME.to_owned(), reference.clone());
            descriptor.annotations = self.reference.iter().map(name).map(|one| [one].into()).next();
            self.tops.lock().unwrap_or_else(PoisonError::into_inner).push(descriptor);
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let tops = std::mem::take(&mut *self.tops.lock().unwrap_or_else(PoisonError::into_inner));
        if tops.is_empty() {
            return Err(Error::other(format!("no image was written to {}", self.name())));
        }
        self.add(&tops).doing(|| format!("add the image to {}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(annotations: &[&[(&str, &str)]]) -> Index {
        let manifest = |(number, pairs): (usize, &&[(&str, &str)])| Descriptor {
            annotations: Some(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()),
            ..Descriptor::of(media::MANIFEST, number.to_string().as_bytes())
        };
        let manifests = annotations.iter().enumerate().map(manifest).collect();
        Index { schema_version: 2, media_type: None, manifests, annotations: None }
    }

    /// Which image of the index is taken; or what the error says.
    fn check(index: &Index, which: &Which, expected: std::result::Result<usize, &str>) {
        match (choose(index, which), expected) {
            (Ok(found), Ok(number)) => {
                assert_eq!(found.digest, Digest::of(number.to_string().as_bytes()));
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{which:?}: {found:?}"),
        }
    }

    #[test]
    fn the_image_of_that_name() {
        let named = |name: &str| Which::Named(name.to_owned());
        let three = index(&[&[(REF_NAME, "a")], &[(IMAGE_NAME, "r/b:1"), (REF_NAME, "1")], &[]]);
        check(&three, &named("a"), Ok(0));
        check(&three, &named("1"), Ok(1));
        check(&three, &named("r/b:1"), Ok(1));
        check(&three, &named("c"), Err("but a, 1, sha256:"));
        check(&three, &Which::At(2), Ok(2));
        check(&three, &Which::At(3), Err("no such"));
        check(&three, &Which::Only, Err("several images"));
        check(&index(&[&[]]), &Which::Only, Ok(0));
        check(&index(&[]), &Which::Only, Err("no image"));
        check(&index(&[&[(REF_NAME, "a")], &[(REF_NAME, "a")]]), &named("a"), Err(":@0 to :@1"));
    }
}
