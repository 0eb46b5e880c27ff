//! The engine's own command: reads a plan, serves its chain.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::{Chain, ChainError};
use harness::code_cache::CodeCache;
use harness::engine::{Engine, EngineError, Limits};
use harness::hazard::{Hazard, HazardKind};
use harness::log::{ConnectionSummary, RequestSummary, Sink};
use harness::server::{Options, ServeError, Server};
use mesh::model::Layer;
use mesh::plan::Plan;
use time::OffsetDateTime;

/// A request makes some dozens of small allocations, of which the system's allocator makes a tenth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: plugwright-harness serve [--quiet] [--strict] [--log-level LEVEL] [--code-cache FOLDER]

Reads a plan as JSON on stdin and serves its chain. Once it serves, it prints one line on stdout:
listening on http://ADDRESS (tcp://ADDRESS for a network chain). SIGTERM and SIGINT drain and exit 0.

  --quiet            no line per request on stderr
  --strict           exit 1 at the end if a plugin did what Envoy answers with a hang, a crash or a broken response
  --code-cache FOLDER
                     keep compiled modules there, a folder of this user alone; without it each start compiles
  --log-level LEVEL  least severe plugin log to show: trace, debug, info (default), warning, error, critical

exit status: 0 served and drained, 1 a plugin or its configuration was refused, or hazards with --strict, 2 usage, 3 environment
";

/// What went wrong, by who has to mend it.
enum Failure {
    Refused(Box<dyn std::error::Error>),
    /// With `--strict`: what was met, one line each.
    Hazards(Vec<String>),
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
            ServeError::Upstream { .. } | ServeError::Certificates(_) => Self::Usage(error.to_string()),
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
    strict: bool,
    log_level: LogLevel,
    code_cache: Option<PathBuf>,
}

