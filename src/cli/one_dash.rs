//! Flags as Go's parser takes them.
//!
//! runc's flag parser takes `-no-subreaper` for `--no-subreaper`, and callers have come to write it so; to
//! clap it is a cluster of short flags. And it takes `--detach=true`, and `--detach=false` for nothing.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use clap::{Arg, Command};

/// Gives a second dash to each long flag of `command` in `line` that has but one, and takes the truth value from those
/// that have no other.
///
/// `line[0]` is the command's own name. The payload's arguments are left alone.
pub(super) fn lengthen(command: &Command, mut line: Vec<OsString>) -> Vec<OsString> {
    let mut operands = 0;
    let mut at = 1;
    while at < line.len() && !is_payload(command, operands) && line[at] != "--" {
        let word = line[at].as_bytes();
        if !word.starts_with(b"-") || word == b"-" {
            operands += 1;
        } else {
            if !word.starts_with(b"--") && long(command, &word[1..]).is_some() {
                line[at] = [OsStr::new("-"), &line[at]].into_iter().collect();
            }
            match switch(command, line[at].as_bytes()) {
                Some((name, true)) => line[at] = name,
                Some((_, false)) => {
                    line.remove(at);
                    continue;
                }
                // The value of a flag is not a flag, whatever it looks like.
                None => at += usize::from(takes_next(command, line[at].as_bytes())),
            }
        }
        at += 1;
    }
    line
}

/// What `--name=true` or `--name=false` says, where the flag takes no value.
fn switch(command: &Command, word: &[u8]) -> Option<(OsString, bool)> {
    let equals = word.iter().position(|byte| *byte == b'=')?;
    let name = word[..equals].strip_prefix(b"--")?;
    let value = super::global::truth(std::str::from_utf8(&word[equals + 1..]).ok()?)?;
    long(command, name).filter(|arg| !takes_value(arg))?;
    Some((OsStr::from_bytes(&word[..equals]).to_owned(), value))
}

/// Whether all that follows so many operands belongs to the payload, or to the verb.
fn is_payload(command: &Command, operands: usize) -> bool {
    let trailing = command.get_positionals().position(Arg::is_trailing_var_arg_set);
    let verb = command.is_allow_external_subcommands_set() || command.has_subcommands();
    trailing.or(verb.then_some(1)).is_some_and(|first| operands >= first)
}

/// Whether `flag` (`--name`, `--name=value`, `-x`, `-xvalue` or a cluster) has its value in the next word.
fn takes_next(command: &Command, flag: &[u8]) -> bool {
    if let Some(name) = flag.strip_prefix(b"--") {
        return !name.contains(&b'=') && long(command, name).is_some_and(takes_value);
    }
    let cluster = &flag[1..];
    let valued = cluster.iter().position(|letter| short(command, *letter).is_some_and(takes_value));
    valued.is_some_and(|at| at + 1 == cluster.len())
}

fn long<'a>(command: &'a Command, text: &[u8]) -> Option<&'a Arg> {
    let name = text.split(|byte| *byte == b'=').next()?;
    let is_name = |arg: &&Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long().into_iter().chain(aliases).any(|long| long.as_bytes() == name)
    };
    command.get_arguments().find(is_name)
}

fn short(command: &Command, letter: u8) -> Option<&Arg> {
    let is_letter = |arg: &&Arg| {
        let aliases = arg.get_all_short_aliases().unwrap_or_default();
        arg.get_short().into_iter().chain(aliases).any(|short| short == char::from(letter))
    };
    command.get_arguments().find(is_letter)
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}
