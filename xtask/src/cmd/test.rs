//! `cargo xtask test`.

mod chain;
mod coverage;
mod envoy;
mod find;
mod schema;
mod update;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use suites::coverage::Coverage;
use suites::job::{Answer, Filter, Job, Kind, Task};
use suites::outcome::Suite;
use suites::plugin::Level;
use suites::report::{self, Style, Summary};

pub(super) use find::has_suites;

use coverage::{Builds, Notes};

use super::build::ToolchainFlags;
use super::registry_flags::RegistryFlags;
use crate::output::{self, Readers};
use crate::report::{Failure, data, note};
use crate::{environment, handover};

/// Run declarative tests: suites beside plugins, or the given files.
///
/// A suite is a YAML, JSON or textproto file in a plugin's folder `tests`. docs/testing.md says what is in one. Suites of
/// Google's Service Extensions plugin tester run as they are, and its flags are known here.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub(crate) struct Args {
    /// Plugins whose suites are run, suites, or folders of them; all plugins of the workspace by default.
    #[arg(value_name = "PLUGIN|FILE")]
    targets: Vec<String>,
    /// A suite; the tester's name for it.
    #[arg(long, hide = true, value_name = "FILE")]
    proto: Vec<String>,
    /// A suite; the tester's name for it.
    #[arg(long, hide = true, value_name = "FILE")]
    yaml: Vec<String>,
    /// Only tests whose name has this in it, or matches it as a regular expression between slashes: `/^Denies/`.
    #[arg(long, value_name = "TEXT", value_parser = Filter::parse)]
    filter: Option<Filter>,
    /// Tests that run at a time; by default one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// The longest that a callback may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Print the results as one JSON document.
    #[arg(long)]
    json: bool,
    /// Write the results as XML, as CI services read it from `JUnit`.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the results as a page that needs no server: what was expected and seen, logs, and the trace of each request.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Run every test in a real Envoy as well, and fail where it does something else than the harness: the one that $ENVOY
    /// names, else the one on the path, else one that is fetched. docs/testing.md says what is not run there.
    #[arg(long, conflicts_with_all = ["update", "coverage"])]
    envoy: bool,
    /// Say which functions of the plugins no test has reached: the plugins' own, or with `=all` those of libraries, too.
    /// The modules are built with names for it.
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "own")]
    coverage: Option<Which>,
    /// Write which source lines were reached, as LCOV's tracefile.
    #[arg(long, value_name = "FILE", requires = "coverage")]
    coverage_out: Option<PathBuf>,
    /// Fail when of any plugin's functions fewer percent were reached.
    #[arg(long, value_name = "PERCENT", requires = "coverage", value_parser = percent)]
    coverage_min: Option<f64>,
    /// Write what was seen into the suites, where an exact value was expected and another was seen.
    #[arg(long)]
    update: bool,
    /// Measure the tests that say `benchmark: true`.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    bench: bool,
    /// Not to measure; the tester's name for what is so anyway.
    #[arg(long, hide = true, overrides_with = "bench")]
    nobench: bool,
    /// Only to measure; the tester's name for it.
    #[arg(long, hide = true, requires = "bench")]
    notest: bool,
    /// Take this module instead of the suites' own.
    #[arg(long, alias = "plugin_override", value_name = "WASM")]
    plugin: Option<PathBuf>,
    /// Take this plugin configuration instead of the suites' own.
    #[arg(long, alias = "config_override", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The least level that counts as logged, instead of the suites' own.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    loglevel: Option<Level>,
    /// Append what plugins log to this file; /dev/stdout shows it beside each test.
    #[arg(long, value_name = "FILE")]
    logfile: Option<PathBuf>,
    /// Streams that are open beside the one that is measured.
    #[arg(long, alias = "num_additional_streams", value_name = "N")]
    num_additional_streams: Option<u64>,
    #[command(flatten)]
    toolchain: ToolchainFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

fn level(text: &str) -> Result<Level, String> {
    Level::named(text).ok_or_else(|| format!("there are {}", Level::ALL.map(|(name, _)| name).join(", ")))
}

