//! The host that a plugin under test talks to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::shared::Shared;
use super::{Clock, Message};
use crate::asynchronous::Direction;
use crate::host::{BufferType, Header, Host, HostError, LogLevel, MapType, MetricType};
use crate::{HeaderMap, LocalResponse};

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;

/// Where in its life the stream is; it decides what the host gives out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Idle,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Downstream,
    Upstream,
    /// All maps but the request's trailers can be read.
    Log,
}

type ForeignFunction = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, HostError>>;

/// Keeps in memory what a proxy would hold: one stream, its properties, the log, the environment, the time, and what
/// plugins share.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct InMemoryHost {
    pub(super) phase: Phase,
    /// A callback runs that is not about a stream.
    pub(super) in_root: bool,
    /// The last of a body is being seen.
    ending: bool,
    pub(super) request: Message,
    pub(super) response: Message,
    pub(super) buffer: Vec<u8>,
    pub(super) downstream: Vec<u8>,
    pub(super) upstream: Vec<u8>,
    pub(super) to_upstream: Vec<u8>,
    pub(super) to_client: Vec<u8>,
    pub(super) local: Option<LocalResponse>,
    pub(super) reset: bool,
    pub(super) closed: bool,
    /// Which directions were told to go on, by their number.
    pub(super) resumed: [bool; 3],
    pub(super) properties: HashMap<String, Vec<u8>>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) clock: Clock,
    pub(super) random: Cell<u64>,
    shared: Rc<RefCell<Shared>>,
    pub(super) waits: super::waits::Waits,
    foreign: HashMap<String, ForeignFunction>,
    pub(super) logs: RefCell<Vec<(LogLevel, String)>>,
}

impl std::fmt::Debug for InMemoryHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { phase, clock, logs, .. } = self;
        let mut debug = f.debug_struct("InMemoryHost");
        debug.field("phase", phase).field("clock", clock).field("logs", logs).finish_non_exhaustive()
    }
}

impl InMemoryHost {
    /// Sets a property, by its path.
    #[must_use]
    pub fn with_property(mut self, path: &[&str], value: impl Into<Vec<u8>>) -> Self {
        self.properties.insert(path.join("\0"), value.into());
        self
    }

    /// Sets a variable of the VM's environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the clock to this long after the Unix epoch, where it stands at first.
    #[must_use]
    pub fn with_time(self, since_epoch: Duration) -> Self {
        self.clock.set(since_epoch);
        self
    }

    /// Takes the time from a clock that the test keeps.
    #[must_use]
    pub fn with_clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Starts the sequence that plugins get as randomness elsewhere. The same seed gives the same sequence.
    #[must_use]
    pub fn with_random_seed(self, seed: u64) -> Self {
        self.random.set(seed);
        self
    }

    /// Gives the proxy a function beyond the ABI. In the harness a plugin has the harness's own instead.
    #[must_use]
    pub fn with_foreign_function(
        mut self,
        name: &str,
        function: impl Fn(&[u8]) -> Result<Vec<u8>, HostError> + 'static,
    ) -> Self {
        self.foreign.insert(name.to_owned(), Box::new(function));
        self
    }

