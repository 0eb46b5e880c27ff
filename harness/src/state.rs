//! What a hostcall can reach: the VM's state in its `Store`, and through it the stream a callback is about.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;
use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use crate::abi::LogLevel;
use crate::callbacks::ByHand;
use crate::callouts::{Callouts, Host, Received};
use crate::cel::Expressions;
use crate::hazard::{self, Hazard, HazardKind};
use crate::log::{Silent, Sink};
use crate::nature::{Nature, Real};
use crate::plugin::{Plugin, VmConfig};
use crate::shared::{Shared, VmMetrics};
use crate::stream::state::{Declared, ProxyFacts, StreamState};
use crate::trace::Visits;
use crate::vm::Surroundings;

/// Which hostcalls may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Within `_initialize`, `_start`, `main`: only logging and most of WASI.
    Startup,
    /// Within the guest's allocator on behalf of a hostcall: only logging and the clock.
    Allocating,
    /// Within a callback: everything.
    Callback,
}

/// A context a guest knows by number.
pub(crate) enum Context {
    Root(Root),
    Stream { root: u32, stream: Rc<RefCell<StreamState>>, filter: usize },
}

pub(crate) struct Root {
    pub(crate) plugin: Arc<Plugin>,
    /// The plugin configuration is readable only from create to the end of `on_configure`.
    pub(crate) configuring: bool,
    pub(crate) tick: Option<Tick>,
    /// `on_done` answered 0 and `proxy_done` has not been called.
    pub(crate) pending_done: bool,
    /// Code and text of the last callout that has one.
    pub(crate) status: (u32, String),
    /// Properties that `declare_property` has given a type.
    pub(crate) declared: HashMap<Vec<u8>, Declared>,
    pub(crate) expressions: Expressions,
}

/// A root context's timer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick {
    pub(crate) period: Duration,
    pub(crate) due: Instant,
}

impl Tick {
    /// A period without end is none.
    pub(crate) fn from_now(period: Duration) -> Option<Self> {
        Some(Self { period, due: Instant::now().checked_add(period)? })
    }
}

impl Root {
    pub(crate) fn new(plugin: Arc<Plugin>) -> Self {
        Self {
            plugin,
            configuring: true,
            tick: None,
            pending_done: false,
            status: (0, String::new()),
            declared: HashMap::new(),
            expressions: Expressions::default(),
        }
    }
}

pub(crate) struct HostState {
    pub(crate) phase: Phase,
    pub(crate) memory: Option<Memory>,
    /// The guest's allocator. A typed function is dear to clone, and to be called it has to be apart from the state.
    pub(crate) malloc: Option<Rc<TypedFunc<u32, u32>>>,
    /// By numbers that the host gives out, so that nobody can choose which collide.
    pub(crate) contexts: FxHashMap<u32, Context>,
    /// The context whose callback is running; 0 is the VM itself.
    pub(crate) current: u32,
    /// The callback that is running, as the module exports it.
    pub(crate) callback: &'static str,
    /// What `proxy_set_effective_context` put in its place; 0 is none.
    pub(crate) effective: u32,
    pub(crate) vm: Arc<VmConfig>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_level: LogLevel,
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) nature: Arc<dyn Nature>,
    /// The worker; none for a VM that tries a configuration.
    pub(crate) host: Option<Host>,
    pub(crate) callouts: Callouts,
    pub(crate) metrics: VmMetrics,
    /// Root contexts that have called `proxy_done`, and are deleted once the running callback has returned.
    pub(crate) finished: Vec<u32>,
    /// The last error a plugin logged, for the message of a rejected configuration.
    pub(crate) last_error: Option<String>,
    /// The recorded streams that the VM has something to tell of.
    pub(crate) visits: Visits,
    pub(crate) limits: Limits,
    /// Callbacks are driven by hand, by other rules than Envoy's.
    pub(crate) by_hand: Option<Box<ByHand>>,
}

impl HostState {
    pub(crate) fn new(vm: Arc<VmConfig>, surroundings: &Surroundings, limits: Limits) -> Self {
        Self {
            phase: Phase::Startup,
            memory: None,
            malloc: None,
            contexts: FxHashMap::default(),
            current: 0,
            callback: "",
            effective: 0,
            vm,
            sink: surroundings.sink.clone(),
            shared: surroundings.shared.clone(),
            log_level: surroundings.log_level,
            proxy: surroundings.proxy.clone(),
            nature: surroundings.nature.clone(),
            host: None,
            callouts: Callouts::default(),
            metrics: VmMetrics::default(),
            finished: Vec::new(),
            last_error: None,
            visits: Visits::default(),
            limits,
            by_hand: None,
        }
    }

