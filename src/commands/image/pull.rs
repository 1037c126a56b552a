//! `image pull` and `push`: from one place to another.

use super::store::new_name;
use crate::cli::image::{Pull, Push, Transfer};
use crate::commands::context::Context;
use crate::image::progress::Progress;
use crate::image::{as_root, find, open};
use crate::output;
use crate::settings::Settings;
use anyhow::{Context as _, Result, anyhow, bail};
use ctr_images::Kind;
use ctr_images::manifest::{LARGEST_DOCUMENT, Manifest, Platform};
use ctr_images::name::Name;
use ctr_images::registry::{Credentials, Registries, Registry};
use ctr_images::source::{Blob, Document, Event, Sink, Source};
use ctr_images::store::{Image, Pull as Pulled, Store, Wanted};
use ctr_images::transport::{Transport, Which, open_sink, open_source};
use std::io::Read;

/// `image pull`.
pub(super) fn pull(context: &Context, flags: &Pull) -> Result<()> {
    let platform = flags.platform.as_deref().map_or_else(|| Ok(Platform::here()), str::parse)?;
    if flags.name.is_some() && flags.images.len() > 1 {
        bail!("--name is for one image");
    }
    for text in &flags.images {
        let name = flags.name.as_deref().map(new_name).transpose()?;
        let answer = as_root(|| fetch(&context.settings, text, name.as_ref(), &platform, &flags.transfer))?;
        output::print(&format!("{answer}\n"))?;
    }
    Ok(())
}

/// Fetches the image `text` and gives it its name; returns its ID.
///
/// # Errors
/// When it cannot be had, or not be unpacked.
pub fn fetch(
    settings: &Settings,
    text: &str,
    name: Option<&Name>,
    platform: &Platform,
    flags: &Transfer,
) -> Result<String> {
    let store = open(settings)?;
    let progress = Progress::new(flags.progress, flags.quiet);
    let text = match Transport::is_one(text, true).then(|| Transport::parse(text, true)).transpose()? {
        None => text,
        Some(Transport::Registry(ref name)) => &name.clone(),
        Some(from) => {
            let source = open_source(&from, &store.scratch(), Some(Box::new(std::io::stdin())))?;
            let name = name.cloned().or_else(|| named(&from));
            return take(&store, &*source, platform, name.as_ref(), &progress)
                .with_context(|| format!("fetch {from}"));
        }
    };
    let registries = registries(settings, text, flags);
    let candidates = registries.resolve(text)?;
    let credentials = credentials(flags)?;
    let mut errors = Vec::new();
    for candidate in &candidates {
        let source = Registry::open(candidate, &registries, credentials.clone())?;
        let wanted = Wanted { platform: platform.clone(), digest: candidate.digest.clone() };
        match store.pull(&source, &wanted, &|event| progress.tell(event)) {
            Ok(pulled) => {
                for note in &pulled.notes {
                    tracing::warn!("{candidate}: {note}");
                }
                let name = name.unwrap_or(candidate).to_string();
                store.add(&pulled.image, &[name])?;
                return Ok(pulled.image.config.hex().to_owned());
            }
            Err(error) if error.kind == Kind::NotFound && candidates.len() > 1 => {
                errors.push(error.to_string())
            }
            Err(error) => return Err(anyhow!(error).context(format!("pull {candidate}"))),
        }
    }
    bail!("pull {text}: {}", errors.join("; "))
}

/// Takes in the one image of `source`; returns its ID.
///
/// # Errors
/// As [`fetch`].
pub(super) fn take(
    store: &Store,
    source: &dyn Source,
    platform: &Platform,
    name: Option<&Name>,
    progress: &Progress,
) -> Result<String> {
    let wanted = Wanted { platform: platform.clone(), digest: None };
    let pulled = store.pull(source, &wanted, &|event| progress.tell(event))?;
    keep(store, &pulled, name)
}

/// Gives what was fetched its name, and says what could not be kept.
fn keep(store: &Store, pulled: &Pulled, name: Option<&Name>) -> Result<String> {
    for note in &pulled.notes {
        tracing::warn!("{note}");
    }
    store.add(&pulled.image, &name.map(Name::to_string).into_iter().collect::<Vec<_>>())?;
    Ok(pulled.image.config.hex().to_owned())
}

