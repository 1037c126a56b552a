//! What `docker save` and `podman save` write: `docker-archive:FILE[:NAME:TAG]`. Its file `manifest.json` lists
//! images, each a configuration and files of layers, mostly not compressed; in old ones these may be links to
//! one another.

use super::files::{Files, Section};
use super::layout::{LayoutSource, Which};
use super::scratch::{Hashed, Scratch};
use super::tarball::{Input, Tarball};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Compression, Descriptor, LARGEST_CONFIG, LARGEST_DOCUMENT, MOST_LAYERS, media};
use crate::manifest::{ImageConfig, Manifest};
use crate::source::{Blob, Document, Source};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// An image in `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    pub config: String,
    /// Its names; null where it has none.
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// An archive, whose images are known but not read.
#[derive(Debug)]
pub struct DockerArchive {
    tarball: Arc<Tarball>,
    /// None in an archive that is a layout and nothing else.
    items: Option<Vec<Item>>,
}

impl DockerArchive {
    /// Looks through an archive; of a compressed one, or a pipe, a decompressed copy is made.
    ///
    /// # Errors
    /// `NotFound`; that it is no such archive.
    pub fn open(input: Input<'_>, scratch: &Scratch) -> Result<DockerArchive> {
        let tarball = Arc::new(Tarball::open(input, scratch)?);
        if tarball.has("manifest.json") {
            let read = tarball.read("manifest.json", LARGEST_DOCUMENT);
            let items = read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
            let items = items.doing(|| format!("read manifest.json of {}", tarball.name()))?;
            return Ok(DockerArchive { items: Some(items), tarball });
        }
        match tarball.has("index.json") {
            true => Ok(DockerArchive { tarball, items: None }),
            false => Err(Error::damaged(format!(
                "{} has neither manifest.json nor index.json: it is no archive of images",
                tarball.name()
            ))),
        }
    }

    /// The names of each of its images, in order; of an archive that is a layout only, of one without names.
    pub fn images(&self) -> Vec<Vec<String>> {
        let names = |item: &Item| item.repo_tags.clone().unwrap_or_default();
        self.items.as_ref().map_or_else(|| vec![Vec::new()], |items| items.iter().map(names).collect())
    }

    /// One of its images.
    ///
    /// # Errors
    /// `NotFound`; that there are several where none was chosen; that the image is damaged.
    pub fn image(&self, which: &Which) -> Result<Box<dyn Source>> {
        let name = format!("docker-archive:{}", self.tarball.name());
        match &self.items {
            None => Ok(Box::new(LayoutSource::of(Arc::clone(&self.tarball) as _, name, which)?)),
            Some(items) => {
                let item = choose(items, which).doing(|| format!("read {name}"))?;
                let source = DockerSource::of(&self.tarball, name.clone(), item);
                Ok(Box::new(source.doing(|| format!("read {name}"))?))
            }
        }
    }
}

/// The names of the images that an archive has, as `docker load` would load them all.
///
/// # Errors
/// As [`DockerArchive::open`].
pub fn names(path: &Path, scratch: &Scratch) -> Result<Vec<Vec<String>>> {
    DockerArchive::open(Input::File(path), scratch).map(|archive| archive.images())
}

/// Docker writes the names of its own registry without it, podman with it.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn is_called(tag: &str, wanted: &str) -> bool {
    let (tag, wanted) = (short(tag), short(wanted));
    tag == wanted || tag.strip_suffix(":latest") == Some(wanted)
}

fn choose<'a>(items: &'a [Item], which: &Which) -> Result<&'a Item> {
    let tags = |item: &'a Item| item.repo_tags.iter().flatten().map(String::as_str);
    let found: Vec<&Item> = match which {
        Which::Only => items.iter().collect(),
        Which::At(place) => items.get(*place).into_iter().collect(),
        Which::Named(wanted) => {
            items.iter().filter(|item| tags(item).any(|tag| is_called(tag, wanted))).collect()
        }
    };
    let names = || {
        let names = items.iter().map(|item| tags(item).next().unwrap_or(&item.config));
        names.collect::<Vec<_>>().join(", ")
    };
    match (found.as_slice(), which) {
        ([one], _) => Ok(one),
        ([], Which::Only) => Err(Error::new(Kind::NotFound, "it has no image")),
        ([], _) => Err(Error::new(Kind::NotFound, format!("it has no such image, but {}", names()))),
        _ => Err(Error::other(format!("it has several images, of which one is to be chosen: {}", names()))),
    }
}

/// An image of such an archive, as a manifest would describe it.
#[derive(Debug)]
struct DockerSource {
    name: String,
    document: Document,
    config: Descriptor,
    config_bytes: Vec<u8>,
    layers: Vec<(Digest, Section)>,
}

