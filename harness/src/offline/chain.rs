//! A whole chain in a proxy without sockets: clients, clusters and the upstream are in this process, the time is a test's.
//!
//! Requests come over HTTP/1.1 through pipes in memory, so that what serves them is what serves a listener's.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use mesh::plan::Plan;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Adapted, Headers, Pipe, Servers};
use crate::abi::LogLevel;
use crate::builtin::jwt::keys::{Fetch, Keys};
use crate::chain::{Chain, ChainError};
use crate::cluster::Clusters;
use crate::connection::serve_http;
use crate::engine::Engine;
use crate::exchange::{Connection, Site};
use crate::hazard::Hazard;
use crate::log::{ConnectionSummary, RequestSummary, Sink};
use crate::module::Module;
use crate::native::Services;
use crate::nature::Nature;
use crate::network::{self, Terminal};
use crate::reload::Current;
use crate::server::{self, ServeError};
use crate::shared::Shared;
use crate::trace;
use crate::upstream::Upstream;
use crate::worker::Vms;

const PIPE: usize = 64 << 10;
/// Envoy's `stream_idle_timeout`, and Istio's.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// After so long a request that nobody has answered or given up never will be.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long what is left of a stream may take once its client has gone.
const REST: Duration = Duration::from_secs(10);

/// Documents that the proxy itself fetches: a provider's keys and metadata.
pub trait Documents: Send + Sync {
    /// The document at a URL, or why there is none.
    fn get(&self, url: &str) -> Result<String, String>;
}

/// Drops what plugins log as they are tried before a chain is accepted: they say it again in the VMs that serve. What
/// a chain says that is refused is passed on.
struct Starting {
    sink: Arc<dyn Sink>,
    held: Mutex<Option<Vec<(LogLevel, String)>>>,
}

impl Starting {
    fn over<T, E>(&self, outcome: Result<T, E>) -> Result<T, E> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if outcome.is_err() {
            for (level, line) in held.into_iter().flatten() {
                self.sink.log(level, &line);
            }
        }
        outcome
    }
}

impl Sink for Starting {
    fn log(&self, level: LogLevel, line: &str) {
        match &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(held) if line.starts_with("wasm log") => held.push((level, line.to_owned())),
            _ => self.sink.log(level, line),
        }
    }

    fn script(&self, level: LogLevel, line: &str) {
        self.sink.script(level, line);
    }

    fn request(&self, summary: &RequestSummary<'_>) {
        self.sink.request(summary);
    }

    fn connection(&self, summary: &ConnectionSummary<'_>) {
        self.sink.connection(summary);
    }

    fn hazard(&self, hazard: &Hazard<'_>) {
        self.sink.hazard(hazard);
    }

    fn trace(&self, trace: &trace::Trace) {
        self.sink.trace(trace);
    }

    fn takes_traced_lines(&self) -> bool {
        self.sink.takes_traced_lines()
    }
}

struct Fetched(Arc<dyn Documents>);

impl Fetch for Fetched {
    fn fetch(&self, url: &str, _: Duration) -> Result<String, String> {
        self.0.get(url)
    }
}

/// Modules that are compiled, for proxies that run the same ones.
#[derive(Clone, Default)]
pub struct Modules(pub(crate) Vec<Arc<Module>>);

/// What surrounds a chain.
pub struct Setting {
    /// Where logs, hazards, summaries and traces go.
    pub sink: Arc<dyn Sink>,
    /// The least severe log line.
    pub log_level: LogLevel,
    /// The time and randomness of plugins and of the proxy's own filters.
    pub nature: Arc<dyn Nature>,
    /// The randomness of request ids.
    pub ids: Arc<dyn Nature>,
    /// What filters call, and the upstream.
    pub servers: Rc<dyn Servers>,
    /// What the proxy itself fetches.
    pub documents: Arc<dyn Documents>,
    /// Record requests.
    pub trace: Option<trace::Settings>,
    /// The client's address.
    pub client: SocketAddr,
}

/// Why there is no such proxy.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The chain is refused.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It does not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// What a client got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// The status; none when the connection was closed before.
    pub status: Option<u16>,
    /// Without pseudo-headers.
    pub headers: Headers,
    /// As much of it as came.
    pub body: Vec<u8>,
    /// It did not come to its end.
    pub broken_off: bool,
}

