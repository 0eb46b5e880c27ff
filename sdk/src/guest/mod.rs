//! Runs a plugin in a module: proxy-wasm's contexts on one side, [`Plugin`] on the other.

mod asynchronous;
pub(crate) mod hostcalls;
mod leave_out;
mod network;
mod waits;

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, GrpcStatusCode, Status};

pub use self::asynchronous::start_async;
use self::hostcalls::Proxy;
use self::leave_out::{leave_out_context_calls, leave_out_http_calls, leave_out_root_calls};
pub use self::network::{start_async_network, start_network};
use crate::asynchronous::AsyncHost as _;
use crate::host::{Host as _, LogLevel};
use crate::plugin::{load, settle};
use crate::{ConfigError, Flow, Plugin, Queue};

/// The callbacks about callouts, for a context with an executor.
macro_rules! callouts {
    () => {
        fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, trailers: usize) {
            let event = CalloutEvent::Response { headers, body_size, trailers };
            self.executor.enter(self.id, || self.executor.on_callout(token, event));
        }

        fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
            // A call that went well has a message, and its status is not told.
            let event =
                if status == 0 { CalloutEvent::GrpcAnswer { size } } else { CalloutEvent::GrpcClose { status } };
            self.executor.enter(self.id, || self.executor.on_callout(token, event));
        }

        fn on_grpc_stream_initial_metadata(&mut self, token: u32, _: u32) {
            self.executor.enter(self.id, || self.executor.on_callout(token, CalloutEvent::GrpcMetadata));
        }

        fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
            self.executor.enter(self.id, || self.executor.on_callout(token, CalloutEvent::GrpcMessage { size }));
        }

        fn on_grpc_stream_trailing_metadata(&mut self, token: u32, _: u32) {
            self.executor.enter(self.id, || self.executor.on_callout(token, CalloutEvent::GrpcTrailers));
        }

        fn on_grpc_stream_close(&mut self, token: u32, status: u32) {
            self.executor.enter(self.id, || self.executor.on_callout(token, CalloutEvent::GrpcClose { status }));
        }
    };
}

use callouts;

/// Makes `P` the module's plugin. [`register!`](crate::register) calls it from `_initialize`.
pub fn start<P: Plugin>() {
    prepare();
    proxy_wasm::set_root_context(|_| Box::new(Root::<P> { plugin: None }));
}

/// What every plugin's module does first.
fn prepare() {
    #[cfg(feature = "log")]
    crate::logger::install();
    std::panic::set_hook(Box::new(|panic| Proxy.log(LogLevel::Critical, &panic.to_string())));
}

/// One configuration of the plugin, shared by its streams.
struct Root<P> {
    plugin: Option<Rc<P>>,
}

impl<P: Plugin> Context for Root<P> {
    leave_out_context_calls!();
}

impl<P: Plugin> RootContext for Root<P> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.plugin = configured(size, |bytes| load(bytes, &mut Proxy)).map(Rc::new);
        let Some(plugin) = &self.plugin else { return false };
        if let Some(period) = plugin.tick_period() {
            Proxy.set_tick_period(period);
        }
        true
    }

    fn on_tick(&mut self) {
        if let Some(plugin) = &self.plugin {
            plugin.on_tick(&mut Proxy);
        }
    }

    fn on_queue_ready(&mut self, token: u32) {
        if let Some(plugin) = &self.plugin {
            plugin.on_queue_ready(&mut Proxy, Queue::from_token(token));
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        // A host that opens a stream on a rejected configuration gets none, which proxy-wasm turns into a trap: closed.
        let plugin = Rc::clone(self.plugin.as_ref()?);
        Some(Box::new(Stream { plugin }))
    }

    leave_out_root_calls!();
}

/// Builds a plugin from its configuration's bytes, or says in the log why not.
fn configured<T>(size: usize, load: impl FnOnce(&[u8]) -> Result<T, ConfigError>) -> Option<T> {
    let configuration = match size {
        0 => Ok(Vec::new()),
        _ => hostcalls::plugin_configuration().map_err(|error| error.to_string()),
    };
    match configuration.and_then(|bytes| load(&bytes).map_err(|error| error.to_string())) {
        Ok(plugin) => Some(plugin),
        Err(error) => {
            Proxy.error(&("configuration rejected: ".to_owned() + &error));
            None
        }
    }
}

struct Stream<P> {
    plugin: Rc<P>,
}

impl<P: Plugin> Context for Stream<P> {
    leave_out_context_calls!();
}

impl<P: Plugin> HttpContext for Stream<P> {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        act(self.plugin.on_request_headers(&mut Proxy, end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        act(self.plugin.on_request_body(&mut Proxy, size, end_of_stream))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        act(self.plugin.on_response_headers(&mut Proxy, end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        act(self.plugin.on_response_body(&mut Proxy, size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        act(self.plugin.on_request_trailers(&mut Proxy))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        act(self.plugin.on_response_trailers(&mut Proxy))
    }

    fn on_log(&mut self) {
        self.plugin.on_log(&mut Proxy);
    }

    leave_out_http_calls!();
}

fn act(flow: Flow) -> Action {
    if settle(flow, &mut Proxy) { Action::Continue } else { Action::Pause }
}
