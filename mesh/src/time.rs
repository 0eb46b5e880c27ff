//! RFC 3339 times, as `metadata.creationTimestamp` has them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Converts a time to nanoseconds since the Unix epoch; `None` when it is not RFC 3339.
///
/// Times that do not fit (before 1678, after 2261) saturate.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    // The RFC lets applications write a space; Kubernetes does not take one.
    text.as_bytes().get(10).filter(|separator| separator.eq_ignore_ascii_case(&b'T'))?;
    let nanoseconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    let end = if nanoseconds < 0 { i64::MIN } else { i64::MAX };
    Some(i64::try_from(nanoseconds).unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[track_caller]
    fn check(text: &str, seconds: i64, nanos: i64) {
        assert_eq!(nanoseconds(text), Some(seconds * 1_000_000_000 + nanos), "{text}");
    }

    #[test]
    fn known_instants() {
        check("1970-01-01T00:00:00Z", 0, 0);
        check("2024-02-29T12:34:56Z", 1_709_210_096, 0);
        check("2000-03-01T00:00:00.5Z", 951_868_800, 500_000_000);
        check("2024-01-31T01:00:00+01:00", 1_706_659_200, 0);
        check("1969-12-31T23:59:59Z", -1, 0);
        check("2024-01-01t00:00:00.1234567891z", 1_704_067_200, 123_456_789);
    }

    #[test]
    fn out_of_range_saturates() {
        assert_eq!(nanoseconds("9999-12-31T23:59:59Z"), Some(i64::MAX));
        assert_eq!(nanoseconds("0001-01-01T00:00:00Z"), Some(i64::MIN));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2024-01-31",
            "2024-01-31 00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00Zx",
            "２024-01-01T00:00:00Z",
            "2024-01-01T00:00:00+é0",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }
}
