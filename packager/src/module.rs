//! Proxy-wasm modules: what is in one, and whether a given Envoy loads it.
//!
//! The rules are Envoy's, observed on its V8 runtime; where they differ from the proxy-wasm specification, Envoy wins.
//!
//! ```
//! use packager::module::{self, EnvoyVersion};
//!
//! let report = module::check(b"\0asm\x01\0\0\0", EnvoyVersion::NEWEST);
//! assert!(!report.is_ok());
//! assert_eq!(report.problems[0].to_string(), "no export names a proxy-wasm ABI version");
//! ```

mod envoy;
mod host;
mod info;
mod report;
mod rules;
mod scan;
mod signature;
mod source;
#[cfg(test)]
mod tests;
mod window;

pub use envoy::{AbiVersion, EnvoyVersion, UnknownEnvoyVersion};
pub(crate) use info::producer;
pub use info::{
    Export, ExternKind, Import, InspectError, Memory, ModuleInfo, Producer, Tool, WASM_MAGIC, inspect, is_component,
    outline,
};
pub use report::{Note, Problem, Report};
pub use signature::{Signature, ValueType};
pub(crate) use source::Checksum;
pub use source::{ReadError, Source, read};

/// Istio's limit on a module, unpacked: 256 MiB.
pub const MAX_MODULE_SIZE: u64 = 256 << 20;

/// Envoy's limit on a module's memory, in pages of 64 KiB: 1 GiB.
pub const MAX_MEMORY_PAGES: u64 = 16_384;

/// Check a module against everything that decides whether `envoy` loads it (and Istio delivers it): size, format,
/// WebAssembly features, ABI version, imports, allocator, callbacks' signatures, memory.
///
/// Every problem is reported, not only the one that Envoy would stop at.
pub fn check(bytes: &[u8], envoy: EnvoyVersion) -> Report {
    // Memory does not fail to be read, nor does it change.
    rules::check(Source::Bytes(bytes), envoy).map_or_else(|error| unread(envoy, &error), |(report, _)| report)
}

/// [`check`] a module against every version known here, oldest first. The reports come without the outline.
pub fn check_every(bytes: &[u8]) -> Vec<Report> {
    let unread = |error| EnvoyVersion::all().map(|envoy| unread(envoy, &error)).collect();
    rules::each(Source::Bytes(bytes), EnvoyVersion::all()).map_or_else(unread, |read| read.reports)
}

/// As much of the outline of a module, wherever it is, as there is before the first error.
pub(crate) fn outline_source(source: Source<'_>) -> Result<ModuleInfo, ReadError> {
    let (mut input, size) = source.open()?;
    let read = scan::scan(&mut *input, size, None).map_err(|error| source.failed(error))?;
    Ok(read.info)
}

fn unread(envoy: EnvoyVersion, error: &ReadError) -> Report {
    let mut report = Report::new(envoy);
    report.problems.push(InspectError::Malformed { offset: 0, reason: error.to_string() }.into());
    report
}

/// [`check`] a module wherever it is, without having it in memory as a whole: a function's body, a section of types,
/// imports, exports or elements at a time. The checksum of what was read comes with the report.
pub(crate) fn check_source(source: Source<'_>, envoy: EnvoyVersion) -> Result<(Report, Checksum), ReadError> {
    rules::check(source, envoy)
}
