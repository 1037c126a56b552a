//! `run --image` and `run --rootfs`: from flags to a standard config.json.
//!
//! [`Request::read`] settles what was asked for (it reads the files the flags name); [`compile`] makes the
//! configuration of it and is pure. The engine below gets a bundle like any other.

mod accounts;
pub(crate) mod caller;
mod capabilities;
mod compile;
mod devices;
pub(crate) mod limits;
mod mounts;
mod name;
mod profile;
mod request;
mod stored;
#[cfg(test)]
mod tests;
mod working_directory;

use std::path::Path;

use anyhow::{Context, Result, bail};
use capabilities::Granted;
use ctr_images::host::{self, HostFacts, HostImage, Installed, Personal, Resolver};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use crate::{
    cli::run::{Network, Run},
    settings::Settings,
};

pub use accounts::Accounts;
pub use caller::{Caller, IdRange};
pub use compile::{Compiled, RootFs, compile};
pub use name::generate as generate_name;
pub use request::Request;
pub use stored::Stored;

/// The image that is this machine's own userland.
pub const HOST: &str = "host";

/// Makes in `private`, a new directory that only the caller can enter, all that the container of `request` needs, and
/// returns its configuration. `stored` is its image, unless that is `host`.
///
/// # Errors
/// When a flag makes no sense, or what it names is not there.
pub fn prepare(
    run: &Run,
    request: &Request,
    settings: &Settings,
    caller: &Caller,
    private: &Path,
    stored: Option<&Stored>,
) -> Result<Compiled> {
    match (&run.image.image, &run.image.rootfs) {
        (Some(image), _) if image == HOST => {
            let image = host_image(request)?;
            let rootfs = install(&image, private)?;
            compile(request, &rootfs, settings, caller)
        }
        (Some(image), _) => {
            let stored = stored.with_context(|| format!("image {image:?} is not here"))?;
            compile(request, &stored.install(private)?, settings, caller)
        }
        (None, Some(rootfs)) => {
            let path = rootfs.canonicalize().with_context(|| format!("--rootfs {}", rootfs.display()))?;
            let accounts = Accounts::read(&path)?;
            let rootfs = RootFs { path, image: None, layers: Vec::new(), lowers: Vec::new(), accounts };
            compile(request, &rootfs, settings, caller)
        }
        (None, None) => bail!("neither --image nor --rootfs is given"),
    }
}

/// The configuration that [`prepare`] would make, without making anything.
///
/// # Errors
/// As [`prepare`].
pub fn foresee(
    run: &Run,
    request: &Request,
    settings: &Settings,
    caller: &Caller,
    private: &Path,
    stored: Option<&Stored>,
) -> Result<Compiled> {
    if let Some(stored) = stored {
        return compile(request, &stored.foresee(private)?, settings, caller);
    }
    if run.image.image.as_deref() != Some(HOST) {
        return prepare(run, request, settings, caller, private, None);
    }
    let image = host_image(request)?;
    let installed = Installed::foresee(&image, private);
    // It need not be there yet, but what it will be in is.
    let place = private.ancestors().find(|place| place.exists()).unwrap_or(private);
    compile(request, &root_fs(&image, installed, place), settings, caller)
}

/// Starts us again from where a container cannot get at our file, if its program may trace (see [`guard`]).
///
/// # Errors
/// The kernel's, or what is wrong with the flags.
pub fn guard(run: &Run, settings: &Settings) -> Result<()> {
    let granted = Granted::new(&settings.run.capabilities, &run.image.cap_add, &run.image.cap_drop)?;
    let may_trace = ctr_isolation::capabilities::parse("SYS_PTRACE")
        .is_some_and(|trace| granted.bounding & trace.bitmask() != 0);
    if may_trace && !Caller::of_process().needs_user_namespace() {
        ctr_isolation::guard::own_program()?;
    }
    Ok(())
}

/// The image `host` for one container.
fn host_image(request: &Request) -> Result<HostImage> {
    let root = Path::new("/");
    let facts = HostFacts::read(root).context("look for what the image `host` is made of")?;
    let personal = Personal {
        hostname: request.hostname.clone(),
        user: request.user.as_deref().and_then(numbers),
        resolver: (request.network == Network::Host).then(|| Resolver::read(root)),
    };
    Ok(host::parts(&facts, &personal))
}

/// The user and group of `UID[:GID]`, whom the image gives an account.
fn numbers(user: &str) -> Option<(u32, u32)> {
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn install<'a>(image: &'a HostImage, private: &Path) -> Result<RootFs<'a>> {
    Ok(root_fs(image, host::install(image, private)?, private))
}

/// The root file system in which `installed` is, whose layers are in `place`.
fn root_fs<'a>(image: &'a HostImage, installed: Installed, place: &Path) -> RootFs<'a> {
    let text = |path: &str| {
        let file = image.files.iter().find(|(name, _)| name == Path::new(path));
        file.map(|(_, text)| text.clone()).unwrap_or_default()
    };
    RootFs {
        path: installed.rootfs,
        image: Some(image),
        layers: if can_hold_layers(place) { installed.layers } else { Vec::new() },
        lowers: Vec::new(),
        accounts: Accounts { passwd: text("/etc/passwd"), group: text("/etc/group") },
    }
}

/// An overlay's upper layer cannot be on an overlay, which is what a container's own root often is.
fn can_hold_layers(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|data| data.filesystem_type() != OVERLAYFS_SUPER_MAGIC)
}
