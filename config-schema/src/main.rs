//! `plugwright-schema`: reads a list of questions from standard input and writes the list of answers, both as JSON.
//!
//! A program of its own, so that building a plugin never waits for a schema validator.

use std::io::{Read, Write};
use std::process::ExitCode;

use config_schema::{Answer, Question, check};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let questions: Vec<Question> = serde_json::from_slice(&text)?;
    let answers: Vec<Answer> = questions.iter().map(check).collect();
    serde_json::to_writer(std::io::stdout().lock(), &answers)?;
    Ok(())
}
