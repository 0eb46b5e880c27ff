//! Requests and connections through a chain without a socket, one worker and one thread: for fuzzing and property tests.
//!
//! What a driver does with a client and an upstream is done here with messages that are given. Callouts are real, and
//! come to what their clusters make of them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::chain::Chain;
use crate::cluster::Clusters;
use crate::exchange::Connection;
use crate::header_map::HeaderMap;
use crate::log::Sink;
use crate::native::Services;
use crate::network;
use crate::server::{self, ServeError};
use crate::shared::QueueReady;
use crate::stream::state::{Direction, LocalReply, StreamState};
use crate::stream::{Frame, Stream};
use crate::upstream::{Address, Dialer};
use crate::worker::{Vms, WorkerFilter};

/// Header fields in order, pseudo-headers included.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request or a response as a peer sends it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// What comes first.
    pub headers: Fields,
    /// The body, chunk by chunk.
    pub body: Vec<Vec<u8>>,
    /// What follows the body.
    pub trailers: Option<Fields>,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status that went downstream; `None` when the stream was reset before.
    pub status: Option<u16>,
    /// Bytes of the body that went downstream.
    pub body: usize,
    /// The response came to its end, or to a reset.
    pub ended: bool,
}

/// A worker without a listener.
pub struct Exercise {
    chain: Chain,
    clusters: BTreeMap<String, Address>,
    runtime: Runtime,
    local: LocalSet,
    worker: Worker,
}

struct Worker {
    filters: Vec<WorkerFilter>,
    network: Vec<network::Filter>,
    sink: Arc<dyn Sink>,
    vms: Vms,
    on_queue_ready: mpsc::Receiver<QueueReady>,
}

/// How often tasks get their turn between two things that happen to a stream.
const TURNS: usize = 4;
/// How often a stream's time runs out before it must have ended.
const TIMEOUTS: usize = 3;
/// Further than any tick that a guest can have set.
const FAR: Duration = Duration::from_secs(1 << 33);

impl Exercise {
    /// Starts the chain's plugins on a worker of their own, with these clusters; those whose URL is none are left out.
    pub fn new(chain: Chain, clusters: &BTreeMap<String, String>) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(ServeError::Worker)?;
        let clusters = clusters.iter().filter_map(|(name, url)| Some((name.clone(), Address::parse(url)?))).collect();
        let local = LocalSet::new();
        let worker = local.block_on(&runtime, async { Worker::start(&chain, &clusters) })?;
        Ok(Self { chain, clusters, runtime, local, worker })
    }

    /// Starts the plugins again, in VMs that know nothing of what was before. `shared` is their shared data.
    pub fn restart(&mut self, shared: &[(&[u8], &[u8])]) -> Result<(), ServeError> {
        self.chain.surroundings.shared = Arc::default();
        for (key, value) in shared {
            // What does not fit is left out, as a plugin's own would be.
            let _ = self.chain.surroundings.shared.set_data("", key, value, 0);
        }
        // Tasks of the old worker end with it.
        self.local = LocalSet::new();
        let (chain, clusters) = (&self.chain, &self.clusters);
        self.worker = self.local.block_on(&self.runtime, async { Worker::start(chain, clusters) })?;
        Ok(())
    }

    /// Sends a request through the filters and, when it passed them, the response back.
    pub fn request(&mut self, request: &Message, response: &Message) -> Outcome {
        let state = StreamState::new(self.chain.proxy.clone(), &connection());
        self.local.block_on(&self.runtime, self.worker.request(state, request, response))
    }

    /// A connection through the network filters: what the client sends and what comes back, in turns. The bytes that
    /// passed in each direction.
    pub fn connection(&mut self, client: &[Vec<u8>], server: &[Vec<u8>]) -> (usize, usize) {
        let state = StreamState::new(self.chain.proxy.clone(), &connection());
        self.local.block_on(&self.runtime, async {
            let worker = &mut self.worker;
            let mut turns = network::exercise(state, &worker.network, worker.sink.clone(), client, server);
            while turns.next().is_some() {
                worker.turn().await;
            }
            turns.passed()
        })
    }

    /// Runs every tick that is set, whenever it is due.
    pub fn tick(&mut self) {
        self.local.block_on(&self.runtime, self.worker.tick());
    }

    /// `on_done` and `on_delete` of all root contexts; those that are not done are not waited for.
    pub fn stop(&mut self) {
        self.local.block_on(&self.runtime, self.worker.vms.stop(Duration::ZERO));
    }
}

fn connection() -> Connection {
    let (source, destination) = (([192, 0, 2, 1], 4711).into(), ([127, 0, 0, 1], 80).into());
    Connection { id: 1, source: Some(source), destination: Some(destination), state: None }
}

fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::default();
    for (name, value) in fields {
        // What does not fit is left out: the map has the same bound for everyone.
        let _ = map.add(name, value);
    }
    map
}

