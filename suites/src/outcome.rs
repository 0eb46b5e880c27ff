//! What came of a run: suites, their tests, and for each what was expected and what was seen.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// One suite after its run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// The file it is from.
    pub file: PathBuf,
    /// Why it could not be run at all; it has no tests then.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What is odd about it, and is no reason to fail.
    #[serde(default)]
    pub warnings: Vec<String>,
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
    /// How fast it is, when that was measured.
    #[serde(default)]
    pub measured: Option<Measured>,
    /// What the plugins logged, in order, level first.
    pub logs: Vec<String>,
    /// What each request met, as `harness::trace::json` writes it, for the report's page.
    pub traces: Vec<serde_json::Value>,
    /// What came of it in a real Envoy, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy: Option<OnEnvoy>,
}

/// What came of a test in a real Envoy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnEnvoy {
    /// It was not run there: why.
    NotRun(String),
    /// It was.
    Ran(Ran),
}

/// A test that was run in a real Envoy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// How it went.
    pub verdict: Verdict,
    /// How long it took, with Envoy's start.
    pub took: Duration,
    /// What the plugins logged, in order, level first.
    pub logs: Vec<String>,
    /// What is expected and was not looked at: the field, and why.
    pub not_compared: Vec<String>,
}

/// How a test went, all in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    /// In the harness, and in Envoy where it was run there.
    Passed,
    /// In one of them it did not.
    Failed,
    /// In one of them it could not be run to its end.
    Broken,
}

impl Verdict {
    /// Without the details.
    pub fn overall(&self) -> Overall {
        match self {
            Self::Passed => Overall::Passed,
            Self::Failed(_) => Overall::Failed,
            Self::Broken(_) => Overall::Broken,
        }
    }
}

impl Case {
    /// How it went, all in all.
    pub fn overall(&self) -> Overall {
        match (self.verdict.overall(), &self.envoy) {
            (Overall::Passed, Some(OnEnvoy::Ran(ran))) => ran.verdict.overall(),
            (overall, _) => overall,
        }
    }

    /// Whether harness and Envoy came to the same; none: it was not run in Envoy.
    pub fn agrees(&self) -> Option<bool> {
        match &self.envoy {
            Some(OnEnvoy::Ran(ran)) => Some(ran.verdict.overall() == self.verdict.overall()),
            _ => None,
        }
    }
}

/// A benchmark's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// How often it ran.
    pub iterations: u64,
    /// Half of them took no longer.
    pub median: Duration,
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
    /// What would have to be written for it to be met, where that can be said.
    #[serde(default)]
    pub golden: Option<Golden>,
}

/// A value to be written in place of one that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Golden {
    /// Into the suite, at this field.
    Field(String, Bytes),
    /// Into this file.
    File(PathBuf, Bytes),
}

impl Mismatch {
    /// An expectation that cannot be written anew.
    pub fn new(path: impl Into<String>, what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into(), expected: expected.into(), actual: None, golden: None }
    }

    /// With what was seen instead.
    #[must_use]
    pub fn actual(mut self, actual: impl Into<String>) -> Self {
        self.actual = Some(actual.into());
        self
    }

    /// With what would have to be written.
    #[must_use]
    pub fn golden(mut self, golden: Golden) -> Self {
        self.golden = Some(golden);
        self
    }
}

impl Suite {
    /// Whether all of it went well.
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && self.cases.iter().all(|case| case.overall() == Overall::Passed)
    }
}
