//! A proxy without sockets, whose time is a test's: with one plugin, for plugins' tests, or with a whole chain.
//!
//! Streams and connections go through the same filter managers as a server's, callouts to backends in this process.
//! It runs in a Tokio runtime whose clock is paused, so that time jumps to whatever happens next.

mod chain;
pub(crate) mod grpc;
mod pipe;
pub(crate) mod upstream;
mod world;

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use mesh::model::{FailStrategy, ProxyKind};
use tokio::sync::mpsc;

use crate::abi::LogLevel;
use crate::cluster::{self, Call, Clusters, Response};
use crate::exchange::Connection;
use crate::grpc::Scripted;
use crate::header_map::HeaderMap;
use crate::log::Sink;
use crate::module::Module;
use crate::native::Services;
use crate::network::{self, Chain};
use crate::plugin::{Plugin, VmConfig};
use crate::shared::{QueueReady, Shared};
use crate::stream::state::{ProxyFacts, StreamState};
use crate::stream::{Frame, Stream};
use crate::upstream::Failure;
use crate::vm::network::CloseType;
use crate::vm::{StartError, Surroundings};
use crate::worker::{Vms, WorkerFilter, canary};

pub use chain::{ChainProxy, Documents, Modules, Opened, Received, Serving, Setting, SiteError};
pub use pipe::Pipe;
pub use world::World;
pub(crate) use world::random;

/// Nobody listens: the error's number is Linux's, as Envoy's are.
const NOBODY: Failure = Failure::Connect(Some(111));
const VIA_UPSTREAM: &str = "via_upstream";
/// For how long a held stream may wait for something before it counts as held for ever.
const PATIENCE: Duration = Duration::from_mins(10);

/// Names and values, in order.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// With pseudo-headers.
    pub headers: Headers,
    /// The body; empty is none.
    pub body: Vec<u8>,
    /// The trailers; empty is none.
    pub trailers: Headers,
}

/// What came of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What reached the upstream, if all of it did.
    pub forwarded: Option<Message>,
    /// What reached the client, if all of it did.
    pub response: Option<Message>,
    /// The local response's details; empty when the upstream answered.
    pub details: String,
}

/// What passed a connection's filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// For the upstream.
    pub to_upstream: Vec<u8>,
    /// For the client.
    pub to_client: Vec<u8>,
    /// The connection is over.
    pub closed: bool,
}

/// What a backend does with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// After how long.
    pub delay: Duration,
    /// What then.
    pub answer: Answer,
}

/// What a backend answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A response.
    Whole(Message),
    /// The headers of a response and half of its body.
    BrokenOff(Message),
    /// Nothing: the connection is closed.
    Closed,
    /// Nothing: there is no connection.
    Refused,
}

/// What a gRPC backend does with a part of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcReply {
    /// After how long.
    pub delay: Duration,
    /// Initial metadata, with which the answer begins. Without, it begins with the first message or the end.
    pub metadata: Option<Headers>,
    /// Messages.
    pub messages: Vec<Vec<u8>>,
    /// Trailing metadata, in the last reply.
    pub trailers: Headers,
    /// Whether that is all.
    pub end: GrpcEnd,
}

/// How a gRPC answer goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GrpcEnd {
    /// It ends well with the client's side, unless another reply has come.
    #[default]
    WithClient,
    /// It is over, with a status and its text.
    Status(u32, String),
    /// It goes on, whatever the client does.
    Never,
    /// The connection is closed.
    Closed,
    /// There is no connection.
    Refused,
}

/// Part of a gRPC call: its beginning, a message, its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcRequest {
    /// The call's number: its parts have the same.
    pub call: u64,
    /// `/service/method`
    pub path: String,
    /// Initial metadata that the plugin gave.
    pub metadata: Headers,
    /// The message.
    pub message: Option<Vec<u8>>,
    /// No more messages come.
    pub end: bool,
}

/// Answers callouts.
pub trait Backends {
    /// Answers an HTTP call; `None`: there is no such cluster.
    fn http(&self, cluster: &str, request: &Message) -> Option<Reply>;

    /// Whether there is a gRPC cluster of that name.
    fn has_grpc(&self, cluster: &str) -> bool;

    /// Answers a part of a gRPC call.
    fn grpc(&self, cluster: &str, request: &GrpcRequest) -> GrpcReply;
}

/// All that a proxy meets: what its filters call, and the upstream.
pub trait Servers: Backends {
    /// Answers what passed the chain.
    fn upstream(&self, request: &Message) -> Reply;

    /// Takes a connection that passed a network chain's beginning. `false`: nobody is there.
    fn connection(&self, connection: Pipe) -> bool;
}

