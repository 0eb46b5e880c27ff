//! The header `date`, which is made once a second and not for every response.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// As RFC 9110, section 5.6.7, has it.
type Text = [u8; 29];

thread_local! {
    /// The last one that was asked for, with its second.
    static LAST: Cell<Option<(u64, Text)>> = const { Cell::new(None) };
}

/// A time's text.
pub(crate) fn of(time: SystemTime) -> Text {
    let second = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Some((last, text)) = LAST.get()
        && last == second
    {
        return text;
    }
    let mut text = [0; 29];
    let made = httpdate::fmt_http_date(time);
    for (into, from) in text.iter_mut().zip(made.as_bytes()) {
        *into = *from;
    }
    LAST.set(Some((second, text)));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_has_its_own_text() {
        let at = |milliseconds| of(UNIX_EPOCH + Duration::from_millis(milliseconds));
        assert_eq!(&at(784_111_777_000), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&at(784_111_777_999), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&at(784_111_778_000), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(&at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
