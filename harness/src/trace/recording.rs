//! Collects what happens to one stream. A stream that is not recorded has none, and pays one branch for each question.

use std::rc::Rc;
use std::time::Instant as RealInstant;

use bytes::Bytes;

use super::mask::Mask;
use super::{
    BodyChange, CallToken, Callback, Callout, ChangeKind, Content, Event, FilterKind, FilterTime, HeaderChange,
    Settings, Subject, Trace, UpstreamTime, What,
};
use crate::abi::LogLevel;
use crate::buffer::Buffer;
use crate::hazard::Hazard;
use crate::header_map::HeaderMap;
use crate::stream::state::{Body, Direction, LocalReply, StreamState, View};
use tokio::time::Instant;

/// Events of one trace; a body in a million chunks must not cost the host more.
const MAX_EVENTS: usize = 1000;
/// Longer log lines, details and header values are cut.
const MAX_TEXT: usize = 4096;
/// Headers of a message that are listed.
const MAX_HEADERS: usize = 256;
/// What is looked at beyond an excerpt, so that a secret at its end is known as one.
const WINDOW: usize = 4096;

const MAPS: [&str; 4] = ["request_headers", "request_trailers", "response_headers", "response_trailers"];
const BODIES: [&str; 4] = ["request_body", "response_body", "downstream_data", "upstream_data"];

/// What a worker needs to record: what is asked for, and the values that are secret whoever shows them.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) settings: Settings,
    /// The values of plugins' environments.
    pub(crate) secrets: Vec<String>,
}

/// One stream, as far as it has come.
pub(crate) struct Recording {
    start: Rc<Start>,
    began: Instant,
    head: Head,
    filters: Vec<FilterTime>,
    events: Vec<Event>,
    recorded: usize,
    omitted: usize,
    open: Option<Open>,
    /// The maps as they were when somebody last looked: whoever changed them since was not a filter.
    seen: [Option<HeaderMap>; 4],
    upstream: Option<(Instant, UpstreamTime)>,
    calls: u64,
}

/// What the client sent.
#[derive(Default)]
struct Head {
    method: String,
    authority: String,
    path: String,
}

impl Head {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &[u8]| headers.get(name).map(lossy).unwrap_or_default();
        Self { method: text(b":method"), authority: text(b":authority"), path: text(b":path") }
    }
}

/// The callback that is running.
struct Open {
    filter: usize,
    callback: &'static str,
    /// What a callback takes is real, whatever a test's clock shows.
    began: RealInstant,
    bytes: Option<usize>,
    end: bool,
    bodies: [Bytes; 4],
    inside: Vec<Event>,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is in it is not masked yet.
        f.debug_struct("Recording").field("events", &self.recorded).finish_non_exhaustive()
    }
}

/// What is known of a stream when it is over.
pub(crate) struct Outcome<'a> {
    pub(crate) kind: Subject,
    pub(crate) status: Option<u16>,
    pub(crate) answered_by: Option<&'a str>,
}

impl Recording {
    pub(crate) fn new(start: Rc<Start>, state: &StreamState) -> Box<Self> {
        let head = Head::of(&state.request_headers);
        Box::new(Self {
            start,
            began: state.started,
            head,
            filters: Vec::new(),
            events: Vec::new(),
            recorded: 0,
            omitted: 0,
            open: None,
            seen: [const { None }; 4],
            upstream: None,
            calls: 0,
        })
    }

    /// What the client sent, where that comes later than the stream.
    pub(crate) fn asked(&mut self, headers: &HeaderMap) {
        self.head = Head::of(headers);
    }

    /// A filter of the chain, in order.
    pub(crate) fn filter(&mut self, name: &str, kind: FilterKind, skipped: bool) {
        self.filters.push(FilterTime { name: name.to_owned(), kind, skipped, took: std::time::Duration::ZERO });
    }

    /// Filters that are skipped have no place in the stream, but one in the trace.
    fn place(&self, filter: usize) -> usize {
        let mut taking_part = self.filters.iter().enumerate().filter(|(_, filter)| !filter.skipped);
        taking_part.nth(filter).map_or(filter, |(place, _)| place)
    }

    fn push(&mut self, filter: Option<usize>, what: What) {
        if self.recorded >= MAX_EVENTS {
            self.omitted += 1;
            return;
        }
        self.recorded += 1;
        let event = Event { at: self.began.elapsed(), filter, what };
        match &mut self.open {
            Some(open) if filter.is_none() || filter == Some(open.filter) => open.inside.push(event),
            _ => self.events.push(event),
        }
    }