/// Whose functions are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The plugins' own.
    Own,
    /// All that are in the modules.
    All,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| "a number from 0 to 100 is expected".to_owned())
}

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    if args.toolchain.manifest_path.is_none() {
        args.toolchain.manifest_path = find::project(&args);
    }
    let args = &args;
    let builds = Builds::new(&args.toolchain, args.coverage.is_some());
    let mut found = find::find(args, &builds)?;
    if args.notest {
        found.retain_mut(|task| only_benchmarks(&mut task.kind));
    }
    let mut job = Job {
        threads: args.threads.map(usize::from),
        filter: args.filter.clone(),
        timeout: Some(Duration::from_secs(args.timeout)),
        code_cache: Some(environment::cache()?.join("code")),
        bench: args.bench && !args.nobench,
        envoy: envoy::program(args.envoy, &found)?,
        coverage: args.coverage.is_some(),
        suites: found,
    };
    let notes = match args.coverage {
        Some(_) => Some(Notes::taken_by(&mut job, &builds, args.coverage_out.is_some())?),
        None => None,
    };
    let mut answer = ask(&job)?;
    if let Err(failure) = schema::warn(&job, &builds, &args.registry, &mut answer.suites) {
        // The results are worth more than what they are compared with besides.
        warn(format!("configurations are not compared with their plugins' schemas: {}", failure.text()));
    }
    if job.filter.is_some() && answer.suites.iter().all(|suite| suite.cases.is_empty() && suite.problems.is_empty()) {
        return Err(Failure::usage("--filter: no test has such a name"));
    }
    let shown = logs(args, &job, &answer)?;
    let coverage = notes.as_ref().map(|notes| notes.coverage(&answer.reached, args.coverage == Some(Which::All)));
    if args.json {
        let mut report = report::json(&answer);
        if let (Some(coverage), Some(report)) = (&coverage, report.as_object_mut()) {
            let coverage = coverage.iter().map(report::coverage::json).collect::<Vec<_>>();
            report.insert("coverage".to_owned(), coverage.into());
        }
        data(report.to_string());
    } else {
        let style = Style { colour: std::io::stdout().is_terminal(), logs: shown };
        data(report::text(&answer, style).trim_end());
        if let Some(coverage) = coverage.as_deref().filter(|coverage| !coverage.is_empty()) {
            data(report::coverage::text(coverage).trim_end());
        }
    }
    if let (Some(path), Some(coverage)) = (&args.coverage_out, &coverage) {
        if coverage.iter().all(|coverage| coverage.files.is_empty()) {
            warn("--coverage-out: no module says which source lines its code is of; it has to keep its DWARF sections");
        }
        output::write(path, report::coverage::lcov(coverage).as_bytes(), Readers::AsBefore)?;
    }
    if let Some(path) = &args.junit {
        let by_suite = notes.as_ref().zip(coverage.as_deref()).map(|(notes, coverage)| notes.by_suite(coverage));
        let xml = report::junit(&answer, &by_suite.unwrap_or_default());
        output::write(path, xml.as_bytes(), Readers::AsBefore)?;
    }
    if let Some(path) = &args.report {
        let title =
            if args.targets.is_empty() { "Tests".to_owned() } else { format!("Tests of {}", args.targets.join(", ")) };
        let coverage = coverage.iter().flatten().map(report::coverage::json).collect::<Vec<_>>();
        let data = serde_json::json!({"title": title, "suites": answer.suites, "coverage": coverage});
        output::write(path, page::report(&data).as_bytes(), Readers::AsBefore)?;
    }
    if args.update {
        return update::update(&answer);
    }
    let Summary { failed, broken, .. } = Summary::of(&answer);
    match failed + broken {
        0 => enough(args.coverage_min, coverage.as_deref().unwrap_or_default()),
        bad => Err(Failure::bad(format!("{bad} test{} did not pass", if bad == 1 { "" } else { "s" }))),
    }
}

/// Leaves out what is no benchmark. Whether anything is left.
fn only_benchmarks(kind: &mut Kind) -> bool {
    match kind {
        Kind::Plugin(plugin) => {
            plugin.suite.tests.retain(|test| test.benchmark);
            !plugin.suite.tests.is_empty()
        }
        Kind::Chain(_) => false,
        Kind::Broken(_) => true,
    }
}

/// Whether of each plugin so many percent were reached.
fn enough(least: Option<f64>, coverage: &[Coverage]) -> Result<(), Failure> {
    let Some(least) = least else { return Ok(()) };
    if coverage.is_empty() {
        return Err(Failure::bad(format!("the coverage is under {least} %: no module was run")));
    }
    let under = coverage.iter().filter(|coverage| !coverage.is_at_least(least)).map(|one| one.plugin.as_str());
    let under: Vec<&str> = under.collect();
    if under.is_empty() {
        return Ok(());
    }
    Err(Failure::bad(format!("the coverage of {} is under {least} %", under.join(", "))))
}

/// Has the job done by the program with the engine.
fn ask(job: &Job) -> Result<Answer, Failure> {
    if !job.suites.iter().any(|task| !matches!(task.kind, Kind::Broken(_))) {
        // Nothing to run, so that nothing has to be built for it.
        let broken = |task: &Task| Suite {
            file: task.file.clone(),
            problems: if let Kind::Broken(problems) = &task.kind { problems.clone() } else { Vec::new() },
            ..Suite::default()
        };
        return Ok(Answer { suites: job.suites.iter().map(broken).collect(), ..Answer::default() });
    }
    let failed = |error: serde_json::Error| Failure::environment(format!("failed to talk to the test runner: {error}"));
    let input = serde_json::to_vec(job).map_err(failed)?;
    let output = handover::answer("suite-runner", "plugwright-suites", input)?;
    serde_json::from_slice(&output).map_err(failed)
}

/// Writes log lines where a suite or the command line wants them. Whether they are to be shown with the tests.
fn logs(args: &Args, job: &Job, answer: &Answer) -> Result<bool, Failure> {
    let mut shown = false;
    for (task, suite) in job.suites.iter().zip(&answer.suites) {
        let Kind::Plugin(plugin) = &task.kind else { continue };
        let own = plugin.suite.env.log_path.as_ref().map(PathBuf::from);
        let Some(path) = args.logfile.clone().or(own) else { continue };
        if [Path::new("/dev/stdout"), Path::new("/dev/stderr")].contains(&&*path) {
            shown = true;
            continue;
        }
        let mut text = String::new();
        for case in &suite.cases {
            text.extend(["--- ", &case.name, "\n"]);
            for line in &case.logs {
                text.push_str(line);
                text.push('\n');
            }
        }
        let failed = |error| Failure::environment(format!("failed to write the log {}: {error}", path.display()));
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    Ok(shown)
}

/// A thing that is odd, and is no reason to stop.
fn warn(message: impl std::fmt::Display) {
    note(format!("warning: {message}"));
}
