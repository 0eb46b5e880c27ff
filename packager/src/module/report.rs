//! What a check found.

use super::envoy::{AbiVersion, EnvoyVersion};
use super::info::{InspectError, ModuleInfo};
use super::signature::Signature;

/// The outcome of [`check`](super::check): the module's outline, everything wrong with it, and remarks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The Envoy that the module was checked against.
    pub envoy: EnvoyVersion,
    /// The outline, unless the module could not be read.
    pub info: Option<ModuleInfo>,
    /// Why it is refused; empty when it is not.
    pub problems: Vec<Problem>,
    /// What is worth knowing but no reason to refuse it.
    pub notes: Vec<Note>,
}

impl Report {
    pub(super) fn new(envoy: EnvoyVersion) -> Self {
        Self { envoy, info: None, problems: Vec::new(), notes: Vec::new() }
    }

    /// Whether Envoy loads the module.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A reason why Envoy refuses a module (or Istio to deliver it).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Larger than Istio's limit.
    #[error("the module has {size} bytes; Istio loads at most {limit}")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Not a module that can be read at all.
    #[error(transparent)]
    Unreadable(#[from] InspectError),
    /// Uses a WebAssembly proposal that Envoy's engine lacks.
    #[error("uses WebAssembly {feature} at byte {offset}, which Envoy {envoy} does not run")]
    Feature {
        /// The proposal's name.
        feature: String,
        /// Where it is first used.
        offset: u64,
        /// The Envoy checked against.
        envoy: EnvoyVersion,
    },
    /// Has a memory with 64-bit addresses. Envoy loads it, and then passes 32-bit pointers.
    #[error("uses 64-bit memory at byte {offset}; proxy-wasm's pointers have 32 bits")]
    Memory64 {
        /// Where it is first used.
        offset: u64,
    },
    /// Fails WebAssembly validation.
    #[error("invalid module: {reason}, at byte {offset}")]
    Invalid {
        /// Where.
        offset: u64,
        /// What.
        reason: String,
    },
    /// No exported function names an ABI version, or only unknown ones do.
    #[error("no export names a proxy-wasm ABI version{}", unknown_markers(.unknown))]
    NoAbiVersion {
        /// Exports that look like a marker of a version that Envoy does not know.
        unknown: Vec<String>,
    },
    /// An import that no supported Envoy provides.
    #[error("missing import: {module}.{name}")]
    MissingImport {
        /// The import's module.
        module: String,
        /// Its name.
        name: String,
    },
    /// An import that a newer Envoy provides.
    #[error("missing import: {module}.{name}, which Envoy has since {since}, not in {envoy}")]
    ImportTooNew {
        /// The import's module.
        module: String,
        /// Its name.
        name: String,
        /// The first Envoy to have it.
        since: EnvoyVersion,
        /// The Envoy checked against.
        envoy: EnvoyVersion,
    },
    /// A hostcall that Envoy keeps for modules of other ABI versions.
    #[error("missing import: {module}.{name}, which Envoy does not give to modules of ABI {abi}")]
    ImportOfOtherAbi {
        /// The import's module.
        module: String,
        /// Its name.
        name: String,
        /// The module's ABI version.
        abi: AbiVersion,
        /// The versions that have it.
        of: Vec<AbiVersion>,
    },
    /// An import that Envoy cannot give. A tag makes Envoy 1.40 abort where other imports make it refuse the module.
    #[error("import {module}.{name} is a {kind}; Envoy provides functions, memories and tables only")]
    ImportKind {
        /// The import's module.
        module: String,
        /// Its name.
        name: String,
        /// `global` or `tag`.
        kind: &'static str,
    },
    /// A function that Envoy has, with another signature.
    #[error("import type mismatch: {module}.{name}, want: {want}, but host exports: {have}")]
    ImportType {
        /// The import's module.
        module: String,
        /// Its name.
        name: String,
        /// What the module imports.
        want: Signature,
        /// What Envoy provides.
        have: Signature,
    },
    /// A function that Envoy calls, with another signature.
    #[error("bad function signature for: {name}, want: {want}, but the module exports: {have}")]
    ExportType {
        /// The export's name.
        name: String,
        /// What Envoy calls.
        want: Signature,
        /// What the module exports.
        have: Signature,
    },
    /// Neither `malloc` nor `proxy_on_memory_allocate` is exported.
    #[error("exports no allocator: neither `malloc` nor `proxy_on_memory_allocate`")]
    NoAllocator,
    /// Go's own compiler made a program of it, which exits when its `main` ends; Envoy traps there, and takes no such VM.
    #[error("is a Go program and not a library: its `_start` exits before the first callback")]
    GoProgram,
    /// Asks for more memory than Envoy gives.
    #[error("starts with {pages} pages of memory; Envoy gives at most {limit} (1 GiB)")]
    Memory {
        /// Initial size in pages of 64 KiB.
        pages: u64,
        /// The limit.
        limit: u64,
    },
}

fn unknown_markers(unknown: &[String]) -> String {
    if unknown.is_empty() { String::new() } else { format!(" that Envoy knows, only `{}`", unknown.join("`, `")) }
}

impl Problem {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { .. } => "strip the module and build it with optimisations".to_owned(),
            Self::Unreadable(error) => return error.hint().map(str::to_owned),
            Self::Feature { .. } | Self::Memory64 { .. } => "build with the target's default features".to_owned(),
            Self::NoAbiVersion { .. } => {
                "call `proxy_wasm::main!` in the crate's root, and build it as `cdylib`; in another language, export \
                 `proxy_abi_version_0_2_1`"
                    .to_owned()
            }
            Self::MissingImport { module, .. } if module.contains("wbindgen") => {
                "a dependency expects a browser: disable its wasm-bindgen feature".to_owned()
            }
            Self::MissingImport { module, name }
                if module == "env" && ["abort", "seed", "trace"].contains(&&**name) =>
            {
                format!("AssemblyScript imports it unless `asc --use {name}=FILE/FUNCTION` names another")
            }
            Self::MissingImport { module, .. } if ["go", "gojs"].contains(&&**module) => {
                "Go built it for a browser: set GOOS=wasip1 and GOARCH=wasm, and build with -buildmode=c-shared"
                    .to_owned()
            }
            Self::MissingImport { name, .. } if name.starts_with("emscripten_") || name.starts_with("invoke_") => {
                "Emscripten built it for JavaScript: link with -sSTANDALONE_WASM and without exceptions".to_owned()
            }
            Self::MissingImport { .. } => "find which dependency calls it and do without".to_owned(),
            Self::ImportTooNew { since, .. } => format!("run it on Envoy {since} or newer, or do without the call"),
            Self::ImportOfOtherAbi { of, .. } => {
                let versions: Vec<_> = of.iter().map(ToString::to_string).collect();
                format!("build against an SDK for ABI {}", versions.join(" or "))
            }
            Self::ImportType { .. } | Self::ExportType { .. } => {
                "declare it as the proxy-wasm specification does".to_owned()
            }
            Self::NoAllocator => "build against proxy-wasm's SDK, which exports one".to_owned(),
            Self::GoProgram => "build it with -buildmode=c-shared, with Go 1.24 or newer".to_owned(),
            Self::Memory { .. } => "lower the initial memory (`-Clink-arg=--initial-memory=…`)".to_owned(),
            Self::ImportKind { .. } | Self::Invalid { .. } => return None,
        })
    }
}

/// Something worth knowing about a module that Envoy loads all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Neither `_initialize` nor `_start` is exported, so no start-up code runs before the first callback.
    #[error("exports neither `_initialize` nor `_start`: nothing of it runs before the first callback")]
    NoStartFunction,
    /// Several exports name an ABI version.
    #[error("exports several ABI versions; Envoy takes the first, {taken}")]
    SeveralAbiVersions {
        /// The one taken.
        taken: AbiVersion,
    },
    /// Exports none of the callbacks that handle traffic.
    #[error("exports no callback for HTTP or TCP traffic")]
    NoTrafficCallback,
}
