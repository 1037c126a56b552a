//! `fit`: the least memory and the fewest processes that a command does with.

use crate::cli::limits::Fit;
use crate::container::{Container, Outcome};
use crate::output;
use crate::size::short as bytes;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Memory is limited in pages.
const PAGE: u64 = 4096;

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    command: Vec<String>,
    /// The least memory it passes with, in bytes.
    memory: u64,
    /// The fewest processes and threads.
    pids: u64,
    /// What it used when nobody limited it.
    peak: Peak,
    /// How often it was run.
    runs: u32,
}

#[derive(Debug, Serialize)]
struct Peak {
    memory: u64,
    pids: u64,
}

/// Runs the command again and again, and prints the least limits it passes with.
///
/// # Errors
/// When it does not pass without limits, or nobody here counts what it uses.
pub fn fit(flags: &Fit) -> Result<()> {
    let mut search = Search { flags, runs: 0 };
    search.say("without limits");
    let mut free = search.run(None, None)?;
    // systemd removes a scope as soon as it is empty, now and then before anybody could read what it has counted.
    for _ in 0..4 {
        if !free.verdict.passed() || free.peaks.memory.is_some() {
            break;
        }
        free = search.run(None, None)?;
    }
    if !free.verdict.passed() {
        bail!(
            "the command does not pass without limits: {}{}",
            free.report.reasons().join("; "),
            last_words(&String::from_utf8_lossy(&free.stderr))
        );
    }
    let (Some(memory), Some(pids)) = (free.peaks.memory, free.peaks.pids) else {
        bail!("nobody here counts memory and processes: `ctr doctor` tells which controllers are missing");
    };
    let least = search.memory(memory)?;
    let fewest = search.pids(least, pids)?;
    let least = search.confirmed(least, fewest)?;
    search.done();
    let found = Found {
        command: flags.command.clone(),
        memory: least,
        pids: fewest,
        peak: Peak { memory, pids },
        runs: search.runs,
    };
    if flags.json {
        return Ok(output::json(&found)?);
    }
    let text = format!(
        "memory  {} ({least} bytes); unlimited it used {}\npids    {fewest}; unlimited it had {pids}\n\n\
         --memory {least} --swap 0 --pids {fewest}\n",
        bytes(least),
        bytes(memory)
    );
    Ok(output::print(&text)?)
}

/// The last lines that the command wrote, as much as belongs into an error.
fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last: Vec<String> =
        lines.iter().rev().take(3).rev().map(|line| line.chars().take(200).collect()).collect();
    if last.is_empty() { String::new() } else { format!("; its last words: {:?}", last.join(" / ")) }
}

struct Search<'a> {
    flags: &'a Fit,
    runs: u32,
}

impl Search<'_> {
    fn run(&mut self, memory: Option<u64>, pids: Option<u64>) -> Result<Outcome> {
        let program = std::env::current_exe().context("find this program")?;
        let source = match &self.flags.rootfs {
            Some(directory) => Container::rootfs(directory),
            None => Container::host(),
        };
        let mut container = source.program(program).timeout(self.flags.timeout);
        for volume in &self.flags.volume {
            container = container.flag("--volume", volume);
        }
        for variable in &self.flags.env {
            container = container.flag("--env", variable);
        }
        if let Some(memory) = memory {
            // Without a limit of memory, version 1 has none of swap.
            container = container.memory(&memory.to_string()).swap("0");
        }
        if let Some(pids) = pids {
            container = container.pids(u32::try_from(pids).unwrap_or(u32::MAX));
        }
        self.runs += 1;
        container.run(&self.flags.command).context("run the command in a container")
    }

    /// Whether it passes each time.
    fn passes(&mut self, memory: u64, pids: Option<u64>) -> Result<bool> {
        for _ in 0..self.flags.tries {
            let limits =
                pids.map_or_else(|| bytes(memory), |pids| format!("{} and {pids} processes", bytes(memory)));
            self.say(&format!("with {limits}"));
            if !self.run(Some(memory), pids)?.verdict.passed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Halves what is between too little and enough, until that is less than the wanted part of enough.
    fn memory(&mut self, peak: u64) -> Result<u64> {
        let mut enough = peak.next_multiple_of(PAGE);
        // Kept apart by what the peak does not count, like the kernel's own of the moment in which it is limited.
        while !self.passes(enough, None)? {
            if enough > peak.saturating_mul(4) {
                bail!(
                    "the command passes without limits, but not with {}: it may not be the same each time",
                    bytes(enough)
                );
            }
            enough = (enough + enough / 4).next_multiple_of(PAGE);
        }
        let mut too_little = 0;
        while enough - too_little > (enough / 50).max(PAGE) {
            let middle = (too_little + (enough - too_little) / 2).next_multiple_of(PAGE);
            if middle >= enough {
                break;
            }
            if self.passes(middle, None)? { enough = middle } else { too_little = middle }
        }
        Ok(enough)
    }

    fn pids(&mut self, memory: u64, peak: u64) -> Result<u64> {
        // With fewer processes it may need another moment's memory: there must be some to spare.
        let memory = memory + memory / 8;
        let (mut too_few, mut enough) = (0, peak.max(1));
        while !self.passes(memory, Some(enough))? {
            if enough > peak * 4 + 4 {
                bail!("the command passes without limits, but not with {enough} processes");
            }
            (too_few, enough) = (enough, enough + 1);
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if self.passes(memory, Some(middle))? { enough = middle } else { too_few = middle }
        }
        Ok(enough)
    }

    /// What it passes with again and again: from one run to the next the kernel may count some pages more.
    fn confirmed(&mut self, memory: u64, pids: u64) -> Result<u64> {
        const TIMES: u32 = 6;
        let most = memory.saturating_mul(4);
        let (mut memory, mut passed) = (memory, 0);
        while passed < TIMES {
            if self.passes(memory, Some(pids))? {
                passed += self.flags.tries;
                continue;
            }
            passed = 0;
            memory = (memory + memory / 50).max(memory + 4 * PAGE).next_multiple_of(PAGE);
            if memory > most {
                bail!(
                    "the command passed with less, but not with {}: it may not be the same each time",
                    bytes(memory)
                );
            }
        }
        Ok(memory)
    }

    /// Where a person looks on, what is being tried.
    fn say(&self, what: &str) {
        let mut err = std::io::stderr().lock();
        if err.is_terminal() {
            // There is nowhere left to complain of standard error to.
            let _ = write!(err, "\r\x1b[Krun {}: {what}", self.runs + 1);
        }
    }

    fn done(&self) {
        let mut err = std::io::stderr().lock();
        if err.is_terminal() {
            let _ = write!(err, "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_command_wrote_the_end_is_told() {
        assert_eq!(last_words(" \n"), "");
        let said = format!("first\n{}\n\x1b[2Jsecond\n\nthird\n", "x".repeat(5000));
        let told = last_words(&said);
        assert!(!told.contains("first") && told.ends_with("second / third\""), "{told}");
        assert!(told.len() < 300 && !told.contains('\x1b'), "{told}");
    }
}
