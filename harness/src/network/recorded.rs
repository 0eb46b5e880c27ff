//! What a connection's recording is told of its filters, for connections that are recorded.

use super::{Chain, ConnectionFilter, Filter};
use crate::trace::{Answer, FilterKind, Recording, action};
use crate::vm::Failed;

/// The chain: those that take part, and those that do not since their VM has failed.
pub(super) fn chain(trace: &mut Recording, all: &[Filter], filters: &[ConnectionFilter]) {
    let mut taking_part = filters.iter().peekable();
    for filter in all {
        let (name, kind) = match filter {
            Filter::Wasm(handle) => (handle.plugin().name.as_str(), FilterKind::Wasm),
            Filter::Deny { name } => (name.as_str(), FilterKind::Native),
        };
        let takes_part = taking_part.next_if(|next| next.name == name).is_some();
        trace.filter(name, kind, !takes_part);
    }
}

impl Chain {
    /// A callback begins, if the module has it. `saw`: the bytes it is shown, and whether nothing follows.
    pub(super) fn begin_callback(&self, filter: usize, callback: &'static str, saw: Option<(usize, bool)>) {
        let has = || self.filters[filter].vm.as_ref().is_some_and(|(vm, _)| vm.borrow().has(callback));
        if self.recorded && has() {
            self.state_mut().trace_begin(filter, callback, saw);
        }
    }

    /// It is over.
    pub(super) fn end_callback(&self, filter: usize, answer: Answer) {
        if self.recorded {
            self.state_mut().trace_end(filter, answer);
        }
    }

    /// It is over, and answered.
    pub(super) fn end_called(&self, filter: usize, callback: &str, called: Option<Result<u32, Failed>>) {
        self.end_callback(
            filter,
            match called {
                Some(Ok(number)) => Answer::Action(action(callback, number)),
                Some(Err(Failed)) => Answer::Failed,
                None => Answer::Nothing,
            },
        );
    }
}
