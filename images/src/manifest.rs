//! What an image says of itself: manifest, index and configuration (image-spec; Docker's schema 2 is the same but for
//! its media types).

use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::source::{Blob, Document};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// No manifest or index is larger (image-spec and registries agree on this).
pub const LARGEST_DOCUMENT: u64 = 4 << 20;
/// No configuration is larger.
pub const LARGEST_CONFIG: u64 = 8 << 20;
/// overlayfs takes no more lower layers (OVL_MAX_STACK).
pub const MOST_LAYERS: usize = 500;

/// Media types of OCI and Docker.
pub mod media {
    /// An OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer, compressed by gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer, compressed by zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, compressed by gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// A reference to a blob or a document, as it is written (descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it refers to.
    pub media_type: String,
    /// By what digest.
    pub digest: Digest,
    /// How many bytes that has.
    pub size: u64,
    /// Where else it may be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// For what machine it is, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// One of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            platform: None,
            annotations: None,
        }
    }

    /// What it refers to, as a source or a sink is asked for it.
    pub fn blob(&self) -> Blob {
        Blob {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            urls: self.urls.clone(),
        }
    }
}

/// A kind of machine: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The processor, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// Which of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well a program for `self` runs where `wanted` was asked for: the smaller the better; none: not at all.
    fn distance(&self, wanted: &Platform) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let version = |platform: &Platform| -> Option<u32> {
            let default = if platform.architecture == "arm64" { "v8" } else { "" };
            platform.variant.as_deref().unwrap_or(default).trim_start_matches('v').parse().ok()
        };
        match (version(self), version(wanted)) {
            // arm/v6 runs on v7, not the other way round.
            (Some(has), Some(wants)) => wants.checked_sub(has),
            (None, _) => Some(100),
            (Some(_), None) => Some(200),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some(*variant)),
            _ => return Err(Error::other(format!("platform {text:?}: expected OS/ARCH[/VARIANT]"))),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            other => other,
        };
        if os.is_empty() || architecture.is_empty() {
            return Err(Error::other(format!("platform {text:?}: expected OS/ARCH[/VARIANT]")));
        }
        Ok(Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(str::to_owned) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// An image for one kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Images for several kinds of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    pub manifests: Vec<Descriptor>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An image.
    Manifest(Manifest),
    /// Several of them.
    Index(Index),
}

impl Parsed {
    /// Reads `document`. What it says of itself must be what it was said to be: else it could be taken for either
    /// (CVE-2021-41190).
    ///
    /// # Errors
    /// When it is neither, or both.
    pub fn read(document: &Document) -> Result<Parsed> {
        let value: serde_json::Value =
            serde_json::from_slice(&document.bytes).doing(|| "read the manifest")?;
        let has = |key: &str| value.get(key).is_some_and(|value| !value.is_null());
        if has("fsLayers") || value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
            return Err(Error::damaged(
                "its manifest is of Docker's schema 1, which has no digests of what is unpacked: push it anew with a \
                 current program",
            ));
        }
        if has("manifests") && (has("config") || has("layers")) {
            return Err(Error::damaged("it is a manifest and an index at once"));
        }
        let inner = value.get("mediaType").and_then(serde_json::Value::as_str);
        let said = document.media_type.split(';').next().unwrap_or_default().trim();
        let known = [media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_LIST];
        if let Some(inner) = inner.filter(|inner| *inner != said && known.contains(&said)) {
            return Err(Error::damaged(format!("it was announced as {said}, and says that it is {inner}")));
        }
        let is_index = match inner.unwrap_or(said) {
            media::INDEX | media::DOCKER_LIST => true,
            media::MANIFEST | media::DOCKER_MANIFEST => false,
            _ => has("manifests"),
        };
        match is_index {
            true => Ok(Parsed::Index(serde_json::from_value(value).doing(|| "read the index")?)),
            false => {
                let manifest: Manifest = serde_json::from_value(value).doing(|| "read the manifest")?;
                manifest.check()?;
                Ok(Parsed::Manifest(manifest))
            }
        }
    }
}

impl Manifest {
    fn check(&self) -> Result<()> {
        if self.layers.len() > MOST_LAYERS {
            let count = self.layers.len();
            return Err(Error::damaged(format!("it has {count} layers; overlayfs takes {MOST_LAYERS}")));
        }
        if self.config.size > LARGEST_CONFIG {
            return Err(Error::damaged(format!("its configuration has {} bytes", self.config.size)));
        }
        Ok(())
    }
}

