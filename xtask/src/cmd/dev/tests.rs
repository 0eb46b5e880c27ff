//! The plugin's tests, which run once it is served and give way to the next change.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::super::test::has_suites;
use super::super::watch::Happened;
use super::milliseconds;
use super::project::{Project, without_colours};
use crate::{environment, handover};

/// How much of what tests say is shown on the page: its end.
const MOST_OUTPUT: usize = 64 << 10;

/// Tests that are running.
pub(super) struct Running(Arc<Mutex<Under>>);

/// What is under way.
#[derive(Default)]
struct Under {
    group: Option<Pid>,
    stopped: bool,
}

impl Running {
    /// Starts the native tests of a plugin that is a crate, and after them the suites beside it. What came of them is
    /// sent, with this number. Nothing is started where there are none.
    pub(super) fn start(project: &Project, number: u64, sender: Sender<Happened>) -> std::io::Result<Option<Self>> {
        let mut commands = Vec::new();
        if project.is_crate() {
            let mut native = Command::new(environment::cargo());
            native.args(["test", "--quiet", "--package", &project.plugin.name]);
            commands.push(native);
        }
        let folder = project.plugin.root.join("tests");
        if has_suites(&folder) {
            let mut suites = Command::new(std::env::current_exe()?);
            suites.arg("test").arg(folder).arg("--plugin").arg(project.module());
            commands.push(suites);
        }
        if commands.is_empty() {
            return Ok(None);
        }
        for command in &mut commands {
            handover::forget_package(command);
            command.current_dir(&project.root).process_group(0);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let under = Arc::new(Mutex::new(Under::default()));
        let running = Self(under.clone());
        std::thread::spawn(move || {
            let began = Instant::now();
            let (mut passed, mut all) = (true, String::new());
            for command in &mut commands {
                match finished(command, &under) {
                    Ok(output) => {
                        passed &= output.status.success();
                        all.extend(
                            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()),
                        );
                    }
                    Err(error) => (passed, all) = (false, all + &error.to_string()),
                }
            }
            // Nobody is left to be told when everything ends.
            let _ = sender.send(Happened::Known(number, "tests", summary(passed, &all, milliseconds(began))));
        });
        Ok(Some(running))
    }

    /// Ends them, and whatever they have started.
    pub(super) fn stop(self) {
        let mut under = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        under.stopped = true;
        if let Some(group) = under.group.take() {
            // It may have ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a command to its end, or until everything is stopped.
fn finished(command: &mut Command, under: &Mutex<Under>) -> std::io::Result<Output> {
    let lock = || under.lock().unwrap_or_else(PoisonError::into_inner);
    let child = {
        let mut under = lock();
        if under.stopped {
            return Err(std::io::Error::other("stopped"));
        }
        let child = command.spawn()?;
        under.group = Some(Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?));
        child
    };
    let output = child.wait_with_output();
    lock().group = None;
    output
}

/// What is shown of a run.
fn summary(passed: bool, output: &str, took_ms: u64) -> Value {
    let output = without_colours(output);
    let counted = |word: &str| -> u64 {
        let native = output.lines().filter_map(|line| line.strip_prefix("test result: "));
        let suites =
            output.lines().filter_map(|line| line.split_once(" tests: ").or_else(|| line.split_once(" test: ")));
        let suites = suites.filter(|(count, _)| count.parse::<u64>().is_ok()).map(|(_, results)| results);
        let counts = native
            .chain(suites)
            .flat_map(|line| line.split(['.', ';', ',']))
            .filter_map(|part| part.trim().strip_suffix(word));
        counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum()
    };
    let start = output.len().saturating_sub(MOST_OUTPUT);
    let shown = output.get(output.ceil_char_boundary(start)..).unwrap_or_default();
    json!({
        "state": if passed { "passed" } else { "failed" },
        "passed": counted("passed"),
        "failed": counted("failed") + counted("broken"),
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
                      test result: FAILED. 4 passed; 2 failed; 0 ignored\n\
                      5 tests: 1 passed, 3 failed, 1 broken\n";
        let value = summary(false, output, 5);
        assert_eq!((&value["passed"], &value["failed"], &value["state"]), (&8.into(), &6.into(), &"failed".into()));
    }
}
