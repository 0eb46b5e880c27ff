//! The XML that CI services read test results from.

use std::fmt::Write as _;
use std::time::Duration;

use crate::job::Answer;
use crate::outcome::{Case, OnEnvoy, Verdict};

/// The answer as one document.
pub fn junit(answer: &Answer) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for suite in &answer.suites {
        let file = suite.file.to_string_lossy();
        let cases: Vec<One<'_>> = suite.cases.iter().flat_map(|case| one(&file, case)).collect();
        let count = |wanted: fn(&Verdict) -> bool| {
            cases.iter().filter(|case| matches!(case.outcome, Ok(verdict) if wanted(verdict))).count()
        };
        let failures = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let errors = count(|verdict| matches!(verdict, Verdict::Broken(_))) + suite.problems.len();
        let skipped = cases.iter().filter(|case| case.outcome.is_err()).count();
        let skipped = if skipped == 0 { String::new() } else { format!(" skipped=\"{skipped}\"") };
        let tests = cases.len() + suite.problems.len();
        let seconds: f64 = cases.iter().map(|case| case.took.as_secs_f64()).sum();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"{skipped} time=\"{seconds:.6}\">",
            escaped(&file)
        );
        for problem in &suite.problems {
            let (file, problem) = (escaped(&file), escaped(problem));
            let _ = writeln!(
                out,
                "    <testcase classname=\"{file}\" name=\"(suite)\"><error message=\"{problem}\"/></testcase>"
            );
        }
        for case in &cases {
            write(&mut out, case);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// A test in one of the two proxies.
struct One<'c> {
    class: String,
    name: &'c str,
    /// Or why it was not run.
    outcome: Result<&'c Verdict, &'c str>,
    took: Duration,
    logs: &'c [String],
}

fn one<'c>(file: &str, case: &'c Case) -> Vec<One<'c>> {
    let name = case.name.as_str();
    let ours =
        One { class: file.to_owned(), name, outcome: Ok(&case.verdict), took: case.took, logs: case.logs.as_slice() };
    let class = format!("{file} in Envoy");
    let theirs = case.envoy.as_ref().map(|envoy| match envoy {
        OnEnvoy::NotRun(reason) => One { class, name, outcome: Err(reason), took: Duration::ZERO, logs: &[] },
        OnEnvoy::Ran(ran) => One { class, name, outcome: Ok(&ran.verdict), took: ran.took, logs: ran.logs.as_slice() },
    });
    std::iter::once(ours).chain(theirs).collect()
}

fn write(out: &mut String, case: &One<'_>) {
    let (class, name, seconds) = (escaped(&case.class), escaped(case.name), case.took.as_secs_f64());
    let _ = write!(out, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds:.6}\">");
    match &case.outcome {
        Err(reason) => {
            let _ = write!(out, "<skipped message=\"{}\"/>", escaped(reason));
        }
        Ok(Verdict::Passed) => {}
        Ok(Verdict::Failed(mismatches)) => {
            let first = mismatches.first().map_or(String::new(), |first| format!("{}: {}", first.path, first.what));
            let _ = write!(out, "<failure message=\"{}\">", escaped(&first));
            for mismatch in mismatches {
                let actual = mismatch.actual.as_deref().unwrap_or("(nothing)");
                let text = format!(
                    "{}: {}\nexpected: {}\nactual: {actual}\n",
                    mismatch.path, mismatch.what, mismatch.expected
                );
                out.push_str(&escaped(&text));
            }
            out.push_str("</failure>");
        }
        Ok(Verdict::Broken(why)) => {
            let _ = write!(out, "<error message=\"{}\"/>", escaped(why));
        }
    }
    if !case.logs.is_empty() {
        let _ = write!(out, "<system-out>{}</system-out>", escaped(&case.logs.join("\n")));
    }
    out.push_str("</testcase>\n");
}

/// What XML takes as text: control characters have no form in it at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
