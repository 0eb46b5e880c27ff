//! Filters that are part of the proxy rather than plugins: what one implements to take its place in a chain.
//!
//! A native filter meets the stream as a plugin does: it edits the maps of the [`StreamState`], finds bodies in its own
//! view, and what it asks for (a local reply, resuming) happens once its callback has returned, or, when it asks from
//! elsewhere, once the stream's driver was woken.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use crate::cluster::Clusters;
use crate::stream::state::{Direction, LocalReply, StreamState};
use crate::trace::Recording;

/// What a worker has for its filters beside the streams.
pub(crate) struct Services {
    pub(crate) clusters: Clusters,
}

/// A configured filter, the same for all workers.
pub(crate) trait NativePlugin: Send + Sync {
    /// The filter's name, as a local reply's log line has it.
    fn name(&self) -> &str;

    /// Makes the filter ready on a worker.
    fn start(&self, services: &Rc<Services>) -> Result<Rc<dyn NativeWorker>, String>;
}

/// A filter on one worker.
pub(crate) trait NativeWorker {
    /// The filter of one stream, made just before its first callback.
    fn stream(self: Rc<Self>, handle: StreamHandle) -> Box<dyn NativeFilter>;
}

/// What a callback answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Go on with the next filter.
    Continue,
    /// Headers: hold them, and still see the body; the first body callback that continues lets both go on.
    /// Body and trailers: as [`Self::StopAll`].
    StopIteration,
    /// Headers: hold them and everything after them until resumed. Body: keep it, and see all of it again with each
    /// chunk. Trailers: hold them.
    StopAll,
}

/// One filter of one stream. The defaults let everything pass.
pub(crate) trait NativeFilter {
    fn headers(&mut self, _direction: Direction, _end: bool) -> Action {
        Action::Continue
    }

    /// The body so far is in the filter's view.
    fn body(&mut self, _direction: Direction, _end: bool) -> Action {
        Action::Continue
    }

    fn trailers(&mut self, _direction: Direction) -> Action {
        Action::Continue
    }

    /// Whether it is to be shown the next of a body. What no filter looks at passes without further ado.
    fn wants_body(&self, _: Direction) -> bool {
        false
    }

    /// The stream is over, and its state complete. Called for each filter that has seen any of it.
    fn log(&mut self) {}
}

/// A filter's way to its stream, which may be gone by the time something it waited for arrives.
#[derive(Clone)]
pub(crate) struct StreamHandle {
    state: Rc<RefCell<StreamState>>,
    filter: usize,
}

impl StreamHandle {
    pub(crate) fn new(state: &Rc<RefCell<StreamState>>, filter: usize) -> Self {
        Self { state: state.clone(), filter }
    }

    pub(crate) fn state(&self) -> RefMut<'_, StreamState> {
        self.state.borrow_mut()
    }

    /// The filter's place in the chain, which is its view's.
    pub(crate) fn filter(&self) -> usize {
        self.filter
    }

    /// Notes something, if the stream is recorded. Whether it is.
    pub(crate) fn record(&self, f: impl FnOnce(&mut Recording, usize)) -> bool {
        let Ok(mut state) = self.state.try_borrow_mut() else { return false };
        let recorded = state.trace.is_some();
        state.record(|recording, _| f(recording, self.filter));
        recorded
    }

    /// Lets a held direction go on. Within that direction's own callback it makes the callback a continue.
    pub(crate) fn resume(&self, direction: Direction) {
        let mut state = self.state();
        if let Some(view) = state.view(self.filter) {
            match direction {
                Direction::Request => view.resume_request = true,
                Direction::Response => view.resume_response = true,
            }
        }
        state.wake();
    }

    /// Answers the request.
    pub(crate) fn reply(&self, reply: LocalReply) {
        let mut state = self.state();
        if let Some(view) = state.view(self.filter) {
            view.local_reply.get_or_insert(reply);
        }
        state.wake();
    }
}

/// Denies every request: what Istio's agent puts in place of a module that it could not fetch.
pub(crate) struct DenyAll {
    pub(crate) name: String,
}

impl NativePlugin for DenyAll {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, _: &Rc<Services>) -> Result<Rc<dyn NativeWorker>, String> {
        Ok(Rc::new(Self { name: self.name.clone() }))
    }
}

impl NativeWorker for DenyAll {
    fn stream(self: Rc<Self>, handle: StreamHandle) -> Box<dyn NativeFilter> {
        Box::new(Denied(handle))
    }
}

struct Denied(StreamHandle);

impl NativeFilter for Denied {
    fn headers(&mut self, direction: Direction, _: bool) -> Action {
        if direction == Direction::Request {
            let details = "rbac_access_denied_matched_policy[none]";
            self.0.reply(LocalReply::new(403, "RBAC: access denied", details));
        }
        Action::Continue
    }
}
