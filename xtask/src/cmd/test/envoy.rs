//! The Envoy that `test --envoy` runs suites in.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use suites::job::{Kind, Task};

use super::warn;
use crate::report::{Failure, note};
use crate::tools;

/// Finds or fetches it, and has it say what it is, so that a program that is none is told from one that refuses a chain.
/// None: it is not wanted, or there is nothing to run.
pub(super) fn program(wanted: bool, tasks: &[Task]) -> Result<Option<PathBuf>, Failure> {
    if !wanted || tasks.iter().all(|task| matches!(task.kind, Kind::Broken(_))) {
        return Ok(None);
    }
    let program = crate::cmd::envoy::program()?;
    let shown = program.display();
    let hint =
        || format!("unset ENVOY to have Envoy {} fetched, or name one: ENVOY=/usr/local/bin/envoy", tools::ENVOY);
    let said = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
    let said = said.map_err(|error| Failure::environment(format!("failed to run {shown}: {error}")).hint(hint()))?;
    let text = String::from_utf8_lossy(&said.stdout);
    // COMMIT/VERSION/STATE/BUILD/TLS
    let version = text.split_whitespace().last().and_then(|version| version.split('/').nth(1));
    let Some(version) = version.filter(|_| said.status.success()) else {
        return Err(Failure::environment(format!("{shown} does not say which Envoy it is")).hint(hint()));
    };
    note(format!("beside Envoy {version}, {shown}"));
    if version != tools::ENVOY {
        warn(format!("the harness does what Envoy {} does, and this is another one", tools::ENVOY));
    }
    Ok(Some(program))
}
