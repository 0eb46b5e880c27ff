//! What came of a run, as text, as JSON and as XML for CI services.

pub mod coverage;
mod junit;
mod text;

pub use junit::junit;
pub use text::{Style, Summary, text};

use serde_json::{Value, json};

use crate::job::Answer;
use crate::outcome::{Case, Mismatch, Suite, Verdict};

/// The whole answer as one JSON document.
pub fn json(answer: &Answer) -> Value {
    let summary = Summary::of(answer);
    json!({
        "passed": summary.passed,
        "failed": summary.failed,
        "broken": summary.broken,
        "suites": answer.suites.iter().map(suite).collect::<Vec<_>>(),
    })
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
    let (verdict, mismatches, problem) = match &case.verdict {
        Verdict::Passed => ("passed", Vec::new(), None),
        Verdict::Failed(all) => ("failed", all.iter().map(mismatch).collect(), None),
        Verdict::Broken(why) => ("broken", Vec::new(), Some(why)),
    };
    json!({
        "name": case.name,
        "verdict": verdict,
        "seconds": case.took.as_secs_f64(),
        "mismatches": mismatches,
        "problem": problem,
        "median_seconds": case.measured.map(|measured| measured.median.as_secs_f64()),
        "iterations": case.measured.map(|measured| measured.iterations),
        "logs": case.logs,
        "traces": case.traces,
    })
}

fn mismatch(mismatch: &Mismatch) -> Value {
    let Mismatch { path, what, expected, actual, golden: _ } = mismatch;
    json!({"path": path, "what": what, "expected": expected, "actual": actual})
}