fn arguments() -> Result<Option<Arguments>, Failure> {
    let mut given = std::env::args_os().skip(1);
    match given.next().as_ref().map(|name| name.to_string_lossy()).as_deref() {
        Some("serve") => {}
        Some("--help" | "-h" | "help") => return Ok(None),
        Some(other) => return Err(Failure::Usage(format!("unknown subcommand `{other}`"))),
        None => return Err(Failure::Usage("a subcommand is missing".to_owned())),
    }
    let mut arguments = Arguments { quiet: false, strict: false, log_level: LogLevel::Info, code_cache: None };
    while let Some(argument) = given.next() {
        match &*argument.to_string_lossy() {
            "--quiet" => arguments.quiet = true,
            "--strict" => arguments.strict = true,
            "--log-level" => {
                arguments.log_level =
                    given.next().as_deref().and_then(OsStr::to_str).and_then(level).ok_or_else(|| {
                        Failure::Usage(
                            "`--log-level` takes one of trace, debug, info, warning, error, critical".to_owned(),
                        )
                    })?;
            }
            "--code-cache" => {
                let folder = given.next().filter(|folder| !folder.is_empty());
                let missing = || Failure::Usage("`--code-cache` takes a folder".to_owned());
                arguments.code_cache = Some(folder.ok_or_else(missing)?.into());
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

#[derive(Default)]
struct Stderr {
    quiet: bool,
    hazards: Mutex<BTreeMap<HazardKey, u64>>,
}

/// Where a hazard is: the same one is printed once and counted from then on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct HazardKey {
    kind: HazardKind,
    filter: String,
    callback: String,
    hostcall: Option<String>,
}

impl std::fmt::Display for HazardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())?;
        for part in [Some(&self.filter), Some(&self.callback), self.hostcall.as_ref()].into_iter().flatten() {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        Ok(())
    }
}

impl Stderr {
    /// One line for each hazard that was met.
    fn hazards(&self) -> Vec<String> {
        let hazards = self.hazards.lock().unwrap_or_else(PoisonError::into_inner);
        hazards.iter().map(|(hazard, count)| format!("{count} × {hazard}")).collect()
    }
}

impl Sink for Stderr {
    fn log(&self, level: LogLevel, line: &str) {
        say(&format!("[{}][{}][wasm] {}", timestamp(OffsetDateTime::now_utc()), level.as_str(), escape(line)));
    }

    fn hazard(&self, hazard: &Hazard<'_>) {
        let key = HazardKey {
            kind: hazard.kind,
            filter: hazard.filter.to_owned(),
            callback: hazard.callback.to_owned(),
            hostcall: hazard.hostcall.map(str::to_owned),
        };
        let first = {
            let mut hazards = self.hazards.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hazards.entry(key).or_default();
            *count += 1;
            *count == 1
        };
        if first {
            let place = [hazard.filter, hazard.callback, hazard.hostcall.unwrap_or_default()];
            let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
            let (name, explanation, place) = (hazard.kind.name(), escape(hazard.explanation), escape(&place.join(" ")));
            say(&format!("hazard {name} ({place}): {explanation}; in Envoy: {}", hazard.kind.in_envoy()));
        }
    }

    fn connection(&self, connection: &ConnectionSummary<'_>) {
        if self.quiet {
            return;
        }
        let ConnectionSummary { id, received, sent, .. } = connection;
        let by = match connection.closed_by {
            Some(filter) => filter,
            None if connection.by_client => "the client",
            None => "this side",
        };
        let took = connection.duration.as_secs_f64() * 1e3;
        say(&format!("connection {id}: {received} bytes in, {sent} out, closed by {by} {took:.1} ms"));
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

fn escape_lines(lines: &[String]) -> String {
    lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\n  ")
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

/// The folder of compiled modules. Without it everything works, only later.
fn code_cache(folder: &Path) -> Option<Arc<CodeCache>> {
    match CodeCache::open(folder) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            say(&format!("warning: compiled modules are not kept: {}", escape(&chained(&error))));
            None
        }
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
    let sink = Arc::new(Stderr { quiet: arguments.quiet, ..Stderr::default() });
    let mut engine = Engine::new(Limits::default())?;
    let code_cache = arguments.code_cache.as_deref().and_then(code_cache);
    if let Some(cache) = &code_cache {
        engine = engine.with_code_cache(cache.clone());
    }
    let progress = Progress::start();
    let (level, node) = (arguments.log_level, plan.node.clone());
    let mut chain = Chain::load_for_node(&engine, &plan.chain, &plan, &plan.host_env, sink.clone(), level, node)?;
    if let Some(network) = &plan.network {
        chain = chain.in_front(&engine, network, &plan, &plan.host_env)?;
    }
    drop(progress);
    if let Some(problem) = code_cache.and_then(|cache| cache.problem()) {
        say(&format!("warning: a compiled module is not kept: {problem}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // Registered before anything is served: a signal that comes early must drain, not kill.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let options = Options {
            upstream: plan.upstream,
            clusters: plan.clusters,
            admin: plan.admin,
            ca_certificates: plan.ca_certificates,
            workers: plan.workers,
            ..Options::listen_on(plan.listen)
        };
        let server = Server::start(chain, options)?;
        let mut stdout = std::io::stdout();
        if let Some(admin) = server.admin_address() {
            say(&format!("metrics on http://{admin}/stats/prometheus"));
        }
        let scheme = if plan.chain.listener.layer == Layer::Network { "tcp" } else { "http" };
        writeln!(stdout, "listening on {scheme}://{}", server.address())?;
        stdout.flush()?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        server.shut_down();
        let hazards = sink.hazards();
        if arguments.strict && !hazards.is_empty() {
            return Err(Failure::Hazards(hazards));
        }
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
        Err(Failure::Hazards(hazards)) => (1, format!("hazards were met:\n  {}", escape_lines(&hazards))),
        Err(Failure::Usage(text)) => (2, format!("{text}\n\n{USAGE}")),
        Err(Failure::Environment(error)) => (3, chained(&*error)),
    };
    say(&format!("error: {}", text.trim_end()));
    ExitCode::from(code)
}
