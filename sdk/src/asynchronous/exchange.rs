//! One stream as its future and the proxy see it: the future waits, the proxy's callbacks are answered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::executor::{Task, Waiting, unwake};
use super::host::{Active, AsyncHost as _, Direction};
use crate::Flow;
use crate::plugin::settle;

/// One direction's body as far as it has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes that the proxy holds now.
    pub(super) held: Cell<usize>,
    /// Of those, bytes that the future has been given.
    pub(super) seen: Cell<usize>,
    /// The future wants all of it at once.
    pub(super) whole: Cell<bool>,
    pub(super) ended: Cell<bool>,
    /// There is a body, if perhaps an empty one.
    pub(super) begun: Cell<bool>,
    /// The proxy holds this direction until it is told to go on.
    paused: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The state that a stream's future and its callbacks share.
pub(super) struct Shared {
    pub(super) request: Progress,
    pub(super) response: Progress,
    pub(super) waiting: Cell<Waiting>,
    /// The response's headers are here.
    pub(super) answered: Cell<bool>,
    response_waker: RefCell<Option<Waker>>,
    done: Cell<bool>,
}

impl Shared {
    fn new() -> Self {
        Self {
            request: Progress::default(),
            response: Progress::default(),
            waiting: Cell::new(Waiting::Elsewhere),
            answered: Cell::new(false),
            response_waker: RefCell::new(None),
            done: Cell::new(false),
        }
    }

    pub(super) fn progress(&self, direction: Direction) -> &Progress {
        match direction {
            Direction::Request | Direction::Downstream => &self.request,
            Direction::Response => &self.response,
        }
    }

    /// Notes what the future waits for, and whom to wake when it is here.
    pub(super) fn wait(&self, waiting: Waiting, waker: &Waker) {
        self.waiting.set(waiting);
        let place = match waiting {
            Waiting::RequestBody => &self.request.waker,
            Waiting::ResponseBody => &self.response.waker,
            Waiting::Response | Waiting::Elsewhere => &self.response_waker,
        };
        place.replace(Some(waker.clone()));
    }
}

/// A stream's state, for its future.
pub(crate) struct Handle {
    pub(super) context: u32,
    pub(super) shared: Rc<Shared>,
}

/// A stream and its future.
pub(crate) struct Exchange {
    context: u32,
    /// The request, or what a connection's client sends.
    first: Direction,
    shared: Rc<Shared>,
    task: RefCell<Option<Task<Flow>>>,
}

/// Whether the callback's part of the stream goes on.
pub(crate) type Continues = bool;

impl Exchange {
    /// A stream; `start` gets what its future works with.
    pub(crate) fn new(context: u32, first: Direction, start: impl FnOnce(Handle) -> Task<Flow>) -> Rc<Self> {
        let shared = Rc::new(Shared::new());
        let task = start(Handle { context, shared: Rc::clone(&shared) });
        Rc::new(Self { context, first, shared, task: RefCell::new(Some(task)) })
    }

    pub(crate) fn on_headers(&self, direction: Direction, end: bool) -> Continues {
        let progress = self.shared.progress(direction);
        progress.ended.set(end);
        if direction == Direction::Response {
            self.shared.answered.set(true);
            wake(&self.shared.response_waker);
            // The request's body is of no use any more to whoever still reads it.
            wake(&self.shared.request.waker);
        }
        self.step(direction, |waiting| match direction {
            Direction::Request | Direction::Downstream => waiting != Waiting::Elsewhere,
            Direction::Response => waiting == Waiting::ResponseBody,
        })
    }

    pub(crate) fn on_body(&self, direction: Direction, size: usize, end: bool) -> Continues {
        let progress = self.shared.progress(direction);
        progress.begun.set(true);
        progress.held.set(size);
        progress.ended.set(end);
        wake(&progress.waker);
        let continues = self.step(direction, |waiting| match (direction, waiting) {
            (_, Waiting::Elsewhere) | (Direction::Response, Waiting::RequestBody | Waiting::Response) => false,
            (Direction::Response, Waiting::ResponseBody) | (_, Waiting::RequestBody) => !progress.whole.get(),
            (_, Waiting::Response | Waiting::ResponseBody) => true,
        });
        if continues {
            progress.held.set(0);
            progress.seen.set(0);
        }
        continues
    }

    pub(crate) fn on_trailers(&self, direction: Direction) -> Continues {
        let progress = self.shared.progress(direction);
        progress.ended.set(true);
        wake(&progress.waker);
        self.step(direction, |waiting| waiting != Waiting::Elsewhere)
    }

    /// Polls the future within a callback of its stream.
    fn step(&self, direction: Direction, goes_on: impl FnOnce(Waiting) -> bool) -> Continues {
        if self.shared.done.get() {
            return true;
        }
        let continues = match self.poll() {
            Some(answer) => {
                let continues = self.finish(answer);
                if continues {
                    // This direction goes on with the callback's result, the other one if it was held.
                    self.shared.progress(direction).paused.set(false);
                    self.release(|_| true);
                }
                return continues;
            }
            None => goes_on(self.shared.waiting.get()),
        };
        self.shared.progress(direction).paused.set(!continues);
        self.release(|other| other != direction && self.may_go_on(other));
        continues
    }

    /// Polls the future because something else was ready, and lets the stream go on if it can.
    pub(super) fn resume(&self) {
        if self.shared.done.get() {
            return;
        }
        match self.poll() {
            Some(answer) => {
                if self.finish(answer) {
                    self.release(|_| true);
                }
            }
            None => self.release(|direction| self.may_go_on(direction)),
        }
    }

    /// Whether a held direction is one that the future now waits for.
    fn may_go_on(&self, direction: Direction) -> bool {
        let progress = self.shared.progress(direction);
        // A body that is gathered stays; its next part comes all the same.
        let gathered = progress.whole.get() && progress.held.get() > 0;
        match (direction, self.shared.waiting.get()) {
            (_, Waiting::Elsewhere) | (Direction::Response, Waiting::RequestBody | Waiting::Response) => false,
            (Direction::Response, Waiting::ResponseBody) | (_, Waiting::RequestBody) => !gathered,
            (_, Waiting::Response | Waiting::ResponseBody) => true,
        }
    }

    fn release(&self, which: impl Fn(Direction) -> bool) {
        for direction in [self.first, Direction::Response] {
            let progress = self.shared.progress(direction);
            if progress.paused.get() && which(direction) {
                progress.paused.set(false);
                progress.held.set(0);
                progress.seen.set(0);
                Active.resume(direction);
            }
        }
    }

    fn poll(&self) -> Option<Flow> {
        self.shared.waiting.set(Waiting::Elsewhere);
        unwake(self.context);
        // A future that is being polled is not polled again from within.
        let mut task = self.task.take()?;
        let flow = task.poll();
        if flow.is_none() {
            self.task.replace(Some(task));
        }
        flow
    }

    fn finish(&self, flow: Flow) -> Continues {
        self.shared.done.set(true);
        settle(flow, &mut Active)
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
