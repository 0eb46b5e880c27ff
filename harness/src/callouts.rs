//! What a VM has asked others and not been answered yet: HTTP calls, gRPC calls and streams, names to resolve.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::body::{self, Writer};
use crate::cluster::{Call, CallError, Response};
use crate::grpc;
use crate::header_map::{HeaderMap, TooLarge};
use crate::native::Services;
use crate::shared::QueueReady;
use crate::vm::Vm;

/// Calls that one VM may have under way, and the bytes it may have given them.
const MAX_PENDING: usize = 4096;
const MAX_BYTES: usize = 64 << 20;

/// The worker a VM lives on. A VM that only tries a configuration has none, and its calls come to nothing.
pub(crate) struct Host {
    pub(crate) services: Rc<Services>,
    pub(crate) vm: Weak<RefCell<Vm>>,
    /// The VM among all of the worker's.
    pub(crate) id: u64,
    pub(crate) queue_ready: mpsc::Sender<QueueReady>,
    /// Woken when a root context changes its tick.
    pub(crate) ticks: Rc<Notify>,
}

/// The classes of tokens: the number is what is left of a token divided by 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    HttpCall = 0,
    GrpcCall = 1,
    GrpcStream = 2,
}

impl Kind {
    pub(crate) fn of(token: u32) -> Option<Self> {
        match token % 4 {
            0 => Some(Self::HttpCall),
            1 => Some(Self::GrpcCall),
            2 => Some(Self::GrpcStream),
            _ => None,
        }
    }
}

/// Why there is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    UnknownCluster,
    MissingHeader,
    TooMuch,
}

impl From<TooLarge> for Refusal {
    fn from(_: TooLarge) -> Self {
        Self::TooMuch
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::UnknownCluster => Self::UnknownCluster,
            CallError::MissingHeader => Self::MissingHeader,
        }
    }
}

pub(crate) struct Pending {
    pub(crate) root: u32,
    bytes: usize,
    task: Option<AbortHandle>,
    /// The request of a gRPC stream.
    request: Option<Writer>,
    /// The answer of a gRPC call, whose status is still to come.
    pub(crate) message: Option<Bytes>,
    pub(crate) local_closed: bool,
    pub(crate) remote_closed: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What the running callback is about.
#[derive(Debug, Default)]
pub(crate) enum Received {
    #[default]
    Nothing,
    Http(Response),
    InitialMetadata(HeaderMap),
    Message(Bytes),
    TrailingMetadata(HeaderMap),
    Addresses(Bytes),
}

#[derive(Default)]
pub(crate) struct Callouts {
    last: [u32; 3],
    last_name: u32,
    pending: HashMap<u32, Pending>,
    names: usize,
    /// Readable from contexts of this root only.
    pub(crate) received: (u32, Received),
}

impl Callouts {
    pub(crate) fn get(&mut self, token: u32) -> Option<&mut Pending> {
        self.pending.get_mut(&token)
    }

    pub(crate) fn remove(&mut self, token: u32) -> Option<Pending> {
        self.pending.remove(&token)
    }

    /// Cancels what a root context has under way.
    pub(crate) fn cancel_root(&mut self, root: u32) {
        self.pending.retain(|_, pending| pending.root != root);
    }

    pub(crate) fn cancel_all(&mut self) {
        self.pending.clear();
    }

    fn room(&self, bytes: usize) -> Result<(), Refusal> {
        let held: usize = self.pending.values().map(Pending::held).sum();
        if self.pending.len() >= MAX_PENDING || held + bytes > MAX_BYTES { Err(Refusal::TooMuch) } else { Ok(()) }
    }

    fn token(&mut self, kind: Kind) -> u32 {
        loop {
            let last = &mut self.last[kind as usize];
            *last = last.wrapping_add(4);
            let token = *last + kind as u32;
            // After four milliards of calls the numbers start again, and 0 is none.
            if token > 2 && !self.pending.contains_key(&token) {
                return token;
            }
        }
    }

    fn insert(&mut self, token: u32, root: u32, bytes: usize, task: Option<AbortHandle>, request: Option<Writer>) {
        let pending = Pending { root, bytes, task, request, message: None, local_closed: false, remote_closed: false };
        self.pending.insert(token, pending);
    }

