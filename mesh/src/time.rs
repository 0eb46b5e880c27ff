//! RFC 3339 times, as `metadata.creationTimestamp` has them.

/// Converts a time to nanoseconds since the Unix epoch; `None` when it is not RFC 3339.
///
/// Times that do not fit (before 1678, after 2261) saturate.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let time = rest.strip_prefix(['T', 't'])?;
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?;
    let (clock, rest) = time.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', &[2, 2, 2])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, zone) = rest.split_at(digits);
            let padded = format!("{digits:0<9}");
            (padded.get(..9).filter(|_| !digits.is_empty())?.parse::<i64>().ok()?, zone)
        }
        None => (0, rest),
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(fraction))
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(&zone[1..], ':', &[2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Reads numbers of fixed width.
fn numbers<const N: usize>(text: &str, separator: char, widths: &[usize; N]) -> Option<[i64; N]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let parts: [&str; N] = parts.try_into().ok()?;
    let mut read = [0; N];
    for ((value, part), width) in read.iter_mut().zip(parts).zip(widths) {
        if part.len() != *width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    Some(read)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts days in the proleptic Gregorian calendar, with years that begin in March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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
