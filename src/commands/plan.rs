//! `plan`: what `create`, `run` or `exec` would do, without doing it.

use super::context::Context;
use super::{create, exec, run_image};
use crate::cli::oci::{Format, Plan, Planned};
use crate::output;
use anyhow::{Context as _, Result};
use ctr_runtime::facts::Facts;
use ctr_runtime::plan::describe::{self, Step};
use serde::Serialize;

#[derive(Serialize)]
struct Document {
    id: String,
    steps: Vec<Step>,
    warnings: Vec<String>,
}

/// Prints a plan, for people or as JSON.
///
/// # Errors
/// Whatever the verb itself would refuse before it does anything.
pub fn plan(context: &Context, flags: &Plan) -> Result<()> {
    let plan = match &flags.verb {
        Planned::Create(verb) => {
            let request =
                create::request(context, &verb.id, &verb.bundle, verb.bundle.console_socket.is_some())?;
            create::planned(context, &verb.bundle, &request)?.1
        }
        Planned::Run(verb) if verb.is_image_door() => run_image::plan(context, verb)?,
        Planned::Run(verb) => {
            let id = verb.name().context("the container's name is missing")?;
            let request = create::request(context, id, &verb.bundle, true)?;
            create::planned(context, &verb.bundle, &request)?.1
        }
        Planned::Exec(verb) => {
            let container = context.container(&verb.id)?;
            container.plan_exec(
                &exec::process(&container, verb)?,
                &exec::request(context, verb)?,
                &Facts::read(),
            )?
        }
    };
    let document = Document { steps: describe::steps(&plan), id: plan.id, warnings: plan.warnings };
    if flags.format == Format::Json {
        return Ok(output::json(&document)?);
    }
    let width = document.steps.iter().map(|step| step.phase.len()).max().unwrap_or(0);
    let lines: String =
        document.steps.iter().map(|step| format!("{:width$}  {}\n", step.phase, step.what)).collect();
    Ok(output::print(&lines)?)
}
