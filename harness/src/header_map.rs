//! Headers as Envoy keeps them: ordered, lower-case, pseudo-headers first, some of them single-valued.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

/// A guest cannot make a map larger than this many bytes of keys and values.
const MAX_BYTES: usize = 4 << 20;
/// A guest cannot make a map longer than this.
const MAX_ENTRIES: usize = 8192;
/// What a map has room for at first; an ordinary request or response needs no more.
const ROOM: (usize, usize) = (16, 1024);

/// Headers of which Envoy keeps one entry: adding a second value joins it with a comma.
fn is_inline(name: &[u8]) -> bool {
    matches!(
        name,
        b"accept"
            | b"accept-encoding"
            | b"access-control-allow-credentials"
            | b"access-control-allow-headers"
            | b"access-control-allow-methods"
            | b"access-control-allow-origin"
            | b"access-control-expose-headers"
            | b"access-control-max-age"
            | b"access-control-request-headers"
            | b"access-control-request-method"
            | b"age"
            | b"authorization"
            | b"cache-control"
            | b"connection"
            | b"content-encoding"
            | b"content-length"
            | b"content-type"
            | b"date"
            | b"etag"
            | b"expect"
            | b"expires"
            | b"grpc-message"
            | b"grpc-status"
            | b"grpc-timeout"
            | b"if-match"
            | b"if-modified-since"
            | b"if-none-match"
            | b"if-unmodified-since"
            | b"keep-alive"
            | b"last-modified"
            | b"location"
            | b"origin"
            | b"pragma"
            | b"proxy-connection"
            | b"proxy-status"
            | b"referer"
            | b"server"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
            | b"user-agent"
            | b"vary"
            | b"via"
            | b"x-client-trace-id"
            | b"x-envoy-upstream-service-time"
            | b"x-forwarded-client-cert"
            | b"x-forwarded-for"
            | b"x-forwarded-host"
            | b"x-forwarded-proto"
            | b"x-request-id"
    )
}

/// Headers that belong to one connection: the codecs write them, a request never carries them on, and a response only
/// to the filters.
fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade")
}

/// Names and values one after the other in one piece of memory, so that a header costs no allocation of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeaderMap {
    entries: Vec<Entry>,
    text: Vec<u8>,
    /// How much of `text` is in use.
    bytes: usize,
    /// Something was put in that need not be fit for the wire.
    unchecked: bool,
    /// Another kind of map, for callbacks that are driven by hand: sorted, names as they were first written, one value
    /// each, nothing renamed.
    sorted: bool,
}

/// Where a header is in the text: the name's place and length, the value's place and length.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: (u32, u32),
    value: (u32, u32),
}