    /// Starts an HTTP call and returns its token.
    pub(crate) fn http(&mut self, host: Option<&Host>, root: u32, cluster: &str, call: Call) -> Result<u32, Refusal> {
        let bytes = call.body.len() + call.headers.byte_size();
        self.room(bytes)?;
        let Some(host) = host else {
            call.check()?;
            return Ok(self.token(Kind::HttpCall));
        };
        let exchange = host.services.clusters.call(cluster, call)?;
        let token = self.token(Kind::HttpCall);
        let vm = host.vm.clone();
        let task = tokio::task::spawn_local(async move {
            let response = exchange.await;
            if let Some(vm) = vm.upgrade() {
                vm.borrow_mut().http_call_response(token, response);
            }
        });
        self.insert(token, root, bytes, Some(task.abort_handle()), None);
        Ok(token)
    }

    /// Starts a gRPC call, or a stream when there is no message yet.
    pub(crate) fn grpc(
        &mut self,
        host: Option<&Host>,
        root: u32,
        cluster: &str,
        headers: HeaderMap,
        message: Option<&[u8]>,
        timeout: Option<Duration>,
    ) -> Result<u32, Refusal> {
        let kind = if message.is_some() { Kind::GrpcCall } else { Kind::GrpcStream };
        let bytes = message.map_or(0, <[u8]>::len) + headers.byte_size();
        self.room(bytes)?;
        let Some(host) = host else {
            // Known, so that a plugin may send on it.
            let token = self.token(kind);
            self.insert(token, root, bytes, None, None);
            return Ok(token);
        };
        let client = host.services.clusters.grpc(cluster).ok_or(Refusal::UnknownCluster)?;
        let token = self.token(kind);
        let (writer, body) = body::queue(false);
        if let Some(message) = message {
            writer.push(Some(Frame::data(grpc::frame(message))), true);
        }
        let vm = host.vm.clone();
        let task = tokio::task::spawn_local(client.exchange(headers, body, timeout, move |event| {
            if let Some(vm) = vm.upgrade() {
                vm.borrow_mut().grpc_event(token, event);
            }
        }));
        self.insert(token, root, bytes, Some(task.abort_handle()), Some(writer));
        Ok(token)
    }

    /// Sends a message on a gRPC stream; what the other side no longer reads is dropped. `None`: no such stream.
    pub(crate) fn send(&mut self, token: u32, message: &[u8], end: bool) -> Option<Result<(), Refusal>> {
        let room = self.room(message.len());
        let pending = self.pending.get_mut(&token)?;
        let Some(writer) = pending.request.as_ref().filter(|_| !pending.remote_closed && !pending.local_closed) else {
            return Some(Ok(()));
        };
        if room.is_ok() {
            writer.push(Some(Frame::data(grpc::frame(message))), end);
            pending.local_closed |= end;
        }
        Some(room)
    }

    /// Ends this side of a gRPC stream. `None`: no such stream.
    pub(crate) fn close(&mut self, token: u32) -> Option<()> {
        let pending = self.pending.get_mut(&token)?;
        if pending.remote_closed {
            self.pending.remove(&token);
            return Some(());
        }
        if let Some(writer) = pending.request.as_ref().filter(|_| !pending.local_closed) {
            writer.push(None, true);
        }
        pending.local_closed = true;
        Some(())
    }

    /// Starts to resolve a name.
    pub(crate) fn resolve(&mut self, host: Option<&Host>, root: u32, name: String) -> Result<u32, Refusal> {
        if self.names >= MAX_PENDING {
            return Err(Refusal::TooMuch);
        }
        self.last_name = self.last_name.wrapping_add(1).max(1);
        let token = self.last_name;
        if let Some(host) = host {
            self.names += 1;
            let vm = host.vm.clone();
            tokio::task::spawn_local(async move {
                let found = tokio::net::lookup_host((name, 0)).await.map(Iterator::collect::<Vec<_>>);
                if let Some(vm) = vm.upgrade() {
                    vm.borrow_mut().resolved(root, token, found.ok());
                }
            });
        }
        Ok(token)
    }

    pub(crate) fn resolved(&mut self) {
        self.names = self.names.saturating_sub(1);
    }
}

impl Pending {
    /// What it costs the host: a request that is still being sent, or the messages of a stream nobody has read.
    fn held(&self) -> usize {
        self.bytes + self.request.as_ref().map_or(0, Writer::queued)
    }
}
