//! The XML that CI services read test results from.

use std::fmt::Write as _;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::job::Answer;
use crate::outcome::{Case, OnEnvoy, Verdict};

/// The answer as one document. `coverage` has for each suite that of the modules that it has run, whoever else ran them.
pub fn junit(answer: &Answer, coverage: &[Vec<&Coverage>]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (index, suite) in answer.suites.iter().enumerate() {
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
        let seconds = cases.iter().map(|case| case.took).sum::<Duration>().as_secs_f64();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"{skipped} time=\"{seconds:.6}\">",
            escaped(&file)
        );
        properties(&mut out, coverage.get(index).map(Vec::as_slice).unwrap_or_default());
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
        if !suite.warnings.is_empty() {
            let warnings: Vec<String> = suite.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
            let _ = writeln!(out, "    <system-err>{}</system-err>", escaped(&warnings.join("\n")));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// What is known of the suite as a whole, which comes before its tests.
fn properties(out: &mut String, coverage: &[&Coverage]) {
    if coverage.is_empty() {
        return;
    }
    out.push_str("    <properties>\n");
    for coverage in coverage {
        let mut property = |name: &str, value: &str| {
            let name = escaped(&format!("coverage.{}.{name}", coverage.plugin));
            let _ = writeln!(out, "      <property name=\"{name}\" value=\"{}\"/>", escaped(value));
        };
        if let Some(problem) = &coverage.problem {
            property("problem", problem);
            continue;
        }
        let lines = (!coverage.files.is_empty()).then(|| ("lines", coverage.lines()));
        for (what, count) in [("functions", coverage.count())].into_iter().chain(lines) {
            property(&format!("{what}.total"), &count.total.to_string());
            property(&format!("{what}.reached"), &count.reached.to_string());
            if let Some(percent) = count.percent() {
                // Rounded down: what is not all is not shown as all.
                property(&format!("{what}.percent"), &format!("{:.2}", (percent * 100.0).floor() / 100.0));
            }
        }
    }
    out.push_str("    </properties>\n");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{File, Function};
    use crate::outcome::Suite;

    #[test]
    fn a_suites_coverage_comes_before_its_tests_and_its_warnings_after_them() {
        let case = Case {
            name: "t".to_owned(),
            verdict: Verdict::Passed,
            took: Duration::ZERO,
            measured: None,
            logs: Vec::new(),
            traces: Vec::new(),
            envoy: None,
        };
        let warnings = vec!["`a` < \"b\"".to_owned(), "second".to_owned()];
        let suite = Suite { file: "s.yaml".into(), problems: Vec::new(), warnings, cases: vec![case] };
        let silent = Suite { file: "silent.yaml".into(), ..Suite::default() };
        let function = |reached| Function { origin: None, place: None, name: "f".to_owned(), index: 0, reached };
        let some = Coverage {
            plugin: "p".to_owned(),
            functions: vec![function(true), function(false), function(true)],
            files: vec![File { path: "a.rs".to_owned(), lines: vec![(1, true), (2, false)] }],
            ..Coverage::default()
        };
        let none =
            Coverage { plugin: "<q>".to_owned(), problem: Some("it is empty".to_owned()), ..Coverage::default() };
        let answer = Answer { suites: vec![suite, silent], ..Answer::default() };
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="s.yaml" tests="1" failures="0" errors="0" time="0.000000">
    <properties>
      <property name="coverage.p.functions.total" value="3"/>
      <property name="coverage.p.functions.reached" value="2"/>
      <property name="coverage.p.functions.percent" value="66.66"/>
      <property name="coverage.p.lines.total" value="2"/>
      <property name="coverage.p.lines.reached" value="1"/>
      <property name="coverage.p.lines.percent" value="50.00"/>
      <property name="coverage.&lt;q&gt;.problem" value="it is empty"/>
    </properties>
    <testcase classname="s.yaml" name="t" time="0.000000"></testcase>
    <system-err>warning: `a` &lt; &quot;b&quot;&#10;warning: second</system-err>
  </testsuite>
  <testsuite name="silent.yaml" tests="0" failures="0" errors="0" time="0.000000">
  </testsuite>
</testsuites>
"#;
        assert_eq!(junit(&answer, &[vec![&some, &none]]), expected);
    }
}
