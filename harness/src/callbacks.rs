//! A plugin's callbacks driven by hand, with maps and buffers that are given: what plugin tests run on.
//!
//! The hostcalls are those of a proxy. Where the tester whose suites these are differs from Envoy, it is followed:
//! `ByHand` is where the hostcalls find that out.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh::model::FailStrategy;

use crate::abi::LogLevel;
use crate::exchange::Connection;
use crate::header_map::HeaderMap;
use crate::log::Sink;
use crate::module::Module;
use crate::nature::Nature;
use crate::plugin::{Plugin, VmConfig};
use crate::shared::Shared;
use crate::stream::state::{self, Body, LocalReply, ProxyFacts, StreamState, View};
use crate::trace::{self, Answer, FilterKind, Recording, Settings, Start, Trace};
use crate::vm::{Failed, StartError, Surroundings, Vm};

/// What the plugin is called.
const PLUGIN: &str = "test";

/// Names and values, in order.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// What a VM is made from.
#[derive(Debug)]
pub struct Setup {
    /// The plugin.
    pub module: Arc<Module>,
    /// Its configuration.
    pub configuration: Vec<u8>,
    /// The least level that counts as logged.
    pub log_level: LogLevel,
    /// What both clocks show, always.
    pub since_epoch: Duration,
    /// The properties of its streams: path with dots, and value.
    pub properties: Vec<(String, Vec<u8>)>,
    /// Record what happens to its streams.
    pub trace: bool,
}

/// A local response as the plugin asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u32,
    /// Its gRPC status; `u32::MAX` is none.
    pub grpc_status: u32,
    /// Its details.
    pub details: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What a callback did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The headers as they are now, sorted; a local response's when there was one.
    pub headers: Headers,
    /// The buffer as it is now.
    pub body: Vec<u8>,
    /// What the callback returned was to stop, or it answered.
    pub stopped: bool,
    /// The answer.
    pub reply: Option<Reply>,
}

/// A level and a line.
pub type Line = (LogLevel, String);

/// What hostcalls do differently while callbacks are driven by hand.
#[derive(Debug, Default)]
pub(crate) struct ByHand {
    properties: Vec<(String, Vec<u8>)>,
    pub(crate) lines: Vec<(u32, LogLevel, String)>,
    pub(crate) reply: Option<Reply>,
    pub(crate) replied: bool,
}

impl ByHand {
    /// A stream's property, whose path is joined with NUL.
    pub(crate) fn property(&self, path: &[u8]) -> Option<&[u8]> {
        let segments: Vec<&[u8]> = path.split(|byte| *byte == 0).filter(|segment| !segment.is_empty()).collect();
        let path = segments.join(&b'.');
        self.properties.iter().find(|(known, _)| known.as_bytes() == path).map(|(_, value)| value.as_slice())
    }

    /// Takes a local response, of which the last counts, and gives the open map its headers.
    pub(crate) fn answer(&mut self, stream: &mut StreamState, reply: Reply, headers: &[(Bytes, Bytes)]) {
        self.replied = true;
        stream.record(|recording, _| {
            let details = String::from_utf8_lossy(&reply.details).into_owned();
            recording.local_reply(Some(0), &LocalReply::new(reply.status, reply.body.clone(), details));
        });
        let StreamState { views, request_headers, response_headers, .. } = stream;
        let Some(view) = views.first() else { return };
        let map = match (view.request_headers, view.response_headers) {
            (true, _) => Some(request_headers),
            (_, true) => response_headers.as_mut(),
            _ if view.request_body.is_some() => None,
            _ => return,
        };
        if let Some(map) = map {
            map.clear();
            for (name, value) in headers {
                // What does not fit is left out: the map has the same bound for everyone.
                let _ = map.replace(name, value);
            }
        }
        self.reply = Some(reply);
    }
}

/// A clock that stands still, and the same randomness each time.
struct Still {
    since_epoch: Duration,
    random: Mutex<u64>,
}

impl Nature for Still {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_epoch
    }

    fn monotonic(&self) -> Option<Duration> {
        Some(self.since_epoch)
    }

    fn random(&self, bytes: &mut [u8]) -> bool {
        crate::offline::random(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner), bytes);
        true
    }
}

/// The host's own words about the plugin.
#[derive(Default)]
struct Words(Mutex<Vec<Line>>);

impl Sink for Words {
    fn log(&self, level: LogLevel, line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((level, line.to_owned()));
    }
}

