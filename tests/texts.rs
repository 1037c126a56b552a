//! What is printed without doing anything: help, versions, completion and manual pages, under whatever name.

#![allow(clippy::unwrap_used)]

mod common;

use common::program;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory in which the program has another name.
fn installed() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zones");
    std::os::unix::fs::symlink(program(), &path).unwrap();
    (directory, path)
}

#[track_caller]
fn prints(program: &Path, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn verbs(program: &Path) -> Vec<String> {
    let help = prints(program, &["--help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_verb_has_help_with_examples_by_the_name_it_is_called() {
    let (_directory, program) = installed();
    let verbs = verbs(&program);
    assert!(verbs.len() > 18, "{verbs:?}");
    for verb in verbs {
        let help = prints(&program, &[&verb, "--help"]);
        assert!(help.contains(&format!("Usage: zones {verb}")), "{help}");
        assert!(help.contains("Examples:\n") && help.contains(&format!("  zones {verb}")), "{help}");
        assert_eq!(help, prints(&program, &["help", &verb]));
    }
}

#[test]
fn bash_completes_it_under_another_name() {
    let (_directory, program) = installed();
    let script = prints(&program, &["completion", "bash"]);
    let ask = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let shell = format!(
            "{script}\nCOMP_WORDS=({line}); COMP_CWORD={}; _zones zones '{last}' '{before}'; echo ${{COMPREPLY[@]}}",
            words.len() - 1
        );
        let out = Command::new("bash").args(["--norc", "-c", &shell]).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ask("zones sta"), "state start");
    assert_eq!(ask("zones delete --fo"), "--force");
    assert!(ask("zones run --net").split(' ').any(|word| word == "--network"));
}

#[test]
fn zsh_and_fish_are_told_of_every_verb() {
    let (_directory, program) = installed();
    let (zsh, fish) = (prints(&program, &["completion", "zsh"]), prints(&program, &["completion", "fish"]));
    assert!(zsh.starts_with("#compdef zones\n"), "{zsh}");
    for verb in verbs(&program) {
        assert!(zsh.contains(&format!("'{verb}:")), "{verb}");
        assert!(fish.contains(&format!("-a \"{verb}\"")), "{verb}");
    }
    for (shell, script) in [("zsh", &zsh), ("fish", &fish)] {
        // Where the shell is there it must at least take it.
        if let Ok(out) = Command::new(shell).args(["-n", "-c", script]).output() {
            assert!(out.status.success(), "{shell}: {out:?}");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_each_verb() {
    let (directory, program) = installed();
    let pages = directory.path().join("man");
    prints(&program, &["man", pages.to_str().unwrap()]);
    let read = |name: String| {
        fs::read_to_string(pages.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(read("zones.1".into()).contains(".TH zones 1"));
    for verb in verbs(&program) {
        let page = read(format!("zones-{verb}.1"));
        assert!(page.contains(&format!(".TH zones-{verb} 1")) && page.contains("Examples:"), "{page}");
    }
}
