//! `completion SHELL`: a completion script, generated from the flags themselves.

use std::io;

use crate::cli::{self, run::Completion};

/// Writes the script for `program` to `out`.
pub fn completion(flags: &Completion, program: &str, out: &mut dyn io::Write) -> io::Result<()> {
    clap_complete::generate(flags.shell, &mut cli::tree(program), program, out);
    out.flush()
}
