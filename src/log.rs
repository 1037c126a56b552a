//! The log: lines of logrus's form, since callers read runc's.
//!
//! Without `--log` only warnings are written, on standard error and worded for people; the error a program
//! ends with is [`failure`]'s.

use std::{
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};

use anyhow::{Context, Result};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

use crate::{
    cli::{
        Global,
        global::{LogFormat, LogLevel},
    },
    loggers::Logger,
    output::{self, CYAN, RED, YELLOW},
    time, trace,
};

/// Begins to log what the flags and settings ask for.
///
/// It costs a handful of allocations: below `level` an event ends at the comparison of two numbers.
pub fn start(flags: &Global, level: LogLevel, trace: bool) -> Result<()> {
    let sink = match &flags.log {
        Some(file) => open(file, flags.log_format)?,
        None if level <= LogLevel::Warn => Sink::Person,
        None => Sink::Stderr(flags.log_format),
    };
    tracing::subscriber::set_global_default(Lines { sink, level: filter(level), trace })
        .context("begin to log: something in this process already does")
}

/// What was to be written on standard error while that was not the caller's.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// From now on what is for standard error is kept, for who has lent it to a container.
pub fn hold() {
    if let Ok(mut held) = HELD.lock() {
        *held = Some(Vec::new());
    }
}

/// What was kept since [`hold`]; from now on it is written again.
pub fn release() -> Vec<u8> {
    HELD.lock().ok().and_then(|mut held| held.take()).unwrap_or_default()
}

fn to_stderr(line: &[u8]) -> io::Result<()> {
    if let Ok(mut held) = HELD.lock()
        && let Some(held) = held.as_mut()
    {
        held.extend_from_slice(line);
        return Ok(());
    }
    io::stderr().write_all(line)
}

/// Tells of the error the program ends with: on standard error, and as the last line of the log if there is one.
pub fn failure(flags: &Global, error: &anyhow::Error, hint: Option<&str>) {
    if flags.log.is_some() {
        tracing::error!("{}", output::chain(error));
    }
    output::print_error(error, hint);
}

/// Opens what `--log` names: a file, or with crun's prefixes `file:`, `journald:` and `syslog:` that or a logger.
fn open(file: &Path, format: LogFormat) -> Result<Sink> {
    let text = file.to_str().unwrap_or_default();
    if let Some(logger) = Logger::named(text) {
        return logger.map(Sink::Logger);
    }
    let path = text.strip_prefix("file:").map_or_else(|| file.to_owned(), PathBuf::from);
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    let file = opened.with_context(|| format!("open the log {}", path.display()))?;
    Ok(Sink::File(Mutex::new(file), format))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Where lines go, and in what form.
#[derive(Debug)]
enum Sink {
    /// A file of lines for programs.
    File(Mutex<File>, LogFormat),
    /// Whoever keeps the host's log.
    Logger(Logger),
    /// Lines for programs on standard error, for who asked for more than warnings.
    Stderr(LogFormat),
    /// Standard error, in a person's words.
    Person,
}

/// Writes each event as one line, in one write. There are no spans: a verb is one line of events, and a registry of
/// spans would take longer to set up than a short verb takes.
#[derive(Debug)]
struct Lines {
    sink: Sink,
    level: LevelFilter,
    /// Phases are noted, whatever the level.
    trace: bool,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level || self.trace && metadata.target() == trace::TARGET
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.trace { LevelFilter::TRACE } else { self.level })
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        if self.trace && event.metadata().target() == trace::TARGET {
            trace::phase(&fields.message);
        }
        if level > self.level {
            return;
        }
        // A full disk must not end a container.
        let _ = match &self.sink {
            Sink::File(file, format) => match file.lock() {
                Ok(mut file) => file.write_all(line(*format, level, &fields, SystemTime::now()).as_bytes()),
                Err(_) => Ok(()),
            },
            Sink::Logger(logger) => logger.send(level, &plain(&fields)),
            Sink::Stderr(format) => to_stderr(line(*format, level, &fields, SystemTime::now()).as_bytes()),
            Sink::Person => to_stderr(words(level, &fields).as_bytes()),
        };
    }
}

/// What an event says: its message, and its values by name.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// A line as logrus writes it.
fn line(format: LogFormat, level: Level, fields: &Fields, now: SystemTime) -> String {
    let (level, time) = (level_name(level), time::rfc3339(now));
    let mut line = match format {
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={}", quoted(&fields.message)),
        LogFormat::Json => format!("{{\"level\":\"{level}\",\"msg\":{}", quoted(&fields.message)),
    };
    for (name, value) in &fields.others {
        // Writing to a string cannot fail.
        let _ = match format {
            LogFormat::Text => write!(line, " {name}={}", quoted(value)),
            LogFormat::Json => write!(line, ",{}:{}", quoted(name), quoted(value)),
        };
    }
    if format == LogFormat::Json {
        let _ = write!(line, ",\"time\":\"{time}\"}}");
    }
    line.push('\n');
    line
}

/// What an event says, without a level: `what happened (name: value)`.
fn plain(fields: &Fields) -> String {
    let others = fields.others.iter().map(|(name, value)| format!(" ({name}: {value})")).collect::<String>();
    format!("{}{others}", fields.message)
}

/// A line for a person: `warning: what happened (name: value)`.
fn words(level: Level, fields: &Fields) -> String {
    let colour = match level {
        Level::ERROR => RED,
        Level::WARN => YELLOW,
        _ => CYAN,
    };
    let level = output::paint(&format!("{}:", level_name(level)), colour, output::is_coloured(&io::stderr()));
    format!("{level} {}\n", output::printable(&plain(fields)))
}

/// JSON's quoting, which readers of logrus's text form understand too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// logrus's names.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn fields() -> Fields {
        Fields { message: "say \"no\"\nagain".to_owned(), others: vec![("id", "web".to_owned())] }
    }

    #[test]
    fn text_is_logrus_text() {
        assert_eq!(
            line(LogFormat::Text, Level::ERROR, &fields(), UNIX_EPOCH),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"say \\\"no\\\"\\nagain\" id=\"web\"\n"
        );
    }

    /// What go-runc looks for: one object a line with level, msg and time.
    #[test]
    fn json_is_one_object_a_line() {
        let line = line(LogFormat::Json, Level::WARN, &fields(), UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["level"], "warning");
        assert_eq!(read["msg"], "say \"no\"\nagain");
        assert_eq!(read["time"], "1970-01-01T00:00:00Z");
        assert_eq!(read["id"], "web");
    }

    #[test]
    fn events_reach_the_file_and_lesser_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let named = PathBuf::from(format!("file:{}", path.display()));
        let sink = open(&named, LogFormat::Json).unwrap();
        let subscriber = Lines { sink, level: filter(LogLevel::Warn), trace: false };
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not this");
            tracing::warn!(capability = "CAP_FOO", "unknown capability");
        });
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with(
                "{\"level\":\"warning\",\"msg\":\"unknown capability\",\"capability\":\"CAP_FOO\""
            )
        );
        assert_eq!(text.lines().count(), 1);
    }
}
