//! One request in the filter chain: Envoy's filter manager, without any input or output of its own.
//!
//! The driver feeds it what arrives (`request_*`, `response_*`), takes what is to be sent (`next_upstream`,
//! `next_downstream`), and calls `process_pending` when it was woken. Requests pass the filters first to last,
//! responses last to first, and only those filters that saw the request.

mod filter;
pub(crate) mod flags;
mod local_reply;
mod metadata;
mod recorded;
pub(crate) mod state;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::abi::LogLevel;
use crate::buffer::Buffer;
use crate::hazard::{Hazard, HazardKind};
use crate::header_map::{HeaderMap, InvalidHeader};
use crate::log::{RequestSummary, Sink};
use crate::trace::{Answer, Outcome, Subject};
use crate::worker::WorkerFilter;
use filter::StreamFilter;
use state::{Direction, LocalReply, StreamState};
use tokio::time::Instant;

/// What a filter may keep buffered: Envoy's connection buffer limit.
pub(crate) const BUFFER_LIMIT: usize = 1 << 20;
/// The same over HTTP/2, where it is the window that Envoy grants a stream.
const HTTP2_BUFFER_LIMIT: usize = 16 << 20;

/// What the stream wants sent to one of its peers.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The headers are in the state; `end` when nothing follows.
    Headers { end: bool },
    /// Body bytes, possibly none.
    Data { bytes: Bytes, end: bool },
    /// The trailers; nothing follows.
    Trailers(HeaderMap),
    /// Downstream only: break the connection off.
    Reset,
}

/// Where a filter holds one direction up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paused {
    /// Headers, and with them everything that follows.
    Headers {
        end: bool,
    },
    /// The body; the filter sees all of it again with each chunk.
    Body,
    /// The body; the filter sees each chunk once.
    BodyByChunk,
    Trailers,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Headers,
    Body,
    Trailers,
}

impl Paused {
    /// What was paused at.
    fn part(self) -> Part {
        match self {
            Self::Headers { .. } => Part::Headers,
            Self::Body | Self::BodyByChunk => Part::Body,
            Self::Trailers => Part::Trailers,
        }
    }
}

/// One direction of one filter.
#[derive(Debug, Default)]
struct Half {
    paused: Option<Paused>,
    /// Headers are held though the body is seen: they go first when either continues.
    headers_held: bool,
    /// Data that arrived while paused and that the filter cannot see.
    held: Buffer,
    end: bool,
    trailers: bool,
}

impl Half {
    fn is_held(&self) -> bool {
        self.paused.is_some() || self.headers_held
    }
}

/// What a filter decided.
enum Flow<T> {
    Continue(T),
    Held,
    /// The stream was answered or reset.
    Stopped,
}

#[expect(clippy::struct_excessive_bools, reason = "the two directions end independently")]
pub(crate) struct Stream {
    state: Rc<RefCell<StreamState>>,
    filters: Vec<StreamFilter>,
    sink: Arc<dyn Sink>,
    upstream: VecDeque<Frame>,
    downstream: VecDeque<Frame>,
    /// The request goes no further: it was answered.
    request_stopped: bool,
    head_sent: bool,
    response_ended: bool,
    /// What a filter may keep buffered.
    limit: usize,
    /// What the response's content-length promises, and what has been sent of its body.
    length: (Option<u64>, u64),
    /// The callback whose result is being dealt with.
    callback: &'static str,
    answered_by: Option<Rc<str>>,
    finished: bool,
    /// What happens to it is recorded in its state.
    recorded: bool,
}

impl Stream {
    pub(crate) fn new(mut state: StreamState, chain: &[WorkerFilter], sink: Arc<dyn Sink>) -> Self {
        let filters: Vec<_> = chain.iter().filter_map(StreamFilter::new).collect();
        let recorded = state.trace.is_some();
        if let Some(trace) = &mut state.trace {
            recorded::chain(trace, chain, &filters);
        }
        state.views.resize_with(filters.len(), Default::default);
        Self {
            limit: if state.protocol == "HTTP/2" { HTTP2_BUFFER_LIMIT } else { BUFFER_LIMIT },
            state: Rc::new(RefCell::new(state)),
            filters,
            sink,
            upstream: VecDeque::new(),
            downstream: VecDeque::new(),
            request_stopped: false,
            head_sent: false,
            response_ended: false,
            length: (None, 0),
            callback: "",
            answered_by: None,
            finished: false,
            recorded,
        }
    }