fn range((at, len): (u32, u32)) -> Range<usize> {
    at as usize..at as usize + len as usize
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
    /// A map that is sorted and has one value for each name.
    pub(crate) fn sorted() -> Self {
        Self { sorted: true, ..Self::default() }
    }

    /// What a guest is told of its size: the bytes, as Envoy does, or of a sorted map the number of its entries.
    pub(crate) fn told_size(&self) -> usize {
        if self.sorted { self.entries.len() } else { self.bytes }
    }

    fn canonical<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        if self.sorted { name } else { canonical(name) }
    }

    /// Adds to a sorted map: a second value is joined with the first.
    fn add_sorted(&mut self, name: &[u8], value: &[u8]) {
        if let Some(at) = self.position(name) {
            let joined = match self.value(&self.entries[at]) {
                [] => value.to_vec(),
                first => [first, b", ", value].concat(),
            };
            self.give(at, &joined);
            return;
        }
        let lower = name.to_ascii_lowercase();
        let at = self.entries.partition_point(|entry| self.name(entry).to_ascii_lowercase() < lower);
        let entry = Entry { name: self.append(name), value: self.append(value) };
        self.bytes += name.len() + value.len();
        self.entries.insert(at, entry);
    }

    /// Gives an entry another value.
    fn give(&mut self, at: usize, value: &[u8]) {
        self.make_room();
        self.bytes = self.bytes - self.entries[at].value.1 as usize + value.len();
        self.entries[at].value = self.append(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sum of key and value lengths.
    pub(crate) fn byte_size(&self) -> usize {
        self.bytes
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.text[range(entry.name)]
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        &self.text[range(entry.value)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.entries.iter().map(|entry| (self.name(entry), self.value(entry)))
    }

    fn is_named(&self, entry: &Entry, name: &[u8]) -> bool {
        // Other names nearly always differ in length, or at their end.
        entry.name.1 as usize == name.len() && {
            let own = self.name(entry);
            own == name
                || ((self.sorted || own.last() == name.last().map(u8::to_ascii_lowercase).as_ref())
                    && own.eq_ignore_ascii_case(name))
        }
    }

    /// Where the first value of `name` is.
    fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| self.is_named(entry, name))
    }

    /// The first value of `name`, which is matched whatever its case.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let name = self.canonical(name);
        self.entries.iter().find(|entry| self.is_named(entry, name)).map(|entry| self.value(entry))
    }

    /// The first value of `name` as text, or nothing when it is not text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of `name`, in order.
    pub(crate) fn values(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let name = self.canonical(name);
        self.entries.iter().filter(move |entry| self.is_named(entry, name)).map(|entry| self.value(entry))
    }

    /// The entry at an index.
    pub(crate) fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(index).map(|entry| (self.name(entry), self.value(entry)))
    }

    /// All values of `name`, joined with commas.
    pub(crate) fn joined(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let mut values = self.values(name);
        let mut all = Cow::Borrowed(values.next()?);
        for value in values {
            let all = all.to_mut();
            all.push(b',');
            all.extend_from_slice(value);
        }
        Some(all)
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        let name = self.canonical(name);
        if self.bytes + name.len() + value.len() > MAX_BYTES || self.entries.len() >= MAX_ENTRIES {
            return Err(TooLarge);
        }
        self.make_room();
        if self.sorted {
            self.add_sorted(name, value);
            return Ok(());
        }
        let name = self.append(name);
        self.text[range(name)].make_ascii_lowercase();
        let key = &self.text[range(name)];
        let pseudo = key.starts_with(b":");
        if (pseudo || is_inline(key))
            && let Some(existing) = self.position(key)
        {
            self.text.truncate(name.0 as usize);
            self.join(existing, value);
            return Ok(());
        }
        let value = self.append(value);
        self.bytes += (name.1 + value.1) as usize;
        let end = if pseudo { self.pseudo_count() } else { self.entries.len() };
        self.entries.insert(end, Entry { name, value });
        Ok(())
    }

    /// Adds a value to an entry's own.
    fn join(&mut self, entry: usize, value: &[u8]) {
        let existing = self.entries[entry].value;
        let at = self.append(&[]).0;
        self.text.extend_from_within(range(existing));
        if existing.1 > 0 {
            self.text.push(b',');
        }
        self.text.extend_from_slice(value);
        let len = length(self.text.len()) - at;
        self.bytes += (len - existing.1) as usize;
        self.entries[entry].value = (at, len);
    }

    fn append(&mut self, bytes: &[u8]) -> (u32, u32) {
        self.unchecked = true;
        let at = length(self.text.len());
        self.text.extend_from_slice(bytes);
        (at, length(bytes.len()))
    }

    /// Makes room for more, at first what a message usually needs, later what is no longer in use.
    fn make_room(&mut self) {
        if self.text.capacity() == 0 {
            self.entries.reserve(ROOM.0);
            self.text.reserve(ROOM.1);
        } else if self.text.len() > 2 * self.bytes + 4 * ROOM.1 {
            let mut text = Vec::with_capacity(self.bytes * 2);
            let mut moved = |from: (u32, u32)| {
                let at = length(text.len());
                text.extend_from_slice(&self.text[range(from)]);
                (at, from.1)
            };
            for entry in &mut self.entries {
                *entry = Entry { name: moved(entry.name), value: moved(entry.value) };
            }
            self.text = text;
        }
    }

    /// Removes every entry of `name` and adds one, which thereby moves to the end.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        if self.bytes + name.len() + value.len() > MAX_BYTES {
            return Err(TooLarge);
        }
        if self.sorted
            && let Some(at) = self.position(name)
        {
            self.give(at, value);
            return Ok(());
        }
        self.remove(name);
        self.add(name, value)
    }

    /// Gives a single-valued header its value where it stands, or adds it.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        let Some(entry) = self.position(self.canonical(name)) else { return self.add(name, value) };
        let bytes = self.bytes - self.entries[entry].value.1 as usize + value.len();
        if bytes > MAX_BYTES {
            return Err(TooLarge);
        }
        self.make_room();
        self.bytes = bytes;
        self.entries[entry].value = self.append(value);
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        let name = self.canonical(name);
        self.retain(|key, _| !key.eq_ignore_ascii_case(name));
    }

    fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let Self { entries, text, bytes, .. } = self;
        entries.retain(|entry| {
            let keep = keep(&text[range(entry.name)], &text[range(entry.value)]);
            if !keep {
                *bytes -= (entry.name.1 + entry.value.1) as usize;
            }
            keep
        });
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.text.clear();
        self.bytes = 0;
    }

    fn pseudo_count(&self) -> usize {
        self.iter().take_while(|(k, _)| k.starts_with(b":")).count()
    }

    /// Takes over what a peer sent, except what belonged to the connection only. Of `te`, `trailers` is passed on.
    pub(crate) fn extend_from_http(&mut self, headers: &http::HeaderMap) -> Result<(), TooLarge> {
        carried(headers).try_for_each(|(name, value)| self.add(name.as_str().as_bytes(), value))
    }

    /// The headers for the wire: no pseudo-headers, nothing that belongs to a connection.
    pub(crate) fn to_http(&self) -> Result<http::HeaderMap, InvalidHeader> {
        let mut headers = http::HeaderMap::with_capacity(self.entries.len());
        let text = Bytes::copy_from_slice(&self.text);
        for entry in &self.entries {
            let name = self.name(entry);
            if name.starts_with(b":") || is_hop_by_hop(name) {
                continue;
            }
            let key = HeaderName::from_bytes(name).map_err(|_| InvalidHeader::Name(lossy(name)))?;
            let value = HeaderValue::from_maybe_shared(text.slice(range(entry.value)));
            headers.append(key, value.map_err(|_| InvalidHeader::Value(lossy(name)))?);
        }
        Ok(headers)
    }

    /// All that is in it comes from `http`'s own types, or is the proxy's.
    pub(crate) fn vouch(&mut self) {
        self.unchecked = false;
    }

    /// Whether [`Self::to_http`] succeeds.
    pub(crate) fn check(&self) -> Result<(), InvalidHeader> {
        if !self.unchecked {
            return Ok(());
        }
        for (name, value) in self.iter() {
            if name.starts_with(b":") || is_hop_by_hop(name) {
                continue;
            }
            if !is_name(name) {
                return Err(InvalidHeader::Name(lossy(name)));
            }
            if !is_value(value) {
                return Err(InvalidHeader::Value(lossy(name)));
            }
        }
        Ok(())
    }

    /// Drops the headers that must not be put on the wire and returns their names.
    pub(crate) fn remove_invalid(&mut self) -> Vec<String> {
        let mut dropped = Vec::new();
        self.retain(|name, value| {
            let valid = name.starts_with(b":") || (is_name(name) && is_value(value));
            if !valid {
                dropped.push(lossy(name));
            }
            valid
        });
        dropped
    }
}

