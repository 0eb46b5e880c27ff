//! The proxy as a plugin sees it: header maps, bodies, properties, log, time.

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use crate::property::{Property, PropertyError, PropertyValue};
use crate::{HeaderMap, LocalResponse};

/// Names a header map of the stream. The numbers are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MapType {
    /// The request's headers, pseudo-headers first.
    RequestHeaders = 0,
    /// The request's trailers. Writing one while the last of the body is seen makes them.
    RequestTrailers = 1,
    /// The response's headers, `:status` first.
    ResponseHeaders = 2,
    /// The response's trailers. Writing one while the last of the body is seen makes them.
    ResponseTrailers = 3,
}

/// Names a buffer of the stream. The numbers are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BufferType {
    /// The part of the request's body that the host holds now.
    RequestBody = 0,
    /// The part of the response's body that the host holds now.
    ResponseBody = 1,
    /// What the client sent on a connection and the host holds now.
    DownstreamData = 2,
    /// What the upstream sent on a connection and the host holds now.
    UpstreamData = 3,
}

/// Names a severity of the proxy's log. The numbers are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum LogLevel {
    /// The finest.
    Trace = 0,
    /// For whoever debugs the plugin.
    Debug = 1,
    /// What Envoy's wasm logger prints by default, from here on.
    Info = 2,
    /// Works, but perhaps not as meant.
    Warn = 3,
    /// Does not work.
    Error = 4,
    /// Printed last by a module that panics.
    Critical = 5,
}

/// Names a kind of metric. The numbers are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricType {
    /// Only grows.
    Counter = 0,
    /// Goes up and down.
    Gauge = 1,
    /// Tells how values are spread.
    Histogram = 2,
}

/// Says that the host refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError {
    call: &'static str,
    status: u32,
}

impl HostError {
    /// Creates the error of the host call `call`, named as in the ABI, that returned `status`.
    pub const fn new(call: &'static str, status: u32) -> Self {
        Self { call, status }
    }

    /// Returns the status, numbered as in the ABI: 2 is a bad argument, or a map or buffer out of its phase.
    pub const fn status(self) -> u32 {
        self.status
    }

    /// Returns the host call, named as in the ABI.
    pub const fn call(self) -> &'static str {
        self.call
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.status {
            1 => "not found",
            2 => "bad argument, or not available in this phase",
            3 => "not serializable",
            4 => "not parsable",
            6 => "invalid memory access",
            7 => "empty",
            8 => "changed by another",
            10 => "internal failure",
            12 => "unimplemented",
            _ => "unknown status",
        };
        write!(f, "{} returned {}: {meaning}", self.call, self.status)
    }
}

impl std::error::Error for HostError {}

/// Bytes of a header's name and value. Names come in lower case; neither need be UTF-8.
pub type Header = (Vec<u8>, Vec<u8>);

/// Gives a plugin its proxy: in a module the host calls, in a test an [in-memory one](crate::testing).
///
/// A map or a buffer can be had in its own phase only; elsewhere the host answers with an error, where the proxy-wasm
/// crate would panic. Plugins take `&mut impl Host`, so that a module carries only the calls that it makes.
pub trait Host {
    /// Returns all headers of `map`, as the host wrote them: one allocation. Envoy returns none when the map is not
    /// available.
    fn header_map(&self, map: MapType) -> Result<HeaderMap, HostError>;

