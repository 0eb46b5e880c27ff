//! Properties: paths as Envoy walks them, values as Envoy encodes them.

mod node;
mod value;

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::abi::Status;
use crate::header_map::HeaderMap;
use crate::hostcalls::nanoseconds;
use crate::plugin::Plugin;
use crate::proto;
use crate::stream::state::{ProxyFacts, StreamState};
use tokio::time::Instant;

pub(crate) use value::Value;

/// Whose properties are asked for.
pub(crate) struct Scope<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) proxy: &'a ProxyFacts,
    pub(crate) stream: Option<(&'a StreamState, usize)>,
}

type Found = Result<Value, Status>;

const ABSENT: Found = Err(Status::NotFound);
/// A whole object is asked for where only its members have a serialized form.
const OBJECT: Found = Ok(Value::Object);
/// A message none of whose fields is set.
const EMPTY: Found = Ok(Value::Message(Vec::new()));

/// Reads the property at `path`, whose segments are joined with NUL. One trailing NUL is tolerated, as SDKs add it.
pub(crate) fn get(path: &[u8], scope: &Scope<'_>) -> Found {
    if path.is_empty() {
        return Ok(Value::Null);
    }
    let trimmed = path.strip_suffix(b"\0").unwrap_or(path);
    let segments: Vec<&[u8]> = trimmed.split(|b| *b == 0).collect();
    segments_of(&segments, scope)
}

/// Reads the property at a path of segments.
pub(crate) fn segments_of(segments: &[&[u8]], scope: &Scope<'_>) -> Found {
    let (first, rest) = segments.split_first().ok_or(Status::NotFound)?;
    match (*first, rest) {
        (b"plugin_name", []) => text(&scope.plugin.name),
        (b"plugin_root_id", []) => text(&scope.plugin.root_id),
        (b"plugin_vm_id", []) => text(&scope.plugin.vm.vm_id),
        (b"xds", rest) => xds(rest, scope),
        _ => match scope.stream {
            Some((stream, filter)) => of_stream(first, rest, stream, filter),
            None => ABSENT,
        },
    }
}

fn of_stream(first: &[u8], rest: &[&[u8]], stream: &StreamState, filter: usize) -> Found {
    match (first, rest) {
        (b"request" | b"response", [_, ..]) if stream.network => ABSENT,
        (b"request", rest) => request(rest, stream, filter),
        (b"response", rest) => response(rest, stream, filter),
        (b"source", rest) => address(rest, stream.source),
        (b"destination", rest) => address(rest, stream.destination),
        (b"upstream", rest) => upstream(rest, stream),
        (b"connection", rest) => connection(rest, stream),
        (b"connection_id", []) => unsigned(stream.connection_id),
        (b"metadata", rest) => metadata(rest, stream),
        (b"filter_state", []) => OBJECT,
        (b"upstream_filter_state", []) if stream.upstream.is_some() => OBJECT,
        (b"filter_state", [key]) => match key.strip_prefix(b"wasm.") {
            Some(key) => filter_state(stream, key),
            None => stream.envoy_filter_state.get(*key).map(Value::text).ok_or(Status::NotFound),
        },
        (name, []) => filter_state(stream, name),
        _ => ABSENT,
    }
}

/// What a plugin has kept, as bytes unless it declared them to be text.
fn filter_state(stream: &StreamState, key: &[u8]) -> Found {
    let Some(value) = stream.filter_state.get(key) else {
        // What network filters have kept of the connection is there for its requests.
        return match &stream.connection {
            Some(connection) => filter_state(&*connection.try_borrow().map_err(|_| Status::NotFound)?, key),
            None => ABSENT,
        };
    };
    Ok(if stream.text_state.contains(key) { Value::text(value) } else { Value::Bytes(value.to_vec()) })
}

