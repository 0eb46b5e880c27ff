//! Blobs: read whole or in part, and forgotten.

use std::io;

use hyper::{HeaderMap, StatusCode};

use crate::digest;
use crate::reply::{Reply, error, reply};
use crate::route::Route;
use crate::server::Shared;

/// Where a blob's bytes are, for all repositories.
pub(crate) fn blob_key(hex: &str) -> String {
    format!("blobs/sha256/{hex}")
}

/// What says that a repository has a blob.
pub(crate) fn link_key(name: &str, hex: &str) -> String {
    format!("repositories/{name}/_blobs/{hex}")
}

pub(crate) fn get(shared: &Shared, route: &Route<'_>, headers: &HeaderMap) -> io::Result<Reply> {
    let Some(hex) = digest::hex(route.last) else {
        return Ok(error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "not a sha256 digest"));
    };
    let linked = shared.store.size(&link_key(route.name, hex))?.is_some();
    let Some(bytes) = shared.store.get(&blob_key(hex))?.filter(|_| linked) else {
        return Ok(error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"));
    };
    let mut fields = vec![
        ("content-type", "application/octet-stream"),
        ("docker-content-digest", route.last),
        ("accept-ranges", "bytes"),
    ];
    let size = bytes.len();
    match headers.get("range").and_then(|range| range.to_str().ok()).map(|range| parse_range(range, size)) {
        None => Ok(reply(StatusCode::OK, &fields, bytes)),
        Some(Some((start, end))) => {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            fields.push(("content-range", &range));
            Ok(reply(StatusCode::PARTIAL_CONTENT, &fields, bytes.slice(start..end)))
        }
        Some(None) => {
            let range = format!("bytes */{size}");
            fields.push(("content-range", &range));
            Ok(reply(StatusCode::RANGE_NOT_SATISFIABLE, &fields, ""))
        }
    }
}

/// `bytes=<start>-[<end>]` as a half-open range.
fn parse_range(range: &str, size: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = start.trim().parse().ok()?;
    let end = match end.trim() {
        "" => size,
        end => end.parse::<usize>().ok()?.saturating_add(1).min(size),
    };
    (start < end).then_some((start, end))
}

pub(crate) fn delete(shared: &Shared, route: &Route<'_>) -> io::Result<Reply> {
    let known = match digest::hex(route.last) {
        Some(hex) => shared.store.delete(&link_key(route.name, hex))?,
        None => false,
    };
    Ok(if known {
        reply(StatusCode::ACCEPTED, &[], "")
    } else {
        error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob() {
        assert_eq!(parse_range("bytes=2-", 5), Some((2, 5)));
        assert_eq!(parse_range("bytes=0-99", 5), Some((0, 5)));
        assert_eq!(parse_range("bytes=1-1", 5), Some((1, 2)));
        for bad in ["bytes=5-", "bytes=3-2", "bytes=-", "items=0-1", "bytes=x-"] {
            assert_eq!(parse_range(bad, 5), None, "{bad}");
        }
        assert_eq!(parse_range(&format!("bytes=0-{}", usize::MAX), 5), Some((0, 5)));
    }
}
