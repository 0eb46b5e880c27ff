//! What a proxy said while a test ran.

use std::sync::{Mutex, MutexGuard, PoisonError};

use harness::abi::LogLevel;
use harness::hazard::Hazard;
use harness::log::{ConnectionSummary, RequestSummary, Sink};
use harness::trace::{Trace, json};
use suites::chain::model::Closer;

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// `trace` to `critical`.
    pub(super) level: String,
    /// The extension's name; empty for scripts and the proxy itself.
    pub(super) plugin: String,
    pub(super) message: String,
    /// All of it.
    pub(super) text: String,
}

impl Line {
    /// Takes a line apart: `wasm log NAMESPACE.NAME ROOT: MESSAGE`, `script log: MESSAGE`.
    pub(super) fn new(level: &str, text: &str) -> Self {
        let mut line =
            Self { level: level.to_owned(), plugin: String::new(), message: text.to_owned(), text: text.to_owned() };
        // As a VM starts there is no plugin yet.
        if let Some((who, message)) = text.strip_prefix("wasm log").and_then(|rest| rest.split_once(": ")) {
            let name = who.trim_start().split(' ').next().unwrap_or_default();
            name.rsplit('.').next().unwrap_or_default().clone_into(&mut line.plugin);
            message.clone_into(&mut line.message);
        } else if let Some(message) = text.strip_prefix("script log: ") {
            message.clone_into(&mut line.message);
        }
        line
    }
}

/// Keeps everything.
#[derive(Default)]
pub(super) struct Record(Mutex<Kept>);

#[derive(Default, Clone)]
pub(super) struct Kept {
    pub(super) lines: Vec<Line>,
    /// Names, and what happened.
    pub(super) hazards: Vec<(String, String)>,
    /// The response code details of each request.
    pub(super) details: Vec<String>,
    /// Who closed each connection of a network chain.
    pub(super) closers: Vec<Closer>,
    pub(super) traces: Vec<serde_json::Value>,
}

impl Record {
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        *self.kept() = Kept::default();
    }
}

impl Sink for Record {
    fn log(&self, level: LogLevel, line: &str) {
        self.kept().lines.push(Line::new(level.as_str(), line));
    }

    fn request(&self, summary: &RequestSummary<'_>) {
        self.kept().details.push(summary.details.to_owned());
    }

    fn connection(&self, summary: &ConnectionSummary<'_>) {
        let closer = match summary.closed_by {
            Some(_) => Closer::Plugin,
            None if summary.by_client => Closer::Client,
            None => Closer::Upstream,
        };
        self.kept().closers.push(closer);
    }

    fn hazard(&self, hazard: &Hazard<'_>) {
        let Hazard { kind, filter, callback, explanation, .. } = hazard;
        let place = if callback.is_empty() { (*filter).to_owned() } else { format!("{filter} in {callback}") };
        self.kept().hazards.push((kind.name().to_owned(), format!("{place}: {explanation}")));
    }

    fn trace(&self, trace: &Trace) {
        // It was just written.
        self.kept().traces.extend(serde_json::from_str::<serde_json::Value>(&json::line(trace)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = Line::new("info", "wasm log default.basic-auth my_root: no: credentials");
        assert_eq!((line.plugin.as_str(), line.message.as_str()), ("basic-auth", "no: credentials"));
        let line = Line::new("info", "wasm log: started");
        assert_eq!((line.plugin.as_str(), line.message.as_str()), ("", "started"));
        assert_eq!(Line::new("warning", "script log: hello").message, "hello");
        assert_eq!(Line::new("warning", "something else").message, "something else");
    }
}
