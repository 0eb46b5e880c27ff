//! Runs futures within the callbacks of a module: nothing runs but in a callback, and a callback runs what it woke.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use super::exchange::Exchange;
use super::host::{Active, AsyncHost as _, CalloutEvent};
use crate::Host as _;

/// What a stream's future waits for, when that is a callback of the stream itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For something else, a call or a moment: the stream is held.
    Elsewhere,
    RequestBody,
    Response,
    ResponseBody,
}

thread_local! {
    /// Contexts whose futures were woken.
    static WOKEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static EXECUTOR: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

/// Takes a context off the list: it is being polled.
pub(super) fn unwake(context: u32) {
    WOKEN.with_borrow_mut(|woken| woken.retain(|other| *other != context));
}

struct WakeContext(u32);

impl Wake for WakeContext {
    fn wake(self: Arc<Self>) {
        WOKEN.with_borrow_mut(|woken| {
            if !woken.contains(&self.0) {
                woken.push(self.0);
            }
        });
    }
}

/// What waits for a callout. As an object: a plugin that makes no gRPC calls carries nothing of them.
pub(crate) trait Callout {
    /// Takes what came of it, while the host's callback about it runs.
    fn on_event(&self, event: CalloutEvent);
}

/// A future and the context that it belongs to.
pub(crate) struct Task<T> {
    context: u32,
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
}

impl<T> Task<T> {
    pub(crate) fn new(context: u32, future: impl Future<Output = T> + 'static) -> Self {
        Self { context, future: Some(Box::pin(future)) }
    }

    /// Polls it; nothing once it has been ready.
    pub(crate) fn poll(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::new(WakeContext(self.context)));
        match self.future.as_mut()?.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => None,
            Poll::Ready(output) => {
                self.future = None;
                Some(output)
            }
        }
    }
}

/// The tasks of one plugin configuration.
#[derive(Default)]
pub(crate) struct Executor {
    root: Cell<u32>,
    background: RefCell<Option<Task<()>>>,
    streams: RefCell<BTreeMap<u32, Weak<Exchange>>>,
    callouts: RefCell<BTreeMap<u32, Weak<dyn Callout>>>,
    queues: RefCell<Vec<(u32, Waker)>>,
    timers: RefCell<BTreeMap<(SystemTime, u64), Waker>>,
    timer_ids: Cell<u64>,
    /// When the host was last told to call back.
    armed: Cell<Option<SystemTime>>,
}

impl Executor {
    pub(crate) fn new(root: u32) -> Rc<Self> {
        let executor = Self::default();
        executor.root.set(root);
        Rc::new(executor)
    }

    /// The executor whose callback is running.
    pub(super) fn current() -> Option<Rc<Self>> {
        EXECUTOR.with_borrow(Clone::clone)
    }

    /// Runs `f` as part of a callback of this executor, and then what it woke.
    pub(crate) fn enter<T>(self: &Rc<Self>, context: u32, f: impl FnOnce() -> T) -> T {
        let outer = EXECUTOR.replace(Some(Rc::clone(self)));
        let result = f();
        self.run(context);
        self.set_timer();
        EXECUTOR.replace(outer);
        result
    }

    pub(crate) fn start(&self, future: impl Future<Output = ()> + 'static) {
        let mut task = Task::new(self.root.get(), future);
        if task.poll().is_none() {
            self.background.replace(Some(task));
        }
    }

    pub(crate) fn add_stream(&self, context: u32, exchange: &Rc<Exchange>) {
        self.streams.borrow_mut().insert(context, Rc::downgrade(exchange));
    }

    /// Drops what a stream's future holds: within a callback of this executor, where its timers and callouts are
    /// known, and while the stream still exists.
    pub(crate) fn end_stream(self: &Rc<Self>, context: u32, exchange: Option<Rc<Exchange>>) {
        self.enter(context, || drop(exchange));
        self.streams.borrow_mut().remove(&context);
    }

