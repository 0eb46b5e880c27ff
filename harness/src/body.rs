//! Bodies that one task fills while hyper empties them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Shared {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    ended: bool,
    /// There never was a body.
    empty: bool,
    /// Some of it has been read.
    taken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    dropped: bool,
    /// Trailers end the body and are not passed on.
    without_trailers: bool,
}

/// The end that hyper reads.
#[derive(Debug)]
pub(crate) struct QueueBody(Rc<RefCell<Shared>>);

/// The end that is written to. Dropping it before the end breaks the body off.
#[derive(Debug)]
pub(crate) struct Writer(Rc<RefCell<Shared>>);

/// A writer and the body it fills; an ended one has no content.
pub(crate) fn queue(ended: bool) -> (Writer, QueueBody) {
    let shared = Rc::new(RefCell::new(Shared { ended, empty: ended, ..Shared::default() }));
    (Writer(shared.clone()), QueueBody(shared))
}

/// More than this waiting in a queue makes its writer wait.
const HIGH_WATERMARK: usize = 256 << 10;

impl Writer {
    pub(crate) fn push(&self, frame: Option<Frame<Bytes>>, end: bool) {
        let mut shared = self.0.borrow_mut();
        if let Some(frame) = frame {
            shared.bytes += frame.data_ref().map_or(0, Bytes::len);
            shared.frames.push_back(frame);
        }
        shared.ended |= end;
        if let Some(reader) = shared.reader.take() {
            reader.wake();
        }
    }

    pub(crate) fn ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// Bytes that nobody has taken.
    pub(crate) fn queued(&self) -> usize {
        self.0.borrow().bytes
    }

    /// Ready when there is room.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.bytes < HIGH_WATERMARK || shared.dropped {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(reader) = self.0.borrow_mut().reader.take() {
            reader.wake();
        }
    }
}

/// The writer is gone, and the body is not complete.
#[derive(Debug, thiserror::Error)]
#[error("the body was broken off")]
pub(crate) struct BrokenOff;

/// Tells whether a body has ended, for whoever waits for what follows it.
#[derive(Debug)]
pub(crate) struct End(Weak<RefCell<Shared>>);

impl End {
    /// The writer has ended it; who has read it to its end may have dropped it since.
    pub(crate) fn has_come(&self) -> bool {
        self.0.upgrade().is_none_or(|shared| shared.borrow().ended)
    }
}

impl QueueBody {
    pub(crate) fn end(&self) -> End {
        End(Rc::downgrade(&self.0))
    }

    /// Leaves trailers out from now on.
    pub(crate) fn drop_trailers(&self) {
        self.0.borrow_mut().without_trailers = true;
    }
}

impl Body for QueueBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let mut shared = self.0.borrow_mut();
        while let Some(frame) = shared.frames.pop_front() {
            shared.taken = true;
            if frame.is_trailers() && shared.without_trailers {
                continue;
            }
            shared.bytes -= frame.data_ref().map_or(0, Bytes::len);
            if let Some(writer) = shared.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        // Only the reader's own reference is left.
        if Rc::strong_count(&self.0) == 1 {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        shared.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        // A body that turns out to have no content is one all the same, and Envoy writes it so.
        shared.empty || (shared.taken && shared.ended && shared.frames.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl Drop for QueueBody {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.dropped = true;
        if let Some(writer) = shared.writer.take() {
            writer.wake();
        }
    }
}
