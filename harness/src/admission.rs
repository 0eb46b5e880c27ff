//! The request as Envoy's connection manager presents it to the first filter, or the reason it gets no further.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use http::Version;
use http::request::Parts;

use crate::header_map::{HeaderMap, TooLarge, carried, lists};
use crate::nature::{Nature, Real};
use crate::request_path;
use crate::stream::state::LocalReply;

const MAX_HEADER_BYTES: usize = 60 << 10;
const MAX_HEADERS: usize = 100;

/// Why a request gets no further.
#[derive(Debug)]
pub(crate) enum Rejection {
    Reply(LocalReply),
    /// Nothing is known of the request: Envoy's codec has refused it.
    Early(LocalReply),
    /// What HTTP/2 does where HTTP/1.1 answers 431: the filters never hear of the stream.
    Reset(&'static str),
}

impl Rejection {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Reply(reply) if reply.status == 404)
    }
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
    Rejection::Early(LocalReply::new(431, "Request Header Fields Too Large", "http1.headers_too_large"))
}

fn too_many(version: Version) -> Rejection {
    match too_large(version) {
        Rejection::Early(reply) => {
            Rejection::Early(LocalReply { details: "http1.too_many_headers".to_owned(), ..reply })
        }
        other => other,
    }
}

/// What the connection manager is told about the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    /// It faces strangers (`use_remote_address`), as gateways do.
    pub(crate) gateway: bool,
    pub(crate) peer: Option<IpAddr>,
}

/// Headers that only proxies of the mesh may set.
const INTERNAL: &[&str] = &[
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    // Who the client is, which a connection without a client certificate does not say.
    "x-forwarded-client-cert",
];

/// The same at the edge of the mesh.
const INTERNAL_AT_THE_EDGE: &[&str] = &[
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
];

/// The headers for the filters, and why the request gets no further if it does not.
pub(crate) fn admit(parts: &Parts, edge: Edge, ids: &RequestIds) -> (HeaderMap, Option<Rejection>) {
    let mut headers = HeaderMap::default();
    // HTTP/2 counts the four pseudo-headers, HTTP/1.1 has a line for them.
    let pseudo = if parts.version == Version::HTTP_2 { 4 } else { 0 };
    let filled = fill(&mut headers, parts, edge, ids);
    headers.vouch();
    let rejection = if parts.headers.len() + pseudo > MAX_HEADERS {
        Some(too_many(parts.version))
    } else if filled.is_err() || headers.byte_size() > MAX_HEADER_BYTES {
        Some(too_large(parts.version))
    } else {
        check(&mut headers, parts).err()
    };
    if matches!(rejection, Some(Rejection::Early(_) | Rejection::Reset(_))) {
        headers.clear();
    }
    (headers, rejection)
}

fn fill(headers: &mut HeaderMap, parts: &Parts, edge: Edge, ids: &RequestIds) -> Result<(), TooLarge> {
    let http2 = parts.version == Version::HTTP_2;
    let path = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let (method, scheme) = (parts.method.as_str(), parts.uri.scheme_str());
    // HTTP/1.1 has the authority first and the scheme, unless the target is absolute, last. In which order HTTP/2 had
    // them is not known any more.
    if http2 {
        headers.add(b":method", method.as_bytes())?;
        headers.add(b":scheme", scheme.unwrap_or("http").as_bytes())?;
    }
    // An absolute request target has the last word on the authority.
    match parts.uri.authority() {
        Some(authority) => headers.add(b":authority", authority.as_str().as_bytes())?,
        None => {
            for host in parts.headers.get_all(http::header::HOST) {
                headers.add(b":authority", host.as_bytes())?;
            }
        }
    }
    if let Some(scheme) = scheme.filter(|_| !http2) {
        headers.add(b":scheme", scheme.as_bytes())?;
    }
    headers.add(b":path", path.as_bytes())?;
    if !http2 {
        headers.add(b":method", method.as_bytes())?;
        if scheme.is_none() {
            let forwarded = parts.headers.get("x-forwarded-proto").filter(|_| !edge.gateway);
            let secure = forwarded.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
            headers.add(b":scheme", if secure { b"https" } else { b"http" })?;
        }
    }
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in carried(&parts.headers) {
        match *name {
            // It is the authority already, or has been answered: `100 Continue`.
            http::header::HOST | http::header::EXPECT => {}
            // HTTP/2 may send each cookie by itself, and it is one header again.
            http::header::COOKIE if http2 => cookies.push(value),
            _ if is_internal(name.as_str(), edge) => {}
            _ => headers.add(name.as_str().as_bytes(), value)?,
        }
    }
    if !cookies.is_empty() {
        headers.add(b"cookie", &cookies.join(&b"; "[..]))?;
    }
    if edge.gateway {
        return forwarded_by(headers, edge.peer, ids);
    }
    if headers.get(b"x-forwarded-proto").is_none() {
        headers.add(b"x-forwarded-proto", b"http")?;
    }
    if headers.get(b"x-request-id").is_none() {
        headers.add(b"x-request-id", &ids.next())?;
    }
    Ok(())
}