    pub(super) fn add_callout(&self, token: u32, callout: &Rc<dyn Callout>) {
        self.callouts.borrow_mut().insert(token, Rc::downgrade(callout));
    }

    pub(super) fn remove_callout(&self, token: u32) {
        self.callouts.borrow_mut().remove(&token);
    }

    /// Takes what came of a callout. A future that no longer waits for it has dropped its callout.
    pub(crate) fn on_callout(&self, token: u32, event: CalloutEvent) {
        let callout = self.callouts.borrow().get(&token).and_then(Weak::upgrade);
        let goes_on =
            matches!(event, CalloutEvent::GrpcMetadata | CalloutEvent::GrpcMessage { .. } | CalloutEvent::GrpcTrailers);
        if callout.is_none() || !goes_on {
            self.remove_callout(token);
        }
        if let Some(callout) = callout {
            callout.on_event(event);
        }
    }

    /// Wakes whoever waits for what is in a queue.
    pub(crate) fn on_queue_ready(&self, queue: u32) {
        self.queues.borrow_mut().retain(|(waited_for, waker)| {
            if *waited_for == queue {
                waker.wake_by_ref();
            }
            *waited_for != queue
        });
    }

    pub(super) fn await_queue(&self, queue: u32, waker: &Waker) {
        self.queues.borrow_mut().push((queue, waker.clone()));
    }

    pub(super) fn add_timer(&self, at: SystemTime, waker: Waker) -> (SystemTime, u64) {
        let id = self.timer_ids.get();
        self.timer_ids.set(id.wrapping_add(1));
        self.timers.borrow_mut().insert((at, id), waker);
        (at, id)
    }

    pub(super) fn remove_timer(&self, key: &(SystemTime, u64)) {
        self.timers.borrow_mut().remove(key);
    }

    /// Wakes whoever waited for a moment that has come.
    pub(crate) fn on_tick(&self) {
        // The host goes on with the period it has: whatever is next is set again, and nothing turns it off.
        self.armed.set(self.armed.get().map(|_| SystemTime::UNIX_EPOCH));
        let Ok(now) = Active.now() else { return };
        loop {
            let mut timers = self.timers.borrow_mut();
            match timers.first_entry() {
                Some(first) if first.key().0 <= now => first.remove().wake(),
                _ => break,
            }
        }
    }

    /// Polls what was woken until nothing is.
    fn run(&self, entered: u32) {
        let mut context = entered;
        while let Some(next) = WOKEN.with_borrow_mut(Vec::pop) {
            let exchange = self.streams.borrow().get(&next).and_then(Weak::upgrade);
            if exchange.is_none() && next != self.root.get() {
                // Its stream is over: proxies know its context no more.
                continue;
            }
            if next != context {
                Active.set_context(next);
                context = next;
            }
            match exchange {
                Some(exchange) => exchange.resume(),
                None => self.poll_background(),
            }
        }
        if context != entered {
            Active.set_context(entered);
        }
    }

    fn poll_background(&self) {
        let Some(mut task) = self.background.take() else { return };
        if task.poll().is_none() {
            self.background.replace(Some(task));
        }
    }

    /// Has the host call back when the next timer is due.
    fn set_timer(&self) {
        const SHORTEST: Duration = Duration::from_millis(1);
        let next = self.timers.borrow().first_key_value().map(|((at, _), _)| *at);
        match next {
            Some(at) if self.armed.get() == Some(at) => {}
            Some(at) => {
                let now = Active.now().unwrap_or(at);
                let left = at.duration_since(now).unwrap_or_default();
                // The host counts whole milliseconds: too late is better than twice.
                Active.set_tick_period(left.max(SHORTEST) + SHORTEST);
                self.armed.set(Some(at));
            }
            None if self.armed.take().is_some() => Active.set_tick_period(Duration::ZERO),
            None => {}
        }
    }
}
