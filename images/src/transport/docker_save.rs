//! Writes what `docker load` and `podman load` read: the other side of [`super::docker_archive`].

use super::docker_archive::Item;
use super::scratch::{Hashed, Output, Scratch, Staging, copy_bounded, decompressed};
use crate::digest::{Digest, Verified};
use crate::error::{Context, Error, Result};
use crate::manifest::{ImageConfig, LARGEST_CONFIG, Manifest, Parsed};
use crate::source::{Blob, Document, Sink};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An archive that is being made. It takes several images, one after the other; layers that they have in common
/// are in it once.
#[derive(Debug)]
pub struct DockerSink {
    name: String,
    staging: Staging,
    /// How large a layer may be.
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    output: Option<Output>,
    /// What the next image is called.
    names: Vec<String>,
    items: Vec<Item>,
    /// The diff IDs of layers that are here, by the digests they came under, or by themselves.
    layers: BTreeMap<Digest, Digest>,
}

impl DockerSink {
    /// Begins an archive, which replaces one that is there. `names`: what the first image is called.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(output: Output, names: &[String], scratch: &Scratch) -> Result<DockerSink> {
        let name = match &output {
            Output::File(path) => format!("docker-archive:{}", path.display()),
            Output::Stream(_) => "docker-archive:-".to_owned(),
        };
        let state = State {
            output: Some(output),
            names: names.iter().map(|name| tagged(name)).collect(),
            items: Vec::new(),
            layers: BTreeMap::new(),
        };
        Ok(DockerSink { name, staging: scratch.staging()?, most: scratch.most, state: Mutex::new(state) })
    }

    /// What the image that comes next is called.
    pub fn next_image(&self, names: &[String]) {
        self.state().names = names.iter().map(|name| tagged(name)).collect();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_config(&self, blob: &Blob, from: Box<dyn Read + Send>) -> Result<()> {
        if blob.size > LARGEST_CONFIG {
            return Err(Error::damaged(format!("the configuration has {} bytes", blob.size)));
        }
        let mut file = File::create(self.staging.path.join(config_name(&blob.digest)))?;
        copy_bounded(&mut Verified::new(from, &blob.digest, blob.size), &mut file, LARGEST_CONFIG).map(drop)
    }

    /// Decompresses a layer; it is called by what it then is.
    fn put_layer(&self, blob: &Blob, from: Box<dyn Read + Send>) -> Result<()> {
        let draft = self.staging.path.join(format!(".ctr-{}", crate::store::unique()));
        let mut stored = BufReader::with_capacity(128 << 10, Verified::new(from, &blob.digest, blob.size));
        let written = (|| {
            let mut file = Hashed::new(File::create_new(&draft)?);
            copy_bounded(&mut *decompressed(&mut stored)?, &mut file, self.most)?;
            // The digest is that of all bytes.
            io::copy(&mut stored, &mut io::sink())?;
            let (diff_id, _) = file.finish();
            fs::rename(&draft, self.staging.path.join(layer_name(&diff_id)))?;
            Ok(diff_id)
        })();
        // What was cut short is not to be in the archive.
        let diff_id = written.inspect_err(|_: &Error| _ = fs::remove_file(&draft))?;
        let mut state = self.state();
        state.layers.insert(blob.digest.clone(), diff_id.clone());
        state.layers.insert(diff_id.clone(), diff_id);
        Ok(())
    }

    /// Checks that all of the image is here; returns what `manifest.json` says of it.
    fn item(&self, manifest: &Manifest, names: Vec<String>) -> Result<Item> {
        let name = config_name(&manifest.config.digest);
        let config = fs::read(self.staging.path.join(&name)).doing(|| "read its configuration")?;
        let config = ImageConfig::read(&config, manifest)?;
        let (state, mut layers) = (self.state(), Vec::new());
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            match state.layers.get(&layer.digest) {
                Some(found) if found == diff_id => layers.push(layer_name(diff_id)),
                Some(found) => {
                    return Err(Error::damaged(format!(
                        "the contents of layer {} have the digest {found}, and not {diff_id} as its \
                         configuration says",
                        layer.digest
                    )));
                }
                None => return Err(Error::other(format!("layer {} was not written", layer.digest))),
            }
        }
        Ok(Item { config: name, repo_tags: Some(names), layers })
    }

    fn write_lists(&self, items: &[Item]) -> Result<()> {
        fs::write(self.staging.path.join("manifest.json"), serde_json::to_vec(items)?)?;
        // For programs from before manifest.json: the uppermost layer of each name.
        let mut repositories: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        for item in items {
            let top = item.layers.last().map_or("", |layer| layer.trim_end_matches(".tar"));
            for (name, tag) in item.repo_tags.iter().flatten().filter_map(|name| name.rsplit_once(':')) {
                repositories.entry(name).or_default().insert(tag, top);
            }
        }
        Ok(fs::write(self.staging.path.join("repositories"), serde_json::to_vec(&repositories)?)?)
    }
}

fn config_name(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// Engines take no name without a tag here; a colon before a slash is a port's.
fn tagged(name: &str) -> String {
    match name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    }
}

impl Sink for DockerSink {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn has(&self, blob: &Blob) -> Result<bool> {
        let is_config = || self.staging.path.join(config_name(&blob.digest)).exists();
        Ok(self.state().layers.contains_key(&blob.digest) || is_config())
    }

    fn put(&self, blob: &Blob, again: &dyn Fn() -> Result<Box<dyn Read + Send>>) -> Result<()> {
        match blob.media_type.ends_with("json") {
            true => self.put_config(blob, again()?),
            false => self.put_layer(blob, again()?),
        }
        .doing(|| format!("write {} to {}", blob.digest, self.name))
    }

    fn document(&self, document: &Document, is_top: bool) -> Result<()> {
        let manifest = match Parsed::read(document)? {
            Parsed::Manifest(manifest) if is_top => manifest,
            _ => {
                return Err(Error::other(format!("{} takes no index: choose a platform's image", self.name)));
            }
        };
        let names = std::mem::take(&mut self.state().names);
        let item = self.item(&manifest, names).doing(|| format!("write {}", self.name))?;
        let mut state = self.state();
        match state.items.iter_mut().find(|other| other.config == item.config) {
            Some(other) => other.repo_tags.get_or_insert_default().extend(item.repo_tags.unwrap_or_default()),
            None => state.items.push(item),
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let (items, output) = {
            let mut state = self.state();
            (std::mem::take(&mut state.items), state.output.take())
        };
        let output = output.filter(|_| !items.is_empty());
        let output = output.ok_or_else(|| Error::other(format!("no image was written to {}", self.name)))?;
        self.write_lists(&items)?;
        output.write(|to| self.staging.archive(to)).doing(|| format!("write {}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_tags() {
        assert_eq!(tagged("r:5000/a/b"), "r:5000/a/b:latest");
        assert_eq!(tagged("a:1"), "a:1");
    }
}
