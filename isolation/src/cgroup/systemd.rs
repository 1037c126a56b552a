//! Scopes of systemd: the cgroup of a container made by the one who manages the tree.
//!
//! Where systemd runs, a part of the tree is ours only if it gave it to us (`Delegate=`). It does so over D-Bus: we
//! ask for a transient scope around a process that exists already, and wait for the job. No thread and no event
//! loop, because a process with threads cannot clone as we need it: one socket, one question at a time.

mod message;
#[cfg(test)]
mod tests;

use crate::sys::process;
use crate::{Context, Error, Result};
use message::{Kind, Message, Writer};
pub use message::{Property, Value};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest we wait for one answer or one job.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing we are told is anywhere near as long.
const LONGEST: usize = 1 << 20;

/// Which systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The one that runs the host.
    System,
    /// The one that runs our user's session.
    User,
}

/// Makes the transient scope `unit` around the process `pid`, in `slice` (systemd's default when empty), and waits
/// until it is there. What is left of a failed scope of that name is cleared away.
///
/// The process is in its new cgroup then: `/proc/PID/cgroup` tells which.
///
/// # Errors
/// When systemd cannot be reached, refuses (a scope of that name is there, a property it does not know), or does not
/// finish within 30 s.
pub fn start_scope(
    bus: Bus,
    unit: &str,
    slice: &str,
    pid: i32,
    description: &str,
    properties: &[Property],
) -> Result<()> {
    let scope = |connection: &mut Connection| {
        let pid = u32::try_from(pid).map_err(|_| Error::new(format!("{pid} is no pid")))?;
        let mut all = vec![
            Property::new("Description", Value::String(description.into())),
            Property::new("PIDs", Value::U32s(vec![pid])),
        ];
        if !slice.is_empty() {
            all.push(Property::new("Slice", Value::String(slice.into())));
        }
        all.extend_from_slice(properties);
        connection.start_scope(unit, &all)
    };
    Connection::open(bus).and_then(|mut connection| scope(&mut connection)).doing(|| format!("start {unit}"))
}

/// Stops `unit` and waits until it is gone; that it is gone already is no error.
///
/// # Errors
/// When systemd cannot be reached, refuses, or does not finish within 30 s.
pub fn stop_unit(bus: Bus, unit: &str) -> Result<()> {
    Connection::open(bus)
        .and_then(|mut connection| connection.stop_unit(unit))
        .doing(|| format!("stop {unit}"))
}

/// Forgets that `unit` has failed, so that its name is free again; that nothing of it is left is no error.
///
/// # Errors
/// When systemd cannot be reached, refuses, or does not answer within 30 s.
pub fn reset_failed_unit(bus: Bus, unit: &str) -> Result<()> {
    Connection::open(bus)
        .and_then(|mut connection| connection.reset_failed_unit(unit))
        .doing(|| format!("reset {unit}"))
}

/// Changes `properties` of the running `unit`, until the next boot at most.
///
/// # Errors
/// When systemd cannot be reached, refuses, or does not answer within 30 s.
pub fn set_unit_properties(bus: Bus, unit: &str, properties: &[Property]) -> Result<()> {
    Connection::open(bus)
        .and_then(|mut connection| connection.set_unit_properties(unit, properties))
        .doing(|| format!("set the properties of {unit}"))
}

/// The version of the systemd at `bus`.
///
/// # Errors
/// When systemd cannot be reached, refuses, or does not answer within 30 s.
pub fn version(bus: Bus) -> Result<String> {
    Connection::open(bus)
        .and_then(|mut connection| connection.manager_property("Version"))
        .doing(|| "ask for its version")
}

/// Why a call was not answered as we wished.
#[derive(Debug)]
enum Refusal {
    /// By systemd, or the bus: the name of the error, and its text.
    Answer { name: String, text: String },
    /// By the way there.
    Failed(Error),
}