impl Index {
    /// The image for `wanted`.
    ///
    /// # Errors
    /// When there is none; those that there are, are named.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor> {
        // What says nothing of its machine is taken for any, but only where nothing else fits.
        let distance = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(platform) => platform.distance(wanted),
            None => Some(1000),
        };
        let best = self.manifests.iter().filter(|one| distance(one).is_some()).min_by_key(distance);
        best.ok_or_else(|| {
            let has: Vec<String> = self
                .manifests
                .iter()
                .filter_map(|one| one.platform.as_ref())
                .filter(|platform| platform.os != "unknown")
                .map(ToString::to_string)
                .collect();
            Error::new(Kind::NotFound, format!("it is not for {wanted}, but for {}", has.join(", ")))
        })
    }
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip(1).
    Gzip,
    /// zstd(1).
    Zstd,
}

impl Compression {
    /// What the bytes at the beginning say: the media type does not bind those who write it.
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame, or one that may be passed over.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// The configuration of an image, as far as we go by it (config.md). What it says besides stays in its bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When it was made.
    pub created: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// For which processor.
    pub architecture: String,
    /// Which of its kind.
    pub variant: Option<String>,
    /// For which system.
    pub os: String,
    /// How its program runs.
    pub config: Option<Execution>,
    /// What it is made of.
    pub rootfs: Layers,
    /// How it was made.
    pub history: Option<Vec<History>>,
}

/// How the program of an image runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Execution {
    /// As whom: a name or number, with `:` and a group.
    pub user: Option<String>,
    /// Ports it listens on.
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    /// Its environment.
    pub env: Option<Vec<String>>,
    /// What is executed.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program where there is no entry point.
    pub cmd: Option<Vec<String>>,
    /// Directories whose contents outlive the container.
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    /// Where it starts.
    pub working_dir: Option<String>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// What tells it to end.
    pub stop_signal: Option<String>,
    /// How to find out whether it is well (Docker's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
}

/// What an image is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layers {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of its layers, not compressed, the lowest first.
    pub diff_ids: Vec<Digest>,
}

/// A step in which an image was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When.
    pub created: Option<String>,
    /// By what.
    pub created_by: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// What was said of it.
    pub comment: Option<String>,
    /// It made no layer.
    pub empty_layer: Option<bool>,
}

impl ImageConfig {
    /// Reads one that belongs to `manifest`.
    ///
    /// # Errors
    /// When it is none, or not of so many layers.
    pub fn read(bytes: &[u8], manifest: &Manifest) -> Result<ImageConfig> {
        let config: ImageConfig = serde_json::from_slice(bytes).doing(|| "read the image's configuration")?;
        let (said, has) = (config.rootfs.diff_ids.len(), manifest.layers.len());
        if said != has {
            return Err(Error::damaged(format!(
                "its configuration is of {said} layers, its manifest has {has}"
            )));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms
            .iter()
            .map(|text| Descriptor {
                platform: text.parse().ok(),
                ..Descriptor::of(media::MANIFEST, text.as_bytes())
            })
            .collect();
        Index { schema_version: 2, media_type: None, manifests, annotations: None }
    }

    /// Of an index for `platforms`, the one that is taken where `wanted` is asked for.
    fn check(platforms: &[&str], wanted: &str, chosen: Option<&str>) {
        let index = index(platforms);
        let found = index.choose(&wanted.parse().unwrap());
        assert_eq!(found.ok().map(|one| one.digest.clone()), chosen.map(|text| Digest::of(text.as_bytes())));
    }

    #[test]
    fn the_machine_s_image_is_taken() {
        check(&["linux/arm64", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
        check(&["linux/arm64/v8", "linux/amd64"], "aarch64", Some("linux/arm64/v8"));
        check(&["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", Some("linux/arm/v6"));
        check(&["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", Some("linux/arm/v5"));
        check(&["linux/arm/v7"], "linux/arm/v6", None);
        check(&["windows/amd64", "unknown/unknown"], "linux/amd64", None);
        check(&["", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
    }

    fn read(media_type: &str, json: &str) -> std::result::Result<Parsed, String> {
        let document = Document { media_type: media_type.into(), bytes: json.into() };
        Parsed::read(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn a_document_is_one_thing() {
        let digest = Digest::of(b"");
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{digest}","size":0}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        assert!(matches!(read(media::MANIFEST, &manifest), Ok(Parsed::Manifest(_))));
        assert!(matches!(read("", &manifest), Ok(Parsed::Manifest(_))));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        assert!(matches!(read("", &index), Ok(Parsed::Index(_))));
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{descriptor},"layers":[]}}"#);
        assert!(read(media::MANIFEST, &both).unwrap_err().contains("at once"));
        let other = index.replace(
            "{\"schemaVersion\"",
            "{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"schemaVersion\"",
        );
        assert!(read(media::MANIFEST, &other).unwrap_err().contains("announced"));
        assert!(read("", r#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err().contains("schema 1"));
        assert!(read(media::INDEX, &manifest).is_err());
        assert!(read("", &manifest.replace("sha256:", "sha256:../")).is_err());
    }
}
