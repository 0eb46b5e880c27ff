//! The in-memory proxy for plugins that wait. Time jumps to whatever happens next, so that no test waits.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::host::{InMemoryHost, Phase};
use super::message::{self, Message, response};
use super::waits::Event;
use super::{Clock, Exchange, Reply};
use crate::asynchronous::exchange;
use crate::asynchronous::{AsyncHost, Direction, Executor, Root, Task, load, root_future, stream_future};
use crate::host::{BufferType, Header, Host, HostError, LogLevel, MapType};
use crate::{AsyncPlugin, ConfigError, LocalResponse};

const ROOT: u32 = 1;

/// A plugin that sleeps for ever would have the clock jump for ever.
const MOST_EVENTS: usize = 10_000;

thread_local! {
    static CURRENT: RefCell<Rc<RefCell<InMemoryHost>>> = RefCell::default();
}

/// The host of the proxy that a test is driving.
#[derive(Clone, Copy)]
pub(crate) struct Active;

fn with<T>(f: impl FnOnce(&mut InMemoryHost) -> T) -> T {
    let host = CURRENT.with_borrow(Rc::clone);
    let mut host = host.borrow_mut();
    f(&mut host)
}

impl Host for Active {
    fn headers(&self, map: MapType) -> Result<Vec<Header>, HostError> {
        with(|host| host.headers(map))
    }

    fn header(&self, map: MapType, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        with(|host| host.header(map, name))
    }

    fn add_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError> {
        with(|host| host.add_header(map, name, value))
    }

    fn replace_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError> {
        with(|host| host.replace_header(map, name, value))
    }

    fn remove_header(&mut self, map: MapType, name: &str) -> Result<(), HostError> {
        with(|host| host.remove_header(map, name))
    }

    fn body(&self, buffer: BufferType, range: Range<usize>) -> Result<Vec<u8>, HostError> {
        with(|host| host.body(buffer, range))
    }

    fn replace_body(&mut self, buffer: BufferType, bytes: &[u8]) -> Result<(), HostError> {
        with(|host| host.replace_body(buffer, bytes))
    }

    fn property(&self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
        with(|host| host.property(path))
    }

    fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), HostError> {
        with(|host| host.set_property(name, value))
    }

    fn send_local_response(&mut self, response: &LocalResponse) -> Result<(), HostError> {
        with(|host| host.send_local_response(response))
    }

    fn reset_stream(&mut self) -> Result<(), HostError> {
        with(InMemoryHost::reset_stream)
    }

    fn log(&self, level: LogLevel, message: &str) {
        with(|host| host.log(level, message));
    }

    fn now(&self) -> Result<SystemTime, HostError> {
        with(|host| host.now())
    }

    fn env(&self, name: &str) -> Option<String> {
        with(|host| host.env(name))
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), HostError> {
        with(|host| host.random(bytes))
    }
}

impl AsyncHost for Active {
    fn http_call(
        &mut self,
        cluster: &str,
        headers: &[(String, String)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<u32, HostError> {
        let mut request = Message::default().body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        with(|host| host.waits.call(host.clock.since_epoch(), cluster, request, timeout))
    }

    fn call_response(&self, _: usize, _: usize) -> Option<(Vec<Header>, Vec<u8>)> {
        with(|host| host.waits.response())
    }

    fn set_tick_period(&mut self, period: Duration) {
        with(|host| host.waits.set_tick_period(host.clock.since_epoch(), period));
    }

    fn set_context(&mut self, _: u32) {}

    fn resume(&mut self, direction: Direction) {
        with(|host| host.waits.resumed[direction as usize] = true);
    }
}

/// Runs one waiting plugin before an upstream and beside backends that the test scripts.
///
/// Requests are sent one after another. Whatever the plugin waits for happens at once: the clock jumps there.
pub struct AsyncProxy<P> {
    plugin: Rc<P>,
    host: Rc<RefCell<InMemoryHost>>,
    executor: Rc<Executor>,
    upstream: Message,
    started: bool,
    contexts: u32,
}

// A plugin holds secrets and need not be printable.
impl<P> std::fmt::Debug for AsyncProxy<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncProxy").field("host", &self.host).finish_non_exhaustive()
    }
}

impl<P: AsyncPlugin> AsyncProxy<P> {
    /// Configures the plugin with these bytes; no bytes are no configuration.
    pub fn new(configuration: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::on(InMemoryHost::default(), configuration)
    }

    /// Configures the plugin on a host that the test has prepared with properties, environment or time.
    pub fn on(mut host: InMemoryHost, configuration: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let plugin = load::<P>(configuration.as_ref(), &mut host)?;
        let host = Rc::new(RefCell::new(host));
        let upstream = response(200);
        Ok(Self { plugin, host, executor: Executor::new(ROOT), upstream, started: false, contexts: ROOT })
    }

    /// Sets what the upstream answers from now on; at first it is an empty 200.
    #[must_use]
    pub fn upstream(mut self, response: Message) -> Self {
        self.upstream = response;
        self
    }

    /// Has a backend answer the calls to a cluster. Calls to clusters without one are refused, as in a proxy.
    #[must_use]
    pub fn cluster<R: Into<Reply>>(self, name: &str, mut backend: impl FnMut(&Message) -> R + 'static) -> Self {
        self.host.borrow_mut().waits.backend(name, Box::new(move |call| backend(call).into()));
        self
    }

