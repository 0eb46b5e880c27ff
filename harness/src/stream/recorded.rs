//! What a stream's recording is told of its filters, for streams that are recorded.

use super::Stream;
use super::filter::StreamFilter;
use super::state::StreamState;
use crate::native::Action;
use crate::trace::{Answer, FilterKind, Recording, action};
use crate::vm::Failed;
use crate::worker::WorkerFilter;

/// The chain: those that take part, and those that do not since their VM has failed.
pub(super) fn chain(trace: &mut Recording, chain: &[WorkerFilter], filters: &[StreamFilter]) {
    let mut taking_part = filters.iter().peekable();
    for filter in chain {
        let (name, kind) = match filter {
            WorkerFilter::Wasm(handle) => (handle.plugin().name.as_str(), FilterKind::Wasm),
            WorkerFilter::Native { name, .. } => (&**name, FilterKind::Native),
        };
        let takes_part = taking_part.next_if(|next| *next.name == *name).is_some();
        trace.filter(name, kind, !takes_part);
    }
}

impl Stream {
    /// Notes something.
    pub(super) fn record(&self, f: impl FnOnce(&mut Recording, &StreamState)) {
        if self.recorded {
            self.state_mut().record(f);
        }
    }

    /// A callback begins. `saw`: the bytes it is shown, and whether nothing follows.
    pub(super) fn begin(&self, filter: usize, callback: &'static str, saw: Option<(usize, bool)>) {
        if self.recorded && !self.filters[filter].lacks(callback) {
            let native = !self.filters[filter].is_wasm();
            let callback = callback.strip_prefix("proxy_on_").filter(|_| native).unwrap_or(callback);
            self.state_mut().trace_begin(filter, callback, saw);
        }
    }

    /// It is over.
    pub(super) fn end(&self, filter: usize, answer: Answer) {
        if self.recorded {
            self.state_mut().trace_end(filter, answer);
        }
    }

    pub(super) fn end_native(&self, filter: usize, action: Action) {
        if self.recorded {
            self.end(
                filter,
                Answer::Action(match action {
                    Action::Continue => "Continue",
                    Action::StopIteration => "StopIteration",
                    Action::StopAll => "StopAllIteration",
                }),
            );
        }
    }

    /// A plugin's callback is over.
    pub(super) fn end_called(&self, filter: usize, called: Option<Result<u32, Failed>>) {
        if self.recorded {
            self.end(
                filter,
                match called {
                    Some(Ok(number)) => Answer::Action(action(self.callback, number)),
                    Some(Err(Failed)) => Answer::Failed,
                    None => Answer::Nothing,
                },
            );
        }
    }
}
