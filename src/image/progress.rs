//! How far a transfer is: bars on a terminal, lines in a log, JSON for programs.

use crate::cli::image::Progress as How;
use ctr_images::digest::Digest;
use ctr_images::source::{Blob, Event};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Tells a person or a program of events.
#[derive(Debug)]
pub struct Progress {
    how: How,
    bars: MultiProgress,
    parts: Mutex<BTreeMap<Digest, Part>>,
}

#[derive(Debug)]
struct Part {
    bar: Option<ProgressBar>,
    size: u64,
    done: u64,
    /// How much of it was told to a program.
    told: u64,
}

impl Progress {
    /// Tells of them in the way `how`; with `quiet` only notes remain.
    pub fn new(how: How, quiet: bool) -> Progress {
        let is_terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let how = match how {
            _ if quiet => How::None,
            How::Auto if !is_terminal => How::Plain,
            other => other,
        };
        Progress { how, bars: MultiProgress::new(), parts: Mutex::default() }
    }

    /// One event.
    pub fn tell(&self, event: Event<'_>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Begin { blob, kind } => drop(parts.insert(blob.digest.clone(), self.begin(blob, kind))),
            Event::Advance { digest, bytes } => {
                if let Some(part) = parts.get_mut(digest) {
                    self.advance(digest, part, bytes);
                }
            }
            Event::Done { digest, known } => {
                if let Some(part) = parts.get(digest) {
                    self.end(digest, part, known);
                }
            }
            Event::Note(text) => self.note(text),
        }
    }

    fn begin(&self, blob: &Blob, kind: &str) -> Part {
        let bar = (self.how == How::Auto).then(|| {
            let bar = self.bars.add(ProgressBar::new(blob.size));
            let style = ProgressStyle::with_template(
                "{prefix:12} {bar:30.green/dim} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>4} {msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ "));
            bar.set_prefix(blob.digest.short().to_owned());
            bar
        });
        if self.how == How::Json {
            json(&serde_json::json!({
                "event": "begin", "kind": kind, "digest": blob.digest, "size": blob.size
            }));
        }
        Part { bar, size: blob.size, done: 0, told: 0 }
    }

    fn advance(&self, digest: &Digest, part: &mut Part, bytes: u64) {
        part.done += bytes;
        if let Some(bar) = &part.bar {
            bar.inc(bytes);
        }
        // Not each time: some thousand lines would be of no use to anyone.
        if self.how == How::Json && part.done - part.told >= (part.size / 50).max(1 << 20) {
            part.told = part.done;
            json(
                &serde_json::json!({ "event": "progress", "digest": digest, "done": part.done, "size": part.size }),
            );
        }
    }

    fn end(&self, digest: &Digest, part: &Part, known: bool) {
        let word = if known { "already here" } else { "done" };
        if let Some(bar) = &part.bar {
            bar.set_position(part.size);
            bar.finish_with_message(word);
        }
        match self.how {
            How::Plain => line(&format!("{} {:>10}  {word}", digest.short(), human(part.size))),
            How::Json => json(&serde_json::json!({ "event": "done", "digest": digest, "known": known })),
            _ => {}
        }
    }

    fn note(&self, text: &str) {
        match self.how {
            How::Auto => drop(self.bars.println(crate::output::printable(text))),
            How::Json => json(&serde_json::json!({ "event": "note", "text": text })),
            How::Plain => line(text),
            How::None => {}
        }
    }
}

/// Progress is for standard error: what a pipe gets is the answer alone.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", crate::output::printable(text));
}

fn json(value: &serde_json::Value) {
    let _ = writeln!(std::io::stderr(), "{value}");
}

/// An amount of bytes for people: `12.3 MiB`.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn amounts() {
        let all = [0, 1023, 1024, 1_600_000, 5 << 30].map(human);
        assert_eq!(all, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"]);
    }
}
