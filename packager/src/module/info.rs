//! Reading a module's outline: imports, exports, memories, producers.

use std::io::Cursor;

use wasmparser::{CompositeInnerType, Imports, KnownCustom, Payload, TypeRef};

use super::envoy::AbiVersion;
use super::scan::{Scan, scan};
use super::signature::Signature;

/// The four bytes that a WebAssembly binary starts with.
pub const WASM_MAGIC: &[u8] = b"\0asm";

/// What an import or export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternKind {
    /// A function. `None` where its type is not a function's, which an invalid module may claim.
    Function(Option<Signature>),
    /// A table.
    Table,
    /// A memory.
    Memory,
    /// A global.
    Global,
    /// An exception tag.
    Tag,
}

/// An import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The module it is to come from.
    pub module: String,
    /// Its name there.
    pub name: String,
    /// What it is.
    pub kind: ExternKind,
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ExternKind,
}

/// A linear memory's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Whether the host is to make it.
    pub imported: bool,
    /// Initial size in pages of 64 KiB.
    pub minimum: u64,
    /// Largest size in pages, if limited.
    pub maximum: Option<u64>,
}

/// A field of the `producers` section: `language`, `sdk` or `processed-by`, and what it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The field.
    pub field: String,
    /// What it lists.
    pub tools: Vec<Tool>,
}

/// A name and version from the `producers` section, for example `rustc` and `1.95.0 (59807616e 2026-04-14)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version; may be empty.
    pub version: String,
}

/// A module's outline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Size in bytes.
    pub size: u64,
    /// The ABI version: the first exported function that names one, as Envoy decides it.
    pub abi: Option<AbiVersion>,
    /// Imports, in order.
    pub imports: Vec<Import>,
    /// Exports, in order.
    pub exports: Vec<Export>,
    /// Memories, imported ones first.
    pub memories: Vec<Memory>,
    /// The `producers` section; empty where there is none, or where it is malformed.
    pub producers: Vec<Producer>,
}

impl ModuleInfo {
    /// The signature of an exported function.
    pub fn exported_function(&self, name: &str) -> Option<&Signature> {
        self.exports.iter().find_map(|export| match &export.kind {
            ExternKind::Function(signature) if export.name == name => signature.as_ref(),
            _ => None,
        })
    }
}

/// Why a file is not a WebAssembly module that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// The magic number is missing.
    #[error("not a WebAssembly module: it starts with {}, not with `\\0asm`", preview(.start))]
    NotWasm {
        /// The first bytes, at most eight.
        start: Vec<u8>,
    },
    /// A component of the component model.
    #[error("a WebAssembly component, not a core module; Envoy loads core modules only")]
    Component,
    /// Some other version of the format.
    #[error("WebAssembly binary version {version} is not supported; expected 1")]
    Version {
        /// The version in the header.
        version: u32,
    },
    /// The file ends early.
    #[error("truncated: the module ends at byte {offset}, in the middle of {what}")]
    Truncated {
        /// Where more was expected.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// Something in it cannot be decoded.
    #[error("malformed module: {reason}, at byte {offset}")]
    Malformed {
        /// Where.
        offset: u64,
        /// What.
        reason: String,
    },
}

impl InspectError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotWasm { .. } => None,
            Self::Component => Some("build for the target wasm32-wasip1, not wasm32-wasip2"),
            Self::Version { .. } => Some("build for the target wasm32-wasip1"),
            Self::Truncated { .. } | Self::Malformed { .. } => Some("build or download the module again"),
        }
    }
}

/// Whether some bytes are a component of the component model, by its header (binary format, "preamble").
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(WASM_MAGIC) && bytes.get(6..8) == Some(&[1, 0])
}

/// Read a module's outline without validating its code, so that it can be shown whatever else is wrong with it.
pub fn inspect(bytes: &[u8]) -> Result<ModuleInfo, InspectError> {
    match outline(bytes) {
        (info, None) => Ok(info),
        (_, Some(error)) => Err(error),
    }
}

/// Read as much of a module's outline as there is: what stands before the first error, and that error.
pub fn outline(bytes: &[u8]) -> (ModuleInfo, Option<InspectError>) {
    // Memory does not fail to be read.
    match scan(&mut Cursor::new(bytes), bytes.len() as u64, None) {
        Ok(Scan { info, broken, .. }) => (info, broken),
        Err(error) => {
            let broken = InspectError::Malformed { offset: 0, reason: error.to_string() };
            (Outline::default().finish(bytes.len() as u64), Some(broken))
        }
    }
}

