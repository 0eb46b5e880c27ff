//! One request as hostcalls see it: its maps, and what each filter may touch right now.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use bytes::Bytes;
use mesh::model::ProxyKind;
use tokio::time::Instant;

use super::metadata::DynamicMetadata;
use crate::buffer::Buffer;
use crate::date;
use crate::exchange::Connection;
use crate::header_map::HeaderMap;
use crate::trace::Recording;
use crate::upstream::Peer;

/// The response code details of a response that is the upstream's.
pub(crate) const VIA_UPSTREAM: &str = "via_upstream";
/// The header `server`.
pub(crate) const SERVER: &str = "istio-envoy";

/// All values a request's plugins may keep with `proxy_set_property`.
const MAX_FILTER_STATE: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Response => "response",
        })
    }
}

/// Facts of the proxy that every stream of a server shares.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ProxyFacts {
    /// The proxy's name: `xds.node.metadata.NAME`.
    pub(crate) name: String,
    /// The proxy's namespace: `xds.node.metadata.NAMESPACE`.
    pub(crate) namespace: String,
    /// The proxy's labels: `xds.node.metadata.LABELS`.
    pub(crate) labels: Vec<(String, String)>,
    /// `xds.listener_direction`: 0 unspecified, 1 inbound, 2 outbound.
    pub(crate) direction: i64,
    /// `xds.cluster_name`
    pub(crate) cluster: String,
    /// `xds.node`, in Envoy's JSON form.
    pub(crate) node: serde_json::Value,
    /// What it does in the mesh; `None` in tests only.
    pub(crate) kind: Option<ProxyKind>,
    /// The port of the listener that is stood for, when it is not the one that is listened on.
    pub(crate) port: Option<u16>,
}

/// What a plugin has said of a property of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Declared {
    /// It is set once.
    pub(crate) read_only: bool,
    /// It is text and not bytes.
    pub(crate) text: bool,
}

/// A request's plugins keep as much as they may.
#[derive(Debug)]
pub(crate) struct TooMuchState;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct StreamState {
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) source: Option<SocketAddr>,
    /// The client as far as it is known.
    pub(crate) remote: Option<IpAddr>,
    /// The identity in the peer's certificate, with `spiffe://`; `None` when there was no mTLS.
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) upstream: Option<Peer>,
    pub(crate) connection_id: u64,
    /// What network filters in front keep of the connection.
    pub(crate) connection: Option<Rc<RefCell<Self>>>,
    /// It is a connection that network filters see, not a request.
    pub(crate) network: bool,
    /// A listener has completed the request's headers.
    pub(crate) admitted: bool,
    pub(crate) protocol: &'static str,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// Set when the stream is over.
    pub(crate) ended: Option<Instant>,
    pub(crate) request_headers: HeaderMap,
    pub(crate) request_trailers: Option<HeaderMap>,
    pub(crate) response_headers: Option<HeaderMap>,
    pub(crate) response_trailers: Option<HeaderMap>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) details: String,
    /// The status that the upstream answered, or that has gone out.
    pub(crate) code: Option<u16>,
    /// [`super::flags`]
    pub(crate) flags: u64,
    /// Why there is no connection to the upstream; empty when there is or nothing is known.
    pub(crate) transport_failure: String,
    /// The filters that changed the bodies last.
    pub(crate) request_body_set_by: Option<usize>,
    pub(crate) response_body_set_by: Option<usize>,
    /// What plugins keep with `proxy_set_property`, and which of it is text.
    pub(crate) filter_state: HashMap<Vec<u8>, Bytes>,
    pub(crate) text_state: HashSet<Vec<u8>>,
    pub(crate) filter_state_bytes: usize,
    /// Objects of Envoy's own, by key, in their serialized form.
    pub(crate) envoy_filter_state: HashMap<Vec<u8>, Bytes>,
    /// What filters say about the request, by filter name.
    pub(crate) dynamic_metadata: DynamicMetadata,
    /// The response's reason phrase, where it is not the status's own.
    pub(crate) reason_phrase: Option<Bytes>,
    /// The connection is to end with this stream.
    pub(crate) drain: bool,
    pub(crate) views: Vec<View>,
    /// Wakes the task that drives the stream.
    pub(crate) waker: Option<Waker>,
    /// A plugin asked for something since the driver last looked.
    pub(crate) woken: bool,
    /// What is recorded of it, if anything is.
    pub(crate) trace: Option<Box<Recording>>,
    /// A plugin asked for something, which may be outside of this stream's own callbacks.
    pub(crate) asked: bool,
}

