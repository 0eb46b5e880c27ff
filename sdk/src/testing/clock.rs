//! The clock of a test, which stands still until something makes it go.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of a proxy under test. Clones show the same time, so that a backend can know it, too.
///
/// ```
/// use std::time::Duration;
/// use plugwright_sdk::testing::{Clock, InMemoryHost};
///
/// let clock = Clock::at(Duration::from_secs(1_700_000_000));
/// let host = InMemoryHost::default().with_clock(&clock);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.since_epoch().as_secs(), 1_700_000_060);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clock(Rc<Cell<Duration>>);

impl Clock {
    /// Creates a clock that shows this long after the Unix epoch.
    pub fn at(since_epoch: Duration) -> Self {
        Self(Rc::new(Cell::new(since_epoch)))
    }

    /// Returns the time as a plugin sees it.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.get()
    }

    /// Returns how long after the Unix epoch it is.
    pub fn since_epoch(&self) -> Duration {
        self.0.get()
    }

    /// Moves the clock on without anything happening meanwhile; [`AsyncProxy::pass`](super::AsyncProxy::pass) lets it happen.
    pub fn advance(&self, by: Duration) {
        self.0.set(self.0.get() + by);
    }

    pub(super) fn set(&self, since_epoch: Duration) {
        self.0.set(since_epoch);
    }
}
