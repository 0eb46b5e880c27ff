//! Bytes as suites write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Reads base64, with its padding.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Reads pairs of hexadecimal digits, between which blanks count for nothing.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let mut digits = text.chars().filter(|c| !c.is_ascii_whitespace()).map(|c| c.to_digit(16));
    let mut bytes = Vec::new();
    while let Some(high) = digits.next() {
        bytes.push(u8::try_from(high? * 16 + digits.next()??).ok()?);
    }
    Some(bytes)
}

/// Writes them as [`hex`] reads them.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_pairs_of_digits() {
        assert_eq!(hex("00fF 7a"), Some(vec![0, 255, 122]));
        assert_eq!(hex(""), Some(Vec::new()));
        assert_eq!(hex(&to_hex(&[0, 255, 122])), Some(vec![0, 255, 122]));
        for text in ["0", "0g", "00 1", "0x00"] {
            assert_eq!(hex(text), None, "{text}");
        }
        assert_eq!((base64("AP8="), base64("AP8")), (Some(vec![0, 255]), None));
    }
}
