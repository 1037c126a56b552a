//! `image ls`, `inspect` and `history`.

use crate::cli::image::{History, Ls, Names as Wanted};
use crate::commands::context::Context;
use crate::image::{describe, find, open, progress::human};
use crate::output;
use anyhow::Result;
use ctr_images::manifest::LARGEST_CONFIG;
use ctr_images::store::{Image, Names, Store};
use serde::Serialize;
use std::collections::BTreeMap;

/// One line of the list.
#[derive(Serialize)]
struct Row {
    id: String,
    digest: String,
    names: Vec<String>,
    platform: String,
    /// Seconds since 1970.
    added: u64,
    /// The bytes of all its files.
    size: u64,
    /// Those of layers that no other image here has.
    own: u64,
    /// Those of layers that others have, too.
    shared: u64,
    /// What came over the network.
    fetched: u64,
}

/// `image ls`.
pub(super) fn ls(context: &Context, flags: &Ls) -> Result<()> {
    let store = open(&context.settings)?;
    let names = store.names()?;
    let mut rows = rows(&store, &names);
    if let Some(text) = &flags.filter {
        rows.retain(|row| {
            row.names.iter().any(|name| name.contains(text)) || row.id.starts_with(text.as_str())
        });
    }
    rows.sort_by(|a, b| b.added.cmp(&a.added).then_with(|| a.names.cmp(&b.names)));
    if flags.json {
        return Ok(output::json(&rows)?);
    }
    if flags.quiet {
        return Ok(output::print(&rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>())?);
    }
    let lines: Vec<[String; 7]> = rows.iter().flat_map(lines).collect();
    let header = ["NAME", "ID", "PLATFORM", "ADDED", "SIZE", "OWN", "SHARED"];
    Ok(output::print(&output::table(header, &lines))?)
}

/// A line for each name.
fn lines(row: &Row) -> Vec<[String; 7]> {
    let none = ["-".to_owned()];
    let names = if row.names.is_empty() { &none[..] } else { &row.names };
    let line = |name: &String| {
        let sizes = [row.size, row.own, row.shared].map(human);
        let [size, own, shared] = sizes;
        let added = crate::time::ago(row.added);
        [name.clone(), row.id[..12].to_owned(), row.platform.clone(), added, size, own, shared]
    };
    names.iter().map(line).collect()
}

fn rows(store: &Store, names: &Names) -> Vec<Row> {
    let layers: Vec<Vec<(String, u64)>> = names
        .images
        .iter()
        .map(|image| {
            let layers = store.layers(&image.diff_ids).into_iter().flatten();
            layers.map(|layer| (layer.key, layer.info.size)).collect()
        })
        .collect();
    let mut users: BTreeMap<&str, u32> = BTreeMap::new();
    for (key, _) in layers.iter().flatten() {
        *users.entry(key).or_default() += 1;
    }
    let row = |(image, layers): (&Image, &Vec<(String, u64)>)| {
        let sum = |shared: bool| -> u64 {
            let of_kind = layers.iter().filter(|(key, _)| (users[key.as_str()] > 1) == shared);
            of_kind.map(|(_, size)| size).sum()
        };
        Row {
            id: image.config.hex().to_owned(),
            digest: image.digest.to_string(),
            names: names.names_of(&image.digest).map(str::to_owned).collect(),
            platform: image.platform.to_string(),
            added: image.added,
            size: sum(true) + sum(false),
            own: sum(false),
            shared: sum(true),
            fetched: image.fetched_size,
        }
    };
    names.images.iter().zip(&layers).map(row).collect()
}

/// `image inspect`.
pub(super) fn inspect(context: &Context, flags: &Wanted) -> Result<()> {
    let store = open(&context.settings)?;
    let names = store.names()?;
    let mut all = Vec::new();
    for text in &flags.images {
        let image = find(&names, &context.settings, text)?;
        let described = describe(&store, image)?;
        // As it was written, with what we do not know.
        let config: serde_json::Value =
            serde_json::from_slice(&store.read_blob(&image.config, LARGEST_CONFIG)?)?;
        all.push(serde_json::json!({
            "id": image.config.hex(),
            "digest": image.digest,
            "index": image.index,
            "names": names.names_of(&image.digest).collect::<Vec<_>>(),
            "platform": image.platform,
            "added": image.added,
            "manifest": described.manifest,
            "config": config,
            "layers": described.trees,
        }));
    }
    Ok(output::json(&all)?)
}

/// `image history`.
pub(super) fn history(context: &Context, flags: &History) -> Result<()> {
    let store = open(&context.settings)?;
    let names = store.names()?;
    let image = find(&names, &context.settings, &flags.image)?;
    let (_, config) = store.read_image(image)?;
    let history = config.history.unwrap_or_default();
    if flags.json {
        return Ok(output::json(&history)?);
    }
    let mut sizes = store.layers(&image.diff_ids).into_iter();
    let rows: Vec<[String; 3]> = history
        .iter()
        .map(|step| {
            let size = match step.empty_layer {
                Some(true) => 0,
                _ => sizes.next().flatten().map_or(0, |layer| layer.info.size),
            };
            let by = step.created_by.clone().or_else(|| step.comment.clone()).unwrap_or_default();
            [step.created.clone().unwrap_or_else(|| "-".into()), human(size), by.replace(['\n', '\t'], " ")]
        })
        .rev()
        .collect();
    Ok(output::print(&output::table(["CREATED", "SIZE", "BY"], &rows))?)
}
