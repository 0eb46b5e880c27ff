//! What the command line asks of the runner, and what it answers: a document each way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::outcome::Suite;
use crate::{chain, plugin};

/// Everything to run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// How many tests run at a time; none: as many as there are processors.
    pub threads: Option<usize>,
    /// Which tests; none: all.
    pub filter: Option<Filter>,
    /// The longest that a callback may take.
    pub timeout: Option<Duration>,
    /// Where compiled modules are kept.
    pub code_cache: Option<PathBuf>,
    /// Measure the tests that are benchmarks, too.
    pub bench: bool,
    /// The Envoy to run them in as well.
    #[serde(default)]
    pub envoy: Option<PathBuf>,
    /// Collect what modules that take notes have noted.
    #[serde(default)]
    pub coverage: bool,
    /// The suites, in the order in which they are reported.
    pub suites: Vec<Task>,
}

/// A suite to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its file, as it is shown.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of suites.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One plugin, callback by callback.
    Plugin(Box<plugin::Task>),
    /// A whole chain.
    Chain(Box<chain::Task>),
    /// It cannot be run as a whole: why.
    Broken(Vec<String>),
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The suites, in the order of the job.
    pub suites: Vec<Suite>,
    /// The flags of each module that ran and takes notes, by the digest of its bytes; of each word the lowest bit first.
    #[serde(default)]
    pub reached: BTreeMap<String, Vec<u64>>,
}

/// Chooses tests by their names: part of one, or a regular expression between slashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter(String);

impl Filter {
    /// Reads a filter, or says what is wrong with its expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let filter = Self(text.to_owned());
        match filter.expression() {
            Some(Err(error)) => Err(error.to_string()),
            _ => Ok(filter),
        }
    }

    fn expression(&self) -> Option<Result<Regex, regex::Error>> {
        let inner = self.0.strip_prefix('/')?.strip_suffix('/')?;
        Some(Regex::new(inner))
    }

    /// Chooses from names, in order: which are meant.
    pub fn chosen<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<bool> {
        match self.expression() {
            Some(Ok(expression)) => names.into_iter().map(|name| expression.is_match(name)).collect(),
            _ => names.into_iter().map(|name| name.contains(&self.0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_part_of_a_name_or_an_expression_between_slashes() {
        let names = ["DeniesBad", "AllowsGood", "/x"];
        let chosen = |text: &str| Filter::parse(text).unwrap().chosen(names);
        assert_eq!(chosen("Bad"), [true, false, false]);
        assert_eq!(chosen("/^(Denies|Allows)/"), [true, true, false]);
        assert_eq!(chosen("/"), [false, false, true]);
        assert!(Filter::parse("/(/").unwrap_err().contains("unclosed group"));
    }
}
