//! The engine's own command: reads a plan, serves its chain.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::{Chain, ChainError};
use harness::engine::{Engine, EngineError, Limits};
use harness::log::{RequestSummary, Sink};
use harness::server::{Options, ServeError, Server};
use mesh::plan::Plan;
use time::OffsetDateTime;

const USAGE: &str = "\
usage: plugwright-harness serve [--quiet] [--log-level LEVEL]

Reads a plan as JSON on stdin and serves its chain. Once it serves, it prints one line on stdout:
listening on http://ADDRESS. SIGTERM and SIGINT drain and exit 0.

  --quiet            no line per request on stderr
  --log-level LEVEL  least severe plugin log to show: trace, debug, info (default), warning, error, critical

exit status: 0 served and drained, 1 a plugin or its configuration was refused, 2 usage, 3 environment
";

/// What went wrong, by who has to mend it.
enum Failure {
    Refused(Box<dyn std::error::Error>),
    Usage(String),
    Environment(Box<dyn std::error::Error>),
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Source { .. } => Self::Environment(error.into()),
            refused => Self::Refused(refused.into()),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Plugin { .. } | ServeError::Filter { .. } => Self::Refused(error.into()),
            ServeError::Upstream { .. } => Self::Usage(error.to_string()),
            environment => Self::Environment(environment.into()),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Environment(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Environment(error.into())
    }
}

struct Arguments {
    quiet: bool,
    log_level: LogLevel,
}

fn arguments() -> Result<Option<Arguments>, Failure> {
    let mut given = std::env::args().skip(1);
    match given.next().as_deref() {
        Some("serve") => {}
        Some("--help" | "-h" | "help") => return Ok(None),
        Some(other) => return Err(Failure::Usage(format!("unknown subcommand `{other}`"))),
        None => return Err(Failure::Usage("a subcommand is missing".to_owned())),
    }
    let mut arguments = Arguments { quiet: false, log_level: LogLevel::Info };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quiet" => arguments.quiet = true,
            "--log-level" => {
                arguments.log_level = given.next().as_deref().and_then(level).ok_or_else(|| {
                    Failure::Usage("`--log-level` takes one of trace, debug, info, warning, error, critical".to_owned())
                })?;
            }
            "--help" | "-h" => return Ok(None),
            other => return Err(Failure::Usage(format!("unknown argument `{other}`"))),
        }
    }
    Ok(Some(arguments))
}

fn level(name: &str) -> Option<LogLevel> {
    (0..=5).filter_map(LogLevel::from_u32).find(|level| level.as_str() == name)
}

/// Everything a person reads goes to stderr.
fn say(line: &str) {
    // There is nobody to tell when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

struct Stderr {
    quiet: bool,
}

impl Sink for Stderr {
    fn log(&self, level: LogLevel, line: &str) {
        say(&format!("[{}][{}][wasm] {}", timestamp(OffsetDateTime::now_utc()), level.as_str(), escape(line)));
    }

    fn script(&self, level: LogLevel, line: &str) {
        say(&format!("[{}][{}][lua] {}", timestamp(OffsetDateTime::now_utc()), level.as_str(), escape(line)));
    }

    fn request(&self, request: &RequestSummary<'_>) {
        if self.quiet {
            return;
        }
        let status = request.status.map_or_else(|| "reset".to_owned(), |status| status.to_string());
        let by = request.answered_by.map_or_else(String::new, |filter| format!(" by {filter}"));
        let took = request.duration.as_secs_f64() * 1e3;
        // A query may carry a token; the path is enough to tell requests apart.
        let path = request.path.split_once('?').map_or_else(|| escape(request.path), |(path, _)| escape(path) + "?…");
        let method = escape(request.method);
        say(&format!("{method} {path} → {status}{by} ({}) {took:.1} ms", escape(request.details)));
    }
}

/// A guest's text cannot move the terminal's cursor or begin a line of its own.
fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// `YYYY-MM-DD HH:MM:SS.mmm` in UTC, as Envoy's log has it.
fn timestamp(now: OffsetDateTime) -> String {
    let (hour, minute, second, millisecond) = now.to_hms_milli();
    format!("{} {hour:02}:{minute:02}:{second:02}.{millisecond:03}", now.date())
}

/// Says that modules are being compiled, to a person who has been waiting for a second.
struct Progress(Arc<AtomicBool>);

impl Progress {
    fn start() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        if std::io::stderr().is_terminal() {
            let done = done.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(1));
                if !done.load(Ordering::Relaxed) {
                    say("compiling modules…");
                }
            });
        }
        Self(done)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn run() -> Result<(), Failure> {
    let Some(arguments) = arguments()? else {
        std::io::stdout().write_all(USAGE.as_bytes())?;
        return Ok(());
    };
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let plan: Plan =
        serde_json::from_str(&input).map_err(|error| Failure::Usage(format!("the plan on stdin: {error}")))?;
    let sink = Arc::new(Stderr { quiet: arguments.quiet });
    let engine = Engine::new(Limits::default())?;
    let progress = Progress::start();
    let chain = Chain::load(&engine, &plan.chain, &plan, &plan.host_env, sink, arguments.log_level)?;
    drop(progress);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // Registered before anything is served: a signal that comes early must drain, not kill.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let options = Options {
            upstream: plan.upstream,
            clusters: plan.clusters,
            workers: plan.workers,
            ..Options::listen_on(plan.listen)
        };
        let server = Server::start(chain, options)?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "listening on http://{}", server.address())?;
        stdout.flush()?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        server.shut_down();
        Ok(())
    })
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn main() -> ExitCode {
    let (code, text) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(error)) => (1, chained(&*error)),
        Err(Failure::Usage(text)) => (2, format!("{text}\n\n{USAGE}")),
        Err(Failure::Environment(error)) => (3, chained(&*error)),
    };
    say(&format!("error: {}", text.trim_end()));
    ExitCode::from(code)
}
