//! What people and programs read: tables, JSON, errors with a hint.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ctr_isolation::error::reason;
use serde::Serialize;

/// Writes `rows` below `header` in columns, as runc does: at least twelve wide, three blanks between.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let cells = || std::iter::once(header).chain(rows.iter().map(|row| row.each_ref().map(String::as_str)));
    let widths: [usize; N] = std::array::from_fn(|column| {
        cells().map(|row| row[column].chars().count() + 3).max().unwrap_or_default().max(12)
    });
    let mut text = String::new();
    for row in cells() {
        for (cell, width) in row[..N - 1].iter().zip(widths) {
            text += &format!("{cell:<width$}");
        }
        text += row[N - 1];
        text.push('\n');
    }
    printable(&text).into_owned()
}

/// `text` as it can be printed: what programs and files have said in it does nothing to a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\t');
    if text.chars().all(is_plain) {
        return text.into();
    }
    let letter = |letter: char| match is_plain(letter) {
        true => letter.to_string(),
        false => letter.escape_default().to_string(),
    };
    text.chars().map(letter).collect::<String>().into()
}

/// Writes `value` as JSON, indented, on standard output.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// The same in one line.
pub fn json_line(value: &impl Serialize) -> io::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Writes `text` on standard output. That nobody reads on (`ctr list | head -1`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    print_on(text).map(drop)
}

/// The same for those who have more to say: false when nobody reads on.
pub fn print_on(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// A file that is made now and put in its place when it is whole, so that nobody finds half of it. What is there already
/// must be a file: a link would lead to another's, and a pipe be waited for.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    new: PathBuf,
    file: Option<File>,
}

impl Output {
    /// Makes it beside `path`.
    ///
    /// # Errors
    /// When it cannot be made, or something else than a file is at `path`.
    pub fn new(path: &Path) -> Result<Output> {
        if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            bail!("{} exists and is no regular file", path.display());
        }
        let Some(name) = path.file_name() else { bail!("{} is not the name of a file", path.display()) };
        let new = path.with_file_name(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
        let made = File::options().write(true).create_new(true).open(&new);
        let file = made.with_context(|| format!("make {}", path.display()))?;
        Ok(Output { path: path.to_owned(), new, file: Some(file) })
    }

    /// Writes it whole.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(mut self, text: &str) -> Result<()> {
        let written = self.file.take().map_or(Ok(()), |mut file| file.write_all(text.as_bytes()));
        let what = || format!("write {}", self.path.display());
        written.and_then(|()| std::fs::rename(&self.new, &self.path)).with_context(what)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // It is in its place, or of no use.
        let _ = std::fs::remove_file(&self.new);
    }
}

/// The whole chain of causes on one line, outermost first: `make container "web": mount proc: EPERM`.
///
/// A cause that the text before already ends with is not said twice. The kernel's reasons are in lower case wherever
/// they come from, as callers look for them.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = match cause.downcast_ref::<nix::errno::Errno>() {
            Some(errno) => reason(*errno as i32),
            None => as_reason(cause.to_string()),
        };
        let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What std words `No space left on device (os error 28)`, at the end of `text`, in the kernel's and our way.
fn as_reason(text: String) -> String {
    let number = text.rsplit_once(" (os error ").and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok());
    let Some(number) = number else { return text };
    let words = io::Error::from_raw_os_error(number).to_string();
    text.strip_suffix(&words).map_or_else(|| text.clone(), |before| format!("{before}{}", reason(number)))
}

/// Writes an error on standard error, and below it what the user can do.
pub fn print_error(error: &anyhow::Error, hint: Option<&str>) {
    let mut out = io::stderr().lock();
    let text = error_text(error, hint, is_coloured(&out));
    // There is nowhere left to complain of standard error to.
    let _ = out.write_all(text.as_bytes());
}

fn error_text(error: &anyhow::Error, hint: Option<&str>, coloured: bool) -> String {
    let mut text = format!("{} {}\n", paint("error:", RED, coloured), printable(&chain(error)));
    if let Some(hint) = hint {
        text += &format!("{} {}\n", paint("hint:", CYAN, coloured), printable(hint));
    }
    text
}

/// Whether `out` is read by a person who has not asked to be spared colours.
pub fn is_coloured(out: &impl IsTerminal) -> bool {
    out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The colours in use: bold red, green, yellow and cyan.
pub(crate) const RED: u8 = 31;
pub(crate) const GREEN: u8 = 32;
pub(crate) const YELLOW: u8 = 33;
pub(crate) const CYAN: u8 = 36;

/// `text`, in bold and in colour if that is wanted.
pub(crate) fn paint(text: &str, colour: u8, coloured: bool) -> String {
    if coloured { format!("\x1b[1;{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_table_is_laid_out_as_runc_lays_it_out() {
        let row = ["a-rather-long-name", "1", "end"].map(str::to_owned);
        let expected = "ID                   PID         STATUS\na-rather-long-name   1           end\n";
        assert_eq!(table(["ID", "PID", "STATUS"], &[row]), expected);
        assert_eq!(table(["ID", "PID"], &[]), "ID          PID\n");
    }

    #[test]
    fn an_error_is_one_line_and_a_hint() {
        let error =
            anyhow!("EPERM (Operation\n not permitted)").context("mount proc").context("make \"web\"");
        assert_eq!(
            error_text(&error, Some("ask root"), false),
            "error: make \"web\": mount proc: EPERM (Operation not permitted)\nhint: ask root\n"
        );
        assert!(error_text(&error, None, true).starts_with("\x1b[1;31merror:\x1b[0m make"));
    }

    /// A hook's words, a file's name: whatever they hold, nothing of it moves the cursor, or worse.
    #[test]
    fn what_others_said_does_nothing_to_a_terminal() {
        let hostile = "hook: \x1b]0;owned\x07\x1b[2J\u{9b}31m ok\tä";
        let text = error_text(&anyhow!(hostile), Some(hostile), false);
        assert!(!text.contains(['\x1b', '\x07', '\u{9b}']) && text.contains("\\u{1b}[2J"), "{text}");
        assert!(table(["A", "B"], &[[hostile.to_owned(), "ä".to_owned()]]).contains("\\u{1b}]0;owned"));
        assert_eq!(printable("a\tä\n"), "a\tä\n");
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        assert_eq!(chain(&anyhow!("no such file").context("read x: no such file")), "read x: no such file");
    }

    #[test]
    fn the_kernel_s_reasons_are_worded_alike() {
        let full = [anyhow!(io::Error::from_raw_os_error(libc::ENOSPC)), anyhow!(nix::errno::Errno::ENOSPC)];
        for error in full {
            assert_eq!(chain(&error.context("write x")), "write x: no space left on device");
        }
        let within = anyhow!("make /x: {}", io::Error::from_raw_os_error(libc::ENOTDIR));
        assert_eq!(chain(&within), "make /x: not a directory");
        assert_eq!(chain(&anyhow!("odd (os error 5)")), "odd (os error 5)");
    }
}
