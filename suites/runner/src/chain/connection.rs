//! A TCP connection of a test, step by step, in the harness or in Envoy.

use std::time::Duration;

use suites::chain::model::{Closer, Connection, Side, Step};
use suites::outcome::Mismatch;

use super::Run;
use super::end::{End, Received, Upstream};
use super::expect::Comparison;
use super::record::Line;
use super::stage::content;

/// The two ends.
pub(super) struct Ends {
    pub(super) client: End,
    pub(super) upstream: Upstream,
}

/// Where a connection is.
pub(super) trait Ground {
    async fn pass(&mut self, span: Duration);

    /// Waits until nothing happens any more. Where that cannot be seen for sure, what is expected is waited for.
    async fn settle(&mut self, is_so: &dyn Fn() -> bool) -> Result<(), String>;
}

/// What came of a connection by its last step.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) client: Received,
    /// None: the proxy has not connected to it.
    pub(super) upstream: Option<Received>,
    pub(super) closed_by: Option<Closer>,
}

impl Ends {
    fn outcome(&self) -> Outcome {
        let upstream = self.upstream.borrow().as_ref().map(End::received);
        Outcome { client: self.client.received(), upstream, closed_by: None }
    }

    /// What has come since there were so many bytes at both.
    fn since(&self, before: (usize, usize)) -> Outcome {
        let since = |mut received: Received, before: usize| {
            received.bytes = received.bytes.split_off(before.min(received.bytes.len()));
            received
        };
        let Outcome { client, upstream, .. } = self.outcome();
        let upstream = upstream.map(|received| since(received, before.1));
        Outcome { client: since(client, before.0), upstream, closed_by: None }
    }

    fn counts(&self) -> (usize, usize) {
        let outcome = self.outcome();
        (outcome.client.bytes.len(), outcome.upstream.map_or(0, |received| received.bytes.len()))
    }
}

/// Compares, and says what does not fit.
fn mismatches(run: &Run<'_>, compare: impl FnOnce(&mut Comparison<'_>)) -> Vec<Mismatch> {
    let variables = run.stage.variables();
    let mut comparison = Comparison { variables: &variables, mismatches: Vec::new() };
    compare(&mut comparison);
    comparison.mismatches
}

impl Run<'_> {
    /// Has both ends do what they do. The connection may be open afterwards.
    pub(super) async fn connection(
        &mut self,
        path: &str,
        connection: &Connection,
        ends: &Ends,
        ground: &mut impl Ground,
    ) -> Result<Outcome, String> {
        let mut before = (0, 0);
        ground.settle(&|| true).await?;
        for (index, step) in connection.steps.iter().enumerate() {
            let path = format!("{path}.steps[{index}]");
            if let Some(span) = step.advance {
                ground.pass(span.0).await;
            }
            self.step(&path, step, ends, ground).await?;
            let Some(expected) = &step.expect else {
                ground.settle(&|| true).await?;
                before = ends.counts();
                continue;
            };
            let path = format!("{path}.expect");
            let compare = |comparison: &mut Comparison<'_>| comparison.step(&path, expected, &ends.since(before));
            ground.settle(&|| mismatches(self, compare).is_empty()).await?;
            let found = mismatches(self, compare);
            self.mismatches.extend(found);
            before = ends.counts();
        }
        if let Some(expected) = &connection.expect {
            let compare = |comparison: &mut Comparison<'_>| comparison.ends(path, expected, &ends.outcome());
            ground.settle(&|| mismatches(self, compare).is_empty()).await?;
        }
        Ok(ends.outcome())
    }

    async fn step(&mut self, path: &str, step: &Step, ends: &Ends, ground: &mut impl Ground) -> Result<(), String> {
        let variables = self.stage.variables();
        if let Some(sent) = &step.client {
            ends.client.send(content(Some(sent), &variables, self.folder)?);
        }
        let of_client = [(step.end, false), (step.reset, true)];
        for (_, resets) in of_client.iter().filter(|(side, _)| *side == Some(Side::Client)) {
            if *resets { ends.client.reset() } else { ends.client.end() }
        }
        let ending = step.end == Some(Side::Upstream);
        let resetting = step.reset == Some(Side::Upstream);
        if step.upstream.is_none() && !ending && !resetting {
            return Ok(());
        }
        ground.settle(&|| ends.upstream.borrow().is_some()).await?;
        let upstream = ends.upstream.borrow();
        let Some(upstream) = &*upstream else {
            let (expected, what) = ("one".to_owned(), "connection to the upstream".to_owned());
            self.mismatches.push(Mismatch { path: path.to_owned(), what, expected, actual: None, golden: None });
            return Ok(());
        };
        if let Some(sent) = &step.upstream {
            upstream.send(content(Some(sent), &variables, self.folder)?);
        } else if ending {
            upstream.end();
        } else {
            upstream.reset();
        }
        Ok(())
    }

    /// Compares what came of a connection.
    pub(super) fn judge_connection(
        &mut self,
        path: &str,
        connection: &Connection,
        outcome: &Outcome,
        lines: &[Line],
    ) -> Result<(), String> {
        let (callouts, _, problems) = self.stage.take();
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        let Some(expected) = &connection.expect else { return Ok(()) };
        let found = mismatches(self, |comparison| {
            let path = format!("{path}.expect");
            comparison.ends(&path, expected, outcome);
            comparison.closed_by(&format!("{path}.closedBy"), expected.closed_by, outcome.closed_by);
            if let Some(expected) = &expected.callouts {
                comparison.callouts(&format!("{path}.callouts"), expected, &callouts);
            }
            comparison.logs(&format!("{path}.logs"), &expected.logs, lines);
        });
        self.mismatches.extend(found);
        Ok(())
    }
}

