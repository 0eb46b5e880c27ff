//! One worker thread's VMs: created once per worker, shared as Envoy shares them, replaced after a crash if asked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::model::FailStrategy;

use crate::abi::LogLevel;
use crate::native::NativeWorker;
use crate::plugin::Plugin;
use crate::vm::{StartError, Surroundings, Vm};

/// `FAIL_RELOAD`'s shortest time between two starts of a plugin; up to half of it is added as jitter.
const RELOAD_BASE: Duration = Duration::from_secs(1);

type SharedVm = Rc<RefCell<Vm>>;

/// A filter as a worker runs it.
pub(crate) enum WorkerFilter {
    Wasm(PluginHandle),
    Native { name: String, worker: Rc<dyn NativeWorker> },
}

/// All VMs of one worker.
#[derive(Clone)]
pub(crate) struct Vms {
    vms: Rc<RefCell<Vec<SharedVm>>>,
    surroundings: Surroundings,
}

impl Vms {
    pub(crate) fn new(surroundings: Surroundings) -> Self {
        Self { vms: Rc::default(), surroundings }
    }

    /// Starts a plugin, in a VM that plugins with the same code, VM configuration and environment share.
    pub(crate) fn start(&self, plugin: &Arc<Plugin>) -> Result<PluginHandle, StartError> {
        let current = self.start_in_vm(plugin)?;
        Ok(PluginHandle {
            plugin: plugin.clone(),
            current: RefCell::new(current),
            vms: self.clone(),
            loaded: Cell::new(Instant::now()),
            backoff: Cell::new(jittered(RELOAD_BASE)),
        })
    }

    fn start_in_vm(&self, plugin: &Arc<Plugin>) -> Result<(SharedVm, u32), StartError> {
        self.vms.borrow_mut().retain(|vm| !vm.borrow().failed());
        let shared = self.vms.borrow().iter().find(|vm| vm.borrow().runs(plugin)).cloned();
        if let Some(vm) = shared {
            let root = vm.borrow_mut().start(plugin)?;
            return Ok((vm, root));
        }
        let mut vm = Vm::new(plugin, &self.surroundings)?;
        let root = vm.start(plugin)?;
        let vm = Rc::new(RefCell::new(vm));
        self.vms.borrow_mut().push(vm.clone());
        Ok((vm, root))
    }

    /// Runs what is due of the root contexts' ticks and says when to come back.
    pub(crate) fn tick(&self, due: &mut Vec<(usize, u32, Instant)>) -> Duration {
        const IDLE: Duration = Duration::from_millis(100);
        let now = Instant::now();
        let vms: Vec<SharedVm> = self.vms.borrow().clone();
        let mut next = IDLE;
        let mut live = Vec::new();
        for vm in &vms {
            let ticks: Vec<_> = vm.borrow().ticks().collect();
            for (root, period) in ticks {
                let key = Rc::as_ptr(vm).addr();
                let at = due.iter().find(|(v, r, _)| (*v, *r) == (key, root)).map_or(now + period, |(_, _, at)| *at);
                let at = if at <= now {
                    // A failed VM has said so in the log, and is never called again.
                    let _ = vm.borrow_mut().tick(root);
                    now + period
                } else {
                    at
                };
                next = next.min(at.saturating_duration_since(now).max(Duration::from_millis(1)));
                live.push((key, root, at));
            }
        }
        *due = live;
        next
    }

    /// `on_done` and `on_delete` of all root contexts.
    pub(crate) fn stop(&self) {
        for vm in self.vms.borrow().iter() {
            vm.borrow_mut().stop();
        }
    }
}

/// One plugin on one worker, whose VM may have failed.
pub(crate) struct PluginHandle {
    plugin: Arc<Plugin>,
    current: RefCell<(SharedVm, u32)>,
    vms: Vms,
    loaded: Cell<Instant>,
    backoff: Cell<Duration>,
}

impl PluginHandle {
    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
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
