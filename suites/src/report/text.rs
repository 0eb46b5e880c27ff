//! A line for each test, and what was expected and seen for each that failed.

use std::fmt::Write as _;
use std::time::Duration;

use crate::job::Answer;
use crate::outcome::{Case, Mismatch, OnEnvoy, Overall, Ran, Verdict};

/// How a report looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// With what the plugins logged, for every test; else for those that failed.
    pub logs: bool,
}

/// How many tests went how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Went as expected.
    pub passed: usize,
    /// Did not.
    pub failed: usize,
    /// Could not be run; suites that could not be read among them.
    pub broken: usize,
}

impl Summary {
    /// Counts.
    pub fn of(answer: &Answer) -> Self {
        let mut summary = Self::default();
        for suite in &answer.suites {
            summary.broken += suite.problems.len();
            for case in &suite.cases {
                match case.overall() {
                    Overall::Passed => summary.passed += 1,
                    Overall::Failed => summary.failed += 1,
                    Overall::Broken => summary.broken += 1,
                }
            }
        }
        summary
    }

    /// Whether all is well.
    pub fn is_fine(&self) -> bool {
        self.failed == 0 && self.broken == 0
    }
}

/// How many tests came to the same in the harness and in Envoy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beside {
    /// Did.
    pub agreed: usize,
    /// Did not.
    pub differed: usize,
    /// Were not run in Envoy.
    pub not_run: usize,
}

impl Beside {
    /// Counts; none: Envoy was not asked for.
    pub fn of(answer: &Answer) -> Option<Self> {
        let mut beside = None;
        for case in answer.suites.iter().flat_map(|suite| &suite.cases).filter(|case| case.envoy.is_some()) {
            let Self { agreed, differed, not_run } = beside.get_or_insert_with(Self::default);
            match case.agrees() {
                Some(true) => *agreed += 1,
                Some(false) => *differed += 1,
                None => *not_run += 1,
            }
        }
        beside
    }
}

/// The report. Whatever tests and plugins say is escaped, since it may be meant for a terminal.
pub fn text(answer: &Answer, style: Style) -> String {
    let mut out = String::new();
    for suite in &answer.suites {
        let _ = writeln!(out, "{}", line(&suite.file.to_string_lossy()));
        for problem in &suite.problems {
            let _ = writeln!(out, "  {} {}", style.paint("BROKEN", RED), line(problem));
        }
        for warning in &suite.warnings {
            let _ = writeln!(out, "  {} {}", style.paint("warning:", RED), line(warning));
        }
        for case in &suite.cases {
            one(&mut out, case, style);
        }
    }
    let Summary { passed, failed, broken } = Summary::of(answer);
    let tests = passed + failed + broken;
    let plural = if tests == 1 { "" } else { "s" };
    let _ = writeln!(out, "{tests} test{plural}: {passed} passed, {failed} failed, {broken} broken");
    if let Some(Beside { agreed, differed, not_run }) = Beside::of(answer) {
        let _ =
            writeln!(out, "in Envoy and the harness: {agreed} agreed, {differed} differed, {not_run} not run in Envoy");
    }
    out
}

const RED: &str = "31";
const GREEN: &str = "32";

impl Style {
    fn paint(self, text: &str, colour: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn one(out: &mut String, case: &Case, style: Style) {
    let overall = case.overall();
    let (word, colour) = match overall {
        Overall::Passed => ("ok    ", GREEN),
        Overall::Failed => ("FAILED", RED),
        Overall::Broken => ("BROKEN", RED),
    };
    let _ = write!(out, "  {} {} ({}", style.paint(word, colour), line(&case.name), time(case.took));
    match &case.envoy {
        None => {}
        Some(OnEnvoy::Ran(ran)) => {
            let _ = write!(out, ", in Envoy {}", time(ran.took));
        }
        Some(OnEnvoy::NotRun(_)) => out.push_str(", not run in Envoy"),
    }
    out.push(')');
    if let Some(measured) = case.measured {
        let _ = write!(out, ", {} a turn, median of {}", time(measured.median), measured.iterations);
    }
    out.push('\n');
    let mut say = |text: &str| {
        let _ = writeln!(out, "         {}", line(text));
    };
    let ran = match &case.envoy {
        None => None,
        Some(OnEnvoy::NotRun(reason)) => {
            say(&format!("not run in Envoy: {reason}"));
            None
        }
        Some(OnEnvoy::Ran(ran)) => {
            ran.not_compared.iter().for_each(|what| say(&format!("not compared in Envoy: {what}")));
            Some(ran)
        }
    };
    let Some(Ran { verdict, logs, .. }) = ran.filter(|_| overall != Overall::Passed) else {
        said(out, &case.verdict, style);
        logged(out, "log", &case.logs, style.logs || overall != Overall::Passed);
        return;
    };
    for (who, verdict, logs) in [("harness", &case.verdict, &case.logs), ("Envoy", verdict, logs)] {
        let how = match verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Broken(_) => "broken",
        };
        let _ = writeln!(out, "         {who}: {how}");
        said(out, verdict, style);
        logged(out, &format!("{who}'s log"), logs, true);
    }
}

fn said(out: &mut String, verdict: &Verdict, style: Style) {
    match verdict {
        Verdict::Passed => {}
        Verdict::Failed(mismatches) => mismatches.iter().for_each(|mismatch| unmet(out, mismatch, style)),
        Verdict::Broken(why) => why.lines().for_each(|why| {
            let _ = writeln!(out, "         {}", line(why));
        }),
    }
}

fn logged(out: &mut String, whose: &str, logs: &[String], shown: bool) {
    for log in logs.iter().filter(|_| shown) {
        let _ = writeln!(out, "         {whose}: {}", line(log));
    }
}

fn unmet(out: &mut String, mismatch: &Mismatch, style: Style) {
    let Mismatch { path, what, expected, actual, golden: _ } = mismatch;
    let _ = writeln!(out, "         {}: {}", line(path), line(what));
    let (expected, actual) = (expected.split('\n'), actual.as_deref().unwrap_or("(nothing)").split('\n'));
    let expected: Vec<&str> = expected.collect();
    let actual: Vec<&str> = actual.collect();
    // Lines that both begin and end with are shown once.
    let same = |(a, b): &(&&str, &&str)| a == b;
    let before = expected.iter().zip(&actual).take_while(same).count();
    let most = expected.len().min(actual.len()) - before;
    let after = expected.iter().rev().zip(actual.iter().rev()).take(most).take_while(same).count();
    let mut show = |sign: &str, lines: &[&str], colour: &str| {
        for text in lines {
            let _ = writeln!(out, "           {}", style.paint(&format!("{sign} {}", line(text)), colour));
        }
    };
    show(" ", expected.get(..before).unwrap_or_default(), "0");
    show("-", expected.get(before..expected.len() - after).unwrap_or_default(), RED);
    show("+", actual.get(before..actual.len() - after).unwrap_or_default(), GREEN);
    show(" ", expected.get(expected.len() - after..).unwrap_or_default(), "0");
}

fn time(time: Duration) -> String {
    match time.as_nanos() {
        0..1_000 => format!("{} ns", time.as_nanos()),
        1_000..1_000_000 => format!("{:.1} µs", time.as_secs_f64() * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// One line, without what a terminal would obey.
pub(super) fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let obeyed = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if obeyed { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}
