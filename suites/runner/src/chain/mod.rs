//! Runs chain suites in the harness: a proxy without sockets for each test, with the test's servers around it.

mod connection;
mod end;
mod expect;
mod grpc;
mod jar;
mod metrics;
mod on_envoy;
mod record;
mod stage;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::abi::LogLevel;
use harness::engine::Engine;
use harness::offline::{ChainProxy, Modules, Received, Setting, World};
use harness::trace;
use mesh::model::FilterChain;
use mesh::plan::Plan;
use regex::Regex;
use suites::chain::model::{Capture, Connection, Isolation, Request, ResponseExpectation, Test};
use suites::chain::template::{self, Variables};
use suites::chain::units::Time;
use suites::chain::{Chosen, Planned, Task};
use suites::outcome::{Case, Mismatch, OnEnvoy, Verdict};
use tokio::task::LocalSet;

use crate::envoy::Program;
use connection::{Ends, Ground};
use end::{End, Upstream};
use expect::{Comparison, Response};
use jar::Jar;
use record::{Line, Record};
use stage::{OnStage, Stage, Turntable};

/// What scripts and guests may recurse in.
const STACK: usize = 8 << 20;
/// How many turns a proxy gets before its first request, in which no time passes.
const SETTLING: usize = 64;
/// The request ids' randomness is not that of plugins.
const IDS: u64 = 0x5eed_0000_0000_0000;

/// A chain suite whose tests can be run.
pub(crate) struct Suite<'a> {
    engine: &'a Engine,
    task: &'a Task,
    /// Compiled once for all tests.
    modules: Mutex<Modules>,
    /// Those of a suite whose tests share a proxy, which run one after another.
    together: OnceLock<Vec<Case>>,
    together_on_envoy: OnceLock<Vec<OnEnvoy>>,
}

impl<'a> Suite<'a> {
    pub(crate) fn prepare(engine: &'a Engine, task: &'a Task) -> Self {
        Self { engine, task, modules: Mutex::default(), together: OnceLock::new(), together_on_envoy: OnceLock::new() }
    }

    /// Its tests' names, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        let name = |chosen: &Chosen| self.task.suite.tests.get(chosen.test).map_or("", |test| test.name.as_str());
        self.task.tests.iter().map(name).collect()
    }

    /// Runs a test, by its place among the names; in Envoy as well, where there is one.
    pub(crate) fn run(&self, test: usize, envoy: Option<&Program>) -> Option<Case> {
        let all = &self.task.tests;
        if self.task.suite.isolation == Isolation::Suite {
            let cases = self.together.get_or_init(|| run(self.engine, self.task, all, &self.modules));
            let mut case = cases.get(test).cloned()?;
            if let Some(envoy) = envoy {
                let ran = self.together_on_envoy.get_or_init(|| on_envoy::run(envoy, self.task, all));
                case.envoy = ran.get(test).cloned();
            }
            return Some(case);
        }
        let chosen = std::slice::from_ref(all.get(test)?);
        let mut case = run(self.engine, self.task, chosen, &self.modules).pop()?;
        case.envoy = envoy.and_then(|envoy| on_envoy::run(envoy, self.task, chosen).pop());
        Some(case)
    }
}

/// Runs the tests that were chosen, in order.
fn run(engine: &Engine, task: &Task, tests: &[Chosen], modules: &Mutex<Modules>) -> Vec<Case> {
    let ran = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chain".to_owned()).stack_size(STACK);
        let ran = thread.spawn_scoped(scope, || here(engine, task, tests, modules));
        ran.map(std::thread::ScopedJoinHandle::join)
    });
    match ran {
        Ok(Ok(cases)) => cases,
        Ok(Err(_)) => all_broken(task, tests, "the tests' thread ended"),
        Err(error) => all_broken(task, tests, &format!("failed to start a thread: {error}")),
    }
}

fn all_broken(task: &Task, tests: &[Chosen], why: &str) -> Vec<Case> {
    let broken = |chosen: &Chosen| {
        let name = task.suite.tests.get(chosen.test).map(|test| test.name.clone()).unwrap_or_default();
        case(name, Verdict::Broken(why.to_owned()), Duration::ZERO)
    };
    tests.iter().map(broken).collect()
}

fn case(name: String, verdict: Verdict, took: Duration) -> Case {
    Case { name, verdict, took, measured: None, logs: Vec::new(), traces: Vec::new(), envoy: None }
}