/// One request under way.
struct Running {
    stream: Stream,
    /// Its headers have passed the filters.
    passed: bool,
    outcome: Outcome,
}

impl Worker {
    fn start(chain: &Chain, clusters: &BTreeMap<String, Address>) -> Result<Self, ServeError> {
        let sink = chain.surroundings.sink.clone();
        let dialer = Dialer { tls: None, sink: sink.clone() };
        let services = Rc::new(Services { clusters: Clusters::new(clusters, &dialer) });
        let (vms, on_queue_ready) = Vms::new(chain.surroundings.clone(), services.clone());
        let network = chain.network.iter().map(|filter| server::network_filter(&vms, filter, None));
        let network = network.collect::<Result<_, _>>()?;
        let filters = chain.filters.iter().map(|filter| server::start(&vms, &services, filter, None));
        let filters = filters.collect::<Result<_, _>>()?;
        Ok(Self { filters, network, sink, vms, on_queue_ready })
    }

    async fn request(&mut self, mut state: StreamState, request: &Message, response: &Message) -> Outcome {
        state.protocol = "HTTP/1.1";
        state.request_headers = map(&request.headers);
        let stream = Stream::new(state, &self.filters, self.sink.clone());
        let mut running = Running { stream, passed: false, outcome: Outcome::default() };
        running.stream.request_headers(request.body.is_empty() && request.trailers.is_none());
        self.step(&mut running).await;
        for (at, chunk) in request.body.iter().enumerate() {
            if running.stream.request_stopped() || !running.stream.wants_data(Direction::Request) {
                break;
            }
            let last = at + 1 == request.body.len() && request.trailers.is_none();
            running.stream.request_data(Bytes::copy_from_slice(chunk), last);
            self.step(&mut running).await;
        }
        if let Some(trailers) = request.trailers.as_ref().filter(|_| !running.stream.request_stopped()) {
            running.stream.request_trailers(map(trailers));
            self.step(&mut running).await;
        }
        // A plugin that waits for a callout or a tick gets what it waits for before the stream is given up.
        if !running.passed && !running.stream.response_ended() {
            self.wait(&mut running).await;
        }
        if running.passed && !running.stream.response_ended() {
            self.respond(&mut running, response).await;
        }
        if !running.stream.response_ended() {
            self.wait(&mut running).await;
        }
        // A filter may hold that answer as well, and then the next one.
        for _ in 0..TIMEOUTS {
            if running.stream.response_ended() {
                break;
            }
            let reply = LocalReply::new(504, "stream timeout", "stream_idle_timeout");
            running.stream.send_local_reply(None, reply);
            self.step(&mut running).await;
        }
        running.stream.finish();
        running.outcome
    }

    async fn respond(&mut self, running: &mut Running, response: &Message) {
        let ends = response.body.is_empty() && response.trailers.is_none();
        running.stream.response_headers(map(&response.headers), "via_upstream", ends);
        self.step(running).await;
        for (at, chunk) in response.body.iter().enumerate() {
            if running.stream.response_ended() || !running.stream.wants_data(Direction::Response) {
                break;
            }
            let last = at + 1 == response.body.len() && response.trailers.is_none();
            running.stream.response_data(Bytes::copy_from_slice(chunk), last);
            self.step(running).await;
        }
        if let Some(trailers) = response.trailers.as_ref().filter(|_| !running.stream.response_ended()) {
            running.stream.response_trailers(map(trailers));
            self.step(running).await;
        }
    }

    /// Lets tasks run, does what plugins asked for meanwhile, and takes what the stream has for its peers.
    async fn step(&mut self, running: &mut Running) {
        self.turn().await;
        let Running { stream, passed, outcome } = running;
        stream.process_pending();
        while let Some(frame) = stream.next_upstream() {
            *passed |= matches!(frame, Frame::Headers { .. });
        }
        while let Some(frame) = stream.next_downstream() {
            match frame {
                Frame::Headers { end } => {
                    outcome.status = stream.state().status();
                    outcome.ended |= end;
                }
                Frame::Data { bytes, end } => {
                    outcome.body += bytes.len();
                    outcome.ended |= end;
                }
                Frame::Trailers(_) | Frame::Reset => outcome.ended = true,
            }
        }
    }

    /// Gives callouts a moment and ticks theirs.
    async fn wait(&mut self, running: &mut Running) {
        self.tick().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.step(running).await;
    }

    async fn tick(&mut self) {
        self.vms.tick_at(Instant::now() + FAR);
        self.turn().await;
    }

    async fn turn(&mut self) {
        // A guest that fills a queue when it is told of it is told again in the next turn.
        for _ in 0..self.on_queue_ready.len() {
            if let Ok(ready) = self.on_queue_ready.try_recv() {
                self.vms.queue_ready(&ready);
            }
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
}
