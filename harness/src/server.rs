//! The listener and its worker threads: one runtime, one set of VMs and one event loop each, as in Envoy.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::admin;
use crate::admission::RequestIds;
use crate::chain::{Chain, ChainFilter, NetworkFilter};
use crate::echo::Fixed;
use crate::exchange::Site;
use crate::listener::{Accepting, Balance, Inbox};
use crate::native::Services;
use crate::network;
use crate::page::Page;
use crate::plugin::Plugin;
use crate::reload::{self, Command, Reloader, Serving};
use crate::trace;
use crate::upstream::{Address, Dialer, Scheme, Tls, Upstream};
use crate::vm::StartError;
use crate::worker::{PluginHandle, Vms, WorkerFilter};

/// How a server is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on; port 0 picks one.
    pub listen: String,
    /// `http://`, `h2c://` or `https://HOST[:PORT]`, or `tcp://HOST:PORT` for a network chain;
    /// [`fixed:STATUS[:BODY]`](mesh::plan::fixed_response); `None` is the built-in echo.
    pub upstream: Option<String>,
    /// Clusters that filters may call, by name: `http://`, `h2c://` or `https://HOST[:PORT]`.
    pub clusters: BTreeMap<String, String>,
    /// Address of the administration endpoint, which has the metrics; `None`: there is none. Port 0 picks one.
    pub admin: Option<String>,
    /// PEM certificates to trust beside the public roots, for `https://`.
    pub ca_certificates: Vec<String>,
    /// Worker threads; `None` is one per core.
    pub workers: Option<usize>,
    /// A request on which nothing happens for this long is answered with 504 (408 when it is incomplete).
    pub idle_timeout: Duration,
    /// The identity that every client is taken to have proven with mTLS, for example
    /// `spiffe://cluster.local/ns/default/sa/sleep`; `None`, as connections are plain.
    pub peer: Option<String>,
    /// How long in-flight requests may take to end at shutdown.
    pub drain: Duration,
    /// Record requests and connections, for [`Sink::trace`](crate::log::Sink::trace); `None`: not, and for nothing.
    pub trace: Option<trace::Settings>,
    /// Serve the trace page at the administration endpoint, to this machine only.
    pub admin_page: Option<Page>,
    /// Serve the trace page on the listener, in front of the chain; what is beneath its path does not reach the filters.
    pub listener_page: Option<Page>,
}

impl Options {
    /// The defaults: echo, one worker per core, Envoy's 5 minutes, 5 seconds to drain.
    pub fn listen_on(address: impl Into<String>) -> Self {
        Self {
            listen: address.into(),
            upstream: None,
            clusters: BTreeMap::new(),
            admin: None,
            ca_certificates: Vec::new(),
            workers: None,
            idle_timeout: Duration::from_mins(5),
            peer: None,
            drain: Duration::from_secs(5),
            trace: None,
            admin_page: None,
            listener_page: None,
        }
    }
}

/// What a worker's guests and scripts may recurse in.
pub(crate) const WORKER_STACK: usize = 8 << 20;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address as given.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An upstream or cluster is not one.
    #[error("{what} {upstream} is not of the form {expected}")]
    Upstream {
        /// Which one.
        what: String,
        /// As given, without credentials.
        upstream: String,
        /// What it should be like.
        expected: &'static str,
    },
    /// A certificate to trust is none.
    #[error("read the certificates to trust: {0}")]
    Certificates(String),
    /// A chain cannot take the place of one that is for something else.
    #[error("a chain for connections cannot take the place of one for requests, nor the other way round")]
    Layer,
    /// The server has been shut down.
    #[error("the server has ended")]
    Ended,
    /// A built-in filter or a script did not start on a worker.
    #[error("start the filter {filter}: {reason}")]
    Filter {
        /// Its name.
        filter: String,
        /// Why not.
        reason: String,
    },
    /// A worker thread or its runtime could not be created.
    #[error("start a worker")]
    Worker(#[source] std::io::Error),
    /// A plugin that had accepted its configuration did not start on a worker.
    #[error("start the plugin {plugin}")]
    Plugin {
        /// `namespace.name`
        plugin: String,
        /// Why not.
        #[source]
        source: StartError,
    },
}

/// A server that serves until it is shut down.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    shutdown: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    reloader: Reloader,
    pages: Vec<Page>,
}

