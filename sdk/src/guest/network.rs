//! Runs network plugins in a module.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{Action, Bytes, ContextType, PeerType, Status};

use super::hostcalls::Proxy;
use super::leave_out::{leave_out_context_calls, leave_out_network_calls, leave_out_root_calls};
use super::{callouts, configured, prepare};
use crate::asynchronous::exchange::Exchange;
use crate::asynchronous::{
    CalloutEvent, Direction, Executor, Root as RootHandle, Task, connection_future, load_network, network_root_future,
};
use crate::network::{self, settle};
use crate::{AsyncNetworkPlugin, NetworkFlow, NetworkPlugin, Peer};

/// Makes `P` the module's plugin. [`register!`](crate::register) calls it from `_initialize`.
pub fn start_network<P: NetworkPlugin>() {
    prepare();
    proxy_wasm::set_root_context(|_| Box::new(Root::<P> { plugin: None }));
}

/// As [`start_network`].
pub fn start_async_network<P: AsyncNetworkPlugin>() {
    prepare();
    proxy_wasm::set_root_context(|id| Box::new(AsyncRoot::<P> { id, executor: Executor::new(id), plugin: None }));
}

fn act(flow: NetworkFlow) -> Action {
    if settle(flow, &mut Proxy) { Action::Continue } else { Action::Pause }
}

fn peer(peer: PeerType) -> Peer {
    match peer {
        PeerType::Local => Peer::Local,
        PeerType::Remote => Peer::Remote,
        _ => Peer::Unknown,
    }
}

struct Root<P> {
    plugin: Option<Rc<P>>,
}

impl<P: NetworkPlugin> Context for Root<P> {
    leave_out_context_calls!();
}

impl<P: NetworkPlugin> RootContext for Root<P> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.plugin = configured(size, |bytes| network::load(bytes, &mut Proxy)).map(Rc::new);
        self.plugin.is_some()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        // A host that opens a connection on a rejected configuration gets none, which proxy-wasm turns into a trap:
        // closed.
        let plugin = Rc::clone(self.plugin.as_ref()?);
        Some(Box::new(Stream { plugin, connection: P::Connection::default() }))
    }

    leave_out_root_calls!();
}

struct Stream<P: NetworkPlugin> {
    plugin: Rc<P>,
    connection: P::Connection,
}

impl<P: NetworkPlugin> Context for Stream<P> {
    leave_out_context_calls!();
}

impl<P: NetworkPlugin> StreamContext for Stream<P> {
    fn on_new_connection(&mut self) -> Action {
        act(self.plugin.on_new_connection(&mut self.connection, &mut Proxy))
    }

    fn on_downstream_data(&mut self, size: usize, end: bool) -> Action {
        act(self.plugin.on_downstream_data(&mut self.connection, &mut Proxy, size, end))
    }

    fn on_upstream_data(&mut self, size: usize, end: bool) -> Action {
        act(self.plugin.on_upstream_data(&mut self.connection, &mut Proxy, size, end))
    }

    fn on_downstream_close(&mut self, by: PeerType) {
        self.plugin.on_downstream_close(&mut self.connection, &mut Proxy, peer(by));
    }

    fn on_upstream_close(&mut self, by: PeerType) {
        self.plugin.on_upstream_close(&mut self.connection, &mut Proxy, peer(by));
    }

    fn on_log(&mut self) {
        self.plugin.on_log(&mut self.connection, &mut Proxy);
    }

    leave_out_network_calls!();
}

struct AsyncRoot<P> {
    id: u32,
    executor: Rc<Executor>,
    plugin: Option<Rc<P>>,
}

impl<P: AsyncNetworkPlugin> Context for AsyncRoot<P> {
    callouts!();
    leave_out_context_calls!();
}

impl<P: AsyncNetworkPlugin> RootContext for AsyncRoot<P> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.plugin = configured(size, |bytes| load_network(bytes, &mut Proxy));
        let Some(plugin) = &self.plugin else { return false };
        self.executor.enter(self.id, || self.executor.start(network_root_future(plugin, RootHandle::new())));
        true
    }

    fn on_tick(&mut self) {
        self.executor.enter(self.id, || self.executor.on_tick());
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.executor.enter(self.id, || self.executor.on_queue_ready(queue));
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }

    fn create_stream_context(&self, id: u32) -> Option<Box<dyn StreamContext>> {
        let plugin = Rc::clone(self.plugin.as_ref()?);
        Some(Box::new(AsyncStream { id, executor: Rc::clone(&self.executor), plugin, exchange: RefCell::new(None) }))
    }

    leave_out_root_calls!();
}

struct AsyncStream<P> {
    id: u32,
    executor: Rc<Executor>,
    plugin: Rc<P>,
    exchange: RefCell<Option<Rc<Exchange>>>,
}

impl<P: AsyncNetworkPlugin> AsyncStream<P> {
    fn step(&self, f: impl FnOnce(&Exchange) -> bool) -> Action {
        let exchange = self.exchange.borrow().clone();
        let Some(exchange) = exchange else { return Action::Continue };
        if self.executor.enter(self.id, || f(&exchange)) { Action::Continue } else { Action::Pause }
    }
}

impl<P: AsyncNetworkPlugin> Context for AsyncStream<P> {
    fn on_done(&mut self) -> bool {
        self.executor.end_stream(self.id, self.exchange.take());
        true
    }

    callouts!();
    leave_out_context_calls!();
}

impl<P: AsyncNetworkPlugin> StreamContext for AsyncStream<P> {
    fn on_new_connection(&mut self) -> Action {
        let plugin = &self.plugin;
        let start = |handle| Task::new(self.id, connection_future(plugin, handle));
        let exchange = Exchange::new(self.id, Direction::Downstream, start);
        self.executor.add_stream(self.id, &exchange);
        self.exchange.replace(Some(exchange));
        self.step(|exchange| exchange.on_headers(Direction::Downstream, false))
    }

    fn on_downstream_data(&mut self, size: usize, end: bool) -> Action {
        self.step(|exchange| exchange.on_body(Direction::Downstream, size, end))
    }

    fn on_upstream_data(&mut self, size: usize, end: bool) -> Action {
        act(self.plugin.on_upstream_data(&mut Proxy, size, end))
    }

    fn on_log(&mut self) {
        self.plugin.on_log(&mut Proxy);
    }

    leave_out_network_calls!();
}
