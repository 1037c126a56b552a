//! `trace`: what was done to a container, and when.

use super::context::Context;
use super::why::signal_name;
use crate::cli::why::Trace;
use crate::trace::{self, DONE, FAILED, Line};
use crate::{output, time};
use anyhow::{Result, bail};
use ctr_runtime::Status;
use ctr_runtime::container::Container;
use ctr_runtime::death::Time;
use ctr_runtime::state::file;
use ctr_runtime::witness;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All that is known.
#[derive(Debug, Serialize)]
struct Known {
    /// What verbs have noted, where they were asked to.
    calls: Vec<Call>,
    /// What its state and its records tell.
    marks: Vec<Mark>,
}

/// One call of a verb.
#[derive(Debug, Serialize)]
struct Call {
    verb: String,
    process: u32,
    began: String,
    /// `done`, `failed: ...`, or where it is or was.
    end: String,
    /// What had been done, after so many seconds.
    phases: Vec<(f64, String)>,
}

/// A point of a container's life.
#[derive(Debug, Serialize)]
struct Mark {
    at: String,
    what: String,
}

/// Prints what was done to a container, and when.
///
/// # Errors
/// When nothing is known of one of that name.
pub fn trace(context: &Context, flags: &Trace) -> Result<()> {
    let calls = trace::calls(context, &flags.id)?;
    let known =
        Known { calls: calls.iter().map(|lines| call(lines)).collect(), marks: marks(context, &flags.id)? };
    if known.calls.is_empty() && known.marks.is_empty() {
        bail!("nothing is known of a container {:?}", flags.id);
    }
    if flags.json {
        return Ok(output::json(&known)?);
    }
    Ok(output::print(&output::printable(&text(&known)))?)
}

fn text(known: &Known) -> String {
    let mut text = String::new();
    for call in &known.calls {
        text += &format!("{}  {}, process {}: {}\n", call.began, call.verb, call.process, call.end);
        for (seconds, phase) in &call.phases {
            text += &format!("  {:>10.3} ms  {phase}\n", seconds * 1e3);
        }
    }
    for mark in &known.marks {
        text += &format!("{}  {}\n", mark.at, mark.what);
    }
    if known.calls.is_empty() {
        text += "the phases of each verb are noted with --trace before it, or CTR_LOG_TRACE=true\n";
    }
    text
}

fn call(lines: &[Line]) -> Call {
    let first = lines.first().cloned().unwrap_or_default();
    let (process, began) = first.call;
    let since = |at: Time| time::at(at).duration_since(time::at(began)).unwrap_or_default().as_secs_f64();
    let end = match lines.iter().find(|line| line.phase == DONE || line.phase.starts_with(FAILED)) {
        Some(line) => format!("{} after {:.3} ms", line.phase, since(line.at) * 1e3),
        None if is_running(process, &first.verb) => "not finished: it still runs".to_owned(),
        None => "it has ended without a word (killed?)".to_owned(),
    };
    let phases = lines.iter().map(|line| (since(line.at), line.phase.clone())).collect();
    Call { verb: first.verb, process, began: time::rfc3339_nanos(time::at(began)), end, phases }
}

/// Whether the process is still the one that was called: its arguments say so.
fn is_running(process: u32, verb: &str) -> bool {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == verb.as_bytes())
}

/// What there is to be seen of the container's life without anybody having noted it.
fn marks(context: &Context, id: &str) -> Result<Vec<Mark>> {
    let mut marks: Vec<(Time, String)> = Vec::new();
    if let Ok(container) = context.container(id) {
        of_state(&container, &mut marks);
    }
    for death in context.ended().deaths(&context.root(), Some(id))? {
        marks.push((death.began, "its making began".into()));
        for sent in &death.sent {
            marks.push((sent.at, sent_by(sent.signal, &sent.by)));
        }
        let how = match (&death.failure, death.reaped) {
            (Some(failure), _) => format!("it did not start: {}", failure.error),
            (None, true) => "it ended; `why` tells how".to_owned(),
            (None, false) => "it was found to have ended; `why` tells what is known".to_owned(),
        };
        marks.push((death.ended, how));
    }
    marks.sort();
    marks.dedup();
    Ok(marks.into_iter().map(|(at, what)| Mark { at: time::rfc3339_nanos(time::at(at)), what }).collect())
}

/// What the files of a container tell, and when they were last changed.
fn of_state(container: &Container, marks: &mut Vec<(Time, String)>) {
    let (entry, record) = (&container.entry, &container.record);
    let mut see = |name: &str, what: &str| {
        let at = changed(&entry.path(name));
        marks.extend(at.map(|at| (at, what.to_owned())));
        at
    };
    let made = see(file::CONFIG, "its first process was there");
    let others = [
        see(file::START, "it was created and waits for `start`"),
        see(file::RESOURCES, "its limits were last changed"),
        see(file::NOTED, "its end was recorded"),
        see(crate::supervisor::STATUS, "the status of its program was noted"),
        changed(&entry.path(file::SIGNALS)),
    ];
    // `start` takes a file away; if nothing came after, the directory was last changed then.
    let last = changed(entry.dir());
    let is_start = last > made
        && others.iter().flatten().all(|other| Some(*other) > last)
        && record.supervisor.is_none();
    if let (Some(at), true) = (last, is_start && others[0].is_none()) {
        marks.push((at, "it was started".into()));
    }
    marks.push((record.created, "its making began".into()));
    for sent in witness::signals(entry) {
        marks.push((sent.at, sent_by(sent.signal, &sent.by)));
    }
    marks.push((
        ctr_runtime::state::now(),
        match container.status() {
            Status::Stopped => "now it has stopped".to_owned(),
            status => format!("now it is {status}; `stuck` tells what it waits for"),
        },
    ));
}

fn changed(path: &Path) -> Option<Time> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.mtime().try_into().ok()?, meta.mtime_nsec().try_into().ok()?))
}

fn sent_by(number: i32, by: &str) -> String {
    format!("`{by}` sent it {}", signal_name(number))
}
