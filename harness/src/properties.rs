//! Properties: paths as Envoy walks them, values as Envoy encodes them.

use std::net::SocketAddr;
use std::time::Instant;

use crate::abi::{Status, pairs};
use crate::builtin::metadata;
use crate::header_map::HeaderMap;
use crate::hostcalls::nanoseconds;
use crate::plugin::Plugin;
use crate::stream::state::StreamState;

/// Whose properties are asked for.
pub(crate) struct Scope<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) stream: Option<(&'a StreamState, usize)>,
}

type Found = Result<Vec<u8>, Status>;

const ABSENT: Found = Err(Status::NotFound);
/// A whole object is asked for where only its members have a serialized form.
const OBJECT: Found = Err(Status::SerializationFailure);

/// Reads the property at `path`, whose segments are joined with NUL. One trailing NUL is tolerated, as SDKs add it.
pub(crate) fn get(path: &[u8], scope: &Scope<'_>) -> Found {
    let trimmed = path.strip_suffix(b"\0").unwrap_or(path);
    let segments: Vec<&[u8]> = trimmed.split(|b| *b == 0).collect();
    let (first, rest) = segments.split_first().ok_or(Status::NotFound)?;
    match (*first, rest) {
        (b"plugin_name", []) => text(&scope.plugin.name),
        (b"plugin_root_id", []) => text(&scope.plugin.root_id),
        (b"plugin_vm_id", []) => text(&scope.plugin.vm.vm_id),
        _ => match scope.stream {
            Some((stream, filter)) => of_stream(trimmed, first, rest, stream, filter),
            None => ABSENT,
        },
    }
}

fn of_stream(path: &[u8], first: &[u8], rest: &[&[u8]], stream: &StreamState, filter: usize) -> Found {
    match (first, rest) {
        (b"request", rest) => request(rest, stream, filter),
        (b"response", rest) => response(rest, stream),
        (b"source", rest) => address(rest, stream.source),
        (b"destination", rest) => address(rest, stream.destination),
        (b"upstream", rest) => match stream.upstream {
            None if rest.is_empty() => OBJECT,
            None => ABSENT,
            upstream => address(rest, upstream),
        },
        (b"connection", rest) => connection(rest, stream),
        (b"connection_id", []) => unsigned(stream.connection_id),
        (b"metadata", rest) => metadata::property(&stream.dynamic_metadata, rest)
            .map_err(|object| if object { Status::SerializationFailure } else { Status::NotFound }),
        (b"xds", rest) => xds(rest, stream),
        (b"filter_state", []) => OBJECT,
        (b"filter_state", [key]) => {
            let key = key.strip_prefix(b"wasm.").ok_or(Status::NotFound)?;
            stream.filter_state.get(key).map(|value| value.to_vec()).ok_or(Status::NotFound)
        }
        (_, []) => stream.filter_state.get(path).map(|value| value.to_vec()).ok_or(Status::NotFound),
        _ => ABSENT,
    }
}

fn request(path: &[&[u8]], stream: &StreamState, filter: usize) -> Found {
    let headers = &stream.request_headers;
    match path {
        [] => return OBJECT,
        [b"protocol"] => return text(stream.protocol),
        [b"time"] => return unsigned(nanoseconds(stream.started_at)),
        [b"duration"] => return elapsed(stream.started, stream.ended),
        [b"size"] => {
            let declared = headers.text("content-length").and_then(|length| length.parse().ok());
            return unsigned(declared.unwrap_or(stream.request_bytes));
        }
        [b"total_size"] => return unsigned(stream.request_bytes + headers.byte_size() as u64),
        _ => {}
    }
    // The rest is read from the request's headers, and those are gone once the filter let them pass.
    if !stream.views.get(filter).is_some_and(|view| view.request_headers || view.logging) {
        return ABSENT;
    }
    match path {
        [b"path"] => header(headers, ":path"),
        [b"url_path"] => text(stream.path()),
        [b"host"] => header(headers, ":authority"),
        [b"scheme"] => header(headers, ":scheme"),
        [b"method"] => header(headers, ":method"),
        [b"referer"] => header(headers, "referer"),
        [b"useragent"] => header(headers, "user-agent"),
        [b"id"] => header(headers, "x-request-id"),
        [b"query"] => text(query(headers)),
        [b"headers_bytes"] => unsigned(headers.byte_size() as u64),
        [b"headers", rest @ ..] => map(rest, Some(headers)),
        _ => ABSENT,
    }
}

