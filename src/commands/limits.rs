//! `limits`: what a container's limits are, and what of them was used.

use super::context::Context;
use crate::cli::limits::Limits as Flags;
use crate::output;
use crate::size::short as bytes;
use anyhow::Result;
use ctr_runtime::limits::{Drift, Limits, Resource, Unit};

/// The exit status where a limit is not as it was asked for.
const DRIFTED: u8 = 3;

/// Prints the limits of a container.
///
/// # Errors
/// When there is none of that name, or it has no cgroup.
pub fn limits(context: &Context, flags: &Flags) -> Result<u8> {
    let mut limits = context.container(&flags.id)?.limits()?;
    let past = context.ended().total(&context.root(), &flags.id)?;
    limits.add_past(&past.usage);
    if flags.json {
        output::json(&limits)?
    } else {
        output::print(&text(&limits))?
    }
    Ok(if limits.drift.is_empty() { 0 } else { DRIFTED })
}

fn text(limits: &Limits) -> String {
    let rows: Vec<[String; 8]> = limits.resources.iter().map(|row| cells(row, &limits.cgroup)).collect();
    let header = ["RESOURCE", "HELD", "MAXHELD", "BARRIER", "LIMIT", "FAILCNT", "IN FORCE", "BY"];
    let mut text = output::table(header, &rows);
    for (name, pressure) in &limits.pressure {
        let waited = pressure.some_total as f64 / 1e6;
        text += &format!(
            "pressure of {name}: {:.2} % of the last 10 s some process waited, {waited:.3} s in all\n",
            pressure.some_avg10
        );
    }
    for drift in &limits.drift {
        text += &drifted(drift);
    }
    text
}

fn cells(row: &Resource, own: &str) -> [String; 8] {
    let amount = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| amount(value, row.unit));
    let by = match row.bound_by.as_deref() {
        None => "-".to_owned(),
        Some(dir) if dir == own => "its own limit".to_owned(),
        Some("machine") => "the machine".to_owned(),
        Some(above) => above.to_owned(),
    };
    let in_force = match row.unit {
        Unit::List => row.applied.clone().unwrap_or_default(),
        unit => row.effective.map_or_else(|| "-".to_owned(), |value| rate(value, unit)),
    };
    let limit = match row.unit {
        Unit::List => row.requested.clone().unwrap_or_default(),
        unit => row.limit.map_or_else(|| "none".to_owned(), |value| rate(value, unit)),
    };
    let count = row.failcnt.map_or_else(|| "-".to_owned(), |count| count.to_string());
    [row.name.clone(), amount(row.held), amount(row.maxheld), amount(row.barrier), limit, count, in_force, by]
}

/// What is held.
fn amount(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes | Unit::BytesPerSecond => bytes(value),
        Unit::Microseconds => format!("{:.3} s", value as f64 / 1e6),
        Unit::Count | Unit::PerSecond | Unit::List => value.to_string(),
    }
}

/// What may be held, or used in a second.
fn rate(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Microseconds => format!("{} CPU", value as f64 / 1e6),
        Unit::BytesPerSecond => format!("{}/s", bytes(value)),
        Unit::PerSecond => format!("{value}/s"),
        _ => amount(value, unit),
    }
}

fn drifted(drift: &Drift) -> String {
    let Drift { file, requested, found } = drift;
    match found {
        Some(found) => format!(
            "{file} is {found:?}, not {requested:?} as asked for: somebody has changed it (`update` without a flag sets it again)\n"
        ),
        None if file.ends_with("/cgroup.procs") => {
            format!(
                "process {requested} is not in {file}: the limits there do not hold for it (`update` without a flag puts it in)\n"
            )
        }
        None => format!("{file} is not there, so {requested:?} is not in force\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_units() {
        assert_eq!(rate(500_000, Unit::Microseconds), "0.5 CPU");
        assert_eq!(rate(1 << 20, Unit::BytesPerSecond), "1M/s");
    }
}
