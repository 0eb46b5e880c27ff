//! What the command line hands to the harness: a resolved chain and where its modules' bytes are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::FilterChain;

/// A chain that is ready to be served. It travels as JSON on the harness's standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// What to execute.
    pub chain: FilterChain,
    /// Network filters in front of an HTTP chain, when there are any.
    #[serde(default)]
    pub network: Option<FilterChain>,
    /// Fetched modules, by [`Extension::id`](crate::model::Extension::id).
    pub modules: BTreeMap<String, Module>,
    /// Value of each `valueFrom: HOST` variable that the operator's environment has.
    pub host_env: BTreeMap<String, String>,
    /// Address to listen on, for example `127.0.0.1:8080`; port 0 picks one.
    pub listen: String,
    /// The upstream: `http://`, `h2c://` or `https://HOST[:PORT]`, or `tcp://HOST:PORT` when `chain` is a network
    /// chain; [`fixed_response`]'s form is the same answer to all; `None` is the built-in echo.
    pub upstream: Option<String>,
    /// Clusters that filters may call, by name, each `http://`, `h2c://` or `https://HOST[:PORT]`.
    #[serde(default)]
    pub clusters: BTreeMap<String, String>,
    /// The proxy's node in Envoy's JSON form (`xds.node`); `None` is one made from the chain's proxy.
    #[serde(default)]
    pub node: Option<serde_json::Value>,
    /// Address of the administration endpoint, which has the metrics; `None`: there is none.
    #[serde(default)]
    pub admin: Option<String>,
    /// Certificates to trust beside the public roots, for `https://`, in PEM.
    #[serde(default)]
    pub ca_certificates: Vec<String>,
    /// Worker threads; `None` is one per core.
    pub workers: Option<usize>,
}

/// What the harness is told after the first plan: a line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Serve this one from now on.
    Plan(Box<Plan>),
    /// Show this on the trace page, where there is one.
    Page {
        /// `configuration`, `build` or `tests`.
        name: String,
        /// Whatever the page has for it.
        value: serde_json::Value,
    },
}

/// What the harness says of it, where somebody listens: a line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The plan is served.
    Served {
        /// Milliseconds from its arrival to the first request that could meet it.
        took_ms: u64,
        /// What is another way than before, a line each.
        changes: Vec<String>,
    },
    /// It is not, and what was served before still is.
    Refused {
        /// Why.
        error: String,
    },
}

/// How the harness gets one extension's module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Module {
    /// The module is in this file, and its bytes have this sha256 (64 hex digits).
    File {
        /// Where the bytes are.
        path: PathBuf,
        /// Checked again by the harness when it reads them.
        sha256: String,
    },
    /// Fetching failed and the resource says `FAIL_OPEN`: Istio's agent puts an allow-all filter in its place.
    /// (Without `FAIL_OPEN` it is a deny-all: 403 `RBAC: access denied`.)
    FetchFailed {
        /// What went wrong, for the log.
        reason: String,
    },
}

/// Reads `fixed:STATUS[:BODY]`, an upstream that is no server but one answer to everything: its status, 200 to 599, and
/// its body.
pub fn fixed_response(upstream: &str) -> Option<(u16, &str)> {
    let rest = upstream.strip_prefix("fixed:")?;
    let (status, body) = rest.split_once(':').unwrap_or((rest, ""));
    let status = status.parse().ok().filter(|code| status.len() == 3 && (200..600).contains(code))?;
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_response_is_a_status_and_perhaps_a_body() {
        assert_eq!(fixed_response("fixed:204"), Some((204, "")));
        assert_eq!(fixed_response("fixed:200:a:b"), Some((200, "a:b")));
        for no in ["fixed:", "fixed:20", "fixed:+20", "fixed:100", "fixed:600", "http://fixed:200", "fixed:0200"] {
            assert_eq!(fixed_response(no), None, "{no}");
        }
    }
}
