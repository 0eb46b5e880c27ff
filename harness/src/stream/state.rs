//! One request as hostcalls see it: its maps, and what each filter may touch right now.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use mesh::model::ProxyKind;

use crate::buffer::Buffer;
use crate::builtin::metadata::DynamicMetadata;
use crate::header_map::HeaderMap;

/// All values a request's plugins may keep with `proxy_set_property`.
pub(crate) const MAX_FILTER_STATE: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// Facts of the proxy that every stream of a server shares.
#[derive(Debug, Default)]
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
    /// What it does in the mesh; `None` in tests only.
    pub(crate) kind: Option<ProxyKind>,
    /// The port of the listener that is stood for, when it is not the one that is listened on.
    pub(crate) port: Option<u16>,
}

#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) source: Option<SocketAddr>,
    /// The client as far as it is known.
    pub(crate) remote: Option<IpAddr>,
    /// The identity in the peer's certificate, with `spiffe://`; `None` when there was no mTLS.
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) connection_id: u64,
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
    pub(crate) filter_state: HashMap<Vec<u8>, Bytes>,
    pub(crate) filter_state_bytes: usize,
    /// What filters say about the request, by filter name.
    pub(crate) dynamic_metadata: DynamicMetadata,
    pub(crate) views: Vec<View>,
    /// Wakes the task that drives the stream.
    pub(crate) waker: Option<Waker>,
    /// A plugin asked for something since the driver last looked.
    pub(crate) woken: bool,
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
    pub(crate) local_reply: Option<LocalReply>,
    pub(crate) resume_request: bool,
    pub(crate) resume_response: bool,
    pub(crate) close: bool,
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
    pub(crate) fn view(&mut self, filter: usize) -> Option<&mut View> {
        self.views.get_mut(filter)
    }

    pub(crate) fn wake(&mut self) {
        self.woken = true;
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
        self.response_headers.as_ref()?.text(":status")?.parse().ok()
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.request_headers.get(b"content-type").is_some_and(|value| {
            value
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
        })
    }
}
