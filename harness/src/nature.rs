//! What no program can decide about: the time and randomness. A test decides about them all the same.

use std::time::{Duration, SystemTime};

/// What guests see of the world outside of their streams.
pub trait Nature: Send + Sync {
    /// The wall clock.
    fn now(&self) -> SystemTime;

    /// What the monotonic clock shows, when that is not how long the process runs.
    fn monotonic(&self) -> Option<Duration> {
        None
    }

    /// Fills `bytes` with randomness; false when there is none.
    fn random(&self, bytes: &mut [u8]) -> bool;

    /// A property that is what it is whatever the stream's are; its path's segments are joined with NUL.
    fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        let _ = path;
        None
    }
}

/// The world as it is.
#[derive(Debug, Clone, Copy)]
pub struct Real;

impl Nature for Real {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self, bytes: &mut [u8]) -> bool {
        getrandom::fill(bytes).is_ok()
    }
}
