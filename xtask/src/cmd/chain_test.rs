//! `cargo xtask chain-test`.

pub(crate) mod tasks;

use std::path::PathBuf;

use suites::chain::Task;
use suites::outcome::{Mismatch, Suite, Verdict};

use super::registry_flags::RegistryFlags;
use crate::report::{Failure, data, printable};
use crate::{environment, handover, input};

/// Run chain suites: HTTP exchanges through the filter chain that resources make, with scripted servers and a clock that
/// jumps.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Suites, in YAML or JSON (docs/chain-tests.md).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only tests with this in their names.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// What came of it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let chosen = |name: &str| args.filter.as_ref().is_none_or(|filter| name.contains(filter));
    let mut work: Vec<(PathBuf, Task)> = Vec::new();
    let mut mistakes = Vec::new();
    for file in &args.files {
        match tasks::read(&input::source(file)?) {
            Ok(suites) => {
                for suite in suites {
                    work.push((file.clone(), tasks::task(suite, file, &chosen, &args.registry)?));
                }
            }
            Err(found) => mistakes.extend(found),
        }
    }
    if !mistakes.is_empty() {
        return Err(Failure::bad(mistakes.join("\nerror: ")));
    }
    if work.iter().all(|(_, task)| task.tests.is_empty()) {
        return Err(Failure::usage("there is no such test"));
    }
    let failed = |error: serde_json::Error| Failure::environment(format!("failed to talk to the runner: {error}"));
    let input = serde_json::to_vec(&work).map_err(failed)?;
    let code_cache = environment::cache()?.join("code").into_os_string();
    let output = handover::answer_to("suite-runner", "plugwright-suites", vec!["chain".into(), code_cache], input)?;
    let suites: Vec<Suite> = serde_json::from_slice(&output).map_err(failed)?;
    if args.json {
        data(serde_json::to_string_pretty(&suites).map_err(failed)?);
    } else {
        report(&suites);
    }
    let cases = || suites.iter().flat_map(|suite| &suite.cases);
    match cases().filter(|case| case.verdict != Verdict::Passed).count() {
        0 => Ok(()),
        count => Err(Failure::bad(format!("{count} of {} tests did not pass", cases().count()))),
    }
}

fn report(suites: &[Suite]) {
    for suite in suites {
        data(printable(&suite.file.display().to_string()));
        for case in &suite.cases {
            match &case.verdict {
                Verdict::Passed => data(format!("  ok      {}", printable(&case.name))),
                Verdict::Broken(why) => {
                    data(format!("  BROKEN  {}", printable(&case.name)));
                    block("    ", why);
                }
                Verdict::Failed(mismatches) => {
                    data(format!("  FAILED  {}", printable(&case.name)));
                    mismatches.iter().for_each(mismatch);
                }
            }
        }
    }
}

fn mismatch(mismatch: &Mismatch) {
    let Mismatch { path, what, expected, actual } = mismatch;
    data(format!("    {}: {}", printable(path), printable(what)));
    block("      - ", expected);
    block("      + ", actual.as_deref().unwrap_or("(nothing)"));
}

fn block(margin: &str, text: &str) {
    for line in text.lines() {
        data(format!("{margin}{}", printable(line)));
    }
}
