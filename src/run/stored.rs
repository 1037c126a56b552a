//! A container's root file system from an image of the store: its layers, and one of the container's own above them.

use super::{Accounts, RootFs, can_hold_layers};
use crate::image::{self, Described, Used};
use crate::settings::Settings;
use anyhow::{Context as _, Result, bail};
use ctr_images::manifest::Execution;
use ctr_images::store::{Lease, Store};
use ctr_images::unpack::copy_metadata;
use ctr_isolation::sys::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// An image of the store that a container starts from.
#[derive(Debug)]
pub struct Stored {
    /// What was asked for.
    pub name: String,
    /// What it is.
    pub described: Described,
    /// Until the container has noted that it uses it.
    _lease: Lease,
}

impl Stored {
    /// Finds the image `name`; none when it is not here.
    ///
    /// # Errors
    /// When it is here, but not whole.
    pub fn find(settings: &Settings, name: &str) -> Result<Option<Stored>> {
        let store = image::open(settings)?;
        // What is found under a lease stays.
        let lease = store.lease()?;
        let names = store.names()?;
        let Some(found) = image::look_up(&names, settings, name)? else { return Ok(None) };
        let described = image::describe(&store, found)?;
        claim(&store, &lease, &described)?;
        if !described.trees.iter().all(|tree| tree.is_dir()) {
            bail!("image {name:?} was removed meanwhile");
        }
        Ok(Some(Stored { name: name.to_owned(), described, _lease: lease }))
    }

    /// How its program runs.
    pub fn execution(&self) -> Execution {
        self.described.config.config.clone().unwrap_or_default()
    }

    /// Makes in `private` what is the container's own, and notes there what it uses.
    pub(super) fn install(&self, private: &Path) -> Result<RootFs<'static>> {
        if !can_hold_layers(private) {
            bail!(
                "the store, {}, is on an overlay, on which no other can be written: name another place with CTR_STORE",
                private.display()
            );
        }
        let rootfs = self.foresee(private)?;
        let (upper, work) = &rootfs.layers[0];
        for directory in [&rootfs.path, upper, work] {
            let made = std::fs::DirBuilder::new().mode(0o755).recursive(true).create(directory);
            made.with_context(|| format!("make {}", directory.display()))?;
        }
        // overlayfs shows the owner and the mode that the uppermost directory has.
        if let Some(root) = &self.described.root {
            like(root, upper)?;
        }
        let digest = self.described.image.digest.to_string();
        Used { name: self.name.clone(), digest, layers: self.described.keys.clone() }.write(private)?;
        Ok(rootfs)
    }

    /// What [`Stored::install`] would make.
    pub(super) fn foresee(&self, private: &Path) -> Result<RootFs<'static>> {
        let of_own = |name: &str| private.join("layers").join(name);
        Ok(RootFs {
            path: private.join("rootfs"),
            image: None,
            layers: vec![(of_own("upper"), of_own("work"))],
            lowers: self.lowers(),
            accounts: Accounts::of_layers(&self.described.trees)?,
        })
    }

    /// Its layers, the lowest first, each once: overlayfs refuses one that comes twice, of which only the upper is seen.
    fn lowers(&self) -> Vec<PathBuf> {
        let mut lowers: Vec<PathBuf> = Vec::new();
        for tree in self.described.trees.iter().rev() {
            if !lowers.contains(tree) {
                lowers.push(tree.clone());
            }
        }
        lowers.reverse();
        lowers
    }
}

/// Makes `upper` look like `root`, which may be another's: then only root of the caller's ids can.
fn like(root: &Path, upper: &Path) -> Result<()> {
    let data = std::fs::metadata(root).with_context(|| format!("look at {}", root.display()))?;
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let copy = || -> Result<()> {
        let root = fs::open(root, libc::O_DIRECTORY | libc::O_PATH)?;
        let upper = fs::open(upper, libc::O_DIRECTORY)?;
        Ok(copy_metadata(root.as_fd(), upper.as_fd())?)
    };
    match (data.uid(), data.gid()) == own {
        true => copy(),
        false => image::as_root(|| copy().map(|()| String::new())).map(drop),
    }
}

fn claim(store: &Store, lease: &Lease, described: &Described) -> Result<()> {
    let digests = [described.image.digest.as_str(), described.image.config.as_str()];
    Ok(lease.claim(store, digests.into_iter().chain(described.keys.iter().map(String::as_str)))?)
}