    /// A callback of it is running.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn log(&mut self, filter: usize, level: LogLevel, message: &str) {
        let what = What::Log { level: level.as_str(), message: cut(message, MAX_TEXT) };
        self.push(Some(self.place(filter)), what);
    }

    pub(crate) fn hazard(&mut self, hazard: &Hazard<'_>) {
        let what = What::Hazard {
            kind: hazard.kind.name(),
            callback: hazard.callback.to_owned(),
            hostcall: hazard.hostcall.map(str::to_owned),
            explanation: cut(hazard.explanation, MAX_TEXT),
        };
        let filter = self.filters.iter().position(|filter| filter.name == hazard.filter);
        self.push(filter, what);
    }

    pub(crate) fn local_reply(&mut self, filter: Option<usize>, reply: &LocalReply) {
        let body = self.content(&reply.body);
        let what = What::LocalReply { status: reply.status, details: cut(&reply.details, MAX_TEXT), body };
        self.push(filter.map(|filter| self.place(filter)), what);
    }

    pub(crate) fn reset(&mut self, details: &str) {
        self.push(None, What::Reset { details: cut(details, MAX_TEXT) });
    }

    pub(crate) fn message(&mut self, direction: Direction, from: &'static str, headers: &HeaderMap, end: bool) {
        let listed = headers.iter().take(MAX_HEADERS).map(|(name, value)| (lossy(name), lossy(value))).collect();
        let direction = if direction == Direction::Request { "request" } else { "response" };
        self.push(None, What::Message { direction, from, headers: listed, end_of_stream: end });
    }

    /// The request's headers go to the upstream.
    pub(crate) fn upstream_asked(&mut self) {
        let times = UpstreamTime { address: None, status: None, headers: None, end: None };
        self.upstream = Some((Instant::now(), times));
    }

    /// Its response's headers are there.
    pub(crate) fn upstream_answered(&mut self, state: &StreamState, end: bool) {
        if let Some((asked, times)) = &mut self.upstream {
            times.headers = Some(asked.elapsed());
            times.status = state.status();
            times.address = state.upstream.map(|peer| peer.remote.to_string());
        }
        if end {
            self.upstream_ended();
        }
        if let Some(headers) = &state.response_headers {
            self.message(Direction::Response, "upstream", headers, end);
        }
    }

    /// A local reply's headers are there.
    pub(crate) fn answer(&mut self, state: &StreamState, end: bool) {
        if let Some(headers) = &state.response_headers {
            self.message(Direction::Response, "proxy", headers, end);
        }
    }

    /// Its response is complete.
    pub(crate) fn upstream_ended(&mut self) {
        if let Some((asked, times)) = &mut self.upstream {
            times.end.get_or_insert_with(|| asked.elapsed());
        }
    }

    /// A number for a call that has no token.
    pub(crate) fn next_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    pub(crate) fn callout(&mut self, filter: usize, callout: Callout) {
        self.push(Some(self.place(filter)), What::Callout(callout));
    }

    /// A callout ended: with a status, or for a reason.
    pub(crate) fn callout_ended(&mut self, token: CallToken, status: Option<u32>, failure: Option<&'static str>) {
        let now = self.began.elapsed();
        let open = self.open.as_mut().map(|open| &mut open.inside);
        let ended = |events: &mut Vec<Event>| {
            end_call(events, token, |at, callout| {
                callout.took = Some(now.saturating_sub(at));
                callout.status = status;
                callout.failure = failure;
                callout.token = CallToken::None;
            })
        };
        if !open.is_some_and(ended) {
            ended(&mut self.events);
        }
    }

    fn begin(&mut self, state: &mut StreamState, filter: usize, callback: &'static str, saw: Option<(usize, bool)>) {
        // A callback within another one is a part of it.
        if self.open.is_some() {
            return;
        }
        self.look(state);
        let bodies = state.view(filter).map(bodies).unwrap_or_default();
        let (bytes, end) = saw.map_or((None, false), |(bytes, end)| (Some(bytes), end));
        let filter = self.place(filter);
        self.open = Some(Open { filter, callback, began: RealInstant::now(), bytes, end, bodies, inside: Vec::new() });
    }

    fn end(&mut self, state: &mut StreamState, filter: usize, outcome: Answer) {
        if self.open.as_ref().is_none_or(|open| open.filter != self.place(filter)) {
            return;
        }
        let Some(open) = self.open.take() else { return };
        let took = open.began.elapsed();
        if let Some(filter) = self.filters.get_mut(open.filter) {
            filter.took += took;
        }
        let headers = self.changes(state);
        let after = state.view(filter).map(bodies).unwrap_or_default();
        let mut changed = Vec::new();
        for (name, (before, after)) in BODIES.iter().zip(open.bodies.iter().zip(&after)) {
            let same = (before.as_ptr(), before.len()) == (after.as_ptr(), after.len()) || before == after;
            if !same {
                changed.push(BodyChange { body: name, from: self.content(before), to: self.content(after) });
            }
        }
        let (action, failed) = match outcome {
            Answer::Action(action) => (Some(action), false),
            Answer::Nothing => (None, false),
            Answer::Failed => (None, true),
        };
        let callback = Callback {
            callback: open.callback,
            bytes: open.bytes,
            end_of_stream: open.end,
            action,
            failed,
            took,
            headers,
            bodies: changed,
            events: open.inside,
        };
        if self.recorded >= MAX_EVENTS {
            self.omitted += 1 + callback.events.len();
            return;
        }
        self.recorded += 1;
        let at = self.began.elapsed().saturating_sub(took);
        self.events.push(Event { at, filter: Some(open.filter), what: What::Callback(callback) });
    }

    /// Takes note of the maps as they are.
    fn look(&mut self, state: &StreamState) {
        for (seen, now) in self.seen.iter_mut().zip(maps(state)) {
            if !same(seen.as_ref(), now) {
                *seen = now.cloned();
            }
        }
    }

    fn changes(&mut self, state: &StreamState) -> Vec<HeaderChange> {
        let mut changes = Vec::new();
        for (name, (seen, now)) in MAPS.iter().zip(self.seen.iter_mut().zip(maps(state))) {
            if !same(seen.as_ref(), now) {
                diff(name, seen.as_ref(), now, &mut changes);
                *seen = now.cloned();
            }
        }
        changes
    }

    fn content(&self, bytes: &Bytes) -> Content {
        let excerpt = self.start.settings.excerpt;
        let window = bytes.get(..excerpt.saturating_add(WINDOW)).unwrap_or(bytes);
        Content {
            bytes: bytes.len(),
            // Cut to its length once it is masked.
            excerpt: (excerpt > 0).then(|| text_of(window)).flatten(),
            cut: window.len() < bytes.len(),
        }
    }

    /// What was recorded, with its secrets masked.
    pub(crate) fn finish(self, state: &StreamState, outcome: &Outcome<'_>) -> Trace {
        let Settings { excerpt, show_secrets } = self.start.settings;
        let mut trace = Trace {
            schema: 1,
            kind: outcome.kind,
            started: state.started_at,
            connection: state.connection_id,
            protocol: state.protocol,
            method: self.head.method,
            authority: self.head.authority,
            path: self.head.path,
            status: outcome.status,
            answered_by: outcome.answered_by.map(str::to_owned),
            details: state.details.clone(),
            took: state.started.elapsed(),
            request_bytes: state.request_bytes,
            response_bytes: state.response_bytes,
            filters: self.filters,
            upstream: self.upstream.map(|(_, times)| times),
            events: self.events,
            omitted: self.omitted,
        };
        if !show_secrets {
            Mask::new(&self.start.secrets).apply(&mut trace);
        }
        each_content(&mut trace.events, &mut |content| {
            if let Some(text) = &mut content.excerpt
                && text.len() > excerpt
            {
                text.truncate(text.floor_char_boundary(excerpt));
                content.cut = true;
            }
        });
        trace
    }
}