/// A proxy with a chain, on one worker. It belongs to a `LocalSet` on a runtime whose clock is paused.
pub struct ChainProxy {
    current: Current,
    shared: Arc<Shared>,
    vms: Vms,
    nature: Arc<dyn Nature>,
    client: SocketAddr,
    connections: u64,
    shutdown: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for ChainProxy {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl ChainProxy {
    /// Loads the plan's chain and starts it. Modules that `modules` has are not compiled again, and it has the others then.
    pub fn start(engine: &Engine, plan: &Plan, modules: &mut Modules, setting: Setting) -> Result<Self, SiteError> {
        let documents = Box::new(Fetched(setting.documents));
        let (keys, upkeep) = Keys::kept_by_caller(&plan.chain.policies.jwt_rules, documents, setting.sink.clone())?;
        let (chain, network) = (&plan.chain, plan.network.as_ref());
        let starting = Arc::new(Starting { sink: setting.sink, held: Mutex::new(Some(Vec::new())) });
        let surroundings =
            Chain::surroundings(chain, plan.node.clone(), starting.clone(), setting.log_level, setting.nature);
        let chain = Chain::around(engine, (chain, network), plan, &plan.host_env, surroundings, keys, modules);
        let chain = starting.over(chain)?;
        let surroundings = chain.surroundings.clone();
        let clusters = Clusters::scripted(Rc::new(Adapted(setting.servers.clone())));
        let services = Rc::new(Services { clusters });
        let (vms, on_queue_ready) = Vms::new(surroundings.clone(), services.clone());
        let ticking = tokio::task::spawn_local(vms.clone().run(on_queue_ready));
        let network = chain.network.iter().map(|filter| server::network_filter(&vms, filter, None));
        let network = network.collect::<Result<_, _>>()?;
        let filters = chain.filters.iter().map(|filter| server::start(&vms, &services, filter, None));
        let filters = filters.collect::<Result<_, _>>()?;
        let site = Site {
            filters,
            network,
            terminal: if chain.is_tcp { Terminal::Scripted(setting.servers.clone()) } else { Terminal::Http },
            upstream: Upstream::Scripted(setting.servers),
            proxy: chain.proxy.clone(),
            sink: surroundings.sink.clone(),
            idle_timeout: IDLE_TIMEOUT,
            request_ids: setting.ids.into(),
            nature: surroundings.nature.clone(),
            peer: None,
            trace: setting.trace.map(|settings| Rc::new(trace::Start { settings, secrets: chain.secrets() })),
        };
        Ok(Self {
            current: Current::new(Rc::new(site)),
            shared: surroundings.shared.clone(),
            vms,
            nature: surroundings.nature,
            client: setting.client,
            connections: 0,
            shutdown: watch::channel(false).0,
            tasks: [ticking, tokio::task::spawn_local(upkeep)],
        })
    }

    fn connection(&mut self) -> Connection {
        self.connections += 1;
        let destination = Some(([127, 0, 0, 1], 8080).into());
        Connection { id: self.connections, source: Some(self.client), destination, state: None }
    }

    /// Opens a connection through a network chain. The other end of it comes to [`Servers::connection`].
    pub fn connect(&mut self) -> Opened {
        let connection = self.connection();
        let (client, theirs) = Pipe::pair(PIPE);
        let serving = network::serve(self.current.clone(), connection, theirs, self.shutdown.subscribe());
        Opened { client, serving: Serving(tokio::task::spawn_local(serving)) }
    }

    /// Sends a request on a connection of its own, and waits until the proxy is done with it.
    pub async fn send(&mut self, request: Request<Bytes>) -> Received {
        let connection = self.connection();
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (current, on_shutdown) = (self.current.clone(), self.shutdown.subscribe());
        let serving = tokio::task::spawn_local(async move {
            if current.get().is_http_alone() {
                serve_http(current, None, connection, theirs, on_shutdown).await;
            } else {
                network::serve(current, connection, theirs, on_shutdown).await;
            }
        });
        let mut received = tokio::time::timeout(PATIENCE, exchange(ours, request)).await.unwrap_or_default();
        // What the codec says is the real date.
        let date = httpdate::fmt_http_date(self.nature.now());
        for (_, value) in received.headers.iter_mut().filter(|(name, _)| name == b"date") {
            value.clone_from(&date.clone().into_bytes());
        }
        Serving(serving).end().await;
        received
    }

    /// All metrics, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.shared.prometheus()
    }

    /// `on_done` and `on_delete` of all root contexts.
    pub async fn stop(self) {
        self.vms.stop(Duration::from_secs(5)).await;
    }
}

/// A connection that was opened.
pub struct Opened {
    /// The client's end.
    pub client: Pipe,
    /// What ends with it.
    pub serving: Serving,
}

/// The proxy's work on a connection.
pub struct Serving(JoinHandle<()>);

impl Serving {
    /// Waits until the proxy is done with the connection, whose client has gone.
    pub async fn end(mut self) {
        if tokio::time::timeout(REST, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

async fn exchange(pipe: tokio::io::DuplexStream, request: Request<Bytes>) -> Received {
    let mut received = Received { broken_off: true, ..Received::default() };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(pipe)).await;
    let Ok((mut sender, connection)) = handshake else { return received };
    let connection = tokio::task::spawn_local(async move {
        // How it ends is seen in the response.
        let _ = connection.await;
    });
    if let Ok(response) = sender.send_request(request.map(Full::new)).await {
        let (parts, mut body) = response.into_parts();
        received.status = Some(parts.status.as_u16());
        let headers = parts.headers.iter();
        received.headers =
            headers.map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        loop {
            match body.frame().await {
                None => {
                    received.broken_off = false;
                    break;
                }
                Some(Err(_)) => break,
                Some(Ok(frame)) => received.body.extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        }
    }
    drop(sender);
    // A request that was not taken to its end has nobody to take it any more.
    connection.abort();
    received
}
