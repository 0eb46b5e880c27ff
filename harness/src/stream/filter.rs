//! One filter of one stream: its callbacks, and what their results mean.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use mesh::model::FailStrategy;

use super::state::{Body, Direction, LocalReply, StreamState, View};
use super::{Flow, Half, Part, Paused, Stream};
use crate::hazard::{Hazard, HazardKind};
use crate::header_map::HeaderMap;
use crate::native::{Action, NativeFilter, NativeWorker, StreamHandle};
use crate::trace::Answer;
use crate::vm::{Failed, Vm};
use crate::worker::WorkerFilter;

pub(super) struct StreamFilter {
    pub(super) name: Rc<str>,
    /// Its request headers callback was made, so that it takes part in the response.
    pub(super) saw_request: bool,
    kind: Kind,
    request: Half,
    response: Half,
}

enum Kind {
    Wasm {
        /// `None`: the VM had failed before this stream began.
        vm: Option<(Rc<RefCell<Vm>>, u32)>,
        context: Option<u32>,
        /// The stream was failed on account of this filter, which is not called again.
        dead: bool,
    },
    Native {
        worker: Rc<dyn NativeWorker>,
        filter: Option<Box<dyn NativeFilter>>,
    },
}

impl StreamFilter {
    /// The filter for a new stream; `None` when it is to be skipped.
    pub(super) fn new(filter: &WorkerFilter) -> Option<Self> {
        let (name, kind) = match filter {
            WorkerFilter::Native { name, worker, .. } => {
                (name.clone(), Kind::Native { worker: worker.clone(), filter: None })
            }
            WorkerFilter::Wasm(handle) => {
                let vm = handle.vm();
                if vm.is_none() && handle.plugin().fail_strategy == FailStrategy::FailOpen {
                    return None;
                }
                (handle.name().clone(), Kind::Wasm { vm, context: None, dead: false })
            }
        };
        Some(Self { name, saw_request: false, kind, request: Half::default(), response: Half::default() })
    }

    pub(super) fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    pub(super) fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Runs a callback in the filter's stream context. `None`: this filter has nothing to call.
    fn call<T>(&mut self, f: impl FnOnce(&mut Vm, u32) -> Result<T, Failed>) -> Option<Result<T, Failed>> {
        match &mut self.kind {
            Kind::Wasm { dead: true, .. } | Kind::Native { .. } => None,
            Kind::Wasm { vm: Some((vm, _)), context: Some(context), .. } => Some(f(&mut vm.borrow_mut(), *context)),
            Kind::Wasm { .. } => Some(Err(Failed)),
        }
    }

