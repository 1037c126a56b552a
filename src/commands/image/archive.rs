//! `image save`, `load` and `import`: files and directories.

use super::pull::{send, take};
use super::store::new_name;
use crate::cli::image::{Format, Import, Load, Progress as How, Save};
use crate::commands::context::Context;
use crate::image::progress::Progress;
use crate::image::{as_root, find, name_of, open};
use crate::output;
use crate::settings::Settings;
use anyhow::{Context as _, Result, bail};
use ctr_images::manifest::{Execution, Platform};
use ctr_images::name::Name;
use ctr_images::store::Store;
use ctr_images::transport::{self, Found, Input, RootfsSource, Transport, Which, kind_of};
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// `image save`.
pub(super) fn save(context: &Context, flags: &Save) -> Result<()> {
    let store = open(&context.settings)?;
    let names = store.names()?;
    let image = find(&names, &context.settings, &flags.image)?;
    let which = match name_of(&names, &context.settings, &flags.image)? {
        Some(name) => Which::Named(name),
        None => Which::Only,
    };
    let is_standard = flags.output == Path::new("-");
    if is_standard && std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: name a file with --output");
    }
    let to = match flags.format {
        Format::OciArchive => Transport::Archive(flags.output.clone(), which),
        Format::DockerArchive => Transport::DockerArchive(flags.output.clone(), which),
    };
    let sink = transport::open_sink(&to, &store.scratch(), Some(Box::new(std::io::stdout())))?;
    send(&store, image, &*sink, &Progress::new(How::Auto, true)).with_context(|| format!("save {to}"))
}

/// `image load`.
pub(super) fn load(context: &Context, flags: &Load) -> Result<()> {
    let text = as_root(|| load_all(&context.settings, flags))?;
    Ok(output::print(&text)?)
}

fn load_all(settings: &Settings, flags: &Load) -> Result<String> {
    let store = open(settings)?;
    let progress = Progress::new(How::Auto, flags.quiet);
    if flags.input != Path::new("-") {
        return load_path(&store, &flags.input, &progress);
    }
    if std::io::stdin().is_terminal() {
        bail!("name an archive with --input, or send one to standard input");
    }
    // What it is, is seen by looking at all of it.
    let kept = Kept(store.scratch().dir.join(format!("load-{}", std::process::id())));
    let mut file = File::create(&kept.0).with_context(|| format!("make {}", kept.0.display()))?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).context("keep what comes from standard input")?;
    load_path(&store, &kept.0, &progress)
}

/// A file that goes with us.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load_path(store: &Store, path: &Path, progress: &Progress) -> Result<String> {
    let scratch = store.scratch();
    let from: Vec<(Transport, Vec<String>)> = match kind_of(path, &scratch)? {
        Found::Layout => vec![(Transport::Layout(path.into(), Which::Only), Vec::new())],
        Found::Archive => vec![(Transport::Archive(path.into(), Which::Only), Vec::new())],
        Found::Dir => vec![(Transport::Dir(path.into()), Vec::new())],
        Found::DockerArchive => {
            let all = transport::names(path, &scratch)?.into_iter().enumerate();
            all.map(|(at, names)| (Transport::DockerArchive(path.into(), Which::At(at)), names)).collect()
        }
        Found::Directory | Found::Tar => {
            bail!("{} is a root file system: `image import` makes an image of it", path.display())
        }
    };
    let mut text = String::new();
    for (from, names) in from {
        let source = transport::open_source(&from, &scratch, None)?;
        let mut names: Vec<Name> = names.iter().map(|name| new_name(name)).collect::<Result<_>>()?;
        if names.is_empty() {
            names.extend(source.reference().and_then(|name| new_name(&name).ok()));
        }
        let id = take(store, &*source, &Platform::here(), names.first(), progress)
            .with_context(|| format!("load {from}"))?;
        store.change(|all| {
            let digest = names.first().and_then(|name| all.names.get(&name.to_string())).cloned();
            for name in names.iter().skip(1) {
                all.names.extend(digest.clone().map(|digest| (name.to_string(), digest)));
            }
            Ok(())
        })?;
        match names.is_empty() {
            true => text.push_str(&format!("{id}\n")),
            false => names.iter().for_each(|name| text.push_str(&format!("{name}\n"))),
        }
    }
    Ok(text)
}

/// `image import`.
pub(super) fn import(context: &Context, flags: &Import) -> Result<()> {
    let name = new_name(&flags.name)?;
    let execution = Execution {
        cmd: flags.cmd.as_deref().map(words).transpose()?,
        env: (!flags.env.is_empty()).then(|| flags.env.clone()),
        ..Execution::default()
    };
    if let Some(word) = flags.env.iter().find(|word| !word.contains('=')) {
        bail!("--env {word}: expected KEY=VALUE");
    }
    let import = transport::Import {
        execution,
        created: Some(crate::time::rfc3339(std::time::SystemTime::now())),
        ..transport::Import::default()
    };
    let id = as_root(|| {
        let store = open(&context.settings)?;
        let scratch = store.scratch();
        let source = match flags.source.is_dir() {
            true => RootfsSource::directory(&flags.source, &import, &scratch)?,
            false => RootfsSource::tar(Input::File(&flags.source), &import, &scratch)?,
        };
        for note in source.notes() {
            tracing::warn!("{note}");
        }
        let progress = Progress::new(How::Auto, true);
        take(&store, &source, &import.platform, Some(&name), &progress)
    })
    .with_context(|| format!("import {}", flags.source.display()))?;
    Ok(output::print(&format!("{id}\n"))?)
}

/// A program and its arguments: a JSON array, or a line for a shell.
fn words(text: &str) -> Result<Vec<String>> {
    match text.starts_with('[') {
        true => {
            serde_json::from_str(text).with_context(|| format!("--cmd {text}: not a JSON array of strings"))
        }
        false => Ok(["/bin/sh", "-c", text].map(str::to_owned).to_vec()),
    }
}