    /// Returns the first header called `name`, in any case, or none.
    fn header(&self, map: MapType, name: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Adds a header beside those of the same name. Envoy joins a few well-known ones with a comma.
    fn add_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError>;

    /// Puts one header in the place of all of the same name.
    fn replace_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError>;

    /// Removes all headers called `name`; succeeds when there are none.
    fn remove_header(&mut self, map: MapType, name: &str) -> Result<(), HostError>;

    /// Returns the bytes of `buffer` in `range`, as far as there are any.
    fn body(&self, buffer: BufferType, range: Range<usize>) -> Result<Vec<u8>, HostError>;

    /// Puts `bytes` in the place of the whole buffer. `content-length` is the plugin's to mend, a phase earlier.
    fn replace_body(&mut self, buffer: BufferType, bytes: &[u8]) -> Result<(), HostError>;

    /// Returns the property at `path`, such as `["source", "address"]`, encoded as the proxy encodes its type.
    fn property(&self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError>;

    /// Stores a property that the stream's other plugins read under the one-segment path `name`.
    fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), HostError>;

    /// Answers the request in the upstream's stead; [`Flow::Respond`](crate::Flow::Respond) is the usual way.
    fn send_local_response(&mut self, response: &LocalResponse) -> Result<(), HostError>;

    /// Closes the stream without an answer.
    fn reset_stream(&mut self) -> Result<(), HostError>;

    /// Writes one message to the proxy's log.
    fn log(&self, level: LogLevel, message: &str);

    /// Returns the wall clock's time.
    fn now(&self) -> Result<SystemTime, HostError>;

    /// Returns the VM's environment variable `name`, if it is set and UTF-8.
    fn env(&self, name: &str) -> Option<String>;

    /// Fills `bytes` with randomness that is fit for keys: from WASI in a module, from a fixed sequence in a test.
    ///
    /// ```
    /// use plugwright_sdk::Host;
    /// use plugwright_sdk::testing::InMemoryHost;
    ///
    /// let mut nonce = [0; 16];
    /// InMemoryHost::default().with_random_seed(7).random(&mut nonce).unwrap();
    /// ```
    fn random(&self, bytes: &mut [u8]) -> Result<(), HostError>;

    /// Lets a connection's data for the upstream, or its beginning, go on that a callback paused.
    fn resume_connection(&mut self) -> Result<(), HostError>;

    /// Closes the connection, once what has passed is written.
    fn close_connection(&mut self) -> Result<(), HostError>;

    /// Returns the value shared under `key` and its version; [`SharedData`](crate::SharedData) is the usual way.
    fn shared_data(&self, key: &str) -> Result<Option<(Vec<u8>, u32)>, HostError>;

    /// Shares a value under `key`. A `version` other than 0 that is not the current one fails with status 8.
    fn set_shared_data(&mut self, key: &str, value: &[u8], version: u32) -> Result<(), HostError>;

    /// Makes this plugin the owner of the queue `name`; [`Queue`](crate::Queue) is the usual way.
    fn register_queue(&mut self, name: &str) -> Result<u32, HostError>;

    /// Returns the queue `name` of the VM `vm_id`, an empty one being this VM's own.
    fn resolve_queue(&self, vm_id: &str, name: &str) -> Result<Option<u32>, HostError>;

    /// Appends to a queue.
    fn enqueue(&mut self, queue: u32, value: &[u8]) -> Result<(), HostError>;

    /// Takes from a queue; none when it is empty.
    fn dequeue(&mut self, queue: u32) -> Result<Option<Vec<u8>>, HostError>;

    /// Defines a metric; [`Counter`](crate::Counter), [`Gauge`](crate::Gauge) and [`Histogram`](crate::Histogram) are the
    /// usual way.
    fn define_metric(&mut self, kind: MetricType, name: &str) -> Result<u32, HostError>;

    /// Adds to a counter or a gauge.
    fn increment_metric(&mut self, metric: u32, by: i64) -> Result<(), HostError>;

    /// Sets a gauge, or adds a value to a histogram.
    fn record_metric(&mut self, metric: u32, value: u64) -> Result<(), HostError>;

    /// Returns a counter's or a gauge's value.
    fn metric(&self, metric: u32) -> Result<u64, HostError>;

    /// Calls a function that the proxy has beyond the ABI, such as Envoy's `compress`; status 1 is that it has none of
    /// that name.
    ///
    /// ```
    /// use plugwright_sdk::Host;
    /// use plugwright_sdk::testing::InMemoryHost;
    ///
    /// let mut host = InMemoryHost::default().with_foreign_function("reverse", |bytes| {
    ///     Ok(bytes.iter().rev().copied().collect())
    /// });
    /// assert_eq!(host.call_foreign_function("reverse", b"abc").unwrap(), b"cba");
    /// assert_eq!(host.call_foreign_function("compress", b"").unwrap_err().status(), 1);
    /// ```
    fn call_foreign_function(&mut self, name: &str, arguments: &[u8]) -> Result<Vec<u8>, HostError>;

    /// Returns a property in its own type; none when there is no such property here.
    ///
    /// ```
    /// # use plugwright_sdk::{Host, property};
    /// # fn f(host: &impl Host) -> Result<(), Box<dyn std::error::Error>> {
    /// let client = host.get(property::SOURCE_ADDRESS)?;
    /// let started = host.get(property::REQUEST_TIME)?;
    /// # Ok(())
    /// # }
    /// ```
    fn get<T: PropertyValue>(&self, property: Property<T>) -> Result<Option<T>, PropertyError>
    where
        Self: Sized,
    {
        property.get(self)
    }

    /// Returns all headers of `map` in their order, each a copy.
    fn headers(&self, map: MapType) -> Result<Vec<Header>, HostError> {
        Ok(self.header_map(map)?.to_vec())
    }

    /// Returns the values of all headers called `name`, in their order.
    ///
    /// [`header`](Self::header) returns the first only, which is not enough where the upstream might heed another.
    fn header_values(&self, map: MapType, name: &str) -> Result<Vec<Vec<u8>>, HostError> {
        Ok(self.header_map(map)?.values(name).map(<[u8]>::to_vec).collect())
    }

    /// Logs at debug level.
    fn debug(&self, message: &str) {
        self.log(LogLevel::Debug, message);
    }

    /// Logs at info level.
    fn info(&self, message: &str) {
        self.log(LogLevel::Info, message);
    }

    /// Logs at warn level.
    fn warn(&self, message: &str) {
        self.log(LogLevel::Warn, message);
    }

    /// Logs at error level.
    fn error(&self, message: &str) {
        self.log(LogLevel::Error, message);
    }
}
