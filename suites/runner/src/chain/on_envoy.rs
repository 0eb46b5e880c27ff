//! Chain suites in a real Envoy: the same chain, requests and servers, on sockets and in real time.

mod connection;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use harness::offline::{Answer, GrpcReply, GrpcRequest, Message, Received, Reply};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mesh::model::{FilterChain, Layer};
use mesh::plan::Plan;
use serde_json::Value;
use suites::chain::model::{self, Isolation, Request, Test};
use suites::chain::{Chosen, Planned, Task};
use suites::outcome::{Mismatch, OnEnvoy, Ran, Verdict};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::end::{End, Upstream};
use super::expect::Comparison;
use super::jar::Jar;
use super::record::{Kept, Line};
use super::stage::{Stage, Turntable};
use super::{Run, grpc, response, sent};
use crate::envoy::log::Line as Logged;
use crate::envoy::transcript::{self, Call};
use crate::envoy::{self, Envoy, Program, bootstrap, servers};

/// What a test may wait for in real time, all in all.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a response may take: a plugin may hold a request, in real time.
const ANSWER: Duration = Duration::from_secs(30);
/// Between looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(200);
/// How long the account of a request that is over may take.
const ACCOUNT: Duration = Duration::from_secs(2);

/// Runs the tests that were chosen, in order.
pub(super) fn run(program: &Program, task: &Task, tests: &[Chosen]) -> Vec<OnEnvoy> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let why = Verdict::Broken(format!("failed to start a runtime: {error}"));
            return tests.iter().map(|_| ran(why.clone())).collect();
        }
    };
    let mut kept: BTreeMap<usize, Running> = BTreeMap::new();
    let mut local = LocalSet::new();
    let mut all = Vec::new();
    let mut left_out = None;
    for chosen in tests {
        let Some(test) = task.suite.tests.get(chosen.test) else { continue };
        let shared = task.suite.isolation == Isolation::Suite;
        if !shared {
            kept.clear();
            local = LocalSet::new();
        }
        let why = match (&left_out, reason(task, *chosen, test)) {
            (_, Some(reason)) => Some(reason),
            (Some(before), None) if shared => Some(format!("it shares a proxy with `{before}`, which is not run")),
            _ => None,
        };
        if let Some(why) = why {
            left_out.get_or_insert_with(|| test.name.clone());
            all.push(OnEnvoy::NotRun(why));
            continue;
        }
        let began = Instant::now();
        let outcome = local.block_on(&runtime, one(program, task, *chosen, test, &mut kept));
        let mut outcome = outcome.unwrap_or_else(|why| ran(Verdict::Broken(why)));
        if let OnEnvoy::Ran(ran) = &mut outcome {
            ran.took = began.elapsed();
        }
        all.push(outcome);
    }
    all
}

fn ran(verdict: Verdict) -> OnEnvoy {
    OnEnvoy::Ran(Ran { verdict, took: Duration::ZERO, logs: Vec::new(), not_compared: Vec::new() })
}

/// Whether a connection finds no upstream.
fn unreachable(test: &Test) -> bool {
    test.connections.iter().any(|connection| connection.unreachable)
}

/// Whether others find one.
fn mixed(test: &Test) -> bool {
    unreachable(test) && test.connections.iter().any(|connection| !connection.unreachable)
}

