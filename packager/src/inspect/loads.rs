//! Which versions of Envoy, and with them of Istio, load a module.

use serde::Serialize;

use super::istio::RELEASES;
use crate::module::{EnvoyVersion, Problem, Report};
use crate::verify::chain;

/// What the versions known here do with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loads {
    /// Envoy's versions, oldest first; those next to each other that do the same are one entry.
    pub envoy: Vec<EnvoyRange>,
    /// Istio's releases whose Envoy is known, oldest first.
    pub istio: Vec<IstioVerdict>,
}

/// Versions of Envoy that do the same with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvoyRange {
    /// The oldest of them, for example `1.33`.
    pub from: String,
    /// The newest of them; may be the same.
    pub to: String,
    /// Whether they load it.
    pub loads: bool,
    /// Why they do not.
    pub problems: Vec<Finding>,
}

/// What an Istio release does with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IstioVerdict {
    /// The release, for example `1.28`.
    pub version: String,
    /// Its Envoy.
    pub envoy: String,
    /// Whether that loads the module.
    pub loads: bool,
}

/// Something wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn new(error: &dyn std::error::Error, hint: Option<impl Into<String>>) -> Self {
        Self { reason: chain(error), hint: hint.map(Into::into) }
    }
}

impl Loads {
    /// Whether any Envoy known here loads it.
    pub fn any(&self) -> bool {
        self.envoy.iter().any(|range| range.loads)
    }
}

/// From the reports of [`check_every`](crate::module::check_every).
pub(super) fn loads(reports: &[Report]) -> Loads {
    let mut envoy: Vec<EnvoyRange> = Vec::new();
    for report in reports {
        let problems: Vec<Finding> = report.problems.iter().map(finding).collect();
        let version = report.envoy.to_string();
        match envoy.last_mut() {
            Some(last) if last.problems == problems => last.to = version,
            _ => envoy.push(EnvoyRange { from: version.clone(), to: version, loads: report.is_ok(), problems }),
        }
    }
    let loads = |envoy: EnvoyVersion| reports.iter().any(|report| report.envoy == envoy && report.is_ok());
    let verdict = |release: &super::istio::IstioRelease| IstioVerdict {
        version: release.to_string(),
        envoy: release.envoy.to_string(),
        loads: loads(release.envoy),
    };
    Loads { envoy, istio: RELEASES.iter().map(verdict).collect() }
}

/// A problem without the version it was found with, so that versions with the same one can be told together.
fn finding(problem: &Problem) -> Finding {
    let reason = match problem {
        Problem::ImportTooNew { module, name, since, .. } => {
            format!("missing import: {module}.{name}, which Envoy has since {since}")
        }
        Problem::Feature { feature, offset, .. } => format!("uses WebAssembly {feature} at byte {offset}"),
        other => chain(other),
    };
    Finding { reason, hint: problem.hint() }
}
