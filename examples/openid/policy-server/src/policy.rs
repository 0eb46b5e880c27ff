//! Who may do what: a JSON file, small enough to be read for every question.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What each subject may do.
pub(crate) type Functions = BTreeMap<String, Vec<String>>;

pub(crate) struct Policy(PathBuf);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("failed to read {}: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}: not an object of lists of strings: {source}", file.display())]
    Content { file: PathBuf, source: serde_json::Error },
}

impl Policy {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self(file)
    }

    pub(crate) fn read(&self) -> Result<Functions, PolicyError> {
        let file = || self.0.clone();
        let text = std::fs::read(&self.0).map_err(|source| PolicyError::Read { file: file(), source })?;
        serde_json::from_slice(&text).map_err(|source| PolicyError::Content { file: file(), source })
    }
}