    /// Creates the stream context, if it does not exist yet.
    fn create(&mut self, index: usize, stream: &Rc<RefCell<StreamState>>) -> Result<(), Failed> {
        match &mut self.kind {
            Kind::Wasm { vm: Some((vm, root)), context: context @ None, dead: false } => {
                *context = Some(vm.borrow_mut().create_stream(*root, stream, index)?);
                Ok(())
            }
            Kind::Wasm { vm: None, .. } => Err(Failed),
            Kind::Native { worker, filter: filter @ None } => {
                *filter = Some(worker.clone().stream(StreamHandle::new(stream, index)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Calls a native filter; `None` for a plugin.
    fn native<T>(&mut self, f: impl FnOnce(&mut dyn NativeFilter) -> T) -> Option<T> {
        match &mut self.kind {
            Kind::Native { filter: Some(filter), .. } => Some(f(filter.as_mut())),
            _ => None,
        }
    }

    /// Whether it is one of the proxy's own that has no use for the next of a body.
    pub(super) fn ignores_body(&self, direction: Direction) -> bool {
        match &self.kind {
            Kind::Wasm { .. } => false,
            // What it still holds goes first.
            Kind::Native { filter, .. } => {
                let half = self.half(direction);
                half.paused.is_none()
                    && !half.headers_held
                    && filter.as_ref().is_none_or(|filter| !filter.wants_body(direction))
            }
        }
    }

    pub(super) fn is_wasm(&self) -> bool {
        matches!(self.kind, Kind::Wasm { .. })
    }

    /// Whether it takes part in the response: the proxy's own filters always do, plugins that saw the request.
    pub(super) fn takes_response(&self) -> bool {
        self.saw_request || matches!(self.kind, Kind::Native { .. })
    }

    /// Whether it is a plugin whose module has no such callback.
    pub(super) fn lacks(&self, callback: &str) -> bool {
        matches!(&self.kind, Kind::Wasm { vm: Some((vm, _)), .. } if !vm.borrow().has(callback))
    }

    pub(super) fn finish(&mut self) {
        if let Kind::Wasm { vm: Some((vm, _)), context: Some(context), .. } = &mut self.kind {
            vm.borrow_mut().finish_stream(*context);
        }
    }
}

impl View {
    pub(super) fn body_mut(&mut self, direction: Direction) -> &mut Option<Body> {
        match direction {
            Direction::Request => &mut self.request_body,
            Direction::Response => &mut self.response_body,
        }
    }

    fn headers_mut(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Request => &mut self.request_headers,
            Direction::Response => &mut self.response_headers,
        }
    }

    fn trailers_mut(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Request => &mut self.request_trailers,
            Direction::Response => &mut self.response_trailers,
        }
    }
}

/// A callback, as modules export it.
fn callback(direction: Direction, part: Part) -> &'static str {
    match (direction, part) {
        (Direction::Request, Part::Headers) => "proxy_on_request_headers",
        (Direction::Request, Part::Body) => "proxy_on_request_body",
        (Direction::Request, Part::Trailers) => "proxy_on_request_trailers",
        (Direction::Response, Part::Headers) => "proxy_on_response_headers",
        (Direction::Response, Part::Body) => "proxy_on_response_body",
        (Direction::Response, Part::Trailers) => "proxy_on_response_trailers",
    }
}

fn u32_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Stream {
    fn view<T>(&self, filter: usize, f: impl FnOnce(&mut View) -> T) -> Option<T> {
        self.state_mut().view(filter).map(f)
    }

    pub(super) fn on_headers(&mut self, direction: Direction, filter: usize, end: bool) -> Flow<()> {
        if direction == Direction::Request {
            self.filters[filter].saw_request = true;
        }
        self.begin(filter, callback(direction, Part::Headers), None);
        if direction == Direction::Request || !self.filters[filter].saw_request {
            let state = self.state.clone();
            if self.filters[filter].create(filter, &state) == Err(Failed) {
                self.end(filter, Answer::Failed);
                return self.fail(filter);
            }
        }
        self.view(filter, |view| *view.headers_mut(direction) = true);
        let count = match direction {
            Direction::Request => self.state().request_headers.len(),
            Direction::Response => self.state().response_headers.as_ref().map_or(0, HeaderMap::len),
        };
        if let Some(action) = self.filters[filter].native(|native| native.headers(direction, end)) {
            self.end_native(filter, action);
            if action == Action::StopIteration && !end {
                self.filters[filter].half_mut(direction).headers_held = true;
            }
            return self.after_native(filter, direction, action);
        }
        self.callback = callback(direction, Part::Headers);
        let called = self.filters[filter].call(|vm, id| match direction {
            Direction::Request => vm.request_headers(id, u32_len(count), end),
            Direction::Response => vm.response_headers(id, u32_len(count), end),
        });
        self.end_called(filter, called);
        let flow = self.after(filter, direction, called);
        if let Flow::Continue(0) = flow {
            self.view(filter, |view| *view.headers_mut(direction) = false);
        }
        flow.pause_unless_zero()
    }

    pub(super) fn on_data(&mut self, direction: Direction, filter: usize, bytes: Bytes, end: bool) -> Flow<Bytes> {
        if !self.recorded && self.filters[filter].ignores_body(direction) {
            return Flow::Continue(bytes);
        }
        let size = {
            let mut state = self.state_mut();
            let Some(view) = state.view(filter) else { return Flow::Continue(bytes) };
            let body = view.body_mut(direction).get_or_insert_default();
            body.buffer.push(bytes);
            body.end_of_stream = end;
            body.buffer.len()
        };
        self.begin(filter, callback(direction, Part::Body), Some((size, end)));
        let native = self.filters[filter].native(|native| native.body(direction, end));
        if let Some(action) = native {
            self.end_native(filter, action);
        }
        self.callback = callback(direction, Part::Body);
        let called = native.map(|action| Ok(u32::from(action != Action::Continue))).or_else(|| {
            self.filters[filter].call(|vm, id| match direction {
                Direction::Request => vm.request_body(id, u32_len(size), end),
                Direction::Response => vm.response_body(id, u32_len(size), end),
            })
        });
        self.end_called(filter, called);
        let action = match self.after(filter, direction, called) {
            Flow::Continue(action) => action,
            Flow::Held | Flow::Stopped => return Flow::Stopped,
        };
        if action == 0 {
            return Flow::Continue(self.take_body(direction, filter));
        }
        let half = self.filters[filter].half_mut(direction);
        half.end |= end;
        if action == 1 {
            half.paused = Some(Paused::Body);
            let size = self.view(filter, |view| view.body_mut(direction).as_ref().map_or(0, |body| body.buffer.len()));
            if size.is_some_and(|size| size > self.limit) {
                self.too_large(direction);
                return Flow::Stopped;
            }
            return Flow::Held;
        }
        half.paused = Some(Paused::BodyByChunk);
        let seen = self.view(filter, |view| view.body_mut(direction).take()).flatten();
        // StopIterationAndWatermark keeps the chunk for the next filter; StopIterationNoBuffer drops it.
        if let (Some(mut seen), 2) = (seen, action) {
            self.filters[filter].half_mut(direction).held.push(seen.buffer.take());
        }
        Flow::Held
    }

    pub(super) fn on_trailers(&mut self, direction: Direction, filter: usize) -> Flow<()> {
        self.view(filter, |view| {
            *view.trailers_mut(direction) = true;
            if let Some(body) = view.body_mut(direction) {
                body.end_of_stream = false;
            }
        });
        let count = match direction {
            Direction::Request => self.state().request_trailers.as_ref().map_or(0, HeaderMap::len),
            Direction::Response => self.state().response_trailers.as_ref().map_or(0, HeaderMap::len),
        };
        self.begin(filter, callback(direction, Part::Trailers), None);
        if let Some(action) = self.filters[filter].native(|native| native.trailers(direction)) {
            self.end_native(filter, action);
            return self.after_native(filter, direction, action);
        }
        self.callback = callback(direction, Part::Trailers);
        let called = self.filters[filter].call(|vm, id| match direction {
            Direction::Request => vm.request_trailers(id, u32_len(count)),
            Direction::Response => vm.response_trailers(id, u32_len(count)),
        });
        self.end_called(filter, called);
        let flow = self.after(filter, direction, called);
        if let Flow::Continue(0) = flow {
            self.view(filter, |view| *view.trailers_mut(direction) = false);
        }
        flow.pause_unless_zero()
    }

    /// What follows from a callback: failure, local reply, reset, resumption; else the action it returned.
    fn after(&mut self, filter: usize, direction: Direction, called: Option<Result<u32, Failed>>) -> Flow<u32> {
        let action = match called {
            None => return Flow::Continue(0),
            Some(Err(Failed)) => return self.fail(filter),
            Some(Ok(action)) => action,
        };
        match self.settle(filter, Some(direction)) {
            Flow::Stopped => Flow::Stopped,
            // Resuming in the very callback that pauses is a continue.
            Flow::Continue(()) => Flow::Continue(0),
            Flow::Held if self.stopped(direction) => Flow::Stopped,
            Flow::Held => Flow::Continue(action),
        }
    }

    fn after_native(&mut self, filter: usize, direction: Direction, action: Action) -> Flow<()> {
        self.after(filter, direction, Some(Ok(u32::from(action != Action::Continue)))).pause_unless_zero()
    }

    /// Does what a plugin asked for. `Continue`: it resumed the direction whose callback just returned.
    pub(super) fn settle(&mut self, filter: usize, running: Option<Direction>) -> Flow<()> {
        if running.is_none() {
            self.callback = "";
        }
        let asks =
            |view: &View| view.local_reply.is_some() || view.close || view.resume_request || view.resume_response;
        if !self.state().views.get(filter).is_some_and(asks) {
            return Flow::Held;
        }
        let asked = self.view(filter, |view| {
            let asked = (view.local_reply.take(), view.close, view.resume_request, view.resume_response);
            (view.close, view.resume_request, view.resume_response) = (false, false, false);
            if asked.0.is_some() {
                view.request_headers = false;
                view.request_trailers = false;
                view.request_body = None;
            }
            asked
        });
        let Some((reply, close, resume_request, resume_response)) = asked else { return Flow::Held };
        if let Some(reply) = reply {
            if self.head_sent && !self.response_ended {
                let explanation = "the response's headers have gone out already";
                self.hazard(filter, HazardKind::ReplyAfterHeaders, Some("proxy_send_local_response"), explanation);
            }
            self.send_local_reply(Some(filter), reply);
            return Flow::Stopped;
        }
        if close {
            self.answered_by = Some(self.filters[filter].name.clone());
            // The details of a response that has begun stay.
            let begun = Some(self.state().details.clone()).filter(|details| !details.is_empty());
            self.reset(begun.as_deref().unwrap_or("wasm_close_stream"));
            return Flow::Stopped;
        }
        let mut flow = Flow::Held;
        for (direction, asked) in [(Direction::Request, resume_request), (Direction::Response, resume_response)] {
            if !asked {
                continue;
            }
            if running == Some(direction) {
                let explanation = format!("the {direction} was resumed before the callback had answered");
                self.hazard(filter, HazardKind::ResumeInCallback, Some("proxy_continue_stream"), &explanation);
            } else if !self.filters[filter].half(direction).is_held() && !self.stopped(direction) {
                let explanation = format!("the {direction} was resumed, and this filter does not hold it up");
                self.hazard(filter, HazardKind::ResumeWithoutPause, Some("proxy_continue_stream"), &explanation);
            }
            if running == Some(direction) {
                flow = Flow::Continue(());
            } else {
                self.resume(direction, filter);
            }
        }
        flow
    }

    /// Reports what a plugin did; the proxy's own filters do not.
    pub(super) fn hazard(&self, filter: usize, kind: HazardKind, hostcall: Option<&'static str>, explanation: &str) {
        let filter = &self.filters[filter];
        if filter.is_wasm() {
            let hazard = Hazard { kind, filter: &filter.name, callback: self.callback, hostcall, explanation };
            self.record(|trace, _| trace.hazard(&hazard));
            self.sink.hazard(&hazard);
        }
    }

    /// Says which plugins still hold the stream up that has come to its end without them.
    pub(super) fn report_pauses(&mut self) {
        let details = self.state().details.clone();
        if !["stream_idle_timeout", "downstream_remote_disconnect"].contains(&details.as_str()) {
            return;
        }
        for filter in 0..self.filters.len() {
            for direction in [Direction::Request, Direction::Response] {
                let Some(paused) = self.filters[filter].half(direction).paused else { continue };
                self.callback = callback(direction, paused.part());
                let explanation = format!("the {direction} was still paused when the stream ended: {details}");
                self.hazard(filter, HazardKind::PauseWithoutResume, None, &explanation);
            }
        }
    }

    /// The VM is gone: 503, and this filter is not called again on this stream.
    fn fail<T>(&mut self, filter: usize) -> Flow<T> {
        if let Kind::Wasm { dead, .. } = &mut self.filters[filter].kind {
            *dead = true;
        }
        let asked = self.view(filter, |view| std::mem::take(view).local_reply).flatten();
        self.send_local_reply(Some(filter), LocalReply::new(503, "", "wasm_fail_stream"));
        // A reply that the plugin had asked for comes too late for anything but its details.
        if let Some(asked) = asked {
            self.state_mut().details = asked.details;
        }
        Flow::Stopped
    }

    fn too_large(&mut self, direction: Direction) {
        let reply = match direction {
            Direction::Request => LocalReply::new(413, "Payload Too Large", "request_payload_too_large"),
            Direction::Response => LocalReply::new(500, "Internal Server Error", "response_payload_too_large"),
        };
        self.send_local_reply(None, reply);
    }

    pub(super) fn log_filter(&mut self, filter: usize) {
        let state = self.state.clone();
        self.begin(filter, "proxy_on_log", None);
        if self.filters[filter].create(filter, &state).is_err() {
            self.end(filter, Answer::Nothing);
            return;
        }
        self.view(filter, |view| *view = View { logging: true, ..View::default() });
        let _ = self.filters[filter].call(Vm::log);
        let _ = self.filters[filter].native(|native| native.log());
        self.end(filter, Answer::Nothing);
        self.view(filter, |view| *view = View { over: true, ..View::default() });
    }
}

impl Flow<u32> {
    fn pause_unless_zero(self) -> Flow<()> {
        match self {
            Flow::Continue(0) => Flow::Continue(()),
            Flow::Continue(_) | Flow::Held => Flow::Held,
            Flow::Stopped => Flow::Stopped,
        }
    }
}
