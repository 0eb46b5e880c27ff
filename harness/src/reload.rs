//! Another chain in the place of the one that is served: new requests get it, those in flight end in theirs.
//!
//! As when Envoy gets another configuration for a filter: the plugins of the new chain start, and only when all of them
//! have on all workers does any request see it. A plugin that is in both keeps its VM and its root context. One that is
//! only in the old chain is done (`on_done`, `on_delete`) when its last stream is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::chain::{Chain, ChainFilter, NetworkFilter};
use crate::cluster::Clusters;
use crate::exchange::Site;
use crate::native::Services;
use crate::network;
use crate::server::{Options, Peers, ServeError, site};
use crate::upstream::Dialer;
use crate::worker::{PluginHandle, Vms, WorkerFilter};

/// The site that is served, which may be another one by the next request.
#[derive(Clone)]
pub(crate) struct Current(Rc<RefCell<Rc<Site>>>);

impl Current {
    pub(crate) fn new(site: Rc<Site>) -> Self {
        Self(Rc::new(RefCell::new(site)))
    }

    pub(crate) fn get(&self) -> Rc<Site> {
        self.0.borrow().clone()
    }

    fn set(&self, site: Rc<Site>) {
        // What goes away with the old one is not to find this borrowed.
        drop(self.0.replace(site));
    }
}

/// Gives a server other chains.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    workers: Vec<UnboundedSender<Command>>,
    /// Held while a chain takes another's place.
    served: Mutex<(Arc<Chain>, Options)>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

/// What is to be served.
pub(crate) struct Next {
    chain: Arc<Chain>,
    peers: Peers,
    options: Options,
}

/// What a worker is told.
pub(crate) enum Command {
    /// Make ready for it, and say whether that went well.
    Prepare(Arc<Next>, std::sync::mpsc::Sender<Result<(), ServeError>>),
    /// Serve what was prepared, and say when it is so.
    Commit(std::sync::mpsc::Sender<()>),
    /// Forget what was prepared.
    Abandon,
}

impl Reloader {
    /// Each worker's side is in the list.
    pub(crate) fn new(chain: Arc<Chain>, options: Options, workers: usize) -> (Self, Vec<UnboundedReceiver<Command>>) {
        let (workers, commands) = (0..workers).map(|_| unbounded_channel()).unzip();
        (Self(Arc::new(Inner { workers, served: Mutex::new((chain, options)) })), commands)
    }

    /// The chain that is served: what the next one [succeeds](Chain::succeed).
    pub fn chain(&self) -> Arc<Chain> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Serves `chain` to all requests that come from now on, which may call these clusters. After an error everything
    /// is as it was.
    pub fn swap(&self, chain: Chain, clusters: BTreeMap<String, String>) -> Result<(), ServeError> {
        let mut served = self.0.served.lock().unwrap_or_else(PoisonError::into_inner);
        if chain.is_tcp != served.0.is_tcp {
            return Err(ServeError::Layer);
        }
        let options = Options { clusters, ..served.1.clone() };
        let peers = Peers::of(&chain, &options)?;
        let chain = Arc::new(chain);
        let next = Arc::new(Next { chain: chain.clone(), peers, options: options.clone() });
        let (answer, answers) = std::sync::mpsc::channel();
        for worker in &self.0.workers {
            if worker.send(Command::Prepare(next.clone(), answer.clone())).is_err() {
                return Err(ServeError::Ended);
            }
        }
        drop(answer);
        let mut prepared = Ok(());
        for _ in &self.0.workers {
            match answers.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => prepared = prepared.and(Err(error)),
                // A worker that ends does so without an answer.
                Err(_) => prepared = prepared.and(Err(ServeError::Ended)),
            }
        }
        let (done, all_done) = std::sync::mpsc::channel();
        for worker in &self.0.workers {
            let command = if prepared.is_ok() { Command::Commit(done.clone()) } else { Command::Abandon };
            // A worker that has ended serves nothing.
            let _ = worker.send(command);
        }
        drop(done);
        // Whoever asks from now on is to meet the new chain, whichever worker it is.
        while all_done.recv().is_ok() {}
        prepared?;
        *served = (chain, options);
        Ok(())
    }
}

/// What a worker serves, and served before.
pub(crate) struct Serving {
    pub(crate) current: Current,
    services: Rc<Services>,
    /// Those of the current site last.
    vms: RefCell<Vec<Vms>>,
    peers: RefCell<(BTreeMap<String, crate::upstream::Address>, Dialer)>,
}

