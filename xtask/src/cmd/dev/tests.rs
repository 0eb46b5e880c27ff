//! The plugin's tests, which run once it is served and give way to the next change.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::super::watch::Happened;
use super::milliseconds;
use super::project::{Project, without_colours};
use crate::{environment, handover};

/// How much of what tests say is shown on the page: its end.
const MOST_OUTPUT: usize = 64 << 10;

/// Tests that are running.
pub(super) struct Running {
    group: Pid,
}

impl Running {
    /// Starts the plugin's native tests. What came of them is sent, with this number.
    pub(super) fn start(project: &Project, number: u64, sender: Sender<Happened>) -> std::io::Result<Self> {
        let mut command = Command::new(environment::cargo());
        command.current_dir(&project.workspace.root).args(["test", "--quiet", "--package", &project.plugin.name]);
        handover::forget_package(&mut command);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let child = command.spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
        std::thread::spawn(move || {
            let value = match child.wait_with_output() {
                Ok(output) => {
                    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
                    summary(output.status.success(), &text.concat(), milliseconds(began))
                }
                Err(error) => summary(false, &error.to_string(), milliseconds(began)),
            };
            // Nobody is left to be told when everything ends.
            let _ = sender.send(Happened::Known(number, "tests", value));
        });
        Ok(Self { group })
    }

    /// Ends them, and whatever they have started.
    pub(super) fn stop(self) {
        // They may have ended by themselves.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// What is shown of a run.
fn summary(passed: bool, output: &str, took_ms: u64) -> Value {
    let output = without_colours(output);
    let counted = |word: &str| -> u64 {
        let results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
        let counts = results.flat_map(|line| line.split(['.', ';'])).filter_map(|part| part.trim().strip_suffix(word));
        counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum()
    };
    let start = output.len().saturating_sub(MOST_OUTPUT);
    let shown = output.get(output.ceil_char_boundary(start)..).unwrap_or_default();
    json!({
        "state": if passed { "passed" } else { "failed" },
        "passed": counted("passed"),
        "failed": counted("failed"),
        "took_ms": took_ms,
        // What passed has nothing to say.
        "output": if passed { "" } else { shown },
    })
}

#[cfg(test)]
mod counts {
    use super::summary;

    #[test]
    fn results_of_all_test_binaries_are_added() {
        let output = "\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 4 passed; 2 failed; 0 ignored\n";
        let value = summary(false, output, 5);
        assert_eq!((&value["passed"], &value["failed"], &value["state"]), (&7.into(), &2.into(), &"failed".into()));
    }
}