    /// A state without a VM, for asking a linker what it has.
    pub(crate) fn unattached() -> Self {
        let surroundings = Surroundings {
            sink: Arc::new(Silent),
            shared: Arc::default(),
            log_level: LogLevel::Critical,
            proxy: Arc::default(),
            nature: Arc::new(Real),
        };
        Self::new(Arc::default(), &surroundings, Limits { memory_bytes: 0, table_elements: 0 })
    }

    /// The context hostcalls act on. An effective context that is gone falls back to the real one.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.contexts.get(&self.context_id())
    }

    fn context_id(&self) -> u32 {
        let effective = self.effective != 0 && self.contexts.contains_key(&self.effective);
        if effective { self.effective } else { self.current }
    }

    /// The stream hostcalls act on, and the calling filter's place in it.
    pub(crate) fn stream(&self) -> Option<(&Rc<RefCell<StreamState>>, usize)> {
        match self.context()? {
            Context::Stream { stream, filter, .. } => Some((stream, *filter)),
            Context::Root(_) => None,
        }
    }

    /// The root context of the context hostcalls act on, and its number.
    pub(crate) fn root_id(&self) -> Option<u32> {
        let id = self.context_id();
        match self.contexts.get(&id)? {
            Context::Root(_) => Some(id),
            Context::Stream { root, .. } => Some(*root),
        }
    }

    pub(crate) fn root(&self) -> Option<&Root> {
        match self.contexts.get(&self.root_id()?)? {
            Context::Root(root) => Some(root),
            Context::Stream { .. } => None,
        }
    }

    /// What the running callback is about, for contexts of the root it was made in.
    pub(crate) fn received(&self) -> &Received {
        let (root, received) = &self.callouts.received;
        if self.root_id() == Some(*root) { received } else { &Received::Nothing }
    }

    pub(crate) fn root_mut(&mut self) -> Option<&mut Root> {
        let id = self.root_id()?;
        self.root_by_id(id)
    }

    pub(crate) fn root_by_id(&mut self, id: u32) -> Option<&mut Root> {
        match self.contexts.get_mut(&id)? {
            Context::Root(root) => Some(root),
            Context::Stream { .. } => None,
        }
    }

    /// Emits a plugin's line with Envoy's prefix.
    pub(crate) fn log(&mut self, level: LogLevel, message: &str) {
        if level >= LogLevel::Error && self.last_error.as_deref() != Some(message) {
            self.last_error = Some(message.to_owned());
        }
        if level < self.log_level {
            return;
        }
        let context = self.context_id();
        if let Some(by_hand) = &mut self.by_hand {
            by_hand.lines.push((context, level, message.to_owned()));
            self.record(|recording, filter| recording.log(filter, level, message));
            return;
        }
        self.check_secrets(message);
        let recorded = self.record(|recording, filter| recording.log(filter, level, message));
        if recorded && !self.sink.takes_traced_lines() {
            return;
        }
        let mut line = String::from("wasm log");
        if let Some(root) = self.root() {
            let of_stream = matches!(self.context(), Some(Context::Stream { .. }));
            let name = if of_stream { root.plugin.name.as_str() } else { "" };
            for part in [name, &root.plugin.root_id, &self.vm.vm_id] {
                if !part.is_empty() {
                    line.push(' ');
                    line.push_str(part);
                }
            }
        }
        line.push_str(": ");
        line.push_str(message);
        self.sink.log(level, &line);
    }

    fn check_secrets(&self, message: &str) {
        let secret = self.stream().and_then(|(stream, _)| hazard::secret_in(message, &*stream.try_borrow().ok()?));
        if let Some(header) = secret {
            let explanation = format!("a log line has the value of {header}");
            self.hazard(HazardKind::SecretInLog, Some("proxy_log"), &explanation);
        }
    }

    /// Reports what the running callback did.
    pub(crate) fn hazard(&self, kind: HazardKind, hostcall: Option<&'static str>, explanation: &str) {
        let filter = self.root().map_or("", |root| &root.plugin.name);
        let hazard = Hazard { kind, filter, callback: self.callback, hostcall, explanation };
        self.record(|recording, _| recording.hazard(&hazard));
        self.sink.hazard(&hazard);
    }
}

/// What one VM may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: usize,
    pub(crate) table_elements: usize,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.memory_bytes)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements)
    }

    fn memories(&self) -> usize {
        8
    }

    fn tables(&self) -> usize {
        64
    }

    fn instances(&self) -> usize {
        1
    }
}
