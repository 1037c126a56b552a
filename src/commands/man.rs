//! `man DIR`: the manual pages, generated from the flags themselves.

use std::io;

use crate::cli::{self, run::Man};

/// Writes one page for the program and one for each verb, such as `ctr-run.1`.
pub fn man(flags: &Man, program: &str) -> io::Result<()> {
    std::fs::create_dir_all(&flags.directory)?;
    clap_mangen::generate_to(cli::tree(program), &flags.directory)
}
