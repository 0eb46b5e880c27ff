//! Waiting for what another future does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

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
    waiting: RefCell<BTreeMap<u64, Waker>>,
    ids: Cell<u64>,
}

impl Latch {
    /// Lets everybody pass from now on.
    pub fn open(&self) {
        self.open.set(true);
        for waker in self.waiting.take().into_values() {
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
        Wait { latch: self, id: None }.await;
    }
}

/// One that waits. It leaves nothing behind when it is dropped, however long the latch stays closed.
struct Wait<'a> {
    latch: &'a Latch,
    id: Option<u64>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let latch = self.latch;
        if latch.open.get() {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert_with(|| {
            let id = latch.ids.get();
            latch.ids.set(id.wrapping_add(1));
            id
        });
        latch.waiting.borrow_mut().insert(id, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.latch.waiting.borrow_mut().remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::Latch;

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let latch = Latch::default();
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let mut wait = pin!(latch.wait());
            assert_eq!([wait.as_mut().poll(cx), wait.as_mut().poll(cx)], [Poll::Pending; 2]);
            assert_eq!(latch.waiting.borrow().len(), 1);
        }
        // Pinned futures of the loop are dropped with each round.
        assert!(latch.waiting.borrow().is_empty());
    }

    #[test]
    fn a_closed_latch_holds_up_again() {
        let latch = Latch::default();
        let cx = &mut Context::from_waker(Waker::noop());
        latch.open();
        assert_eq!(pin!(latch.wait()).poll(cx), Poll::Ready(()));
        latch.close();
        assert_eq!(pin!(latch.wait()).poll(cx), Poll::Pending);
    }
}
