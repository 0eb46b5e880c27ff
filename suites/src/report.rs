//! What came of a run, as text, as JSON and as XML for CI services.

pub mod coverage;
mod junit;
mod text;

pub use junit::junit;
pub use text::{Beside, Style, Summary, text};

use serde_json::{Value, json};

use crate::job::Answer;
use crate::outcome::{Case, Mismatch, OnEnvoy, Suite, Verdict};

/// The whole answer as one JSON document.
pub fn json(answer: &Answer) -> Value {
    let summary = Summary::of(answer);
    let mut all = json!({
        "passed": summary.passed,
        "failed": summary.failed,
        "broken": summary.broken,
        "suites": answer.suites.iter().map(suite).collect::<Vec<_>>(),
    });
    if let Some(Beside { agreed, differed, not_run }) = Beside::of(answer) {
        all["envoy"] = json!({"agreed": agreed, "differed": differed, "not_run": not_run});
    }
    all
}

fn suite(suite: &Suite) -> Value {
    json!({
        "file": suite.file,
        "problems": suite.problems,
        "warnings": suite.warnings,
        "tests": suite.cases.iter().map(case).collect::<Vec<_>>(),
    })
}

fn case(case: &Case) -> Value {
    let (verdict, mismatches, problem) = verdict(&case.verdict);
    let mut written = json!({
        "name": case.name,
        "verdict": verdict,
        "seconds": case.took.as_secs_f64(),
        "mismatches": mismatches,
        "problem": problem,
        "median_seconds": case.measured.map(|measured| measured.median.as_secs_f64()),
        "iterations": case.measured.map(|measured| measured.iterations),
        "logs": case.logs,
        "traces": case.traces,
    });
    match &case.envoy {
        None => {}
        Some(OnEnvoy::NotRun(reason)) => written["envoy"] = json!({"verdict": "not_run", "reason": reason}),
        Some(OnEnvoy::Ran(ran)) => {
            let (verdict, mismatches, problem) = self::verdict(&ran.verdict);
            written["envoy"] = json!({
                "verdict": verdict,
                "seconds": ran.took.as_secs_f64(),
                "mismatches": mismatches,
                "problem": problem,
                "logs": ran.logs,
                "not_compared": ran.not_compared,
            });
        }
    }
    written
}

fn verdict(verdict: &Verdict) -> (&'static str, Vec<Value>, Option<&String>) {
    match verdict {
        Verdict::Passed => ("passed", Vec::new(), None),
        Verdict::Failed(all) => ("failed", all.iter().map(mismatch).collect(), None),
        Verdict::Broken(why) => ("broken", Vec::new(), Some(why)),
    }
}

fn mismatch(mismatch: &Mismatch) -> Value {
    let Mismatch { path, what, expected, actual, golden: _ } = mismatch;
    json!({"path": path, "what": what, "expected": expected, "actual": actual})
}