/// The body with which an echo answers a request, as a server's built-in one does.
pub fn echo(request: &Message) -> Vec<u8> {
    let mut echo = crate::echo::Echo::new(map(&request.headers), None);
    echo.data(&request.body);
    echo.trailers(map(&request.trailers));
    echo.answer().to_vec()
}

/// The text of a gRPC status as servers send it, percent-encoded.
pub fn grpc_message(text: &str) -> String {
    crate::grpc::percent_encode(text)
}

/// What a proxy is made from.
#[derive(Debug)]
pub struct Setup {
    /// The plugin.
    pub module: Arc<Module>,
    /// Its configuration.
    pub configuration: Vec<u8>,
    /// It sees connections.
    pub network: bool,
    /// The VM's environment.
    pub env: Vec<(String, String)>,
}

/// Why there is no proxy: the plugin's own words where it has some.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl From<StartError> for Refused {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Configure { error: Some(words) } | StartError::VmStart { error: Some(words) } => Self(words),
            other => Self(other.to_string()),
        }
    }
}

/// A proxy with one plugin.
pub struct Proxy {
    plugin: Arc<Plugin>,
    network: bool,
    surroundings: Surroundings,
    services: Rc<Services>,
    running: Option<Running>,
    chain: Option<Chain>,
    connections: u64,
}

struct Running {
    filters: Vec<WorkerFilter>,
    network: Vec<network::Filter>,
    task: tokio::task::JoinHandle<()>,
    vms: Vms,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A task that is aborted is there until tasks have their turn, and by then somebody else's test may have begun.
        self.vms.end();
        self.task.abort();
    }
}

impl Proxy {
    /// Tries the configuration, as a proxy does before it uses it. The plugin itself starts with the first traffic.
    pub fn new(
        setup: Setup,
        world: &Arc<World>,
        sink: Arc<dyn Sink>,
        backends: Rc<dyn Backends>,
    ) -> Result<Self, Refused> {
        let facts = ProxyFacts { kind: Some(ProxyKind::Gateway), ..ProxyFacts::default() };
        let surroundings = Surroundings {
            sink,
            shared: Arc::new(Shared::default()),
            log_level: LogLevel::Trace,
            proxy: Arc::new(facts),
            nature: world.clone(),
        };
        let plugin = Arc::new(Plugin {
            name: "test".to_owned(),
            root_id: String::new(),
            vm: Arc::new(VmConfig { env: setup.env, ..VmConfig::default() }),
            configuration: setup.configuration.into(),
            fail_strategy: FailStrategy::FailClose,
            module: setup.module,
        });
        canary(&plugin, &surroundings)?;
        let services = Rc::new(Services { clusters: Clusters::scripted(Rc::new(Adapted(backends))) });
        let network = setup.network;
        Ok(Self { plugin, network, surroundings, services, running: None, chain: None, connections: 0 })
    }

    /// Starts the plugin, unless it runs already.
    pub fn start(&mut self) -> Result<(), Refused> {
        if self.running.is_some() {
            return Ok(());
        }
        let (vms, on_queue_ready): (Vms, mpsc::Receiver<QueueReady>) =
            Vms::new(self.surroundings.clone(), self.services.clone());
        let handle = vms.start(&self.plugin)?;
        let task = tokio::task::spawn_local(vms.clone().run(on_queue_ready));
        let (mut filters, mut network) = (Vec::new(), Vec::new());
        if self.network {
            network.push(network::Filter::Wasm(handle));
        } else {
            filters.push(WorkerFilter::Wasm(handle));
        }
        self.running = Some(Running { filters, network, task, vms });
        Ok(())
    }

