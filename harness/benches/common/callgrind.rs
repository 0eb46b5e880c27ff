//! This program run again in valgrind, to count instructions.

use std::process::Command;

/// Set in the process that is measured.
pub(crate) const INSIDE: &str = "--inside";

/// The instructions that this program executes with [`INSIDE`] and these arguments; what callgrind found goes to `file`.
#[expect(clippy::expect_used, reason = "a benchmark fails")]
pub(crate) fn counted(name: &str, requests: u32, file: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={file}")])
        .arg(std::env::current_exe().expect("this program"))
        .args([INSIDE, name, &requests.to_string()])
        .output()
        .expect("valgrind; apt-get install valgrind");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).unwrap_or_else(|| unreachable!("valgrind failed:\n{said}"))
}
