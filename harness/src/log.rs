//! Where plugins' logs and the outcome of requests go.

use crate::abi::LogLevel;
use crate::hazard::Hazard;
use crate::trace::Trace;

/// Receives what the host has to say. The library never prints.
pub trait Sink: Send + Sync {
    /// One line: a plugin's `wasm log …` as Envoy composes it, or the host's own about a plugin.
    fn log(&self, level: LogLevel, line: &str);

    /// One line of the Lua filter: a script's `script log: …` as Envoy composes it, or the host's own about one.
    fn script(&self, level: LogLevel, line: &str) {
        self.log(level, line);
    }

    /// One request is over.
    fn request(&self, summary: &RequestSummary<'_>) {
        let _ = summary;
    }

    /// One connection that network filters saw is over.
    fn connection(&self, summary: &ConnectionSummary<'_>) {
        let _ = summary;
    }

    /// A plugin did what Envoy answers with a hang, a crash, or a truncated or corrupted response.
    fn hazard(&self, hazard: &Hazard<'_>) {
        let _ = hazard;
    }

    /// What happened to one request or connection, for a server that records it. It is over, and so reported by
    /// [`Self::request`] or [`Self::connection`] too.
    fn trace(&self, trace: &Trace) {
        let _ = trace;
    }

    /// Whether [`Self::log`] and [`Self::script`] are to have the lines that are part of a trace as well.
    fn takes_traced_lines(&self) -> bool {
        true
    }
}

/// Drops everything.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Sink for Silent {
    fn log(&self, _: LogLevel, _: &str) {}
}

/// How a connection ended, in front of HTTP or of a TCP upstream.
#[derive(Debug)]
pub struct ConnectionSummary<'a> {
    /// Its number, as the property `connection.id` has it.
    pub id: u64,
    /// The client.
    pub source: Option<std::net::SocketAddr>,
    /// Bytes that the client sent.
    pub received: u64,
    /// Bytes for the client, before the filters.
    pub sent: u64,
    /// The filter that closed it, or failed.
    pub closed_by: Option<&'a str>,
    /// The client closed it.
    pub by_client: bool,
    /// From its first byte to its end.
    pub duration: std::time::Duration,
}

/// How a request ended. It never carries header values, queries or bodies.
#[derive(Debug)]
pub struct RequestSummary<'a> {
    /// The method.
    pub method: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The status that went downstream; `None` when the stream was reset before any did.
    pub status: Option<u16>,
    /// The filter that answered; `None` when it was the upstream.
    pub answered_by: Option<&'a str>,
    /// Envoy's response code details, for example `via_upstream` or those of a local response.
    pub details: &'a str,
    /// From the request's first byte to the end.
    pub duration: std::time::Duration,
}
