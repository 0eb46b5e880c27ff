//! Where modules' bytes come from.

use std::collections::BTreeMap;

use mesh::plan;
use sha2::{Digest as _, Sha256};

use crate::module::hex;

/// What a source has for an extension.
#[derive(Debug)]
pub enum Fetched {
    /// The module.
    Bytes(Vec<u8>),
    /// Fetching failed; the extension's fail strategy decides what takes its place.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A source could not give what it promised.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The plan has no module for an extension of its chain.
    #[error("the plan has no module for {extension}")]
    Missing {
        /// As [`mesh::model::Extension::id`] has it.
        extension: String,
    },
    /// The file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file changed since it was checked.
    #[error("{path} has sha256 {actual}, expected {expected}")]
    Digest {
        /// The file.
        path: std::path::PathBuf,
        /// What the plan says.
        expected: String,
        /// What the bytes have.
        actual: String,
    },
}

/// Gives each extension's module.
pub trait ModuleSource {
    /// The module of an extension, by its [`id`](mesh::model::Extension::id).
    fn module(&self, extension: &str) -> Result<Fetched, SourceError>;
}

/// The files a plan names, each checked against its digest.
impl ModuleSource for plan::Plan {
    fn module(&self, extension: &str) -> Result<Fetched, SourceError> {
        match self.modules.get(extension) {
            None => Err(SourceError::Missing { extension: extension.to_owned() }),
            Some(plan::Module::FetchFailed { reason }) => Ok(Fetched::Failed { reason: reason.clone() }),
            Some(plan::Module::File { path, sha256 }) => {
                let bytes = std::fs::read(path).map_err(|source| SourceError::Read { path: path.clone(), source })?;
                let actual = hex(&Sha256::digest(&bytes));
                if actual == *sha256 {
                    return Ok(Fetched::Bytes(bytes));
                }
                Err(SourceError::Digest { path: path.clone(), expected: sha256.clone(), actual })
            }
        }
    }
}

/// Modules in memory, by extension.
impl ModuleSource for BTreeMap<String, Vec<u8>> {
    fn module(&self, extension: &str) -> Result<Fetched, SourceError> {
        match self.get(extension) {
            Some(bytes) => Ok(Fetched::Bytes(bytes.clone())),
            None => Err(SourceError::Missing { extension: extension.to_owned() }),
        }
    }
}
