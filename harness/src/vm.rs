//! One instance of a module with its contexts, and the callbacks a host makes into it.

mod callouts;
mod exported;
pub(crate) mod network;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use wasmtime::{Extern, ExternType, Instance, Memory, Store, Table, Trap, TypedFunc, WasmParams, WasmResults};

use crate::abi::{AbiVersion, LogLevel};
use crate::callbacks::ByHand;
use crate::callouts::Host;
use crate::coverage::Notes;
use crate::engine::epochs;
use crate::hazard::{Hazard, HazardKind, MemoryWatch};
use crate::hostcalls::RestrictedCallback;
use crate::log::Sink;
use crate::module::Module;
use crate::nature::Nature;
use crate::plugin::Plugin;
use crate::shared::Shared;
use crate::state::{Context, HostState, Limits, Phase, Root, Tick};
use crate::stream::state::{ProxyFacts, StreamState};
use network::NetworkCallbacks;

/// What every VM of a process is created with.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_level: LogLevel,
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) nature: Arc<dyn Nature>,
}

/// Why a plugin could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The instance could not be created, for example because its memory exceeds the limit.
    #[error("Failed to create new Wasm instance")]
    Instantiate(#[source] wasmtime::Error),
    /// A start function or callback trapped.
    #[error("{0}")]
    Trapped(String),
    /// `on_vm_start` answered false.
    #[error("Failed to start base Wasm{}", logged(.error.as_deref()))]
    VmStart {
        /// The last error the plugin logged.
        error: Option<String>,
    },
    /// `on_configure` answered false.
    #[error("Failed to configure base Wasm plugin{}", logged(.error.as_deref()))]
    Configure {
        /// The last error the plugin logged.
        error: Option<String>,
    },
}

fn logged(error: Option<&str>) -> String {
    error.map_or_else(String::new, |error| format!("; the plugin logged: {error}"))
}

/// The VM has failed: nothing in it is called any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

enum HeadersCallback {
    Absent,
    Present(TypedFunc<(u32, u32, u32), u32>),
    /// ABI 0.1.0 does not say whether a body follows.
    WithoutEnd(TypedFunc<(u32, u32), u32>),
}

/// Root, token, and the sizes of headers, body and trailers.
type HttpCallResponse = (u32, u32, u32, u32, u32);

/// The callbacks the module exports; an absent one means "continue" or "true".
struct Callbacks {
    context_create: Option<TypedFunc<(u32, u32), ()>>,
    vm_start: Option<TypedFunc<(u32, u32), u32>>,
    configure: Option<TypedFunc<(u32, u32), u32>>,
    tick: Option<TypedFunc<u32, ()>>,
    request_headers: HeadersCallback,
    request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    response_headers: HeadersCallback,
    response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    http_call_response: Option<TypedFunc<HttpCallResponse, ()>>,
    grpc_initial_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    grpc_receive: Option<TypedFunc<(u32, u32, u32), ()>>,
    grpc_trailing_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    grpc_close: Option<TypedFunc<(u32, u32, u32), ()>>,
    queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    resolve_dns: Option<TypedFunc<(u32, u32, u32), ()>>,
    done: Option<TypedFunc<u32, u32>>,
    log: Option<TypedFunc<u32, ()>>,
    delete: Option<TypedFunc<u32, ()>>,
    network: NetworkCallbacks,
}

pub(crate) struct Vm {
    store: Store<HostState>,
    callbacks: Callbacks,
    callback_epochs: u64,
    startup_epochs: u64,
    next_context: u32,
    failed: bool,
    roots: Vec<(Arc<Plugin>, u32)>,
    memory_watch: MemoryWatch,
    notes: Option<Notes>,
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Some(notes) = &self.notes {
            notes.collect(&mut self.store);
        }
    }
}

impl Vm {
    /// Gives the VM the worker it lives on, without which its callouts come to nothing.
    pub(crate) fn attach(&mut self, host: Host) {
        self.store.data_mut().host = Some(host);
    }

    /// From now on its hostcalls follow the rules of callbacks that are driven by hand.
    pub(crate) fn drive_by_hand(&mut self, by_hand: ByHand) {
        self.store.data_mut().by_hand = Some(Box::new(by_hand));
    }

    /// What they have left there.
    pub(crate) fn by_hand(&mut self) -> &mut ByHand {
        self.store.data_mut().by_hand.get_or_insert_default()
    }