/// What a callback came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Action(&'static str),
    Nothing,
    Failed,
}

impl StreamState {
    /// Notes something, if this stream is recorded.
    pub(crate) fn record(&mut self, f: impl FnOnce(&mut Recording, &Self)) {
        if let Some(mut recording) = self.trace.take() {
            f(&mut recording, self);
            self.trace = Some(recording);
        }
    }

    /// A callback of a filter begins. `saw`: the bytes it is shown, and whether nothing follows.
    pub(crate) fn trace_begin(&mut self, filter: usize, callback: &'static str, saw: Option<(usize, bool)>) {
        if let Some(mut recording) = self.trace.take() {
            recording.begin(self, filter, callback, saw);
            self.trace = Some(recording);
        }
    }

    /// It is over.
    pub(crate) fn trace_end(&mut self, filter: usize, answer: Answer) {
        if let Some(mut recording) = self.trace.take() {
            recording.end(self, filter, answer);
            self.trace = Some(recording);
        }
    }
}

/// A plugin's answer by its name, which depends on the callback.
pub(crate) fn action(callback: &str, action: u32) -> &'static str {
    let data = ["_body", "_data"].iter().any(|end| callback.ends_with(end));
    match (action, data) {
        (0, _) => "Continue",
        (1, true) => "StopIterationAndBuffer",
        (1, false) => "StopIteration",
        (2, true) => "StopIterationAndWatermark",
        (3, true) => "StopIterationNoBuffer",
        (2, false) => "ContinueAndEndStream",
        (3, false) => "StopAllIterationAndBuffer",
        (4, false) => "StopAllIterationAndWatermark",
        _ => "unknown action",
    }
}