    /// Lets time pass, and all that happens in it.
    pub fn pass(&mut self, time: Duration) {
        self.enter(|proxy| {
            let until = proxy.host.borrow().clock.since_epoch() + time;
            proxy.pump(|host, due| due.is_none_or(|due| due > until || host.clock.since_epoch() > until));
            proxy.host.borrow().clock.set(until);
        });
    }

    /// Returns the clock that this proxy runs by.
    pub fn clock(&self) -> Clock {
        self.host.borrow().clock.clone()
    }

    /// Returns what the plugin logged since it was configured.
    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        self.host.borrow().logs()
    }

    /// Sends one request through the plugin to the upstream, and the response back.
    pub fn send(&mut self, request: Message) -> Exchange {
        self.enter(|proxy| proxy.exchange(request))
    }

    /// Makes this proxy's host the active one, and starts what runs beside the streams.
    fn enter<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let outer = CURRENT.replace(Rc::clone(&self.host));
        if !std::mem::replace(&mut self.started, true) {
            let future = root_future(&self.plugin, Root::new());
            self.executor.enter(ROOT, || self.executor.start(future));
        }
        let result = f(self);
        CURRENT.replace(outer);
        result
    }

    fn exchange(&mut self, request: Message) -> Exchange {
        self.contexts += 1;
        let context = self.contexts;
        {
            let mut host = self.host.borrow_mut();
            host.begin(request, self.upstream.clone());
            host.waits.calls.clear();
        }
        let stream =
            exchange::Exchange::new(context, |request| Task::new(context, stream_future(&self.plugin, request)));
        self.executor.add_stream(context, &stream);
        let forwarded = self.pass_through(&stream, context, Direction::Request);
        let forwarded = forwarded.then(|| self.host.borrow().request.clone());
        let mut details = self.take_local();
        let mut answered = details.is_some() || forwarded.is_some();
        if answered {
            answered = self.pass_through(&stream, context, Direction::Response);
            if let Some(replaced) = self.take_local() {
                details = Some(replaced);
                answered = true;
            }
        }
        self.host.borrow_mut().phase = Phase::Log;
        self.plugin.on_log(&mut Active);
        self.host.borrow_mut().phase = Phase::Idle;
        self.executor.remove_stream(context);
        let host = self.host.borrow();
        let response = (answered && !host.reset).then(|| host.response.clone());
        Exchange { forwarded, response, details: details.unwrap_or_default(), calls: host.waits.calls.clone() }
    }

    /// Puts the local response, if there is one, in the response's place; its details.
    fn take_local(&self) -> Option<String> {
        let mut host = self.host.borrow_mut();
        let local = host.local.take().filter(|_| !host.reset)?;
        host.response = message::from_local(&local);
        Some(local.details)
    }

    /// Runs the callbacks of one direction; true when the message came through.
    fn pass_through(&self, stream: &Rc<exchange::Exchange>, context: u32, direction: Direction) -> bool {
        let (headers, body, buffer) = match direction {
            Direction::Request => (Phase::RequestHeaders, Phase::RequestBody, BufferType::RequestBody),
            Direction::Response => (Phase::ResponseHeaders, Phase::ResponseBody, BufferType::ResponseBody),
        };
        let chunk = {
            let mut host = self.host.borrow_mut();
            host.phase = headers;
            host.waits.resumed[direction as usize] = false;
            host.take_body(buffer)
        };
        let end = chunk.is_empty();
        let continues = self.executor.enter(context, || stream.on_headers(direction, end));
        if !continues && !self.wait(direction) {
            return false;
        }
        if end {
            return true;
        }
        let mut passed = Vec::new();
        for (part, end) in [(chunk, false), (Vec::new(), true)] {
            let size = {
                let mut host = self.host.borrow_mut();
                host.phase = body;
                host.waits.resumed[direction as usize] = false;
                host.buffer.extend(part);
                host.buffer.len()
            };
            let continues = self.executor.enter(context, || stream.on_body(direction, size, end));
            if self.answered() {
                return false;
            }
            if continues || (end && self.wait(direction)) {
                passed.append(&mut self.host.borrow_mut().buffer);
            } else if end {
                return false;
            }
        }
        self.host.borrow_mut().put_body(buffer, passed);
        true
    }

    fn answered(&self) -> bool {
        let host = self.host.borrow();
        host.local.is_some() || host.reset
    }

    /// Lets happen what happens until the direction goes on; false when it never does.
    fn wait(&self, direction: Direction) -> bool {
        self.pump(|host, due| {
            host.waits.resumed[direction as usize] || host.local.is_some() || host.reset || due.is_none()
        });
        let host = self.host.borrow();
        host.waits.resumed[direction as usize] && host.local.is_none() && !host.reset
    }

    /// Lets one thing happen after another until `stop`, which sees when the next one is due, says so.
    fn pump(&self, stop: impl Fn(&InMemoryHost, Option<Duration>) -> bool) {
        for _ in 0..MOST_EVENTS {
            let event = {
                let mut host = self.host.borrow_mut();
                let due = host.waits.due();
                if stop(&host, due) {
                    return;
                }
                let Some((due, event)) = host.waits.next() else { return };
                host.clock.set(host.clock.since_epoch().max(due));
                event
            };
            self.executor.enter(ROOT, || match event {
                Event::Tick => self.executor.on_tick(),
                Event::Response { token, headers, body_size } => {
                    self.executor.on_call_response(token, headers, body_size);
                }
            });
        }
    }
}
