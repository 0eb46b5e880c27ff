//! Plain YAML scalars, typed as kubectl's reader (sigs.k8s.io/yaml, YAML 1.1) types them, not as YAML 1.2 would.

/// A scalar after typing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

/// Types an untagged plain scalar.
///
/// `yes`, `on`, `y` and their like are booleans, `012` is octal, `1_000` is a number, `12:30` and dates are text.
/// Whole numbers that fit no `i64` become floats, as JSON readers in the API server make them.
pub(crate) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| decimal(&plain)).unwrap_or(Scalar::Text)
}

/// Reads what Go's `ParseInt` reads with base 0: decimal, `0x`, `0o`, `0b`, and octal with a bare leading zero.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let signed = format!("{}{digits}", if negative { "-" } else { "" });
    if let Ok(value) = i64::from_str_radix(&signed, radix) {
        return Some(Scalar::Int(value));
    }
    let size = digits
        .chars()
        .filter_map(|c| c.to_digit(radix))
        .fold(0.0, |sum: f64, digit| sum.mul_add(f64::from(radix), f64::from(digit)));
    // Only decimal digits have a parser that rounds once, so they go through it.
    let size = if radix == 10 { digits.parse().unwrap_or(size) } else { size };
    size.is_finite().then_some(Scalar::Float(if negative { -size } else { size }))
}

/// Reads `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; a number too large for a double stays text.
fn decimal(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let mantissa_fits = all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    if !mantissa_fits || !exponent_fits {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float)
}

#[cfg(test)]
mod tests {
    use super::{Scalar, resolve};

    #[track_caller]
    fn check(text: &str, expected: &Scalar) {
        assert_eq!(&resolve(text), expected, "{text}");
    }

    #[test]
    fn yaml_1_1_booleans_are_booleans() {
        for text in ["y", "Yes", "ON", "true", "TRUE"] {
            check(text, &Scalar::Bool(true));
        }
        for text in ["n", "No", "off", "False"] {
            check(text, &Scalar::Bool(false));
        }
        check("yEs", &Scalar::Text);
    }

    #[test]
    fn leading_zero_is_octal_and_underscores_are_dropped() {
        check("012", &Scalar::Int(10));
        check("0o12", &Scalar::Int(10));
        check("0x1F", &Scalar::Int(31));
        check("-0b11", &Scalar::Int(-3));
        check("1_000", &Scalar::Int(1000));
        check("+7", &Scalar::Int(7));
        // Not octal, but the decimal rule still takes it.
        check("089", &Scalar::Float(89.0));
    }

    #[test]
    fn times_versions_and_dates_are_text() {
        for text in ["12:30", "1.2.3", "2024-01-31", "2024-01-31T00:00:00Z", "0x", "1e", "-", ".", "+", "1e999", "١"] {
            check(text, &Scalar::Text);
        }
    }

    #[test]
    fn decimals_are_doubles() {
        check("1.0", &Scalar::Float(1.0));
        check(".5", &Scalar::Float(0.5));
        check("1.", &Scalar::Float(1.0));
        check("-1e3", &Scalar::Float(-1000.0));
    }

    #[test]
    fn integers_beyond_64_bits_become_doubles() {
        check("9223372036854775807", &Scalar::Int(i64::MAX));
        check("-9223372036854775808", &Scalar::Int(i64::MIN));
        check("9223372036854775808", &Scalar::Float(9_223_372_036_854_775_808.0));
        check("123456789012345678901234567890", &Scalar::Float(1.234_567_890_123_456_8e29));
        check(&"9".repeat(400), &Scalar::Text);
    }

    #[test]
    fn null_has_five_spellings() {
        for text in ["", "~", "null", "Null", "NULL"] {
            check(text, &Scalar::Null);
        }
        check("nULL", &Scalar::Text);
    }
}
