//! Plugin suites in a real Envoy: each test is an HTTP exchange through a listener whose only filter is the plugin.

mod given;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use harness::abi::LogLevel;
use harness::callbacks::{Headers, Line, Outcome, Reply};
use mesh::model::{
    Attach, Dialect, Extension, ExtensionFilter, FailStrategy, Filter, FilterKind, Layer, Origin, Phase, PullPolicy,
    WasmFilter,
};
use mesh::plan::{Module, Plan};
use serde_json::{Value, json};
use suites::outcome::{Mismatch, OnEnvoy, Ran, Verdict};
use suites::plugin::Test;
use tokio::task::LocalSet;

use super::check::Checker;
use super::{Suite, level};
use crate::envoy::exchange::{Ends, Seen};
use crate::envoy::log::Line as Logged;
use crate::envoy::transcript::{self, Call};
use crate::envoy::{Envoy, Program, bootstrap};
use given::Given;

/// How the tester writes the names of headers, by their lower case.
pub(super) type Spelled = HashMap<Vec<u8>, Vec<u8>>;

/// How long the account of a request that is over may take.
const ACCOUNT: Duration = Duration::from_secs(2);

/// What Envoy itself adds to requests and responses: it may be expected, and is never what must not be there.
const ADDED: &[&str] = &["date", "server", "x-forwarded-for", "x-forwarded-proto", "x-request-id"];
/// The same for a local response.
const ADDED_LOCALLY: &[&str] = &[":status", "content-length", "content-type"];

/// Why there is no verdict.
enum Stop {
    /// It is not for Envoy.
    NotRun(String),
    Broken(String),
}

/// Runs a test.
pub(super) fn run(program: &Program, suite: &Suite, number: usize, spelled: &Spelled) -> Option<OnEnvoy> {
    let test = suite.task.suite.tests.get(number)?;
    let began = Instant::now();
    let mut ran = Ran { verdict: Verdict::Passed, took: Duration::ZERO, logs: Vec::new(), not_compared: Vec::new() };
    let given = match Given::new(suite, test, number) {
        Ok(given) => given,
        Err(Stop::NotRun(why)) => return Some(OnEnvoy::NotRun(why)),
        Err(Stop::Broken(why)) => {
            ran.verdict = Verdict::Broken(why);
            return Some(OnEnvoy::Ran(ran));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let seen = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, exchange(program, suite, &given)),
        Err(error) => Err(Stop::Broken(format!("failed to start a runtime: {error}"))),
    };
    let seen = match seen {
        Ok(seen) => seen,
        Err(Stop::NotRun(why)) => return Some(OnEnvoy::NotRun(why)),
        Err(Stop::Broken(why)) => {
            ran.verdict = Verdict::Broken(why);
            ran.took = began.elapsed();
            return Some(OnEnvoy::Ran(ran));
        }
    };
    let least = level(suite.task.suite.env.log_level);
    let mut look =
        Look { suite, test, given: &given, spelled, taken: &seen, least, mismatches: Vec::new(), replied: false };
    let said = seen.calls.iter().flat_map(|call| look.lines(call));
    ran.logs = said.map(|(level, line)| format!("{} {line}", super::name(level))).collect();
    ran.verdict = match look.all(&format!("test[{number}]")) {
        Err(Stop::NotRun(why)) => return Some(OnEnvoy::NotRun(why)),
        Err(Stop::Broken(why)) => Verdict::Broken(why),
        Ok(()) if look.mismatches.is_empty() => Verdict::Passed,
        Ok(()) => Verdict::Failed(look.mismatches),
    };
    let asked = seen.calls.iter().any(|call| call.asked_time);
    if ran.verdict != Verdict::Passed && asked && suite.task.suite.env.time_secs.is_some() {
        let why = "the plugin asks for the time, which `env.time_secs` sets, and Envoy's is real";
        return Some(OnEnvoy::NotRun(why.to_owned()));
    }
    ran.took = began.elapsed();
    Some(OnEnvoy::Ran(ran))
}

