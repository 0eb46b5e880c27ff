//! The request as Envoy's connection manager presents it to the first filter, or the reason it gets no further.

use bytes::Bytes;
use http::Version;
use http::request::Parts;

use crate::header_map::{HeaderMap, TooLarge, lists};
use crate::request_path;
use crate::stream::state::LocalReply;

const MAX_HEADER_BYTES: usize = 60 << 10;
const MAX_HEADERS: usize = 100;

/// Why a request gets no further.
#[derive(Debug)]
pub(crate) enum Rejection {
    Reply(LocalReply),
    /// What HTTP/2 does where HTTP/1.1 answers 431: the filters never hear of the stream.
    Reset(&'static str),
}

impl From<LocalReply> for Rejection {
    fn from(reply: LocalReply) -> Self {
        Self::Reply(reply)
    }
}

/// The property `request.protocol`.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Headers or trailers beyond the limits.
pub(crate) fn too_large(version: Version) -> Rejection {
    if version == Version::HTTP_2 {
        return Rejection::Reset("http2.too_many_headers");
    }
    LocalReply::new(431, "Request Header Fields Too Large", "http1.headers_too_large").into()
}

/// The headers for the filters, and why the request gets no further if it does not.
pub(crate) fn admit(parts: &Parts) -> (HeaderMap, Option<Rejection>) {
    let mut headers = HeaderMap::default();
    // HTTP/2 counts the four pseudo-headers, HTTP/1.1 has a line for them.
    let pseudo = if parts.version == Version::HTTP_2 { 4 } else { 0 };
    let filled = fill(&mut headers, parts);
    if filled.is_err() || headers.byte_size() > MAX_HEADER_BYTES || parts.headers.len() + pseudo > MAX_HEADERS {
        return (headers, Some(too_large(parts.version)));
    }
    let rejection = check(&mut headers, parts).err();
    (headers, rejection)
}

fn fill(headers: &mut HeaderMap, parts: &Parts) -> Result<(), TooLarge> {
    let mut sent = HeaderMap::default();
    sent.extend_from_http(&parts.headers)?;
    // An absolute request target has the last word on the authority.
    let target = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = target.or_else(|| sent.get(b":authority").map(Bytes::as_ref)) {
        headers.add(b":authority", authority)?;
    }
    sent.remove(b":authority");
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    headers.add(b":path", target.as_bytes())?;
    headers.add(b":method", parts.method.as_str().as_bytes())?;
    headers.add(b":scheme", b"http")?;
    // The codec answers it: the body is asked for when it is read.
    sent.remove(b"expect");
    // HTTP/2 may send each cookie by itself, and it is one header again.
    let cookie = (parts.version == Version::HTTP_2).then(|| joined_cookies(&sent)).flatten();
    if cookie.is_some() {
        sent.remove(b"cookie");
    }
    for (name, value) in sent.iter() {
        headers.add(name, value)?;
    }
    if let Some(cookie) = cookie {
        headers.add(b"cookie", &cookie)?;
    }
    let te = parts.headers.get_all(http::header::TE);
    if te.iter().any(|te| lists(te.as_bytes(), "trailers")) {
        headers.add(b"te", b"trailers")?;
    }
    if headers.get(b"x-forwarded-proto").is_none() {
        headers.add(b"x-forwarded-proto", b"http")?;
    }
    if headers.get(b"x-request-id").is_none() {
        headers.add(b"x-request-id", request_id().as_bytes())?;
    }
    Ok(())
}

fn joined_cookies(headers: &HeaderMap) -> Option<Vec<u8>> {
    let cookies: Vec<&[u8]> = headers.iter().filter(|(name, _)| *name == b"cookie").map(|(_, value)| value).collect();
    (!cookies.is_empty()).then(|| cookies.join(&b"; "[..]))
}

fn check(headers: &mut HeaderMap, parts: &Parts) -> Result<(), Rejection> {
    if headers.get(b":authority").is_none() {
        return Err(LocalReply::new(400, "", "missing_host_header").into());
    }
    if parts.version < Version::HTTP_11 {
        return Err(LocalReply::new(426, "Upgrade Required", "low_version").into());
    }
    if is_upgrade(&parts.headers) {
        return Err(LocalReply::new(403, "", "upgrade_failed").into());
    }
    if parts.method == http::Method::CONNECT {
        return Err(LocalReply::new(404, "", "route_not_found").into());
    }
    match headers.text(":path").and_then(request_path::normalize) {
        Some(path) if headers.text(":path") == Some(&path) => Ok(()),
        Some(path) => headers.replace(b":path", path.as_bytes()).map_err(|_| too_large(parts.version)),
        None => Err(LocalReply::new(400, "", "path_normalization_failed").into()),
    }
}

fn is_upgrade(headers: &http::HeaderMap) -> bool {
    let connection = headers.get_all(http::header::CONNECTION);
    headers.contains_key(http::header::UPGRADE) && connection.iter().any(|options| lists(options.as_bytes(), "upgrade"))
}

/// A version 4 UUID.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    // A request id is for tracing, not for security: zeros do when there is no randomness.
    let _ = getrandom::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::module::hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