/// Why a test is not run in Envoy, if it is not.
fn reason(task: &Task, chosen: Chosen, test: &Test) -> Option<String> {
    let suite = &task.suite;
    if let Some(reason) = &test.not_on_envoy {
        return Some(reason.clone());
    }
    if test.requests.is_empty() && test.connections.is_empty() {
        return Some("it has no requests and no connections".to_owned());
    }
    if matches!(task.plans.get(chosen.plan), Some(Planned::Failed(_)) | None) {
        return Some("its chain could not be had".to_owned());
    }
    if suite.clock.is_some() {
        return Some("the suite sets the `clock`, and Envoy's is real".to_owned());
    }
    if suite.seed.is_some() {
        return Some("the suite sets the `seed`, and Envoy's randomness is real".to_owned());
    }
    if unreachable(test) && suite.isolation == Isolation::Suite || mixed(test) {
        return Some(
            "one of its connections finds no upstream and others find one, which Envoy's is for all".to_owned(),
        );
    }
    if let Some(hazard) = test.expect.as_ref().and_then(|expect| expect.hazards.first()) {
        return Some(format!(
            "it meets the hazard `{hazard}`, which Envoy answers with a hang, a crash or a broken response"
        ));
    }
    let steps = test.connections.iter().flat_map(|connection| &connection.steps).map(|step| step.advance);
    let connections = test.connections.iter().map(|connection| connection.advance).chain(steps);
    let advances = test.requests.iter().map(|request| request.advance).chain(connections);
    let advance: Duration = advances.flatten().map(|span| span.0).sum();
    let longest = LONGEST.as_secs();
    if advance > LONGEST {
        return Some(format!(
            "`advance` lets {} s pass, and Envoy's time is real: {longest} s are waited for",
            advance.as_secs()
        ));
    }
    let servers = suite.clusters.iter().chain(&test.clusters).map(|cluster| (&cluster.answers, &cluster.routes));
    let upstream = test.upstream.as_ref().or(suite.upstream.as_ref());
    let servers = servers.chain(upstream.map(|upstream| (&upstream.answers, &upstream.routes)));
    let delay =
        servers.flat_map(|(answers, routes)| answers.iter().chain(routes.iter().flat_map(|route| &route.answers)));
    let grpc = suite.clusters.iter().chain(&test.clusters).filter_map(|cluster| cluster.grpc.as_ref());
    let grpc = grpc.flat_map(|grpc| grpc.answers.iter().chain(grpc.routes.iter().flat_map(|route| &route.answers)));
    let delay = delay.map(|answer| answer.delay).chain(grpc.map(|answer| answer.delay));
    let delay = delay.flatten().map(|span| span.0).max().unwrap_or_default();
    (delay > LONGEST)
        .then(|| format!("an answer takes {} s, and Envoy's time is real: {longest} s are waited for", delay.as_secs()))
}

/// An Envoy, and the stage that its servers are on.
struct Running {
    envoy: Envoy,
    turntable: Arc<Turntable>,
    /// The upstream's end of the newest connection, where connections are served.
    upstream: Upstream,
}

