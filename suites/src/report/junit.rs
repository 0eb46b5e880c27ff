//! The XML that CI services read test results from.

use std::fmt::Write as _;

use crate::job::Answer;
use crate::outcome::{Case, Verdict};

/// The answer as one document.
pub fn junit(answer: &Answer) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for suite in &answer.suites {
        let file = suite.file.to_string_lossy();
        let count = |wanted: fn(&Verdict) -> bool| suite.cases.iter().filter(|case| wanted(&case.verdict)).count();
        let failures = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let errors = count(|verdict| matches!(verdict, Verdict::Broken(_))) + suite.problems.len();
        let tests = suite.cases.len() + suite.problems.len();
        let seconds: f64 = suite.cases.iter().map(|case| case.took.as_secs_f64()).sum();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.6}\">",
            escaped(&file)
        );
        for problem in &suite.problems {
            let (file, problem) = (escaped(&file), escaped(problem));
            let _ = writeln!(
                out,
                "    <testcase classname=\"{file}\" name=\"(suite)\"><error message=\"{problem}\"/></testcase>"
            );
        }
        for case in &suite.cases {
            one(&mut out, &file, case);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn one(out: &mut String, file: &str, case: &Case) {
    let (file, name, seconds) = (escaped(file), escaped(&case.name), case.took.as_secs_f64());
    let _ = write!(out, "    <testcase classname=\"{file}\" name=\"{name}\" time=\"{seconds:.6}\">");
    match &case.verdict {
        Verdict::Passed => {}
        Verdict::Failed(mismatches) => {
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
        Verdict::Broken(why) => {
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
