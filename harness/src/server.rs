//! The listener and its worker threads: one runtime, one set of VMs and one event loop each, as in Envoy.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use crate::chain::{Chain, ChainFilter};
use crate::cluster::Clusters;
use crate::exchange::{Connection, Site, serve};
use crate::native::Services;
use crate::upstream::Upstream;
use crate::vm::StartError;
use crate::worker::{Vms, WorkerFilter};

/// How a server is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on; port 0 picks one.
    pub listen: String,
    /// `http://HOST:PORT`; `None` is the built-in echo.
    pub upstream: Option<String>,
    /// Clusters that filters may call, by name: `http://HOST:PORT`.
    pub clusters: BTreeMap<String, String>,
    /// Worker threads; `None` is one per core.
    pub workers: Option<usize>,
    /// A request on which nothing happens for this long is answered with 504 (408 when it is incomplete).
    pub idle_timeout: Duration,
    /// How long in-flight requests may take to end at shutdown.
    pub drain: Duration,
}

impl Options {
    /// The defaults: echo, one worker per core, Envoy's 5 minutes, 5 seconds to drain.
    pub fn listen_on(address: impl Into<String>) -> Self {
        Self {
            listen: address.into(),
            upstream: None,
            clusters: BTreeMap::new(),
            workers: None,
            idle_timeout: Duration::from_mins(5),
            drain: Duration::from_secs(5),
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
    /// An upstream or cluster is not `http://HOST:PORT`.
    #[error("{what} {upstream} is not of the form http://HOST:PORT")]
    Upstream {
        /// Which one.
        what: String,
        /// As given.
        upstream: String,
    },
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
    shutdown: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens, starts the workers and their VMs, and returns once requests are served.
    pub fn start(chain: Chain, options: Options) -> Result<Self, ServeError> {
        let upstream_authority = options.upstream.as_deref().map(|url| authority("the upstream", url)).transpose()?;
        let clusters = options
            .clusters
            .iter()
            .map(|(name, url)| Ok((name.clone(), authority(&format!("the cluster {name}"), url)?)))
            .collect::<Result<_, ServeError>>()?;
        let listen_error = |source| ServeError::Listen { address: options.listen.clone(), source };
        let listener = TcpListener::bind(&options.listen).map_err(listen_error)?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let count = options.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let (shutdown, on_shutdown) = watch::channel(false);
        let (ready, on_ready) = mpsc::channel();
        let common = Arc::new(Common {
            chain,
            authority: upstream_authority,
            clusters,
            options,
            connections: AtomicU64::new(1),
        });
        let mut server = Self { address, shutdown, workers: Vec::new() };
        for worker in 0..count.max(1) {
            let listener = listener.try_clone().map_err(ServeError::Worker)?;
            let (common, on_shutdown, ready) = (common.clone(), on_shutdown.clone(), ready.clone());
            let thread = std::thread::Builder::new()
                .name(format!("wrk:worker_{worker}"))
                .stack_size(WORKER_STACK)
                .spawn(move || {
                    if let Err(error) = run_worker(&common, listener, on_shutdown, &ready) {
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

    /// Stops listening, lets requests in flight end within the drain time, and returns when all workers have.
    pub fn shut_down(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
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

fn authority(what: &str, upstream: &str) -> Result<String, ServeError> {
    let refused = || ServeError::Upstream { what: what.to_owned(), upstream: upstream.to_owned() };
    let uri: http::Uri = upstream.parse().map_err(|_| refused())?;
    let bare = uri.path() == "/" && uri.query().is_none();
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if bare && !host.is_empty() => {
            Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
        }
        _ => Err(refused()),
    }
}

struct Common {
    chain: Chain,
    authority: Option<String>,
    clusters: BTreeMap<String, String>,
    options: Options,
    connections: AtomicU64,
}

fn run_worker(
    common: &Arc<Common>,
    listener: TcpListener,
    on_shutdown: watch::Receiver<bool>,
    ready: &mpsc::Sender<Result<(), ServeError>>,
) -> Result<(), ServeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(ServeError::Worker)?;
    let chain = &common.chain;
    let vms = Vms::new(chain.surroundings.clone());
    let services =
        Rc::new(Services { clusters: Clusters::new(&common.clusters), sink: chain.surroundings.sink.clone() });
    let mut filters = Vec::new();
    for filter in &chain.filters {
        filters.push(match filter {
            ChainFilter::Native(plugin) => {
                let name = plugin.name().to_owned();
                let worker =
                    plugin.start(&services).map_err(|reason| ServeError::Filter { filter: name.clone(), reason })?;
                WorkerFilter::Native { name, worker }
            }
            ChainFilter::Wasm(plugin) => {
                let start_error = |source| ServeError::Plugin { plugin: plugin.name.clone(), source };
                WorkerFilter::Wasm(vms.start(plugin).map_err(start_error)?)
            }
        });
    }
    let upstream = common.authority.as_deref().map_or(Upstream::Echo, Upstream::http);
    let site = Rc::new(Site {
        filters,
        upstream,
        proxy: chain.proxy.clone(),
        sink: chain.surroundings.sink.clone(),
        idle_timeout: common.options.idle_timeout,
    });
    LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Worker)?;
        let ticking = tokio::task::spawn_local(tick(vms.clone()));
        // The starter has gone away only when another worker failed.
        let _ = ready.send(Ok(()));
        accept(common, site, listener, on_shutdown).await;
        ticking.abort();
        Ok(())
    })?;
    vms.stop();
    Ok(())
}

async fn tick(vms: Vms) {
    let mut due = Vec::new();
    loop {
        let pause = vms.tick(&mut due);
        tokio::time::sleep(pause).await;
    }
}

/// Accepts connections until shutdown, then waits for those in flight.
async fn accept(
    common: &Common,
    site: Rc<Site>,
    listener: tokio::net::TcpListener,
    mut on_shutdown: watch::Receiver<bool>,
) {
    let open = Rc::new(Open::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = on_shutdown.wait_for(|shutdown| *shutdown) => break,
        };
        match accepted {
            Ok((stream, source)) => {
                let connection = Connection {
                    id: common.connections.fetch_add(1, Ordering::Relaxed),
                    source: Some(source),
                    destination: stream.local_addr().ok(),
                };
                let guard = Guard::new(&open);
                let served = serve_connection(site.clone(), connection, stream, on_shutdown.clone());
                tokio::task::spawn_local(async move {
                    served.await;
                    drop(guard);
                });
            }
            // Out of descriptors, most likely: connections that end will free some.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    drop(listener);
    let drained = async {
        while open.count.get() > 0 {
            open.changed.notified().await;
        }
    };
    // Whoever is not done by then is cut off.
    let _ = tokio::time::timeout(common.options.drain, drained).await;
}

async fn serve_connection(
    site: Rc<Site>,
    connection: Connection,
    stream: tokio::net::TcpStream,
    mut on_shutdown: watch::Receiver<bool>,
) {
    const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
    const MAX_BUFFERED: usize = 128 << 10;
    // Latency only; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| serve(site.clone(), connection, request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(MAX_BUFFERED);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // A connection's failure is the client's to see; the stream's own end has been reported.
    tokio::select! {
        _ = served.as_mut() => return,
        _ = on_shutdown.wait_for(|shutdown| *shutdown) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

/// Counts open connections.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    changed: Notify,
}

struct Guard(Rc<Open>);

impl Guard {
    fn new(open: &Rc<Open>) -> Self {
        open.count.set(open.count.get() + 1);
        Self(open.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.changed.notify_one();
    }
}
