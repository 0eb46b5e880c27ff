//! Drives a plugin as a proxy does, in memory. Time jumps to whatever happens next, so that no test waits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::active::{self, ROOT};
use super::guest::{Guest, Loaded};
use super::host::{InMemoryHost, Phase};
use super::message::{self, Message};
use super::waits::Event;
use super::{Exchange, Passed};
use crate::Peer;
use crate::asynchronous::{AsyncHost as _, Direction};
use crate::host::BufferType;

/// A plugin that sleeps for ever would have the clock jump for ever.
const MOST_EVENTS: usize = 10_000;

/// The plugin and its proxy.
pub(super) struct Native {
    guest: Box<dyn Guest>,
    host: Rc<RefCell<InMemoryHost>>,
    started: Cell<bool>,
    contexts: Cell<u32>,
    connection: Cell<Option<Connection>>,
    /// When the client of the running exchange leaves, since the epoch.
    leaves: Cell<Option<Duration>>,
}

/// A connection to network plugins.
#[derive(Clone, Copy)]
struct Connection {
    context: u32,
    /// The plugin let it begin.
    begun: bool,
}

impl Native {
    pub(super) fn new(Loaded(guest): Loaded, host: &Rc<RefCell<InMemoryHost>>) -> Self {
        let (started, contexts) = (Cell::new(false), Cell::new(ROOT));
        let (connection, leaves) = (Cell::new(None), Cell::new(None));
        Self { guest, host: Rc::clone(host), started, contexts, connection, leaves }
    }

    /// Makes this proxy's host the active one, and starts what runs beside the streams.
    fn enter<T>(&self, f: impl FnOnce(&Self) -> T) -> T {
        active::enter(&self.host, || {
            if !self.started.replace(true) {
                if let Some(period) = self.guest.tick_period() {
                    active::Active.set_tick_period(period);
                }
                self.as_root(|guest| guest.start());
            }
            f(self)
        })
    }

    /// Runs a callback that is not about a stream.
    fn as_root(&self, f: impl FnOnce(&dyn Guest)) {
        self.host.borrow_mut().in_root = true;
        f(&*self.guest);
        self.host.borrow_mut().in_root = false;
    }

    fn next_context(&self) -> u32 {
        self.contexts.set(self.contexts.get() + 1);
        self.contexts.get()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.enter(|proxy| {
            let clock = proxy.host.borrow().clock.clone();
            let until = clock.since_epoch() + time;
            proxy.pump(|_, due| due.is_none_or(|due| due > until || clock.since_epoch() > until));
            clock.set(until);
        });
    }

    pub(super) fn send(&self, request: Message, upstream: Message, patience: Option<Duration>) -> Exchange {
        self.enter(|proxy| {
            let now = proxy.host.borrow().clock.since_epoch();
            proxy.leaves.set(patience.map(|patience| now.saturating_add(patience)));
            let exchange = proxy.exchange(request, upstream);
            proxy.leaves.set(None);
            exchange
        })
    }

