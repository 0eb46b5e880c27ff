//! Cookies as the plugin reads and writes them; a long value is spread over several.

/// What a browser keeps at least of one cookie: name, value and attributes together (RFC 6265, section 6.1).
const MAX_COOKIE: usize = 4096;

/// Over how many cookies a value may be spread.
pub(crate) const MAX_CHUNKS: usize = 8;

/// How much of a request's cookies is read.
const MAX_READ: usize = 96 * 1024;

/// The cookies of a request, in order.
pub(crate) struct Cookies {
    pairs: Vec<(String, String)>,
}

impl Cookies {
    /// Reads all `cookie` headers. What is not UTF-8 or beyond the limit is not seen.
    pub(crate) fn read(headers: &[Vec<u8>]) -> Self {
        let mut pairs = Vec::new();
        let mut left = MAX_READ;
        for piece in pieces(headers) {
            let Some(rest) = left.checked_sub(piece.len()) else { break };
            left = rest;
            let pair = std::str::from_utf8(piece).ok().and_then(|piece| piece.split_once('='));
            if let Some((name, value)) = pair {
                pairs.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        Self { pairs }
    }

    /// The first cookie called `name`: browsers send the one that fits best first.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Puts a value that was spread over several cookies together; none when a part is missing.
    pub(crate) fn join(&self, name: &str) -> Option<String> {
        let (count, first) = self.get(name)?.split_once('.')?;
        let count: usize = count.parse().ok().filter(|count| (1..=MAX_CHUNKS).contains(count))?;
        let mut value = first.to_owned();
        for index in 1..count {
            value.push_str(self.get(&chunk_name(name, index))?);
        }
        Some(value)
    }
}

fn pieces(headers: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    headers.iter().flat_map(|header| header.split(|byte| *byte == b';'))
}

/// Writes `cookie` headers as one without the plugin's own; none when nothing is left, `Err` when nothing was the plugin's.
pub(crate) fn without_own(headers: &[Vec<u8>], own: &str) -> Result<Option<String>, ()> {
    let mut kept = Vec::new();
    let mut found = false;
    for piece in pieces(headers) {
        // A name in other bytes than UTF-8 is nobody's that is known here, and cannot be written back.
        let Ok(piece) = std::str::from_utf8(piece) else { continue };
        let piece = piece.trim();
        let name = piece.split_once('=').map_or(piece, |(name, _)| name.trim());
        if is_own(name, own) {
            found = true;
        } else if !piece.is_empty() {
            kept.push(piece);
        }
    }
    if !found {
        return Err(());
    }
    Ok((!kept.is_empty()).then(|| kept.join("; ")))
}

fn is_own(name: &str, own: &str) -> bool {
    name.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn chunk_name(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}-{index}") }
}

/// The `set-cookie` header that keeps `value` for `max_age` seconds, for this host alone and out of scripts' reach.
pub(crate) fn set(name: &str, value: &str, max_age: u64) -> String {
    format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; Secure; SameSite=Lax")
}

/// The `set-cookie` header that takes a cookie away.
pub(crate) fn expire(name: &str) -> String {
    set(name, "", 0)
}

/// The `set-cookie` headers for a long value, and those that take away what a longer one left in `present`; none when it
/// is too long.
pub(crate) fn spread(name: &str, value: &str, max_age: u64, present: &Cookies) -> Option<Vec<String>> {
    let overhead = set(&chunk_name(name, MAX_CHUNKS), "0.", max_age).len();
    let room = MAX_COOKIE.checked_sub(overhead).filter(|room| *room > 0)?;
    let count = value.len().div_ceil(room).max(1);
    if count > MAX_CHUNKS || !value.is_ascii() {
        return None;
    }
    let mut headers = Vec::new();
    let mut rest = value;
    for index in 0..count {
        let (chunk, after) = rest.split_at_checked(room.min(rest.len()))?;
        rest = after;
        let chunk = if index == 0 { format!("{count}.{chunk}") } else { chunk.to_owned() };
        headers.push(set(&chunk_name(name, index), &chunk, max_age));
    }
    let left = (count..MAX_CHUNKS).map(|index| chunk_name(name, index));
    headers.extend(left.filter(|name| present.get(name).is_some()).map(|name| expire(&name)));
    Some(headers)
}

/// The `set-cookie` headers that take a long value away.
pub(crate) fn forget(name: &str, present: &Cookies) -> Vec<String> {
    let names = (0..MAX_CHUNKS).map(|index| chunk_name(name, index));
    names.filter(|name| present.get(name).is_some()).map(|name| expire(&name)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Cookies, MAX_COOKIE, forget, spread, without_own};

    fn cookies(text: &str) -> Cookies {
        Cookies::read(&[text.as_bytes().to_vec()])
    }

    /// The request's header after a browser has taken these.
    fn kept(headers: &[String]) -> String {
        headers.iter().map(|header| header.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_value_survives_being_spread_and_no_cookie_is_longer_than_browsers_keep() {
        for length in [0, 1, 3900, 4000, 8000, 30_000] {
            let value = "x".repeat(length);
            let headers = spread("__Host-openid", &value, 31_536_000, &cookies("")).unwrap();
            assert!(headers.iter().all(|header| header.len() <= MAX_COOKIE), "{length}");
            assert_eq!(cookies(&kept(&headers)).join("__Host-openid"), Some(value), "{length}");
        }
        assert!(spread("n", &"x".repeat(33_000), 1, &cookies("")).is_none());
    }

    #[test]
    fn cookie_truncation_loses_the_value_and_never_shortens_it() {
        let headers = spread("s", &"x".repeat(9000), 60, &cookies("")).unwrap();
        assert_eq!(headers.len(), 3);
        for missing in 0..3 {
            let mut headers = headers.clone();
            headers.remove(missing);
            assert_eq!(cookies(&kept(&headers)).join("s"), None, "without {missing}");
        }
        for value in ["", "x", ".x", "0.x", "9.x", "-1.x", "2.x", "18446744073709551616.x"] {
            assert_eq!(cookies(&format!("s={value}")).join("s"), None, "{value}");
        }
    }

    #[test]
    fn what_a_longer_value_left_is_taken_away() {
        let present = cookies("s=3.a; s-1=b; s-2=c; s-7=d");
        let headers = spread("s", "short", 60, &present).unwrap();
        assert_eq!(kept(&headers), "s=1.short; s-1=; s-2=; s-7=");
        assert!(headers[1].contains("Max-Age=0"));
        assert_eq!(kept(&forget("s", &present)), "s=; s-1=; s-2=; s-7=");
    }

    #[test]
    fn cookies_are_read_from_all_headers_and_the_first_of_a_name_counts() {
        let cookies = Cookies::read(&[b"a=1;b = 2 ; a=3".to_vec(), b"c=4=5; \xff=6; d".to_vec()]);
        assert_eq!(["a", "b", "c", "d"].map(|name| cookies.get(name)), [Some("1"), Some("2"), Some("4=5"), None]);
    }

    #[test]
    fn oversized_cookies_are_not_read() {
        let text = format!("a={}; b=2", "x".repeat(100_000));
        assert_eq!(cookies(&text).get("b"), None);
    }

    #[test]
    fn own_cookies_are_taken_out_and_others_stay() {
        let headers = [b"a=1; s=2; s-1=3; s-login-x=4; sx=5".to_vec(), b"s=6; b".to_vec()];
        assert_eq!(without_own(&headers, "s"), Ok(Some("a=1; sx=5; b".to_owned())));
        assert_eq!(without_own(&[b"s=1; s-2=3".to_vec()], "s"), Ok(None));
        assert_eq!(without_own(&[b"a=1".to_vec()], "s"), Err(()));
    }
}
