//! The upstream when there is none: it answers with the request that reached it.
//!
//! The answer is 200 and JSON: `method`, `path`, `authority`, `headers` (pairs in order, without pseudo-headers),
//! `trailers`, `body_size`, and `body` as text, of which the first 64 KiB are kept.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::header_map::HeaderMap;

const MAX_BODY: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Echo {
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Vec<u8>,
    size: u64,
}

impl Echo {
    pub(crate) fn new(headers: HeaderMap) -> Self {
        Self { headers, trailers: HeaderMap::default(), body: Vec::new(), size: 0 }
    }

    pub(crate) fn data(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.body.extend_from_slice(&bytes[..bytes.len().min(MAX_BODY - self.body.len())]);
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        self.trailers = trailers;
    }

    pub(crate) fn is_head(&self) -> bool {
        self.headers.text(":method") == Some("HEAD")
    }

    /// The body of the answer.
    pub(crate) fn answer(&self) -> Bytes {
        let text = |name: &str| self.headers.text(name).unwrap_or_default();
        let answer = Answer {
            authority: text(":authority"),
            body: String::from_utf8_lossy(&self.body),
            body_size: self.size,
            headers: Pairs(&self.headers),
            method: text(":method"),
            path: text(":path"),
            trailers: Pairs(&self.trailers),
        };
        let mut bytes = Vec::with_capacity(1024 + self.body.len());
        // What is written is text and numbers, and a vector takes everything.
        let _ = serde_json::to_writer_pretty(&mut bytes, &answer);
        bytes.push(b'\n');
        bytes.into()
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    authority: &'a str,
    body: Cow<'a, str>,
    body_size: u64,
    headers: Pairs<'a>,
    method: &'a str,
    path: &'a str,
    trailers: Pairs<'a>,
}

/// Headers that are no pseudo-headers, each as a pair.
struct Pairs<'a>(&'a HeaderMap);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own = self.0.iter().filter(|(name, _)| !name.starts_with(b":"));
        serializer.collect_seq(own.map(|(name, value)| [String::from_utf8_lossy(name), String::from_utf8_lossy(value)]))
    }
}