    /// Its number on the worker it lives on.
    pub(crate) fn id(&self) -> Option<u64> {
        self.store.data().host.as_ref().map(|host| host.id)
    }

    /// Instantiates the module and runs its start functions.
    pub(crate) fn new(plugin: &Plugin, surroundings: &Surroundings) -> Result<Self, StartError> {
        let module = plugin.module.clone();
        let limits = module.engine.limits.clone();
        let state = HostState::new(
            plugin.vm.clone(),
            surroundings,
            Limits { memory_bytes: limits.memory_bytes, table_elements: limits.table_elements },
        );
        let mut store = Store::new(&module.engine.inner, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(epochs(limits.startup));
        let imports = imports(&mut store, &module).map_err(StartError::Instantiate)?;
        let instance = Instance::new(&mut store, &module.inner, &imports).map_err(StartError::Instantiate)?;
        let memory = module
            .inner
            .exports()
            .find(|export| matches!(export.ty(), ExternType::Memory(_)))
            .and_then(|export| instance.get_memory(&mut store, export.name()))
            .or_else(|| imports.iter().find_map(|import| import.clone().into_memory()));
        let malloc = func(&instance, &mut store, module.allocator);
        store.data_mut().memory = memory;
        store.data_mut().malloc = malloc.map(Rc::new);
        let callbacks = callbacks(&instance, &mut store, module.abi());
        let notes = module.engine.coverage.as_ref();
        let notes = notes.map(|coverage| Notes::of(coverage, &instance, &mut store, module.sha256()));
        let mut vm = Self {
            store,
            callbacks,
            callback_epochs: epochs(limits.callback),
            startup_epochs: epochs(limits.startup),
            next_context: 1,
            failed: false,
            roots: Vec::new(),
            memory_watch: MemoryWatch::default(),
            notes,
        };
        vm.run_start_functions(&instance)?;
        vm.store.data_mut().phase = Phase::Callback;
        Ok(vm)
    }

    fn run_start_functions(&mut self, instance: &Instance) -> Result<(), StartError> {
        let Some(initialize) = func::<(), ()>(instance, &mut self.store, "_initialize") else {
            let start = func::<(), ()>(instance, &mut self.store, "_start");
            return self.start_function("_start", start, ());
        };
        self.start_function("_initialize", Some(initialize), ())?;
        if let Some(main) = func::<(u32, u32), u32>(instance, &mut self.store, "main") {
            return self.start_function("main", Some(main), (0, 0));
        }
        let main = func::<(), u32>(instance, &mut self.store, "__main_void");
        self.start_function("__main_void", main, ())
    }

    fn start_function<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
        function: Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<(), StartError> {
        let Some(function) = function else { return Ok(()) };
        enter(&mut self.store, &mut self.failed, name, 0, self.startup_epochs, &function, params)
            .map(drop)
            .map_err(|Failed| self.trapped())
    }

    fn trapped(&self) -> StartError {
        StartError::Trapped(self.store.data().last_error.clone().unwrap_or_default())
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
        context: u32,
        callback: impl FnOnce(&Callbacks) -> &Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, Failed> {
        self.call_within(self.callback_epochs, name, context, callback, params)
    }

    fn call_within<P: WasmParams, R: WasmResults>(
        &mut self,
        epochs: u64,
        name: &'static str,
        context: u32,
        callback: impl FnOnce(&Callbacks) -> &Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, Failed> {
        if self.failed {
            return Err(Failed);
        }
        let Some(function) = callback(&self.callbacks) else { return Ok(None) };
        enter(&mut self.store, &mut self.failed, name, context, epochs, function, params).map(Some)
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn runs(&self, plugin: &Plugin) -> bool {
        self.roots.first().is_some_and(|(first, _)| first.shares_vm_with(plugin))
    }

    /// Creates the plugin's root context: create, `on_vm_start`, `on_configure`.
    pub(crate) fn start(&mut self, plugin: &Arc<Plugin>) -> Result<u32, StartError> {
        let root = self.next_id();
        self.store.data_mut().contexts.insert(root, Context::Root(Root::new(plugin.clone())));
        self.store.data_mut().last_error = None;
        self.roots.push((plugin.clone(), root));
        let epochs = self.startup_epochs;
        self.call_within(epochs, "proxy_on_context_create", root, |c| &c.context_create, (root, 0))
            .map_err(|Failed| self.trapped())?;
        self.configuring(root, false);
        let size = u32_len(plugin.vm.configuration.len());
        let started = self
            .call_within(epochs, "proxy_on_vm_start", root, |c| &c.vm_start, (root, size))
            .map_err(|Failed| self.trapped())?;
        if started == Some(0) {
            return Err(StartError::VmStart { error: self.store.data_mut().last_error.take() });
        }
        self.configuring(root, true);
        let size = u32_len(plugin.configuration.len());
        let configured = self
            .call_within(epochs, "proxy_on_configure", root, |c| &c.configure, (root, size))
            .map_err(|Failed| self.trapped())?;
        if configured == Some(0) {
            return Err(StartError::Configure { error: self.store.data_mut().last_error.take() });
        }
        self.configuring(root, false);
        Ok(root)
    }

    fn configuring(&mut self, root: u32, configuring: bool) {
        if let Some(Context::Root(root)) = self.store.data_mut().contexts.get_mut(&root) {
            root.configuring = configuring;
        }
    }

    fn next_id(&mut self) -> u32 {
        loop {
            let id = self.next_context;
            self.next_context = self.next_context.wrapping_add(1).max(1);
            if !self.store.data().contexts.contains_key(&id) {
                return id;
            }
        }
    }

    /// Creates the context of one stream for the filter at `filter`.
    pub(crate) fn create_stream(
        &mut self,
        root: u32,
        stream: &Rc<RefCell<StreamState>>,
        filter: usize,
    ) -> Result<u32, Failed> {
        if self.failed {
            return Err(Failed);
        }
        let id = self.next_id();
        let context = Context::Stream { root, stream: stream.clone(), filter };
        self.store.data_mut().contexts.insert(id, context);
        self.call("proxy_on_context_create", id, |c| &c.context_create, (id, root))?;
        Ok(id)
    }

    pub(crate) fn request_headers(&mut self, id: u32, count: u32, end: bool) -> Result<u32, Failed> {
        self.headers("proxy_on_request_headers", |c| &c.request_headers, id, count, end)
    }

    pub(crate) fn response_headers(&mut self, id: u32, count: u32, end: bool) -> Result<u32, Failed> {
        self.headers("proxy_on_response_headers", |c| &c.response_headers, id, count, end)
    }

    fn headers(
        &mut self,
        name: &'static str,
        callback: impl FnOnce(&Callbacks) -> &HeadersCallback,
        id: u32,
        count: u32,
        end: bool,
    ) -> Result<u32, Failed> {
        let Self { store, failed, callbacks, callback_epochs: epochs, .. } = self;
        match callback(callbacks) {
            _ if *failed => Err(Failed),
            HeadersCallback::Absent => Ok(0),
            HeadersCallback::Present(f) => enter(store, failed, name, id, *epochs, f, (id, count, u32::from(end))),
            HeadersCallback::WithoutEnd(f) => enter(store, failed, name, id, *epochs, f, (id, count)),
        }
    }

    pub(crate) fn request_body(&mut self, id: u32, size: u32, end: bool) -> Result<u32, Failed> {
        let action = self.call("proxy_on_request_body", id, |c| &c.request_body, (id, size, u32::from(end)))?;
        Ok(action.unwrap_or(0))
    }

    pub(crate) fn response_body(&mut self, id: u32, size: u32, end: bool) -> Result<u32, Failed> {
        let action = self.call("proxy_on_response_body", id, |c| &c.response_body, (id, size, u32::from(end)))?;
        Ok(action.unwrap_or(0))
    }

    pub(crate) fn request_trailers(&mut self, id: u32, count: u32) -> Result<u32, Failed> {
        Ok(self.call("proxy_on_request_trailers", id, |c| &c.request_trailers, (id, count))?.unwrap_or(0))
    }

    pub(crate) fn response_trailers(&mut self, id: u32, count: u32) -> Result<u32, Failed> {
        Ok(self.call("proxy_on_response_trailers", id, |c| &c.response_trailers, (id, count))?.unwrap_or(0))
    }

    pub(crate) fn log(&mut self, id: u32) -> Result<(), Failed> {
        self.call("proxy_on_log", id, |c| &c.log, id).map(drop)
    }

    /// `on_done` and `on_delete` of a stream, whose context is gone afterwards even if they trap.
    pub(crate) fn finish_stream(&mut self, id: u32) {
        let done = self.call("proxy_on_done", id, |c| &c.done, id);
        if done.is_ok() {
            let _ = self.call("proxy_on_delete", id, |c| &c.delete, id);
        }
        self.store.data_mut().contexts.remove(&id);
        self.watch_memory();
    }

    fn watch_memory(&mut self) {
        let memory = self.store.data().memory;
        let store = &self.store;
        let grown = self.memory_watch.ended(|| memory.map_or(0, |memory| memory.data_size(store)));
        if let (Some((from, to)), Some((plugin, _))) = (grown, self.roots.first()) {
            let explanation = format!("over the last 10000 requests its memory grew from {from} to {to} bytes");
            let (kind, filter) = (HazardKind::MemoryGrowth, plugin.name.as_str());
            let hazard = Hazard { kind, filter, callback: "", hostcall: None, explanation: &explanation };
            self.store.data().sink.hazard(&hazard);
        }
    }

    /// Runs the ticks that are due and says when the next one is.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Instant> {
        let roots: Vec<u32> = self.roots.iter().map(|(_, root)| *root).collect();
        let mut next = None;
        for id in roots {
            let due = |vm: &mut Self| vm.store.data_mut().root_by_id(id)?.tick.as_ref().map(|tick| tick.due);
            if due(self).is_some_and(|due| due <= now) {
                if let Some(root) = self.store.data_mut().root_by_id(id) {
                    // Armed again when the callback returns, unless it says otherwise.
                    root.tick = root.tick.and_then(|tick| Tick::from_now(tick.period));
                }
                // A failed VM has said so in the log, and is never called again.
                let _ = self.call("proxy_on_tick", id, |c| &c.tick, id);
                self.after_callback();
            }
            if self.failed {
                return None;
            }
            next = next.into_iter().chain(due(self)).min();
        }
        next
    }

    /// `on_done` of every root context. Those that answer 0 stay until they call `proxy_done`.
    pub(crate) fn stop(&mut self) {
        let roots: Vec<u32> = self.roots.iter().map(|(_, root)| *root).collect();
        for root in roots {
            self.stop_root(root);
        }
    }

    /// [`Self::stop`] for whoever does not wait: what is not done is deleted, and nothing under way arrives any more.
    pub(crate) fn end(&mut self) {
        self.stop();
        let roots: Vec<u32> = self.roots.iter().map(|(_, root)| *root).collect();
        for root in roots {
            self.delete_root(root);
        }
        self.store.data_mut().callouts.cancel_all();
    }

    /// `on_done` of a root context, if it is still there and has not been told.
    pub(crate) fn stop_root(&mut self, root: u32) {
        if self.store.data_mut().root_by_id(root).is_none_or(|root| root.pending_done) {
            return;
        }
        let pending = matches!(self.call("proxy_on_done", root, |c| &c.done, root), Ok(Some(0)));
        if let Some(root) = self.store.data_mut().root_by_id(root).filter(|_| pending) {
            root.pending_done = true;
        } else {
            self.delete_root(root);
        }
    }

    /// Whether no root context waits to be done.
    pub(crate) fn stopped(&self) -> bool {
        self.failed || self.roots.is_empty()
    }

    /// What a callback asked for that happens once it has returned: deleting root contexts that are done.
    fn after_callback(&mut self) {
        while let Some(root) = self.store.data_mut().finished.pop() {
            self.delete_root(root);
        }
    }

    fn delete_root(&mut self, root: u32) {
        let _ = self.call("proxy_on_delete", root, |c| &c.delete, root);
        self.roots.retain(|(_, id)| *id != root);
        let state = self.store.data_mut();
        state.callouts.cancel_root(root);
        state.contexts.remove(&root);
    }
}

/// Calls into the guest with `context` as the current one. Any trap fails the whole VM.
fn enter<P: WasmParams, R: WasmResults>(
    store: &mut Store<HostState>,
    failed: &mut bool,
    name: &'static str,
    context: u32,
    epochs: u64,
    function: &TypedFunc<P, R>,
    params: P,
) -> Result<R, Failed> {
    if *failed {
        return Err(Failed);
    }
    store.set_epoch_deadline(epochs);
    let state = store.data_mut();
    state.current = context;
    state.callback = name;
    state.effective = 0;
    let result = function.call(&mut *store, params);
    let state = store.data_mut();
    state.leave();
    state.current = 0;
    state.callback = "";
    state.effective = 0;
    result.map_err(|error| {
        *failed = true;
        fail(state, name, &error);
        Failed
    })
}

/// Says why the VM has failed, and ends what it was waiting for.
#[cold]
fn fail(state: &mut HostState, name: &str, error: &wasmtime::Error) {
    let line = format!("Function: {name} failed: {}", describe(error));
    state.callouts.cancel_all();
    state.sink.log(LogLevel::Error, &line);
    state.last_error = Some(match state.last_error.take() {
        Some(logged) => format!("{line}; the plugin logged: {logged}"),
        None => line,
    });
}

fn u32_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn imports(store: &mut Store<HostState>, module: &Module) -> wasmtime::Result<Vec<Extern>> {
    let mut imports = Vec::new();
    for import in module.inner.imports() {
        imports.push(match import.ty() {
            ExternType::Memory(ty) => Extern::Memory(Memory::new(&mut *store, ty)?),
            ExternType::Table(ty) => {
                let null = wasmtime::Ref::null(ty.element().heap_type());
                Extern::Table(Table::new(&mut *store, ty, null)?)
            }
            _ => module.linker.get(&mut *store, import.module(), import.name())?,
        });
    }
    Ok(imports)
}

fn func<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<HostState>,
    name: &str,
) -> Option<TypedFunc<P, R>> {
    instance.get_typed_func(store, name).ok()
}

fn callbacks(instance: &Instance, store: &mut Store<HostState>, abi: AbiVersion) -> Callbacks {
    let headers = |store: &mut Store<HostState>, name| {
        let found = if abi == AbiVersion::V0_1_0 {
            func(instance, store, name).map(HeadersCallback::WithoutEnd)
        } else {
            func(instance, store, name).map(HeadersCallback::Present)
        };
        found.unwrap_or(HeadersCallback::Absent)
    };
    Callbacks {
        context_create: func(instance, store, "proxy_on_context_create"),
        vm_start: func(instance, store, "proxy_on_vm_start"),
        configure: func(instance, store, "proxy_on_configure"),
        tick: func(instance, store, "proxy_on_tick"),
        request_headers: headers(store, "proxy_on_request_headers"),
        request_body: func(instance, store, "proxy_on_request_body"),
        request_trailers: func(instance, store, "proxy_on_request_trailers"),
        response_headers: headers(store, "proxy_on_response_headers"),
        response_body: func(instance, store, "proxy_on_response_body"),
        response_trailers: func(instance, store, "proxy_on_response_trailers"),
        http_call_response: func(instance, store, "proxy_on_http_call_response"),
        grpc_initial_metadata: func(instance, store, "proxy_on_grpc_receive_initial_metadata"),
        grpc_receive: func(instance, store, "proxy_on_grpc_receive"),
        grpc_trailing_metadata: func(instance, store, "proxy_on_grpc_receive_trailing_metadata"),
        grpc_close: func(instance, store, "proxy_on_grpc_close"),
        queue_ready: func(instance, store, "proxy_on_queue_ready"),
        resolve_dns: func(instance, store, "envoy_on_resolve_dns"),
        done: func(instance, store, "proxy_on_done"),
        log: func(instance, store, "proxy_on_log"),
        delete: func(instance, store, "proxy_on_delete"),
        network: NetworkCallbacks::of(instance, store),
    }
}

/// A trap in the words of Envoy's engine where it has the same trap.
fn describe(error: &wasmtime::Error) -> String {
    if let Some(restricted) = error.downcast_ref::<RestrictedCallback>() {
        return format!("Uncaught Error: {restricted}");
    }
    let text = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "RuntimeError: unreachable",
        Some(Trap::MemoryOutOfBounds) => "RuntimeError: memory access out of bounds",
        Some(Trap::StackOverflow) => "RangeError: Maximum call stack size exceeded",
        Some(Trap::IntegerDivisionByZero) => "RuntimeError: divide by zero",
        Some(Trap::IntegerOverflow) => "RuntimeError: divide result unrepresentable",
        Some(Trap::BadConversionToInteger) => "RuntimeError: float unrepresentable in integer range",
        Some(Trap::TableOutOfBounds) => "RuntimeError: table index is out of bounds",
        Some(Trap::IndirectCallToNull | Trap::BadSignature) => {
            "RuntimeError: null function or function signature mismatch"
        }
        Some(Trap::Interrupt) => return "the callback exceeded its time limit".to_owned(),
        Some(other) => return format!("Uncaught RuntimeError: {other}"),
        None => return format!("Uncaught Error: {error}"),
    };
    format!("Uncaught {text}")
}