    /// The value of a counter or gauge.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.surroundings.shared.metric_named(name.as_bytes())
    }

    fn connection(&mut self) -> StreamState {
        self.connections += 1;
        let (source, destination) = (([127, 0, 0, 1], 50_000).into(), ([127, 0, 0, 1], 8080).into());
        let (source, destination) = (Some(source), Some(destination));
        let connection = Connection { id: self.connections, source, destination, state: None };
        StreamState::new(self.surroundings.proxy.clone(), &connection)
    }

    /// Sends a request through the plugin, and the upstream's response back. The client leaves when its patience is
    /// over before that.
    pub async fn send(&mut self, request: &Message, upstream: &Message, patience: Option<Duration>) -> Outcome {
        let mut state = self.connection();
        state.protocol = "HTTP/1.1";
        state.request_headers = map(&request.headers);
        let Some(running) = &self.running else { return Outcome::default() };
        let stream = Stream::new(state, &running.filters, self.surroundings.sink.clone());
        let mut exchange = Exchange { stream, forwarded: Seen::default(), response: Seen::default(), reset: false };
        let passing = async {
            exchange.request(request).await;
            if exchange.forwarded.ended && !exchange.is_over() {
                exchange.respond(upstream).await;
            }
        };
        match patience {
            Some(patience) => tokio::time::timeout(patience, passing).await.unwrap_or_default(),
            None => passing.await,
        }
        exchange.stream.finish();
        exchange.outcome()
    }

    /// Opens a connection; the one before is closed.
    pub async fn connect(&mut self) -> Passed {
        self.close();
        let state = self.connection();
        let Some(running) = &self.running else { return closed() };
        let mut chain = Chain::new(state, &running.network, self.surroundings.sink.clone());
        chain.begin();
        until(&mut chain, |chain| chain.has_begun()).await;
        self.after(chain)
    }

    /// The client sends bytes, or ends its side.
    pub async fn downstream(&mut self, bytes: &[u8], end: bool) -> Passed {
        let Some(mut chain) = self.chain.take() else { return closed() };
        let mut passed = Passed::default();
        // A proxy reads nothing before it has an upstream.
        if chain.has_begun() {
            chain.received(Bytes::copy_from_slice(bytes), end);
            until(&mut chain, |chain| {
                let (to_upstream, to_client) = chain.take_passed();
                passed.to_upstream.extend(to_upstream);
                passed.to_client.extend(to_client);
                !passed.to_upstream.is_empty() || bytes.is_empty()
            })
            .await;
        }
        let after = self.after(chain);
        passed.to_upstream.extend(after.to_upstream);
        passed.to_client.extend(after.to_client);
        Passed { closed: after.closed, ..passed }
    }

    /// The upstream sends bytes, or ends its side.
    pub fn upstream(&mut self, bytes: &[u8], end: bool) -> Passed {
        let Some(mut chain) = self.chain.take() else { return closed() };
        chain.write(Bytes::copy_from_slice(bytes), end);
        chain.process_pending();
        self.after(chain)
    }

    fn after(&mut self, mut chain: Chain) -> Passed {
        let (to_upstream, to_client) = chain.take_passed();
        let closed = chain.is_closing();
        if closed {
            chain.finish(CloseType::Local);
        } else {
            self.chain = Some(chain);
        }
        Passed { to_upstream, to_client, closed }
    }

    /// The client closes the connection.
    pub fn close(&mut self) {
        if let Some(mut chain) = self.chain.take() {
            chain.finish(CloseType::Remote);
        }
    }
}

fn closed() -> Passed {
    Passed { closed: true, ..Passed::default() }
}

/// Waits until a connection's filters have done what is expected of them, or never will.
async fn until(chain: &mut Chain, mut done: impl FnMut(&mut Chain) -> bool) {
    let waiting = async {
        loop {
            chain.process_pending();
            if done(chain) || chain.is_closing() {
                return;
            }
            woken(|| chain.state_mut()).await;
        }
    };
    // Held for ever, as far as a test can tell.
    let _ = tokio::time::timeout(PATIENCE, waiting).await;
}

