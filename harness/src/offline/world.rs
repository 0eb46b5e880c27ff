//! The time and randomness of a test.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::nature::Nature;

/// A world in which a test decides about everything. Its time goes with the runtime's, from where the test sets it.
#[derive(Debug)]
pub struct World {
    state: Mutex<State>,
    properties: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug)]
struct State {
    /// When the test last set the time, and to how long after the Unix epoch.
    set: (Instant, Duration),
    random: u64,
}

impl World {
    /// A world that begins at this time, with this seed for its randomness.
    pub fn new(since_epoch: Duration, seed: u64, properties: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let state = State { set: (Instant::now(), since_epoch), random: seed };
        Self { state: Mutex::new(state), properties: properties.into_iter().collect() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time.
    pub fn set_time(&self, since_epoch: Duration) {
        self.state().set = (Instant::now(), since_epoch);
    }

    /// Begins the sequence of random bytes again, from this seed.
    pub fn set_seed(&self, seed: u64) {
        self.state().random = seed;
    }

    /// How long after the Unix epoch it is.
    pub fn since_epoch(&self) -> Duration {
        let (at, time) = self.state().set;
        time.saturating_add(at.elapsed())
    }
}

impl Nature for World {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_epoch()
    }

    fn monotonic(&self) -> Option<Duration> {
        Some(self.since_epoch())
    }

    fn random(&self, bytes: &mut [u8]) -> bool {
        random(&mut self.state().random, bytes);
        true
    }

    fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.properties.get(path).cloned()
    }
}

/// The sequence `SplitMix64`, a byte of each number: the same that the SDK gives plugins in native tests.
pub(crate) fn random(seed: &mut u64, bytes: &mut [u8]) {
    for byte in bytes {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *byte = mixed.to_be_bytes()[0];
    }
}
