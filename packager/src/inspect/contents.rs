//! What a module is made of, for people and scripts.

use std::collections::HashMap;

use serde::Serialize;
use wasmparser::{BinaryReader, ProducersSectionReader};

use super::loads::{Finding, Loads, loads};
use super::sections::{custom, sections};
use super::size::{Size, function_names, is_go, size};
use crate::digest::Digest;
use crate::module::{self, ExternKind, InspectError, ModuleInfo, Producer, producer};

/// A page of WebAssembly memory.
const PAGE: u64 = 64 << 10;

/// A module, or what was given as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleReport {
    /// Digest of the bytes: what Istio compares a pin to an http(s) URL with.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What the bytes are.
    pub format: Format,
    /// Why reading stopped before the end. What follows is then what stands before that.
    pub error: Option<Finding>,
    /// The proxy-wasm ABI version that Envoy takes it for, for example `0.2.1`.
    pub abi_version: Option<String>,
    /// The language it was written in, where that could be told.
    pub language: Option<Language>,
    /// The `producers` section.
    pub producers: Vec<ProducerReport>,
    /// Imports by the module they come from, in order of first use.
    pub imports: Vec<ImportedModule>,
    /// Exports in order.
    pub exports: Vec<Item>,
    /// Memories, imported ones first.
    pub memories: Vec<MemoryReport>,
    /// Where its bytes are; none where the file is no WebAssembly binary.
    pub size: Option<Size>,
    /// Which versions load it.
    pub loads: Loads,
    /// What is worth knowing but no reason to refuse it.
    pub notes: Vec<String>,
}

/// What bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A core module, whole or broken.
    Module,
    /// A component of the component model.
    Component,
    /// No WebAssembly binary.
    NotWasm,
}

/// A language, and how it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Language {
    /// For example `Rust`, `C++17`, `Go`.
    pub name: String,
    /// `producers section`, `function names`, `imports`, `toolchain annotation` or `runtime configuration`.
    pub told_by: &'static str,
}

/// A field of the `producers` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProducerReport {
    /// `language`, `sdk` or `processed-by`.
    pub field: String,
    /// Name and version, separated by a space.
    pub values: Vec<String>,
}

/// A module that imports come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedModule {
    /// Its name.
    pub module: String,
    /// What is imported from it.
    pub items: Vec<Item>,
}

/// An import or export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// `function`, `table`, `memory`, `global` or `tag`.
    pub kind: &'static str,
    /// Of a function, its signature as Envoy writes it: `i32 i32 -> i32`.
    pub signature: Option<String>,
}

/// A memory's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// Whether the host is to make it.
    pub imported: bool,
    /// Initial size in pages of 64 KiB.
    pub minimum_pages: u64,
    /// Initial size in bytes.
    pub minimum_bytes: u64,
    /// Largest size in pages, if limited; Envoy's own limit is 16384.
    pub maximum_pages: Option<u64>,
}

/// Report on some bytes, whatever they are.
pub(super) fn contents(bytes: &[u8]) -> ModuleReport {
    let (info, error) = module::outline(bytes);
    let format = match &error {
        _ if module::is_component(bytes) => Format::Component,
        Some(InspectError::NotWasm { .. }) => Format::NotWasm,
        _ => Format::Module,
    };
    let reports = module::check_every(bytes);
    let notes = reports.last().map(|report| report.notes.iter().map(ToString::to_string).collect());
    let producers = if format == Format::Component { producers(bytes) } else { info.producers.clone() };
    let imported = info.imports.iter().filter(|import| matches!(import.kind, ExternKind::Function(_))).count();
    ModuleReport {
        digest: Digest::of(bytes),
        size_bytes: bytes.len() as u64,
        format,
        error: error.map(|error| Finding::new(&error, error.hint())),
        abi_version: info.abi.map(|abi| abi.to_string()),
        language: language(&info, &producers, bytes).or_else(|| nested_language(bytes)),
        producers: producers.into_iter().map(produced).collect(),
        imports: imports(&info),
        exports: info.exports.iter().map(|export| item(&export.name, &export.kind)).collect(),
        memories: info.memories.iter().map(memory).collect(),
        size: (format != Format::NotWasm).then(|| size(bytes, imported)),
        loads: loads(&reports),
        notes: notes.unwrap_or_default(),
    }
}

