//! Which modules are accepted, and with whose words the others are refused: Envoy's.

use sha2::{Digest as _, Sha256};
use wasmtime::{Extern, ExternType, FuncType, Linker, Store, ValType};

use crate::abi::AbiVersion;
use crate::engine::Engine;
use crate::state::HostState;

/// Why a module is not accepted. The texts are those Envoy logs.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are a component, which no proxy-wasm host runs.
    #[error("the file is a WebAssembly component, not a core module; build it for wasm32-wasip1")]
    Component,
    /// Not wasm, or wasm that does not validate.
    #[error("Failed to parse corrupted Wasm module")]
    Corrupted(#[source] wasmtime::Error),
    /// No marker export, or an unknown one.
    #[error("Missing or unknown Proxy-Wasm ABI version")]
    UnknownAbi,
    /// The module imports what the host does not have.
    #[error("Failed to load Wasm module due to a missing import: {import}")]
    MissingImport {
        /// `module.name`
        import: String,
    },
    /// The module imports a function with another type.
    #[error(
        "Failed to load Wasm module due to an import type mismatch: {import}, want: {want}, but host exports: {have}"
    )]
    ImportType {
        /// `module.name`
        import: String,
        /// The type the module imports.
        want: String,
        /// The type the host has.
        have: String,
    },
    /// The module exports a callback with another type.
    #[error("Bad function signature for: {callback}, want: {want}, but the module exports: {have}")]
    CallbackType {
        /// The callback's name.
        callback: String,
        /// The type the host calls.
        want: String,
        /// The type the module exports.
        have: String,
    },
    /// Neither `malloc` nor `proxy_on_memory_allocate`.
    #[error("Wasm module is missing malloc function.")]
    MissingMalloc,
    /// The host's own functions could not be defined.
    #[error("define the host's functions")]
    Linker(#[source] wasmtime::Error),
}

/// A compiled module that this host can run.
pub struct Module {
    pub(crate) inner: wasmtime::Module,
    pub(crate) linker: Linker<HostState>,
    pub(crate) engine: Engine,
    pub(crate) allocator: &'static str,
    abi: AbiVersion,
    sha256: String,
    from_cache: bool,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("abi", &self.abi).field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

impl Module {
    /// Compiles a module and checks its imports, exports and ABI version.
    pub fn compile(engine: &Engine, bytes: &[u8]) -> Result<Self, LoadError> {
        // A component has the same magic and a layer number where the version is.
        if bytes.starts_with(b"\0asm") && bytes.get(6..8) == Some(&[1, 0]) {
            return Err(LoadError::Component);
        }
        let sha256 = hex(&Sha256::digest(bytes));
        let (inner, from_cache) = native_code(engine, bytes, &sha256)?;
        let abi =
            inner.exports().find_map(|export| AbiVersion::from_marker(export.name())).ok_or(LoadError::UnknownAbi)?;
        let mut linker = Linker::new(&engine.inner);
        crate::hostcalls::add_to_linker(&mut linker, abi).map_err(LoadError::Linker)?;
        crate::wasi::add_to_linker(&mut linker).map_err(LoadError::Linker)?;
        check_imports(engine, &inner, &linker)?;
        check_callbacks(&inner, abi)?;
        let allocator = ["malloc", "proxy_on_memory_allocate"]
            .into_iter()
            .find(|name| matches!(inner.get_export(name), Some(ExternType::Func(_))))
            .ok_or(LoadError::MissingMalloc)?;
        Ok(Self { inner, linker, engine: engine.clone(), allocator, abi, sha256, from_cache })
    }

    /// The ABI version of the module's first marker.
    pub fn abi(&self) -> AbiVersion {
        self.abi
    }

    /// The digest of the bytes it was compiled from.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether it had been compiled before and was kept.
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }
}

/// The module as the processor runs it, and whether it had been compiled before.
fn native_code(engine: &Engine, bytes: &[u8], sha256: &str) -> Result<(wasmtime::Module, bool), LoadError> {
    if let Some(kept) = engine.code.as_ref().and_then(|cache| cache.load(&engine.inner, sha256)) {
        return Ok((kept, true));
    }
    let module = wasmtime::Module::from_binary(&engine.inner, bytes).map_err(LoadError::Corrupted)?;
    if let Some(cache) = &engine.code {
        cache.store(&engine.inner, sha256, &module);
    }
    Ok((module, false))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            hex.push(char::from(DIGITS[usize::from(half)]));
        }
    }
    hex
}

