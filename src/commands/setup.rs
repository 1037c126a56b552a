//! `setup`: an engine is told of this runtime, or asked, or has its settings back.

use anyhow::Result;

use super::context::Context;
use crate::{
    cli,
    output::{self, CYAN, GREEN, RED, paint},
    setup::{Report, Setup},
};

/// Does what the flags say; 1 when `--check` finds it not set up, or not working.
///
/// # Errors
/// What is wrong with the settings, or what the engine says.
pub fn setup(context: &Context, flags: &cli::setup::Setup, program: &str) -> Result<u8> {
    let setup = Setup::new(flags.engine, &context.settings.store)?;
    if flags.print {
        output::print(&setup.planned(flags.as_default)?)?;
        return Ok(0);
    }
    let (report, is_well) = if flags.check {
        let report = setup.check()?;
        let is_well = report.works == Some(true);
        (report, is_well)
    } else if flags.undo {
        (setup.undo()?, true)
    } else {
        (setup.make(flags.as_default, flags.only_write)?, true)
    };
    if flags.json {
        output::json(&report)?;
    } else {
        output::print(&page(&report, flags, program, output::is_coloured(&std::io::stdout())))?;
    }
    Ok(u8::from(!is_well))
}

fn page(report: &Report, flags: &cli::setup::Setup, program: &str, coloured: bool) -> String {
    let settings = report.settings.display();
    let mut lines = vec![match &report.program {
        _ if flags.undo && !report.changed => format!("{settings} needs no change"),
        None if flags.undo => format!("{settings} is without {} again", report.runtime),
        Some(there) if flags.undo => format!("{settings} is as it was, with {} for {there}", report.runtime),
        None => format!("{settings} does not have the runtime {}", report.runtime),
        Some(there) => {
            let default = if report.is_default { ", and unasked" } else { "" };
            let already = if report.changed || flags.check { "" } else { "; it did already" };
            format!("{settings} has {there} for {}{default}{already}", report.runtime)
        }
    }];
    lines.extend(report.done.iter().cloned());
    match (report.works, &report.proof) {
        (Some(true), Some(proof)) => {
            lines.push(format!("{}: a container said: {proof}", paint("it works", GREEN, coloured)))
        }
        (Some(false), Some(why)) => {
            lines.push(format!("{}: {why}", paint("it does not work", RED, coloured)))
        }
        _ => {}
    }
    let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (engine, hint) = (report.engine, paint("hint:", CYAN, coloured));
    if report.program.is_some() && !flags.undo {
        text +=
            &format!("{hint} use it: {}; undo it: {program} setup {engine} --undo\n", flags.engine.example());
    } else if flags.check {
        text += &format!("{hint} set it up: {program} setup {engine}\n");
    }
    text
}
