//! Amounts of bytes as people write them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An amount of bytes: a number, and perhaps K, M, G or T (of 1024) with or without B or iB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 5] = [("", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size: expected a number and perhaps K, M, G or T, as 64M");
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_uppercase();
        let unit = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, shift) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, shift): &&(&str, u32)| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        let (unit, shift) = UNITS.iter().rfind(fits).unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.to_string()
    }
}

/// An amount of bytes in few letters: `64M`, `1.5K`.
pub fn short(value: u64) -> String {
    let (mut value, mut unit) = (value as f64, "");
    for larger in ["K", "M", "G", "T", "P"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    let digits = if unit.is_empty() || value >= 100.0 || value.fract() == 0.0 { 0 } else { 1 };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (value, text) in [
            (0, "0"),
            (1023, "1023"),
            (64 << 20, "64M"),
            (1536, "1.5K"),
            (1 << 40, "1T"),
            (123_456_789, "118M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn units() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("64M", 64 << 20), ("1kb", 1024), ("3GiB", 3 << 30), ("7 B", 7)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for text in ["", "M", "-1", "1.5G", "1X", "18446744073709551615K"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