fn item(name: &str, kind: &ExternKind) -> Item {
    let (kind, signature) = match kind {
        ExternKind::Function(signature) => ("function", signature.as_ref().map(ToString::to_string)),
        ExternKind::Table => ("table", None),
        ExternKind::Memory => ("memory", None),
        ExternKind::Global => ("global", None),
        ExternKind::Tag => ("tag", None),
    };
    Item { name: name.to_owned(), kind, signature }
}

fn memory(memory: &module::Memory) -> MemoryReport {
    MemoryReport {
        imported: memory.imported,
        minimum_pages: memory.minimum,
        minimum_bytes: memory.minimum.saturating_mul(PAGE),
        maximum_pages: memory.maximum,
    }
}

fn imports(info: &ModuleInfo) -> Vec<ImportedModule> {
    let mut modules: Vec<ImportedModule> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for import in &info.imports {
        let place = *places.entry(&import.module).or_insert_with(|| {
            modules.push(ImportedModule { module: import.module.clone(), items: Vec::new() });
            modules.len() - 1
        });
        modules[place].items.push(item(&import.name, &import.kind));
    }
    modules
}

/// A component's own `producers` section; the outline is for core modules.
fn producers(bytes: &[u8]) -> Vec<Producer> {
    let sections = sections(bytes).filter(|section| section.id == 0);
    let found = sections.filter_map(|section| custom(&bytes[section.content])).find(|(name, _)| *name == "producers");
    let reader = found.and_then(|(_, data)| ProducersSectionReader::new(BinaryReader::new(data, 0)).ok());
    reader.into_iter().flatten().map_while(Result::ok).filter_map(producer).collect()
}

fn produced(producer: Producer) -> ProducerReport {
    let value = |tool: module::Tool| {
        if tool.version.is_empty() { tool.name } else { format!("{} {}", tool.name, tool.version) }
    };
    ProducerReport { field: producer.field, values: producer.tools.into_iter().map(value).collect() }
}

/// `TinyGo` leaves the language to the C library that it links, so that its own traces go first.
fn language(info: &ModuleInfo, producers: &[Producer], bytes: &[u8]) -> Option<Language> {
    let told = |name: &str, told_by| Some(Language { name: name.to_owned(), told_by });
    let imports = |module: &str, name: &str| info.imports.iter().any(|i| i.module == module && i.name == name);
    if producers.iter().flat_map(|field| &field.tools).any(|tool| tool.name == "TinyGo") {
        return told("Go (TinyGo)", "producers section");
    }
    let fields = producers.iter().filter(|producer| producer.field == "language");
    let mut names: Vec<String> = fields.flat_map(|field| &field.tools).map(|tool| spelled(&tool.name)).collect();
    if names.iter().any(|name| name == "Rust") {
        names = vec!["Rust".to_owned()];
    }
    let go = is_go(function_names(bytes).into_iter());
    if go && !names.iter().any(|name| name == "Go") {
        return told("Go", "function names");
    }
    if !names.is_empty() {
        return told(&names.join(", "), "producers section");
    }
    if imports("env", "emscripten_notify_memory_growth") {
        return told("C or C++", "imports");
    }
    if imports("env", "abort") && info.exports.iter().any(|export| export.name == "__new") {
        return told("AssemblyScript", "imports");
    }
    None
}

/// The language of a component, which is that of the first core module in it that tells.
fn nested_language(bytes: &[u8]) -> Option<Language> {
    let nested = sections(bytes).filter(|section| module::is_component(bytes) && section.id == 1);
    nested.map(|section| &bytes[section.content]).find_map(|nested| {
        let (info, _) = module::outline(nested);
        language(&info, &info.producers, nested)
    })
}

/// LLVM's name of a language, as people write it: `C_plus_plus_17` is C++17.
fn spelled(name: &str) -> String {
    name.replace("_plus_plus_", "++").replace("_plus_plus", "++")
}
