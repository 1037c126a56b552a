//! What is in the store and what it is called.

use super::Store;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The digest of its configuration: what podman and Docker call the image's ID.
    pub config: Digest,
    /// The index that it was chosen from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// For which machine it is.
    pub platform: Platform,
    /// The bytes of its layers as they came.
    pub fetched_size: u64,
    /// The diff IDs of its layers, the lowest first.
    pub diff_ids: Vec<Digest>,
    /// When it came: seconds since 1970.
    pub added: u64,
}

/// What names.json says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// The form of the file.
    version: u32,
    /// The images.
    pub images: Vec<Image>,
    /// Names, in full, and the digests of the manifests that they mean.
    pub names: BTreeMap<String, Digest>,
}

/// The form that we write.
const VERSION: u32 = 1;

impl Names {
    fn read(path: &Path) -> Result<Names> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Names { version: VERSION, ..Names::default() });
            }
            other => other.doing(|| format!("read {}", path.display()))?,
        };
        let names: Names = serde_json::from_slice(&text).doing(|| format!("read {}", path.display()))?;
        match names.version {
            VERSION => Ok(names),
            other => Err(Error::other(format!(
                "{} has form {other}, this program knows {VERSION}: use the one that wrote it",
                path.display()
            ))),
        }
    }

    /// The image of that manifest.
    pub fn image(&self, digest: &Digest) -> Option<&Image> {
        self.images.iter().find(|image| image.digest == *digest)
    }

    /// The names of the image.
    pub fn names_of<'a>(&'a self, digest: &'a Digest) -> impl Iterator<Item = &'a str> {
        self.names.iter().filter(move |(_, found)| *found == digest).map(|(name, _)| name.as_str())
    }

    /// The image that is called `name`, in full.
    pub fn named(&self, name: &str) -> Option<&Image> {
        self.names.get(name).and_then(|digest| self.image(digest))
    }

    /// The image whose ID, or whose manifest's digest, begins with `text`: hexadecimal digits, with or without `sha256:`.
    ///
    /// # Errors
    /// When there are several.
    pub fn by_id(&self, text: &str) -> Result<Option<&Image>> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || !(4..=64).contains(&digits.len()) {
            return Ok(None);
        }
        let begins = |image: &&Image| {
            let digests = [Some(&image.config), Some(&image.digest), image.index.as_ref()];
            digests.into_iter().flatten().any(|digest| digest.hex().starts_with(digits))
        };
        let mut found = self.images.iter().filter(begins);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                Err(Error::other(format!("several images have IDs that begin with {digits}")))
            }
            (found, _) => Ok(found),
        }
    }
}

impl Store {
    /// What there is now.
    ///
    /// # Errors
    /// The kernel's; that the file is not one of ours.
    pub fn names(&self) -> Result<Names> {
        Names::read(&self.part("names.json"))
    }

    /// Changes what there is, while nobody else does.
    ///
    /// # Errors
    /// The kernel's, or that of `change`: then nothing is changed.
    pub fn change<T>(&self, change: impl FnOnce(&mut Names) -> Result<T>) -> Result<T> {
        let _lock = self.lock(true)?;
        let before = self.names()?;
        let mut names = before.clone();
        let answer = change(&mut names)?;
        if names != before {
            let text = serde_json::to_vec_pretty(&names)?;
            self.write_whole(&self.part("names.json"), &text).doing(|| "write the store's names")?;
        }
        Ok(answer)
    }

    /// Adds an image whose parts are here, and gives it names, which no other image then has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add(&self, image: &Image, names: &[String]) -> Result<()> {
        self.change(|all| {
            all.images.retain(|other| other.digest != image.digest);
            all.images.push(image.clone());
            all.names.extend(names.iter().map(|name| (name.clone(), image.digest.clone())));
            Ok(())
        })
    }

    /// Takes the name `name` from whatever has it.
    ///
    /// # Errors
    /// `NotFound` when nothing has.
    pub fn untag(&self, name: &str) -> Result<()> {
        self.change(|all| match all.names.remove(name) {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::NotFound, format!("no image is called {name}"))),
        })
    }
}
