//! `image`: one file for each kind of what is done with images.

mod archive;
mod login;
mod pull;
mod show;
mod store;

pub use pull::fetch;

use super::context::Context;
use crate::cli::image::{Image, Verb};
use anyhow::Result;

/// Does it; returns the exit status.
///
/// # Errors
/// What the person is to be told.
pub fn image(context: &Context, flags: &Image) -> Result<u8> {
    match &flags.verb {
        Verb::Pull(flags) => pull::pull(context, flags)?,
        Verb::Push(flags) => pull::push(context, flags)?,
        Verb::Save(flags) => archive::save(context, flags)?,
        Verb::Load(flags) => archive::load(context, flags)?,
        Verb::Import(flags) => archive::import(context, flags)?,
        Verb::Ls(flags) => show::ls(context, flags)?,
        Verb::Inspect(flags) => show::inspect(context, flags)?,
        Verb::History(flags) => show::history(context, flags)?,
        Verb::Tag(flags) => store::tag(context, flags)?,
        Verb::Rm(flags) => store::rm(context, flags)?,
        Verb::Prune(flags) => store::prune(context, flags)?,
        Verb::Fsck(flags) => return store::fsck(context, flags),
        Verb::Login(flags) => login::login(context, flags)?,
        Verb::Logout(flags) => login::logout(context, flags)?,
    }
    Ok(0)
}
