//! Compares what was seen with what is expected.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fmt::Write as _;

use serde_json::Value;
use suites::chain::model::{
    BodyExpectation, CalloutExpectation, HeaderExpectation, LogExpectation, MetricExpectation, ResponseExpectation,
    TestExpectation, UpstreamExpectation,
};
use suites::chain::template::{self, Variables};
use suites::outcome::Mismatch;

use super::record::{Kept, Line};
use super::stage::{Seen, whole};

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
    fn wrong(&mut self, path: &str, what: impl Display, expected: impl Display, actual: Option<String>) {
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
        self.headers(path, "response header", &expected.headers, &seen.headers);
        self.body(path, "response body", expected.body.as_ref(), &seen.body);
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
        self.headers(path, "upstream's request header", &expected.headers, &seen.headers);
        self.body(path, "upstream's request body", expected.body.as_ref(), &seen.body);
    }

    pub(super) fn callouts(&mut self, path: &str, expected: &[CalloutExpectation], seen: &[Seen]) {
        let line = |cluster: &str, method: &str, path: &str| format!("{cluster} {method} {path}").trim_end().to_owned();
        if expected.len() != seen.len() || expected.iter().zip(seen).any(|(want, seen)| want.cluster != seen.cluster) {
            let wanted: Vec<_> = expected
                .iter()
                .map(|want| {
                    line(
                        &want.cluster,
                        want.method.as_deref().unwrap_or_default(),
                        want.path.as_deref().unwrap_or_default(),
                    )
                })
                .collect();
            let seen: Vec<_> = seen.iter().map(|seen| line(&seen.cluster, &seen.method, &seen.path)).collect();
            let list = |lines: &[String]| if lines.is_empty() { "none".to_owned() } else { lines.join("\n") };
            return self.wrong(path, "callouts", list(&wanted), Some(list(&seen)));
        }
        for (index, (want, seen)) in expected.iter().zip(seen).enumerate() {
            let (path, what) = (format!("{path}[{index}]"), format!("callout {} to {}", index + 1, seen.cluster));
            if let Some(method) = &want.method {
                self.same(&format!("{path}.method"), &format!("method of {what}"), method, &seen.method);
            }
            if let Some(target) = &want.path {
                self.same(&format!("{path}.path"), &format!("path of {what}"), target, &seen.path);
            }
            self.headers(&path, &format!("{what}: header"), &want.headers, &seen.headers);
            self.body(&path, &format!("body of {what}"), want.body.as_ref(), &seen.body);
        }
    }

    fn headers(&mut self, path: &str, what: &str, expected: &[HeaderExpectation], seen: &[(String, String)]) {
        for (index, want) in expected.iter().enumerate() {
            let path = format!("{path}.headers[{index}]");
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

    fn body(&mut self, path: &str, what: &str, expected: Option<&BodyExpectation>, seen: &[u8]) {
        let Some(expected) = expected else { return };
        let path = format!("{path}.body");
        let text = String::from_utf8_lossy(seen).into_owned();
        if let Err(wanted) =
            self.fits((expected.exact.as_ref(), expected.regex.as_ref(), expected.contains.as_ref()), &text)
        {
            self.wrong(&path, what, wanted, Some(text.clone()));
        }
        match expected.empty {
            Some(true) if !seen.is_empty() => self.wrong(&path, what, "nothing", Some(text.clone())),
            Some(false) if seen.is_empty() => self.wrong(&path, what, "something", None),
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
    pub(super) fn whole(&mut self, path: &str, expected: &TestExpectation, chain: &str, kept: &Kept, metrics: &str) {
        if let Some(wanted) = &expected.chain {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            if words(wanted) != words(chain) {
                self.wrong(&format!("{path}.chain"), "chain", wanted, Some(chain.to_owned()));
            }
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

/// One line of metrics.
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Reads Prometheus' text format.
fn series(text: &str) -> Vec<Series> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(one).collect()
}

fn one(line: &str) -> Option<Series> {
    let (key, value) = line.rsplit_once(' ')?;
    let (name, mut rest) = key.split_once('{').unwrap_or((key, ""));
    let mut labels = BTreeMap::new();
    while let Some((label, after)) = rest.split_once("=\"") {
        let (mut value, mut escaped, mut length) = (String::new(), false, 0);
        for character in after.chars() {
            length += character.len_utf8();
            match (character, escaped) {
                ('\\', false) => escaped = true,
                ('"', false) => break,
                ('n', true) => {
                    value.push('\n');
                    escaped = false;
                }
                _ => {
                    value.push(character);
                    escaped = false;
                }
            }
        }
        labels.insert(label.trim_start_matches(',').to_owned(), value);
        rest = after.get(length..).unwrap_or_default();
    }
    Some(Series { name: name.to_owned(), labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_with_their_labels() {
        let found = series("# TYPE a counter\na 3\nb{x=\"1\",y=\"q\\\"r\"} 4\nbroken\n");
        let labels = BTreeMap::from([("x".to_owned(), "1".to_owned()), ("y".to_owned(), "q\"r".to_owned())]);
        assert_eq!(
            found,
            [
                Series { name: "a".to_owned(), labels: BTreeMap::new(), value: 3.0 },
                Series { name: "b".to_owned(), labels, value: 4.0 },
            ]
        );
    }

    #[test]
    fn a_part_of_a_value_is_told_from_another_value() {
        let seen = serde_json::json!({"a": {"b": [1, {"c": 2, "d": 3}]}, "e": 4});
        assert!(has(&seen, &serde_json::json!({"a": {"b": [1, {"c": 2}]}})));
        assert!(!has(&seen, &serde_json::json!({"a": {"b": [1]}})));
        assert!(!has(&seen, &serde_json::json!({"f": null})));
    }
}
