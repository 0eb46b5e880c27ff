//! What Envoy logs, line by line, as it comes.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

/// How Envoy is told to write lines.
pub(crate) const FORMAT: &str = "[[%t|%l|%n]] %v";
/// How it is told to write of each request; its details are what follows.
pub(crate) const ACCESS: &str = "[[0|access|access]] %RESPONSE_CODE_DETAILS%\n";

/// What is kept of a log, in bytes: a plugin may log without an end.
const MAX_LOG: usize = 64 << 20;

/// A line, or several of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) thread: String,
    /// As Envoy names it; `access` for a request that is over.
    pub(crate) level: String,
    pub(crate) logger: String,
    pub(crate) text: String,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let (head, text) = text.strip_prefix("[[")?.split_once("]] ")?;
        let mut head = head.split('|').map(str::to_owned);
        Some(Self { thread: head.next()?, level: head.next()?, logger: head.next()?, text: text.to_owned() })
    }

    /// Everything is in place, on the main thread.
    pub(crate) fn is_start(&self) -> bool {
        self.text.contains("all dependencies initialized. starting workers")
    }

    /// Of a crash: where it was.
    pub(super) fn is_backtrace(&self) -> bool {
        self.logger == "backtrace" && !self.text.starts_with("Caught ")
    }

    pub(crate) fn is_access(&self) -> bool {
        self.level == "access"
    }
}

/// A log that is written while it is read.
pub(crate) struct Log {
    kept: Mutex<Vec<Line>>,
    /// How many lines there are, and whether that is all.
    grown: watch::Sender<(usize, bool)>,
}

impl Log {
    pub(super) fn of(stderr: Option<ChildStderr>) -> Arc<Self> {
        let log = Arc::new(Self { kept: Mutex::default(), grown: watch::channel((0, stderr.is_none())).0 });
        if let Some(stderr) = stderr {
            let log = log.clone();
            std::thread::spawn(move || log.collect(BufReader::new(stderr)));
        }
        log
    }

    fn collect(&self, mut reader: impl BufRead) {
        let (mut line, mut all) = (Vec::new(), 0);
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) && all < MAX_LOG {
            all += line.len();
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            let count = {
                let mut kept = self.lines();
                match (Line::parse(&text), kept.last_mut()) {
                    (Some(parsed), _) => kept.push(parsed),
                    (None, Some(last)) => {
                        last.text.push('\n');
                        last.text.push_str(&text);
                    }
                    (None, None) => {}
                }
                kept.len()
            };
            self.grown.send_replace((count, false));
        }
        self.grown.send_modify(|(_, ended)| *ended = true);
    }

    pub(crate) fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lines().len()
    }

    /// What the first line has that has it.
    pub(super) fn find<T>(&self, find: impl FnMut(&Line) -> Option<T>) -> Option<T> {
        self.lines().iter().find_map(find)
    }

    /// Whether Envoy will say nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.grown.borrow().1
    }

    /// Waits until the lines are so; they are not when Envoy ends before, or by then.
    pub(crate) async fn until(&self, deadline: Instant, mut are_so: impl FnMut(&[Line]) -> bool) -> bool {
        let mut grown = self.grown.subscribe();
        loop {
            let ended = grown.borrow_and_update().1;
            if are_so(&self.lines()) {
                return true;
            }
            if ended || !matches!(tokio::time::timeout_at(deadline.into(), grown.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// Waits until there are more lines than so many, or the last of them.
    pub(crate) async fn change(&self, since: usize) {
        let mut grown = self.grown.subscribe();
        // It is over when the sender is gone.
        let _ = grown.wait_for(|(count, ended)| *count > since || *ended).await;
    }

    /// Waits until Envoy has nothing more to say; whether that came in time.
    pub(super) async fn until_end(&self, deadline: Instant) -> bool {
        let mut grown = self.grown.subscribe();
        matches!(tokio::time::timeout_at(deadline.into(), grown.wait_for(|(_, ended)| *ended)).await, Ok(Ok(_)))
    }
}
