//! `list` and `state`.

use super::context::Context;
use crate::cli::oci::{Format, List};
use crate::{output, supervisor, time};
use anyhow::Result;
use ctr_runtime::Status;
use ctr_runtime::container::Container;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A container as `list` and `state` tell of it: the specification's state and what runc adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
    /// Ours: how its program ended, where somebody of ours has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<i32>,
}

impl Row {
    fn new(context: &Context, container: Container) -> Self {
        let status = container.status();
        if status == Status::Stopped {
            context.notice(&container);
        }
        let exit_status = match status {
            Status::Stopped => std::fs::read_to_string(container.entry.path(supervisor::STATUS)).ok(),
            _ => None,
        };
        let record = container.record;
        Row {
            oci_version: record.oci_version,
            id: record.id,
            pid: if matches!(status, Status::Stopped) { 0 } else { record.pid },
            status,
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: time::rfc3339_nanos(time::at(record.created)),
            annotations: record.annotations,
            owner: user_name(record.owner),
            exit_status: exit_status.and_then(|text| text.parse().ok()),
        }
    }
}

/// The name of a user, from the host's /etc/passwd; its number where it has none there.
fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("#{uid}"))
}

/// Prints the state of one container as JSON.
///
/// # Errors
/// When there is none of that name.
pub fn state(context: &Context, id: &str) -> Result<()> {
    Ok(output::json(&Row::new(context, context.container(id)?))?)
}

/// Prints all containers.
///
/// # Errors
/// The kernel's.
pub fn list(context: &Context, flags: &List) -> Result<()> {
    let names = context.store.list()?;
    if flags.quiet {
        return Ok(output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?);
    }
    // One that goes away meanwhile, or that a newer ctr wrote, does not hide the others.
    let open = |name: &String| match Container::open(&context.store, name) {
        Ok(container) => Some(Row::new(context, container)),
        Err(ctr_runtime::Error::NotFound(_)) => None,
        Err(error) => {
            tracing::warn!("container {name}: {error}");
            None
        }
    };
    let rows: Vec<Row> = names.iter().filter_map(open).collect();
    if flags.format == Format::Json {
        // runc prints null for no containers, and callers know it.
        let printed = if rows.is_empty() { output::print("null\n") } else { output::json_line(&rows) };
        return Ok(printed?);
    }
    let cells: Vec<[String; 6]> = rows
        .into_iter()
        .map(|row| {
            let bundle = row.bundle.display().to_string();
            [row.id, row.pid.to_string(), row.status.to_string(), bundle, row.created, row.owner]
        })
        .collect();
    Ok(output::print(&output::table(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], &cells))?)
}
