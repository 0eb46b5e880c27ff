//! What goes on whether or not the request that asked for it is still there.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

use plugwright_sdk::{Latch, Sleep};

/// A result that several wait for.
pub(crate) struct Flight<T> {
    result: RefCell<Option<T>>,
    done: Latch,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { result: RefCell::new(None), done: Latch::default() }
    }
}

impl<T: Clone> Flight<T> {
    pub(crate) fn land(&self, result: T) {
        self.result.replace(Some(result));
        self.done.open();
    }

    /// The result, if it is there.
    pub(crate) fn result(&self) -> Option<T> {
        self.result.borrow().clone()
    }

    /// Waits for the result; none only if whoever works on it has been stopped.
    pub(crate) async fn wait(&self) -> Option<T> {
        self.done.wait().await;
        self.result()
    }
}

/// Work that waits to be begun by the future beside all streams.
pub(crate) struct Queue<J> {
    jobs: RefCell<Vec<J>>,
    waker: RefCell<Option<Waker>>,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        Self { jobs: RefCell::default(), waker: RefCell::default() }
    }
}

impl<J> Queue<J> {
    pub(crate) fn push(&self, job: J) {
        self.jobs.borrow_mut().push(job);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Does all work as it comes, for ever.
    pub(crate) async fn work<F: Future<Output = ()>>(&self, perform: impl Fn(J) -> F) {
        let mut running: Vec<Pin<Box<F>>> = Vec::new();
        poll_fn(|cx| -> Poll<()> {
            running.extend(self.jobs.take().into_iter().map(|job| Box::pin(perform(job))));
            running.retain_mut(|job| job.as_mut().poll(cx).is_pending());
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Drives two futures that never end.
pub(crate) async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| {
        let (one, other) = (one.as_mut().poll(cx), other.as_mut().poll(cx));
        if one.is_ready() && other.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Waits for a future, but not longer than a while.
pub(crate) async fn within<T>(while_: Sleep, future: impl Future<Output = T>) -> Option<T> {
    let (mut sleep, mut future) = (pin!(while_), pin!(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// A place among those that may wait at once, given back when dropped.
pub(crate) struct Place<'a>(&'a Cell<u32>);

impl<'a> Place<'a> {
    pub(crate) fn take(taken: &'a Cell<u32>, most: u32) -> Option<Self> {
        if taken.get() >= most {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Self(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