/// A proxy, and all that goes with it.
struct Running {
    proxy: ChainProxy,
    world: Arc<World>,
    record: Arc<Record>,
    turntable: Arc<Turntable>,
    upstream: Upstream,
    is_unreachable: Rc<Cell<bool>>,
}

fn here(engine: &Engine, task: &Task, tests: &[Chosen], modules: &Mutex<Modules>) -> Vec<Case> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return all_broken(task, tests, &format!("failed to start a runtime: {error}")),
    };
    let mut kept: BTreeMap<usize, Running> = BTreeMap::new();
    let mut cases = Vec::new();
    // Tasks of one test's proxy are over when it is; those of a suite's go on.
    let mut local = LocalSet::new();
    for chosen in tests {
        let Some(test) = task.suite.tests.get(chosen.test) else { continue };
        let began = Instant::now();
        if task.suite.isolation == Isolation::Test {
            kept.clear();
            local = LocalSet::new();
        }
        let ran = local.block_on(&runtime, one(engine, task, *chosen, test, modules, &mut kept));
        let mut case = match ran {
            Ok(case) => case,
            Err(why) => case(test.name.clone(), Verdict::Broken(why), Duration::ZERO),
        };
        case.took = began.elapsed();
        cases.push(case);
    }
    cases
}

async fn one(
    engine: &Engine,
    task: &Task,
    chosen: Chosen,
    test: &Test,
    modules: &Mutex<Modules>,
    kept: &mut BTreeMap<usize, Running>,
) -> Result<Case, String> {
    let plan = match task.plans.get(chosen.plan) {
        Some(Planned::Ready(plan)) => plan,
        Some(Planned::Failed(why)) => return Err(why.clone()),
        None => return Err("there is no plan for it".to_owned()),
    };
    let stage = Stage::new(&task.suite, test, &task.folder);
    let mut running = match kept.remove(&chosen.plan) {
        Some(running) => {
            running.turntable.turn(stage.clone());
            running.record.clear();
            running
        }
        None => start(engine, task, plan, modules, &stage)?,
    };
    // What it calls as it starts is no request's.
    for _ in 0..SETTLING {
        tokio::task::yield_now().await;
    }
    stage.take();
    let mut run =
        Run { folder: &task.folder, stage: &stage, jar: test.cookie_jar.then(Jar::default), mismatches: Vec::new() };
    let path = format!("tests[{}]", chosen.test);
    let mut broken = None;
    for (index, request) in test.requests.iter().enumerate() {
        let path = format!("{path}.requests[{index}]");
        if let Err(why) = run.request(&path, request, &mut running).await {
            broken = Some(format!("`{path}`: {why}"));
            break;
        }
    }
    for (index, connection) in test.connections.iter().enumerate() {
        let path = format!("{path}.connections[{index}]");
        if let Err(why) = run.connect(&path, connection, &mut running).await {
            broken = Some(format!("`{path}`: {why}"));
            break;
        }
    }
    let record = running.record.kept().clone();
    let variables = stage.variables();
    let mut comparison = Comparison { variables: &variables, mismatches: run.mismatches };
    let path = format!("{path}.expect");
    let expected = test.expect.clone().unwrap_or_default();
    let in_front = plan.network.as_ref().map(FilterChain::brief);
    let chains = (plan.chain.brief(), in_front.as_deref());
    comparison.whole(&path, &expected, (&chains.0, chains.1), &record, &running.proxy.metrics());
    comparison.hazards(&path, &expected.hazards, &record.hazards);
    let verdict = match (broken, comparison.mismatches) {
        (Some(why), _) => Verdict::Broken(why),
        (None, mismatches) if mismatches.is_empty() => Verdict::Passed,
        (None, mismatches) => Verdict::Failed(mismatches),
    };
    if task.suite.isolation == Isolation::Suite {
        kept.insert(chosen.plan, running);
    } else {
        running.proxy.stop().await;
    }
    let mut case = case(test.name.clone(), verdict, Duration::ZERO);
    case.logs = record.lines.iter().map(|line| format!("{} {}", line.level, line.text)).collect();
    case.traces = record.traces;
    Ok(case)
}