    pub(crate) fn state(&self) -> Ref<'_, StreamState> {
        self.state.borrow()
    }

    pub(crate) fn state_mut(&self) -> RefMut<'_, StreamState> {
        self.state.borrow_mut()
    }

    pub(crate) fn next_upstream(&mut self) -> Option<Frame> {
        self.upstream.pop_front()
    }

    pub(crate) fn next_downstream(&mut self) -> Option<Frame> {
        self.downstream.pop_front()
    }

    /// Nothing more will go downstream.
    pub(crate) fn response_ended(&self) -> bool {
        self.response_ended && self.downstream.is_empty()
    }

    /// The request was answered without its rest being needed.
    pub(crate) fn request_stopped(&self) -> bool {
        self.request_stopped
    }

    /// Whether more of a body is welcome, or a paused filter holds as much as it may.
    pub(crate) fn wants_data(&self, direction: Direction) -> bool {
        self.filters.iter().all(|filter| filter.half(direction).held.len() < self.limit)
    }

    pub(crate) fn request_headers(&mut self, end: bool) {
        self.record(|trace, state| trace.message(Direction::Request, "client", &state.request_headers, end));
        self.headers(Direction::Request, None, end);
    }

    pub(crate) fn request_data(&mut self, bytes: Bytes, end: bool) {
        if !self.request_stopped {
            self.state_mut().request_bytes += bytes.len() as u64;
            self.data(Direction::Request, None, bytes, end);
        }
    }

    pub(crate) fn request_trailers(&mut self, trailers: HeaderMap) {
        if !self.request_stopped {
            self.state_mut().request_trailers = Some(trailers);
            self.trailers(Direction::Request, None);
        }
    }

    /// The upstream's response, or one that the router makes in its place.
    pub(crate) fn response_headers(&mut self, headers: HeaderMap, details: &str, end: bool) {
        if self.response_ended || self.state().response_headers.is_some() {
            return;
        }
        {
            let mut state = self.state_mut();
            state.response_headers = Some(headers);
            state.code = state.status();
            details.clone_into(&mut state.details);
        }
        self.record(|trace, state| trace.upstream_answered(state, end));
        self.headers(Direction::Response, None, end);
    }

    pub(crate) fn response_data(&mut self, bytes: Bytes, end: bool) {
        if !self.response_ended {
            if end {
                self.record(|trace, _| trace.upstream_ended());
            }
            self.data(Direction::Response, None, bytes, end);
        }
    }

    pub(crate) fn response_trailers(&mut self, trailers: HeaderMap) {
        if !self.response_ended {
            self.state_mut().response_trailers = Some(trailers);
            self.record(|trace, _| trace.upstream_ended());
            self.trailers(Direction::Response, None);
        }
    }

    /// Does what plugins asked for outside of this stream's own callbacks.
    pub(crate) fn process_pending(&mut self) {
        if !std::mem::take(&mut self.state_mut().asked) {
            return;
        }
        for filter in 0..self.filters.len() {
            if !self.finished {
                self.settle(filter, None);
            }
        }
    }

    /// The next filter in a direction after `filter`, or the first.
    fn next(&self, direction: Direction, filter: Option<usize>) -> Option<usize> {
        match direction {
            Direction::Request => Some(filter.map_or(0, |i| i + 1)).filter(|i| *i < self.filters.len()),
            Direction::Response => {
                (0..filter.unwrap_or(self.filters.len())).rev().find(|i| self.filters[*i].takes_response())
            }
        }
    }

    /// The filter before `filter` in a direction: continuing after it calls `filter`.
    fn before(direction: Direction, filter: usize) -> Option<usize> {
        match direction {
            Direction::Request => filter.checked_sub(1),
            Direction::Response => Some(filter + 1),
        }
    }

    fn stopped(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.request_stopped,
            Direction::Response => self.response_ended,
        }
    }

    fn headers(&mut self, direction: Direction, mut after: Option<usize>, end: bool) {
        while let Some(filter) = self.next(direction, after) {
            match self.on_headers(direction, filter, end) {
                Flow::Continue(()) => {
                    self.filters[filter].half_mut(direction).headers_held = false;
                    if end && self.has_body(direction, filter) {
                        return self.headers_and_body(direction, filter);
                    }
                    after = Some(filter);
                }
                Flow::Held => {
                    let half = self.filters[filter].half_mut(direction);
                    if !half.headers_held {
                        half.paused = Some(Paused::Headers { end });
                    }
                    return;
                }
                Flow::Stopped => return,
            }
        }
        self.emit_headers(direction, end);
    }

    /// Whether a filter gave a body to a message that had none.
    fn has_body(&self, direction: Direction, filter: usize) -> bool {
        self.state_mut().view(filter).is_some_and(|view| view.body_mut(direction).is_some())
    }

    /// What a filter made of a message without a body goes on: headers, and the body it gave.
    fn headers_and_body(&mut self, direction: Direction, filter: usize) {
        self.headers(direction, Some(filter), false);
        let body = self.take_body(direction, filter);
        if !self.stopped(direction) {
            self.data(direction, Some(filter), body, true);
        }
    }

    fn data(&mut self, direction: Direction, mut after: Option<usize>, mut bytes: Bytes, mut end: bool) {
        while let Some(filter) = self.next(direction, after) {
            let half = self.filters[filter].half_mut(direction);
            if let Some(Paused::Headers { .. } | Paused::Trailers) = half.paused {
                half.held.push(bytes);
                half.end |= end;
                return;
            }
            let had_trailers = self.has_trailers(direction);
            match self.on_data(direction, filter, bytes, end) {
                Flow::Continue(passed) => bytes = passed,
                Flow::Held | Flow::Stopped => return,
            }
            if !self.pass_headers(direction, filter) {
                return;
            }
            after = Some(filter);
            if end && !had_trailers && self.has_trailers(direction) {
                end = false;
                self.data(direction, after, bytes, end);
                return self.trailers(direction, after);
            }
        }
        if !self.stopped(direction) {
            self.emit(direction, Frame::Data { bytes, end });
        }
    }

    fn has_trailers(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.state().request_trailers.is_some(),
            Direction::Response => self.state().response_trailers.is_some(),
        }
    }

    fn trailers(&mut self, direction: Direction, mut after: Option<usize>) {
        while let Some(filter) = self.next(direction, after) {
            if self.stopped(direction) {
                return;
            }
            let half = self.filters[filter].half_mut(direction);
            if let Some(Paused::Headers { .. }) = half.paused {
                half.trailers = true;
                return;
            }
            match self.on_trailers(direction, filter) {
                Flow::Continue(()) if !self.pass_headers(direction, filter) => return,
                Flow::Continue(()) => self.release_body(direction, filter, false),
                Flow::Held => {
                    self.filters[filter].half_mut(direction).paused = Some(Paused::Trailers);
                    return;
                }
                Flow::Stopped => return,
            }
            after = Some(filter);
        }
        if self.stopped(direction) {
            return;
        }
        let trailers = match direction {
            Direction::Request => self.state().request_trailers.clone(),
            Direction::Response => self.state().response_trailers.clone(),
        };
        self.emit(direction, Frame::Trailers(trailers.unwrap_or_default()));
    }

    /// Lets headers go on that a filter held while it saw the body. False: the stream was answered meanwhile.
    fn pass_headers(&mut self, direction: Direction, filter: usize) -> bool {
        if std::mem::take(&mut self.filters[filter].half_mut(direction).headers_held) {
            self.headers(direction, Some(filter), false);
        }
        !self.stopped(direction)
    }

    /// Lets what a filter held of the body go on to the next one.
    fn release_body(&mut self, direction: Direction, filter: usize, end: bool) {
        let bytes = self.take_body(direction, filter);
        if !bytes.is_empty() || end {
            self.data(direction, Some(filter), bytes, end);
        }
    }

    fn take_body(&mut self, direction: Direction, filter: usize) -> Bytes {
        let half = self.filters[filter].half_mut(direction);
        half.paused = None;
        let mut held = std::mem::take(&mut half.held);
        let seen = self.state_mut().view(filter).and_then(|view| view.body_mut(direction).take());
        let mut seen = seen.map_or_else(Buffer::default, |body| body.buffer);
        if held.len() == 0 {
            return seen.take();
        }
        held.push(seen.take());
        held.take()
    }

    /// `continue_stream`: a no-op unless this filter holds that direction up.
    fn resume(&mut self, direction: Direction, filter: usize) {
        if self.stopped(direction) {
            return;
        }
        let half = self.filters[filter].half_mut(direction);
        let (end, trailers) = (half.end, half.trailers);
        let paused = half.paused.take();
        if !self.pass_headers(direction, filter) {
            return;
        }
        match paused {
            None => {}
            Some(Paused::Headers { end: headers_end }) => {
                if headers_end && self.has_body(direction, filter) {
                    return self.headers_and_body(direction, filter);
                }
                let held = std::mem::take(&mut self.filters[filter].half_mut(direction).held).take();
                self.headers(direction, Some(filter), headers_end);
                if headers_end {
                    return;
                }
                let before = Self::before(direction, filter);
                if !self.stopped(direction) && (!held.is_empty() || end) {
                    self.data(direction, before, held, end && !trailers);
                }
                if !self.stopped(direction) && trailers {
                    self.trailers(direction, before);
                }
            }
            Some(Paused::Body | Paused::BodyByChunk) => {
                let created = end && self.has_trailers(direction);
                self.release_body(direction, filter, end && !created);
                if created && !self.stopped(direction) {
                    self.trailers(direction, Some(filter));
                }
            }
            Some(Paused::Trailers) => {
                self.release_body(direction, filter, false);
                if !self.stopped(direction) {
                    self.trailers(direction, Some(filter));
                }
            }
        }
    }

    fn emit_headers(&mut self, direction: Direction, end: bool) {
        match direction {
            Direction::Request if self.request_stopped => {}
            Direction::Request => match self.check_request() {
                Ok(()) => self.emit(direction, Frame::Headers { end }),
                Err(reply) => {
                    if reply.status == 404 {
                        self.state_mut().flags |= flags::NO_ROUTE;
                    }
                    self.send_local_reply(None, reply);
                }
            },
            Direction::Response if self.response_ended => {}
            Direction::Response => match self.check_response() {
                Ok(()) => self.emit(direction, Frame::Headers { end }),
                Err(reply) => self.send_local_reply(None, reply),
            },
        }
    }

    /// What Envoy's router and codec require of a request that filters may have changed.
    fn check_request(&self) -> Result<(), LocalReply> {
        let state = self.state();
        let headers = &state.request_headers;
        // Without knowing how the request came Envoy finds no route for it, either.
        let origin_lost = state.admitted && headers.get(b"x-forwarded-proto").is_none_or(<[u8]>::is_empty);
        if origin_lost || headers.get(b":path").is_none_or(|path| !path.starts_with(b"/")) {
            return Err(LocalReply::new(404, "", "route_not_found"));
        }
        if headers.get(b":method").is_none() {
            let details = "filter_removed_required_request_headers{missing_required_header:_:method}";
            return Err(LocalReply::new(503, "missing required header: :method", details));
        }
        headers.check().map_err(|error| {
            let reply = invalid(&error);
            let details = format!("filter_removed_required_request_headers{{{}}}", reply.details);
            LocalReply { details, ..reply }
        })
    }

    fn check_response(&self) -> Result<(), LocalReply> {
        let state = self.state();
        let valid = state.status().is_some_and(|status| (200..=999).contains(&status));
        if !valid {
            let details = "filter_removed_required_response_headers{missing_required_header:_:status}";
            return Err(LocalReply::new(502, "missing required header: :status", details));
        }
        match &state.response_headers {
            Some(headers) => headers.check().map_err(|error| invalid(&error)),
            None => Ok(()),
        }
    }

    fn emit(&mut self, direction: Direction, frame: Frame) {
        match direction {
            Direction::Request => {
                if let Frame::Headers { .. } = frame {
                    self.record(|trace, _| trace.upstream_asked());
                }
                self.upstream.push_back(frame);
            }
            Direction::Response => {
                self.head_sent = true;
                if let Frame::Headers { .. } = frame {
                    let mut state = self.state_mut();
                    state.code = state.status();
                }
                let more = matches!(frame, Frame::Headers { end: false } | Frame::Data { end: false, .. });
                self.response_ended = !more;
                self.measure(&frame);
                self.downstream.push_back(frame);
            }
        }
    }

    /// Sees whether the response's body has the length that its headers promise.
    fn measure(&mut self, frame: &Frame) {
        match frame {
            Frame::Headers { end: false } => {
                let state = self.state();
                let headers = state.response_headers.as_ref();
                let promised = headers.and_then(|headers| headers.text("content-length")?.parse().ok());
                drop(state);
                self.length = (promised, 0);
            }
            Frame::Data { bytes, .. } => {
                self.length.1 += bytes.len() as u64;
                self.state_mut().response_bytes += bytes.len() as u64;
            }
            _ => {}
        }
        if let ((Some(promised), sent), Frame::Data { end: true, .. } | Frame::Trailers(_)) = (self.length, frame)
            && promised != sent
        {
            self.wrong_length(Direction::Response, promised, sent);
        }
    }

    /// Reports a body that does not have the length that its headers promise.
    pub(crate) fn wrong_length(&mut self, direction: Direction, promised: u64, sent: u64) {
        let (set_by, callback) = match direction {
            Direction::Request => (self.state().request_body_set_by, "proxy_on_request_body"),
            Direction::Response => (self.state().response_body_set_by, "proxy_on_response_body"),
        };
        let filter = set_by.map_or("", |filter| &*self.filters[filter].name);
        let explanation =
            format!("the filters let {sent} bytes of the {direction}'s body pass, but content-length is {promised}");
        let hostcall = set_by.map(|_| "proxy_set_buffer_bytes");
        let kind = HazardKind::ContentLength;
        let hazard = Hazard { kind, filter, callback, hostcall, explanation: &explanation };
        self.record(|trace, _| trace.hazard(&hazard));
        self.sink.hazard(&hazard);
    }

    /// Breaks the stream off.
    pub(crate) fn reset(&mut self, details: &str) {
        if self.response_ended {
            return;
        }
        details.clone_into(&mut self.state_mut().details);
        self.record(|trace, _| trace.reset(details));
        self.request_stopped = true;
        self.emit(Direction::Response, Frame::Reset);
    }

    /// Ends the stream, however far it got: `on_log` for each filter, then `on_done` and `on_delete`.
    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.request_stopped = true;
        if !self.response_ended {
            self.response_ended = true;
            let mut state = self.state_mut();
            "downstream_remote_disconnect".clone_into(&mut state.details);
            state.flags |= flags::DOWNSTREAM_CONNECTION_TERMINATION;
            drop(state);
        }
        self.state_mut().ended = Some(Instant::now());
        self.report_pauses();
        if self.head_sent && !self.filters.is_empty() {
            self.state_mut().complete_response();
        }
        for filter in 0..self.filters.len() {
            self.log_filter(filter);
        }
        for filter in 0..self.filters.len() {
            self.begin(filter, "proxy_on_done", None);
            self.filters[filter].finish();
            self.end(filter, Answer::Nothing);
        }
        let recording = self.state_mut().trace.take();
        let state = self.state.borrow();
        self.sink.request(&RequestSummary {
            method: state.method(),
            path: state.path(),
            status: state.status().filter(|_| self.head_sent),
            answered_by: self.answered_by.as_deref(),
            details: &state.details,
            duration: state.ended.unwrap_or_else(Instant::now) - state.started,
        });
        if let Some(recording) = recording {
            let status = state.status().filter(|_| self.head_sent);
            let answered_by = self.answered_by.as_deref();
            self.sink.trace(&recording.finish(&state, &Outcome { kind: Subject::Request, status, answered_by }));
        }
    }

    fn host_log(&self, level: LogLevel, line: &str) {
        self.sink.log(level, line);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.finish();
    }
}

fn invalid(error: &InvalidHeader) -> LocalReply {
    let text = error.to_string();
    let details = text.replace(' ', "_");
    LocalReply::new(503, text, details)
}
