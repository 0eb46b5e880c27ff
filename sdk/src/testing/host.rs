//! The host that a plugin under test talks to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::{Clock, Message};
use crate::LocalResponse;
use crate::host::{BufferType, Header, Host, HostError, LogLevel, MapType};

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;

/// Where in its life the stream is; it decides what the host gives out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Idle,
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseBody,
    /// All maps can be read.
    Log,
}

/// Keeps in memory what a proxy would hold: one stream, its properties, the log, the environment, the time.
#[derive(Debug, Default)]
pub struct InMemoryHost {
    pub(super) phase: Phase,
    pub(super) request: Message,
    pub(super) response: Message,
    pub(super) buffer: Vec<u8>,
    pub(super) local: Option<LocalResponse>,
    pub(super) reset: bool,
    properties: HashMap<String, Vec<u8>>,
    environment: HashMap<String, String>,
    pub(super) clock: Clock,
    random: Cell<u64>,
    pub(super) waits: super::waits::Waits,
    logs: RefCell<Vec<(LogLevel, String)>>,
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
        self.environment.insert(name.to_owned(), value.to_owned());
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

    pub(super) fn begin(&mut self, request: Message, response: Message) {
        self.request = request;
        self.response = response;
        self.buffer.clear();
        self.local = None;
        self.reset = false;
    }

    pub(super) fn take_body(&mut self, buffer: BufferType) -> Vec<u8> {
        std::mem::take(self.body_of(buffer))
    }

    pub(super) fn put_body(&mut self, buffer: BufferType, bytes: Vec<u8>) {
        *self.body_of(buffer) = bytes;
    }

    pub(super) fn logs(&self) -> Vec<(LogLevel, String)> {
        self.logs.borrow().clone()
    }

    fn body_of(&mut self, buffer: BufferType) -> &mut Vec<u8> {
        match buffer {
            BufferType::RequestBody => &mut self.request.body,
            BufferType::ResponseBody => &mut self.response.body,
        }
    }

    fn map(&self, map: MapType) -> Option<&Vec<Header>> {
        match (map, self.phase) {
            (MapType::RequestHeaders, Phase::RequestHeaders | Phase::Log) => Some(&self.request.headers),
            (MapType::ResponseHeaders, Phase::ResponseHeaders | Phase::Log) => Some(&self.response.headers),
            _ => None,
        }
    }

    fn map_mut(&mut self, call: &'static str, map: MapType) -> Result<&mut Vec<Header>, HostError> {
        match (map, self.phase) {
            (MapType::RequestHeaders, Phase::RequestHeaders) => Ok(&mut self.request.headers),
            (MapType::ResponseHeaders, Phase::ResponseHeaders) => Ok(&mut self.response.headers),
            _ => Err(HostError::new(call, BAD_ARGUMENT)),
        }
    }

    fn has(&self, buffer: BufferType) -> bool {
        matches!(
            (buffer, self.phase),
            (BufferType::RequestBody, Phase::RequestBody) | (BufferType::ResponseBody, Phase::ResponseBody)
        )
    }
}

impl Host for InMemoryHost {
    fn headers(&self, map: MapType) -> Result<Vec<Header>, HostError> {
        Ok(self.map(map).cloned().unwrap_or_default())
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
        let bytes = if self.has(buffer) { self.buffer.as_slice() } else { &[] };
        let end = range.end.min(bytes.len());
        Ok(bytes.get(range.start.min(end)..end).unwrap_or_default().to_vec())
    }

    fn replace_body(&mut self, buffer: BufferType, bytes: &[u8]) -> Result<(), HostError> {
        if !self.has(buffer) {
            return Err(HostError::new("proxy_set_buffer_bytes", BAD_ARGUMENT));
        }
        bytes.clone_into(&mut self.buffer);
        Ok(())
    }

    fn property(&self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.properties.get(&path.join("\0")).cloned())
    }

    fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), HostError> {
        if self.phase == Phase::Idle {
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
        self.environment.get(name).cloned()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), HostError> {
        for byte in bytes {
            *byte = split_mix(&self.random);
        }
        Ok(())
    }
}

/// The next byte of the sequence `SplitMix64`, which differs from call to call and is the same in every run.
fn split_mix(state: &Cell<u64>) -> u8 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 56) as u8
}
