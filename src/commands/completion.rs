//! `completion SHELL`: a completion script, generated from the flags themselves.

use std::io;

use crate::cli::{self, run::Completion};

/// Writes the script for `program` to `out`.
pub fn completion(flags: &Completion, program: &str, out: &mut dyn io::Write) -> io::Result<()> {
    // It ends the program where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(flags.shell, &mut cli::tree(program), program, &mut text);
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
