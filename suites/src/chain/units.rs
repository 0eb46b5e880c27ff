//! Spans and times as Kubernetes writes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest span: no test waits for more than a year.
const MAX_SPAN: Duration = Duration::from_hours(24 * 366);

/// A length of time: `300ms`, `5s`, `1m30s`, `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A text that is no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is written like 300ms, 5s, 1m30s or 2h, and is at most a year")]
pub struct NotASpan;

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let mut all = Duration::ZERO;
        let mut rest = text;
        if rest.is_empty() {
            return Err(NotASpan);
        }
        while !rest.is_empty() {
            let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or(NotASpan)?);
            let count: u64 = digits.parse().map_err(|_| NotASpan)?;
            let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
            let milliseconds = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(NotASpan),
            };
            let part = count.checked_mul(milliseconds).map(Duration::from_millis).ok_or(NotASpan)?;
            all = all.checked_add(part).filter(|all| *all <= MAX_SPAN).ok_or(NotASpan)?;
            rest = after;
        }
        Ok(Self(all))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms if ms % 1000 != 0 => write!(f, "{ms}ms"),
            ms => write!(f, "{}s", ms / 1000),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"})
    }
}

/// A moment, as time since the Unix epoch; written in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// When tests begin that do not say when: 2026-01-01T00:00:00Z.
    pub const DEFAULT: Self = Self(Duration::from_hours(490_896));
}

/// A text that is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like 2026-01-31T12:00:00Z (RFC 3339), and is not before 1970")]
pub struct NotATime;

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotATime)?;
        let nanoseconds = u128::try_from(time.unix_timestamp_nanos()).map_err(|_| NotATime)?;
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| NotATime)?;
        Ok(Self(Duration::new(seconds, u32::try_from(nanoseconds % 1_000_000_000).map_err(|_| NotATime)?)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = i128::try_from(self.0.as_nanos()).map_err(|_| fmt::Error)?;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).map_err(|_| fmt::Error)?;
        f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sums_of_units() {
        for (text, milliseconds) in [("300ms", 300), ("5s", 5000), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(milliseconds))), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1d", "1.5s", "5s ", "99999999999999999999s", "9000h"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text}");
        }
    }

    #[test]
    fn times_are_read_and_written_in_rfc_3339() {
        assert_eq!("2026-01-01T00:00:00Z".parse(), Ok(Time::DEFAULT));
        assert_eq!(Time::DEFAULT.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!("1970-01-01T01:00:00.5+01:00".parse(), Ok(Time(Duration::from_millis(500))));
        for text in ["", "2026-01-01", "1969-12-31T23:59:59Z", "now"] {
            assert_eq!(text.parse::<Time>(), Err(NotATime), "{text}");
        }
    }
}
