//! `cargo xtask test`.

mod chain;
mod envoy;
mod find;
mod update;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use suites::job::{Answer, Filter, Job, Kind, Task};
use suites::outcome::Suite;
use suites::plugin::Level;
use suites::report::{self, Style, Summary};

pub(super) use find::has_suites;

use super::build::ToolchainFlags;
use super::registry_flags::RegistryFlags;
use crate::report::{Failure, data, note};
use crate::{environment, handover};

/// Run declarative tests: suites beside plugins, or the given files.
///
/// A suite is a YAML, JSON or textproto file in a plugin's folder `tests`. docs/testing.md says what is in one. Suites of
/// Google's Service Extensions plugin tester run as they are, and its flags are known here.
#[derive(clap::Args)]
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
    #[arg(long, conflicts_with = "update")]
    envoy: bool,
    /// Write what was seen into the suites, where an exact value was expected and another was seen.
    #[arg(long)]
    update: bool,
    /// Measure the tests that say `benchmark: true`.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    bench: bool,
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

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let found = find::find(args)?;
    let job = Job {
        threads: args.threads.map(usize::from),
        filter: args.filter.clone(),
        timeout: Some(Duration::from_secs(args.timeout)),
        code_cache: Some(environment::cache()?.join("code")),
        bench: args.bench,
        envoy: envoy::program(args.envoy, &found)?,
        suites: found,
    };
    let answer = ask(&job)?;
    if job.filter.is_some() && answer.suites.iter().all(|suite| suite.cases.is_empty() && suite.problems.is_empty()) {
        return Err(Failure::usage("--filter: no test has such a name"));
    }
    let shown = logs(args, &job, &answer)?;
    if args.json {
        data(report::json(&answer).to_string());
    } else {
        let style = Style { colour: std::io::stdout().is_terminal(), logs: shown };
        data(report::text(&answer, style).trim_end());
    }
    if let Some(path) = &args.junit {
        write(path, report::junit(&answer).as_bytes())?;
    }
    if let Some(path) = &args.report {
        let title =
            if args.targets.is_empty() { "Tests".to_owned() } else { format!("Tests of {}", args.targets.join(", ")) };
        let data = serde_json::json!({"title": title, "suites": answer.suites});
        write(path, page::report(&data).as_bytes())?;
    }
    if args.update {
        return update::update(&answer);
    }
    let Summary { failed, broken, .. } = Summary::of(&answer);
    match failed + broken {
        0 => Ok(()),
        bad => Err(Failure::bad(format!("{bad} test{} did not pass", if bad == 1 { "" } else { "s" }))),
    }
}

/// Has the job done by the program with the engine.
fn ask(job: &Job) -> Result<Answer, Failure> {
    if !job.suites.iter().any(|task| !matches!(task.kind, Kind::Broken(_))) {
        // Nothing to run, so that nothing has to be built for it.
        let broken = |task: &Task| Suite {
            file: task.file.clone(),
            problems: if let Kind::Broken(problems) = &task.kind { problems.clone() } else { Vec::new() },
            cases: Vec::new(),
        };
        return Ok(Answer { suites: job.suites.iter().map(broken).collect() });
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

/// Under a temporary name, then renamed.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("failed to write {}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    if let Ok(old) = std::fs::metadata(path) {
        file.as_file().set_permissions(old.permissions()).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A thing that is odd, and is no reason to stop.
fn warn(message: impl std::fmt::Display) {
    note(format!("warning: {message}"));
}
