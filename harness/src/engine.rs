//! The compiler and its limits, shared by every VM of a process.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Config;

use crate::code_cache::CodeCache;
use crate::coverage::Coverage;

/// What a plugin may take. The defaults are Envoy's where Envoy has a limit.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Linear memory of one VM: 1 GiB.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// The longest a callback on a stream may run: 1 s. Envoy has no limit.
    pub callback: Duration,
    /// The longest a start function, `on_vm_start` or `on_configure` may run: 10 s.
    pub startup: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            table_elements: 10_000_000,
            callback: Duration::from_secs(1),
            startup: Duration::from_secs(10),
        }
    }
}

/// How often running guests look at the clock.
const EPOCH: Duration = Duration::from_millis(10);
const STACK_BYTES: usize = 1 << 20;

/// The engine could not be set up on this machine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The compiler's configuration is not supported here.
    #[error("set up the wasm engine")]
    Configure(#[source] wasmtime::Error),
    /// The thread that advances time for guests did not start.
    #[error("start the wasm clock")]
    Clock(#[source] std::io::Error),
}

/// Compiles and runs modules. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: wasmtime::Engine,
    pub(crate) limits: Arc<Limits>,
    pub(crate) code: Option<Arc<CodeCache>>,
    pub(crate) coverage: Option<Arc<Coverage>>,
}

impl Engine {
    /// Sets the engine up, with the proposals that Envoy's V8 has and a clock that interrupts endless loops.
    pub fn new(limits: Limits) -> Result<Self, EngineError> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(STACK_BYTES)
            .wasm_simd(true)
            .wasm_relaxed_simd(true)
            .wasm_bulk_memory(true)
            .wasm_reference_types(true)
            .wasm_multi_value(true)
            .wasm_multi_memory(true)
            .wasm_extended_const(true)
            .wasm_tail_call(true);
        let inner = wasmtime::Engine::new(&config).map_err(EngineError::Configure)?;
        let weak = inner.weak();
        std::thread::Builder::new()
            .name("wasm-clock".to_owned())
            .spawn(move || {
                while let Some(engine) = weak.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(EPOCH);
                }
            })
            .map_err(EngineError::Clock)?;
        Ok(Self { inner, limits: Arc::new(limits), code: None, coverage: None })
    }

    /// Keeps what it compiles, and takes what is kept.
    #[must_use]
    pub fn with_code_cache(mut self, cache: Arc<CodeCache>) -> Self {
        self.code = Some(cache);
        self
    }

    /// Collects what modules have noted of which of their code was executed.
    #[must_use]
    pub fn with_coverage(mut self, coverage: Arc<Coverage>) -> Self {
        self.coverage = Some(coverage);
        self
    }
}

/// The number of epochs that makes up at least `time`.
pub(crate) fn epochs(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(EPOCH.as_nanos())).unwrap_or(u64::MAX / 2) + 1
}
