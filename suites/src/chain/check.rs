//! The rules of a suite that its types do not say.

mod connection;
mod grpc;
mod servers;

use std::collections::BTreeSet;

use mesh::{FieldPath, nearest};
use regex::Regex;

use super::model::{
    BodyExpectation, CalloutExpectation, Capture, ChainTest, Expectation, HeaderExpectation, Image, LogExpectation,
    MetricExpectation, Request, ResponseExpectation, Test, TestExpectation, UpstreamExpectation,
};
use super::octets;
use super::read::Fault;
use super::template;

/// The hazards that the harness knows, by name.
pub const HAZARDS: &[&str] = &[
    "content-length",
    "control-character-in-header",
    "double-local-response",
    "header-map-out-of-phase",
    "local-response-after-headers",
    "local-response-when-done",
    "memory-growth",
    "pause-without-resume",
    "resume-in-callback",
    "resume-without-pause",
    "secret-in-log",
    "status-out-of-range",
];

/// Everything that is wrong with it.
pub(super) fn check(suite: &ChainTest) -> Vec<Fault> {
    let mut rules = Rules { faults: Vec::new(), known: suite.variables.keys().cloned().collect() };
    rules.suite(suite);
    rules.faults
}

struct Rules {
    faults: Vec<Fault>,
    /// The names that have a value where the rules are.
    known: BTreeSet<String>,
}

fn at(names: &[&str]) -> FieldPath {
    FieldPath::keys(names)
}

impl Rules {
    fn fault(&mut self, path: &FieldPath, what: impl Into<String>) {
        self.faults.push(Fault { path: path.clone(), what: what.into(), hint: None });
    }

