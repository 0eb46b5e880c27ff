//! Runs an [`AsyncPlugin`] in a module.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, GrpcStatusCode, Status};

use super::hostcalls::Proxy;
use super::leave_out::{leave_out_context_calls, leave_out_http_calls, leave_out_root_calls};
use super::{callouts, configured, prepare};
use crate::AsyncPlugin;
use crate::asynchronous::exchange::Exchange;
use crate::asynchronous::{
    CalloutEvent, Direction, Executor, Root as RootHandle, Task, load, root_future, stream_future,
};

/// Makes `P` the module's plugin. [`register!`](crate::register) calls it from `_initialize`.
pub fn start_async<P: AsyncPlugin>() {
    prepare();
    proxy_wasm::set_root_context(|id| Box::new(Root::<P> { id, executor: Executor::new(id), plugin: None }));
}

struct Root<P> {
    id: u32,
    executor: Rc<Executor>,
    plugin: Option<Rc<P>>,
}

impl<P: AsyncPlugin> Context for Root<P> {
    callouts!();
    leave_out_context_calls!();
}

impl<P: AsyncPlugin> RootContext for Root<P> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.plugin = configured(size, |bytes| load(bytes, &mut Proxy));
        let Some(plugin) = &self.plugin else { return false };
        self.executor.enter(self.id, || self.executor.start(root_future(plugin, RootHandle::new())));
        true
    }

    fn on_tick(&mut self) {
        self.executor.enter(self.id, || self.executor.on_tick());
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.executor.enter(self.id, || self.executor.on_queue_ready(queue));
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        // As for a plugin that does not wait: closed.
        let plugin = Rc::clone(self.plugin.as_ref()?);
        Some(Box::new(Stream { id, executor: Rc::clone(&self.executor), plugin, exchange: RefCell::new(None) }))
    }

    leave_out_root_calls!();
}

struct Stream<P> {
    id: u32,
    executor: Rc<Executor>,
    plugin: Rc<P>,
    exchange: RefCell<Option<Rc<Exchange>>>,
}

impl<P: AsyncPlugin> Stream<P> {
    fn step(&self, f: impl FnOnce(&Exchange) -> bool) -> Action {
        let exchange = self.exchange.borrow().clone();
        // Without an exchange the request has not come by here: there is nothing to decide.
        let Some(exchange) = exchange else { return Action::Continue };
        if self.executor.enter(self.id, || f(&exchange)) { Action::Continue } else { Action::Pause }
    }
}

impl<P: AsyncPlugin> Context for Stream<P> {
    fn on_done(&mut self) -> bool {
        self.executor.end_stream(self.id, self.exchange.take());
        true
    }

    callouts!();
    leave_out_context_calls!();
}

impl<P: AsyncPlugin> HttpContext for Stream<P> {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        let plugin = &self.plugin;
        let exchange =
            Exchange::new(self.id, Direction::Request, |handle| Task::new(self.id, stream_future(plugin, handle)));
        self.executor.add_stream(self.id, &exchange);
        self.exchange.replace(Some(exchange));
        self.step(|exchange| exchange.on_headers(Direction::Request, end))
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.step(|exchange| exchange.on_body(Direction::Request, size, end))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.step(|exchange| exchange.on_trailers(Direction::Request))
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.step(|exchange| exchange.on_headers(Direction::Response, end))
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.step(|exchange| exchange.on_body(Direction::Response, size, end))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.step(|exchange| exchange.on_trailers(Direction::Response))
    }

    fn on_log(&mut self) {
        self.plugin.on_log(&mut Proxy);
    }

    leave_out_http_calls!();
}
