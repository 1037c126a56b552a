//! One verb, one file.

pub mod attach;
pub mod checkpoint;
pub mod completion;
pub mod context;
pub mod create;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod features;
pub mod fit;
pub mod image;
pub mod kill;
pub mod limits;
pub mod list;
pub mod logs;
pub mod man;
pub mod mounts;
pub mod plan;
pub mod ps;
pub mod run;
pub mod run_image;
pub mod setup;
pub mod spec;
pub mod stop;
pub mod stuck;
pub mod trace;
pub mod update;
pub mod why;

use crate::cli::{Global, Verb};
use anyhow::Result;
use context::Context;
use ctr_isolation::sys::fs::{read_bounded, read_to_end};
use ctr_runtime::bundle::TEXT_MAX;
use std::io;
use std::path::Path;

/// Does what `verb` says; the status the program is to end with.
///
/// # Errors
/// What the person is to be told.
pub fn dispatch(global: Global, verb: Verb, program: &str) -> Result<u8> {
    match &verb {
        Verb::Completion(flags) => {
            return Ok(completion::completion(flags, program, &mut io::stdout()).map(|()| 0)?);
        }
        Verb::Features(_) => return features::print().map(|()| 0),
        Verb::Spec(flags) => return spec::spec(flags).map(|()| 0),
        Verb::Man(flags) => return Ok(man::man(flags, program).map(|()| 0)?),
        _ => {}
    }
    let context = Context::new(global)?;
    match verb.traced() {
        Some((name, id)) if context.settings.log.trace => {
            crate::trace::begin(&context, name, id)?;
            let done = act(&context, &verb, program);
            crate::trace::end(&done);
            done
        }
        _ => act(&context, &verb, program),
    }
}

/// The text of the file `path`, or with `-` of standard input; no more than a configuration may have.
fn read_named(path: &Path) -> io::Result<Vec<u8>> {
    match path == Path::new("-") {
        true => read_to_end(io::stdin().lock(), TEXT_MAX),
        false => read_bounded(path, TEXT_MAX),
    }
}

fn act(context: &Context, verb: &Verb, program: &str) -> Result<u8> {
    match verb {
        Verb::Run(flags) if flags.is_image_door() => return run_image::run(context, flags),
        Verb::Run(flags) => return run::run(context, flags),
        Verb::Exec(flags) => return exec::exec(context, flags),
        Verb::Checkpoint(flags) => return checkpoint::checkpoint(context, flags),
        Verb::Restore(flags) => return checkpoint::restore(context, flags),
        Verb::Create(flags) => create::create(context, flags)?,
        Verb::Start(flags) => context.start(&flags.id)?,
        Verb::Kill(flags) => kill::kill(context, flags)?,
        Verb::Delete(flags) => kill::delete(context, flags)?,
        Verb::State(flags) => list::state(context, &flags.id)?,
        Verb::List(flags) => list::list(context, flags)?,
        Verb::Plan(flags) => plan::plan(context, flags)?,
        Verb::Ps(flags) => ps::ps(context, flags)?,
        Verb::Pause(flags) => context.container(&flags.id)?.pause()?,
        Verb::Resume(flags) => context.container(&flags.id)?.resume()?,
        Verb::Mounts(flags) => mounts::mounts(context, flags)?,
        Verb::Update(flags) => update::update(context, flags)?,
        Verb::Events(flags) => events::events(context, flags)?,
        Verb::Fit(flags) => fit::fit(flags)?,
        Verb::Limits(flags) => return limits::limits(context, flags),
        Verb::Why(flags) => why::why(context, flags)?,
        Verb::Trace(flags) => trace::trace(context, flags)?,
        Verb::Stuck(flags) => stuck::stuck(context, flags)?,
        Verb::Logs(flags) => logs::logs(context, flags)?,
        Verb::Attach(flags) => return attach::attach(context, flags),
        Verb::Setup(flags) => return setup::setup(context, flags, program),
        Verb::Image(flags) => return image::image(context, flags),
        Verb::Doctor(flags) => return doctor::doctor(context, flags, program),
        Verb::Stop(flags) => stop::stop(context, flags)?,
        Verb::Restart(flags) => stop::restart(context, flags)?,
        // They need no context and have been done.
        Verb::Completion(_) | Verb::Features(_) | Verb::Spec(_) | Verb::Man(_) => {}
    }
    Ok(0)
}
