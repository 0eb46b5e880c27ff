//! The upstream when there is none: it answers with the request that reached it, or always the same.
//!
//! The answer is 200 and JSON: `method`, `path`, `authority`, `headers` (pairs in order, without pseudo-headers),
//! `trailers`, `body_size`, and `body` as text, of which the first 64 KiB are kept.

use bytes::Bytes;

use crate::header_map::HeaderMap;
use crate::stream::state::VIA_UPSTREAM;

const MAX_BODY: usize = 64 << 10;

/// The same answer to all requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
pub(crate) struct Echo {
    fixed: Option<Fixed>,
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Vec<u8>,
    size: u64,
}

impl Echo {
    pub(crate) fn new(headers: HeaderMap, fixed: Option<Fixed>) -> Self {
        Self { fixed, headers, trailers: HeaderMap::default(), body: Vec::new(), size: 0 }
    }

    pub(crate) fn data(&mut self, bytes: &[u8]) {
        if self.fixed.is_some() {
            return;
        }
        self.size += bytes.len() as u64;
        self.body.extend_from_slice(&bytes[..bytes.len().min(MAX_BODY - self.body.len())]);
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        self.trailers = trailers;
    }

    pub(crate) fn is_head(&self) -> bool {
        self.headers.text(":method") == Some("HEAD")
    }

    pub(crate) fn status(&self) -> u16 {
        self.fixed.as_ref().map_or(200, |fixed| fixed.status)
    }

    pub(crate) fn content_type(&self) -> &'static str {
        if self.fixed.is_some() { "text/plain" } else { "application/json" }
    }

    /// Envoy's response code details.
    pub(crate) fn details(&self) -> &'static str {
        if self.fixed.is_some() { "direct_response" } else { VIA_UPSTREAM }
    }

    /// The body of the answer.
    pub(crate) fn answer(&self) -> Bytes {
        if let Some(fixed) = &self.fixed {
            return fixed.body.clone();
        }
        let head = |name: &str| self.headers.text(name).unwrap_or_default().as_bytes();
        let mut json = Vec::with_capacity(1024 + self.body.len());
        for (key, value) in [("{\n  \"authority\": ", head(":authority")), (",\n  \"body\": ", &self.body)] {
            json.extend_from_slice(key.as_bytes());
            put_text(&mut json, value);
        }
        json.extend_from_slice(format!(",\n  \"body_size\": {},\n  \"headers\": ", self.size).as_bytes());
        put_pairs(&mut json, &self.headers);
        for (key, value) in [(",\n  \"method\": ", head(":method")), (",\n  \"path\": ", head(":path"))] {
            json.extend_from_slice(key.as_bytes());
            put_text(&mut json, value);
        }
        json.extend_from_slice(b",\n  \"trailers\": ");
        put_pairs(&mut json, &self.trailers);
        json.extend_from_slice(b"\n}\n");
        json.into()
    }
}

/// Headers that are no pseudo-headers, each as a pair.
fn put_pairs(json: &mut Vec<u8>, headers: &HeaderMap) {
    let mut separator: &[u8] = b"[\n    [\n      ";
    for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
        json.extend_from_slice(separator);
        put_text(json, name);
        json.extend_from_slice(b",\n      ");
        put_text(json, value);
        separator = b"\n    ],\n    [\n      ";
    }
    let none = separator.starts_with(b"[");
    json.extend_from_slice(if none { b"[]" } else { b"\n    ]\n  ]" });
}

/// Text as JSON has it, which it nearly always is as it stands.
fn put_text(json: &mut Vec<u8>, text: &[u8]) {
    // Without an early end, so that many bytes are looked at together.
    let odd = |byte: u8| u8::from(!(b' '..=b'~').contains(&byte)) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    if text.iter().fold(0, |found, byte| found | odd(*byte)) == 0 {
        json.push(b'"');
        json.extend_from_slice(text);
        json.push(b'"');
    } else {
        // A vector takes everything.
        let _ = serde_json::to_writer(json, &String::from_utf8_lossy(text));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(headers: &[(&str, &str)], trailers: &[(&str, &str)], body: &[u8]) {
        let map = |pairs: &[(&str, &str)]| {
            let mut map = HeaderMap::default();
            for (name, value) in pairs {
                map.add(name.as_bytes(), value.as_bytes()).unwrap();
            }
            map
        };
        let head = [(":method", "POST"), (":path", "/a?b=\"c\""), (":authority", "host")];
        let mut echo = Echo::new(map(&[&head, headers].concat()), None);
        echo.data(body);
        echo.trailers(map(trailers));
        let expected = json!({
            "method": "POST", "path": "/a?b=\"c\"", "authority": "host", "headers": headers, "trailers": trailers,
            "body_size": body.len(), "body": String::from_utf8_lossy(body),
        });
        assert_eq!(String::from_utf8(echo.answer().to_vec()).unwrap(), format!("{expected:#}\n"));
    }

    #[test]
    fn the_answer_is_the_request_as_json() {
        check(&[], &[], b"");
        check(&[("x-a", "1"), ("x-b", "\\ \" \t ü \u{7f}")], &[("x-t", "")], b"line\none\x00\xff");
        check(&[("x-a", "1")], &[("x-t", "1"), ("x-u", "2")], b"plain");
    }

    #[test]
    fn a_fixed_answer_has_nothing_of_the_request() {
        let fixed = Fixed { status: 404, body: Bytes::from_static(b"none") };
        let mut echo = Echo::new(HeaderMap::default(), Some(fixed));
        echo.data(b"body");
        assert_eq!(
            (echo.status(), echo.content_type(), echo.answer()),
            (404, "text/plain", Bytes::from_static(b"none"))
        );
    }
}