impl Serving {
    /// Starts the plugins of a chain.
    pub(crate) fn start(chain: &Chain, peers: &Peers, options: &Options) -> Result<Self, ServeError> {
        let dialer = peers.dialer(chain);
        let services = Rc::new(Services { clusters: Clusters::new(&peers.clusters, &dialer) });
        let vms = vms(chain, &services);
        let site = site(chain, peers, options, &vms, &services, None)?;
        Ok(Self {
            current: Current::new(site),
            services,
            vms: RefCell::new(vec![vms]),
            peers: RefCell::new((peers.clusters.clone(), dialer)),
        })
    }

    /// Does what it is told, until nobody is left to tell.
    pub(crate) async fn follow(self: Rc<Self>, mut commands: UnboundedReceiver<Command>) {
        let mut prepared: Option<(Rc<Site>, Vms, Arc<Next>)> = None;
        while let Some(command) = commands.recv().await {
            match command {
                Command::Prepare(next, answer) => {
                    // The starter may not be interested any more.
                    let _ = answer.send(self.prepare(&next).map(|(site, vms)| prepared = Some((site, vms, next))));
                }
                Command::Commit(done) => {
                    let Some((site, vms, next)) = prepared.take() else { continue };
                    *self.peers.borrow_mut() = (next.peers.clusters.clone(), next.peers.dialer(&next.chain));
                    let mut all = self.vms.borrow_mut();
                    all.retain(|vms| !vms.is_over());
                    if !all.last().is_some_and(|last| last.is(&vms)) {
                        all.push(vms);
                    }
                    drop(all);
                    self.current.set(site);
                    let _ = done.send(());
                }
                Command::Abandon => {
                    drop(prepared.take());
                    let (clusters, dialer) = &*self.peers.borrow();
                    self.services.clusters.replace(clusters, dialer);
                }
            }
        }
    }

    fn prepare(&self, next: &Next) -> Result<(Rc<Site>, Vms), ServeError> {
        let before = self.current.get();
        let same_proxy = Arc::ptr_eq(&before.proxy, &next.chain.proxy);
        // A plugin may call a cluster as soon as it starts.
        self.services.clusters.replace(&next.peers.clusters, &next.peers.dialer(&next.chain));
        let vms = match self.vms.borrow().last() {
            Some(vms) if same_proxy => vms.clone(),
            _ => vms(&next.chain, &self.services),
        };
        let site = site(&next.chain, &next.peers, &next.options, &vms, &self.services, Some(&before))?;
        Ok((site, vms))
    }

    /// `on_done` and `on_delete` of all root contexts that are left.
    pub(crate) async fn stop(&self, patience: Duration) {
        let all = self.vms.borrow().clone();
        for vms in all {
            vms.stop(patience).await;
        }
    }
}

/// VMs for a chain's proxy, whose ticks and queues are looked after.
fn vms(chain: &Chain, services: &Rc<Services>) -> Vms {
    let (vms, on_queue_ready) = Vms::new(chain.surroundings.clone(), services.clone());
    tokio::task::spawn_local(vms.clone().run(on_queue_ready));
    vms
}

/// The same plugin where it already runs.
pub(crate) fn running(before: &Site, wanted: &ChainFilter) -> Option<WorkerFilter> {
    before.filters.iter().find_map(|filter| match (filter, wanted) {
        (WorkerFilter::Wasm(handle), ChainFilter::Wasm(plugin)) if Arc::ptr_eq(handle.plugin(), plugin) => {
            Some(WorkerFilter::Wasm(handle.clone()))
        }
        (WorkerFilter::Native { name, worker, plugin }, ChainFilter::Native(wanted)) if Arc::ptr_eq(plugin, wanted) => {
            Some(WorkerFilter::Native { name: name.clone(), worker: worker.clone(), plugin: plugin.clone() })
        }
        _ => None,
    })
}

/// The same network plugin where it already runs.
pub(crate) fn running_in_front(before: &Site, wanted: &NetworkFilter) -> Option<Rc<PluginHandle>> {
    before.network.iter().find_map(|filter| match (filter, wanted) {
        (network::Filter::Wasm(handle), NetworkFilter::Wasm(plugin)) if Arc::ptr_eq(handle.plugin(), plugin) => {
            Some(handle.clone())
        }
        _ => None,
    })
}
