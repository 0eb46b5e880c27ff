//! Headers as Envoy keeps them: ordered, lower-case, pseudo-headers first, some of them single-valued.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

/// A guest cannot make a map larger than this many bytes of keys and values.
const MAX_BYTES: usize = 4 << 20;
/// A guest cannot make a map longer than this.
const MAX_ENTRIES: usize = 8192;

/// Headers of which Envoy keeps one entry: adding a second value joins it with a comma.
const INLINE: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "keep-alive",
    "last-modified",
    "location",
    "origin",
    "pragma",
    "proxy-connection",
    "proxy-status",
    "referer",
    "server",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-client-trace-id",
    "x-envoy-upstream-service-time",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Headers that belong to one connection: the codecs write them, a request never carries them on, and a response only
/// to the filters.
const HOP_BY_HOP: &[&str] = &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

#[derive(Debug, Clone, Default)]
pub(crate) struct HeaderMap {
    entries: Vec<(Bytes, Bytes)>,
    bytes: usize,
}

/// The map would exceed the host's limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// A header that must not be put on the wire.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHeader {
    #[error("invalid header name: {0}")]
    Name(String),
    #[error("invalid header value for: {0}")]
    Value(String),
}

impl HeaderMap {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sum of key and value lengths.
    pub(crate) fn byte_size(&self) -> usize {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.entries.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// The first value of `name`, which is matched whatever its case.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Bytes> {
        let name = canonical(name);
        self.entries.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The first value of `name` as text, or nothing when it is not text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of `name`, in order.
    pub(crate) fn values(&self, name: &[u8]) -> impl Iterator<Item = &Bytes> {
        let name = canonical(name);
        self.entries.iter().filter(move |(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The entry at an index.
    pub(crate) fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(index).map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// All values of `name`, joined with commas.
    pub(crate) fn joined(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = canonical(name);
        let values: Vec<&[u8]> =
            self.entries.iter().filter(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_ref()).collect();
        (!values.is_empty()).then(|| values.join(&b","[..]))
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        let name = canonical(name).to_ascii_lowercase();
        if self.bytes + name.len() + value.len() > MAX_BYTES || self.entries.len() >= MAX_ENTRIES {
            return Err(TooLarge);
        }
        let pseudo = name.starts_with(b":");
        if (pseudo || INLINE.iter().any(|inline| inline.as_bytes() == name))
            && let Some((_, existing)) = self.entries.iter_mut().find(|(k, _)| *k == name)
        {
            let separator = if existing.is_empty() { &b""[..] } else { b"," };
            self.bytes += separator.len() + value.len();
            *existing = [existing.as_ref(), separator, value].concat().into();
            return Ok(());
        }
        self.bytes += name.len() + value.len();
        let entry = (Bytes::from(name), Bytes::copy_from_slice(value));
        let end = if pseudo { self.pseudo_count() } else { self.entries.len() };
        self.entries.insert(end, entry);
        Ok(())
    }

    /// Removes every entry of `name` and adds one, which thereby moves to the end.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        if self.bytes + name.len() + value.len() > MAX_BYTES {
            return Err(TooLarge);
        }
        self.remove(name);
        self.add(name, value)
    }

    /// Gives a single-valued header its value where it stands, or adds it.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        let Some((_, existing)) = self.entries.iter_mut().find(|(k, _)| k.eq_ignore_ascii_case(canonical(name))) else {
            return self.add(name, value);
        };
        let bytes = self.bytes - existing.len() + value.len();
        if bytes > MAX_BYTES {
            return Err(TooLarge);
        }
        self.bytes = bytes;
        *existing = Bytes::copy_from_slice(value);
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        let name = canonical(name);
        let bytes = &mut self.bytes;
        self.entries.retain(|(k, v)| {
            let keep = !k.eq_ignore_ascii_case(name);
            if !keep {
                *bytes -= k.len() + v.len();
            }
            keep
        });
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pseudo_count(&self) -> usize {
        self.entries.iter().take_while(|(k, _)| k.starts_with(b":")).count()
    }

    /// Takes over what a peer sent, except what belonged to the connection only. Of `te`, `trailers` is passed on.
    pub(crate) fn extend_from_http(&mut self, headers: &http::HeaderMap) -> Result<(), TooLarge> {
        for (name, value) in headers {
            if name == http::header::TE {
                if lists(value.as_bytes(), "trailers") {
                    self.set(b"te", b"trailers")?;
                }
                continue;
            }
            let listed = headers.get_all(http::header::CONNECTION).iter().any(|c| lists(c.as_bytes(), name.as_str()));
            if HOP_BY_HOP.contains(&name.as_str()) || (listed && name != http::header::HOST) {
                continue;
            }
            self.add(name.as_str().as_bytes(), value.as_bytes())?;
        }
        Ok(())
    }

    /// The headers for the wire: no pseudo-headers, nothing that belongs to a connection.
    pub(crate) fn to_http(&self) -> Result<http::HeaderMap, InvalidHeader> {
        let mut headers = http::HeaderMap::with_capacity(self.entries.len());
        for (name, value) in &self.entries {
            if name.starts_with(b":") || HOP_BY_HOP.iter().any(|hop| hop.as_bytes() == name.as_ref()) {
                continue;
            }
            let shown = || String::from_utf8_lossy(name).into_owned();
            let key = HeaderName::from_bytes(name).map_err(|_| InvalidHeader::Name(shown()))?;
            let value = HeaderValue::from_maybe_shared(value.clone()).map_err(|_| InvalidHeader::Value(shown()))?;
            headers.append(key, value);
        }
        Ok(headers)
    }

    /// Drops the headers that must not be put on the wire and returns their names.
    pub(crate) fn remove_invalid(&mut self) -> Vec<String> {
        let mut dropped = Vec::new();
        let bytes = &mut self.bytes;
        self.entries.retain(|(name, value)| {
            let valid = name.starts_with(b":")
                || (HeaderName::from_bytes(name).is_ok() && HeaderValue::from_bytes(value).is_ok());
            if !valid {
                *bytes -= name.len() + value.len();
                dropped.push(String::from_utf8_lossy(name).into_owned());
            }
            valid
        });
        dropped
    }
}

fn canonical(name: &[u8]) -> &[u8] {
    if name.eq_ignore_ascii_case(b"host") { b":authority" } else { name }
}

/// Whether a `connection` header lists an option.
pub(crate) fn lists(connection: &[u8], name: &str) -> bool {
    connection.split(|b| *b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::default();
        for (k, v) in pairs {
            map.add(k.as_bytes(), v.as_bytes()).unwrap();
        }
        map
    }

    #[track_caller]
    fn check(map: &HeaderMap, expected: &[(&str, &str)]) {
        let actual: Vec<_> =
            map.iter().map(|(k, v)| (str::from_utf8(k).unwrap(), str::from_utf8(v).unwrap())).collect();
        assert_eq!(actual, expected);
        assert_eq!(map.byte_size(), expected.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>());
    }

    #[test]
    fn keys_are_lowered_and_pseudo_headers_come_first() {
        check(
            &map(&[("X-A", "1"), (":path", "/"), ("x-b", "2"), (":method", "GET")]),
            &[(":path", "/"), (":method", "GET"), ("x-a", "1"), ("x-b", "2")],
        );
    }

    #[test]
    fn inline_headers_join_and_others_stay_apart() {
        check(
            &map(&[("user-agent", "a"), ("user-agent", "b"), (":path", "/x"), (":path", "/y"), ("x", "1"), ("x", "2")]),
            &[(":path", "/x,/y"), ("user-agent", "a,b"), ("x", "1"), ("x", "2")],
        );
    }

    #[test]
    fn replace_collapses_and_moves_to_the_end() {
        let mut headers = map(&[("a", "1"), ("b", "2"), ("a", "3"), (":path", "/"), (":method", "GET")]);
        headers.replace(b"A", b"9").unwrap();
        headers.replace(b":path", b"/n").unwrap();
        check(&headers, &[(":method", "GET"), (":path", "/n"), ("b", "2"), ("a", "9")]);
    }

    #[test]
    fn host_is_the_authority() {
        let mut headers = map(&[("Host", "one")]);
        check(&headers, &[(":authority", "one")]);
        assert_eq!(headers.get(b"HOST").unwrap(), "one");
        headers.remove(b"host");
        check(&headers, &[]);
    }

    #[test]
    fn get_is_the_first_value_and_joined_is_all() {
        let headers = map(&[("x", "1"), ("x", "2")]);
        assert_eq!(headers.get(b"X").unwrap(), "1");
        assert_eq!(headers.joined(b"x").unwrap(), b"1,2");
        assert_eq!(headers.joined(b"y"), None);
    }

    #[test]
    fn control_characters_do_not_reach_the_wire() {
        for bad in ["a\r\nb", "a\0"] {
            assert_eq!(map(&[("x-bad", bad)]).to_http().unwrap_err(), InvalidHeader::Value("x-bad".into()));
        }
        assert_eq!(map(&[("x bad", "")]).to_http().unwrap_err(), InvalidHeader::Name("x bad".into()));
        let mut headers = map(&[("x-bad", "\n"), ("x", "1")]);
        assert_eq!(headers.remove_invalid(), ["x-bad"]);
        check(&headers, &[("x", "1")]);
    }

    #[test]
    fn a_map_does_not_grow_without_bound() {
        let mut headers = HeaderMap::default();
        assert_eq!(headers.add(b"x", &vec![b'v'; MAX_BYTES]), Err(TooLarge));
        assert_eq!((0..=MAX_ENTRIES).find(|_| headers.add(b"x", b"").is_err()), Some(MAX_ENTRIES));
    }

    #[test]
    fn connection_headers_are_not_carried_on() {
        let mut http = http::HeaderMap::new();
        for (k, v) in [("connection", "keep-alive, X-Hop"), ("x-hop", "1"), ("te", "trailers"), ("x", "1")] {
            http.append(k, v.parse().unwrap());
        }
        let mut headers = HeaderMap::default();
        headers.extend_from_http(&http).unwrap();
        check(&headers, &[("te", "trailers"), ("x", "1")]);
    }
}
