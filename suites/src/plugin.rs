//! Plugin suites: one plugin, callback by callback, in the schema of Google's Service Extensions plugin tester.
//!
//! <https://github.com/GoogleCloudPlatform/service-extensions/blob/main/plugins/test/runner.proto>

mod fields;
pub mod http1;
mod read;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::bytes::Bytes;
use crate::tree::Mark;
pub(crate) use fields::snake;
pub use read::{Reading, is_suite, read};

/// A plugin suite that is to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// What it says.
    pub suite: Suite,
    /// The folder that its `file`s are relative to.
    pub folder: PathBuf,
    /// The plugin's module, or why there is none.
    pub module: Result<PathBuf, String>,
    /// The plugin's configuration, where there is one.
    pub configuration: Option<PathBuf>,
    /// The schema of the plugin's configuration, where it is known.
    #[serde(default)]
    pub schema: Option<PathBuf>,
}

/// What a suite says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// What all tests have in common.
    pub env: Env,
    /// The tests, in order.
    pub tests: Vec<Test>,
}

/// The plugin, and what it runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Env {
    /// The module.
    pub wasm_path: Option<String>,
    /// The plugin configuration's file.
    pub config_path: Option<String>,
    /// The least level that is logged; INFO when it is not given.
    pub log_level: Option<Level>,
    /// Where the plugin's log lines go, too.
    pub log_path: Option<String>,
    /// What the clock shows, in seconds since the epoch.
    pub time_secs: Option<u64>,
    /// How many other streams there are in a benchmark.
    pub num_additional_streams: u64,
    /// How many of them go on with each turn of a benchmark.
    pub additional_stream_advance_rate: u64,
}

/// A log level, by the name it has in suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// The least.
    Trace,
    /// For whoever looks for a defect.
    Debug,
    /// The default.
    Info,
    /// Something is odd.
    Warn,
    /// Something went wrong.
    Error,
    /// Nothing goes on.
    Critical,
}

impl Level {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("TRACE", Self::Trace),
        ("DEBUG", Self::Debug),
        ("INFO", Self::Info),
        ("WARN", Self::Warn),
        ("ERROR", Self::Error),
        ("CRITICAL", Self::Critical),
    ];

    /// The level with a name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
    }
}

/// One stream through the plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Its name; `test[3]` when it has none.
    pub name: String,
    /// Where it begins.
    pub at: Mark,
    /// It can be measured.
    pub benchmark: bool,
    /// How bodies are cut.
    pub chunking: Option<Chunking>,
    /// The stream's properties: a path with dots, and a value.
    pub properties: Vec<(String, Bytes)>,
    /// The request's headers.
    pub request_headers: Option<Invocation>,
    /// The request's body, one after the other.
    pub request_body: Vec<Invocation>,
    /// The response's headers.
    pub response_headers: Option<Invocation>,
    /// The response's body, one after the other.
    pub response_body: Vec<Invocation>,
    /// What is expected once the plugin has been started.
    pub plugin_init: Expectation,
    /// What is expected once the stream has been made.
    pub stream_init: Expectation,
    /// What is expected once the stream is gone.
    pub stream_destroy: Expectation,
}

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chunking {
    /// Into so many chunks; what is left over is in the last.
    Number(u32),
    /// Into chunks of this size.
    Size(u64),
}

impl Chunking {
    /// Cuts a body, or says why it cannot be cut.
    pub fn cut(self, body: &[u8]) -> Result<Vec<&[u8]>, String> {
        let (size, most) = match self {
            Self::Number(count) => (body.len() / (count.max(1) as usize), count.max(1) as usize),
            Self::Size(size) => (usize::try_from(size).unwrap_or(usize::MAX), usize::MAX),
        };
        if most == 1 || body.len() <= size && size > 0 {
            return Ok(vec![body]);
        }
        if size == 0 {
            return Err(format!("a body of {} bytes cannot be cut into {most} chunks", body.len()));
        }
        let mut chunks = Vec::new();
        let mut rest = body;
        while rest.len() > size && chunks.len() + 1 < most {
            let (chunk, after) = rest.split_at(size);
            chunks.push(chunk);
            rest = after;
        }
        chunks.push(rest);
        Ok(chunks)
    }
}

/// One callback: what the plugin is given, and what is expected of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// What it is given.
    pub input: Input,
    /// What is expected.
    pub result: Expectation,
}

/// What a plugin is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Headers; none for a body.
    Headers(Vec<(String, Bytes)>),
    /// An HTTP/1 message's head, or a body.
    Content(Bytes),
    /// The same, from a file beside the suite.
    File(String),
}

impl Default for Input {
    fn default() -> Self {
        Self::Headers(Vec::new())
    }
}

/// What is expected of a callback.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Headers with these values.
    pub has_header: Vec<(String, Bytes)>,
    /// Headers that are not there.
    pub no_header: Vec<String>,
    /// Lines `key: value`.
    pub headers: Vec<Matcher>,
    /// The body.
    pub body: Vec<Matcher>,
    /// The plugin answers itself.
    pub immediate: Option<Immediate>,
    /// What the plugin logged.
    pub log: Vec<Matcher>,
}

impl Expectation {
    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        let Self { has_header, no_header, headers, body, immediate, log } = self;
        has_header.is_empty()
            && no_header.is_empty()
            && headers.is_empty()
            && body.is_empty()
            && immediate.is_none()
            && log.is_empty()
    }
}

/// A local response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Immediate {
    /// Its status.
    pub http_status: Option<u32>,
    /// Its gRPC status.
    pub grpc_status: Option<u32>,
    /// Its details.
    pub details: Option<String>,
}

/// What a text has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    /// Where it begins.
    pub at: Mark,
    /// None may match.
    pub invert: bool,
    /// What matches.
    pub pattern: Pattern,
}

/// What matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// This.
    Exact(Bytes),
    /// What an RE2 expression matches from beginning to end.
    Regex(String),
    /// What is in a file beside the suite.
    File(String),
}

impl Test {
    /// Its callbacks, in their order.
    pub fn invocations(&self) -> impl Iterator<Item = &Invocation> {
        let Self { request_headers, request_body, response_headers, response_body, .. } = self;
        request_headers.iter().chain(request_body).chain(response_headers).chain(response_body)
    }

    /// Whether it expects something in so many words.
    pub fn asserts(&self) -> bool {
        let lifecycle = [&self.plugin_init, &self.stream_init, &self.stream_destroy];
        lifecycle.iter().any(|expected| !expected.log.is_empty())
            || self.invocations().any(|invocation| !invocation.result.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunking: Chunking, body: &str, expected: &[&str]) {
        let chunks = chunking.cut(body.as_bytes()).unwrap();
        assert_eq!(chunks, expected.iter().map(|chunk| chunk.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn a_number_of_chunks_leaves_the_rest_to_the_last() {
        check(Chunking::Number(5), "1234567890", &["12", "34", "56", "78", "90"]);
        check(Chunking::Number(3), "1234567890", &["123", "456", "7890"]);
        check(Chunking::Number(1), "", &[""]);
        let error = Chunking::Number(3).cut(b"ab").unwrap_err();
        assert_eq!(error, "a body of 2 bytes cannot be cut into 3 chunks");
    }

    #[test]
    fn chunks_of_a_size_leave_a_shorter_last_one() {
        check(Chunking::Size(4), "1234567890", &["1234", "5678", "90"]);
        check(Chunking::Size(5), "1234567890", &["12345", "67890"]);
        check(Chunking::Size(u64::MAX), "12", &["12"]);
        check(Chunking::Size(2), "", &[""]);
    }
}