impl Refusal {
    fn is(&self, wanted: &str) -> bool {
        matches!(self, Refusal::Answer { name, .. } if name == wanted)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Failed(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Failed(error) => error,
            Refusal::Answer { name, text } if text.is_empty() => Error::new(name),
            Refusal::Answer { name, text } => Error::new(format!("{text} ({name})")),
        }
    }
}

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: Object = Object {
    name: SYSTEMD,
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: Object = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
const DAEMON: Object =
    Object { name: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Whom a call is for.
#[derive(Debug)]
struct Object {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
}

/// A way to systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// A bus daemon's socket.
    Daemon(PathBuf),
    /// The same, by a name of the abstract kind.
    Abstract(Vec<u8>),
    /// systemd's own socket, with nobody between.
    Direct(PathBuf),
}

/// The ways to `bus`, best first.
fn addresses(bus: Bus, variable: impl Fn(&str) -> Option<Vec<u8>>, root: bool) -> Vec<Address> {
    match bus {
        Bus::System => {
            let direct = root.then(|| Address::Direct("/run/systemd/private".into()));
            [Address::Daemon("/run/dbus/system_bus_socket".into())].into_iter().chain(direct).collect()
        }
        Bus::User => {
            let named = variable("DBUS_SESSION_BUS_ADDRESS").and_then(|text| parse_address(&text));
            let dir = variable("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(std::ffi::OsString::from_vec(dir)));
            let usual = dir.iter().flat_map(|dir| {
                [Address::Daemon(dir.join("bus")), Address::Direct(dir.join("systemd/private"))]
            });
            named.into_iter().chain(usual).collect()
        }
    }
}

/// The first Unix socket in a D-Bus address such as `unix:path=/run/user/1000/bus,guid=0123`.
fn parse_address(text: &[u8]) -> Option<Address> {
    let value = |options: &[u8], key: &[u8]| {
        options.split(|&c| c == b',').find_map(|option| option.strip_prefix(key).map(unescape))
    };
    text.split(|&c| c == b';').find_map(|one| {
        let options = one.strip_prefix(b"unix:")?;
        let path = value(options, b"path=").map(|path| std::ffi::OsString::from_vec(path).into());
        path.map(Address::Daemon).or_else(|| value(options, b"abstract=").map(Address::Abstract))
    })
}

/// Undoes the `%41` of D-Bus addresses.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.filter(|_| first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => (plain.push(byte), rest = &tail[2..]).1,
            None => (plain.push(first), rest = tail).1,
        }
    }
    plain
}

/// A conversation.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while we waited for an answer.
    signals: VecDeque<Message>,
    patience: Duration,
}