/// Dynamic metadata: the whole message, or what is at `filter_metadata` and a namespace.
fn metadata(path: &[&[u8]], stream: &StreamState) -> Found {
    let all = &stream.dynamic_metadata;
    match path {
        [] => {
            let mut out = Vec::new();
            for (namespace, fields) in all.iter() {
                let mut entry = Vec::new();
                proto::put_bytes(&mut entry, 1, namespace.as_bytes());
                proto::put_bytes(&mut entry, 2, &proto::json_struct(fields));
                proto::put_bytes(&mut out, 1, &entry);
            }
            Ok(Value::Message(out))
        }
        [b"typed_filter_metadata"] => Ok(Value::Map(Vec::new())),
        [b"filter_metadata"] => {
            let fields = all.iter().map(|(name, fields)| (name.to_owned(), serde_json::Value::Object(fields.clone())));
            Ok(Value::json(&serde_json::Value::Object(fields.collect())))
        }
        [b"filter_metadata", namespace, rest @ ..] => {
            let namespace = std::str::from_utf8(namespace).map_err(|_| Status::NotFound)?;
            let fields = all.get(namespace).ok_or(Status::NotFound)?;
            Value::json(&serde_json::Value::Object(fields.clone())).walk(rest)
        }
        _ => ABSENT,
    }
}

fn upstream(path: &[&[u8]], stream: &StreamState) -> Found {
    match (path, stream.upstream) {
        ([], _) => OBJECT,
        ([b"transport_failure_reason"], None) if stream.transport_failure.is_empty() => ABSENT,
        ([b"transport_failure_reason"], _) => text(&stream.transport_failure),
        (_, None) => ABSENT,
        ([b"locality"], _) => EMPTY,
        ([b"request_attempt_count" | b"num_endpoints"], _) => unsigned(1),
        ([b"local_address"], Some(peer)) => peer.local.map_or(ABSENT, |local| text(&local.to_string())),
        (path, Some(peer)) => address(path, Some(peer.remote)),
    }
}

fn request(path: &[&[u8]], stream: &StreamState, filter: usize) -> Found {
    let headers = &stream.request_headers;
    match path {
        [] => return OBJECT,
        [b"protocol"] => return text(stream.protocol),
        [b"time"] => return Ok(Value::Timestamp(signed(nanoseconds(stream.started_at)))),
        [b"duration"] => return elapsed(stream.started, stream.ended),
        [b"size"] => {
            let declared = headers.text("content-length").and_then(|length| length.parse().ok());
            return int(declared.unwrap_or(stream.request_bytes));
        }
        _ => {}
    }
    // The rest is read from the request's headers, and those are gone once the filter let them pass.
    let readable = stream.views.get(filter).is_some_and(|view| view.request_headers || view.logging);
    if let [b"total_size"] = path {
        let headers = if readable { headers.byte_size() as u64 } else { 0 };
        return int(stream.request_bytes + headers);
    }
    if !readable {
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
        [b"headers_bytes"] => int(headers.byte_size() as u64),
        [b"headers", rest @ ..] => map(rest, Some(headers)),
        _ => ABSENT,
    }
}

fn query(headers: &HeaderMap) -> &str {
    let path = headers.text(":path").unwrap_or_default();
    let path = path.split('#').next().unwrap_or_default();
    path.split_once('?').map_or("", |(_, query)| query)
}

fn response(path: &[&[u8]], stream: &StreamState, filter: usize) -> Found {
    let view = stream.views.get(filter);
    let headers = stream.response_headers.as_ref();
    let headers = headers.filter(|_| view.is_some_and(|view| view.response_headers || view.logging));
    let trailers = stream.response_trailers.as_ref();
    let trailers = trailers.filter(|_| view.is_some_and(|view| view.response_trailers || view.logging));
    match path {
        [] => OBJECT,
        [b"code"] => stream.code.map_or(ABSENT, |code| int(code.into())),
        [b"code_details"] if stream.details.is_empty() && stream.code.is_none() => ABSENT,
        [b"code_details"] => text(&stream.details),
        [b"flags"] => int(stream.flags),
        [b"grpc_status"] => {
            let sent = headers.and_then(|h| h.text("grpc-status")).and_then(|status| status.parse().ok());
            match sent.or_else(|| stream.code.map(|code| grpc_status_of_http(code.into()))) {
                Some(status) => int(status.into()),
                None => ABSENT,
            }
        }
        [b"headers", rest @ ..] => map(rest, headers),
        [b"trailers", rest @ ..] => map(rest, trailers),
        [b"size"] => int(stream.response_bytes),
        [b"total_size"] => int(stream.response_bytes + headers.map_or(0, |headers| headers.byte_size() as u64)),
        [b"headers_bytes"] => headers.map_or(ABSENT, |headers| int(headers.byte_size() as u64)),
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
        [b"mtls"] => Ok(Value::Bool(false)),
        [b"requested_server_name"] => text(""),
        _ => ABSENT,
    }
}

