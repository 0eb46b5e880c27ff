//! Runs declarative tests: reads a [`Job`] on standard input and writes an [`Answer`] on standard output.

mod chain;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use harness::code_cache::CodeCache;
use harness::engine::{Engine, Limits};

use suites::job::{Answer, Job};
use suites::outcome::Suite;

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
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "chain") {
        return chains(arguments.next().map(PathBuf::from));
    }
    let _job: Job = serde_json::from_reader(std::io::stdin().lock())?;
    let answer = Answer::default();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Chain suites alone: files and what to run of each, for suites.
fn chains(code_cache: Option<PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    let work: Vec<(PathBuf, suites::chain::Task)> = serde_json::from_reader(std::io::stdin().lock())?;
    let mut engine = Engine::new(Limits::default())?;
    // Without the folder each run compiles.
    if let Some(cache) = code_cache.and_then(|folder| CodeCache::open(&folder).ok()) {
        engine = engine.with_code_cache(Arc::new(cache));
    }
    let suite = |(file, task)| Suite { cases: chain::run(&engine, &task), file };
    let suites: Vec<Suite> = work.into_iter().map(suite).collect();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &suites)?;
    out.write_all(b"\n")?;
    Ok(())
}
