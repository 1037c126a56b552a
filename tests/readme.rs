//! The tour of README.md, every line of it.
//!
//! In a ```console block a line that begins with `$ ` is a command, and those below it are what it prints: `...`
//! stands for any text, and alone for any lines.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{Output, program, spawn};

/// A command of the tour, and the lines that follow it.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(document: &str) -> Vec<Step> {
    let blocks = document.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), expected: Vec::new() }),
            (None, Some(step)) => step.expected.push(line.to_owned()),
            (None, None) => panic!("{line:?} stands before any command"),
        }
    }
    steps
}

/// Whether `line` is `pattern`, in which `...` stands for any text.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether `lines` are as `patterns` say, among which `...` stands for any lines.
fn are_like(lines: &[&str], patterns: &[String]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((pattern, rest)) if pattern == "..." => {
            (0..=lines.len()).any(|skipped| are_like(&lines[skipped..], rest))
        }
        Some((pattern, rest)) => {
            lines.split_first().is_some_and(|(line, others)| is_like(line, pattern) && are_like(others, rest))
        }
    }
}

fn is_right(step: &Step, output: &Output) -> bool {
    let lines: Vec<_> = output.stdout.lines().map(str::trim_end).collect();
    are_like(&lines, &step.expected)
}

/// Where the tour takes place.
struct Tour(tempfile::TempDir);

impl Tour {
    fn new() -> Tour {
        let tour = Tour(tempfile::tempdir_in("/tmp").unwrap());
        for name in ["here", "bin"] {
            fs::create_dir(tour.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(program(), tour.path().join("bin/ctr")).unwrap();
        tour
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs one command, as a person's shell would. It may fail where the tour says what it then prints.
    fn run(&self, step: &Step) {
        let until = Instant::now() + Duration::from_secs(5);
        let mut output = self.output(step);
        // Nobody types so fast that a container has not written its log yet.
        while step.command.starts_with("ctr logs") && !is_right(step, &output) && Instant::now() < until {
            output = self.output(step);
        }
        assert!(is_right(step, &output), "$ {}\n{}", step.command, output.stdout);
        assert!(output.status == 0 || !step.expected.is_empty(), "$ {}\n{}", step.command, output.status);
    }

    fn output(&self, step: &Step) -> Output {
        spawn(self.path(), &mut self.shell(&step.command)).wait()
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let programs = format!("{}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap());
        shell.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(self.path().join("here"));
        shell.env("PATH", programs).env("LC_ALL", "C");
        shell.env("CTR_ROOT", self.path().join("state")).env("CTR_STORE", self.path().join("store"));
        shell
    }
}

impl Drop for Tour {
    /// What a tour that ended early left.
    fn drop(&mut self) {
        let _ = self.shell("for name in demo web; do ctr delete --force $name; done").output();
    }
}

/// README.md, "Five minutes".
#[test]
fn every_line_of_the_tour_does_what_it_says() {
    let steps = steps(&fs::read_to_string("README.md").unwrap());
    assert!(steps.len() > 12, "the tour has been found");
    let tour = Tour::new();
    for step in &steps {
        tour.run(step);
    }
}

#[test]
fn output_is_compared_by_patterns() {
    for (line, pattern, expected) in [
        ("web   1   running", "web...running", true),
        ("web", "web", true),
        ("web2", "web", false),
        ("a-b-c", "a...b...c", true),
        ("a-b-c", "a...x...c", false),
        ("x", "...", true),
    ] {
        assert_eq!(is_like(line, pattern), expected, "{line} {pattern}");
    }
    let patterns = ["a", "...", "d"].map(str::to_owned);
    assert!(are_like(&["a", "b", "c", "d"], &patterns) && are_like(&["a", "d"], &patterns));
    assert!(!are_like(&["a", "b"], &patterns));
}

#[test]
fn steps_are_found_in_a_document() {
    let step = |command: &str, expected: &[&str]| Step {
        command: command.to_owned(),
        expected: expected.iter().map(ToString::to_string).collect(),
    };
    let found =
        steps("text\n```console\n$ one\n1\n\n2\n$ two\n```\n```sh\n$ no\n```\n```console\n$ three\n```\n");
    assert_eq!(found, [step("one", &["1", "", "2"]), step("two", &[]), step("three", &[])]);
}
