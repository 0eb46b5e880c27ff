//! A plugin of any kind as the in-memory proxy calls it: what a module's exports are to a real one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::active::{Active, ROOT};
use crate::asynchronous::exchange::Exchange;
use crate::asynchronous::{
    CalloutEvent, Direction, Executor, Root, Task, connection_future, load, load_network, network_root_future,
    root_future, stream_future,
};
use crate::network::{self, NetworkFlow};
use crate::plugin::{load as load_plugin, settle};
use crate::{AsyncNetworkPlugin, AsyncPlugin, ConfigError, Flow, NetworkPlugin, Peer, Plugin, Queue};

/// The callbacks. The results say whether the stream goes on.
pub(super) trait Guest {
    /// What runs beside the streams.
    fn start(&self) {}
    fn tick_period(&self) -> Option<Duration> {
        None
    }
    fn on_headers(&self, context: u32, direction: Direction, end: bool) -> bool {
        let _ = (context, direction, end);
        true
    }
    fn on_body(&self, context: u32, direction: Direction, size: usize, end: bool) -> bool {
        let _ = (context, direction, size, end);
        true
    }
    fn on_trailers(&self, context: u32, direction: Direction) -> bool {
        let _ = (context, direction);
        true
    }
    fn on_new_connection(&self, context: u32) -> bool {
        let _ = context;
        true
    }
    fn on_downstream_data(&self, context: u32, size: usize, end: bool) -> bool {
        let _ = (context, size, end);
        true
    }
    fn on_upstream_data(&self, context: u32, size: usize, end: bool) -> bool {
        let _ = (context, size, end);
        true
    }
    fn on_downstream_close(&self, context: u32, peer: Peer) {
        let _ = (context, peer);
    }
    fn on_upstream_close(&self, context: u32, peer: Peer) {
        let _ = (context, peer);
    }
    fn on_log(&self, context: u32);
    fn on_done(&self, context: u32) {
        let _ = context;
    }
    fn on_tick(&self);
    fn on_queue_ready(&self, queue: u32);
    fn on_callout(&self, token: u32, event: CalloutEvent) {
        let _ = (token, event);
    }
}

/// A plugin that has accepted its configuration.
#[expect(missing_debug_implementations, reason = "a plugin holds secrets and need not be printable")]
pub struct Loaded(pub(super) Box<dyn Guest>);

/// A plugin that a test can drive. All kinds of plugins are; `Kind` says which this is.
pub trait Testable<Kind> {
    /// Configures it on the active host.
    #[doc(hidden)]
    fn load(configuration: &[u8]) -> Result<Loaded, ConfigError>;

    /// Whether it sees connections rather than requests.
    #[doc(hidden)]
    const NETWORK: bool = false;
}

/// The kind of a [`Plugin`].
#[derive(Debug)]
pub enum Direct {}
/// The kind of an [`AsyncPlugin`].
#[derive(Debug)]
pub enum Waiting {}
/// The kind of a [`NetworkPlugin`].
#[derive(Debug)]
pub enum Network {}
/// The kind of an [`AsyncNetworkPlugin`].
#[derive(Debug)]
pub enum WaitingNetwork {}

impl<P: Plugin> Testable<Direct> for P {
    fn load(configuration: &[u8]) -> Result<Loaded, ConfigError> {
        Ok(Loaded(Box::new(DirectGuest(load_plugin::<P>(configuration, &mut Active)?))))
    }
}

impl<P: AsyncPlugin> Testable<Waiting> for P {
    fn load(configuration: &[u8]) -> Result<Loaded, ConfigError> {
        let plugin = load::<P>(configuration, &mut Active)?;
        Ok(Loaded(Box::new(WaitingGuest { plugin, executor: Executor::new(ROOT), streams: RefCell::default() })))
    }
}

impl<P: NetworkPlugin> Testable<Network> for P {
    const NETWORK: bool = true;

    fn load(configuration: &[u8]) -> Result<Loaded, ConfigError> {
        let plugin = network::load::<P>(configuration, &mut Active)?;
        Ok(Loaded(Box::new(NetworkGuest { plugin, connections: RefCell::default() })))
    }
}

impl<P: AsyncNetworkPlugin> Testable<WaitingNetwork> for P {
    const NETWORK: bool = true;

    fn load(configuration: &[u8]) -> Result<Loaded, ConfigError> {
        let plugin = load_network::<P>(configuration, &mut Active)?;
        let executor = Executor::new(ROOT);
        Ok(Loaded(Box::new(WaitingNetworkGuest { plugin, executor, streams: RefCell::default() })))
    }
}

struct DirectGuest<P>(P);

fn act(flow: Flow) -> bool {
    settle(flow, &mut Active)
}

impl<P: Plugin> Guest for DirectGuest<P> {
    fn tick_period(&self) -> Option<Duration> {
        self.0.tick_period()
    }

    fn on_headers(&self, _: u32, direction: Direction, end: bool) -> bool {
        act(match direction {
            Direction::Response => self.0.on_response_headers(&mut Active, end),
            _ => self.0.on_request_headers(&mut Active, end),
        })
    }

    fn on_body(&self, _: u32, direction: Direction, size: usize, end: bool) -> bool {
        act(match direction {
            Direction::Response => self.0.on_response_body(&mut Active, size, end),
            _ => self.0.on_request_body(&mut Active, size, end),
        })
    }

    fn on_trailers(&self, _: u32, direction: Direction) -> bool {
        act(match direction {
            Direction::Response => self.0.on_response_trailers(&mut Active),
            _ => self.0.on_request_trailers(&mut Active),
        })
    }