    /// Creates another worker's host: shared data, queues and metrics are the same, everything else is its own.
    #[must_use]
    pub fn sharing(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), ..Self::default() }
    }

    /// Returns the value of the counter or gauge `name`, with its labels as they are in the name.
    pub fn metric_named(&self, name: &str) -> Option<u64> {
        self.shared.borrow().metric_named(name)
    }

    pub(super) fn begin(&mut self, request: Message, response: Message) {
        self.request = request;
        self.response = response;
        self.buffer.clear();
        self.local = None;
        self.reset = false;
        self.closed = false;
    }

    pub(super) fn begin_connection(&mut self) {
        self.begin(Message::default(), Message::default());
        self.resumed[Direction::Downstream as usize] = false;
        for data in [&mut self.downstream, &mut self.upstream, &mut self.to_upstream, &mut self.to_client] {
            data.clear();
        }
    }

    /// Enters a direction's headers; its body, and whether trailers follow.
    pub(super) fn enter_headers(&mut self, phase: Phase, direction: Direction) -> (Vec<u8>, bool) {
        self.enter_phase(phase, direction);
        let message = if direction == Direction::Response { &mut self.response } else { &mut self.request };
        (std::mem::take(&mut message.body), !message.trailers.is_empty())
    }

    /// Adds a part of a body to what is held of it; how much that is now.
    pub(super) fn enter_body(&mut self, phase: Phase, direction: Direction, part: &[u8], end: bool) -> usize {
        self.enter_phase(phase, direction);
        self.ending = end;
        self.buffer.extend(part);
        self.buffer.len()
    }

    pub(super) fn enter_phase(&mut self, phase: Phase, direction: Direction) {
        self.phase = phase;
        self.ending = false;
        self.resumed[direction as usize] = false;
    }

    /// Adds to what is held of a connection's data; how much that is now.
    pub(super) fn enter_data(&mut self, buffer: BufferType, bytes: &[u8]) -> usize {
        let (phase, held) = match buffer {
            BufferType::UpstreamData => (Phase::Upstream, &mut self.upstream),
            _ => (Phase::Downstream, &mut self.downstream),
        };
        self.phase = phase;
        self.resumed[Direction::Downstream as usize] = false;
        held.extend(bytes);
        held.len()
    }

    pub(super) fn body_of(&mut self, direction: Direction) -> &mut Vec<u8> {
        if direction == Direction::Response { &mut self.response.body } else { &mut self.request.body }
    }

    fn map(&self, map: MapType) -> Option<&Vec<Header>> {
        if self.in_root {
            return None;
        }
        match (map, self.phase) {
            (MapType::RequestHeaders, Phase::RequestHeaders | Phase::Log) => Some(&self.request.headers),
            (MapType::RequestTrailers, Phase::RequestTrailers) => Some(&self.request.trailers),
            (MapType::ResponseHeaders, Phase::ResponseHeaders | Phase::Log) => Some(&self.response.headers),
            (MapType::ResponseTrailers, Phase::ResponseTrailers | Phase::Log) => Some(&self.response.trailers),
            _ => None,
        }
    }

    fn map_mut(&mut self, call: &'static str, map: MapType) -> Result<&mut Vec<Header>, HostError> {
        match (map, self.phase) {
            _ if self.in_root => Err(HostError::new(call, BAD_ARGUMENT)),
            (MapType::RequestHeaders, Phase::RequestHeaders) => Ok(&mut self.request.headers),
            (MapType::RequestTrailers, Phase::RequestTrailers) => Ok(&mut self.request.trailers),
            (MapType::RequestTrailers, Phase::RequestBody) if self.ending => Ok(&mut self.request.trailers),
            (MapType::ResponseHeaders, Phase::ResponseHeaders) => Ok(&mut self.response.headers),
            (MapType::ResponseTrailers, Phase::ResponseTrailers) => Ok(&mut self.response.trailers),
            (MapType::ResponseTrailers, Phase::ResponseBody) if self.ending => Ok(&mut self.response.trailers),
            _ => Err(HostError::new(call, BAD_ARGUMENT)),
        }
    }

    fn held(&self, buffer: BufferType) -> Option<&Vec<u8>> {
        match (buffer, self.phase) {
            _ if self.in_root => None,
            (BufferType::RequestBody, Phase::RequestBody | Phase::RequestTrailers)
            | (BufferType::ResponseBody, Phase::ResponseBody | Phase::ResponseTrailers) => Some(&self.buffer),
            (BufferType::DownstreamData, Phase::Downstream) => Some(&self.downstream),
            (BufferType::UpstreamData, Phase::Upstream) => Some(&self.upstream),
            _ => None,
        }
    }

    fn held_mut(&mut self, buffer: BufferType) -> Option<&mut Vec<u8>> {
        self.held(buffer)?;
        Some(match buffer {
            BufferType::RequestBody | BufferType::ResponseBody => &mut self.buffer,
            BufferType::DownstreamData => &mut self.downstream,
            BufferType::UpstreamData => &mut self.upstream,
        })
    }
}

impl Host for InMemoryHost {
    fn header_map(&self, map: MapType) -> Result<HeaderMap, HostError> {
        Ok(self.map(map).map(|headers| HeaderMap::of(headers)).unwrap_or_default())
    }

    fn header(&self, map: MapType, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        let headers = self.map(map).ok_or(HostError::new("proxy_get_header_map_value", BAD_ARGUMENT))?;
        let first = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        Ok(first.map(|(_, value)| value.clone()))
    }

    fn add_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError> {
        let headers = self.map_mut("proxy_add_header_map_value", map)?;
        headers.push((name.to_ascii_lowercase().into_bytes(), value.as_bytes().to_vec()));
        Ok(())
    }

