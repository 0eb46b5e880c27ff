//! What a plugin did beside what was expected of it.

use std::path::Path;

use harness::callbacks::{Line, Outcome, Reply};
use suites::outcome::{Golden, Mismatch};
use suites::plugin::{Bytes, Expectation, Matcher, Pattern};
use suites::re2;

/// Compares; what is not met is noted with its field.
pub(super) struct Checker<'c> {
    pub(super) path: &'c str,
    pub(super) lines: &'c [Line],
    pub(super) folder: &'c Path,
    /// Headers, in lower case, that are the proxy's own: they may be expected, and are never too many.
    pub(super) own: &'c dyn Fn(&str) -> bool,
    pub(super) mismatches: &'c mut Vec<Mismatch>,
}

impl Checker<'_> {
    /// The log alone. The error is a matcher that is none.
    pub(super) fn log(&mut self, expected: &Expectation) -> Result<(), String> {
        let lines: Vec<Vec<u8>> = self.lines.iter().map(|(_, line)| line.clone().into_bytes()).collect();
        self.all("log", "the callback's log", &expected.log, (&lines, &lines), &|_| {
            (lines.len() == 1).then(|| lines[0].clone())
        })
    }

    pub(super) fn headers(&mut self, expected: &Expectation, outcome: &Outcome) -> Result<(), String> {
        self.map(expected, outcome)?;
        let body = outcome.reply.as_ref().map(|reply| reply.body.clone()).unwrap_or_default();
        self.text(expected, &body)?;
        self.answer(expected, outcome.reply.as_ref(), outcome.stopped);
        self.log(expected)
    }

    /// The tester cannot see that a body's callback answered; here it can be expected, and when it is, the body is the
    /// answer's.
    pub(super) fn body(&mut self, expected: &Expectation, outcome: &Outcome) -> Result<(), String> {
        self.map(expected, outcome)?;
        match (&expected.immediate, &outcome.reply) {
            (Some(_), Some(reply)) => {
                self.text(expected, &reply.body)?;
                self.answer(expected, Some(reply), true);
            }
            (Some(_), None) => {
                self.text(expected, &outcome.body)?;
                self.answer(expected, None, false);
            }
            (None, _) => self.text(expected, &outcome.body)?,
        }
        self.log(expected)
    }

    fn note(&mut self, field: &str, f: impl FnOnce(String) -> Mismatch) {
        let path = format!("{}.{field}", self.path);
        self.mismatches.push(f(path));
    }

    fn map(&mut self, expected: &Expectation, outcome: &Outcome) -> Result<(), String> {
        let value = |name: &str| {
            let mut headers = outcome.headers.iter();
            headers.find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
        };
        for (at, (name, wanted)) in expected.has_header.iter().enumerate() {
            let found = value(name);
            if found != Some(&wanted.0) {
                self.note(&format!("has_header[{at}]"), |path| {
                    let mismatch = Mismatch::new(path.clone(), format!("header `{name}`"), wanted.lossy());
                    match found {
                        None => mismatch,
                        Some(found) => mismatch
                            .actual(String::from_utf8_lossy(found))
                            .golden(Golden::Field(format!("{path}.value"), Bytes(found.clone()))),
                    }
                });
            }
        }
        for (at, name) in expected.no_header.iter().enumerate() {
            if let Some(found) = value(name).filter(|_| !(self.own)(&name.to_ascii_lowercase())) {
                self.note(&format!("no_header[{at}]"), |path| {
                    Mismatch::new(path, format!("header `{name}`"), "(not there)")
                        .actual(String::from_utf8_lossy(found))
                });
            }
        }
        let line = |(name, value): &(Vec<u8>, Vec<u8>)| [name.as_slice(), b": ", value].concat();
        let lines: Vec<Vec<u8>> = outcome.headers.iter().map(line).collect();
        let own = |name: &[u8]| (self.own)(&String::from_utf8_lossy(name).to_ascii_lowercase());
        let others: Vec<Vec<u8>> = outcome.headers.iter().filter(|(name, _)| !own(name)).map(line).collect();
        // The line of the same header is the one that was meant.
        let meant = |wanted: &[u8]| {
            let name = wanted.split(|byte| *byte == b':').find(|name| !name.is_empty())?;
            let named = |line: &&Vec<u8>| {
                let line = line.strip_prefix(b":").unwrap_or(line);
                line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()] == b':'
            };
            lines.iter().find(named).cloned()
        };
        self.all("headers", "the headers", &expected.headers, (&lines, &others), &meant)
    }

    fn text(&mut self, expected: &Expectation, body: &[u8]) -> Result<(), String> {
        let body = [body.to_vec()];
        self.all("body", "the body", &expected.body, (&body, &body), &|_| Some(body[0].clone()))
    }

    fn answer(&mut self, expected: &Expectation, reply: Option<&Reply>, stopped: bool) {
        let shown = |reply: &Reply| format!("a local response with the status {}", reply.status);
        let (Some(wanted), Some(reply)) = (&expected.immediate, reply) else {
            let actual = match (reply, stopped) {
                (Some(reply), _) => shown(reply),
                (None, true) => "the callback stops without a local response".to_owned(),
                (None, false) => "the callback continues".to_owned(),
            };
            let what = "what the callback does";
            if expected.immediate.is_some() {
                self.note("immediate", |path| Mismatch::new(path, what, "a local response").actual(actual));
            } else if stopped {
                let expected = "the callback continues";
                self.mismatches.push(Mismatch::new(self.path, what, expected).actual(actual));
            }
            return;
        };
        let numbers = [
            ("http_status", "the status", wanted.http_status, reply.status),
            ("grpc_status", "the gRPC status", wanted.grpc_status, reply.grpc_status),
        ];
        for (field, what, wanted, found) in numbers {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                self.note(&format!("immediate.{field}"), |path| {
                    let golden = Golden::Field(path.clone(), Bytes::from(found.to_string().as_str()));
                    Mismatch::new(path, what, wanted.to_string()).actual(found.to_string()).golden(golden)
                });
            }
        }
        if let Some(wanted) = wanted.details.as_ref().filter(|wanted| wanted.as_bytes() != reply.details) {
            self.note("immediate.details", |path| {
                let golden = Golden::Field(path.clone(), Bytes(reply.details.clone()));
                Mismatch::new(path, "the details", wanted)
                    .actual(String::from_utf8_lossy(&reply.details))
                    .golden(golden)
            });
        }
    }

    /// Matchers against texts, of which one has to match, or with `invert` none of the second ones. `meant` is what an
    /// exact text would have to be.
    fn all(
        &mut self,
        field: &str,
        what: &str,
        matchers: &[Matcher],
        (texts, others): (&[Vec<u8>], &[Vec<u8>]),
        meant: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        for (at, matcher) in matchers.iter().enumerate() {
            let place = format!("{}.{field}[{at}]", self.path);
            let file;
            let (exact, expression, shown) = match &matcher.pattern {
                Pattern::Exact(wanted) => (Some(&wanted.0), None, wanted.lossy().into_owned()),
                Pattern::File(name) => {
                    let path = self.folder.join(name);
                    let failed = |error| format!("{place}.file: failed to read {}: {error}", path.display());
                    file = std::fs::read(&path).map_err(failed)?;
                    (Some(&file), None, String::from_utf8_lossy(&file).into_owned())
                }
                Pattern::Regex(pattern) => {
                    let expression = re2::full_match(pattern);
                    let expression = expression.map_err(|why| format!("{}: {place}.regex: {why}", matcher.at))?;
                    (None, Some(expression), format!("/{pattern}/"))
                }
            };
            let fits = |text: &Vec<u8>| match (exact, &expression) {
                (Some(exact), _) => text == exact,
                (None, Some(expression)) => expression.is_match(text),
                (None, None) => false,
            };
            let texts = if matcher.invert { others } else { texts };
            let found = texts.iter().find(|text| fits(text));
            if found.is_some() != matcher.invert {
                continue;
            }
            let lossy = |texts: &[Vec<u8>]| {
                texts.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>().join("\n")
            };
            let mut mismatch = if let Some(found) = found {
                Mismatch::new(place.clone(), what, format!("no match of {shown}"))
                    .actual(String::from_utf8_lossy(found))
            } else {
                let mismatch = Mismatch::new(place.clone(), what, shown);
                if texts.is_empty() { mismatch } else { mismatch.actual(lossy(texts)) }
            };
            if let Some(meant) = exact.filter(|_| !matcher.invert).and_then(|exact| meant(exact)) {
                mismatch = mismatch.golden(match &matcher.pattern {
                    Pattern::File(name) => Golden::File(self.folder.join(name), Bytes(meant)),
                    _ => Golden::Field(format!("{place}.exact"), Bytes(meant)),
                });
            }
            self.mismatches.push(mismatch);
        }
        Ok(())
    }
}
