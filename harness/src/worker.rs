//! One worker thread's VMs: created once per worker, shared as Envoy shares them, replaced after a crash if asked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh::model::FailStrategy;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::abi::LogLevel;
use crate::callouts::Host;
use crate::native::{NativePlugin, NativeWorker, Services};
use crate::plugin::Plugin;
use crate::shared::QueueReady;
use crate::vm::{StartError, Surroundings, Vm};

/// `FAIL_RELOAD`'s shortest time between two starts of a plugin; up to half of it is added as jitter.
const RELOAD_BASE: Duration = Duration::from_secs(1);

/// Queues that may be reported as ready and not been looked at.
const MAX_QUEUES_READY: usize = 65_536;

type SharedVm = Rc<RefCell<Vm>>;

/// A filter as a worker runs it.
pub(crate) enum WorkerFilter {
    Wasm(Rc<PluginHandle>),
    Native { name: Rc<str>, worker: Rc<dyn NativeWorker>, plugin: Arc<dyn NativePlugin> },
}

/// All VMs of one worker. Their callouts run on the `LocalSet` in which a VM is started.
#[derive(Clone)]
pub(crate) struct Vms {
    all: Rc<RefCell<Vec<SharedVm>>>,
    surroundings: Surroundings,
    services: Rc<Services>,
    ticks: Rc<Notify>,
    queue_ready: mpsc::Sender<QueueReady>,
    last_id: Rc<Cell<u64>>,
}

impl Vms {
    /// The VMs, and what arrives for them from other workers: [`Self::run`] takes it.
    pub(crate) fn new(surroundings: Surroundings, services: Rc<Services>) -> (Self, mpsc::Receiver<QueueReady>) {
        let (queue_ready, on_queue_ready) = mpsc::channel(MAX_QUEUES_READY);
        let vms = Self {
            all: Rc::default(),
            surroundings,
            services,
            ticks: Rc::default(),
            queue_ready,
            last_id: Rc::default(),
        };
        (vms, on_queue_ready)
    }

    /// Starts a plugin, in a VM that plugins with the same code, VM configuration and environment share.
    pub(crate) fn start(&self, plugin: &Arc<Plugin>) -> Result<Rc<PluginHandle>, StartError> {
        let current = Rc::new(RefCell::new(self.start_in_vm(plugin)?));
        let (held, released) = oneshot::channel();
        tokio::task::spawn_local(self.clone().retire(released, current.clone()));
        Ok(Rc::new(PluginHandle {
            _held: held,
            plugin: plugin.clone(),
            name: plugin.name.as_str().into(),
            current,
            vms: self.clone(),
            loaded: Cell::new(Instant::now()),
            backoff: Cell::new(jittered(RELOAD_BASE)),
        }))
    }

    /// Ends a plugin's root context once nothing uses the plugin any more: no chain, and no stream of an earlier one.
    async fn retire(self, released: oneshot::Receiver<()>, current: Rc<RefCell<(SharedVm, u32)>>) {
        // Nothing is ever sent: that the sender is gone is the message.
        let _ = released.await;
        let (vm, root) = current.borrow().clone();
        vm.borrow_mut().stop_root(root);
        self.all.borrow_mut().retain(|vm| !vm.borrow().stopped());
    }

    fn start_in_vm(&self, plugin: &Arc<Plugin>) -> Result<(SharedVm, u32), StartError> {
        self.all.borrow_mut().retain(|vm| !vm.borrow().stopped());
        let shared = self.all.borrow().iter().find(|vm| vm.borrow().runs(plugin)).cloned();
        if let Some(vm) = shared {
            let root = vm.borrow_mut().start(plugin)?;
            return Ok((vm, root));
        }
        let vm = Rc::new(RefCell::new(Vm::new(plugin, &self.surroundings)?));
        self.last_id.set(self.last_id.get() + 1);
        vm.borrow_mut().attach(Host {
            services: self.services.clone(),
            vm: Rc::downgrade(&vm),
            id: self.last_id.get(),
            queue_ready: self.queue_ready.clone(),
            ticks: self.ticks.clone(),
        });
        let started = vm.borrow_mut().start(plugin);
        if started.is_err() {
            // What the plugin has begun it may end; a VM that has failed is not called any more.
            vm.borrow_mut().stop();
        }
        let root = started?;
        self.all.borrow_mut().push(vm.clone());
        Ok((vm, root))
    }