async fn one(
    program: &Program,
    task: &Task,
    chosen: Chosen,
    test: &Test,
    kept: &mut BTreeMap<usize, Running>,
) -> Result<OnEnvoy, String> {
    let Some(Planned::Ready(plan)) = task.plans.get(chosen.plan) else {
        return Ok(OnEnvoy::NotRun("its chain could not be had".to_owned()));
    };
    let stage = Stage::new(&task.suite, test, &task.folder);
    let (mut running, from) = match kept.remove(&chosen.plan) {
        Some(running) => {
            running.turntable.turn(stage.clone());
            let from = running.envoy.log().len();
            (running, from)
        }
        None => match start(program, task, test, plan, &stage).await? {
            Ok(running) => (running, 0),
            Err(reason) => return Ok(OnEnvoy::NotRun(reason)),
        },
    };
    // What plugins call as they start is no request's.
    running.envoy.rest().await;
    stage.take();
    let mut skipped = Skipped::default();
    let mut run =
        Run { folder: &task.folder, stage: &stage, jar: test.cookie_jar.then(Jar::default), mismatches: Vec::new() };
    let path = format!("tests[{}]", chosen.test);
    let level = task.suite.log_level;
    let mut broken = None;
    for (index, request) in test.requests.iter().enumerate() {
        let path = format!("{path}.requests[{index}]");
        let envoy = (program, &mut running.envoy, plan.network.is_some());
        if let Err(why) = exchange(&mut run, &path, request, level, envoy, &mut skipped).await {
            broken = Some(format!("`{path}`: {why}"));
            break;
        }
    }
    for (index, connection) in test.connections.iter().enumerate() {
        let path = format!("{path}.connections[{index}]");
        if let Err(why) =
            connection::connect(&mut run, &path, connection, level, (program, &mut running), &mut skipped).await
        {
            broken = Some(format!("`{path}`: {why}"));
            break;
        }
    }
    let metrics = match test.expect.as_ref().filter(|expect| broken.is_none() && !expect.metrics.is_empty()) {
        Some(_) => running.envoy.metrics().await?,
        None => String::new(),
    };
    // What plugins say as Envoy ends is no test's.
    let lines = {
        let lines = running.envoy.log().lines();
        said(lines.get(from..).unwrap_or_default(), transcript::main_thread(&lines), level)
    };
    let logs = lines.iter().map(|line| format!("{} {}", line.level, line.text)).collect();
    let variables = stage.variables();
    let mut comparison = Comparison { variables: &variables, mismatches: run.mismatches };
    let path = format!("{path}.expect");
    let expected = test.expect.clone().unwrap_or_default();
    for (index, _) in expected.metrics.iter().enumerate().filter(|(_, metric)| metric.name.starts_with("istio_")) {
        skipped.skip(format!("{path}.metrics[{index}]"), "Istio's own metrics, which a stock Envoy does not have");
    }
    let record = Kept { lines, ..Kept::default() };
    let in_front = plan.network.as_ref().map(FilterChain::brief);
    let chains = (plan.chain.brief(), in_front.as_deref());
    comparison.whole(&path, &expected, (&chains.0, chains.1), &record, &metrics);
    let mut mismatches = comparison.mismatches;
    skipped.apply(&mut mismatches);
    let verdict = match broken {
        Some(why) => Verdict::Broken(why),
        None if mismatches.is_empty() => Verdict::Passed,
        None => Verdict::Failed(mismatches),
    };
    // One that is gone or hangs is no proxy for the next test.
    if task.suite.isolation == Isolation::Suite && running.envoy.ended().is_none() {
        kept.insert(chosen.plan, running);
    }
    Ok(OnEnvoy::Ran(Ran { verdict, took: Duration::ZERO, logs, not_compared: skipped.shown() }))
}

/// What is expected and cannot be compared: fields, and why.
#[derive(Default)]
struct Skipped(Vec<(String, String)>);

impl Skipped {
    fn skip(&mut self, path: String, why: &str) {
        self.0.push((path, why.to_owned()));
    }

    fn callouts(&mut self, path: String, calls_on_main: usize) {
        if calls_on_main > 0 {
            self.skip(path, &format!("the plugin's VM on Envoy's main thread called {calls_on_main} times meanwhile"));
        }
    }

