//! What a VM notes in the recordings of the streams that its callbacks are about.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use super::{Answer, CallToken, Callout, Recording};
use crate::header_map::HeaderMap;
use crate::state::{Context, HostState};
use crate::stream::state::StreamState;

type Stream = RefCell<StreamState>;

/// Streams that are recorded and that a VM has something to tell of.
#[derive(Default)]
pub(crate) struct Visits {
    /// Whose calls are under way, and at which filter.
    calls: HashMap<u32, (Weak<Stream>, usize)>,
    /// The stream that a root context's callback has turned to.
    current: Option<(Rc<Stream>, usize)>,
}

impl HostState {
    /// Notes something in the stream that hostcalls act on. Whether that one is recorded.
    pub(crate) fn record(&self, f: impl FnOnce(&mut Recording, usize)) -> bool {
        let Some((stream, filter)) = self.stream() else { return false };
        let Ok(mut stream) = stream.try_borrow_mut() else { return false };
        let recorded = stream.trace.is_some();
        stream.record(|recording, _| f(recording, filter));
        recorded
    }

    /// A callback has turned to another context. If that is a recorded stream, what follows is a part of it.
    pub(crate) fn visit(&mut self) {
        self.leave();
        let Some(Context::Stream { stream, filter, .. }) = self.context() else { return };
        let (stream, filter) = (stream.clone(), *filter);
        let Ok(mut state) = stream.try_borrow_mut() else { return };
        // Its own callbacks are noted already.
        if state.trace.as_ref().is_none_or(|recording| recording.is_open()) {
            return;
        }
        state.trace_begin(filter, self.callback, None);
        drop(state);
        self.visits.current = Some((stream, filter));
    }

    /// The callback is over, or turns to another context.
    pub(crate) fn leave(&mut self) {
        if let Some((stream, filter)) = self.visits.current.take()
            && let Ok(mut state) = stream.try_borrow_mut()
        {
            state.trace_end(filter, Answer::Nothing);
        }
    }

    /// What a call is, when the stream that makes it is recorded.
    pub(crate) fn describe_call(
        &self,
        kind: &'static str,
        cluster: &str,
        headers: &HeaderMap,
        bytes: usize,
    ) -> Option<Callout> {
        let (stream, _) = self.stream()?;
        stream.try_borrow().ok()?.trace.as_ref()?;
        Some(Callout::new(kind, cluster, headers, bytes))
    }

    /// The call is under way, or was refused.
    pub(crate) fn record_call(&mut self, mut callout: Callout, token: Option<u32>) {
        let Some(Context::Stream { stream, filter, .. }) = self.context() else { return };
        let (stream, filter) = (stream.clone(), *filter);
        match token {
            Some(token) => {
                callout.token = CallToken::Wasm(filter, token);
                self.visits.calls.insert(token, (Rc::downgrade(&stream), filter));
            }
            None => callout.failure = Some("refused"),
        }
        if let Ok(mut state) = stream.try_borrow_mut() {
            state.record(|recording, _| recording.callout(filter, callout));
        }
    }

    /// The call has ended: with a status, or for a reason.
    pub(crate) fn record_answer(&mut self, token: u32, status: Option<u32>, failure: Option<&'static str>) {
        if self.visits.calls.is_empty() {
            return;
        }
        let Some((stream, filter)) = self.visits.calls.remove(&token) else { return };
        if let Some(stream) = stream.upgrade()
            && let Ok(mut state) = stream.try_borrow_mut()
        {
            let token = CallToken::Wasm(filter, token);
            state.record(|recording, _| recording.callout_ended(token, status, failure));
        }
    }
}
