//! Runs plugin suites: a VM for each test, its callbacks one after the other.

mod check;
mod on_envoy;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::abi::LogLevel;
use harness::callbacks::{Direction, Headers, Line, Outcome, Session, Setup, Stream};
use harness::engine::Engine;
use harness::module::{LoadError, Module};
use harness::trace::{Trace, json};
use suites::job::Job;
use suites::outcome::{Case, Measured, Mismatch, Verdict};
use suites::plugin::{Chunking, Input, Invocation, Level, Task, Test, http1};

use crate::envoy::Program;
use check::Checker;
use on_envoy::Spelled;

/// Go's plugins do not start at the epoch itself, so that the tester's clock shows a millisecond more.
const DEFAULT_TIME: Duration = Duration::from_millis(1);
/// How long a benchmark runs, and how often at most.
const BENCH: (Duration, usize) = (Duration::from_millis(500), 100_000);

/// The modules of a job, each compiled once.
pub(crate) struct Modules {
    engine: Engine,
    loaded: Mutex<HashMap<PathBuf, Result<Arc<Module>, String>>>,
}

impl Modules {
    pub(crate) fn new(engine: &Engine, _: &Job) -> Self {
        Self { engine: engine.clone(), loaded: Mutex::default() }
    }

    fn load(&self, path: &Path) -> Result<Arc<Module>, String> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.get(path) {
            return known.clone();
        }
        let module = std::fs::read(path)
            .map_err(|error| format!("failed to read the module {}: {error}", path.display()))
            .and_then(|bytes| {
                let failed =
                    |error: LoadError| format!("failed to load the module {}: {}", path.display(), chain(&error));
                Module::compile(&self.engine, &bytes).map(Arc::new).map_err(failed)
            });
        loaded.insert(path.to_owned(), module.clone());
        module
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

/// A plugin suite whose tests can be run.
pub(crate) struct Suite {
    task: Task,
    module: Result<Arc<Module>, String>,
    configuration: Result<Vec<u8>, String>,
    bench: bool,
}

impl Suite {
    pub(crate) fn prepare(task: &Task, job: &Job, modules: &Modules) -> Self {
        let module = task.module.clone().and_then(|path| modules.load(&path));
        let configuration = match &task.configuration {
            None => Ok(Vec::new()),
            Some(path) => std::fs::read(path)
                .map_err(|error| format!("failed to read the configuration {}: {error}", path.display())),
        };
        Self { task: task.clone(), module, configuration, bench: job.bench }
    }

    /// Its tests' names, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.task.suite.tests.iter().map(|test| test.name.as_str()).collect()
    }

    /// Runs a test, by its place among the names; in Envoy as well, where there is one.
    pub(crate) fn run(&self, number: usize, envoy: Option<&Program>) -> Option<Case> {
        let test = self.task.suite.tests.get(number)?;
        let started = Instant::now();
        let (logs, mismatches) = (Vec::new(), Vec::new());
        let mut run = Run { suite: self, test, logs, mismatches, spelled: Spelled::new(), trace: None };
        let verdict = match run.run(&format!("test[{number}]")) {
            Err(why) => Verdict::Broken(why),
            Ok(()) if run.mismatches.is_empty() => Verdict::Passed,
            Ok(()) => Verdict::Failed(std::mem::take(&mut run.mismatches)),
        };
        let took = started.elapsed();
        let logs = run.logs.iter().map(|(level, line)| format!("{} {line}", name(*level))).collect();
        let measured =
            if self.bench && test.benchmark && verdict == Verdict::Passed { self.measure(test) } else { None };
        let envoy = envoy.and_then(|envoy| on_envoy::run(envoy, self, number, &run.spelled));
        // Of what passed nobody asks how.
        let trace = run.trace.filter(|_| verdict != Verdict::Passed).map(|trace| json::line(&trace));
        // It was just written.
        let traces = trace.into_iter().filter_map(|trace| serde_json::from_str(&trace).ok()).collect();
        Some(Case { name: test.name.clone(), verdict, took, measured, logs, traces, envoy })
    }

    fn session(&self, test: &Test, level: LogLevel, trace: bool) -> Result<Session, (String, Vec<Line>)> {
        let bare = |why: &String| (why.clone(), Vec::new());
        let setup = Setup {
            module: self.module.as_ref().map_err(bare)?.clone(),
            configuration: self.configuration.as_ref().map_err(bare)?.clone(),
            log_level: level,
            since_epoch: match self.task.suite.env.time_secs {
                None | Some(0) => DEFAULT_TIME,
                Some(seconds) => Duration::from_secs(seconds),
            },
            properties: test.properties.iter().map(|(path, value)| (path.clone(), value.0.clone())).collect(),
            trace,
        };
        Session::start(setup).map_err(|(error, lines)| (format!("the plugin did not start: {}", chain(&error)), lines))
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.task.folder.join(name);
        std::fs::read(&path).map_err(|error| format!("failed to read {}: {error}", path.display()))
    }

