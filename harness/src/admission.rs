//! The request as Envoy's connection manager presents it to the first filter, or the reason it gets no further.

use std::net::IpAddr;

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
pub(crate) fn admit(parts: &Parts, edge: Edge) -> (HeaderMap, Option<Rejection>) {
    let mut headers = HeaderMap::default();
    // HTTP/2 counts the four pseudo-headers, HTTP/1.1 has a line for them.
    let pseudo = if parts.version == Version::HTTP_2 { 4 } else { 0 };
    let filled = fill(&mut headers, parts, edge);
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

fn fill(headers: &mut HeaderMap, parts: &Parts, edge: Edge) -> Result<(), TooLarge> {
    let mut sent = HeaderMap::default();
    sent.extend_from_http(&parts.headers)?;
    // An absolute request target has the last word on the authority.
    let target = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let authority = target.or_else(|| sent.get(b":authority").map(Bytes::as_ref));
    let path = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let (method, scheme) = (parts.method.as_str(), parts.uri.scheme_str());
    // HTTP/1.1 has the authority first and the scheme, unless the target is absolute, last. In which order HTTP/2 had
    // them is not known any more.
    let pseudo = [
        (":method", (parts.version == Version::HTTP_2).then_some(method.as_bytes())),
        (":scheme", scheme.filter(|_| parts.version == Version::HTTP_2).map(str::as_bytes)),
        (":authority", authority),
        (":scheme", scheme.filter(|_| parts.version != Version::HTTP_2).map(str::as_bytes)),
        (":path", Some(path.as_bytes())),
        (":method", (parts.version != Version::HTTP_2).then_some(method.as_bytes())),
    ];
    for (name, value) in pseudo {
        if let Some(value) = value {
            headers.add(name.as_bytes(), value)?;
        }
    }
    sent.remove(b":authority");
    // It has been answered: `100 Continue`.
    sent.remove(b"expect");
    let strip = INTERNAL.iter().chain(INTERNAL_AT_THE_EDGE.iter().filter(|_| edge.gateway));
    strip.for_each(|name| sent.remove(name.as_bytes()));
    let forwarded = sent.text("x-forwarded-proto").filter(|_| !edge.gateway);
    if scheme.is_none() {
        let https = forwarded.is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        headers.add(b":scheme", if https { b"https" } else { b"http" })?;
    }
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
    if edge.gateway {
        forwarded_by(headers, edge.peer)?;
    } else {
        if headers.get(b"x-forwarded-proto").is_none() {
            headers.add(b"x-forwarded-proto", b"http")?;
        }
        if headers.get(b"x-request-id").is_none() {
            headers.add(b"x-request-id", request_id().as_bytes())?;
        }
    }
    Ok(())
}

/// What a proxy at the edge says of the client, whatever the client said.
fn forwarded_by(headers: &mut HeaderMap, peer: Option<IpAddr>) -> Result<(), TooLarge> {
    if let Some(peer) = peer {
        headers.add(b"x-forwarded-for", peer.to_string().as_bytes())?;
    }
    headers.set(b"x-forwarded-proto", b"http")?;
    if let Some(peer) = peer {
        headers.set(b"x-envoy-external-address", peer.to_string().as_bytes())?;
    }
    headers.set(b"x-request-id", request_id().as_bytes())
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
        return Err(Rejection::Early(LocalReply::new(426, "Upgrade Required", "low_version")));
    }
    if is_upgrade(&parts.headers) {
        return Err(LocalReply::new(403, "", "upgrade_failed").into());
    }
    if parts.method == http::Method::CONNECT {
        return Err(LocalReply::new(404, "", "route_not_found").into());
    }
    if headers.text(":path") == Some("*") {
        return Err(LocalReply::new(404, "", "absolute_path_rejected").into());
    }
    match headers.text(":path").and_then(request_path::normalize) {
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
