//! How long a command takes, and how much memory at its peak.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::report::Failure;

/// One command's figures: the medians of several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) time: Duration,
    /// Peak resident memory in KiB, of the largest process.
    pub(super) memory: u64,
}

/// Run a command once, by the program `examples/measure.rs`. It is to succeed.
pub(super) fn once(measure: &Path, arguments: &[String], home: &Path) -> Result<Figures, Failure> {
    let shown = arguments.join(" ");
    let mut command = Command::new(measure);
    command.args(arguments).stdin(Stdio::null());
    // Nobody's own credentials or containers take part.
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home).env("DOCKER_CONFIG", home).env_remove("REGISTRY_AUTH_FILE");
    let output = command
        .output()
        .map_err(|error| Failure::environment(format!("failed to run {}: {error}", measure.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::environment(format!("`{shown}` failed: {}", said.trim())));
    }
    figures(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| Failure::environment(format!("`{shown}`: no figures for it")))
}

fn figures(text: &str) -> Option<Figures> {
    let (time, memory) = text.trim().split_once(' ')?;
    Some(Figures { time: Duration::from_nanos(time.parse().ok()?), memory: memory.parse().ok()? })
}

/// The medians, each of its own.
pub(super) fn median(runs: &[Figures]) -> Option<Figures> {
    let mut times: Vec<_> = runs.iter().map(|run| run.time).collect();
    let mut memory: Vec<_> = runs.iter().map(|run| run.memory).collect();
    times.sort();
    memory.sort_unstable();
    Some(Figures { time: *times.get(runs.len() / 2)?, memory: *memory.get(runs.len() / 2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_nanoseconds_and_kibibytes() {
        assert_eq!(figures("1500000 2048\n"), Some(Figures { time: Duration::from_micros(1500), memory: 2048 }));
        assert_eq!(figures("fast"), None);
    }

    #[test]
    fn medians_are_taken_of_time_and_memory_apart() {
        let run = |time, memory| Figures { time: Duration::from_secs(time), memory };
        assert_eq!(median(&[run(3, 10), run(1, 30), run(2, 20)]), Some(run(2, 20)));
        assert_eq!(median(&[run(9, 10), run(1, 5), run(2, 7)]), Some(run(2, 7)));
        assert_eq!(median(&[]), None);
    }
}
