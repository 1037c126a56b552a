//! The image store as the program uses it: where it is, by whose rules, and what people call its images.

pub mod progress;

use crate::commands::context::Context;
use crate::settings::{self, Settings};
use anyhow::{Context as _, Result, anyhow, bail};
use ctr_images::digest::Digest;
use ctr_images::manifest::{ImageConfig, Manifest};
use ctr_images::name::{LOCAL, Name, Reference};
use ctr_images::store::{Image, InUse, Names, Rules, Store};
use ctr_images::tar::Limits;
use ctr_runtime::launch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a container notes of the image that it was made from, in its private directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// What was asked for.
    pub name: String,
    /// The digest of the manifest.
    pub digest: String,
    /// The names of the layers' directories, the lowest first.
    pub layers: Vec<String>,
}

/// The name of that note.
const NOTE: &str = "image.json";

impl Used {
    /// Writes it into a container's private directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, private: &Path) -> Result<()> {
        Ok(ctr_runtime::state::replace(&private.join(NOTE), &serde_json::to_vec(self)?)?)
    }
}

/// The store of images.
///
/// # Errors
/// That there is no place for it, or the kernel's.
pub fn open(settings: &Settings) -> Result<Store> {
    if settings.store.as_os_str().is_empty() {
        bail!("there is no place for images: set HOME, XDG_DATA_HOME or CTR_STORE");
    }
    Ok(Store::open(&settings.store.join("images"), rules(settings))?)
}

fn rules(settings: &Settings) -> Rules {
    let image = &settings.image;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Rules {
        limits: Limits { entries: image.max_entries, bytes: image.max_layer_size.0 },
        absolute_paths: image.absolute_paths,
        keep_blobs: image.keep_layers,
        parallel: if image.parallel == 0 { cores.clamp(2, 4) } else { image.parallel },
        userxattr: settings::in_user_namespace(),
        squash: has_one_id(),
    }
}

/// Whether nobody but root exists here.
fn has_one_id() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) == Some("1") && map.lines().count() == 1
}

/// Does what makes files of other owners: root does it at once, another user as root of a user namespace, in a process of
/// its own. So what comes back is a short text.
///
/// # Errors
/// Those of `act`, or of making the namespace.
pub fn as_root(act: impl FnOnce() -> Result<String>) -> Result<String> {
    if nix::unistd::geteuid().is_root() {
        return act();
    }
    let inside = || act().map_err(|error| ctr_isolation::Error::new(crate::output::chain(&error)));
    Ok(launch::as_root_inside(inside)?)
}

/// Finds the image that `text` means: a name in full or short, or the beginning of an ID.
///
/// # Errors
/// When there is none, or several.
pub fn find<'a>(names: &'a Names, settings: &Settings, text: &str) -> Result<&'a Image> {
    let found = look_up(names, settings, text)?;
    found.ok_or_else(|| anyhow!("image {text:?} is not here: `ctr image pull {text}` fetches it"))
}

/// The same; none when there is none.
///
/// # Errors
/// When there are several.
pub fn look_up<'a>(names: &'a Names, settings: &Settings, text: &str) -> Result<Option<&'a Image>> {
    match name_of(names, settings, text)?.and_then(|name| names.named(&name)) {
        Some(image) => Ok(Some(image)),
        None => Ok(names.by_id(text)?),
    }
}

/// The full name in the store that `text` means, if one is there: first what was made here.
///
/// # Errors
/// When `text` is no name.
pub fn name_of(names: &Names, settings: &Settings, text: &str) -> Result<Option<String>> {
    let Ok(reference) = text.parse::<Reference>() else { return Ok(None) };
    match &reference {
        Reference::Full(name) => Ok(known_as(names, name)),
        Reference::Short(short) => match known_as(names, &short.at(LOCAL)?) {
            Some(name) => Ok(Some(name)),
            // Which registry it would be fetched from is no matter where only one of them has been.
            None => Ok(settings.registries.candidates(text)?.iter().find_map(|name| known_as(names, name))),
        },
    }
}

/// What the image `name` is called here: where a digest was asked for, which may be an index's, a name of its repository.
fn known_as(names: &Names, name: &Name) -> Option<String> {
    let has_digest = |digest: &Digest| {
        names.images.iter().find(|image| image.digest == *digest || image.index.as_ref() == Some(digest))
    };
    match name.digest.as_ref().and_then(has_digest) {
        Some(image) => {
            let repository = name.without_reference();
            let is_of_it = |known: &&str| {
                known.parse::<Name>().is_ok_and(|known| known.without_reference() == repository)
            };
            names.names_of(&image.digest).find(is_of_it).map(str::to_owned)
        }
        None => Some(name.to_string()).filter(|name| names.named(name).is_some()),
    }
}

/// An image that is here, with all that is known of it.
#[derive(Debug)]
pub struct Described {
    /// Which.
    pub image: Image,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
    /// The directories of its layers, the lowest first.
    pub trees: Vec<PathBuf>,
    /// The names of these.
    pub keys: Vec<String>,
    /// The one that says how the root directory looks.
    pub root: Option<PathBuf>,
}

/// Reads all of an image.
///
/// # Errors
/// When a part of it is missing or damaged.
pub fn describe(store: &Store, image: &Image) -> Result<Described> {
    let (manifest, config) = store.read_image(image)?;
    let mut layers = Vec::new();
    for (index, layer) in store.layers(&image.diff_ids).into_iter().enumerate() {
        let number = index + 1;
        layers.push(layer.with_context(|| {
            format!("layer {number} of image {} is missing: pull it again", image.config.short())
        })?);
    }
    Ok(Described {
        image: image.clone(),
        manifest,
        config,
        trees: layers.iter().map(|layer| store.tree(layer)).collect(),
        root: store.root(layers.iter()),
        keys: layers.into_iter().map(|layer| layer.key).collect(),
    })
}

/// What the containers of this store use.
///
/// # Errors
/// When that cannot be told: then nothing may be removed.
pub fn in_use(context: &Context) -> ctr_images::Result<InUse> {
    use ctr_images::Context as _;
    let directory = context.settings.store.join("containers");
    let mut used = InUse { layers: BTreeSet::new(), images: BTreeSet::new() };
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(used),
        other => other.doing(|| format!("read {}", directory.display()))?,
    };
    for entry in entries {
        let path = entry?.path().join(NOTE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.doing(|| format!("read {}", path.display()))?,
        };
        let note: Used = serde_json::from_slice(&text).doing(|| format!("read {}", path.display()))?;
        used.layers.extend(note.layers);
        used.images.extend(note.digest.parse());
    }
    Ok(used)
}
