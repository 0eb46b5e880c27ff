//! A plugin's module in the harness's test host, which is a process beside the test.
#![expect(clippy::panic, reason = "a test whose host does not answer fails")]

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use super::host::InMemoryHost;
use super::protocol::{Heard, HeardEvent, Line, Says, Wire, WireGrpcReply, WireReply, bytes, nanoseconds, text};
use super::{Exchange, GrpcRequest, Message, Passed};
use crate::{ConfigError, LogLevel};

/// Where a plugin's module is, and what runs it.
#[derive(Clone, Debug)]
pub(super) struct Wasm {
    program: PathBuf,
    module: PathBuf,
}

impl Wasm {
    pub(super) fn new(name: &str, program: OsString, modules: OsString) -> Self {
        let module = PathBuf::from(modules).join(format!("{name}.wasm"));
        Self { program: program.into(), module }
    }
}

/// Hosts that are idle. They keep the modules that they have compiled.
static IDLE: Mutex<Vec<Process>> = Mutex::new(Vec::new());

struct Process {
    program: PathBuf,
    /// It ends when its standard input does.
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn of(program: &PathBuf) -> Self {
        if let Ok(mut idle) = IDLE.lock()
            && let Some(index) = idle.iter().position(|process| process.program == *program)
        {
            return idle.swap_remove(index);
        }
        let mut command = Command::new(program);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let started = spawned.ok().and_then(|mut child| {
            let (input, output) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
            Some(Self { program: program.clone(), _child: child, input, output })
        });
        started.unwrap_or_else(|| panic!("the test host {} does not start", program.display()))
    }

    fn say(&mut self, line: &Line<'_>) -> Heard {
        let written = serde_json::to_vec(line).map_err(std::io::Error::other).and_then(|mut text| {
            text.push(b'\n');
            self.input.write_all(&text)
        });
        let mut answer = String::new();
        let read = written.and_then(|()| self.output.read_line(&mut answer));
        match (read, serde_json::from_str(&answer)) {
            (Ok(_), Ok(heard)) => heard,
            (Err(error), _) => panic!("the test host {} is gone: {error}", self.program.display()),
            (Ok(_), Err(error)) => panic!("the test host {} answers {answer:?}: {error}", self.program.display()),
        }
    }
}

/// One plugin configuration in a host.
pub(super) struct Remote {
    process: Option<Process>,
    host: Rc<RefCell<InMemoryHost>>,
    /// A plugin that panicked leaves a host that is not used again.
    broken: bool,
}

impl Remote {
    pub(super) fn start(
        wasm: &Wasm,
        host: &Rc<RefCell<InMemoryHost>>,
        configuration: &[u8],
        network: bool,
    ) -> Result<Self, ConfigError> {
        let mut remote = Self { process: Some(Process::of(&wasm.program)), host: Rc::clone(host), broken: false };
        let (env, properties, seed) = {
            let host = host.borrow();
            let properties = host.properties.iter().map(|(path, value)| (path.clone(), text(value))).collect();
            (host.environment.clone(), properties, host.random.get())
        };
        let module = wasm.module.to_string_lossy();
        let (module, configuration) = (&*module, text(configuration));
        match remote.ask(Says::Start { module, configuration, network, env: &env, properties, seed }) {
            HeardEvent::Started {} => Ok(remote),
            // The path of the field is a part of the text here.
            HeardEvent::Refused { error } => {
                Err(ConfigError::new(error.strip_prefix("configuration rejected: ").unwrap_or(&error)))
            }
            other => unexpected(&other),
        }
    }

    /// Says something and answers questions until the answer.
    fn ask(&mut self, mut says: Says<'_>) -> HeardEvent {
        let Self { process: Some(process), host, broken } = self else { panic!("the test host is gone") };
        *broken = true;
        loop {
            let clock = host.borrow().clock.clone();
            let time = u64::try_from(clock.since_epoch().as_nanos()).unwrap_or(u64::MAX);
            let heard = process.say(&Line { time, says });
            let mut host = host.borrow_mut();
            clock.set(Duration::from_nanos(heard.time));
            host.logs.borrow_mut().extend(heard.logs.iter().map(|(severity, line)| (level(*severity), line.clone())));
            says = match heard.event {
                HeardEvent::Call { cluster, request } => {
                    let reply = host.waits.ask(&cluster, Message::from(&request));
                    Says::Reply(reply.as_ref().map(WireReply::from))
                }
                HeardEvent::Grpc { cluster, request } => {
                    let reply = host.waits.ask_grpc(&cluster, &GrpcRequest::from(&request));
                    Says::GrpcReply(WireGrpcReply::from(&reply.unwrap_or_default()))
                }
                HeardEvent::HasGrpc { cluster } => Says::Has(host.waits.has_grpc(&cluster)),
                event => {
                    *broken = false;
                    return event;
                }
            };
        }
    }

    pub(super) fn send(&mut self, request: &Message, upstream: &Message, patience: Option<Duration>) -> Exchange {
        self.host.borrow_mut().waits.calls.clear();
        let patience = patience.map(nanoseconds);
        let says = Says::Send { request: Wire::from(request), upstream: Wire::from(upstream), patience };
        let HeardEvent::Exchange { forwarded, response, details } = self.ask(says) else {
            panic!("the test host does not say what came of the request")
        };
        Exchange {
            forwarded: forwarded.as_ref().map(Message::from),
            response: response.as_ref().map(Message::from),
            details,
            calls: self.host.borrow().waits.calls.clone(),
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        match self.ask(Says::Pass { nanoseconds: nanoseconds(time) }) {
            HeardEvent::Done {} => {}
            other => unexpected(&other),
        }
    }

    pub(super) fn metric(&mut self, name: &str) -> Option<u64> {
        match self.ask(Says::Metric { name }) {
            HeardEvent::Value(value) => value,
            other => unexpected(&other),
        }
    }

    pub(super) fn connect(&mut self) -> Passed {
        self.passed(Says::Connect {})
    }

    pub(super) fn downstream(&mut self, bytes: &[u8], end: bool) -> Passed {
        self.passed(Says::Downstream { bytes: text(bytes), end })
    }

    pub(super) fn upstream(&mut self, bytes: &[u8], end: bool) -> Passed {
        self.passed(Says::Upstream { bytes: text(bytes), end })
    }

    pub(super) fn close(&mut self) -> Passed {
        self.passed(Says::Close {})
    }

    fn passed(&mut self, says: Says<'_>) -> Passed {
        match self.ask(says) {
            HeardEvent::Passed { to_upstream, to_client, closed } => {
                Passed { to_upstream: bytes(&to_upstream), to_client: bytes(&to_client), closed }
            }
            other => unexpected(&other),
        }
    }
}

fn unexpected<T>(event: &HeardEvent) -> T {
    panic!("the test host says {event:?}, which is no answer to that")
}

fn level(number: u32) -> LogLevel {
    use LogLevel::{Critical, Debug, Error, Info, Trace, Warn};
    [Trace, Debug, Info, Warn, Error].into_iter().find(|level| *level as u32 == number).unwrap_or(Critical)
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.broken || std::thread::panicking() {
            return;
        }
        let ended = self.ask(Says::End {});
        if let (HeardEvent::Done {}, Some(process), Ok(mut idle)) = (ended, self.process.take(), IDLE.lock()) {
            idle.push(process);
        }
    }
}