pub(super) fn header(bytes: &[u8]) -> Result<(), InspectError> {
    if !bytes.starts_with(WASM_MAGIC) {
        let whole = bytes.len() < WASM_MAGIC.len() && !bytes.is_empty() && WASM_MAGIC.starts_with(bytes);
        return Err(if whole {
            InspectError::Truncated { offset: bytes.len() as u64, what: "the header" }
        } else {
            InspectError::NotWasm { start: bytes.iter().copied().take(8).collect() }
        });
    }
    match bytes.get(4..8).and_then(|version| version.try_into().ok()).map(u32::from_le_bytes) {
        None => Err(InspectError::Truncated { offset: bytes.len() as u64, what: "the header" }),
        Some(1) => Ok(()),
        Some(_) if is_component(bytes) => Err(InspectError::Component),
        Some(version) => Err(InspectError::Version { version }),
    }
}

/// An error of the decoder's in a module that ends at `end`, told apart from that end; its offset is `lag` behind.
pub(super) fn decode_error(end: u64, lag: u64, error: &wasmparser::Error) -> InspectError {
    let offset = error.offset().saturating_add(lag);
    if error.message().starts_with("unexpected end") && offset <= end {
        return InspectError::Truncated { offset: end, what: "a section" };
    }
    InspectError::Malformed { offset, reason: error.message().to_owned() }
}

fn preview(bytes: &[u8]) -> String {
    if bytes.is_empty() { "nothing".to_owned() } else { format!("`{}`", bytes.escape_ascii()) }
}

/// What the sections said so far.
#[derive(Default)]
pub(super) struct Outline {
    types: Vec<Option<Signature>>,
    functions: Vec<u32>,
    imports: Vec<Import>,
    exports: Vec<Export>,
    memories: Vec<Memory>,
    producers: Vec<Producer>,
}

impl Outline {
    pub(super) fn section(&mut self, payload: &Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    for ty in group?.types() {
                        self.types.push(match &ty.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(Signature::from(function)),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for imports in section.clone() {
                    self.imports(imports?)?;
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    self.functions.push(ty?);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    self.memory(memory?, false);
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    let kind = match export.kind {
                        wasmparser::ExternalKind::Func | wasmparser::ExternalKind::FuncExact => {
                            let ty = self.functions.get(export.index as usize).copied();
                            ExternKind::Function(ty.and_then(|ty| self.signature(ty)))
                        }
                        wasmparser::ExternalKind::Table => ExternKind::Table,
                        wasmparser::ExternalKind::Memory => ExternKind::Memory,
                        wasmparser::ExternalKind::Global => ExternKind::Global,
                        wasmparser::ExternalKind::Tag => ExternKind::Tag,
                    };
                    self.exports.push(Export { name: export.name.to_owned(), kind });
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(fields) = section.as_known() {
                    // Only said of the module, never relied on: what cannot be read is left out.
                    self.producers = fields.into_iter().map_while(Result::ok).filter_map(producer).collect();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn imports(&mut self, imports: Imports<'_>) -> wasmparser::Result<()> {
        match imports {
            Imports::Single(_, import) => self.import(import.module, import.name, import.ty),
            Imports::Compact1 { module, items } => {
                for item in items {
                    let item = item?;
                    self.import(module, item.name, item.ty);
                }
            }
            Imports::Compact2 { module, ty, names } => {
                for name in names {
                    self.import(module, name?, ty);
                }
            }
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str, ty: TypeRef) {
        let kind = match ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                self.functions.push(ty);
                ExternKind::Function(self.signature(ty))
            }
            TypeRef::Table(_) => ExternKind::Table,
            TypeRef::Memory(memory) => {
                self.memory(memory, true);
                ExternKind::Memory
            }
            TypeRef::Global(_) => ExternKind::Global,
            TypeRef::Tag(_) => ExternKind::Tag,
        };
        self.imports.push(Import { module: module.to_owned(), name: name.to_owned(), kind });
    }

    fn memory(&mut self, memory: wasmparser::MemoryType, imported: bool) {
        self.memories.push(Memory { imported, minimum: memory.initial, maximum: memory.maximum });
    }

    fn signature(&self, ty: u32) -> Option<Signature> {
        self.types.get(ty as usize).cloned().flatten()
    }

    pub(super) fn finish(self, size: u64) -> ModuleInfo {
        let abi = self.exports.iter().find_map(|export| match export.kind {
            ExternKind::Function(_) => AbiVersion::from_marker(&export.name),
            _ => None,
        });
        let Self { imports, exports, memories, producers, .. } = self;
        ModuleInfo { size, abi, imports, exports, memories, producers }
    }
}

pub(crate) fn producer(field: wasmparser::ProducersField<'_>) -> Option<Producer> {
    let tools = field
        .values
        .into_iter()
        .map(|tool| tool.map(|tool| Tool { name: tool.name.to_owned(), version: tool.version.to_owned() }))
        .collect::<Result<_, _>>()
        .ok()?;
    Some(Producer { field: field.name.to_owned(), tools })
}
