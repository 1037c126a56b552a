//! `ps`.

use super::context::Context;
use crate::cli::oci::{Format, Ps};
use crate::output;
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// Prints the processes of a container: their ids as JSON, or what ps(1) says of them.
///
/// # Errors
/// When there is no such container, it has neither cgroup nor PID namespace of its own, or ps(1) fails.
pub fn ps(context: &Context, flags: &Ps) -> Result<()> {
    let pids = context.container(&flags.id)?.processes()?;
    if flags.format == Format::Json {
        return Ok(output::json_line(&pids)?);
    }
    let options: Vec<&str> = if flags.options.is_empty() {
        vec!["-ef"]
    } else {
        flags.options.iter().map(String::as_str).collect()
    };
    let said = Command::new("ps")
        .args(&options)
        .output()
        .context("run ps (install it with `apt install procps`)")?;
    if !said.status.success() {
        bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&said.stderr).trim());
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column =
        header.split_whitespace().position(|name| name == "PID").context("ps prints no column PID")?;
    let mut page = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            page.push_str(line);
            page.push('\n');
        }
    }
    Ok(output::print(&page)?)
}