    fn hinted(&mut self, path: &FieldPath, what: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault { path: path.clone(), what: what.into(), hint: Some(hint.into()) });
    }

    fn suite(&mut self, suite: &ChainTest) {
        if suite.resources.is_empty() && !suite.tests.iter().all(|test| test.resources.is_some()) {
            self.fault(&at(&["resources"]), "there are none, so there is no chain");
        }
        self.workload(&at(&["workload"]), suite.workload.as_deref());
        for (index, image) in suite.images.iter().enumerate() {
            self.image(&at(&["images"]).then(index), image, &suite.images[..index]);
        }
        for (index, variable) in suite.env.iter().enumerate() {
            let path = at(&["env"]).then(index);
            if suite.env[..index].iter().any(|other| other.name == variable.name) {
                self.fault(&path.clone().then("name"), "is given twice");
            }
            if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
                self.fault(&path.then("name"), "is no name of a variable");
            }
        }
        for name in suite.variables.keys() {
            self.name(&at(&["variables"]).then(name.as_str()), name);
        }
        self.clusters(&at(&["clusters"]), &suite.clusters);
        if let Some(upstream) = &suite.upstream {
            self.backend(&at(&["upstream"]), &upstream.answers, &upstream.routes);
        }
        if suite.tests.is_empty() {
            self.fault(&at(&["tests"]), "there are none, so the suite asserts nothing");
        }
        for (index, test) in suite.tests.iter().enumerate() {
            let path = at(&["tests"]).then(index);
            if test.name.trim().is_empty() {
                self.fault(&path.clone().then("name"), "is empty");
            }
            if suite.tests[..index].iter().any(|other| other.name == test.name) {
                self.fault(&path.clone().then("name"), "is another test's name as well");
            }
            let outer = self.known.clone();
            self.test(&path, test);
            self.known = outer;
        }
    }

    fn test(&mut self, path: &FieldPath, test: &Test) {
        if test.resources.as_ref().is_some_and(Vec::is_empty) {
            self.fault(&path.clone().then("resources"), "there are none, so there is no chain");
        }
        self.workload(&path.clone().then("workload"), test.workload.as_deref());
        if test.not_on_envoy.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            self.hinted(&path.clone().then("notOnEnvoy"), "is empty", "say why the test is not for a real Envoy");
        }
        for (index, request) in test.requests.iter().enumerate() {
            self.request(&path.clone().then("requests").then(index), request);
        }
        self.connections(path, test);
        // Answers may have what any request of the test captures.
        self.clusters(&path.clone().then("clusters"), &test.clusters);
        if let Some(upstream) = &test.upstream {
            self.backend(&path.clone().then("upstream"), &upstream.answers, &upstream.routes);
        }
        if let Some(expect) = &test.expect {
            self.whole(&path.clone().then("expect"), expect);
        }
        let connections = test
            .connections
            .iter()
            .any(|connection| connection.expect.is_some() || connection.steps.iter().any(|step| step.expect.is_some()));
        let asserts =
            test.expect.is_some() || connections || test.requests.iter().any(|request| request.expect.is_some());
        if !asserts {
            let hint =
                "say what is expected: `expect: {response: {status: 200}}` in a request, or `expect: {chain: …}`";
            self.hinted(path, "the test asserts nothing", hint);
        }
    }

    fn request(&mut self, path: &FieldPath, request: &Request) {
        if !is_token(&request.method) {
            self.fault(&path.clone().then("method"), "is no method");
        }
        self.text(&path.clone().then("path"), &request.path);
        if !request.path.starts_with('/') && !request.path.starts_with("${") && request.path != "*" {
            self.fault(&path.clone().then("path"), "must begin with `/`");
        }
        if request.path.contains(|c: char| c.is_control() || c == ' ') {
            self.fault(&path.clone().then("path"), "has a blank or a control character, which must be percent-encoded");
        }
        self.text(&path.clone().then("host"), &request.host);
        if request.host.is_empty() || request.host.contains(|c: char| c.is_control() || c == ' ' || c == '/') {
            self.fault(&path.clone().then("host"), "is no authority: expected HOST or HOST:PORT");
        }
        self.headers(&path.clone().then("headers"), &request.headers);
        if let Some(body) = &request.body {
            self.content(&path.clone().then("body"), body);
        }
        for (index, capture) in request.capture.iter().enumerate() {
            self.capture(&path.clone().then("capture").then(index), capture);
        }
        if let Some(expect) = &request.expect {
            self.expectation(&path.clone().then("expect"), expect);
        }
    }

    fn expectation(&mut self, path: &FieldPath, expect: &Expectation) {
        let Expectation { response, upstream, callouts, logs } = expect;
        if response.is_none() && upstream.is_none() && callouts.is_none() && logs.is_empty() {
            self.hinted(path, "it asserts nothing", "there are response, upstream, callouts, logs");
        }
        if let Some(response) = response {
            self.response(&path.clone().then("response"), response);
        }
        if let Some(upstream) = upstream {
            self.upstream(&path.clone().then("upstream"), upstream);
        }
        self.callouts(&path.clone().then("callouts"), callouts.as_deref());
        self.logs(&path.clone().then("logs"), logs);
    }

    fn response(&mut self, path: &FieldPath, response: &ResponseExpectation) {
        let ResponseExpectation { status, details, headers, body, broken_off } = response;
        if status.is_none() && details.is_none() && headers.is_empty() && body.is_none() && !broken_off {
            self.hinted(path, "it asserts nothing", "there are status, details, headers, body, brokenOff");
        }
        if let Some(status) = status.filter(|status| !(100..=599).contains(status)) {
            self.fault(&path.clone().then("status"), format!("{status} is no status"));
        }
        self.optional(&path.clone().then("details"), details.as_deref());
        self.header_expectations(&path.clone().then("headers"), headers);
        self.body_expectation(&path.clone().then("body"), body.as_ref());
    }

    fn upstream(&mut self, path: &FieldPath, upstream: &UpstreamExpectation) {
        let UpstreamExpectation { reached, method, path: target, headers, body } = upstream;
        let more = method.is_some() || target.is_some() || !headers.is_empty() || body.is_some();
        if reached.is_none() && !more {
            self.hinted(path, "it asserts nothing", "there are reached, method, path, headers, body");
        }
        if *reached == Some(false) && more {
            self.fault(&path.clone().then("reached"), "a request that does not get there has nothing to be looked at");
        }
        self.optional(&path.clone().then("path"), target.as_deref());
        self.header_expectations(&path.clone().then("headers"), headers);
        self.body_expectation(&path.clone().then("body"), body.as_ref());
    }

    fn callouts(&mut self, path: &FieldPath, callouts: Option<&[CalloutExpectation]>) {
        for (index, callout) in callouts.unwrap_or_default().iter().enumerate() {
            let path = path.clone().then(index);
            let CalloutExpectation { cluster: _, method, path: target, headers, body, grpc } = callout;
            if let Some(grpc) = grpc {
                if method.is_some() || target.is_some() || !headers.is_empty() || body.is_some() {
                    self.fault(&path.clone().then("grpc"), "has nothing beside it but `cluster`");
                }
                self.grpc_callout(&path.clone().then("grpc"), grpc);
            }
            self.optional(&path.clone().then("path"), target.as_deref());
            self.header_expectations(&path.clone().then("headers"), headers);
            self.body_expectation(&path.then("body"), body.as_ref());
        }
    }

    fn whole(&mut self, path: &FieldPath, expect: &TestExpectation) {
        let TestExpectation { chain, in_front, logs, metrics, hazards } = expect;
        let chains = [("chain", chain, "router"), ("inFront", in_front, "http_connection_manager")];
        if chains.iter().all(|(_, chain, _)| chain.is_none())
            && logs.is_empty()
            && metrics.is_empty()
            && hazards.is_empty()
        {
            self.hinted(path, "it asserts nothing", "there are chain, inFront, logs, metrics, hazards");
        }
        for (name, chain, last) in chains {
            if let Some(chain) = chain.as_ref().filter(|chain| !chain.starts_with("-> ")) {
                let hint = format!("write `-> {}`", chain.trim_start_matches(['-', '>', ' ']));
                let what = format!("is no chain: expected `-> a -> b -> {last}`");
                self.hinted(&path.clone().then(name), what, hint);
            }
        }
        self.logs(&path.clone().then("logs"), logs);
        for (index, metric) in metrics.iter().enumerate() {
            self.metric(&path.clone().then("metrics").then(index), metric);
        }
        for (index, hazard) in hazards.iter().enumerate() {
            if !HAZARDS.contains(&hazard.as_str()) {
                let meant =
                    nearest(hazard, HAZARDS).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
                let hint = format!("there are {}", HAZARDS.join(", "));
                self.hinted(&path.clone().then("hazards").then(index), format!("`{hazard}` is no hazard{meant}"), hint);
            }
        }
    }

    fn metric(&mut self, path: &FieldPath, metric: &MetricExpectation) {
        let given = [metric.value.is_some(), metric.at_least.is_some(), metric.absent];
        self.exactly_one(path, &given, "value, atLeast, absent");
    }

    fn logs(&mut self, path: &FieldPath, logs: &[LogExpectation]) {
        for (index, log) in logs.iter().enumerate() {
            let path = path.clone().then(index);
            let LogExpectation { level, plugin, exact, regex, contains, count } = log;
            let any = level.is_some() || plugin.is_some() || exact.is_some() || regex.is_some() || contains.is_some();
            if !any && count.is_none() {
                self.hinted(&path, "it asserts nothing", "there are level, plugin, exact, regex, contains, count");
            }
            self.optional(&path.clone().then("exact"), exact.as_deref());
            self.optional(&path.clone().then("contains"), contains.as_deref());
            self.regex(&path.then("regex"), regex.as_deref());
        }
    }

    fn header_expectations(&mut self, path: &FieldPath, headers: &[HeaderExpectation]) {
        for (index, header) in headers.iter().enumerate() {
            let path = path.clone().then(index);
            let HeaderExpectation { name, exact, regex, contains, values, present } = header;
            if !is_token(name.strip_prefix(':').unwrap_or(name)) {
                self.fault(&path.clone().then("name"), "is no name of a header");
            }
            let value = exact.is_some() || regex.is_some() || contains.is_some() || values.is_some();
            if !value && present.is_none() {
                self.hinted(&path, "it asserts nothing", "there are exact, regex, contains, values, present");
            }
            if value && *present == Some(false) {
                self.fault(&path.clone().then("present"), "a header that is not there has no value");
            }
            self.optional(&path.clone().then("exact"), exact.as_deref());
            self.optional(&path.clone().then("contains"), contains.as_deref());
            for (at, value) in values.iter().flatten().enumerate() {
                self.text(&path.clone().then("values").then(at), value);
            }
            self.regex(&path.then("regex"), regex.as_deref());
        }
    }

    fn body_expectation(&mut self, path: &FieldPath, body: Option<&BodyExpectation>) {
        let Some(body) = body else { return };
        let BodyExpectation { exact, regex, contains, json, json_includes, base64, hex, empty } = body;
        let text = exact.is_some() || regex.is_some() || contains.is_some();
        let json_or_bytes = json.is_some() || json_includes.is_some() || base64.is_some() || hex.is_some();
        if !text && !json_or_bytes && empty.is_none() {
            let known = "there are exact, regex, contains, json, jsonIncludes, base64, hex, empty";
            self.hinted(path, "it asserts nothing", known);
        }
        self.octets(path, base64.as_deref(), hex.as_deref());
        self.optional(&path.clone().then("exact"), exact.as_deref());
        self.optional(&path.clone().then("contains"), contains.as_deref());
        for (name, value) in [("json", json), ("jsonIncludes", json_includes)] {
            self.json(&path.clone().then(name), value.as_ref());
        }
        self.regex(&path.clone().then("regex"), regex.as_deref());
    }

    fn octets(&mut self, path: &FieldPath, base64: Option<&str>, hex: Option<&str>) {
        if base64.is_some_and(|text| octets::base64(text).is_none()) {
            self.fault(&path.clone().then("base64"), "is not base64");
        }
        if hex.is_some_and(|text| octets::hex(text).is_none()) {
            self.fault(&path.clone().then("hex"), "must be pairs of hexadecimal digits");
        }
    }

    fn capture(&mut self, path: &FieldPath, capture: &Capture) {
        let Capture { name, header, cookie, json_pointer, body_regex, regex } = capture;
        let given = [header.is_some(), cookie.is_some(), json_pointer.is_some(), body_regex.is_some()];
        self.exactly_one(path, &given, "header, cookie, jsonPointer, bodyRegex");
        if regex.is_some() && header.is_none() && cookie.is_none() {
            self.fault(&path.clone().then("regex"), "goes with `header` or `cookie` only");
        }
        if json_pointer.as_ref().is_some_and(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            self.fault(&path.clone().then("jsonPointer"), "must begin with `/` (RFC 6901)");
        }
        self.regex(&path.clone().then("regex"), regex.as_deref());
        self.regex(&path.clone().then("bodyRegex"), body_regex.as_deref());
        self.name(&path.clone().then("name"), name);
        self.known.insert(name.clone());
    }

    fn image(&mut self, path: &FieldPath, image: &Image, before: &[Image]) {
        let Image { url, plugin, module, reference } = image;
        if before.iter().any(|other| other.url == *url) {
            self.fault(&path.clone().then("url"), "is given twice");
        }
        self.exactly_one(path, &[plugin.is_some(), module.is_some(), reference.is_some()], "plugin, module, reference");
    }

    fn workload(&mut self, path: &FieldPath, workload: Option<&str>) {
        let is_one = |name: &str| {
            name.split_once('/').is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
        };
        if workload.is_some_and(|name| !is_one(name)) {
            self.fault(path, "must be NAMESPACE/NAME");
        }
    }

    fn name(&mut self, path: &FieldPath, name: &str) {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            self.fault(path, "must be letters, digits, `_` and `-`");
        }
    }

    fn exactly_one(&mut self, path: &FieldPath, given: &[bool], names: &str) {
        match given.iter().filter(|given| **given).count() {
            1 => {}
            0 => self.fault(path, format!("one of {names} must be given")),
            _ => self.fault(path, format!("only one of {names} may be given")),
        }
    }

    fn optional(&mut self, path: &FieldPath, text: Option<&str>) {
        if let Some(text) = text {
            self.text(path, text);
        }
    }

    /// Every name in it has a value by then.
    fn text(&mut self, path: &FieldPath, text: &str) {
        for name in template::names(text) {
            if !self.known.contains(name) {
                let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
                let meant = nearest(name, &known).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
                let what = format!("nothing is called `{name}` by then{meant}");
                self.hinted(path, what, "give it in `variables`, capture it before, or write `$${` for `${`");
            }
        }
    }

    fn json(&mut self, path: &FieldPath, value: Option<&serde_json::Value>) {
        match value {
            Some(serde_json::Value::String(text)) => self.text(path, text),
            Some(serde_json::Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.json(&path.clone().then(index), Some(item));
                }
            }
            Some(serde_json::Value::Object(members)) => {
                for (name, value) in members {
                    self.json(&path.clone().then(name.as_str()), Some(value));
                }
            }
            _ => {}
        }
    }

    fn regex(&mut self, path: &FieldPath, regex: Option<&str>) {
        let Some(regex) = regex else { return };
        self.text(path, regex);
        let any = template::names(regex).map(|name| (name.to_owned(), String::new())).collect();
        let filled = template::fill_regex(regex, &any).unwrap_or_else(|_| regex.to_owned());
        if let Err(error) = Regex::new(&filled) {
            let text = error.to_string();
            let last = text.lines().next_back().unwrap_or_default().trim_start_matches("error: ");
            self.fault(path, format!("is no regular expression: {last}"));
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
