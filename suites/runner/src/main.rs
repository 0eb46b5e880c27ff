//! Runs declarative tests: reads a [`Job`] on standard input and writes an [`Answer`] on standard output.

mod chain;

use std::io::Write as _;
use std::process::ExitCode;

use suites::job::{Answer, Job};

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
    let _job: Job = serde_json::from_reader(std::io::stdin().lock())?;
    let answer = Answer::default();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    out.write_all(b"\n")?;
    Ok(())
}