    fn exchange(&self, request: Message, upstream: Message) -> Exchange {
        let context = self.next_context();
        {
            let mut host = self.host.borrow_mut();
            host.begin(request, upstream);
            host.waits.calls.clear();
        }
        let forwarded = self.pass_through(context, Direction::Request);
        let forwarded = forwarded.then(|| self.host.borrow().request.clone());
        let mut details = self.take_local();
        let mut answered = details.is_some() || forwarded.is_some();
        if answered {
            answered = self.pass_through(context, Direction::Response);
            if let Some(replaced) = self.take_local() {
                details = Some(replaced);
                answered = true;
            }
        }
        self.host.borrow_mut().phase = Phase::Log;
        self.guest.on_log(context);
        self.host.borrow_mut().phase = Phase::Idle;
        self.guest.on_done(context);
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
    fn pass_through(&self, context: u32, direction: Direction) -> bool {
        let [headers, body, trailers] = match direction {
            Direction::Response => [Phase::ResponseHeaders, Phase::ResponseBody, Phase::ResponseTrailers],
            _ => [Phase::RequestHeaders, Phase::RequestBody, Phase::RequestTrailers],
        };
        let (chunk, has_trailers) = self.host.borrow_mut().enter_headers(headers, direction);
        let end = chunk.is_empty() && !has_trailers;
        let continues = self.guest.on_headers(context, direction, end);
        if (!continues && !self.wait(direction)) || self.answered() {
            return false;
        }
        if end {
            return true;
        }
        let mut passed = Vec::new();
        let mut parts = Vec::new();
        if !chunk.is_empty() {
            parts.push((chunk, false));
        }
        if !has_trailers {
            parts.push((Vec::new(), true));
        }
        for (part, end) in parts {
            let size = self.host.borrow_mut().enter_body(body, direction, &part, end);
            let continues = self.guest.on_body(context, direction, size, end);
            if self.answered() {
                return false;
            }
            if continues || (end && self.wait(direction)) {
                passed.append(&mut self.host.borrow_mut().buffer);
            } else if end {
                return false;
            }
        }
        if has_trailers {
            self.host.borrow_mut().enter_phase(trailers, direction);
            let continues = self.guest.on_trailers(context, direction);
            if (!continues && !self.wait(direction)) || self.answered() {
                return false;
            }
            passed.append(&mut self.host.borrow_mut().buffer);
        }
        *self.host.borrow_mut().body_of(direction) = passed;
        true
    }

    fn answered(&self) -> bool {
        let host = self.host.borrow();
        host.local.is_some() || host.reset
    }

    /// Lets happen what happens until the direction goes on; false when it never does.
    fn wait(&self, direction: Direction) -> bool {
        let direction = direction as usize;
        let over = |host: &InMemoryHost| host.local.is_some() || host.reset || host.closed;
        let leaves = self.leaves.get();
        let is_last = |due: Duration| leaves.is_some_and(|at| due > at);
        self.pump(|host, due| host.resumed[direction] || over(host) || due.is_none_or(is_last));
        let host = self.host.borrow();
        if let Some(at) = leaves.filter(|_| !host.resumed[direction] && !over(&host)) {
            host.clock.set(host.clock.since_epoch().max(at));
        }
        host.resumed[direction] && !over(&host)
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
            self.as_root(|guest| match event {
                Event::Tick => guest.on_tick(),
                Event::Queue(queue) => guest.on_queue_ready(queue),
                Event::Callout(token, event) => guest.on_callout(token, event),
            });
        }
    }

    pub(super) fn connect(&self) -> Passed {
        self.enter(|proxy| {
            let context = proxy.next_context();
            proxy.host.borrow_mut().begin_connection();
            let begun = proxy.guest.on_new_connection(context) || proxy.wait(Direction::Downstream);
            proxy.connection.set(Some(Connection { context, begun }));
            proxy.after_data()
        })
    }

    /// Has the client send bytes, or end its side.
    pub(super) fn downstream(&self, bytes: &[u8], end: bool) -> Passed {
        self.enter(|proxy| {
            let Some(connection) = proxy.connection.get() else { return Passed::closed() };
            let size = proxy.host.borrow_mut().enter_data(BufferType::DownstreamData, bytes);
            if !connection.begun {
                // A proxy reads nothing before it has an upstream.
                return proxy.after_data();
            }
            let continues = proxy.guest.on_downstream_data(connection.context, size, end);
            if continues || proxy.wait(Direction::Downstream) {
                let mut host = proxy.host.borrow_mut();
                let passed = std::mem::take(&mut host.downstream);
                host.to_upstream.extend(passed);
            }
            proxy.after_data()
        })
    }

    /// Has the upstream send bytes, or end its side.
    pub(super) fn upstream(&self, bytes: &[u8], end: bool) -> Passed {
        self.enter(|proxy| {
            let Some(connection) = proxy.connection.get() else { return Passed::closed() };
            let size = proxy.host.borrow_mut().enter_data(BufferType::UpstreamData, bytes);
            if proxy.guest.on_upstream_data(connection.context, size, end) {
                let mut host = proxy.host.borrow_mut();
                let passed = std::mem::take(&mut host.upstream);
                host.to_client.extend(passed);
            }
            if end {
                proxy.guest.on_upstream_close(connection.context, Peer::Unknown);
            }
            proxy.after_data()
        })
    }

    /// Has the client close the connection.
    pub(super) fn close(&self) -> Passed {
        self.enter(|proxy| {
            proxy.end_connection(Peer::Remote);
            proxy.after_data()
        })
    }

    fn after_data(&self) -> Passed {
        if self.host.borrow().closed {
            self.end_connection(Peer::Local);
        }
        let mut host = self.host.borrow_mut();
        host.phase = Phase::Idle;
        Passed {
            to_upstream: std::mem::take(&mut host.to_upstream),
            to_client: std::mem::take(&mut host.to_client),
            closed: self.connection.get().is_none(),
        }
    }

    fn end_connection(&self, by: Peer) {
        if let Some(connection) = self.connection.take() {
            self.guest.on_downstream_close(connection.context, by);
            self.host.borrow_mut().phase = Phase::Log;
            self.guest.on_done(connection.context);
            self.guest.on_log(connection.context);
        }
    }
}
