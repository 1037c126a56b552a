//! `image tag`, `rm`, `prune` and `fsck`.

use crate::cli::image::{Fsck, Prune, Rm, Tag};
use crate::commands::context::Context;
use crate::image::{as_root, find, in_use, name_of, open, progress::human};
use crate::output;
use anyhow::{Result, bail};
use ctr_images::Kind;
use ctr_images::name::{LOCAL, Name, Reference};
use ctr_images::store::{Pruned, Report};

/// What an image that is made or named here is called: without a registry it is this machine's.
///
/// # Errors
/// When `text` is no name, or has a digest, which nobody may choose.
pub(super) fn new_name(text: &str) -> Result<Name> {
    let name = match text.parse()? {
        Reference::Full(name) => name,
        Reference::Short(short) => short.at(LOCAL)?,
    };
    if name.digest.is_some() {
        bail!("image name {text:?}: a digest follows from the contents, it cannot be given");
    }
    Ok(name)
}

/// `image tag`.
pub(super) fn tag(context: &Context, flags: &Tag) -> Result<()> {
    let store = open(&context.settings)?;
    let new = flags.names.iter().map(|text| Ok(new_name(text)?.to_string())).collect::<Result<Vec<_>>>()?;
    let names = store.names()?;
    let digest = find(&names, &context.settings, &flags.image)?.digest.clone();
    store.change(|all| {
        if all.image(&digest).is_none() {
            return Err(ctr_images::Error::new(Kind::NotFound, "it was removed meanwhile"));
        }
        all.names.extend(new.iter().map(|name| (name.clone(), digest.clone())));
        Ok(())
    })?;
    Ok(())
}

/// `image rm`.
pub(super) fn rm(context: &Context, flags: &Rm) -> Result<()> {
    let store = open(&context.settings)?;
    for text in &flags.images {
        let names = store.names()?;
        if let Some(name) = name_of(&names, &context.settings, text)? {
            store.untag(&name)?;
            output::print(&format!("untagged {name}\n"))?;
            continue;
        }
        match find(&names, &context.settings, text) {
            Ok(image) => {
                let digest = image.digest.clone();
                store.change(|all| {
                    all.names.retain(|_, of| *of != digest);
                    Ok(())
                })?;
                output::print(&format!("untagged {}\n", digest.short()))?;
            }
            Err(_) if flags.force => {}
            Err(error) => return Err(error),
        }
    }
    swept(context, false).map(drop)
}

/// Removes what is not needed any more.
fn swept(context: &Context, all: bool) -> Result<Pruned> {
    let pruned = as_root(|| {
        let pruned = open(&context.settings)?.prune(all, || in_use(context))?;
        // The list may be long, and is not wanted: what had no name is told by number.
        Ok(serde_json::to_string(&Pruned {
            images: pruned.images.into_iter().take(100).collect(),
            ..pruned
        })?)
    })?;
    Ok(serde_json::from_str(&pruned)?)
}

/// `image prune`.
pub(super) fn prune(context: &Context, flags: &Prune) -> Result<()> {
    let pruned = swept(context, flags.all)?;
    if flags.json {
        return Ok(output::json(&pruned)?);
    }
    let text = format!(
        "{} images, {} layers and {} blobs removed: {}\n",
        pruned.images.len(),
        pruned.layers,
        pruned.blobs,
        human(pruned.bytes)
    );
    Ok(output::print(&text)?)
}

/// `image fsck`; the status is 1 where something is damaged and stays so.
pub(super) fn fsck(context: &Context, flags: &Fsck) -> Result<u8> {
    let told = as_root(|| {
        let report = open(&context.settings)?.fsck(!flags.check)?;
        match flags.json {
            true => output::json(&report)?,
            false => output::print(&output::printable(&worded(&report)))?,
        }
        Ok(report.findings.iter().any(|finding| !finding.mended).to_string())
    })?;
    Ok(u8::from(told == "true"))
}

fn worded(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let end = if finding.mended { "mended" } else { "pull the image again" };
        text.push_str(&format!("{}: {} ({end})\n", finding.what, finding.wrong));
    }
    let Report { images, layers, blobs, findings } = report;
    let count = findings.len();
    text + &format!("{images} images, {layers} layers and {blobs} blobs: {count} damaged\n")
}