/// Which of a message's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Request,
    /// From the upstream.
    Response,
}

/// One VM, its plugin started.
pub struct Session {
    vm: Vm,
    root: u32,
    words: Arc<Words>,
    proxy: Arc<ProxyFacts>,
    trace: Option<Rc<Start>>,
    /// Of the last local response.
    status: Option<u16>,
}

/// One stream of a session.
pub struct Stream {
    state: Rc<RefCell<StreamState>>,
    context: u32,
}

impl Session {
    /// Makes a VM and starts the plugin. The error is why that failed, and what was logged till then.
    pub fn start(setup: Setup) -> Result<Self, (StartError, Vec<Line>)> {
        let words = Arc::new(Words::default());
        let proxy = Arc::new(ProxyFacts::default());
        let surroundings = Surroundings {
            sink: words.clone(),
            shared: Arc::new(Shared::default()),
            log_level: setup.log_level,
            proxy: proxy.clone(),
            nature: Arc::new(Still { since_epoch: setup.since_epoch, random: Mutex::new(0) }),
        };
        let plugin = Arc::new(Plugin {
            name: PLUGIN.to_owned(),
            root_id: String::new(),
            vm: Arc::new(VmConfig::default()),
            configuration: setup.configuration.into(),
            fail_strategy: FailStrategy::FailClose,
            module: setup.module,
        });
        let said = |words: &Words| words.0.lock().map(|mut words| std::mem::take(&mut *words)).unwrap_or_default();
        let mut vm = Vm::new(&plugin, &surroundings).map_err(|error| (error, said(&words)))?;
        let trace = setup.trace.then(|| Rc::new(Start { settings: Settings::default(), secrets: Vec::new() }));
        vm.drive_by_hand(ByHand { properties: setup.properties, ..ByHand::default() });
        match vm.start(&plugin) {
            Ok(root) => Ok(Self { vm, root, words, proxy, trace, status: None }),
            Err(error) => {
                let mut lines: Vec<Line> = vm.by_hand().lines.drain(..).map(|(_, level, line)| (level, line)).collect();
                lines.extend(said(&words));
                Err((error, lines))
            }
        }
    }

    /// The lines of the root context since they were last taken.
    pub fn root_lines(&mut self) -> Vec<Line> {
        self.lines(self.root)
    }

    /// The lines of a stream since they were last taken; those of other contexts are dropped.
    pub fn stream_lines(&mut self, stream: &Stream) -> Vec<Line> {
        self.lines(stream.context)
    }

    fn lines(&mut self, context: u32) -> Vec<Line> {
        let lines = std::mem::take(&mut self.vm.by_hand().lines);
        lines.into_iter().filter(|(of, ..)| *of == context).map(|(_, level, line)| (level, line)).collect()
    }

    /// What the host had to say: why the VM failed, for one.
    pub fn host_lines(&mut self) -> Vec<Line> {
        self.words.0.lock().map(|mut words| std::mem::take(&mut *words)).unwrap_or_default()
    }

    /// Whether nothing in the VM is called any more.
    pub fn failed(&self) -> bool {
        self.vm.failed()
    }

    /// Makes a stream. `None`: the VM failed.
    pub fn open(&mut self) -> Option<Stream> {
        let connection = Connection { id: 1, source: None, destination: None, state: None };
        let mut state = StreamState::new(self.proxy.clone(), &connection);
        state.views.push(View::default());
        if let Some(start) = &self.trace {
            let mut recording = Recording::new(start.clone(), &state);
            recording.filter(PLUGIN, FilterKind::Wasm, false);
            state.trace = Some(recording);
        }
        let state = Rc::new(RefCell::new(state));
        let context = self.vm.create_stream(self.root, &state, 0).ok()?;
        Some(Stream { state, context })
    }

