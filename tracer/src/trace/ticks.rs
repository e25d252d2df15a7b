//! How an interface of a pcapng section counts time.

use crate::model::Timestamp;

/// `if_tsresol` and `if_tsoffset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    unit: Unit,
    offset_nanos: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A tick is so many nanoseconds.
    Coarse(u64),
    /// So many ticks are a nanosecond.
    Fine(u64),
    /// So many ticks, as a power of two, are a second.
    Binary(u32),
}

impl Default for Clock {
    fn default() -> Self {
        Self { unit: Unit::Coarse(1_000), offset_nanos: 0 }
    }
}

impl Clock {
    /// Sets `if_tsresol`.
    pub(super) fn set_resolution(&mut self, resolution: u8) {
        self.unit = Self::unit(resolution);
    }

    /// Sets `if_tsoffset`, in seconds.
    pub(super) fn set_offset(&mut self, seconds: i64) {
        self.offset_nanos = i128::from(seconds) * 1_000_000_000;
    }

    fn unit(resolution: u8) -> Unit {
        let exponent = u32::from(resolution & 0x7f);
        if resolution & 0x80 != 0 {
            // Beyond 64 bits every tick is zero seconds.
            Unit::Binary(exponent)
        } else if exponent <= 9 {
            Unit::Coarse(10_u64.pow(9 - exponent))
        } else {
            Unit::Fine(10_u64.checked_pow(exponent - 9).unwrap_or(u64::MAX))
        }
    }

    /// The time of a count.
    pub(super) fn time(self, ticks: u64) -> Timestamp {
        let nanos = match self.unit {
            Unit::Coarse(nanos) => ticks.saturating_mul(nanos),
            Unit::Fine(per_nano) => ticks / per_nano,
            Unit::Binary(exponent) => {
                let nanos = (u128::from(ticks) * 1_000_000_000).checked_shr(exponent).unwrap_or(0);
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        };
        if self.offset_nanos == 0 {
            return Timestamp::from_nanos(nanos);
        }
        let shifted = (i128::from(nanos) + self.offset_nanos).max(0);
        Timestamp::from_nanos(u64::try_from(shifted).unwrap_or(u64::MAX))
    }
}
