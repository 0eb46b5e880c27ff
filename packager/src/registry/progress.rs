//! What a person may want to watch.

use crate::digest::Digest;

/// Told how blobs move. Calls come from several threads, since several blobs move at a time.
pub trait Progress: Send + Sync {
    /// A blob starts or, after a failure, starts again at `position`.
    fn start(&self, digest: &Digest, size: u64, position: u64) {
        let _ = (digest, size, position);
    }

    /// So many bytes more have gone by.
    fn advance(&self, digest: &Digest, bytes: u64) {
        let _ = (digest, bytes);
    }

    /// A blob is done.
    fn finish(&self, digest: &Digest, outcome: Moved) {
        let _ = (digest, outcome);
    }

    /// A failed step is tried again after so long.
    fn retry(&self, reason: &super::RegistryError, after: std::time::Duration) {
        let _ = (reason, after);
    }
}

/// How a blob came to be where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It was sent.
    Uploaded,
    /// It was where it was to go.
    AlreadyThere,
    /// The registry took it over from another of its repositories.
    Mounted,
    /// It was fetched.
    Downloaded,
}

/// Nobody watches.
impl Progress for () {}
