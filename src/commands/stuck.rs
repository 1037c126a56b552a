//! `stuck`: what the processes of a container wait for.

use super::context::Context;
use crate::cli::why::Stuck as Flags;
use crate::output;
use anyhow::Result;
use ctr_runtime::stuck::{Stuck, Task};

/// Prints what each process of a container waits for.
///
/// # Errors
/// When there is no such container, or it has neither a cgroup nor a PID namespace of its own.
pub fn stuck(context: &Context, flags: &Flags) -> Result<()> {
    let container = context.container(&flags.id)?;
    let found = container.stuck()?;
    if flags.json {
        return Ok(output::json(&found)?);
    }
    let status = container.status();
    Ok(output::print(&format!(
        "{} is {status}\n{}",
        output::printable(&flags.id),
        text(&found, flags.stack)
    ))?)
}

fn text(found: &Stuck, with_stack: bool) -> String {
    let mut text = String::new();
    if let Some(cgroup) = &found.frozen_by {
        text += &format!(
            "all of it is frozen: {cgroup}/cgroup.freeze is 1 (`resume` thaws the container's own)\n"
        );
    }
    if found.tasks.is_empty() {
        return text + "it has no process\n";
    }
    let rows: Vec<[String; 7]> = found.tasks.iter().map(row).collect();
    text += &output::table(["PID", "THREAD", "NAME", "STATE", "CALL", "FILE", "WAITS FOR"], &rows);
    for task in found.tasks.iter().filter(|_| with_stack) {
        let stack =
            if task.stack.is_empty() { "hidden (only root sees it)".into() } else { task.stack.join(" < ") };
        text += &format!("{}: {stack}\n", task.thread);
    }
    text
}

fn row(task: &Task) -> [String; 7] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let killed = if task.killed { " (it has been killed)" } else { "" };
    [
        task.pid.to_string(),
        task.thread.to_string(),
        task.name.clone(),
        task.state.to_string(),
        or_dash(&task.call),
        or_dash(&task.file),
        format!("{}{killed}", task.waits_for),
    ]
}
