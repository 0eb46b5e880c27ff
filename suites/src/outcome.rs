//! What came of a run: suites, their tests, and for each what was expected and what was seen.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One suite after its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// The file it is from.
    pub file: PathBuf,
    /// Its tests, in the file's order.
    pub cases: Vec<Case>,
}

/// One test after its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// As the suite names it.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// What the plugins logged, in order, level first.
    pub logs: Vec<String>,
    /// What each request met, as `harness::trace::json` writes it, for the report's page.
    pub traces: Vec<serde_json::Value>,
}

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that was expected was seen.
    Passed,
    /// Something else was seen; never empty.
    Failed(Vec<Mismatch>),
    /// It could not be run to its end: what, why, and what to do about it.
    Broken(String),
}

/// One expectation that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// The expectation's field in the suite, such as `test[2].request_headers.result.has_header[0]`.
    pub path: String,
    /// What was looked at, such as `request header x-user`.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What was seen; nothing where there was nothing.
    pub actual: Option<String>,
}