    fn headers(&self, input: &Input, direction: Direction) -> Result<Headers, String> {
        let parsed = |content: &[u8], of: &str| {
            let headers = http1::headers(content, direction == Direction::Request);
            headers.map_err(|why| format!("{of} is no HTTP/1 head: {why}"))
        };
        let headers = match input {
            Input::Headers(headers) => headers.clone(),
            Input::Content(content) => parsed(&content.0, "its `content`")?,
            Input::File(name) => parsed(&self.file(name)?, &format!("the file {name}"))?,
        };
        Ok(headers.into_iter().map(|(name, value)| (name.into_bytes(), value.0)).collect())
    }

    fn body(&self, input: &Input) -> Result<Vec<u8>, String> {
        match input {
            Input::Headers(_) => Ok(Vec::new()),
            Input::Content(content) => Ok(content.0.clone()),
            Input::File(name) => self.file(name),
        }
    }

    /// What a test sends, ready to be sent again and again.
    fn steps(&self, test: &Test) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        let sides = [
            (Direction::Request, &test.request_headers, &test.request_body),
            (Direction::Response, &test.response_headers, &test.response_body),
        ];
        for (direction, headers, bodies) in sides {
            if let Some(invocation) = headers {
                steps.push(Step::Headers(direction, self.headers(&invocation.input, direction)?));
            }
            for invocation in bodies {
                let body = self.body(&invocation.input)?;
                let chunks = cut(test.chunking, &body)?;
                let last = chunks.len() - 1;
                steps.extend(
                    chunks.iter().enumerate().map(|(at, chunk)| Step::Body(direction, chunk.to_vec(), at == last)),
                );
            }
        }
        Ok(steps)
    }

    /// How long a stream's callbacks take, in a VM that has seen others.
    fn measure(&self, test: &Test) -> Option<Measured> {
        let steps = self.steps(test).ok()?;
        let mut session = self.session(test, LogLevel::Critical, false).ok()?;
        let mut others = Vec::new();
        for _ in 0..self.task.suite.env.num_additional_streams {
            others.push(session.open()?);
        }
        let mut times = Vec::new();
        let began = Instant::now();
        while began.elapsed() < BENCH.0 && times.len() < BENCH.1 {
            let stream = session.open()?;
            let started = Instant::now();
            for step in &steps {
                step.send(&mut session, &stream)?;
            }
            times.push(started.elapsed());
            session.close(&stream);
            session.stream_lines(&stream);
            session.host_lines();
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied()?;
        Some(Measured { iterations: times.len() as u64, median })
    }
}

enum Step {
    Headers(Direction, Headers),
    Body(Direction, Vec<u8>, bool),
}

impl Step {
    fn send(&self, session: &mut Session, stream: &Stream) -> Option<Outcome> {
        match self {
            Self::Headers(direction, headers) => session.headers(stream, *direction, headers),
            Self::Body(direction, chunk, end) => session.body(stream, *direction, chunk, *end),
        }
    }
}

fn cut(chunking: Option<Chunking>, body: &[u8]) -> Result<Vec<&[u8]>, String> {
    chunking.map_or_else(|| Ok(vec![body]), |chunking| chunking.cut(body))
}

fn level(level: Option<Level>) -> LogLevel {
    match level.unwrap_or(Level::Info) {
        Level::Trace => LogLevel::Trace,
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
        Level::Critical => LogLevel::Critical,
    }
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Critical => "critical",
    }
}

/// One test under way.
struct Run<'s> {
    suite: &'s Suite,
    test: &'s Test,
    logs: Vec<Line>,
    mismatches: Vec<Mismatch>,
    spelled: Spelled,
    trace: Option<Trace>,
}