/// What came of an exchange.
struct Taken {
    calls: Vec<Call>,
    seen: Seen,
    /// Envoy's response code details.
    details: String,
    /// Why Envoy did not do what it was to do in time.
    silence: Option<String>,
}

/// A chain of the plugin alone.
fn plan(module: &Path, configuration: String) -> Result<Plan, String> {
    let extension = Extension {
        origin: Origin { kind: "WasmPlugin".to_owned(), file: "test".to_owned(), document: 0, line: 1 },
        name: "plugin".to_owned(),
        namespace: "default".to_owned(),
        created: None,
        resource_version: None,
        phase: Phase::Unspecified,
        priority: None,
        attach: Attach::Namespace,
        traffic: Vec::new(),
        dialect: Dialect::Istio,
        filter: ExtensionFilter::Wasm(Box::new(WasmFilter {
            url: format!("file://{}", module.display()),
            sha256: None,
            pull_policy: PullPolicy::Unspecified,
            pull_secret: None,
            plugin_config: (!configuration.is_empty()).then_some(configuration),
            plugin_name: String::new(),
            fail_strategy: FailStrategy::FailClose,
            env: Vec::new(),
            layer: Layer::Http,
        })),
    };
    let modules: BTreeMap<String, Module> =
        [(extension.id(), Module::File { path: module.to_owned(), sha256: String::new() })].into();
    let router = FilterKind::BuiltIn("envoy.filters.http.router".to_owned());
    let filters = [FilterKind::Extension(Box::new(extension)), router];
    let filters = filters.map(|kind| Filter { kind, reason: String::new() });
    // As it travels to the harness: what a plan has beside this has its default.
    let plan = json!({
        "chain": {
            "proxy": {"name": "test", "namespace": "default", "labels": {}, "kind": "sidecar"},
            "listener": {"direction": null, "port": 80, "layer": Layer::Http},
            "filters": filters,
            "left_out": [],
        },
        "modules": modules,
        "host_env": {},
        "listen": "127.0.0.1:0",
        "upstream": null,
        "workers": 1,
    });
    serde_json::from_value(plan).map_err(|error| format!("failed to make a chain of the plugin: {error}"))
}

/// As little as possible is Envoy's own: the plugin sees the test's headers.
fn quieten(bootstrap: &mut Value) {
    bootstrap::each(bootstrap, "typed_config", &mut |config| {
        let kind = config["@type"].as_str().unwrap_or_default();
        if kind.ends_with(".HttpConnectionManager") {
            config["normalize_path"] = false.into();
            config["generate_request_id"] = false.into();
            config["server_header_transformation"] = "PASS_THROUGH".into();
        } else if kind.ends_with(".router.v3.Router") {
            config["suppress_envoy_headers"] = true.into();
        }
    });
}

async fn exchange(program: &Program, suite: &Suite, given: &Given) -> Result<Taken, Stop> {
    let module = suite.task.module.clone().map_err(Stop::Broken)?;
    let module = std::path::absolute(&module)
        .map_err(|error| Stop::Broken(format!("failed to find {}: {error}", module.display())))?;
    let configuration = suite.configuration.clone().map_err(Stop::Broken)?;
    let configuration = String::from_utf8(configuration)
        .map_err(|_| Stop::NotRun("the configuration is not text in UTF-8, and Istio's always is".to_owned()))?;
    let plan = plan(&module, configuration).map_err(Stop::Broken)?;
    let (ends, upstream) = Ends::start().await.map_err(Stop::Broken)?;
    let written = bootstrap::of(&plan, format!("h2c://{upstream}"), BTreeMap::new(), None);
    let mut written = written.map_err(|error| Stop::Broken(error.to_string()))?;
    quieten(&mut written);
    let mut envoy = Envoy::start(program, &written, &[]).await.map_err(Stop::Broken)?;
    let went = steps(&envoy, &ends, given, program.patience).await;
    ends.leave();
    let accounted = |lines: &[Logged]| lines.iter().any(Logged::is_access);
    let in_time = envoy.log().until(Instant::now() + ACCOUNT, accounted).await;
    let silence = match went {
        Err(why) => Some(why),
        // A worker that hangs ends no stream.
        Ok(()) if envoy.log().is_over() || !in_time && ends.too_long() => Some(envoy.silence().await),
        Ok(()) => None,
    };
    if silence.is_none() {
        envoy.stop().await;
    }
    let lines = envoy.log().lines();
    let details = lines.iter().find(|line| line.is_access()).map(|line| line.text.clone()).unwrap_or_default();
    let calls = transcript::calls(&lines);
    drop(lines);
    let seen = ends.take();
    Ok(Taken { calls, seen, details, silence })
}

