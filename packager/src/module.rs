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
mod signature;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use envoy::{AbiVersion, EnvoyVersion, UnknownEnvoyVersion};
pub(crate) use info::producer;
pub use info::{
    Export, ExternKind, Import, InspectError, Memory, ModuleInfo, Producer, Tool, WASM_MAGIC, inspect, is_component,
    outline,
};
pub use report::{Note, Problem, Report};
pub use signature::{Signature, ValueType};

/// Istio's limit on a module, unpacked: 256 MiB.
pub const MAX_MODULE_SIZE: u64 = 256 << 20;

/// Envoy's limit on a module's memory, in pages of 64 KiB: 1 GiB.
pub const MAX_MEMORY_PAGES: u64 = 16_384;

/// A module's file that cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read module `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("cannot read module `{}`: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Larger than Istio accepts.
    #[error("module `{}` has {size} bytes; Istio loads at most {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl ReadError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("build it first: `cargo xtask build`")
            }
            Self::TooLarge { .. } => Some("strip the module and build it with optimisations"),
            Self::Read { .. } | Self::NotAFile { .. } => None,
        }
    }
}

/// Read a module's file, unless it is larger than [`MAX_MODULE_SIZE`]: such a file is refused before it is read.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile { path: path.to_owned() });
    }
    let too_large = |size| ReadError::TooLarge { path: path.to_owned(), size, limit: MAX_MODULE_SIZE };
    if metadata.len() > MAX_MODULE_SIZE {
        return Err(too_large(metadata.len()));
    }
    // The file may grow while it is read.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    File::open(path).map_err(failed)?.take(MAX_MODULE_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        size if size > MAX_MODULE_SIZE => Err(too_large(size)),
        _ => Ok(bytes),
    }
}

/// Check a module against everything that decides whether `envoy` loads it (and Istio delivers it): size, format,
/// WebAssembly features, ABI version, imports, allocator, callbacks' signatures, memory.
///
/// Every problem is reported, not only the one that Envoy would stop at.
pub fn check(bytes: &[u8], envoy: EnvoyVersion) -> Report {
    rules::check(bytes, envoy)
}

/// [`check`] a module against every version known here, oldest first, reading it once. The reports come without the
/// outline.
pub fn check_every(bytes: &[u8]) -> Vec<Report> {
    rules::each(bytes, EnvoyVersion::all()).1
}

/// [`read`] a file and [`check`] it; the bytes come back with the report.
pub fn check_file(path: &Path, envoy: EnvoyVersion) -> Result<(Vec<u8>, Report), ReadError> {
    let bytes = read(path)?;
    let report = check(&bytes, envoy);
    Ok((bytes, report))
}
