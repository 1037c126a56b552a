//! `image login` and `logout`.

use crate::cli::image::{Login, Logout};
use crate::commands::context::Context;
use crate::output;
use anyhow::{Context as _, Result, bail};
use ctr_images::registry::{self, Credentials};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};

/// No password is longer.
const LONGEST: u64 = 64 << 10;

/// `image login`.
pub(super) fn login(context: &Context, flags: &Login) -> Result<()> {
    let user = match &flags.username {
        Some(user) => user.clone(),
        None => ask("Username: ", true)?,
    };
    let password = match flags.password_stdin {
        true => {
            let text = ctr_isolation::sys::fs::read_to_end(std::io::stdin().lock(), LONGEST)?;
            let text = String::from_utf8(text).context("read the password from standard input")?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        false => ask("Password: ", false)?,
    };
    if user.is_empty() || password.is_empty() {
        bail!("name and password must not be empty");
    }
    let mut registries = context.settings.registries.clone();
    if flags.insecure {
        registries.insecure.push(flags.registry.clone());
    }
    let credentials = Credentials::Password { user, password };
    let file = registry::login(&flags.registry, &credentials, &registries, flags.authfile.as_deref())?;
    Ok(output::print(&format!("logged in; kept in {}\n", file.display()))?)
}

/// Asks on the terminal; what is typed is seen only with `shown`.
fn ask(question: &str, shown: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody can be asked here: use --username and --password-stdin");
    }
    write!(std::io::stderr(), "{question}")?;
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_flags.set(LocalFlags::ECHO, shown);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before)?;
    read?;
    if !shown {
        writeln!(std::io::stderr())?;
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// `image logout`.
pub(super) fn logout(_context: &Context, flags: &Logout) -> Result<()> {
    match registry::logout(&flags.registry, flags.authfile.as_deref())? {
        true => Ok(output::print(&format!("logged out of {}\n", flags.registry))?),
        false => bail!("nobody is logged in to {}", flags.registry),
    }
}
