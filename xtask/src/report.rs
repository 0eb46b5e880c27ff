//! How a command ends badly: message, hint and exit code, all on standard error.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use crate::environment;

/// A command's failure. It becomes `error: MESSAGE`, a blank line, `hint: …`, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The thing that was checked or built is bad (exit 1).
    pub(crate) fn bad(error: impl Into<Box<dyn Error>>) -> Self {
        Self::new(1, error)
    }

    /// The command was called wrongly (exit 2).
    pub(crate) fn usage(error: impl Into<Box<dyn Error>>) -> Self {
        Self::new(2, error)
    }

    /// The machine or the network is in the way (exit 3).
    pub(crate) fn environment(error: impl Into<Box<dyn Error>>) -> Self {
        Self::new(3, error)
    }

    fn new(code: u8, error: impl Into<Box<dyn Error>>) -> Self {
        Self { code, message: chain(&*error.into()), hint: None }
    }

    /// Add what to do next: a command to run, or a sentence.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Add what to do next, where there is something to say.
    #[must_use]
    pub(crate) fn hints(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Put what was being done before the message.
    #[must_use]
    pub(crate) fn context(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The message and the hint, for who does not read standard error.
    pub(crate) fn text(&self) -> String {
        self.hint
            .as_ref()
            .map_or_else(|| self.message.clone(), |hint| format!("{}\n\nhint: {}", self.message, as_called(hint)))
    }

    /// Print it and give its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        note(format!("error: {}", self.message));
        if let Some(hint) = &self.hint {
            note(format!("\nhint: {}", as_called(hint)));
        }
        ExitCode::from(self.code)
    }
}

/// The error and its causes in one line, leaving out a cause whose text its parent already ends with.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

/// A note for the person at the terminal, on standard error. Much of it quotes what others have written.
pub(crate) fn note(message: impl AsRef<str>) {
    let lines: Vec<String> = message.as_ref().split('\n').map(printable).collect();
    // Nobody is left to be told that nobody is left.
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

/// A line of data, on standard output.
///
/// A reader that has had enough, such as `head`, is no failure: the command ends as it would have. Data that cannot be
/// written for another reason ends it here, with exit code 3.
pub(crate) fn data(line: impl AsRef<str>) {
    match writeln!(std::io::stdout(), "{}", line.as_ref()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            note(format!("error: failed to write to standard output: {error}"));
            std::process::exit(3);
        }
        _ => {}
    }
}

/// How this program was called, for commands that are suggested to the reader.
pub(crate) fn program() -> &'static str {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "plugwright") {
        "cargo plugwright"
    } else if environment::runs_from_checkout() {
        "cargo xtask"
    } else {
        "cargo-plugwright"
    }
}

/// A hint with its commands as this program was called: libraries know one name for it.
fn as_called(hint: &str) -> String {
    hint.replace("`cargo xtask ", &format!("`{} ", program()))
}

/// Text that others have written, without what a terminal would obey or that would reorder the line.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        let obeyed = character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        match character {
            '\n' => printable.push(' '),
            _ if obeyed => printable.extend(character.escape_default()),
            _ => printable.push(character),
        }
    }
    printable
}
