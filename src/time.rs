//! Points in time as RFC 3339 writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-23T09:24:00Z`, as a line of a log has it.
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = seconds(since_epoch(time));
    text.push('Z');
    text
}

/// `2026-11-23T09:24:00.123456789Z`, as runc writes when a container was made.
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let since = since_epoch(time);
    let mut text = seconds(since);
    text.push('.');
    push(&mut text, since.subsec_nanos().into(), 9);
    text.push('Z');
    text
}

/// A point in time as records have it, in seconds and nanoseconds; one that no clock can show is where time begins.
pub fn at((seconds, nanoseconds): (u64, u32)) -> SystemTime {
    let since = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds.into()));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// Reads a length of time: a number and `ms`, `s`, `m` or `h`, several in a row as `1m30s`; without a unit, seconds.
///
/// # Errors
/// What a length of time looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time, as 5s, 100ms or 1m30s");
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" | "" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        sum += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        rest = after;
    }
    if sum.is_zero() { Err(wrong()) } else { Ok(sum) }
}

/// How long ago a point in time was, in seconds since 1970, for people: `5 minutes ago`.
pub fn ago(then: u64) -> String {
    let seconds = since_epoch(SystemTime::now()).as_secs().saturating_sub(then);
    let units = [("year", 365 * 86400), ("month", 30 * 86400), ("week", 7 * 86400), ("day", 86400)];
    let units = units.into_iter().chain([("hour", 3600), ("minute", 60), ("second", 1)]);
    let found = units.map(|(unit, length)| (unit, seconds / length)).find(|(_, count)| *count > 0);
    match found {
        Some((unit, 1)) => format!("1 {unit} ago"),
        Some((unit, count)) => format!("{count} {unit}s ago"),
        None => "now".to_owned(),
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(since: Duration) -> String {
    let (days, rest) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = date(days);
    let mut text = String::with_capacity(32);
    push(&mut text, year, 4);
    for (before, number) in
        [('-', month), ('-', day), ('T', rest / 3600), (':', rest / 60 % 60), (':', rest % 60)]
    {
        text.push(before);
        push(&mut text, number, 2);
    }
    text
}

/// Adds `number` in so many digits. The machinery of `format!` would become resident in each supervisor, which has
/// no other use for it.
fn push(text: &mut String, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        text.push(char::from(b'0' + (number / 10_u64.pow(place) % 10) as u8));
    }
}

/// Year, month and day of the day that is `days` after 1 January 1970.
///
/// Counted in years that begin in March, so that the leap day is their last; 400 of them are always 146097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 1 March of the year 0
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    if month < 10 { (era * 400 + year, month + 3, day) } else { (era * 400 + year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records are files, which may hold anything.
    #[test]
    fn no_time_is_too_late_to_be_written() {
        for time in [(u64::MAX, u32::MAX), (u64::MAX, 0), (i64::MAX as u64, u32::MAX), (1 << 62, 0)] {
            assert!(!rfc3339_nanos(at(time)).is_empty());
        }
        assert_eq!(rfc3339_nanos(at((1, 2_000_003))), "1970-01-01T00:00:01.002000003Z");
    }

    #[test]
    fn lengths_of_time() {
        for (text, milliseconds) in
            [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("2", 2000), ("1.5h", 5_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "0", "s", "5x", "-1s", "1s,", "1e9h", "9999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    /// Expected values are `date -u -d @N`'s.
    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        let time = UNIX_EPOCH + Duration::new(1, 2_000_003);
        assert_eq!(rfc3339_nanos(time), "1970-01-01T00:00:01.002000003Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..200_000 {
            let today = date(days);
            assert!(today > before, "{today:?}");
            assert!(today.2 == before.2 + 1 || today.2 == 1, "{today:?}");
            before = today;
        }
    }
}
