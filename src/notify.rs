//! systemd's notification socket (sd_notify(3)), passed on as runc does.
//!
//! The container gets a socket of ours at /run/notify/notify.sock. Whoever stays with it (`run`, `run --detach` and
//! `start` until it is ready) hears `READY=`, tells the host's socket, and which process is the main one.

use anyhow::{Context as _, Result};
use ctr_isolation::sys::fs::{self, fd_path};
use ctr_isolation::sys::{process, socket};
use ctr_runtime::container::{self, NOTIFY_SOCKET};
use ctr_runtime::state::file;
use oci_spec::runtime::{Mount, MountBuilder, Process, Spec};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// Where the container finds it.
const INSIDE: &str = "/run/notify";

/// How long systemd may take to say that it has read all (sd_notify_barrier(3)).
const BARRIER: Duration = Duration::from_secs(30);

/// The host's socket, if the caller has one.
pub fn host() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|value| !value.is_empty())
}

/// Gives the container of `spec`, whose directory is `directory`, the socket and its name.
///
/// # Errors
/// None in practice: all parts are there.
pub fn configure(spec: &mut Spec, directory: &Path) -> Result<()> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mount: Mount = MountBuilder::default()
        .destination(INSIDE)
        .typ("bind")
        .source(directory.join(file::NOTIFY))
        .options(options)
        .build()?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        add_variable(process);
    }
    Ok(())
}

fn add_variable(process: &mut Process) {
    let mut env = process.env().clone().unwrap_or_default();
    env.push(format!("NOTIFY_SOCKET={INSIDE}/{NOTIFY_SOCKET}"));
    process.set_env(Some(env));
}

/// The socket of a container, heard for the host's.
#[derive(Debug)]
pub struct Notify {
    ours: UnixDatagram,
    host: OsString,
}

impl Notify {
    /// One for a container that is made and started at once; [`Notify::for_container`] is its place there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(host: OsString) -> Result<Self> {
        let ours = UnixDatagram::unbound()?;
        ours.set_nonblocking(true)?;
        Ok(Notify { ours, host })
    }

    /// What the maker of the container is to know.
    ///
    /// # Errors
    /// The kernel's.
    pub fn for_container(&self) -> Result<container::Notify> {
        Ok(container::Notify::Now(self.ours.as_fd().try_clone_to_owned()?))
    }

    /// One in the `directory` of a container that was made to have one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(host: OsString, directory: &Path) -> Result<Option<Self>> {
        let Ok(dir) = fs::open(&directory.join(file::NOTIFY), fs::O_DIRECTORY) else { return Ok(None) };
        // That of a start that failed.
        let _ = std::fs::remove_file(fd_path(dir.as_fd()).join(NOTIFY_SOCKET));
        let notify = Notify::new(host)?;
        container::bind_notify(dir.as_fd(), notify.as_fd())?;
        Ok(Some(notify))
    }

    /// Reads what was said; true when it was that the program is ready, which the host has been told then: with `main`
    /// for its main process.
    ///
    /// # Errors
    /// When the host's socket cannot be reached.
    pub fn hear(&self, main: i32) -> Result<bool> {
        let mut text = [0; 4096];
        while let Ok(count) = self.ours.recv(&mut text) {
            let ready = text[..count].split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="));
            if let Some(ready) = ready {
                self.tell(ready, main)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the program is ready, or has ended.
    ///
    /// # Errors
    /// As [`Notify::hear`].
    pub fn wait(&self, process: BorrowedFd<'_>, main: i32) -> Result<()> {
        loop {
            let ready = process::poll(&[process, self.as_fd()], None)?.unwrap_or_default();
            if self.hear(main)? || ready.first() == Some(&true) {
                return Ok(());
            }
        }
    }

    fn tell(&self, ready: &[u8], main: i32) -> Result<()> {
        let what = || format!("tell NOTIFY_SOCKET={}", self.host.display());
        let told = || -> io::Result<()> {
            let host = UnixDatagram::unbound()?;
            match self.host.as_bytes() {
                [b'@', name @ ..] => host.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
                _ => host.connect(&self.host)?,
            }
            host.send(&[ready, b"\n"].concat())?;
            host.send(format!("MAINPID={main}\n").as_bytes())?;
            barrier(host.as_fd()).map_err(io::Error::other)
        };
        told().with_context(what)
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

/// Waits until systemd has read what came before: it then closes the pipe that it is sent.
fn barrier(host: BorrowedFd<'_>) -> Result<()> {
    let (read, write): (OwnedFd, OwnedFd) = fs::pipe()?;
    socket::send(host, b"BARRIER=1", &[write.as_fd()])?;
    drop(write);
    if process::poll(&[read.as_fd()], Some(BARRIER))?.is_none() {
        tracing::warn!("NOTIFY_SOCKET: no answer to BARRIER=1 within {} s", BARRIER.as_secs());
    }
    Ok(())
}