    fn apply(&self, mismatches: &mut Vec<Mismatch>) {
        let is_in = |path: &str, skipped: &str| {
            path.strip_prefix(skipped).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        mismatches.retain(|mismatch| !self.0.iter().any(|(skipped, _)| is_in(&mismatch.path, skipped)));
    }

    fn shown(&self) -> Vec<String> {
        self.0.iter().map(|(path, why)| format!("{path}: {why}")).collect()
    }
}

/// Starts Envoy with a server for each cluster. The inner error is why there is nothing to start.
async fn start(
    program: &Program,
    task: &Task,
    test: &Test,
    plan: &Plan,
    stage: &Arc<Stage>,
) -> Result<Result<Running, String>, String> {
    let suite = &task.suite;
    let turntable = Turntable::new(stage.clone());
    let shared = suite.isolation == Isolation::Suite;
    let others = suite.tests.iter().filter(|_| shared).flat_map(|test| &test.clusters);
    let mut clusters = BTreeMap::new();
    // A test's own cluster is in the place of the suite's.
    for model::Cluster { name, grpc, unreachable, .. } in test.clusters.iter().chain(&suite.clusters).chain(others) {
        if clusters.contains_key(name) {
            continue;
        }
        let (on_stage, cluster) = (turntable.clone(), name.clone());
        let url = if *unreachable {
            format!("http://{}", servers::nobody().await?)
        } else if grpc.is_some() {
            format!("h2c://{}", envoy::grpc::start(OnSocket { on_stage, cluster }).await?)
        } else {
            let answer = move |request: &Message| on_stage.stage().answer(Some(&cluster), request);
            format!("http://{}", servers::start(answer).await?)
        };
        clusters.insert(name.clone(), url);
    }
    let upstream = Upstream::default();
    let url = if unreachable(test) {
        format!("tcp://{}", servers::nobody().await?)
    } else if plan.chain.listener.layer == Layer::Network {
        let upstream = upstream.clone();
        let accept = move |stream| *upstream.borrow_mut() = Some(End::new(stream));
        format!("tcp://{}", servers::accept(accept).await?)
    } else {
        let on_stage = turntable.clone();
        format!("http://{}", servers::start(move |request| on_stage.stage().answer(None, request)).await?)
    };
    let on_stage = turntable.clone();
    let documents = servers::start(move |request| Some(document(&on_stage, request))).await?;
    let mut plan = plan.clone();
    plan.node = suite.node.clone().map(Value::Object).or(plan.node);
    let written = bootstrap::of(&plan, url, clusters, Some(documents));
    let written = match written {
        Ok(written) => written,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let environment: Vec<(String, String)> =
        suite.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
    let envoy = Envoy::start(program, &written, &environment).await?;
    Ok(Ok(Running { envoy, turntable, upstream }))
}

/// A gRPC cluster of the stage that is on.
struct OnSocket {
    on_stage: Arc<Turntable>,
    cluster: String,
}

impl envoy::grpc::Answers for OnSocket {
    fn part(&self, request: &GrpcRequest) -> GrpcReply {
        grpc::sent(self.on_stage.stage().grpc(&self.cluster, request))
    }

    fn other(&self, request: &Message) -> Option<Reply> {
        self.on_stage.stage().answer(Some(&self.cluster), request)
    }
}

/// A document that the proxy itself fetches, which is no callout.
fn document(turntable: &Turntable, request: &Message) -> Reply {
    let get = |wanted: &[u8]| {
        let found = request.headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let (status, body) = match turntable.document(&get(b":authority"), &get(b":path")) {
        Ok(document) => ("200", document),
        Err(why) => ("503", why),
    };
    let headers = vec![pair(":status", status), pair("content-length", &body.len().to_string())];
    let message = Message { headers, body: body.into_bytes(), trailers: Vec::new() };
    Reply { delay: Duration::ZERO, answer: Answer::Whole(message) }
}

async fn exchange(
    run: &mut Run<'_>,
    path: &str,
    request: &Request,
    level: model::LogLevel,
    (program, envoy, has_network_filters): (&Program, &mut Envoy, bool),
    skipped: &mut Skipped,
) -> Result<(), String> {
    let from = envoy.log().len();
    if let Some(span) = request.advance {
        tokio::time::sleep(span.0).await;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let sent = sent(request, &run.stage.variables(), run.folder, run.jar.as_ref(), now)?;
    let accounts = |lines: &[Logged]| lines.iter().filter(|line| line.is_access()).count();
    let before = accounts(&envoy.log().lines());
    let received = tokio::select! {
        received = send(envoy, sent) => Some(received),
        () = hangs(envoy, program.patience) => None,
        () = tokio::time::sleep(ANSWER) => None,
    };
    let Some(received) = received else { return Err(envoy.silence().await) };
    let accounted = envoy.log().until(Instant::now() + ACCOUNT, |lines| accounts(lines) > before).await;
    // Of a connection that a network filter closes there is no account.
    let is_silent = !accounted && received.status.is_none() && !has_network_filters;
    if envoy.log().is_over() || is_silent {
        return Err(envoy.silence().await);
    }
    envoy.rest().await;
    let (details, lines, calls) = {
        let all = envoy.log().lines();
        let details = all.iter().filter(|line| line.is_access()).nth(before).map(|line| line.text.clone());
        let main = transcript::main_thread(&all);
        let new = all.get(from..).unwrap_or_default();
        (details, said(new, main, level), calls_on(main, new))
    };
    if let Some(expect) = &request.expect {
        let path = format!("{path}.expect");
        if expect.callouts.is_some() {
            skipped.callouts(format!("{path}.callouts"), calls);
        }
        let headers = expect.response.iter().flat_map(|response| &response.headers).enumerate();
        for (index, _) in headers.filter(|(_, header)| header.name.eq_ignore_ascii_case("date")) {
            skipped.skip(format!("{path}.response.headers[{index}]"), "Envoy's clock is real");
        }
    }
    // Without details Envoy writes a dash.
    let details = details.filter(|details| details != "-").unwrap_or_default();
    run.judge(path, request, &response(received, details), &lines, now)
}

/// Returns when a plugin's callback does not come to its end.
async fn hangs(envoy: &Envoy, patience: Duration) {
    let (mut count, mut since) = (0, Instant::now());
    loop {
        let (now, within) = {
            let lines = envoy.log().lines();
            (lines.len(), transcript::calls(&lines).last().is_some_and(Call::is_open))
        };
        if now != count || !within {
            (count, since) = (now, Instant::now());
        } else if since.elapsed() > patience {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How often a plugin called something on a thread.
fn calls_on(thread: Option<&str>, lines: &[Logged]) -> usize {
    lines.iter().filter(|line| Some(line.thread.as_str()) == thread && is_callout(line)).count()
}

fn is_callout(line: &Logged) -> bool {
    ["proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream", "proxy_grpc_send"]
        .iter()
        .any(|call| line.text.starts_with("[vm->host] ") && line.text.contains(&format!(".{call}(")))
}

/// What plugins and scripts logged on the worker, and what Envoy says of them: what the harness logs.
fn said(lines: &[Logged], main: Option<&str>, least: model::LogLevel) -> Vec<Line> {
    use model::LogLevel as Level;
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];
    let counts = |line: &Logged| {
        let level = levels.into_iter().find(|level| level.name() == line.level);
        let own = line.text.starts_with("wasm log") || line.text.starts_with("script log: ");
        // Of a script as such Envoy speaks while it loads it.
        let worth = own || level >= Some(if line.logger == "lua" { Level::Info } else { Level::Warning });
        worth && level.is_some_and(|level| level >= least)
    };
    let is_said = |line: &&Logged| {
        let on_main = Some(line.thread.as_str()) == main;
        match line.logger.as_str() {
            "wasm" => !on_main && counts(line),
            "lua" => counts(line) && !(on_main && line.text.starts_with("script log: ")),
            _ => false,
        }
    };
    // A backtrace follows what Envoy says of a trap.
    let first = |text: &'static str, line: &Logged| {
        line.text.starts_with(text).then(|| line.text.lines().next().map(str::to_owned)).flatten()
    };
    lines
        .iter()
        .filter(is_said)
        .map(|line| Line::new(&line.level, &first("Function: ", line).unwrap_or_else(|| line.text.clone())))
        .collect()
}

/// Sends a request on a connection of its own.
async fn send(envoy: &Envoy, request: http::Request<Bytes>) -> Received {
    let mut received = Received { broken_off: true, ..Received::default() };
    let Ok(stream) = TcpStream::connect(envoy.listener()).await else { return received };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = handshake else { return received };
    tokio::task::spawn_local(async move {
        // How it ends is seen in the response.
        let _ = connection.await;
    });
    let Ok(response) = sender.send_request(request.map(Full::new)).await else { return received };
    let (parts, mut body) = response.into_parts();
    received.status = Some(parts.status.as_u16());
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    received.headers = parts.headers.iter().map(pair).collect();
    loop {
        match body.frame().await {
            None => received.broken_off = false,
            Some(Err(_)) => {}
            Some(Ok(frame)) => {
                received.body.extend_from_slice(&frame.into_data().unwrap_or_default());
                continue;
            }
        }
        return received;
    }
}
