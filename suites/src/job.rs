//! What the command line asks of the runner, and what it answers: a document each way.

use serde::{Deserialize, Serialize};

use crate::outcome::Suite;

/// Everything to run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// How many tests run at a time; none: as many as there are processors.
    pub threads: Option<usize>,
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The suites, in the order of the job.
    pub suites: Vec<Suite>,
}