    /// Headers, which never end the stream. `None`: the VM failed.
    pub fn headers(&mut self, stream: &Stream, direction: Direction, headers: &Headers) -> Option<Outcome> {
        let mut map = HeaderMap::sorted();
        for (name, value) in headers {
            // A test's own headers are few; what does not fit is left out.
            let _ = map.add(name, value);
        }
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        {
            let state = &mut *stream.state.borrow_mut();
            let (way, from) = match direction {
                Direction::Request => (state::Direction::Request, "client"),
                Direction::Response => (state::Direction::Response, "upstream"),
            };
            state.record(|recording, _| {
                if direction == Direction::Request {
                    recording.asked(&map);
                }
                recording.message(way, from, &map, false);
            });
            match direction {
                Direction::Request => state.request_headers = map,
                Direction::Response => state.response_headers = Some(map),
            }
            if let Some(view) = state.view(0) {
                let request = direction == Direction::Request;
                *view = View { request_headers: request, response_headers: !request, ..View::default() };
            }
        }
        let callback = match direction {
            Direction::Request => "proxy_on_request_headers",
            Direction::Response => "proxy_on_response_headers",
        };
        stream.state.borrow_mut().trace_begin(0, callback, None);
        let action = match direction {
            Direction::Request => self.vm.request_headers(stream.context, count, false),
            Direction::Response => self.vm.response_headers(stream.context, count, false),
        };
        let mut outcome = self.after(stream, callback, action)?;
        let state = &mut *stream.state.borrow_mut();
        let map = match direction {
            Direction::Request => std::mem::take(&mut state.request_headers),
            Direction::Response => state.response_headers.take().unwrap_or_default(),
        };
        outcome.headers = map.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        if let Some(view) = state.view(0) {
            *view = View::default();
        }
        Some(outcome)
    }

    /// A chunk of a body. `None`: the VM failed.
    pub fn body(&mut self, stream: &Stream, direction: Direction, chunk: &[u8], end: bool) -> Option<Outcome> {
        // The end is the callback's to know, and nothing else: there are no trailers.
        let mut body = Body::default();
        body.buffer.push(Bytes::copy_from_slice(chunk));
        if let Some(view) = stream.state.borrow_mut().view(0) {
            *view = match direction {
                Direction::Request => View { request_body: Some(body), ..View::default() },
                Direction::Response => View { response_body: Some(body), ..View::default() },
            };
        }
        let size = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let callback = match direction {
            Direction::Request => "proxy_on_request_body",
            Direction::Response => "proxy_on_response_body",
        };
        stream.state.borrow_mut().trace_begin(0, callback, Some((chunk.len(), end)));
        let action = match direction {
            Direction::Request => self.vm.request_body(stream.context, size, end),
            Direction::Response => self.vm.response_body(stream.context, size, end),
        };
        let mut outcome = self.after(stream, callback, action)?;
        let view = stream.state.borrow_mut().view(0).map(std::mem::take).unwrap_or_default();
        let body = view.request_body.or(view.response_body);
        outcome.body = body.map(|mut body| body.buffer.contiguous().to_vec()).unwrap_or_default();
        Some(outcome)
    }

    fn after(&mut self, stream: &Stream, callback: &'static str, action: Result<u32, Failed>) -> Option<Outcome> {
        let answer = action.map_or(Answer::Failed, |action| Answer::Action(trace::action(callback, action)));
        stream.state.borrow_mut().trace_end(0, answer);
        let action = action.ok()?;
        let by_hand = self.vm.by_hand();
        let (reply, replied) = (by_hand.reply.take(), std::mem::take(&mut by_hand.replied));
        let closed = stream.state.borrow().views.first().is_some_and(|view| view.close);
        self.status = reply.as_ref().map_or(self.status, |reply| u16::try_from(reply.status).ok());
        // 0 continues, and so does 2, which ends the stream after the headers.
        let stopped = replied || closed || !matches!(action, 0 | 2);
        Some(Outcome { stopped, reply, ..Outcome::default() })
    }

    /// Ends a stream: log, done, delete.
    pub fn close(&mut self, stream: &Stream) {
        stream.state.borrow_mut().trace_begin(0, "proxy_on_log", None);
        // A VM that failed is not called any more, and says so itself.
        let logged = self.vm.log(stream.context);
        let answer = if logged.is_err() { Answer::Failed } else { Answer::Nothing };
        stream.state.borrow_mut().trace_end(0, answer);
        self.vm.finish_stream(stream.context);
    }

    /// What was recorded of a stream, once.
    pub fn trace(&self, stream: &Stream) -> Option<Trace> {
        let state = &mut *stream.state.borrow_mut();
        let recording = state.trace.take()?;
        let answered_by = self.status.map(|_| PLUGIN);
        let outcome = trace::Outcome { kind: trace::Subject::Request, status: self.status, answered_by };
        Some(recording.finish(state, &outcome))
    }

    /// Ends the plugin. Whether the VM is none that failed.
    pub fn stop(&mut self) -> bool {
        self.vm.stop();
        !self.vm.failed()
    }
}
