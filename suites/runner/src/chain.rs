//! Runs chain suites.

use suites::chain::Task;
use suites::outcome::Case;

/// A chain suite whose tests can be run.
pub(crate) struct Suite {
    cases: Vec<Case>,
}

impl Suite {
    pub(crate) fn prepare(_: &Task) -> Self {
        Self { cases: Vec::new() }
    }

    /// Its tests' names, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.cases.iter().map(|case| case.name.as_str()).collect()
    }

    /// Runs a test, by its place among the names.
    pub(crate) fn run(&self, test: usize) -> Option<Case> {
        self.cases.get(test).cloned()
    }
}