fn xds(path: &[&[u8]], scope: &Scope<'_>) -> Found {
    let proxy = scope.proxy;
    match path {
        [] => OBJECT,
        [b"node", rest @ ..] => node::get(&proxy.node, rest),
        _ => match (scope.stream, path) {
            (None, _) => ABSENT,
            (_, [b"listener_direction"]) => Ok(Value::Int(proxy.direction)),
            (_, [b"filter_chain_name"]) => text(""),
            (_, [b"cluster_name"]) => text(&proxy.cluster),
            (_, [b"route_name"]) => text("default"),
            (_, [b"virtual_host_name"]) if proxy.direction == 1 => {
                text(&format!("inbound|http|{}", proxy.port.unwrap_or(80)))
            }
            (_, [b"virtual_host_name"]) => text("*:*"),
            (_, [b"listener_metadata" | b"cluster_metadata" | b"route_metadata" | b"virtual_host_metadata"]) => EMPTY,
            _ => ABSENT,
        },
    }
}

fn address(path: &[&[u8]], address: Option<SocketAddr>) -> Found {
    match (path, address) {
        ([], _) => OBJECT,
        ([b"address"], Some(address)) => text(&address.to_string()),
        ([b"port"], Some(address)) => int(address.port().into()),
        _ => ABSENT,
    }
}

fn map(path: &[&[u8]], headers: Option<&HeaderMap>) -> Found {
    match path {
        [] => Ok(Value::Map(headers.map(joined).unwrap_or_default())),
        [name] => {
            headers.and_then(|headers| headers.joined(name)).map(|value| Value::text(&value)).ok_or(Status::NotFound)
        }
        _ => ABSENT,
    }
}

/// Each name once, with all its values.
fn joined(headers: &HeaderMap) -> Vec<(Vec<u8>, Value)> {
    let mut fields: Vec<(Vec<u8>, Value)> = Vec::new();
    let mut places = HashMap::new();
    for (name, value) in headers.iter() {
        let place = *places.entry(name).or_insert(fields.len());
        match fields.get_mut(place) {
            Some((_, Value::Text(text))) => {
                text.push(b',');
                text.extend_from_slice(value);
            }
            _ => fields.push((name.to_vec(), Value::text(value))),
        }
    }
    fields
}

fn header(headers: &HeaderMap, name: &str) -> Found {
    headers.get(name.as_bytes()).map(Value::text).ok_or(Status::NotFound)
}

#[expect(clippy::unnecessary_wraps, reason = "what a property is found to be")]
fn text(value: &str) -> Found {
    Ok(Value::text(value))
}

#[expect(clippy::unnecessary_wraps, reason = "what a property is found to be")]
fn unsigned(value: u64) -> Found {
    Ok(Value::Uint(value))
}

#[expect(clippy::unnecessary_wraps, reason = "what a property is found to be")]
fn int(value: u64) -> Found {
    Ok(Value::Int(signed(value)))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn elapsed(from: Instant, to: Option<Instant>) -> Found {
    let to = to.ok_or(Status::NotFound)?;
    Ok(Value::Duration(i64::try_from(to.duration_since(from).as_nanos()).unwrap_or(i64::MAX)))
}
