//! Runs chain suites.

use suites::chain::Task;
use suites::outcome::Case;

/// A chain suite whose tests can be run.
pub(crate) struct Suite {}

impl Suite {
    pub(crate) fn prepare(_: &Task) -> Self {
        Self {}
    }

    /// Its tests' names, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Runs a test, by its place among the names.
    pub(crate) fn run(&self, _: usize) -> Option<Case> {
        None
    }
}
