//! Sizes of files as people write them.

use std::{fmt, str::FromStr};

/// The least size that holds a few frames.
const LEAST: u64 = 64 * 1_000;

/// A number of octets: `200MB`, `1G`, `512MiB`, `100000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// The largest size of a file where none is given.
impl Default for Size {
    fn default() -> Self {
        Self(200_000_000)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size; write it like 200MB, 1G or 512MiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err(wrong()),
        };
        let octets = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(wrong)?;
        if octets < LEAST {
            return Err(format!("{text:?} is too small for a recording; give 64kB or more"));
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"), (1, "B")];
        let (scale, unit) =
            units.into_iter().find(|(scale, _)| self.0.is_multiple_of(*scale)).unwrap_or((1, "B"));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("200MB", 200_000_000),
            ("200m", 200_000_000),
            ("1G", 1_000_000_000),
            ("512MiB", 512 << 20),
            ("64kB", 64_000),
            ("100000", 100_000),
        ];
        for (text, octets) in cases {
            assert_eq!(text.parse(), Ok(Size(octets)), "{text}");
        }
        assert_eq!(Size(200_000_000).to_string(), "200MB");
        for text in ["", "MB", "-1M", "1.5G", "10", "63999", "99999999999999G", "5 MB", "1TB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