/// What nobody but the mesh may say.
fn is_internal(name: &str, edge: Edge) -> bool {
    name.starts_with("x-") && (INTERNAL.contains(&name) || (edge.gateway && INTERNAL_AT_THE_EDGE.contains(&name)))
}

/// What a proxy at the edge says of the client, whatever the client said.
fn forwarded_by(headers: &mut HeaderMap, peer: Option<IpAddr>, ids: &RequestIds) -> Result<(), TooLarge> {
    if let Some(peer) = peer {
        headers.add(b"x-forwarded-for", peer.to_string().as_bytes())?;
    }
    headers.set(b"x-forwarded-proto", b"http")?;
    if let Some(peer) = peer {
        headers.set(b"x-envoy-external-address", peer.to_string().as_bytes())?;
    }
    headers.set(b"x-request-id", &ids.next())
}

fn check(headers: &mut HeaderMap, parts: &Parts) -> Result<(), Rejection> {
    if headers.get(b":authority").is_none() {
        return Err(LocalReply::new(400, "", "missing_host_header").into());
    }
    if parts.version < Version::HTTP_11 {
        return Err(Rejection::Early(LocalReply::new(426, "Upgrade Required", "low_version")));
    }
    if is_upgrade(&parts.headers) {
        return Err(LocalReply::new(403, "", "upgrade_failed").into());
    }
    if parts.method == http::Method::CONNECT {
        return Err(LocalReply::new(404, "", "route_not_found").into());
    }
    let path = headers.text(":path");
    if path == Some("*") {
        return Err(LocalReply::new(404, "", "absolute_path_rejected").into());
    }
    if path.is_some_and(request_path::is_normal) {
        return Ok(());
    }
    match path.and_then(request_path::normalize) {
        Some(path) if headers.text(":path") == Some(&path) => Ok(()),
        Some(path) => headers.replace(b":path", path.as_bytes()).map_err(|_| too_large(parts.version)),
        None => Err(LocalReply::new(400, "", "path_normalization_failed").into()),
    }
}

fn is_upgrade(headers: &http::HeaderMap) -> bool {
    let connection = headers.get_all(http::header::CONNECTION);
    // An offer of HTTP/2 is passed over.
    let upgrade = headers.get(http::header::UPGRADE).is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"));
    upgrade && connection.iter().any(|options| lists(options.as_bytes(), "upgrade"))
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Where in a UUID's text each byte is.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// Makes request ids. Randomness is asked for many at a time.
pub(crate) struct RequestIds {
    random: RefCell<([u8; 1024], usize)>,
    nature: Arc<dyn Nature>,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::from(Arc::new(Real) as Arc<dyn Nature>)
    }
}

impl From<Arc<dyn Nature>> for RequestIds {
    fn from(nature: Arc<dyn Nature>) -> Self {
        Self { random: RefCell::new(([0; 1024], 1024)), nature }
    }
}

impl RequestIds {
    /// A version 4 UUID.
    fn next(&self) -> [u8; 36] {
        let (random, used) = &mut *self.random.borrow_mut();
        if *used + 16 > random.len() {
            // A request id is for tracing, not for security: what there is does when there is no randomness.
            let _ = self.nature.random(random);
            *used = 0;
        }
        let mut bytes: [u8; 16] = random.get(*used..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        *used += 16;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut id = [b'-'; 36];
        for (byte, at) in bytes.into_iter().zip(PLACES) {
            id[at] = DIGITS[usize::from(byte >> 4)];
            id[at + 1] = DIGITS[usize::from(byte & 15)];
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_of_version_4_and_each_is_another() {
        let ids = RequestIds::default();
        let made: Vec<String> = (0..200).map(|_| String::from_utf8(ids.next().to_vec()).unwrap()).collect();
        for id in &made {
            let parts: Vec<&str> = id.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts.iter().all(|part| u64::from_str_radix(part, 16).is_ok()), "{id}");
            assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        }
        let mut different = made.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), made.len());
    }
}