fn start(
    engine: &Engine,
    task: &Task,
    plan: &Plan,
    modules: &Mutex<Modules>,
    stage: &Arc<Stage>,
) -> Result<Running, String> {
    let suite = &task.suite;
    let (clock, seed) = (suite.clock.unwrap_or(Time::DEFAULT), suite.seed.unwrap_or(0));
    let world = Arc::new(World::new(clock.0, seed, []));
    let (record, turntable) = (Arc::new(Record::default()), Turntable::new(stage.clone()));
    let (upstream, is_unreachable) = (Upstream::default(), Rc::new(Cell::new(false)));
    let mut plan = plan.clone();
    let env = suite.env.iter().map(|variable| (variable.name.clone(), variable.value.clone()));
    plan.host_env = env.collect();
    plan.node = suite.node.clone().map(serde_json::Value::Object).or(plan.node);
    let setting = Setting {
        sink: record.clone(),
        log_level: level(suite.log_level),
        nature: world.clone(),
        ids: Arc::new(World::new(clock.0, seed ^ IDS, [])),
        servers: Rc::new(OnStage {
            turntable: turntable.clone(),
            upstream: upstream.clone(),
            is_unreachable: is_unreachable.clone(),
        }),
        documents: turntable.clone(),
        trace: Some(trace::Settings::default()),
        client: SocketAddr::from(([127, 0, 0, 1], 50_000)),
    };
    let started = {
        // One that panicked has left whole modules behind.
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        ChainProxy::start(engine, &plan, &mut modules, setting)
    };
    let proxy = started.map_err(|error| {
        let logs: Vec<_> = record.kept().lines.iter().map(|line| format!("\n  {} {}", line.level, line.text)).collect();
        format!("the chain does not start: {}{}", chained(&error), logs.concat())
    })?;
    Ok(Running { proxy, world, record, turntable, upstream, is_unreachable })
}

fn level(level: suites::chain::model::LogLevel) -> LogLevel {
    use suites::chain::model::LogLevel as Written;
    match level {
        Written::Trace => LogLevel::Trace,
        Written::Debug => LogLevel::Debug,
        Written::Info => LogLevel::Info,
        Written::Warning => LogLevel::Warn,
        Written::Error => LogLevel::Error,
        Written::Critical => LogLevel::Critical,
    }
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A test on its way.
struct Run<'t> {
    folder: &'t Path,
    stage: &'t Stage,
    jar: Option<Jar>,
    mismatches: Vec<Mismatch>,
}

impl Run<'_> {
    async fn request(&mut self, path: &str, request: &Request, running: &mut Running) -> Result<(), String> {
        let lines_before = running.record.kept().lines.len();
        if let Some(span) = request.advance {
            tokio::time::sleep(span.0).await;
        }
        let now = running.world.since_epoch().as_secs();
        let details_before = running.record.kept().details.len();
        let sent = sent(request, &self.stage.variables(), self.folder, self.jar.as_ref(), now)?;
        let received = running.proxy.send(sent).await;
        let details = running.record.kept().details.get(details_before).cloned().unwrap_or_default();
        let lines = running.record.kept().lines.get(lines_before..).unwrap_or_default().to_vec();
        self.judge(path, request, &response(received, details), &lines, now)
    }

    async fn connect(&mut self, path: &str, connection: &Connection, running: &mut Running) -> Result<(), String> {
        let (lines_before, closed_before) = {
            let kept = running.record.kept();
            (kept.lines.len(), kept.closers.len())
        };
        if let Some(span) = connection.advance {
            tokio::time::sleep(span.0).await;
        }
        running.upstream.take();
        running.is_unreachable.set(connection.unreachable);
        let opened = running.proxy.connect();
        let ends = Ends { client: End::new(opened.client), upstream: running.upstream.clone() };
        let mut outcome = self.connection(path, connection, &ends, &mut Here).await?;
        ends.client.reset();
        opened.serving.end().await;
        // What hears of it elsewhere has its turn as well.
        Here.settle(&|| true).await?;
        let (lines, closer) = {
            let kept = running.record.kept();
            let lines = kept.lines.get(lines_before..).unwrap_or_default().to_vec();
            (lines, kept.closers.get(closed_before).copied())
        };
        outcome.closed_by = closer;
        self.judge_connection(path, connection, &outcome, &lines)
    }

    /// Compares what came of a request, and keeps what later ones need of it.
    fn judge(
        &mut self,
        path: &str,
        request: &Request,
        response: &Response,
        lines: &[Line],
        now: u64,
    ) -> Result<(), String> {
        let (callouts, arrived, problems) = self.stage.take();
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        if let Some(jar) = &mut self.jar {
            for (_, value) in response.headers.iter().filter(|(name, _)| name == "set-cookie") {
                jar.keep(value, now);
            }
        }
        if let Some(expected) = &request.expect {
            let path = format!("{path}.expect");
            let variables = self.stage.variables();
            let mut comparison = Comparison { variables: &variables, mismatches: std::mem::take(&mut self.mismatches) };
            if let Some(expected) = &expected.response {
                comparison.response(&format!("{path}.response"), expected, response);
            } else if response.broken_off {
                comparison.response(&format!("{path}.response"), &ResponseExpectation::default(), response);
            }
            if let Some(expected) = &expected.upstream {
                comparison.upstream(&format!("{path}.upstream"), expected, &arrived);
            }
            if let Some(expected) = &expected.callouts {
                comparison.callouts(&format!("{path}.callouts"), expected, &callouts);
            }
            comparison.logs(&format!("{path}.logs"), &expected.logs, lines);
            self.mismatches = comparison.mismatches;
        }
        for capture in &request.capture {
            let value = captured(capture, response, &self.stage.variables())
                .ok_or_else(|| format!("nothing to capture as `{}`: {}", capture.name, summary(response)))?;
            self.stage.set(&capture.name, value);
        }
        Ok(())
    }
}

