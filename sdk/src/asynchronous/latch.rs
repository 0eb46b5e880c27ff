//! Waiting for what another future does.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Holds futures up until it is opened: for requests that need what [`start`](crate::AsyncPlugin::start) has yet to fetch.
///
/// ```
/// # async fn f() {
/// let ready = plugwright_sdk::Latch::default();
/// ready.open();
/// ready.wait().await;
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Latch {
    open: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Latch {
    /// Lets everybody pass from now on.
    pub fn open(&self) {
        self.open.set(true);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Holds up again who comes from now on.
    pub fn close(&self) {
        self.open.set(false);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Waits until it is open.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.open.get() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
