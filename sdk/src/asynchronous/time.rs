//! Waiting for a moment.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::executor::Executor;
use super::host::Active;
use crate::Host as _;

/// Is ready after a while; made by [`Request::sleep`](crate::Request::sleep) and its like.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    until: Option<SystemTime>,
    timer: Option<(SystemTime, u64)>,
}

impl Sleep {
    pub(super) fn new(duration: Duration) -> Self {
        // A host without a clock has no ticks either: not to wait is better than never to end.
        Self { until: Active.now().ok().and_then(|now| now.checked_add(duration)), timer: None }
    }

    fn cancel(&mut self) {
        if let (Some(timer), Some(executor)) = (self.timer.take(), Executor::current()) {
            executor.remove_timer(&timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(until), Ok(now)) = (self.until, Active.now()) else { return Poll::Ready(()) };
        self.cancel();
        if now >= until {
            return Poll::Ready(());
        }
        let Some(executor) = Executor::current() else { return Poll::Ready(()) };
        self.timer = Some(executor.add_timer(until, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}