fn check_imports(engine: &Engine, module: &wasmtime::Module, linker: &Linker<HostState>) -> Result<(), LoadError> {
    let mut store = Store::new(&engine.inner, HostState::unattached());
    for import in module.imports() {
        let name = || format!("{}.{}", import.module(), import.name());
        let want = match import.ty() {
            // The host creates these with the limits the module declares.
            ExternType::Memory(_) | ExternType::Table(_) => continue,
            ExternType::Func(want) => want,
            _ => return Err(LoadError::MissingImport { import: name() }),
        };
        let have = linker
            .get(&mut store, import.module(), import.name())
            .ok()
            .and_then(Extern::into_func)
            .ok_or_else(|| LoadError::MissingImport { import: name() })?
            .ty(&store);
        if describe(&want) != describe(&have) {
            return Err(LoadError::ImportType { import: name(), want: describe(&want), have: describe(&have) });
        }
    }
    Ok(())
}

/// The callbacks a host calls, by name: parameters and results, all of them `i32`.
const CALLBACKS: &[(&str, usize, usize)] = &[
    ("malloc", 1, 1),
    ("proxy_on_memory_allocate", 1, 1),
    ("_initialize", 0, 0),
    ("_start", 0, 0),
    ("proxy_on_context_create", 2, 0),
    ("proxy_on_vm_start", 2, 1),
    ("proxy_on_configure", 2, 1),
    ("proxy_on_tick", 1, 0),
    ("proxy_on_queue_ready", 2, 0),
    ("proxy_on_request_body", 3, 1),
    ("proxy_on_response_body", 3, 1),
    ("proxy_on_request_trailers", 2, 1),
    ("proxy_on_response_trailers", 2, 1),
    ("proxy_on_request_metadata", 2, 1),
    ("proxy_on_response_metadata", 2, 1),
    ("proxy_on_http_call_response", 5, 0),
    ("proxy_on_grpc_receive_initial_metadata", 3, 0),
    ("proxy_on_grpc_receive", 3, 0),
    ("proxy_on_grpc_receive_trailing_metadata", 3, 0),
    ("proxy_on_grpc_close", 3, 0),
    ("envoy_on_resolve_dns", 3, 0),
    ("proxy_on_new_connection", 1, 1),
    ("proxy_on_downstream_data", 3, 1),
    ("proxy_on_upstream_data", 3, 1),
    ("proxy_on_downstream_connection_close", 2, 0),
    ("proxy_on_upstream_connection_close", 2, 0),
    ("proxy_on_done", 1, 1),
    ("proxy_on_log", 1, 0),
    ("proxy_on_delete", 1, 0),
];

fn check_callbacks(module: &wasmtime::Module, abi: AbiVersion) -> Result<(), LoadError> {
    let headers = if abi == AbiVersion::V0_1_0 { 2 } else { 3 };
    let by_abi = [("proxy_on_request_headers", headers, 1), ("proxy_on_response_headers", headers, 1)];
    let foreign = (abi != AbiVersion::V0_1_0).then_some(("proxy_on_foreign_function", 3, 0));
    for &(callback, params, results) in CALLBACKS.iter().chain(&by_abi).chain(&foreign) {
        let Some(ExternType::Func(have)) = module.get_export(callback) else { continue };
        let expected = |types: &mut dyn Iterator<Item = ValType>, count| {
            types.map(|ty| matches!(ty, ValType::I32)).eq(std::iter::repeat_n(true, count))
        };
        if !expected(&mut have.params(), params) || !expected(&mut have.results(), results) {
            return Err(LoadError::CallbackType {
                callback: callback.to_owned(),
                want: format!("{} -> {}", list(&vec!["i32"; params]), list(&vec!["i32"; results])),
                have: describe(&have),
            });
        }
    }
    Ok(())
}

fn describe(ty: &FuncType) -> String {
    let names = |types: &mut dyn Iterator<Item = ValType>| {
        let names: Vec<String> = types.map(|ty| ty.to_string()).collect();
        list(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    format!("{} -> {}", names(&mut ty.params()), names(&mut ty.results()))
}

fn list(types: &[&str]) -> String {
    if types.is_empty() { "void".to_owned() } else { types.join(" ") }
}