/// What one filter may touch, and what it asked for that happens once its callback has returned.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a permission or a request of its own")]
pub(crate) struct View {
    pub(crate) request_headers: bool,
    pub(crate) request_trailers: bool,
    pub(crate) response_headers: bool,
    pub(crate) response_trailers: bool,
    pub(crate) request_body: Option<Body>,
    pub(crate) response_body: Option<Body>,
    /// In `on_log` every map is readable and none is writable.
    pub(crate) logging: bool,
    /// The stream has ended and this filter has logged it.
    pub(crate) over: bool,
    pub(crate) local_reply: Option<LocalReply>,
    pub(crate) resume_request: bool,
    pub(crate) resume_response: bool,
    pub(crate) close: bool,
    /// What a network filter may read and write of a connection.
    pub(crate) downstream_data: Option<Body>,
    pub(crate) upstream_data: Option<Body>,
    pub(crate) resume_downstream: bool,
}

/// A body a filter may read and write.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) buffer: Buffer,
    /// The callback was told that this is the end, so that trailers may still be added.
    pub(crate) end_of_stream: bool,
}

/// What `proxy_send_local_response` asked for.
#[derive(Debug, Clone)]
pub(crate) struct LocalReply {
    pub(crate) status: u32,
    pub(crate) details: String,
    pub(crate) headers: Vec<(Bytes, Bytes)>,
    pub(crate) body: Bytes,
    pub(crate) grpc_status: Option<u32>,
}

impl LocalReply {
    /// A reply of the proxy's own.
    pub(crate) fn new(status: u32, body: impl Into<Bytes>, details: impl Into<String>) -> Self {
        Self { status, details: details.into(), headers: Vec::new(), body: body.into(), grpc_status: None }
    }
}

impl StreamState {
    /// Something that begins now and of which nothing is known but its connection.
    pub(crate) fn new(proxy: Arc<ProxyFacts>, connection: &Connection) -> Self {
        Self {
            proxy,
            source: connection.source,
            remote: connection.source.map(|source| source.ip()),
            peer: None,
            destination: connection.destination,
            upstream: None,
            connection_id: connection.id,
            connection: connection.state.clone(),
            network: false,
            admitted: false,
            protocol: "",
            started: Instant::now(),
            started_at: SystemTime::now(),
            ended: None,
            request_headers: HeaderMap::default(),
            request_trailers: None,
            response_headers: None,
            response_trailers: None,
            request_bytes: 0,
            response_bytes: 0,
            details: String::new(),
            code: None,
            flags: 0,
            transport_failure: String::new(),
            request_body_set_by: None,
            response_body_set_by: None,
            filter_state: HashMap::new(),
            text_state: HashSet::new(),
            filter_state_bytes: 0,
            envoy_filter_state: HashMap::new(),
            dynamic_metadata: DynamicMetadata::default(),
            reason_phrase: None,
            drain: false,
            views: Vec::new(),
            waker: None,
            woken: false,
            trace: None,
            asked: false,
        }
    }

    pub(crate) fn view(&mut self, filter: usize) -> Option<&mut View> {
        self.views.get_mut(filter)
    }

    /// Keeps a value for the rest of the request.
    pub(crate) fn keep(&mut self, key: &[u8], value: Bytes) -> Result<(), TooMuchState> {
        let old = self.filter_state.get(key).map_or(0, |old| key.len() + old.len());
        let bytes = self.filter_state_bytes - old + key.len() + value.len();
        if bytes + self.filter_state.len() * 64 > MAX_FILTER_STATE {
            return Err(TooMuchState);
        }
        self.filter_state_bytes = bytes;
        self.filter_state.insert(key.to_vec(), value);
        Ok(())
    }

    pub(crate) fn wake(&mut self) {
        self.woken = true;
        self.asked = true;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn method(&self) -> &str {
        self.request_headers.text(":method").unwrap_or_default()
    }

    /// The path without its query.
    pub(crate) fn path(&self) -> &str {
        let path = self.request_headers.text(":path").unwrap_or_default();
        path.split(['?', '#']).next().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        let status = self.response_headers.as_ref()?.get(b":status")?;
        match status {
            // What it is but for what plugins make of it.
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
                Some(status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
            }
            other => std::str::from_utf8(other).ok()?.parse().ok(),
        }
    }

    /// Makes the response's headers those that went out, as `on_log` reads them.
    pub(super) fn complete_response(&mut self) {
        let Some(headers) = &mut self.response_headers else { return };
        for name in ["connection", "transfer-encoding", "keep-alive", "proxy-connection"] {
            headers.remove(name.as_bytes());
        }
        if headers.get(b"date").is_none() {
            // What does not fit is left out: the map has the same bound for everyone.
            let ended = self.ended.unwrap_or_else(Instant::now);
            let _ = headers.add(b"date", &date::of(self.started_at + (ended - self.started)));
        }
        let _ = headers.set(b"server", SERVER.as_bytes());
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.request_headers.get(b"content-type").is_some_and(|value| {
            value
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
        })
    }
}
