//! The upstream when there is none: it answers with the request that reached it.
//!
//! The answer is 200 and JSON: `method`, `path`, `authority`, `headers` (pairs in order, without pseudo-headers),
//! `trailers`, `body_size`, and `body` as text, of which the first 64 KiB are kept.

use bytes::Bytes;
use serde_json::{Value, json};

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
        let answer = json!({
            "method": text(":method"),
            "path": text(":path"),
            "authority": text(":authority"),
            "headers": pairs(&self.headers),
            "trailers": pairs(&self.trailers),
            "body_size": self.size,
            "body": String::from_utf8_lossy(&self.body),
        });
        let mut bytes = serde_json::to_vec_pretty(&answer).unwrap_or_default();
        bytes.push(b'\n');
        bytes.into()
    }
}

fn pairs(headers: &HeaderMap) -> Vec<Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().filter(|(k, _)| !k.starts_with(b":")).map(|(k, v)| json!([text(k), text(v)])).collect()
}
