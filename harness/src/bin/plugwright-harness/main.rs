//! The engine's own command: reads a plan, serves its chain.

mod follow;
mod shown;
mod stderr;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::{Chain, ChainError, Given};
use harness::code_cache::CodeCache;
use harness::engine::{Engine, EngineError, Limits};
use harness::page::{self, Page};
use harness::server::{Options, ServeError, Server};
use harness::trace::text::printable;
use mesh::model::Layer;
use mesh::plan::Plan;

use stderr::{Mode, Stderr, say};

/// A request makes some dozens of small allocations, of which the system's allocator makes a tenth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: plugwright-harness serve [--trace MODE] [--show-secrets] [--reload [--answers]] [--page WHERE] [--strict]
                                [--log-level LEVEL] [--code-cache FOLDER]

Reads a plan as JSON on stdin and serves its chain. Once it serves, it prints one line on stdout:
listening on http://ADDRESS (tcp://ADDRESS for a network chain). SIGTERM and SIGINT drain and exit 0.

  --trace MODE       what stderr gets of each request: off, line (default), full (a tree), json (one object a line)
  --quiet            the same as --trace off
  --show-secrets     do not mask credentials in what is printed
  --reload           the plan is one line; each further line on stdin is another one, which takes its place
  --answers          say of each of those what came of it, on the socket that stdin is, instead of on stderr
  --page WHERE       serve the trace page, to this machine only: admin (the plan's address for that, else one that is
                     free), or listener (in front of the chain)
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
    /// The arguments are wrong.
    Usage(String),
    /// What the plan was given by flags of another program is wrong.
    Given(Box<dyn std::error::Error>),
    Environment(Box<dyn std::error::Error>),
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Source { .. } => Self::Environment(error.into()),
            ChainError::Certificates(_) => Self::Given(error.into()),
            refused => Self::Refused(refused.into()),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Plugin { .. } | ServeError::Filter { .. } => Self::Refused(error.into()),
            ServeError::Upstream { .. } | ServeError::Certificates(_) => Self::Given(error.into()),
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

/// Where the trace page is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Admin,
    Listener,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Arguments {
    trace: Mode,
    show_secrets: bool,
    reload: bool,
    answers: bool,
    page: Option<Where>,
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
    let mut arguments = Arguments {
        trace: Mode::default(),
        show_secrets: false,
        reload: false,
        answers: false,
        page: None,
        strict: false,
        log_level: LogLevel::Info,
        code_cache: None,
    };
    while let Some(argument) = given.next() {
        match &*argument.to_string_lossy() {
            "--trace" => {
                arguments.trace = given
                    .next()
                    .as_deref()
                    .and_then(OsStr::to_str)
                    .and_then(Mode::named)
                    .ok_or_else(|| Failure::Usage("`--trace` takes one of off, line, full, json".to_owned()))?;
            }
            "--quiet" => arguments.trace = Mode::Off,
            "--show-secrets" => arguments.show_secrets = true,
            "--reload" => arguments.reload = true,
            "--answers" => arguments.answers = true,
            "--page" => {
                arguments.page = Some(match given.next().as_deref().and_then(OsStr::to_str) {
                    Some("admin") => Where::Admin,
                    Some("listener") => Where::Listener,
                    _ => return Err(Failure::Usage("`--page` takes one of admin, listener".to_owned())),
                });
            }
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

fn escape_lines(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n  ")
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
            say(&format!("warning: compiled modules are not kept: {}", printable(&chained(&error))));
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
    let mut stdin = BufReader::new(std::io::stdin());
    if arguments.reload {
        stdin.read_line(&mut input)?;
    } else {
        stdin.read_to_string(&mut input)?;
    }
    let plan: Plan =
        serde_json::from_str(&input).map_err(|error| Failure::Usage(format!("the plan on stdin: {error}")))?;
    let page = arguments.page.map(|_| Page::new());
    let sink = Arc::new(Stderr::new(arguments.trace, arguments.show_secrets, page.clone(), &plan));
    let mut engine = Engine::new(Limits::default())?;
    let code_cache = arguments.code_cache.as_deref().and_then(code_cache);
    if let Some(cache) = &code_cache {
        engine = engine.with_code_cache(cache.clone());
    }
    let progress = Progress::start();
    let given = Given { node: plan.node.clone(), ca_certificates: plan.ca_certificates.clone() };
    let (level, host_env) = (arguments.log_level, &plan.host_env);
    let mut chain = Chain::load_with(&engine, &plan.chain, &plan, host_env, sink.clone(), level, given)?;
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
        let page_at = |place| page.clone().filter(|_| arguments.page == Some(place));
        let admin_page = page_at(Where::Admin);
        let for_page = admin_page.as_ref().map(|_| "127.0.0.1:0".to_owned());
        let options = Options {
            upstream: plan.upstream.clone(),
            clusters: plan.clusters.clone(),
            admin: plan.admin.clone().or(for_page),
            listener_page: page_at(Where::Listener),
            admin_page,
            ca_certificates: plan.ca_certificates.clone(),
            workers: plan.workers,
            trace: arguments.trace.settings(arguments.show_secrets, page.is_some()),
            ..Options::listen_on(plan.listen.clone())
        };
        let server = Server::start(chain, options)?;
        if let Some(admin) = server.admin_address() {
            say(&format!("metrics on http://{admin}/stats/prometheus"));
        }
        let place = match arguments.page {
            Some(Where::Admin) => server.admin_address(),
            Some(Where::Listener) => Some(server.address()),
            None => None,
        };
        if let Some(place) = place {
            say(&format!("trace page on http://{place}{}", page::PATH));
        }
        let scheme = if plan.chain.listener.layer == Layer::Network { "tcp" } else { "http" };
        announce(&format!("listening on {scheme}://{}\n", server.address()))?;
        let address = format!("{scheme}://{}", server.address());
        sink.show(&plan, &address);
        if arguments.reload {
            let answers = arguments.answers.then(answers).transpose()?;
            follow::follow(stdin, plan, engine, sink.clone(), (server.reloader(), address), answers)?;
        }
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

/// A line of data. Somebody who has had enough of it does not keep others from being served.
fn announce(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Environment(format!("failed to write to standard output: {error}").into()))
        }
        _ => Ok(()),
    }
}

/// The other way of the socket that standard input is.
fn answers() -> std::io::Result<std::os::unix::net::UnixStream> {
    use std::os::fd::AsFd as _;
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
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

/// Whether somebody else has the address already.
fn is_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    })
}

fn main() -> ExitCode {
    let (code, text) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(error)) => (1, chained(&*error)),
        Err(Failure::Hazards(hazards)) => (1, format!("hazards were met:\n  {}", escape_lines(&hazards))),
        Err(Failure::Given(error)) => (2, chained(&*error)),
        Err(Failure::Usage(text)) => (2, format!("{text}\n\n{USAGE}")),
        Err(Failure::Environment(error)) => {
            let hint = if is_in_use(&*error) { "\n\nhint: give another address; port 0 takes a free one" } else { "" };
            (3, format!("{}{hint}", chained(&*error)))
        }
    };
    say(&format!("error: {}", text.trim_end()));
    ExitCode::from(code)
}