/// The callbacks of the test, each once the one before is over.
async fn steps(envoy: &Envoy, ends: &Rc<Ends>, given: &Given, patience: Duration) -> Result<(), String> {
    ends.request(envoy.listener(), given.request.clone()).await?;
    let there = |seen: &Seen, calls: &[Call]| seen.request.is_some() || is_over(seen, calls, "request_headers");
    if !ends.until(envoy, patience, there).await {
        return Ok(());
    }
    if !given.request_chunks.is_empty() {
        send(&given.request_chunks, |chunk, end| ends.request_data(chunk, end));
        let there = |seen: &Seen, calls: &[Call]| seen.request_ended || is_over(seen, calls, "request_body");
        if !ends.until(envoy, patience, there).await {
            return Ok(());
        }
    }
    let Some(response) = &given.response else { return Ok(()) };
    if ends.seen().request.is_none() || ends.seen().response.is_some() {
        return Ok(());
    }
    ends.respond(response.clone());
    let there = |seen: &Seen, calls: &[Call]| {
        seen.response.is_some() && !replied(calls) || is_over(seen, calls, "response_headers")
    };
    if !ends.until(envoy, patience, there).await || given.response_chunks.is_empty() {
        return Ok(());
    }
    send(&given.response_chunks, |chunk, end| ends.response_data(chunk, end));
    ends.until(envoy, patience, |seen, calls| is_over(seen, calls, "response_body")).await;
    Ok(())
}

fn replied(calls: &[Call]) -> bool {
    calls.iter().any(|call| call.replied.is_some())
}

/// Nothing more comes of a callback: the client has a whole response, or the plugin stopped, of a body at its end, and does
/// not answer.
fn is_over(seen: &Seen, calls: &[Call], callback: &str) -> bool {
    let is_it = |call: &&Call| call.name.strip_prefix("proxy_on_") == Some(callback);
    let at_end = |call: &Call| callback.ends_with("headers") || call.arguments.get(2) == Some(&1);
    let stopped = |call: &Call| at_end(call) && call.returned.is_some() && !call.continues();
    seen.response_ended || !replied(calls) && calls.iter().rev().find(is_it).is_some_and(stopped)
}

fn send(chunks: &[Vec<u8>], mut one: impl FnMut(Vec<u8>, bool)) {
    for (at, chunk) in chunks.iter().enumerate() {
        one(chunk.clone(), at + 1 == chunks.len());
    }
}

/// What was seen beside what is expected, in the order of the callbacks.
struct Look<'l> {
    suite: &'l Suite,
    test: &'l Test,
    given: &'l Given,
    spelled: &'l Spelled,
    taken: &'l Taken,
    least: LogLevel,
    mismatches: Vec<Mismatch>,
    /// A local response ended it.
    replied: bool,
}

/// The tester's name of a callback.
fn phase(callback: &str) -> &str {
    match callback {
        "proxy_on_request_headers" => "request_headers",
        "proxy_on_request_body" => "request_body[0]",
        "proxy_on_response_headers" => "response_headers",
        "proxy_on_response_body" => "response_body[0]",
        "proxy_on_log" | "proxy_on_done" | "proxy_on_delete" => "stream_destroy",
        "proxy_on_context_create" => "stream_init",
        other => other,
    }
}

