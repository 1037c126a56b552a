//! A test of what a program needs, by the library.
//!
//! It needs `ctr` (`CTR_BIN`, or on `PATH`) and a machine that counts: `ctr doctor` tells. From a clone:
//!
//!     cargo build --release
//!     CTR_BIN=target/release/ctr cargo run --example resource_test
//!
//! As an ordinary user in a session of systemd this prints, for instance:
//!
//!     status 0, peak 25.9 MiB of memory and 2 processes, 0 killed, throttled for 0.000 s: Passed
//!     with 16 MiB: status 137, 1 killed: Failed(["it ended with status 137", "expected no-oom, found 1"])

use std::io;
use std::time::Duration;

use ctr::container::Container;

fn main() -> io::Result<()> {
    // A program that takes 24 MiB; a test would name its own, which is found since the current directory is shown inside.
    let command = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=24M count=1 2>/dev/null; exit $?"];
    let enough =
        Container::host().memory("64M").swap("0").pids(32).cpus(1.0).timeout(Duration::from_secs(30));
    let outcome = enough.expect("memory.peak<48M,pids.peak<20,no-oom").run(command)?;
    let peak = outcome.peaks.memory.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20));
    println!(
        "status {}, peak {peak:.1} MiB of memory and {} processes, {} killed, throttled for {:.3} s: {:?}",
        outcome.status,
        outcome.peaks.pids.unwrap_or_default(),
        outcome.oom_kills.unwrap_or_default(),
        outcome.throttled.unwrap_or_default().as_secs_f64(),
        outcome.verdict
    );

    let little = Container::host().memory("16M").swap("0").expect("no-oom").run(command)?;
    let killed = little.oom_kills.unwrap_or_default();
    println!("with 16 MiB: status {}, {killed} killed: {:?}", little.status, little.verdict);
    Ok(())
}
