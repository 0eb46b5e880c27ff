//! Compares what was seen with what is expected.

use std::fmt::Display;
use std::fmt::Write as _;

use serde_json::Value;
use suites::chain::model::{
    BodyExpectation, CalloutExpectation, GrpcCalloutExpectation, HeaderExpectation, LogExpectation, MetricExpectation,
    ResponseExpectation, TestExpectation, UpstreamExpectation,
};
use suites::chain::octets;
use suites::chain::template::{self, Variables};
use suites::outcome::Mismatch;

use super::grpc::names;
use super::metrics::{Series, sanitized, series};
use super::record::{Kept, Line};
use super::stage::{Asked, Seen, whole};

/// What came back to the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) broken_off: bool,
    pub(super) details: String,
}

/// Collects what does not fit.
pub(super) struct Comparison<'v> {
    pub(super) variables: &'v Variables,
    pub(super) mismatches: Vec<Mismatch>,
}

impl Comparison<'_> {
    pub(super) fn wrong(&mut self, path: &str, what: impl Display, expected: impl Display, actual: Option<String>) {
        let (path, what, expected) = (path.to_owned(), what.to_string(), expected.to_string());
        self.mismatches.push(Mismatch { path, what, expected, actual, golden: None });
    }

    fn same(&mut self, path: &str, what: &str, expected: &str, actual: &str) {
        match template::fill(expected, self.variables) {
            Ok(expected) if expected == actual => {}
            Ok(expected) => self.wrong(path, what, expected, Some(actual.to_owned())),
            Err(problem) => self.wrong(path, what, problem, Some(actual.to_owned())),
        }
    }

    /// Whether a text fits what is asked of it; the error says what that is.
    fn fits(
        &self,
        (exact, regex, contains): (Option<&String>, Option<&String>, Option<&String>),
        text: &str,
    ) -> Result<(), String> {
        if let Some(exact) = exact {
            let exact = template::fill(exact, self.variables)?;
            if exact != text {
                return Err(exact);
            }
        }
        if let Some(regex) = regex {
            let filled = template::fill_regex(regex, self.variables)?;
            if !whole(&filled).is_ok_and(|regex| regex.is_match(text)) {
                return Err(format!("something that matches {filled}"));
            }
        }
        if let Some(contains) = contains {
            let contains = template::fill(contains, self.variables)?;
            if !text.contains(&contains) {
                return Err(format!("something with {contains} in it"));
            }
        }
        Ok(())
    }

    pub(super) fn response(&mut self, path: &str, expected: &ResponseExpectation, seen: &Response) {
        let text = |status: Option<u16>| status.map(|status| status.to_string());
        if let Some(status) = expected.status.filter(|status| Some(*status) != seen.status) {
            self.wrong(&format!("{path}.status"), "response status", status, text(seen.status));
        }
        if seen.broken_off != expected.broken_off {
            let words = |broken| if broken { "broken off" } else { "complete" };
            let (expected, seen) = (words(expected.broken_off), words(seen.broken_off).to_owned());
            self.wrong(&format!("{path}.brokenOff"), "response", expected, Some(seen));
        }
        if let Some(details) = &expected.details {
            self.same(&format!("{path}.details"), "response code details", details, &seen.details);
        }
        self.headers(&format!("{path}.headers"), "response header", &expected.headers, &seen.headers);
        self.body(&format!("{path}.body"), "response body", expected.body.as_ref(), &seen.body);
    }

    pub(super) fn upstream(&mut self, path: &str, expected: &UpstreamExpectation, arrived: &[Seen]) {
        let Some(seen) = arrived.first() else {
            if expected.reached != Some(false) {
                self.wrong(path, "request at the upstream", "one", None);
            }
            return;
        };
        if expected.reached == Some(false) {
            let actual = format!("{} {}", seen.method, seen.path);
            return self.wrong(&format!("{path}.reached"), "request at the upstream", "none", Some(actual));
        }
        if let Some(method) = &expected.method {
            self.same(&format!("{path}.method"), "method at the upstream", method, &seen.method);
        }
        if let Some(target) = &expected.path {
            self.same(&format!("{path}.path"), "path at the upstream", target, &seen.path);
        }
        self.headers(&format!("{path}.headers"), "upstream's request header", &expected.headers, &seen.headers);
        self.body(&format!("{path}.body"), "upstream's request body", expected.body.as_ref(), &seen.body);
    }

    pub(super) fn callouts(&mut self, path: &str, expected: &[CalloutExpectation], seen: &[Seen]) {
        if expected.len() != seen.len() || expected.iter().zip(seen).any(|(want, seen)| want.cluster != seen.cluster) {
            let list = |lines: Vec<String>| if lines.is_empty() { "none".to_owned() } else { lines.join("\n") };
            let wanted = list(expected.iter().map(wanted_line).collect());
            let actual = list(seen.iter().map(Seen::line).collect());
            return self.wrong(path, "callouts", wanted, Some(actual));
        }
        for (index, (want, seen)) in expected.iter().zip(seen).enumerate() {
            let (path, what) = (format!("{path}[{index}]"), format!("callout {} to {}", index + 1, seen.cluster));
            if let Some(method) = &want.method {
                self.same(&format!("{path}.method"), &format!("method of {what}"), method, &seen.method);
            }
            if let Some(target) = &want.path {
                self.same(&format!("{path}.path"), &format!("path of {what}"), target, &seen.path);
            }
            self.headers(&format!("{path}.headers"), &format!("{what}: header"), &want.headers, &seen.headers);
            self.body(&format!("{path}.body"), &format!("body of {what}"), want.body.as_ref(), &seen.body);
            match (&want.grpc, &seen.grpc) {
                (None, _) => {}
                (Some(want), Some(asked)) => self.grpc(&format!("{path}.grpc"), &what, want, (seen, asked)),
                (Some(_), None) => self.wrong(&format!("{path}.grpc"), what, "a gRPC call", Some(seen.line())),
            }
        }
    }

    fn grpc(&mut self, path: &str, what: &str, want: &GrpcCalloutExpectation, (seen, asked): (&Seen, &Asked)) {
        let (service, method) = names(&seen.path);
        if let Some(wanted) = want.service.as_ref().filter(|wanted| *wanted != service) {
            self.wrong(&format!("{path}.service"), format!("service of {what}"), wanted, Some(service.to_owned()));
        }
        if let Some(wanted) = want.method.as_ref().filter(|wanted| *wanted != method) {
            self.wrong(&format!("{path}.method"), format!("method of {what}"), wanted, Some(method.to_owned()));
        }
        self.headers(&format!("{path}.metadata"), &format!("{what}: metadata"), &want.metadata, &seen.headers);
        if let Some(ended) = want.ended.filter(|ended| *ended != asked.ended) {
            let words = |ended| if ended { "ended" } else { "open" };
            let (wanted, actual) = (words(ended), words(asked.ended).to_owned());
            self.wrong(&format!("{path}.ended"), format!("client's side of {what}"), wanted, Some(actual));
        }
        let Some(messages) = &want.messages else { return };
        let path = format!("{path}.messages");
        if messages.len() != asked.messages.len() {
            let count = |count: usize| format!("{count} messages");
            let seen: Vec<_> = asked.messages.iter().map(|message| String::from_utf8_lossy(message)).collect();
            let actual = [&[count(seen.len()).into()][..], &seen].concat().join("\n");
            return self.wrong(&path, format!("messages of {what}"), count(messages.len()), Some(actual));
        }
        for (at, (want, seen)) in messages.iter().zip(&asked.messages).enumerate() {
            self.body(&format!("{path}[{at}]"), &format!("message {} of {what}", at + 1), Some(want), seen);
        }
    }

    fn headers(&mut self, path: &str, what: &str, expected: &[HeaderExpectation], seen: &[(String, String)]) {
        for (index, want) in expected.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let what = format!("{what} {}", want.name);
            let values: Vec<&str> = seen
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(&want.name))
                .map(|(_, value)| value.as_str())
                .collect();
            let actual = (!values.is_empty()).then(|| values.join("\n"));
            match want.present {
                Some(false) if actual.is_some() => {
                    self.wrong(&path, what, "none", actual);
                    continue;
                }
                Some(false) => continue,
                Some(true) if actual.is_none() => {
                    self.wrong(&path, what, "one", None);
                    continue;
                }
                _ => {}
            }
            if let Some(all) = &want.values {
                let all: Result<Vec<_>, _> = all.iter().map(|value| template::fill(value, self.variables)).collect();
                match all {
                    Ok(all) if all == values => {}
                    Ok(all) => self.wrong(&format!("{path}.values"), &what, all.join("\n"), actual.clone()),
                    Err(problem) => self.wrong(&format!("{path}.values"), &what, problem, actual.clone()),
                }
            }
            let wanted = (want.exact.as_ref(), want.regex.as_ref(), want.contains.as_ref());
            if wanted == (None, None, None) {
                continue;
            }
            let fit: Vec<_> = values.iter().map(|value| self.fits(wanted, value)).collect();
            if !fit.iter().any(Result::is_ok) {
                let expected = fit.into_iter().find_map(Result::err).unwrap_or_else(|| wanted_text(wanted));
                self.wrong(&path, what, expected, actual);
            }
        }
    }

    pub(super) fn body(&mut self, path: &str, what: &str, expected: Option<&BodyExpectation>, seen: &[u8]) {
        let Some(expected) = expected else { return };
        let text = String::from_utf8_lossy(seen).into_owned();
        if let Err(wanted) =
            self.fits((expected.exact.as_ref(), expected.regex.as_ref(), expected.contains.as_ref()), &text)
        {
            self.wrong(path, what, wanted, Some(text.clone()));
        }
        // The reader has refused what cannot be read.
        let wanted =
            [expected.base64.as_deref().and_then(octets::base64), expected.hex.as_deref().and_then(octets::hex)];
        for (wanted, name) in wanted.iter().zip(["base64", "hex"]) {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != seen) {
                self.wrong(&format!("{path}.{name}"), what, octets::to_hex(wanted), Some(octets::to_hex(seen)));
            }
        }
        match expected.empty {
            Some(true) if !seen.is_empty() => self.wrong(path, what, "nothing", Some(text.clone())),
            Some(false) if seen.is_empty() => self.wrong(path, what, "something", None),
            _ => {}
        }
        let parsed: Option<Value> = serde_json::from_slice(seen).ok();
        for (name, wanted, includes) in
            [("json", &expected.json, false), ("jsonIncludes", &expected.json_includes, true)]
        {
            let Some(wanted) = wanted else { continue };
            let path = format!("{path}.{name}");
            let wanted = match template::fill_json(wanted, self.variables) {
                Ok(wanted) => wanted,
                Err(problem) => {
                    self.wrong(&path, what, problem, Some(text.clone()));
                    continue;
                }
            };
            let fits = parsed.as_ref().is_some_and(|seen| if includes { has(seen, &wanted) } else { *seen == wanted });
            if !fits {
                let actual = parsed.as_ref().map_or_else(|| text.clone(), |seen| format!("{seen:#}"));
                self.wrong(&path, what, format!("{wanted:#}"), Some(actual));
            }
        }
    }

    pub(super) fn logs(&mut self, path: &str, expected: &[LogExpectation], lines: &[Line]) {
        for (index, want) in expected.iter().enumerate() {
            let wanted = (want.exact.as_ref(), want.regex.as_ref(), want.contains.as_ref());
            let fits = |line: &&Line| {
                want.level.is_none_or(|level| level.name() == line.level)
                    && want.plugin.as_ref().is_none_or(|plugin| *plugin == line.plugin)
                    && self.fits(wanted, &line.message).is_ok()
            };
            let count = lines.iter().filter(fits).count();
            if want.count.map_or(count > 0, |wanted| wanted == count) {
                continue;
            }
            let mut text = want.count.map_or_else(|| "a line".to_owned(), |count| format!("{count} lines"));
            if let Some(level) = want.level {
                let _ = write!(text, " at {}", level.name());
            }
            if let Some(plugin) = &want.plugin {
                let _ = write!(text, " of {plugin}");
            }
            if wanted != (None, None, None) {
                let _ = write!(text, ": {}", wanted_text(wanted));
            }
            let all: Vec<_> = lines.iter().map(|line| format!("{} {}", line.level, line.text)).collect();
            self.wrong(&format!("{path}[{index}]"), "log", text, (!all.is_empty()).then(|| all.join("\n")));
        }
    }

    /// What is expected of a test as a whole, but for hazards.
    pub(super) fn whole(
        &mut self,
        path: &str,
        expected: &TestExpectation,
        (chain, in_front): (&str, Option<&str>),
        kept: &Kept,
        metrics: &str,
    ) {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(wanted) = expected.chain.as_ref().filter(|wanted| words(wanted) != words(chain)) {
            self.wrong(&format!("{path}.chain"), "chain", wanted, Some(chain.to_owned()));
        }
        let wanted = expected.in_front.as_ref();
        if let Some(wanted) = wanted.filter(|wanted| in_front.is_none_or(|chain| words(wanted) != words(chain))) {
            self.wrong(&format!("{path}.inFront"), "chain in front", wanted, in_front.map(str::to_owned));
        }
        self.logs(&format!("{path}.logs"), &expected.logs, &kept.lines);
        let series = series(metrics);
        for (index, want) in expected.metrics.iter().enumerate() {
            self.metric(&format!("{path}.metrics[{index}]"), want, &series);
        }
    }

    fn metric(&mut self, path: &str, want: &MetricExpectation, series: &[Series]) {
        let name = sanitized(&want.name);
        let named: Vec<&Series> = series.iter().filter(|one| one.name == name).collect();
        let fits = |one: &&&Series| want.labels.iter().all(|(name, value)| one.labels.get(name) == Some(value));
        let found: Vec<_> = named.iter().filter(fits).collect();
        let sum: f64 = found.iter().map(|one| one.value).sum();
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has nothing but doubles")]
        let double = |value: u64| value as f64;
        let is = !found.is_empty() && want.value.is_some_and(|value| (sum - double(value)).abs() < 0.5);
        let is_enough = !found.is_empty() && want.at_least.is_some_and(|least| sum >= double(least));
        if is || is_enough || (want.absent && found.is_empty()) {
            return;
        }
        let expected = match (want.value, want.at_least) {
            (Some(value), _) => value.to_string(),
            (None, Some(least)) => format!("at least {least}"),
            (None, None) => "none".to_owned(),
        };
        let actual = match found.is_empty() {
            false => Some(sum.to_string()),
            true if named.is_empty() => None,
            true => {
                let all = named.iter().map(|one| format!("with {:?}: {}", one.labels, one.value));
                Some(all.collect::<Vec<_>>().join("\n"))
            }
        };
        self.wrong(path, format!("metric {}", want.name), expected, actual);
    }

    /// Hazards that were met are those that are expected, each at least once.
    pub(super) fn hazards(&mut self, path: &str, expected: &[String], met: &[(String, String)]) {
        for (index, name) in expected.iter().enumerate() {
            if !met.iter().any(|(met, _)| met == name) {
                self.wrong(&format!("{path}.hazards[{index}]"), "hazard", name, None);
            }
        }
        for (name, what) in met.iter().filter(|(name, _)| !expected.contains(name)) {
            self.wrong(
                &format!("{path}.hazards"),
                "hazard",
                "none but those that are expected",
                Some(format!("{name}: {what}")),
            );
        }
    }
}