impl Server {
    /// Listens, starts the workers and their VMs, and returns once requests are served.
    pub fn start(chain: Chain, options: Options) -> Result<Self, ServeError> {
        let peers = Peers::of(&chain, &options)?;
        let (listener, address) = listen(&options.listen)?;
        let (mut admin_listener, admin) = options.admin.as_deref().map(listen).transpose()?.unzip();
        let count = options.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let (shutdown, on_shutdown) = watch::channel(false);
        let (ready, on_ready) = mpsc::channel();
        let (balance, inboxes) = Balance::new(count.max(1));
        let chain = Arc::new(chain);
        let (reloader, commands) = Reloader::new(chain.clone(), options.clone(), count.max(1));
        let pages = options.admin_page.iter().chain(&options.listener_page).cloned().collect();
        let common = Arc::new(Common { peers, options, balance: Arc::new(balance) });
        let mut server = Self { address, admin, shutdown, workers: Vec::new(), reloader, pages };
        for (worker, (inbox, commands)) in inboxes.into_iter().zip(commands).enumerate() {
            let listener = listener.try_clone().map_err(ServeError::Worker)?;
            let (common, on_shutdown, ready) = (common.clone(), on_shutdown.clone(), ready.clone());
            let chain = chain.clone();
            // The first worker has the administration endpoint too.
            let listeners = (listener, admin_listener.take());
            let thread = std::thread::Builder::new()
                .name(format!("wrk:worker_{worker}"))
                .stack_size(WORKER_STACK)
                .spawn(move || {
                    if let Err(error) =
                        run_worker(&common, chain, worker, listeners, (inbox, commands), on_shutdown, &ready)
                    {
                        // The starter has gone away only when another worker failed before.
                        let _ = ready.send(Err(error));
                    }
                })
                .map_err(ServeError::Worker)?;
            server.workers.push(thread);
        }
        drop(ready);
        for _ in 0..count.max(1) {
            match on_ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ServeError::Worker(std::io::Error::other("a worker thread ended"))),
            }
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What gives it other chains.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Where the administration endpoint is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Stops listening, lets requests in flight end within the drain time, and returns when all workers have.
    pub fn shut_down(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.pages.iter().for_each(Page::close);
        // Without receivers all workers have ended already.
        let _ = self.shutdown.send(true);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(address: &str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let listen_error = |source| ServeError::Listen { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).map_err(listen_error)?;
    listener.set_nonblocking(true).map_err(listen_error)?;
    let local = listener.local_addr().map_err(listen_error)?;
    Ok((listener, local))
}

/// Reads where to connect to. A network chain has bytes for it, anything else HTTP.
fn address(what: &str, url: &str, tcp: bool) -> Result<Address, ServeError> {
    let address = Address::parse(url).filter(|address| (address.scheme == Scheme::Tcp) == tcp);
    address.ok_or_else(|| refused(what, url, tcp))
}

fn refused(what: &str, upstream: &str, tcp: bool) -> ServeError {
    let expected = if tcp { "tcp://HOST:PORT" } else { "http://HOST[:PORT], https://HOST[:PORT] or h2c://HOST[:PORT]" };
    ServeError::Upstream { what: what.to_owned(), upstream: mesh::shown_url(upstream), expected }
}

/// Whom a server's workers connect to.
pub(crate) struct Peers {
    upstream: Option<Address>,
    fixed: Option<Fixed>,
    pub(crate) clusters: BTreeMap<String, Address>,
    tls: Option<Tls>,
}

impl Peers {
    pub(crate) fn of(chain: &Chain, options: &Options) -> Result<Self, ServeError> {
        let given = options.upstream.as_deref();
        let fixed = given.filter(|_| !chain.is_tcp).and_then(mesh::plan::fixed_response);
        let fixed = fixed.map(|(status, body)| Fixed { status, body: Bytes::copy_from_slice(body.as_bytes()) });
        let upstream =
            given.filter(|_| fixed.is_none()).map(|url| address("the upstream", url, chain.is_tcp)).transpose()?;
        if chain.is_tcp && upstream.is_none() {
            return Err(refused("the upstream", "(none)", chain.is_tcp));
        }
        let clusters = options
            .clusters
            .iter()
            .map(|(name, url)| Ok((name.clone(), address(&format!("the cluster {name}"), url, false)?)))
            .collect::<Result<BTreeMap<_, _>, ServeError>>()?;
        let encrypted = upstream.iter().chain(clusters.values()).any(|address| address.scheme == Scheme::Https);
        let tls =
            encrypted.then(|| Tls::new(&options.ca_certificates)).transpose().map_err(ServeError::Certificates)?;
        Ok(Self { upstream, fixed, clusters, tls })
    }

    pub(crate) fn dialer(&self, chain: &Chain) -> Dialer {
        Dialer { tls: self.tls.clone(), sink: chain.surroundings.sink.clone() }
    }
}

struct Common {
    peers: Peers,
    options: Options,
    balance: Arc<Balance>,
}

fn run_worker(
    common: &Arc<Common>,
    chain: Arc<Chain>,
    worker: usize,
    (listener, admin): (TcpListener, Option<TcpListener>),
    (inbox, commands): (Inbox, UnboundedReceiver<Command>),
    on_shutdown: watch::Receiver<bool>,
    ready: &mpsc::Sender<Result<(), ServeError>>,
) -> Result<(), ServeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(ServeError::Worker)?;
    LocalSet::new().block_on(&runtime, async move {
        let serving = Rc::new(Serving::start(&chain, &common.peers, &common.options)?);
        let drain = common.options.drain;
        if let Some(admin) = admin {
            let admin = tokio::net::TcpListener::from_std(admin).map_err(ServeError::Worker)?;
            let shared = chain.surroundings.shared.clone();
            let page = common.options.admin_page.clone();
            tokio::task::spawn_local(admin::serve(admin, shared, page, on_shutdown.clone()));
        }
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Worker)?;
        // Whatever is served later, this one is not to be kept.
        drop(chain);
        let following = tokio::task::spawn_local(serving.clone().follow(commands));
        // The starter has gone away only when another worker failed.
        let _ = ready.send(Ok(()));
        let (current, balance) = (serving.current.clone(), common.balance.clone());
        let page = common.options.listener_page.clone();
        let accepting = Accepting { current, balance, worker, page, on_shutdown, drain };
        accepting.run(listener, inbox).await;
        following.abort();
        serving.stop(drain).await;
        Ok(())
    })
}