fn query(headers: &HeaderMap) -> &str {
    let path = headers.text(":path").unwrap_or_default();
    let path = path.split('#').next().unwrap_or_default();
    path.split_once('?').map_or("", |(_, query)| query)
}

fn response(path: &[&[u8]], stream: &StreamState) -> Found {
    let headers = stream.response_headers.as_ref();
    match path {
        [] => OBJECT,
        [b"code"] => stream.status().map_or(ABSENT, |code| unsigned(code.into())),
        [b"code_details"] if stream.details.is_empty() => ABSENT,
        [b"code_details"] => text(&stream.details),
        [b"flags"] => unsigned(0),
        [b"grpc_status"] => {
            let sent = headers.and_then(|h| h.text("grpc-status")).and_then(|status| status.parse().ok());
            match sent.or_else(|| stream.status().map(|code| grpc_status_of_http(code.into()))) {
                Some(status) => unsigned(status.into()),
                None => ABSENT,
            }
        }
        [b"headers", rest @ ..] => map(rest, headers),
        [b"trailers", rest @ ..] => map(rest, stream.response_trailers.as_ref()),
        [b"size"] => unsigned(stream.response_bytes),
        [b"total_size"] => unsigned(stream.response_bytes + headers.map_or(0, |headers| headers.byte_size() as u64)),
        [b"headers_bytes"] => headers.map_or(ABSENT, |headers| unsigned(headers.byte_size() as u64)),
        [b"backend_latency"] => elapsed(stream.started, stream.ended),
        _ => ABSENT,
    }
}

/// The gRPC status that stands for an HTTP status.
pub(crate) fn grpc_status_of_http(code: u32) -> u32 {
    match code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn connection(path: &[&[u8]], stream: &StreamState) -> Found {
    match path {
        [] => OBJECT,
        [b"id"] => unsigned(stream.connection_id),
        [b"mtls"] => Ok(vec![0]),
        [b"requested_server_name"] => text(""),
        _ => ABSENT,
    }
}

fn xds(path: &[&[u8]], stream: &StreamState) -> Found {
    let proxy = &stream.proxy;
    match path {
        [] | [b"node"] | [b"node", b"metadata"] => OBJECT,
        [b"node", b"id" | b"cluster"] => Ok(format!("{}.{}", proxy.name, proxy.namespace).into_bytes()),
        [b"node", b"metadata", b"NAME"] => text(&proxy.name),
        [b"node", b"metadata", b"NAMESPACE"] => text(&proxy.namespace),
        [b"node", b"metadata", b"LABELS", label] => {
            let found = proxy.labels.iter().find(|(name, _)| name.as_bytes() == *label);
            found.map_or(ABSENT, |(_, value)| text(value))
        }
        [b"cluster_name"] => text(&proxy.cluster),
        [b"route_name"] => text("default"),
        [b"virtual_host_name"] => text("*:*"),
        [b"filter_chain_name"] => text(""),
        [b"listener_direction"] => Ok(proxy.direction.to_le_bytes().to_vec()),
        _ => ABSENT,
    }
}

fn address(path: &[&[u8]], address: Option<SocketAddr>) -> Found {
    match (path, address) {
        ([], _) => OBJECT,
        ([b"address"], Some(address)) => Ok(address.to_string().into_bytes()),
        ([b"port"], Some(address)) => unsigned(address.port().into()),
        _ => ABSENT,
    }
}

fn map(path: &[&[u8]], headers: Option<&HeaderMap>) -> Found {
    let headers = headers.ok_or(Status::NotFound)?;
    match path {
        [] => Ok(pairs::serialize(headers.iter())),
        [name] => headers.joined(name).ok_or(Status::NotFound),
        _ => ABSENT,
    }
}

fn header(headers: &HeaderMap, name: &str) -> Found {
    headers.get(name.as_bytes()).map(|value| value.to_vec()).ok_or(Status::NotFound)
}

#[expect(clippy::unnecessary_wraps, reason = "what a property is found to be")]
fn text(value: &str) -> Found {
    Ok(value.as_bytes().to_vec())
}

/// Envoy's int and uint are the same eight bytes for everything that occurs here.
#[expect(clippy::unnecessary_wraps, reason = "what a property is found to be")]
fn unsigned(value: u64) -> Found {
    Ok(value.to_le_bytes().to_vec())
}

fn elapsed(from: Instant, to: Option<Instant>) -> Found {
    let to = to.ok_or(Status::NotFound)?;
    unsigned(u64::try_from(to.duration_since(from).as_nanos()).unwrap_or(u64::MAX))
}