/// The harness, whose time is a test's: it goes on only when nothing else does.
struct Here;

/// The least that passes.
const MOMENT: Duration = Duration::from_millis(1);

impl Ground for Here {
    async fn pass(&mut self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn settle(&mut self, _: &dyn Fn() -> bool) -> Result<(), String> {
        tokio::time::sleep(MOMENT).await;
        Ok(())
    }
}

/// The response in a line, for errors.
fn summary(response: &Response) -> String {
    let status =
        response.status.map_or_else(|| "no response".to_owned(), |status| format!("the response has status {status}"));
    let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    format!("{status}, {} bytes of body and the headers {}", response.body.len(), names.join(", "))
}

fn sent(
    request: &Request,
    variables: &Variables,
    folder: &Path,
    jar: Option<&Jar>,
    now: u64,
) -> Result<http::Request<Bytes>, String> {
    let path = template::fill(&request.path, variables)?;
    let mut headers = stage::headers(&request.headers, request.body.as_ref(), variables)?;
    if let Some(cookies) = jar.and_then(|jar| jar.header(&path, now)) {
        headers.push(("cookie".to_owned(), cookies));
    }
    let mut builder = http::Request::builder().method(request.method.as_str()).uri(&path);
    builder = builder.header(http::header::HOST, template::fill(&request.host, variables)?);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    let body = stage::content(request.body.as_ref(), variables, folder)?;
    builder.body(body.into()).map_err(|error| format!("the request is none: {error}"))
}

fn response(received: Received, details: String) -> Response {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Response {
        status: received.status,
        headers: received.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
        body: received.body,
        broken_off: received.broken_off,
        details,
    }
}

fn captured(capture: &Capture, response: &Response, variables: &Variables) -> Option<String> {
    let found = |regex: &str, text: &str| {
        let regex = Regex::new(&template::fill_regex(regex, variables).ok()?).ok()?;
        let groups = regex.captures(text)?;
        groups.get(1).or(groups.get(0)).map(|group| group.as_str().to_owned())
    };
    let named = |wanted: &str| {
        let wanted = wanted.to_ascii_lowercase();
        response.headers.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| value.as_str())
    };
    let body = String::from_utf8_lossy(&response.body);
    if let Some(pointer) = &capture.json_pointer {
        let json: serde_json::Value = serde_json::from_str(&body).ok()?;
        return match json.pointer(pointer)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
    }
    if let Some(regex) = &capture.body_regex {
        return found(regex, &body);
    }
    let value = match (&capture.header, &capture.cookie) {
        (Some(header), _) => named(header).next()?,
        (None, Some(cookie)) => named("set-cookie").find_map(|header| jar::value_of(header, cookie))?,
        (None, None) => return None,
    };
    match &capture.regex {
        Some(regex) => found(regex, value),
        None => Some(value.to_owned()),
    }
}