    /// Runs ticks when they are due and tells queues' owners, for ever.
    pub(crate) async fn run(self, mut on_queue_ready: mpsc::Receiver<QueueReady>) {
        loop {
            let next = self.tick();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.ticks.notified() => {}
                Some(ready) = on_queue_ready.recv() => self.queue_ready(&ready),
            }
        }
    }

    /// Tells a queue's owner that there is something in it.
    pub(crate) fn queue_ready(&self, ready: &QueueReady) {
        let vm = self.all.borrow().iter().find(|vm| vm.borrow().id() == Some(ready.vm)).cloned();
        if let Some(vm) = vm {
            vm.borrow_mut().queue_ready(ready.root, ready.token);
        }
    }

    /// Runs the ticks that are due and says when the next one is.
    fn tick(&self) -> Option<Instant> {
        self.tick_at(Instant::now())
    }

    /// Runs the ticks that are due at a moment and says when the next one is.
    pub(crate) fn tick_at(&self, now: Instant) -> Option<Instant> {
        let vms = self.all.borrow().clone();
        vms.iter().filter_map(|vm| vm.borrow_mut().tick(now)).min()
    }

    /// Whether these are the same VMs.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.all, &other.all)
    }

    /// Whether there is none any more.
    pub(crate) fn is_over(&self) -> bool {
        self.all.borrow().iter().all(|vm| vm.borrow().stopped())
    }

    /// Ends all plugins at once, whether they are done or not: nothing of them runs after this, and no answer reaches them.
    pub(crate) fn end(&self) {
        for vm in self.all.borrow().iter() {
            vm.borrow_mut().end();
        }
    }

    /// `on_done` and `on_delete` of all root contexts. Those that are not done yet have `patience` to say so.
    pub(crate) async fn stop(&self, patience: Duration) {
        let vms = self.all.borrow().clone();
        for vm in &vms {
            vm.borrow_mut().stop();
        }
        let stopped = async {
            while !vms.iter().all(|vm| vm.borrow().stopped()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Whoever is not done by then is not waited for.
        let _ = tokio::time::timeout(patience, stopped).await;
    }
}

/// One plugin on one worker, whose VM may have failed.
pub(crate) struct PluginHandle {
    plugin: Arc<Plugin>,
    name: Rc<str>,
    current: Rc<RefCell<(SharedVm, u32)>>,
    /// Goes away with the handle, which ends the root context.
    _held: oneshot::Sender<()>,
    vms: Vms,
    loaded: Cell<Instant>,
    backoff: Cell<Duration>,
}

impl PluginHandle {
    pub(crate) fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The plugin's name, for each stream to have.
    pub(crate) fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// The VM and root context for a new stream; `None` when the VM has failed and is not to be replaced (yet).
    pub(crate) fn vm(&self) -> Option<(SharedVm, u32)> {
        let failed = self.current.borrow().0.borrow().failed();
        if !failed {
            return Some(self.current.borrow().clone());
        }
        if self.plugin.fail_strategy != FailStrategy::FailReload || self.loaded.get().elapsed() < self.backoff.get() {
            return None;
        }
        self.loaded.set(Instant::now());
        self.backoff.set(jittered(RELOAD_BASE));
        match self.vms.start_in_vm(&self.plugin) {
            Ok(started) => {
                *self.current.borrow_mut() = started.clone();
                Some(started)
            }
            Err(error) => {
                let line = format!("reload of plugin {} failed: {error}", self.plugin.name);
                self.vms.surroundings.sink.log(LogLevel::Error, &line);
                None
            }
        }
    }
}

fn jittered(base: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the plain back-off is still a back-off.
    let _ = getrandom::fill(&mut byte);
    base + base / 2 * u32::from(byte[0]) / 255
}

/// Starts the plugin in a VM of its own and drops it: a configuration is accepted only if that works.
pub(crate) fn canary(plugin: &Arc<Plugin>, surroundings: &Surroundings) -> Result<(), StartError> {
    drop(Vm::new(plugin, surroundings)?);
    let mut vm = Vm::new(plugin, surroundings)?;
    vm.start(plugin).map(drop)
}
