//! The host of the proxy that a test is driving, for plugins that have none at hand.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::host::InMemoryHost;
use super::message::Message;
use crate::asynchronous::{AsyncHost, Direction, GrpcTarget, Received};
use crate::host::{BufferType, Host, HostError, LogLevel, MapType, MetricType};
use crate::{HeaderMap, LocalResponse};

/// The context that is not a stream's.
pub(super) const ROOT: u32 = 1;

thread_local! {
    static CURRENT: RefCell<Rc<RefCell<InMemoryHost>>> = RefCell::default();
}

/// The host of the proxy that a test is driving.
#[derive(Clone, Copy)]
pub(crate) struct Active;

/// Makes a host the active one while `f` runs.
pub(super) fn enter<T>(host: &Rc<RefCell<InMemoryHost>>, f: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(Rc::clone(host));
    let result = f();
    CURRENT.replace(outer);
    result
}

fn with<T>(f: impl FnOnce(&mut InMemoryHost) -> T) -> T {
    let host = CURRENT.with_borrow(Rc::clone);
    let mut host = host.borrow_mut();
    f(&mut host)
}

macro_rules! delegate {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $result:ty;)*
     $(mut fn $mut_name:ident(&mut self $(, $mut_arg:ident: $mut_type:ty)*) -> $mut_result:ty;)*) => {
        $(fn $name(&self $(, $arg: $type)*) -> $result {
            with(|host| host.$name($($arg),*))
        })*
        $(fn $mut_name(&mut self $(, $mut_arg: $mut_type)*) -> $mut_result {
            with(|host| host.$mut_name($($mut_arg),*))
        })*
    };
}

impl Host for Active {
    delegate! {
        fn header_map(&self, map: MapType) -> Result<HeaderMap, HostError>;
        fn header(&self, map: MapType, name: &str) -> Result<Option<Vec<u8>>, HostError>;
        fn body(&self, buffer: BufferType, range: Range<usize>) -> Result<Vec<u8>, HostError>;
        fn property(&self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError>;
        fn log(&self, level: LogLevel, message: &str) -> ();
        fn now(&self) -> Result<SystemTime, HostError>;
        fn env(&self, name: &str) -> Option<String>;
        fn random(&self, bytes: &mut [u8]) -> Result<(), HostError>;
        fn shared_data(&self, key: &str) -> Result<Option<(Vec<u8>, u32)>, HostError>;
        fn resolve_queue(&self, vm_id: &str, name: &str) -> Result<Option<u32>, HostError>;
        fn metric(&self, metric: u32) -> Result<u64, HostError>;
        mut fn add_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError>;
        mut fn replace_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError>;
        mut fn remove_header(&mut self, map: MapType, name: &str) -> Result<(), HostError>;
        mut fn replace_body(&mut self, buffer: BufferType, bytes: &[u8]) -> Result<(), HostError>;
        mut fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), HostError>;
        mut fn send_local_response(&mut self, response: &LocalResponse) -> Result<(), HostError>;
        mut fn reset_stream(&mut self) -> Result<(), HostError>;
        mut fn resume_connection(&mut self) -> Result<(), HostError>;
        mut fn close_connection(&mut self) -> Result<(), HostError>;
        mut fn set_shared_data(&mut self, key: &str, value: &[u8], version: u32) -> Result<(), HostError>;
        mut fn register_queue(&mut self, name: &str) -> Result<u32, HostError>;
        mut fn enqueue(&mut self, queue: u32, value: &[u8]) -> Result<(), HostError>;
        mut fn dequeue(&mut self, queue: u32) -> Result<Option<Vec<u8>>, HostError>;
        mut fn define_metric(&mut self, kind: MetricType, name: &str) -> Result<u32, HostError>;
        mut fn increment_metric(&mut self, metric: u32, by: i64) -> Result<(), HostError>;
        mut fn record_metric(&mut self, metric: u32, value: u64) -> Result<(), HostError>;
        mut fn call_foreign_function(&mut self, name: &str, arguments: &[u8]) -> Result<Vec<u8>, HostError>;
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
        with(|host| host.waits.call(&host.clock, cluster, request, timeout))
    }

    fn call_response(&self, _: usize, _: usize, _: usize) -> Option<Received> {
        with(|host| host.waits.response())
    }

    fn grpc_call(&mut self, target: GrpcTarget<'_>, message: &[u8], timeout: Duration) -> Result<u32, HostError> {
        with(|host| host.waits.grpc_call(&host.clock, target, message, timeout))
    }

    fn grpc_stream(&mut self, target: GrpcTarget<'_>) -> Result<u32, HostError> {
        with(|host| host.waits.grpc_stream(&host.clock, target))
    }

    fn grpc_send(&mut self, token: u32, message: &[u8]) -> Result<(), HostError> {
        with(|host| host.waits.grpc_send(&host.clock, token, message))
    }

    fn grpc_close(&mut self, token: u32) -> Result<(), HostError> {
        with(|host| host.waits.grpc_close(&host.clock, token))
    }

    fn grpc_cancel(&mut self, token: u32) {
        with(|host| host.waits.grpc_cancel(token));
    }

    fn grpc_message(&self, _: usize) -> Result<Vec<u8>, HostError> {
        Ok(with(|host| host.waits.message()))
    }

    fn grpc_metadata(&self, _: bool) -> Result<HeaderMap, HostError> {
        Ok(with(|host| host.waits.metadata()))
    }

    fn grpc_status_message(&self) -> String {
        with(|host| host.waits.status())
    }

    fn set_tick_period(&mut self, period: Duration) {
        with(|host| host.waits.set_tick_period(host.clock.since_epoch(), period));
    }

    fn set_context(&mut self, context: u32) {
        with(|host| host.in_root = context == ROOT);
    }

    fn resume(&mut self, direction: Direction) {
        with(|host| host.resumed[direction as usize] = true);
    }
}
