//! Registries: images from and to hosts that speak distribution-spec, the interface that Docker's registry
//! began.
//!
//! What is configured is [`Registries`]; one image at a registry is a [`Registry`]. Connections are blocking,
//! and each request is made by the thread that asks.

mod auth;
mod challenge;
mod client;
mod conf;
mod credentials;
mod failure;
mod helper;
mod http;
mod login;
mod lookup;
mod places;
mod pull;
mod push;
mod settings;
mod tls;

pub use credentials::Credentials;
pub use login::{login, logout};
pub use places::Places;
pub use settings::{Mirror, Registries};

use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::name::Name;
use crate::source::{Blob, Document, Sink, Source};
use client::Client;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An image at a registry.
#[derive(Debug)]
pub struct Registry {
    name: Name,
    /// Where it may be had, in order: mirrors, and last the registry itself.
    places: Vec<Place>,
    /// Another repository of the registry, which may have blobs already.
    mount_from: Option<String>,
}

#[derive(Debug)]
struct Place {
    client: Arc<Client>,
    /// A mirror that could not be reached is not asked again.
    is_out: AtomicBool,
}

impl Registry {
    /// The image `name`. `credentials` are for the registry itself, in place of those in files. Nothing is
    /// sent yet.
    ///
    /// # Errors
    /// When configuration cannot be read, and `Denied` when it says that the registry is blocked.
    pub fn open(name: &Name, registries: &Registries, credentials: Option<Credentials>) -> Result<Registry> {
        let endpoints = registries.endpoints(name).doing(|| name.to_string())?;
        let place = |endpoint: settings::Endpoint| {
            let given = credentials.clone().filter(|_| !endpoint.is_mirror);
            let client = Arc::new(Client::new(endpoint, registries, given));
            Place { client, is_out: AtomicBool::new(false) }
        };
        Ok(Registry {
            name: name.clone(),
            places: endpoints.into_iter().map(place).collect(),
            mount_from: None,
        })
    }

    /// The same; when blobs are written, those that `other` has at the same registry are taken from there.
    #[must_use]
    pub fn mounting_from(mut self, other: &Name) -> Registry {
        let is_useful = other.registry == self.name.registry && other.repository != self.name.repository;
        self.mount_from = is_useful.then(|| other.repository.clone());
        self
    }

    /// Which image the name means.
    pub fn image(&self) -> &Name {
        &self.name
    }

    /// The digest of what the name stands for now; none where the registry does not say.
    ///
    /// # Errors
    /// `NotFound` when there is no such image.
    pub fn newest(&self) -> Result<Option<Digest>> {
        self.anywhere(|client| pull::digest(client, self.name.reference()))
            .doing(|| format!("look up {}", self.name))
    }

    /// The tags of the repository.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository.
    pub fn tags(&self) -> Result<Vec<String>> {
        pull::tags(self.itself()?).doing(|| format!("list the tags of {}", self.name.without_reference()))
    }

    /// Takes a manifest or an index out of the registry; blobs that nothing refers to any more are its own
    /// business.
    ///
    /// # Errors
    /// `Denied` when the registry does not do that.
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        push::delete(self.itself()?, digest.as_str())
            .doing(|| format!("delete {}@{digest}", self.name.without_reference()))
    }

    /// The registry itself, no mirror.
    fn itself(&self) -> Result<&Arc<Client>> {
        self.places.last().map(|place| &place.client).ok_or_else(|| Error::other("no registry"))
    }

    /// The first answer of those places that have one.
    fn anywhere<T>(&self, ask: impl Fn(&Arc<Client>) -> Result<T>) -> Result<T> {
        let mut mirrors = String::new();
        for place in &self.places {
            let endpoint = &place.client.endpoint;
            if place.is_out.load(Ordering::Relaxed) {
                continue;
            }
            match ask(&place.client) {
                Err(error) if endpoint.is_mirror => {
                    tracing::debug!("mirror {}: {error}", endpoint.registry);
                    place.is_out.store(error.kind != Kind::NotFound, Ordering::Relaxed);
                    mirrors += &format!("; its mirror {}: {error}", endpoint.registry);
                }
                Err(mut error) => {
                    if let Some(reason) = error.text.layers.last_mut() {
                        reason.push_str(&mirrors);
                    }
                    return Err(error);
                }
                found => return found,
            }
        }
        Err(Error::other("no registry"))
    }
}

impl Source for Registry {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn document(&self, digest: Option<&Digest>) -> Result<Document> {
        let reference = digest.map_or_else(|| self.name.reference(), Digest::as_str);
        let name = || match digest {
            Some(digest) => format!("read the manifest {} of {}", digest.short(), self.name),
            None => format!("read the manifest of {}", self.name),
        };
        self.anywhere(|client| pull::document(client, reference)).doing(name)
    }

    fn blob(&self, blob: &Blob, offset: u64) -> Result<(u64, Box<dyn Read + Send>)> {
        self.anywhere(|client| pull::blob(client, blob, offset))
            .doing(|| format!("read {} of {}", blob.digest.short(), self.name))
    }
}

impl Sink for Registry {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn has(&self, blob: &Blob) -> Result<bool> {
        push::has(self.itself()?, blob).doing(|| format!("look for {} in {}", blob.digest.short(), self.name))
    }

    fn put(&self, blob: &Blob, again: &dyn Fn() -> Result<Box<dyn Read + Send>>) -> Result<()> {
        push::put(self.itself()?, blob, self.mount_from.as_deref(), again)
            .doing(|| format!("write {} to {}", blob.digest.short(), self.name))
    }

    fn document(&self, document: &Document, is_top: bool) -> Result<()> {
        let digest = document.digest();
        let doing = || format!("write the manifest {} to {}", digest.short(), self.name);
        if is_top && self.name.digest.as_ref().is_some_and(|wanted| *wanted != digest) {
            return Err(Error::other("the name says another digest")).doing(doing);
        }
        let tag = self.name.tag.as_deref().filter(|_| is_top);
        push::document(self.itself()?, document, tag.unwrap_or(digest.as_str())).doing(doing)
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
