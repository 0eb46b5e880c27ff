//! Callbacks about what a plugin asked others: they come from tasks of the worker, never while a guest is running.

use std::net::SocketAddr;

use bytes::Bytes;

use super::Vm;
use crate::abi::Status;
use crate::callouts::{Kind, Received};
use crate::cluster::{Reset, Response};
use crate::grpc::Event;
use crate::header_map::HeaderMap;

const INTERNAL: u32 = 13;

fn count(map: Option<&HeaderMap>) -> u32 {
    map.map_or(0, |map| super::u32_len(map.len()))
}

impl Vm {
    /// Runs `f` with `received` in reach of the root's hostcalls.
    fn with<T>(&mut self, root: u32, received: Received, f: impl FnOnce(&mut Self) -> T) -> T {
        self.store.data_mut().callouts.received = (root, received);
        let result = f(self);
        self.store.data_mut().callouts.received = (0, Received::Nothing);
        result
    }

    fn status(&mut self, root: u32, code: Option<u32>, message: &str) {
        if let Some(root) = self.store.data_mut().root_by_id(root) {
            root.status = (code.unwrap_or(root.status.0), message.to_owned());
        }
    }

    /// A response, or none because it broke off: then the maps are empty, and the status says so.
    pub(crate) fn http_call_response(&mut self, token: u32, response: Result<Response, Reset>) {
        let Some(pending) = self.store.data_mut().callouts.remove(token) else { return };
        let root = pending.root;
        let (status, failure) = match &response {
            Ok(response) => (response.headers.text(":status").and_then(|status| status.parse().ok()), None),
            Err(Reset) => (None, Some("reset")),
        };
        self.store.data_mut().record_answer(token, status, failure);
        let (sizes, received) = match response {
            Ok(response) => {
                let trailers = count(response.trailers.as_ref());
                let sizes = (count(Some(&response.headers)), super::u32_len(response.body.len()), trailers);
                (sizes, Received::Http(response))
            }
            Err(Reset) => {
                self.status(root, Some(Status::BrokenConnection as u32), "reset");
                ((0, 0, 0), Received::Nothing)
            }
        };
        let (headers, body, trailers) = sizes;
        // A failed VM has said so in the log, and is never called again.
        let _ = self.with(root, received, |vm| {
            let params = (root, token, headers, body, trailers);
            vm.call("proxy_on_http_call_response", root, |c| &c.http_call_response, params)
        });
        self.status(root, None, "");
        self.after_callback();
    }

    /// The next thing that happens to a gRPC call or stream.
    pub(crate) fn grpc_event(&mut self, token: u32, event: Event) {
        let stream = Kind::of(token) == Some(Kind::GrpcStream);
        if let Event::Close { status, .. } = &event {
            self.store.data_mut().record_answer(token, Some(*status), None);
        }
        let Some(pending) = self.store.data_mut().callouts.get(token) else { return };
        let root = pending.root;
        match event {
            // A call's callbacks are its answer or its failure.
            Event::InitialMetadata(_) | Event::TrailingMetadata(_) if !stream => {}
            Event::Message(message) if !stream => pending.message = Some(message),
            Event::InitialMetadata(map) => {
                let params = (root, token, count(Some(&map)));
                let _ = self.with(root, Received::InitialMetadata(map), |vm| {
                    vm.call("proxy_on_grpc_receive_initial_metadata", root, |c| &c.grpc_initial_metadata, params)
                });
            }
            Event::TrailingMetadata(map) => {
                let params = (root, token, count(Some(&map)));
                let _ = self.with(root, Received::TrailingMetadata(map), |vm| {
                    vm.call("proxy_on_grpc_receive_trailing_metadata", root, |c| &c.grpc_trailing_metadata, params)
                });
            }
            Event::Message(message) => self.grpc_message(root, token, message),
            Event::Close { status: 0, .. } if pending.message.is_some() => {
                let pending = self.store.data_mut().callouts.remove(token);
                let message = pending.and_then(|mut pending| pending.message.take()).unwrap_or_default();
                self.grpc_message(root, token, message);
            }
            Event::Close { status, .. } if !stream && status == 0 => self.grpc_close(root, token, INTERNAL, ""),
            Event::Close { status, message } => self.grpc_close(root, token, status, &message),
        }
        self.after_callback();
    }

    fn grpc_message(&mut self, root: u32, token: u32, message: Bytes) {
        let params = (root, token, super::u32_len(message.len()));
        let _ = self.with(root, Received::Message(message), |vm| {
            vm.call("proxy_on_grpc_receive", root, |c| &c.grpc_receive, params)
        });
    }

    fn grpc_close(&mut self, root: u32, token: u32, status: u32, message: &str) {
        self.status(root, Some(status), message);
        if let Some(pending) = self.store.data_mut().callouts.get(token) {
            pending.remote_closed = true;
        }
        let _ = self.call("proxy_on_grpc_close", root, |c| &c.grpc_close, (root, token, status));
        self.status(root, None, "");
        // A stream that the plugin has not closed on its side stays known until it does.
        let callouts = &mut self.store.data_mut().callouts;
        let stream = Kind::of(token) == Some(Kind::GrpcStream);
        if callouts.get(token).is_some_and(|pending| !stream || pending.local_closed) {
            callouts.remove(token);
        }
    }

    /// Tells a root context the addresses of a name; `None` when it could not be resolved.
    pub(crate) fn resolved(&mut self, root: u32, token: u32, found: Option<Vec<SocketAddr>>) {
        let state = self.store.data_mut();
        state.callouts.resolved();
        if state.root_by_id(root).is_none() {
            return;
        }
        let addresses = found.map(|found| addresses(&found)).unwrap_or_default();
        let params = (root, token, super::u32_len(addresses.len()));
        let _ = self.with(root, Received::Addresses(addresses.into()), |vm| {
            vm.call("envoy_on_resolve_dns", root, |c| &c.resolve_dns, params)
        });
        self.after_callback();
    }

    pub(crate) fn queue_ready(&mut self, root: u32, token: u32) {
        if self.store.data_mut().root_by_id(root).is_some() {
            let _ = self.call("proxy_on_queue_ready", root, |c| &c.queue_ready, (root, token));
            self.after_callback();
        }
    }
}

/// Their number, a time to live for each (which the system's resolver does not tell), and the addresses, each with NUL.
fn addresses(found: &[SocketAddr]) -> Vec<u8> {
    let mut out = super::u32_len(found.len()).to_le_bytes().to_vec();
    out.resize(4 + 4 * found.len(), 0);
    for address in found {
        out.extend_from_slice(address.to_string().as_bytes());
        out.push(0);
    }
    out
}