/// An expected callout in a line.
fn wanted_line(want: &CalloutExpectation) -> String {
    let part = |text: &Option<String>| text.as_ref().map(|text| format!(" {text}")).unwrap_or_default();
    match &want.grpc {
        Some(grpc) => {
            let method = grpc.method.as_ref().map(|method| format!("/{method}")).unwrap_or_default();
            format!("{} gRPC{}{method}", want.cluster, part(&grpc.service))
        }
        None => format!("{}{}{}", want.cluster, part(&want.method), part(&want.path)),
    }
}

fn wanted_text((exact, regex, contains): (Option<&String>, Option<&String>, Option<&String>)) -> String {
    let parts = [
        exact.cloned(),
        regex.map(|regex| format!("something that matches {regex}")),
        contains.map(|text| format!("something with {text} in it")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Whether a value says at least what another does.
fn has(seen: &Value, wanted: &Value) -> bool {
    match (seen, wanted) {
        (Value::Object(seen), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| seen.get(name).is_some_and(|seen| has(seen, wanted)))
        }
        (Value::Array(seen), Value::Array(wanted)) => {
            seen.len() == wanted.len() && seen.iter().zip(wanted).all(|(seen, wanted)| has(seen, wanted))
        }
        _ => seen == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_value_is_told_from_another_value() {
        let seen = serde_json::json!({"a": {"b": [1, {"c": 2, "d": 3}]}, "e": 4});
        assert!(has(&seen, &serde_json::json!({"a": {"b": [1, {"c": 2}]}})));
        assert!(!has(&seen, &serde_json::json!({"a": {"b": [1]}})));
        assert!(!has(&seen, &serde_json::json!({"f": null})));
    }
}