impl Comparison<'_> {
    fn step(&mut self, path: &str, expected: &suites::chain::model::StepExpectation, seen: &Outcome) {
        let nothing = Received::default();
        let upstream = seen.upstream.as_ref().unwrap_or(&nothing);
        self.body(&format!("{path}.client"), "what came to the client", expected.client.as_ref(), &seen.client.bytes);
        let path_of_upstream = format!("{path}.upstream");
        self.body(&path_of_upstream, "what came to the upstream", expected.upstream.as_ref(), &upstream.bytes);
        self.ended(&format!("{path}.ended"), "client's connection", expected.ended, seen.client.ended);
    }

    fn ends(&mut self, path: &str, expected: &suites::chain::model::ConnectionExpectation, seen: &Outcome) {
        if let Some(expected) = &expected.client {
            let path = format!("{path}.client");
            let what = "all that came to the client";
            self.body(&format!("{path}.received"), what, expected.received.as_ref(), &seen.client.bytes);
            self.ended(&format!("{path}.ended"), "client's connection", expected.ended, seen.client.ended);
        }
        let Some(expected) = &expected.upstream else { return };
        let path = format!("{path}.upstream");
        let what = "connection to the upstream";
        let Some(seen) = &seen.upstream else {
            if expected.reached != Some(false) {
                self.wrong(&path, what, "one", None);
            }
            return;
        };
        if expected.reached == Some(false) {
            return self.wrong(&format!("{path}.reached"), what, "none", Some("one".to_owned()));
        }
        let what = "all that came to the upstream";
        self.body(&format!("{path}.received"), what, expected.received.as_ref(), &seen.bytes);
        self.ended(&format!("{path}.ended"), "upstream's connection", expected.ended, seen.ended);
    }

    fn ended(&mut self, path: &str, what: &str, expected: Option<bool>, seen: bool) {
        if let Some(expected) = expected.filter(|expected| *expected != seen) {
            let words = |ended| if ended { "ended" } else { "open" };
            self.wrong(path, what, words(expected), Some(words(seen).to_owned()));
        }
    }

    fn closed_by(&mut self, path: &str, expected: Option<Closer>, seen: Option<Closer>) {
        let words = |closer| match closer {
            Closer::Client => "the client",
            Closer::Upstream => "the upstream",
            Closer::Plugin => "a plugin",
        };
        if let Some(expected) = expected.filter(|expected| Some(*expected) != seen) {
            self.wrong(path, "who closed the connection", words(expected), seen.map(|seen| words(seen).to_owned()));
        }
    }
}