impl Look<'_> {
    /// The lines of a callback that count.
    fn lines(&self, call: &Call) -> Vec<Line> {
        let level = |name: &str| {
            let levels =
                [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error, LogLevel::Critical];
            levels.into_iter().find(|level| level.as_str() == name || super::name(*level) == name)
        };
        let lines = call.lines.iter().filter_map(|(name, line)| Some((level(name)?, line.clone())));
        lines.filter(|(level, _)| *level >= self.least).collect()
    }

    fn all(&mut self, path: &str) -> Result<(), Stop> {
        let (test, taken) = (self.test, self.taken);
        if let Some(failed) = taken.calls.iter().find(|call| call.failed.is_some()) {
            let why = failed.failed.clone().unwrap_or_default();
            return Err(Stop::Broken(format!("{}: {why}", phase(&failed.name))));
        }
        if let Some(silence) = &taken.silence {
            let within = taken.calls.last().filter(|call| call.is_open());
            let within = within.map(|call| format!("{}: ", phase(&call.name))).unwrap_or_default();
            return Err(Stop::Broken(format!("{within}{silence}")));
        }
        let is_stream = |call: &&Call| call.context() > 1;
        let stream = taken.calls.iter().find(is_stream).map_or(2, Call::context);
        let before: Vec<Line> =
            taken.calls.iter().take_while(|call| call.context() <= 1).flat_map(|call| self.lines(call)).collect();
        self.expect(&format!("{path}.plugin_init"), &before, false, |check| check.log(&test.plugin_init))?;
        let of = |names: &[&str]| -> Vec<&Call> {
            let named = |call: &&Call| call.context() == stream && names.contains(&call.name.as_str());
            taken.calls.iter().filter(named).collect()
        };
        let lines = |calls: &[&Call]| -> Vec<Line> { calls.iter().flat_map(|call| self.lines(call)).collect() };
        let created = lines(&of(&["proxy_on_context_create"]));
        let destroyed = lines(&of(&["proxy_on_log", "proxy_on_done", "proxy_on_delete"]));
        self.expect(&format!("{path}.stream_init"), &created, false, |check| check.log(&test.stream_init))?;
        let requests = (&test.request_headers, &test.request_body, taken.seen.request.as_ref());
        let responses = (&test.response_headers, &test.response_body, taken.seen.response.as_ref());
        for (side, (headers, bodies, wire)) in [("request", requests), ("response", responses)] {
            let on_headers = of(&[&format!("proxy_on_{side}_headers")]).first().copied();
            if let Some(invocation) = headers {
                let (outcome, lines) = self.headers(on_headers, wire)?;
                let path = format!("{path}.{side}_headers.result");
                let local = outcome.reply.is_some();
                self.expect(&path, &lines, local, |check| check.headers(&invocation.result, &outcome))?;
                self.replied |= local;
            } else if !bodies.is_empty() || side == "request" {
                self.does_nothing(side, on_headers)?;
            }
            let on_body = of(&[&format!("proxy_on_{side}_body")]);
            if let Some(invocation) = bodies.first() {
                let (outcome, lines) = self.body(&on_body, side);
                let path = format!("{path}.{side}_body[0].result");
                let local = outcome.reply.is_some();
                self.expect(&path, &lines, local, |check| check.body(&invocation.result, &outcome))?;
                self.replied |= local;
            }
        }
        self.expect(&format!("{path}.stream_destroy"), &destroyed, false, |check| check.log(&test.stream_destroy))
    }

    /// A message that the test does not have, and Envoy needs, is of no consequence.
    fn does_nothing(&self, side: &str, call: Option<&Call>) -> Result<(), Stop> {
        let does = call.is_some_and(|call| !call.continues() || call.replied.is_some() || !self.lines(call).is_empty());
        if self.replied || !does {
            return Ok(());
        }
        let why = format!(
            "it has no {side}_headers, Envoy has no stream without, and the plugin answers, stops or logs there"
        );
        Err(Stop::NotRun(why))
    }

    fn headers(&self, call: Option<&Call>, wire: Option<&Headers>) -> Result<(Outcome, Vec<Line>), Stop> {
        if self.replied {
            return Ok((Outcome::default(), Vec::new()));
        }
        let lines = call.map(|call| self.lines(call)).unwrap_or_default();
        let replied = call.and_then(|call| call.replied.as_ref());
        let stopped = call.is_some_and(|call| replied.is_some() || !call.continues());
        let reply = replied.and_then(|arguments| self.reply(arguments));
        let wire = if reply.is_some() { self.taken.seen.response.as_ref() } else { wire };
        if let (false, None) = (stopped, wire) {
            let details = &self.taken.details;
            let status = self.taken.seen.response.as_ref().map(|response| status(response).to_string());
            let status = status.unwrap_or_else(|| "nothing".to_owned());
            return Err(Stop::Broken(format!("Envoy passes nothing on, and answers {status} ({details})")));
        }
        let headers = wire.map(|headers| self.joined(headers)).unwrap_or_default();
        Ok((Outcome { headers, body: Vec::new(), stopped, reply }, lines))
    }

    fn body(&self, calls: &[&Call], side: &str) -> (Outcome, Vec<Line>) {
        if self.replied {
            return (Outcome::default(), Vec::new());
        }
        let lines = calls.last().map(|call| self.lines(call)).unwrap_or_default();
        let reply = calls.iter().find_map(|call| self.reply(call.replied.as_ref()?));
        let seen = &self.taken.seen;
        let body = if side == "request" { seen.request_body.clone() } else { seen.response_body.clone() };
        (Outcome { headers: Headers::new(), body, stopped: false, reply }, lines)
    }

    /// The local response that a callback asked for, as the client got it.
    fn reply(&self, arguments: &[u64]) -> Option<Reply> {
        let Taken { seen, details, .. } = self.taken;
        let response = seen.response.as_ref()?;
        let grpc_status = arguments.get(7).and_then(|status| u32::try_from(*status).ok()).unwrap_or(u32::MAX);
        // Envoy writes blanks in details as underscores.
        let invocations = self.test.invocations().filter_map(|invocation| invocation.result.immediate.as_ref());
        let mut expected = invocations.filter_map(|immediate| immediate.details.as_ref());
        let written = |text: &str| text.replace(|c: char| c.is_ascii_whitespace(), "_");
        let details = expected.find(|expected| written(expected) == *details).unwrap_or(details);
        let details = details.as_bytes().to_vec();
        Some(Reply { status: status(response), grpc_status, details, body: seen.response_body.clone() })
    }

    /// As the tester has them: sorted, a line for each name, as it was written first.
    fn joined(&self, headers: &Headers) -> Headers {
        let mut joined: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (name, value) in headers {
            match joined.get_mut(name) {
                Some(values) => {
                    values.extend_from_slice(b", ");
                    values.extend_from_slice(value);
                }
                None => {
                    joined.insert(name.clone(), value.clone());
                }
            }
        }
        // In Envoy it is another name of the same.
        let authority = joined.get(b":authority".as_slice()).cloned();
        if let Some(authority) = authority.filter(|_| self.given.has_host) {
            joined.insert(b"host".to_vec(), authority);
        }
        joined.into_iter().map(|(name, value)| (self.spelled.get(&name).cloned().unwrap_or(name), value)).collect()
    }

    fn expect(
        &mut self,
        path: &str,
        lines: &[Line],
        local: bool,
        f: impl FnOnce(&mut Checker<'_>) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let added = &self.given.added;
        let own = |name: &str| {
            ADDED.contains(&name)
                || name.starts_with("x-envoy-")
                || local && ADDED_LOCALLY.contains(&name)
                || !local && added.contains(&name)
        };
        let folder = &self.suite.task.folder;
        let mut checker = Checker { path, lines, folder, own: &own, mismatches: &mut self.mismatches };
        f(&mut checker).map_err(Stop::Broken)
    }
}

fn status(headers: &Headers) -> u32 {
    let status = headers.iter().find(|(name, _)| name == b":status").map(|(_, value)| String::from_utf8_lossy(value));
    status.and_then(|status| status.parse().ok()).unwrap_or_default()
}
