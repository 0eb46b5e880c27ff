//! The rules of a suite that its types do not say.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh::{FieldPath, nearest};
use regex::Regex;

use super::model::{
    Answer, BodyExpectation, Capture, ChainTest, Content, Drop, Expectation, Header, HeaderExpectation, Image,
    LogExpectation, MetricExpectation, Request, ResponseExpectation, Route, Test, TestExpectation, UpstreamExpectation,
};
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
        // Answers may have what any request of the test captures.
        self.clusters(&path.clone().then("clusters"), &test.clusters);
        if let Some(upstream) = &test.upstream {
            self.backend(&path.clone().then("upstream"), &upstream.answers, &upstream.routes);
        }
        if let Some(expect) = &test.expect {
            self.whole(&path.clone().then("expect"), expect);
        }
        let asserts = test.expect.is_some() || test.requests.iter().any(|request| request.expect.is_some());
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
        for (index, callout) in callouts.iter().flatten().enumerate() {
            let path = path.clone().then("callouts").then(index);
            self.optional(&path.clone().then("path"), callout.path.as_deref());
            self.header_expectations(&path.clone().then("headers"), &callout.headers);
            self.body_expectation(&path.then("body"), callout.body.as_ref());
        }
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

    fn whole(&mut self, path: &FieldPath, expect: &TestExpectation) {
        let TestExpectation { chain, logs, metrics, hazards } = expect;
        if chain.is_none() && logs.is_empty() && metrics.is_empty() && hazards.is_empty() {
            self.hinted(path, "it asserts nothing", "there are chain, logs, metrics, hazards");
        }
        if let Some(chain) = chain.as_ref().filter(|chain| !chain.starts_with("-> ")) {
            let hint = format!("write `-> {}`", chain.trim_start_matches(['-', '>', ' ']));
            self.hinted(&path.clone().then("chain"), "is no chain: expected `-> a -> b -> router`", hint);
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
        let BodyExpectation { exact, regex, contains, json, json_includes, empty } = body;
        let any = exact.is_some() || regex.is_some() || contains.is_some();
        if !any && json.is_none() && json_includes.is_none() && empty.is_none() {
            self.hinted(path, "it asserts nothing", "there are exact, regex, contains, json, jsonIncludes, empty");
        }
        self.optional(&path.clone().then("exact"), exact.as_deref());
        self.optional(&path.clone().then("contains"), contains.as_deref());
        for (name, value) in [("json", json), ("jsonIncludes", json_includes)] {
            self.json(&path.clone().then(name), value.as_ref());
        }
        self.regex(&path.clone().then("regex"), regex.as_deref());
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

    fn clusters(&mut self, path: &FieldPath, clusters: &[super::model::Cluster]) {
        for (index, cluster) in clusters.iter().enumerate() {
            let path = path.clone().then(index);
            if cluster.name.is_empty() {
                self.fault(&path.clone().then("name"), "is empty");
            }
            if clusters[..index].iter().any(|other| other.name == cluster.name) {
                self.fault(&path.clone().then("name"), "is another cluster's name as well");
            }
            for (at, host) in cluster.hosts.iter().enumerate() {
                if host.is_empty() || host.contains(['/', ' ', '@']) {
                    self.fault(&path.clone().then("hosts").then(at), "is no host: expected HOST or HOST:PORT");
                }
            }
            self.backend(&path, &cluster.answers, &cluster.routes);
        }
    }

    fn backend(&mut self, path: &FieldPath, answers: &[Answer], routes: &[Route]) {
        if answers.is_empty() && routes.is_empty() {
            self.hinted(path, "it answers nothing", "give `answers`, `routes`, or both");
        }
        self.answers(&path.clone().then("answers"), answers);
        for (index, route) in routes.iter().enumerate() {
            let path = path.clone().then("routes").then(index);
            let Route { method, path: target, path_regex, answers } = route;
            if method.is_none() && target.is_none() && path_regex.is_none() {
                self.hinted(
                    &path,
                    "it has no condition",
                    "give `path`, `pathRegex` or `method`; `answers` of the server are for the rest",
                );
            }
            if target.as_ref().is_some_and(|path| path.contains('?')) {
                self.fault(&path.clone().then("path"), "is compared without the query");
            }
            self.regex(&path.clone().then("pathRegex"), path_regex.as_deref());
            if answers.is_empty() {
                self.fault(&path.clone().then("answers"), "there are none");
            }
            self.answers(&path.then("answers"), answers);
        }
    }

    fn answers(&mut self, path: &FieldPath, answers: &[Answer]) {
        for (index, answer) in answers.iter().enumerate() {
            let path = path.clone().then(index);
            let Answer { delay: _, status, headers, body, echo, drop } = answer;
            let response = status.is_some() || !headers.is_empty() || body.is_some();
            if *echo && (response || drop.is_some()) {
                self.fault(&path.clone().then("echo"), "an echo has nothing beside it but `delay`");
            }
            if *drop == Some(Drop::BeforeResponse) && response {
                self.fault(&path.clone().then("drop"), "there is no response before which to close");
            }
            if let Some(status) = status.filter(|status| !(200..=599).contains(status)) {
                self.fault(&path.clone().then("status"), format!("{status} is no status of a response"));
            }
            self.headers(&path.clone().then("headers"), headers);
            if let Some(body) = body {
                self.content(&path.then("body"), body);
            }
        }
    }

    fn headers(&mut self, path: &FieldPath, headers: &[Header]) {
        for (index, header) in headers.iter().enumerate() {
            let path = path.clone().then(index);
            if !is_token(&header.name) {
                self.fault(&path.clone().then("name"), "is no name of a header");
            }
            for (name, instead) in
                [("host", "`host`"), ("content-length", "the body's own size"), ("transfer-encoding", "`body`")]
            {
                if header.name.eq_ignore_ascii_case(name) {
                    self.fault(&path.clone().then("name"), format!("{name} is not given as a header: it is {instead}"));
                }
            }
            self.text(&path.clone().then("value"), &header.value);
            if header.value.contains(|c: char| c.is_control() && c != '\t') {
                self.fault(&path.then("value"), "has a control character");
            }
        }
    }

    fn content(&mut self, path: &FieldPath, content: &Content) {
        let Content { text, json, file, base64 } = content;
        self.exactly_one(
            path,
            &[text.is_some(), json.is_some(), file.is_some(), base64.is_some()],
            "text, json, file, base64",
        );
        self.optional(&path.clone().then("text"), text.as_deref());
        self.json(&path.clone().then("json"), json.as_ref());
        if base64.as_ref().is_some_and(|text| STANDARD.decode(text).is_err()) {
            self.fault(&path.clone().then("base64"), "is not base64");
        }
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