/// What the requests of a worker share, its plugins started. Those that are `before` already go on.
pub(crate) fn site(
    chain: &Chain,
    peers: &Peers,
    options: &Options,
    vms: &Vms,
    services: &Rc<Services>,
    before: Option<&Site>,
) -> Result<Rc<Site>, ServeError> {
    // A plugin's VM starts in the order of the chain: what is in front of HTTP first.
    let network = chain.network.iter().map(|filter| network_filter(vms, filter, before)).collect::<Result<_, _>>()?;
    let filters = chain.filters.iter().map(|filter| start(vms, services, filter, before)).collect::<Result<_, _>>()?;
    let terminal = match &peers.upstream {
        Some(address) if chain.is_tcp => network::Terminal::Tcp(address.clone()),
        _ => network::Terminal::Http,
    };
    let upstream = match (before, &peers.upstream) {
        // It keeps its connections.
        (Some(before), _) => before.upstream.clone(),
        (None, Some(address)) if !chain.is_tcp => Upstream::new(address.clone(), peers.dialer(chain)),
        _ => peers.fixed.clone().map_or(Upstream::Echo, Upstream::Fixed),
    };
    let trace = options.trace.clone();
    Ok(Rc::new(Site {
        filters,
        network,
        terminal,
        upstream,
        proxy: chain.proxy.clone(),
        sink: chain.surroundings.sink.clone(),
        idle_timeout: options.idle_timeout,
        request_ids: RequestIds::default(),
        nature: chain.surroundings.nature.clone(),
        peer: options.peer.as_deref().map(Arc::from),
        trace: trace.map(|settings| Rc::new(trace::Start { settings, secrets: chain.secrets() })),
    }))
}

pub(crate) fn start(
    vms: &Vms,
    services: &Rc<Services>,
    filter: &ChainFilter,
    before: Option<&Site>,
) -> Result<WorkerFilter, ServeError> {
    if let Some(running) = before.and_then(|before| reload::running(before, filter)) {
        return Ok(running);
    }
    match filter {
        ChainFilter::Native(plugin) => {
            let name = plugin.name().to_owned();
            let worker = plugin.start(services);
            let worker = worker.map_err(|reason| ServeError::Filter { filter: name.clone(), reason })?;
            Ok(WorkerFilter::Native { name: name.into(), worker, plugin: plugin.clone() })
        }
        ChainFilter::Wasm(plugin) => Ok(WorkerFilter::Wasm(start_plugin(vms, plugin)?)),
    }
}

pub(crate) fn network_filter(
    vms: &Vms,
    filter: &NetworkFilter,
    before: Option<&Site>,
) -> Result<network::Filter, ServeError> {
    Ok(match filter {
        NetworkFilter::Deny { name } => network::Filter::Deny { name: name.clone() },
        NetworkFilter::Wasm(plugin) => {
            let running = before.and_then(|before| reload::running_in_front(before, filter));
            network::Filter::Wasm(running.map_or_else(|| start_plugin(vms, plugin), Ok)?)
        }
    })
}

fn start_plugin(vms: &Vms, plugin: &Arc<Plugin>) -> Result<Rc<PluginHandle>, ServeError> {
    vms.start(plugin).map_err(|source| ServeError::Plugin { plugin: plugin.name.clone(), source })
}