impl DockerSource {
    fn of(tarball: &Tarball, name: String, item: &Item) -> Result<DockerSource> {
        if item.layers.len() > MOST_LAYERS {
            return Err(Error::damaged(format!("it has {} layers", item.layers.len())));
        }
        let config_bytes = tarball.open_linked(&item.config)?.all(LARGEST_CONFIG);
        let config_bytes = config_bytes.doing(|| format!("read {}", item.config))?;
        let config = Descriptor::of(media::CONFIG, &config_bytes);
        let mut manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            config: config.clone(),
            layers: Vec::new(),
            annotations: None,
        };
        let parsed: ImageConfig = serde_json::from_slice(&config_bytes).doing(|| item.config.clone())?;
        let (said, has) = (parsed.rootfs.diff_ids.len(), item.layers.len());
        if said != has {
            return Err(Error::damaged(format!(
                "its configuration is of {said} layers, the archive has {has}"
            )));
        }
        let mut layers = Vec::new();
        for (path, diff_id) in item.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let described = tarball
                .open_linked(path)
                .and_then(|section| Ok((describe(path, &section, diff_id)?, section)));
            let (descriptor, section) = described.doing(|| format!("layer {path}"))?;
            layers.push((descriptor.digest.clone(), section));
            manifest.layers.push(descriptor);
        }
        let bytes = serde_json::to_vec(&manifest)?;
        let document = Document { media_type: media::MANIFEST.to_owned(), bytes };
        Ok(DockerSource { name, document, config, config_bytes, layers })
    }
}

/// A layer's digest is that of the file as it is. One that is not compressed has its diff ID for it: whoever
/// reads it checks that, so it is not read twice.
fn describe(path: &str, section: &Section, diff_id: &Digest) -> Result<Descriptor> {
    let mut start = Vec::new();
    section.clone().take(6).read_to_end(&mut start)?;
    let (media_type, digest) = match Compression::of(&start) {
        Compression::None => (media::LAYER, diff_id.clone()),
        Compression::Gzip => (media::LAYER_GZIP, digest_of(path, section)?),
        Compression::Zstd => (media::LAYER_ZSTD, digest_of(path, section)?),
    };
    Ok(Descriptor { digest, size: section.size(), ..Descriptor::of(media_type, b"") })
}

/// The digest that a file is named by, or that it has.
fn digest_of(path: &str, section: &Section) -> Result<Digest> {
    if let Some(hex) = path.strip_prefix("blobs/sha256/")
        && let Ok(digest) = format!("sha256:{hex}").parse()
    {
        return Ok(digest);
    }
    let mut hashed = Hashed::new(section.clone());
    std::io::copy(&mut hashed, &mut std::io::sink())?;
    Ok(hashed.finish().0)
}

impl Source for DockerSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Document> {
        self.document.clone().asked(digest, &self.name)
    }

    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        if blob.digest == self.config.digest {
            let offset = self.config_bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let rest = self.config_bytes[offset..].to_vec();
            return Ok((offset as u64, Box::new(std::io::Cursor::new(rest))));
        }
        let found = self.layers.iter().find(|(digest, _)| *digest == blob.digest);
        let found = found.map(|(_, section)| section.clone().past(offset));
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("there is no blob {} in {}", blob.digest, self.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which image is taken of those with these names; or what the error says.
    fn check(names: &[&[&str]], which: &Which, expected: std::result::Result<usize, &str>) {
        let item = |(number, names): (usize, &&[&str])| Item {
            config: number.to_string(),
            repo_tags: Some(names.iter().map(ToString::to_string).collect()),
            layers: Vec::new(),
        };
        let items: Vec<Item> = names.iter().enumerate().map(item).collect();
        match (choose(&items, which), expected) {
            (Ok(found), Ok(number)) => assert_eq!(found.config, number.to_string()),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{which:?}: {found:?}"),
        }
    }

    #[test]
    fn the_image_of_that_name() {
        let named = |name: &str| Which::Named(name.to_owned());
        let both: &[&[&str]] = &[&["debian:13", "debian:latest"], &["docker.io/library/alpine:3"]];
        check(both, &named("debian:13"), Ok(0));
        check(both, &named("docker.io/library/debian:13"), Ok(0));
        check(both, &named("debian"), Ok(0));
        check(both, &named("alpine:3"), Ok(1));
        check(both, &named("alpine"), Err("but debian:13, docker.io/library/alpine:3"));
        check(both, &Which::At(1), Ok(1));
        check(both, &Which::Only, Err("several images"));
        check(&[&[]], &Which::Only, Ok(0));
    }

    #[test]
    fn null_for_no_names() {
        let item: Vec<Item> =
            serde_json::from_str(r#"[{"Config":"c","RepoTags":null,"Layers":[],"Parent":"x"}]"#).unwrap();
        assert!(item[0].repo_tags.is_none());
    }
}
