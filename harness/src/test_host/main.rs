//! The host of plugins' tests: runs a plugin's module for a test of the SDK, which speaks to it in lines of JSON.
//!
//! `sdk/src/testing/protocol.rs` is the other side. Standard output is the protocol, standard error what a person
//! wants to know. It ends when its input does.

mod protocol;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::engine::{Engine, Limits};
use harness::hazard::Hazard;
use harness::log::Sink;
use harness::module::Module;
use harness::offline::{self, Backends, GrpcReply, GrpcRequest, Message, Proxy, Reply, Setup, World};

use protocol::{Command, Event, Heard, Says, bytes, text};

/// What has been logged and not been told yet.
#[derive(Default)]
struct Logs(Mutex<Vec<(u32, String)>>);

impl Logs {
    fn take(&self) -> Vec<(u32, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, lines: &[(u32, String)]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(lines);
    }
}

impl Sink for Logs {
    fn log(&self, level: LogLevel, line: &str) {
        match line.strip_prefix("wasm log").and_then(|rest| rest.split_once(": ")) {
            Some((_, message)) => self.put(&[(level as u32, message.to_owned())]),
            None => say(line),
        }
    }

    fn hazard(&self, hazard: &Hazard<'_>) {
        say(&format!("hazard: {}", hazard.explanation));
    }
}

#[expect(clippy::print_stderr, reason = "what a person wants to know")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// The test, on the other end of the pipes.
struct Test {
    logs: Arc<Logs>,
    world: RefCell<Arc<World>>,
}

impl Test {
    fn since_epoch(&self) -> Duration {
        self.world.borrow().since_epoch()
    }

    fn tell(&self, event: Event) -> std::io::Result<()> {
        let time = u64::try_from(self.since_epoch().as_nanos()).unwrap_or(u64::MAX);
        let mut line = serde_json::to_vec(&Says { time, logs: self.logs.take(), event })?;
        line.push(b'\n');
        let mut output = std::io::stdout().lock();
        output.write_all(&line)?;
        output.flush()
    }

    /// What the test says next; nothing when it has ended.
    fn hear(&self) -> std::io::Result<Option<Command>> {
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Heard { time, says } = serde_json::from_str(&line)?;
        self.world.borrow().set_time(Duration::from_nanos(time));
        Ok(Some(says))
    }

    /// Asks a question. A test that has gone away answers nothing.
    fn ask(&self, event: Event) -> Option<Command> {
        self.tell(event).ok()?;
        self.hear().ok().flatten()
    }
}

impl Backends for Test {
    fn http(&self, cluster: &str, request: &Message) -> Option<Reply> {
        let event = Event::Call { cluster: cluster.to_owned(), request: request.into() };
        let Some(Command::Reply(reply)) = self.ask(event) else { return None };
        reply.map(Reply::from)
    }

    fn has_grpc(&self, cluster: &str) -> bool {
        matches!(self.ask(Event::HasGrpc { cluster: cluster.to_owned() }), Some(Command::Has(true)))
    }

    fn grpc(&self, cluster: &str, request: &GrpcRequest) -> GrpcReply {
        let event = Event::Grpc { cluster: cluster.to_owned(), request: request.into() };
        match self.ask(event) {
            Some(Command::GrpcReply(reply)) => GrpcReply::from(reply),
            _ => GrpcReply::default(),
        }
    }
}

/// One plugin configuration.
struct Session {
    proxy: Proxy,
    seed: u64,
    /// What the plugin logged when its configuration was tried, which it logs again when it starts.
    tried: Option<Vec<(u32, String)>>,
}

struct Host {
    engine: Engine,
    modules: HashMap<PathBuf, Arc<Module>>,
    test: Rc<Test>,
    session: Option<Session>,
}