    fn on_log(&self, _: u32) {
        self.0.on_log(&mut Active);
    }

    fn on_tick(&self) {
        self.0.on_tick(&mut Active);
    }

    fn on_queue_ready(&self, queue: u32) {
        self.0.on_queue_ready(&mut Active, Queue::from_token(queue));
    }
}

struct NetworkGuest<P: NetworkPlugin> {
    plugin: P,
    connections: RefCell<BTreeMap<u32, P::Connection>>,
}

impl<P: NetworkPlugin> NetworkGuest<P> {
    fn with<T>(&self, context: u32, f: impl FnOnce(&mut P::Connection) -> T) -> T {
        f(self.connections.borrow_mut().entry(context).or_default())
    }
}

fn act_network(flow: NetworkFlow) -> bool {
    network::settle(flow, &mut Active)
}

impl<P: NetworkPlugin> Guest for NetworkGuest<P> {
    fn on_new_connection(&self, context: u32) -> bool {
        act_network(self.with(context, |connection| self.plugin.on_new_connection(connection, &mut Active)))
    }

    fn on_downstream_data(&self, context: u32, size: usize, end: bool) -> bool {
        act_network(self.with(context, |connection| self.plugin.on_downstream_data(connection, &mut Active, size, end)))
    }

    fn on_upstream_data(&self, context: u32, size: usize, end: bool) -> bool {
        act_network(self.with(context, |connection| self.plugin.on_upstream_data(connection, &mut Active, size, end)))
    }

    fn on_downstream_close(&self, context: u32, peer: Peer) {
        self.with(context, |connection| self.plugin.on_downstream_close(connection, &mut Active, peer));
    }

    fn on_upstream_close(&self, context: u32, peer: Peer) {
        self.with(context, |connection| self.plugin.on_upstream_close(connection, &mut Active, peer));
    }

    fn on_log(&self, context: u32) {
        self.with(context, |connection| self.plugin.on_log(connection, &mut Active));
        self.connections.borrow_mut().remove(&context);
    }

    fn on_tick(&self) {}

    fn on_queue_ready(&self, _: u32) {}
}

type Streams = RefCell<BTreeMap<u32, Rc<Exchange>>>;

/// What both kinds of waiting plugins have in common.
macro_rules! waiting {
    ($root_future:ident) => {
        fn start(&self) {
            let future = $root_future(&self.plugin, Root::new());
            self.executor.enter(ROOT, || self.executor.start(future));
        }

        fn on_done(&self, context: u32) {
            let exchange = self.streams.borrow_mut().remove(&context);
            self.executor.end_stream(context, exchange);
        }

        fn on_log(&self, _: u32) {
            self.plugin.on_log(&mut Active);
        }

        fn on_tick(&self) {
            self.executor.enter(ROOT, || self.executor.on_tick());
        }

        fn on_queue_ready(&self, queue: u32) {
            self.executor.enter(ROOT, || self.executor.on_queue_ready(queue));
        }

        fn on_callout(&self, token: u32, event: CalloutEvent) {
            self.executor.enter(ROOT, || self.executor.on_callout(token, event));
        }
    };
}

fn step(executor: &Rc<Executor>, streams: &Streams, context: u32, f: impl FnOnce(&Exchange) -> bool) -> bool {
    let exchange = streams.borrow().get(&context).cloned();
    exchange.is_none_or(|exchange| executor.enter(context, || f(&exchange)))
}

struct WaitingGuest<P> {
    plugin: Rc<P>,
    executor: Rc<Executor>,
    streams: Streams,
}

impl<P: AsyncPlugin> Guest for WaitingGuest<P> {
    waiting!(root_future);

    fn on_headers(&self, context: u32, direction: Direction, end: bool) -> bool {
        if direction == Direction::Request {
            let start = |handle| Task::new(context, stream_future(&self.plugin, handle));
            let exchange = Exchange::new(context, direction, start);
            self.executor.add_stream(context, &exchange);
            self.streams.borrow_mut().insert(context, exchange);
        }
        step(&self.executor, &self.streams, context, |exchange| exchange.on_headers(direction, end))
    }

    fn on_body(&self, context: u32, direction: Direction, size: usize, end: bool) -> bool {
        step(&self.executor, &self.streams, context, |exchange| exchange.on_body(direction, size, end))
    }

    fn on_trailers(&self, context: u32, direction: Direction) -> bool {
        step(&self.executor, &self.streams, context, |exchange| exchange.on_trailers(direction))
    }
}

struct WaitingNetworkGuest<P> {
    plugin: Rc<P>,
    executor: Rc<Executor>,
    streams: Streams,
}

impl<P: AsyncNetworkPlugin> Guest for WaitingNetworkGuest<P> {
    waiting!(network_root_future);

    fn on_new_connection(&self, context: u32) -> bool {
        let start = |handle| Task::new(context, connection_future(&self.plugin, handle));
        let exchange = Exchange::new(context, Direction::Downstream, start);
        self.executor.add_stream(context, &exchange);
        self.streams.borrow_mut().insert(context, exchange);
        let begin = |exchange: &Exchange| exchange.on_headers(Direction::Downstream, false);
        step(&self.executor, &self.streams, context, begin)
    }

    fn on_downstream_data(&self, context: u32, size: usize, end: bool) -> bool {
        let take = |exchange: &Exchange| exchange.on_body(Direction::Downstream, size, end);
        step(&self.executor, &self.streams, context, take)
    }

    fn on_upstream_data(&self, _: u32, size: usize, end: bool) -> bool {
        act_network(self.plugin.on_upstream_data(&mut Active, size, end))
    }
}