impl Connection {
    fn open(bus: Bus) -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).map(OsStringExt::into_vec);
        let addresses = addresses(bus, variable, process::effective_ids().0 == 0);
        let mut failure = Error::new("neither $DBUS_SESSION_BUS_ADDRESS nor $XDG_RUNTIME_DIR is set");
        for address in &addresses {
            match dial(address) {
                Ok(stream) => {
                    return Connection::begin(stream, !matches!(address, Address::Direct(_)), PATIENCE);
                }
                Err(error) => failure = error,
            }
        }
        let which = if bus == Bus::System { "the host's" } else { "the user's" };
        Err(failure).doing(|| format!("reach {which} systemd"))
    }

    /// Introduces us over a connected socket; `daemon` says whether a bus daemon is at the other end.
    fn begin(stream: UnixStream, daemon: bool, patience: Duration) -> Result<Self> {
        let mut connection = Connection { stream, serial: 0, signals: VecDeque::new(), patience };
        connection.authenticate()?;
        if daemon {
            connection.call(&DAEMON, "Hello", "", Writer::new())?;
            let mut rule = Writer::new();
            rule.string(
                "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved',\
                 path='/org/freedesktop/systemd1'",
            );
            connection.call(&DAEMON, "AddMatch", "s", rule)?;
            connection.call(&MANAGER, "Subscribe", "", Writer::new())?;
        }
        Ok(connection)
    }

    /// Names no user: the other end takes the one the kernel vouches for. A user namespace would make any other
    /// answer a lie, because the ids there are not those of the bus.
    fn authenticate(&mut self) -> Result<()> {
        let until = Instant::now() + self.patience;
        self.write(b"\0AUTH EXTERNAL\r\n", until, "authentication")?;
        let mut answer = self.line(until)?;
        if answer.starts_with("DATA") {
            self.write(b"DATA\r\n", until, "authentication")?;
            answer = self.line(until)?;
        }
        if !answer.starts_with("OK ") {
            return Err(Error::new(format!("the bus does not accept who we are: {answer:?}")));
        }
        self.write(b"BEGIN\r\n", until, "authentication")
    }

    fn line(&mut self, until: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 1024 {
                return Err(Error::new("what answers is no D-Bus"));
            }
            let mut byte = [0];
            self.read(&mut byte, until, "authentication")?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn write(&mut self, bytes: &[u8], until: Instant, wait: &str) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = remaining(until, self.patience, wait)?;
            self.stream.set_write_timeout(Some(left)).doing(|| "limit the wait")?;
            match self.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).doing(|| format!("send for {wait}")),
            }
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8], until: Instant, wait: &str) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let left = remaining(until, self.patience, wait)?;
            self.stream.set_read_timeout(Some(left)).doing(|| "limit the wait")?;
            match self.stream.read(&mut bytes[done..]) {
                Ok(0) => return Err(Error::new(format!("the connection was closed during {wait}"))),
                Ok(more) => done += more,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).doing(|| format!("wait for {wait}")),
            }
        }
        Ok(())
    }

    fn receive(&mut self, until: Instant, wait: &str) -> Result<Message> {
        let mut bytes = vec![0; 16];
        self.read(&mut bytes, until, wait)?;
        let length = Message::length(&bytes)?;
        if length > LONGEST {
            return Err(Error::new(format!("a message of {length} bytes")));
        }
        bytes.resize(length, 0);
        self.read(&mut bytes[16..], until, wait)?;
        Message::parse(&bytes)
    }

    /// Calls a method and waits for its answer.
    fn call(
        &mut self,
        to: &Object,
        method: &str,
        signature: &str,
        body: Writer,
    ) -> std::result::Result<Message, Refusal> {
        let until = Instant::now() + self.patience;
        let wait = format!("the answer to {method}");
        self.serial += 1;
        let call = message::call(self.serial, to.name, to.path, to.interface, method, signature, &body);
        self.write(&call, until, &wait)?;
        loop {
            let message = self.receive(until, &wait)?;
            match message.kind {
                Kind::Return if message.reply_to == self.serial => return Ok(message),
                Kind::Error if message.reply_to == self.serial => {
                    let text = if message.signature.starts_with('s') { message.body().string()? } else { "" };
                    return Err(Refusal::Answer { text: text.to_owned(), name: message.name });
                }
                Kind::Signal => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits until the job that `answer` names has ended.
    fn await_job(&mut self, answer: &Message, doing: &str, unit: &str) -> Result<()> {
        let job = answer.body().string()?.to_owned();
        let until = Instant::now() + self.patience;
        let wait = format!("systemd to {doing} {unit}");
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(until, &wait)?,
            };
            if message.name != "JobRemoved" || message.signature != "uoss" {
                continue;
            }
            let mut body = message.body();
            let (_id, path, _unit, result) = (body.u32()?, body.string()?, body.string()?, body.string()?);
            if path != job {
                continue;
            }
            return match result {
                "done" => Ok(()),
                _ => Err(Error::new(format!("systemd's job to {doing} {unit} ended as {result:?}"))),
            };
        }
    }

    fn start_scope(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let answer = match self.start_transient_unit(unit, properties) {
            Err(refusal) if refusal.is(UNIT_EXISTS) => {
                self.reset_failed_unit(unit)?;
                self.start_transient_unit(unit, properties)?
            }
            other => other?,
        };
        self.await_job(&answer, "start", unit)
    }

    fn start_transient_unit(
        &mut self,
        unit: &str,
        properties: &[Property],
    ) -> std::result::Result<Message, Refusal> {
        let mut body = Writer::new();
        body.string(unit);
        body.string("fail");
        body.properties(properties);
        body.array(8, |_no_other_units| {});
        self.call(&MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
    }

    fn stop_unit(&mut self, unit: &str) -> Result<()> {
        let mut body = Writer::new();
        body.string(unit);
        body.string("replace");
        match self.call(&MANAGER, "StopUnit", "ss", body) {
            Err(refusal) if refusal.is(NO_SUCH_UNIT) => Ok(()),
            other => self.await_job(&other?, "stop", unit),
        }
    }

    fn reset_failed_unit(&mut self, unit: &str) -> Result<()> {
        let mut body = Writer::new();
        body.string(unit);
        match self.call(&MANAGER, "ResetFailedUnit", "s", body) {
            Err(refusal) if !refusal.is(NO_SUCH_UNIT) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// A property of systemd itself that is a string.
    fn manager_property(&mut self, name: &str) -> Result<String> {
        let mut body = Writer::new();
        body.string(MANAGER.interface);
        body.string(name);
        let answer = self.call(&PROPERTIES, "Get", "ss", body)?;
        let mut body = answer.body();
        match body.signature()? {
            "s" => Ok(body.string()?.to_owned()),
            other => Err(Error::new(format!("{name} has the type {other:?}"))),
        }
    }

    fn set_unit_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let mut body = Writer::new();
        body.string(unit);
        body.bool(true);
        body.properties(properties);
        Ok(self.call(&MANAGER, "SetUnitProperties", "sba(sv)", body).map(drop)?)
    }
}

/// What is left until `until`; an error that says what was waited for when nothing is.
fn remaining(until: Instant, patience: Duration, wait: &str) -> Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::new(format!("no end after {} s of waiting for {wait}", patience.as_secs_f32())));
    }
    Ok(left.max(Duration::from_micros(1)))
}

/// Connects; a full queue at the other end is waited for, not for ever.
fn dial(address: &Address) -> Result<UnixStream> {
    let failed = |call: String| move |errno: nix::Error| Error::call(call, errno as i32);
    let named = |path: &Path| {
        UnixAddr::new(path)
            .map(|at| (at, format!("connect({path:?})")))
            .map_err(failed(format!("the socket {path:?}")))
    };
    let (at, call) = match address {
        Address::Daemon(path) | Address::Direct(path) => named(path)?,
        Address::Abstract(name) => {
            let shown = format!("connect(@{})", String::from_utf8_lossy(name));
            (UnixAddr::new_abstract(name).map_err(failed(shown.clone()))?, shown)
        }
    };
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("socket(AF_UNIX)".into()))?;
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(PATIENCE.as_secs() as i64, 0))
        .map_err(failed("setsockopt(SO_SNDTIMEO)".into()))?;
    connect(socket.as_raw_fd(), &at).map_err(failed(call))?;
    Ok(socket.into())
}