fn end_call(events: &mut [Event], token: CallToken, f: impl Fn(std::time::Duration, &mut Callout) + Copy) -> bool {
    events.iter_mut().rev().any(|event| match &mut event.what {
        What::Callout(callout) if callout.token == token && token != CallToken::None => {
            f(event.at, callout);
            true
        }
        What::Callback(callback) => end_call(&mut callback.events, token, f),
        _ => false,
    })
}

fn each_content(events: &mut [Event], f: &mut impl FnMut(&mut Content)) {
    for event in events {
        match &mut event.what {
            What::LocalReply { body, .. } => f(body),
            What::Callback(callback) => {
                for change in &mut callback.bodies {
                    f(&mut change.from);
                    f(&mut change.to);
                }
                each_content(&mut callback.events, f);
            }
            _ => {}
        }
    }
}

fn maps(state: &StreamState) -> [Option<&HeaderMap>; 4] {
    [
        Some(&state.request_headers),
        state.request_trailers.as_ref(),
        state.response_headers.as_ref(),
        state.response_trailers.as_ref(),
    ]
}

fn bodies(view: &mut View) -> [Bytes; 4] {
    let bytes = |body: &mut Option<Body>| body.as_mut().map(|body| Buffer::contiguous(&mut body.buffer));
    let View { request_body, response_body, downstream_data, upstream_data, .. } = view;
    [request_body, response_body, downstream_data, upstream_data].map(|body| bytes(body).unwrap_or_default())
}

fn same(before: Option<&HeaderMap>, now: Option<&HeaderMap>) -> bool {
    match (before, now) {
        (None, None) => true,
        (Some(before), Some(now)) => before.iter().eq(now.iter()),
        _ => false,
    }
}

/// What differs, by name in the order in which the names occur. That a header has moved is nothing to tell.
fn diff(map: &'static str, before: Option<&HeaderMap>, now: Option<&HeaderMap>, changes: &mut Vec<HeaderChange>) {
    fn names(headers: Option<&HeaderMap>) -> impl Iterator<Item = &[u8]> {
        headers.into_iter().flat_map(HeaderMap::iter).map(|(name, _)| name)
    }
    let mut done: Vec<&[u8]> = Vec::new();
    for name in names(before).chain(names(now)) {
        if changes.len() >= MAX_HEADERS || done.contains(&name) {
            continue;
        }
        done.push(name);
        let values = |headers: Option<&HeaderMap>| -> Vec<String> {
            headers.map(|headers| headers.values(name).map(lossy).collect()).unwrap_or_default()
        };
        let (mut from, mut to) = (values(before), values(now));
        // Values that both have are the same ones.
        from.retain(|value| match to.iter().position(|other| other == value) {
            Some(at) => {
                to.remove(at);
                false
            }
            None => true,
        });
        let (mut from, mut to) = (from.into_iter(), to.into_iter());
        loop {
            let (from, to) = (from.next(), to.next());
            let change = match (&from, &to) {
                (None, None) => break,
                (None, Some(_)) => ChangeKind::Added,
                (Some(_), None) => ChangeKind::Removed,
                (Some(_), Some(_)) => ChangeKind::Changed,
            };
            changes.push(HeaderChange { map, change, name: lossy(name), from, to });
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes)).into_owned()
}

fn cut(text: &str, length: usize) -> String {
    text.get(..text.floor_char_boundary(length)).unwrap_or(text).to_owned()
}

/// The bytes as text, unless they are something else. The last character may be cut in two.
fn text_of(bytes: &[u8]) -> Option<String> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let is_text = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    text.chars().all(is_text).then(|| text.to_owned())
}