impl Host {
    fn module(&mut self, path: &Path) -> Result<Arc<Module>, String> {
        if let Some(module) = self.modules.get(path) {
            return Ok(module.clone());
        }
        let bytes = std::fs::read(path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
        let module = Module::compile(&self.engine, &bytes);
        let module = Arc::new(module.map_err(|error| format!("failed to load {}: {error}", path.display()))?);
        self.modules.insert(path.to_owned(), module.clone());
        Ok(module)
    }

    fn configure(&mut self, time: Duration, start: protocol::Start) -> Result<Session, String> {
        self.session = None;
        let module = self.module(&start.module)?;
        let properties = start.properties.iter().map(|(path, value)| (path.clone().into_bytes(), bytes(value)));
        let world = Arc::new(World::new(time, start.seed, properties));
        self.test.world.replace(world.clone());
        let (configuration, env) = (bytes(&start.configuration), start.env);
        let setup = Setup { module, configuration, network: start.network, env };
        let (logs, backends) = (self.test.logs.clone(), self.test.clone());
        let proxy = Proxy::new(setup, &world, logs.clone(), backends).map_err(|error| error.to_string())?;
        let tried = logs.take();
        logs.put(&tried);
        Ok(Session { proxy, seed: start.seed, tried: Some(tried) })
    }

    /// The plugin, running.
    fn session(&mut self) -> Result<&mut Session, String> {
        let session = self.session.as_mut().ok_or("there is no plugin")?;
        if let Some(tried) = session.tried.take() {
            self.test.world.borrow().set_seed(session.seed);
            session.proxy.start().map_err(|error| error.to_string())?;
            let started = self.test.logs.take();
            let again = started.iter().zip(&tried).take_while(|(now, then)| now == then).count();
            self.test.logs.put(started.get(again..).unwrap_or_default());
        }
        Ok(session)
    }

    async fn run(&mut self, command: Command) -> Result<Event, String> {
        Ok(match command {
            Command::Start(start) => {
                let time = self.test.since_epoch();
                match self.configure(time, *start) {
                    Ok(session) => {
                        self.session = Some(session);
                        Event::Started {}
                    }
                    Err(error) => Event::Refused { error },
                }
            }
            Command::Send { request, upstream, patience } => {
                let proxy = &mut self.session()?.proxy;
                let patience = patience.map(Duration::from_nanos);
                let outcome = proxy.send(&Message::from(request), &Message::from(upstream), patience).await;
                Event::from(&outcome)
            }
            Command::Pass { nanoseconds } => {
                self.session()?;
                tokio::time::sleep(Duration::from_nanos(nanoseconds)).await;
                Event::Done {}
            }
            Command::Connect {} => passed(&self.session()?.proxy.connect().await),
            Command::Downstream { bytes, end } => {
                passed(&self.session()?.proxy.downstream(&protocol::bytes(&bytes), end).await)
            }
            Command::Upstream { bytes, end } => passed(&self.session()?.proxy.upstream(&protocol::bytes(&bytes), end)),
            Command::Close {} => {
                self.session()?.proxy.close();
                passed(&offline::Passed { closed: true, ..offline::Passed::default() })
            }
            Command::Metric { name } => Event::Value(self.session()?.proxy.metric(&name)),
            Command::End {} => {
                self.session = None;
                Event::Done {}
            }
            Command::Reply(_) | Command::GrpcReply(_) | Command::Has(_) => return Err("nothing was asked".to_owned()),
        })
    }
}

fn passed(passed: &offline::Passed) -> Event {
    let (to_upstream, to_client) = (text(&passed.to_upstream), text(&passed.to_client));
    Event::Passed { to_upstream, to_client, closed: passed.closed }
}

async fn serve(engine: Engine) -> std::io::Result<()> {
    let world = RefCell::new(Arc::new(World::new(Duration::ZERO, 0, [])));
    let test = Rc::new(Test { logs: Arc::default(), world });
    let mut host = Host { engine, modules: HashMap::new(), test: test.clone(), session: None };
    while let Some(command) = test.hear()? {
        let event = host.run(command).await.map_err(std::io::Error::other)?;
        test.tell(event)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let served = Engine::new(Limits::default()).map_err(|error| error.to_string()).and_then(|engine| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().map_err(|error| error.to_string())?;
        tokio::task::LocalSet::new().block_on(&runtime, serve(engine)).map_err(|error| error.to_string())
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(3)
        }
    }
}