/// What a peer sent, except what belongs to the connection only.
pub(crate) fn carried(headers: &http::HeaderMap) -> impl Iterator<Item = (&HeaderName, &[u8])> {
    let connection = headers.contains_key(http::header::CONNECTION);
    headers.iter().filter_map(move |(name, value)| {
        if *name == http::header::TE {
            return lists(value.as_bytes(), "trailers").then_some((name, &b"trailers"[..]));
        }
        let listed = || {
            let mut connection = headers.get_all(http::header::CONNECTION).iter();
            *name != http::header::HOST && connection.any(|options| lists(options.as_bytes(), name.as_str()))
        };
        let kept = !(is_hop_by_hop(name.as_str().as_bytes()) || (connection && listed()));
        kept.then_some((name, value.as_bytes()))
    })
}

/// Whether `http` takes it for a name. It has no way to ask without making one.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() < 1 << 16 && name.iter().fold(true, |token, byte| token & TOKEN[usize::from(*byte)])
}

/// Which bytes a name may have.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let special = matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        table[byte as usize] = special || byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Whether `http` takes it for a value.
fn is_value(value: &[u8]) -> bool {
    // Without an early end, so that many bytes are looked at together.
    let control = |byte: u8| u8::from(byte < b' ') & u8::from(byte != b'\t') | u8::from(byte == 127);
    value.iter().fold(0, |found, byte| found | control(*byte)) == 0
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A map's text stays far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
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
        assert_eq!(headers.get(b"HOST").unwrap(), b"one");
        headers.remove(b"host");
        check(&headers, &[]);
    }

    #[test]
    fn get_is_the_first_value_and_joined_is_all() {
        let headers = map(&[("x", "1"), ("x", "2")]);
        assert_eq!(headers.get(b"X").unwrap(), b"1");
        assert_eq!(headers.joined(b"x").unwrap().as_ref(), b"1,2");
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
    fn what_is_checked_is_what_http_takes() {
        for byte in 0..=u8::MAX {
            let text = [b'a', byte];
            let name = HeaderName::from_bytes(&text).is_ok();
            assert_eq!(is_name(&text), name, "{byte}");
            let value = HeaderValue::from_bytes(&text).is_ok();
            assert_eq!(is_value(&text), value, "{byte}");
        }
        for length in [0, (1 << 16) - 1, 1 << 16] {
            let name = vec![b'a'; length];
            assert_eq!(is_name(&name), HeaderName::from_bytes(&name).is_ok(), "{length}");
        }
        for headers in [map(&[("x-bad", "a\nb")]), map(&[("x bad", "")]), map(&[("te", "\n"), ("x", "1")])] {
            assert_eq!(headers.check().err(), headers.to_http().err());
        }
    }

    #[test]
    fn a_sorted_map_keeps_names_as_they_are_and_joins_values() {
        let mut headers = HeaderMap::sorted();
        for (name, value) in [("b", "2"), ("Host", "h"), ("A", "1"), ("B", "3"), ("c", "")] {
            headers.add(name.as_bytes(), value.as_bytes()).unwrap();
        }
        check(&headers, &[("A", "1"), ("b", "2, 3"), ("c", ""), ("Host", "h")]);
        assert_eq!((headers.told_size(), headers.get(b":authority")), (4, None));
        headers.replace(b"a", b"longer").unwrap();
        headers.remove(b"HOST");
        check(&headers, &[("A", "longer"), ("b", "2, 3"), ("c", "")]);
    }

    #[test]
    fn a_map_that_is_changed_for_ever_takes_no_more_memory() {
        let mut headers = map(&[("x-kept", "kept"), (":path", "/")]);
        for round in 0..10_000 {
            headers.replace(b"x-often", round.to_string().as_bytes()).unwrap();
            headers.set(b":path", format!("/{round}").as_bytes()).unwrap();
        }
        check(&headers, &[(":path", "/9999"), ("x-kept", "kept"), ("x-often", "9999")]);
        assert!(headers.text.capacity() < 16 << 10, "{}", headers.text.capacity());
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