/// Waits until a plugin has asked something of its stream from elsewhere.
async fn woken<'a>(state: impl Fn() -> std::cell::RefMut<'a, StreamState>) {
    std::future::poll_fn(|cx| {
        let mut state = state();
        if std::mem::take(&mut state.woken) {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// One side's view of a message.
#[derive(Default)]
struct Seen {
    message: Option<Message>,
    ended: bool,
}

impl Seen {
    fn take(&mut self, frame: Frame, headers: impl FnOnce() -> Headers) {
        match frame {
            Frame::Headers { end } => {
                self.message = Some(Message { headers: headers(), ..Message::default() });
                self.ended = end;
            }
            Frame::Data { bytes, end } => {
                if let Some(message) = &mut self.message {
                    message.body.extend_from_slice(&bytes);
                }
                self.ended |= end;
            }
            Frame::Trailers(trailers) => {
                if let Some(message) = &mut self.message {
                    message.trailers = list(&trailers);
                }
                self.ended = true;
            }
            Frame::Reset => {}
        }
    }

    fn whole(self) -> Option<Message> {
        self.message.filter(|_| self.ended)
    }
}

struct Exchange {
    stream: Stream,
    forwarded: Seen,
    response: Seen,
    reset: bool,
}

impl Exchange {
    fn is_over(&self) -> bool {
        self.reset || self.response.ended
    }

    fn collect(&mut self) {
        self.stream.process_pending();
        while let Some(frame) = self.stream.next_upstream() {
            let state = self.stream.state();
            self.forwarded.take(frame, || list(&state.request_headers));
        }
        while let Some(frame) = self.stream.next_downstream() {
            self.reset |= matches!(frame, Frame::Reset);
            let state = self.stream.state();
            self.response.take(frame, || state.response_headers.as_ref().map(list).unwrap_or_default());
        }
    }

    /// Waits until something has come through, the stream is over, or neither will ever be.
    async fn until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let waiting = async {
            loop {
                self.collect();
                if done(self) || self.is_over() {
                    return;
                }
                let stream = &self.stream;
                woken(|| stream.state_mut()).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, waiting).await;
        done(self) && !self.is_over()
    }

    async fn request(&mut self, request: &Message) {
        let (body, trailers) = (!request.body.is_empty(), !request.trailers.is_empty());
        self.stream.request_headers(!body && !trailers);
        if !self.until(|exchange| exchange.forwarded.message.is_some()).await {
            return;
        }
        if body {
            self.stream.request_data(Bytes::copy_from_slice(&request.body), false);
            self.collect();
        }
        match (body, trailers) {
            (_, true) => self.stream.request_trailers(map(&request.trailers)),
            (true, false) => self.stream.request_data(Bytes::new(), true),
            (false, false) => {}
        }
        self.until(|exchange| exchange.forwarded.ended).await;
    }

    async fn respond(&mut self, upstream: &Message) {
        let (body, trailers) = (!upstream.body.is_empty(), !upstream.trailers.is_empty());
        self.stream.response_headers(map(&upstream.headers), VIA_UPSTREAM, !body && !trailers);
        if !self.until(|exchange| exchange.response.message.is_some()).await {
            return;
        }
        if body {
            self.stream.response_data(Bytes::copy_from_slice(&upstream.body), false);
            self.collect();
        }
        match (body, trailers) {
            (_, true) => self.stream.response_trailers(map(&upstream.trailers)),
            (true, false) => self.stream.response_data(Bytes::new(), true),
            (false, false) => {}
        }
        self.until(|exchange| exchange.response.ended).await;
    }

    fn outcome(self) -> Outcome {
        let details = self.stream.state().details.clone();
        let response = if self.reset { None } else { self.response.whole() };
        let details = if details == VIA_UPSTREAM { String::new() } else { details };
        Outcome { forwarded: self.forwarded.whole(), response, details }
    }
}

fn map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::default();
    for (name, value) in headers {
        // A test's own headers are few; what does not fit is left out.
        let _ = map.add(name, value);
    }
    map
}

fn list(map: &HeaderMap) -> Headers {
    map.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Backends as the clusters ask them.
struct Adapted(Rc<dyn Backends>);

impl cluster::Backends for Adapted {
    fn http(&self, cluster: &str, call: &Call) -> Option<(Duration, Option<Response>)> {
        let trailers = call.trailers.as_ref().map(list).unwrap_or_default();
        let request = Message { headers: list(&call.headers), body: call.body.to_vec(), trailers };
        let reply = self.0.http(cluster, &request)?;
        let response = match reply.answer {
            Answer::Whole(message) => Some(Response {
                headers: map(&message.headers),
                body: message.body.into(),
                trailers: (!message.trailers.is_empty()).then(|| map(&message.trailers)),
            }),
            Answer::BrokenOff(_) => None,
            Answer::Closed => Some(cluster::unreachable(Failure::Terminated)),
            Answer::Refused => Some(cluster::unreachable(NOBODY)),
        };
        Some((reply.delay, response))
    }

    fn has_grpc(&self, cluster: &str) -> bool {
        self.0.has_grpc(cluster)
    }

    fn grpc(&self, cluster: &str, (call, headers): (u64, &HeaderMap), message: Option<Bytes>, end: bool) -> Scripted {
        let own = |name: &[u8]| {
            name.starts_with(b":")
                || name.starts_with(b"x-envoy-")
                || [&b"te"[..], b"content-type", b"grpc-timeout"].contains(&name)
        };
        let metadata = list(headers).into_iter().filter(|(name, _)| !own(name)).collect();
        let path = headers.text(":path").unwrap_or_default().to_owned();
        let message = message.map(|message| message.to_vec());
        let request = GrpcRequest { call, path, metadata, message, end };
        let reply = self.0.grpc(cluster, &request);
        Scripted {
            delay: reply.delay,
            metadata: reply.metadata.as_ref().map(map),
            messages: reply.messages.into_iter().map(Bytes::from).collect(),
            trailers: map(&reply.trailers),
            end: reply.end,
        }
    }
}
