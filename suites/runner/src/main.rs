//! Runs declarative tests: reads a [`Job`] on standard input and writes an [`Answer`] on standard output.

mod chain;
mod envoy;
mod plugin;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use harness::code_cache::CodeCache;
use harness::coverage::Coverage;
use harness::engine::{Engine, Limits};
use suites::job::{Answer, Filter, Job, Kind, Task};
use suites::outcome::{Case, Suite};

use envoy::Program;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(3)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let job: Job = serde_json::from_reader(std::io::stdin().lock())?;
    let mut limits = Limits::default();
    if let Some(timeout) = job.timeout {
        limits = Limits { callback: timeout, startup: timeout, ..limits };
    }
    let mut engine = Engine::new(limits)?;
    if let Some(folder) = &job.code_cache {
        match CodeCache::open(folder) {
            Ok(cache) => engine = engine.with_code_cache(Arc::new(cache)),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "compiled modules are not kept: {error}");
            }
        }
    }
    let coverage = job.coverage.then(|| Arc::new(Coverage::default()));
    if let Some(coverage) = &coverage {
        engine = engine.with_coverage(coverage.clone());
    }
    let mut answer = answer(&job, &engine);
    if let Some(coverage) = coverage {
        answer.reached = coverage.collected();
    }
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// A suite whose tests can be run, in any order and from any thread.
enum Suites<'a> {
    Plugin(Box<plugin::Suite>),
    Chain(chain::Suite<'a>),
    Broken(Vec<String>),
}

impl<'a> Suites<'a> {
    fn prepare(task: &'a Task, job: &Job, engine: &'a Engine, modules: &plugin::Modules) -> Self {
        match &task.kind {
            Kind::Plugin(task) => Self::Plugin(Box::new(plugin::Suite::prepare(task, job, modules))),
            Kind::Chain(task) => Self::Chain(chain::Suite::prepare(engine, task)),
            Kind::Broken(problems) => Self::Broken(problems.clone()),
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Plugin(suite) => suite.names(),
            Self::Chain(suite) => suite.names(),
            Self::Broken(_) => Vec::new(),
        }
    }

    fn run(&self, test: usize, envoy: Option<&Program>) -> Option<Case> {
        match self {
            Self::Plugin(suite) => suite.run(test, envoy),
            Self::Chain(suite) => suite.run(test, envoy),
            Self::Broken(_) => None,
        }
    }
}

fn answer(job: &Job, engine: &Engine) -> Answer {
    let modules = plugin::Modules::new(engine, job);
    // A callback may take that long there, too; the rest is for what is around it on a busy machine.
    let patience = job.timeout.unwrap_or_default() + Duration::from_secs(5);
    let envoy = job.envoy.clone().map(|path| Program { path, patience });
    let prepared: Vec<Suites<'_>> =
        job.suites.iter().map(|task| Suites::prepare(task, job, engine, &modules)).collect();
    let mut work = Vec::new();
    for (at, suite) in prepared.iter().enumerate() {
        let names = suite.names();
        let all = vec![true; names.len()];
        let chosen = job.filter.as_ref().map_or(all, |filter: &Filter| filter.chosen(names));
        work.extend(chosen.iter().enumerate().filter(|(_, chosen)| **chosen).map(|(test, _)| (at, test)));
    }
    let results: Vec<OnceLock<Case>> = work.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = job.threads.unwrap_or(processors).clamp(1, work.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((&(suite, test), result)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    work.get(at).zip(results.get(at))
                } {
                    if let Some(case) = prepared.get(suite).and_then(|suite| suite.run(test, envoy.as_ref())) {
                        let _ = result.set(case);
                    }
                }
            });
        }
    });
    let mut suites: Vec<Suite> = job
        .suites
        .iter()
        .zip(&prepared)
        .map(|(task, suite)| Suite {
            file: task.file.clone(),
            problems: if let Suites::Broken(problems) = suite { problems.clone() } else { Vec::new() },
            ..Suite::default()
        })
        .collect();
    for ((at, _), result) in work.iter().zip(results) {
        if let (Some(suite), Some(case)) = (suites.get_mut(*at), result.into_inner()) {
            suite.cases.push(case);
        }
    }
    Answer { suites, ..Answer::default() }
}
