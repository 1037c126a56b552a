//! Containers for tests: a program run within limits, and what it did and used.
//!
//! ```no_run
//! use ctr::container::Container;
//!
//! let outcome = Container::host().memory("64M").pids(32).run(["./my-test"])?;
//! assert!(outcome.verdict.passed(), "{outcome:?}");
//! assert!(outcome.peaks.memory.is_some_and(|bytes| bytes < 48 << 20));
//! # std::io::Result::Ok(())
//! ```
//!
//! It finds and runs the program `ctr` (`CTR_BIN`, or on `PATH`), and so is safe in a test program with threads: nothing
//! of the calling process is forked or changed. What it needs of the machine, `ctr doctor` tells.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::report::Report;

/// A container that is yet to be: from what, and within which limits. Each [`Container::run`] makes a new one.
#[derive(Clone, Debug)]
pub struct Container {
    program: OsString,
    flags: Vec<OsString>,
}

/// What came of a program.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit status as a shell has it: 128 and the number of the signal that ended it; 124 when its time was over;
    /// 125 to 127 when it never began.
    pub status: i32,
    /// The most that it used at one time.
    pub peaks: Peaks,
    /// Processes that the kernel killed for want of memory; none where nobody has counted.
    pub oom_kills: Option<u64>,
    /// How long it was kept from running by its limit of processors; none where nobody has counted.
    pub throttled: Option<Duration>,
    /// Whether all was as expected.
    pub verdict: Verdict,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it and `ctr` wrote on standard error.
    pub stderr: Vec<u8>,
    /// All that `ctr` reported.
    pub report: Report,
}

/// The most that was used at one time; none where nobody has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of swap.
    pub swap: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Whether all was as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The program ended with status 0, in time, and whatever was expected is so.
    Passed,
    /// What is not so.
    Failed(Vec<String>),
}

impl Verdict {
    /// Whether it passed.
    pub fn passed(&self) -> bool {
        *self == Verdict::Passed
    }
}

impl Container {
    /// From the image `host`: this machine's own userland, with the current directory at its own path.
    pub fn host() -> Container {
        Container::from("--image", OsStr::new("host"))
    }

    /// From the root file system in `directory`.
    pub fn rootfs(directory: impl AsRef<Path>) -> Container {
        Container::from("--rootfs", directory.as_ref().as_os_str())
    }

    fn from(flag: &str, source: &OsStr) -> Container {
        let program = std::env::var_os("CTR_BIN").unwrap_or_else(|| "ctr".into());
        Container { program, flags: vec!["run".into(), "--rm".into(), flag.into(), source.to_owned()] }
    }

    /// The most memory, as `64M`.
    #[must_use]
    pub fn memory(self, size: &str) -> Container {
        self.flag("--memory", size)
    }

    /// The most swap besides, as `0`.
    #[must_use]
    pub fn swap(self, size: &str) -> Container {
        self.flag("--swap", size)
    }

    /// The most processes and threads.
    #[must_use]
    pub fn pids(self, count: u32) -> Container {
        self.flag("--pids", count.to_string())
    }

    /// How many processors' time, as 0.5.
    #[must_use]
    pub fn cpus(self, number: f64) -> Container {
        self.flag("--cpus", number.to_string())
    }

    /// How long it may run.
    #[must_use]
    pub fn timeout(self, time: Duration) -> Container {
        self.flag("--timeout", format!("{}ms", time.as_millis().max(1)))
    }

    /// What must be so in the end, as `memory.peak<48M`: see `ctr run --help`.
    #[must_use]
    pub fn expect(self, expectation: &str) -> Container {
        self.flag("--expect", expectation)
    }

    /// Any other flag of `ctr run`, as `--volume` with `./data:/data`.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl AsRef<OsStr>) -> Container {
        let mut flag = OsString::from(name);
        flag.push("=");
        flag.push(value);
        self.flags.push(flag);
        self
    }

    /// Runs `command`, the program and its arguments, and waits for its end. It has no standard input.
    ///
    /// # Errors
    /// When `ctr` cannot be run, or ended without a report.
    pub fn run<T: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = T>) -> io::Result<Outcome> {
        let place = Place::new()?;
        let mut ctr = Command::new(&self.program);
        ctr.args(&self.flags).arg("--report").arg(&place.0).arg("--").args(command).stdin(Stdio::null());
        let output = ctr.output().map_err(|error| {
            let program = self.program.display();
            io::Error::new(error.kind(), format!("run {program} (set CTR_BIN to where it is): {error}"))
        })?;
        let text = std::fs::read(&place.0)?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let report: Report = serde_json::from_slice(&text).map_err(|_| {
            io::Error::other(format!("{} made no report: {}", self.program.display(), said()))
        })?;
        let status = output.status.code().unwrap_or(-1);
        Ok(Outcome {
            status,
            peaks: Peaks { memory: report.memory_peak, swap: report.swap_peak, pids: report.pids_peak },
            oom_kills: report.oom_kills,
            throttled: report.throttled_seconds.map(Duration::from_secs_f64),
            verdict: if report.passed { Verdict::Passed } else { Verdict::Failed(report.reasons()) },
            stdout: output.stdout,
            stderr: output.stderr,
            report,
        })
    }

    /// The program that is run, for those who have it elsewhere.
    #[must_use]
    pub fn program(mut self, path: impl AsRef<OsStr>) -> Container {
        self.program = path.as_ref().to_owned();
        self
    }
}

/// A file for the report, which nobody else can have made, removed in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> io::Result<Place> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("ctr-report-{}-{number}", std::process::id()));
            let made: io::Result<File> =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|_| Place(path)),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