/// What an image is called where it comes from.
fn named(from: &Transport) -> Option<Name> {
    let (Transport::Layout(_, Which::Named(name))
    | Transport::Archive(_, Which::Named(name))
    | Transport::DockerArchive(_, Which::Named(name))) = from
    else {
        return None;
    };
    new_name(name).ok()
}

/// The registries as configured, and as one command says otherwise.
fn registries(settings: &Settings, text: &str, flags: &Transfer) -> Registries {
    let mut registries = settings.registries.clone();
    if flags.insecure
        && let Ok(names) = registries.resolve(text)
    {
        registries.insecure.extend(names.into_iter().map(|name| name.registry));
    }
    registries
}

fn credentials(flags: &Transfer) -> Result<Option<Credentials>> {
    Ok(flags.creds.as_deref().map(str::parse).transpose()?)
}

/// `image push`.
pub(super) fn push(context: &Context, flags: &Push) -> Result<()> {
    let settings = &context.settings;
    let store = open(settings)?;
    let names = store.names()?;
    let image = find(&names, settings, &flags.image)?;
    let target = match &flags.destination {
        Some(text) => text.clone(),
        None => crate::image::name_of(&names, settings, &flags.image)?
            .ok_or_else(|| anyhow!("image {} has no name: say where it is to go", flags.image))?,
    };
    let sink = sink(settings, &store, &target, &flags.transfer)?;
    let progress = Progress::new(flags.transfer.progress, flags.transfer.quiet);
    send(&store, image, &*sink, &progress).with_context(|| format!("push {target}"))?;
    output::print(&format!("{}\n", image.digest))?;
    Ok(())
}

fn sink(settings: &Settings, store: &Store, target: &str, flags: &Transfer) -> Result<Box<dyn Sink>> {
    let target =
        match Transport::is_one(target, false).then(|| Transport::parse(target, false)).transpose()? {
            None => target,
            Some(Transport::Registry(ref name)) => &name.clone(),
            Some(to) => return Ok(open_sink(&to, &store.scratch(), Some(Box::new(std::io::stdout())))?),
        };
    let registries = registries(settings, target, flags);
    match registries.resolve(target)?.as_slice() {
        [name] => Ok(Box::new(Registry::open(name, &registries, credentials(flags)?)?)),
        several => {
            let list: Vec<String> = several.iter().map(Name::to_string).collect();
            bail!("{target}: which one is meant? Write it in full: {}", list.join(" or "))
        }
    }
}

/// Sends all parts of an image that are not there.
pub(super) fn send(store: &Store, image: &Image, sink: &dyn Sink, progress: &Progress) -> Result<()> {
    let (manifest, _) = store.read_image(image)?;
    for (blob, kind) in blobs(&manifest) {
        progress.tell(Event::Begin { blob: &blob, kind });
        let known = sink.has(&blob)?;
        if !known {
            let open = || -> ctr_images::Result<Box<dyn Read + Send>> {
                let (file, _) = store.open_blob(&blob.digest)?;
                Ok(Box::new(ctr_images::digest::Verified::new(file, &blob.digest, blob.size)))
            };
            sink.put(&blob, &open)?;
        }
        progress.tell(Event::Done { digest: &blob.digest, known });
    }
    let bytes = store.read_blob(&image.digest, LARGEST_DOCUMENT)?;
    sink.document(&Document { media_type: image.media_type.clone(), bytes }, true)?;
    Ok(sink.finish()?)
}

/// Its configuration and its layers, each once.
fn blobs(manifest: &Manifest) -> Vec<(Blob, &'static str)> {
    let mut all: Vec<(Blob, &'static str)> = Vec::new();
    let parts = manifest.layers.iter().map(|layer| (layer, "layer"));
    for (descriptor, kind) in parts.chain([(&manifest.config, "config")]) {
        if !all.iter().any(|(blob, _)| blob.digest == descriptor.digest) {
            all.push((descriptor.blob(), kind));
        }
    }
    all
}