impl Run<'_> {
    /// Runs it. The error is why it could not be run to its end.
    fn run(&mut self, path: &str) -> Result<(), String> {
        let (suite, test) = (self.suite, self.test);
        let mut session = match suite.session(test, level(suite.task.suite.env.log_level), true) {
            Ok(session) => session,
            Err((why, lines)) => {
                self.logs.extend(lines);
                return Err(why);
            }
        };
        let lines = session.root_lines();
        self.expect(&format!("{path}.plugin_init"), &lines, |check| check.log(&test.plugin_init))?;
        self.logs.extend(lines);

        let Some(stream) = session.open() else { return Err(self.failed(&mut session, "stream_init")) };
        let ran = self.stream(path, &mut session, &stream);
        self.trace = session.trace(&stream);
        ran
    }

    /// The callbacks of its stream, and the end of the plugin.
    fn stream(&mut self, path: &str, session: &mut Session, stream: &Stream) -> Result<(), String> {
        let (suite, test) = (self.suite, self.test);
        let lines = session.stream_lines(stream);
        self.expect(&format!("{path}.stream_init"), &lines, |check| check.log(&test.stream_init))?;
        self.logs.extend(lines);

        let mut answered = false;
        let sides = [
            (Direction::Request, &test.request_headers, &test.request_body, "request"),
            (Direction::Response, &test.response_headers, &test.response_body, "response"),
        ];
        for (direction, headers, bodies, side) in sides {
            if let Some(invocation) = headers {
                let phase = format!("{side}_headers");
                let given = suite
                    .headers(&invocation.input, direction)
                    .map_err(|why| format!("{path}.{phase}.input: {why}"))?;
                let outcome =
                    if answered { Some(Outcome::default()) } else { session.headers(stream, direction, &given) };
                let Some(outcome) = outcome else { return Err(self.dead(session, stream, &phase)) };
                answered |= outcome.reply.is_some();
                let names = outcome.headers.iter().map(|(name, _)| (name.to_ascii_lowercase(), name.clone()));
                self.spelled.extend(names);
                let lines = session.stream_lines(stream);
                self.expect(&format!("{path}.{phase}.result"), &lines, |check| {
                    check.headers(&invocation.result, &outcome)
                })?;
                self.logs.extend(lines);
            }
            for (number, invocation) in bodies.iter().enumerate() {
                let phase = format!("{side}_body[{number}]");
                self.body(session, stream, direction, invocation, (path, &phase), &mut answered)?;
            }
        }

        session.close(stream);
        if session.failed() {
            return Err(self.dead(session, stream, "stream_destroy"));
        }
        let lines = session.stream_lines(stream);
        self.expect(&format!("{path}.stream_destroy"), &lines, |check| check.log(&test.stream_destroy))?;
        self.logs.extend(lines);
        let stopped = session.stop();
        self.logs.extend(session.root_lines());
        if !stopped {
            return Err(self.failed(session, "plugin_destroy"));
        }
        self.logs.extend(session.host_lines());
        Ok(())
    }

    /// One body, as a whole or in chunks; what they become is looked at as one, and of the logs the last chunk's.
    fn body(
        &mut self,
        session: &mut Session,
        stream: &Stream,
        direction: Direction,
        invocation: &Invocation,
        (path, phase): (&str, &str),
        answered: &mut bool,
    ) -> Result<(), String> {
        let at = |why: String| format!("{path}.{phase}.input: {why}");
        let body = self.suite.body(&invocation.input).map_err(at)?;
        let chunks = cut(self.test.chunking, &body).map_err(at)?;
        let mut whole = Outcome::default();
        let mut lines = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            self.logs.append(&mut lines);
            if *answered {
                continue;
            }
            let end = number + 1 == chunks.len();
            let Some(outcome) = session.body(stream, direction, chunk, end) else {
                return Err(self.dead(session, stream, phase));
            };
            *answered |= outcome.reply.is_some();
            whole.reply = outcome.reply.or(whole.reply);
            whole.body.extend(outcome.body);
            lines = session.stream_lines(stream);
        }
        self.expect(&format!("{path}.{phase}.result"), &lines, |check| check.body(&invocation.result, &whole))?;
        self.logs.extend(lines);
        Ok(())
    }

    fn expect(
        &mut self,
        path: &str,
        lines: &[Line],
        f: impl FnOnce(&mut Checker<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let (folder, mismatches) = (&self.suite.task.folder, &mut self.mismatches);
        let mut checker = Checker { path, lines, folder, own: &|_| false, mismatches };
        f(&mut checker)
    }

    fn dead(&mut self, session: &mut Session, stream: &Stream, phase: &str) -> String {
        self.logs.extend(session.stream_lines(stream));
        self.failed(session, phase)
    }

    /// Why the VM failed, in the engine's words.
    fn failed(&mut self, session: &mut Session, phase: &str) -> String {
        let words = session.host_lines();
        let why = words.iter().rev().find(|(level, _)| *level >= LogLevel::Error);
        let why = why.map_or_else(|| "the VM failed".to_owned(), |(_, line)| line.clone());
        self.logs.extend(words.into_iter().filter(|(_, line)| *line != why));
        format!("{phase}: {why}")
    }
}