    fn replace_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError> {
        let headers = self.map_mut("proxy_replace_header_map_value", map)?;
        headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name.as_bytes()));
        headers.push((name.to_ascii_lowercase().into_bytes(), value.as_bytes().to_vec()));
        Ok(())
    }

    fn remove_header(&mut self, map: MapType, name: &str) -> Result<(), HostError> {
        let headers = self.map_mut("proxy_remove_header_map_value", map)?;
        headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name.as_bytes()));
        Ok(())
    }

    fn body(&self, buffer: BufferType, range: Range<usize>) -> Result<Vec<u8>, HostError> {
        let bytes = self.held(buffer).map(Vec::as_slice).unwrap_or_default();
        let end = range.end.min(bytes.len());
        Ok(bytes.get(range.start.min(end)..end).unwrap_or_default().to_vec())
    }

    fn replace_body(&mut self, buffer: BufferType, bytes: &[u8]) -> Result<(), HostError> {
        let held = self.held_mut(buffer).ok_or(HostError::new("proxy_set_buffer_bytes", BAD_ARGUMENT))?;
        bytes.clone_into(held);
        Ok(())
    }

    fn property(&self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.properties.get(&path.join("\0")).cloned())
    }

    fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), HostError> {
        if self.phase == Phase::Idle || self.in_root {
            return Err(HostError::new("proxy_set_property", NOT_FOUND));
        }
        self.properties.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    fn send_local_response(&mut self, response: &LocalResponse) -> Result<(), HostError> {
        // The first of several wins, as in Envoy.
        self.local.get_or_insert_with(|| response.clone());
        Ok(())
    }

    fn reset_stream(&mut self) -> Result<(), HostError> {
        self.reset = true;
        Ok(())
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.logs.borrow_mut().push((level, message.to_owned()));
    }

    fn now(&self) -> Result<SystemTime, HostError> {
        Ok(self.clock.now())
    }

    fn env(&self, name: &str) -> Option<String> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), HostError> {
        for byte in bytes {
            *byte = split_mix(&self.random);
        }
        Ok(())
    }

    fn resume_connection(&mut self) -> Result<(), HostError> {
        self.resumed[Direction::Downstream as usize] = true;
        Ok(())
    }

    fn close_connection(&mut self) -> Result<(), HostError> {
        self.closed = true;
        Ok(())
    }

    fn shared_data(&self, key: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        Ok(self.shared.borrow().data(key))
    }

    fn set_shared_data(&mut self, key: &str, value: &[u8], version: u32) -> Result<(), HostError> {
        self.shared.borrow_mut().set_data(key, value, version)
    }

    fn register_queue(&mut self, name: &str) -> Result<u32, HostError> {
        Ok(self.shared.borrow_mut().register_queue(name))
    }

    fn resolve_queue(&self, vm_id: &str, name: &str) -> Result<Option<u32>, HostError> {
        // The VM under test has no id, as under Istio.
        Ok(if vm_id.is_empty() { self.shared.borrow().queue(name) } else { None })
    }

    fn enqueue(&mut self, queue: u32, value: &[u8]) -> Result<(), HostError> {
        self.shared.borrow_mut().enqueue(queue, value)?;
        self.waits.queue_ready(&self.clock, queue);
        Ok(())
    }

    fn dequeue(&mut self, queue: u32) -> Result<Option<Vec<u8>>, HostError> {
        self.shared.borrow_mut().dequeue(queue)
    }

    fn define_metric(&mut self, kind: MetricType, name: &str) -> Result<u32, HostError> {
        Ok(self.shared.borrow_mut().define_metric(kind, name))
    }

    fn increment_metric(&mut self, metric: u32, by: i64) -> Result<(), HostError> {
        self.shared.borrow_mut().increment_metric(metric, by)
    }

    fn record_metric(&mut self, metric: u32, value: u64) -> Result<(), HostError> {
        self.shared.borrow_mut().record_metric(metric, value)
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        self.shared.borrow().metric(metric)
    }

    fn call_foreign_function(&mut self, name: &str, arguments: &[u8]) -> Result<Vec<u8>, HostError> {
        let function = self.foreign.get(name).ok_or(HostError::new("proxy_call_foreign_function", NOT_FOUND))?;
        function(arguments)
    }
}

/// The next byte of the sequence `SplitMix64`, which differs from call to call and is the same in every run. The
/// harness has the same.
fn split_mix(state: &Cell<u64>) -> u8 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 56) as u8
}
