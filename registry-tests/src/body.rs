//! Request bodies that break off where told to.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};

/// A request's body, or the first so many bytes of it and then an error.
pub(crate) struct Incomplete {
    inner: Incoming,
    left: Option<usize>,
}

impl Incomplete {
    pub(crate) fn whole(inner: Incoming) -> Self {
        Self { inner, left: None }
    }

    pub(crate) fn breaking(inner: Incoming, at: usize) -> Self {
        Self { inner, left: Some(at) }
    }
}

impl Body for Incomplete {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == Some(0) {
            return Poll::Ready(Some(Err("broken off on purpose".into())));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        Poll::Ready(frame.map(|frame| match (frame?.into_data(), &mut self.left) {
            (Ok(data), Some(left)) => {
                let taken = data.slice(..data.len().min(*left));
                *left -= taken.len();
                Ok(Frame::data(taken))
            }
            (Ok(data), None) => Ok(Frame::data(data)),
            (Err(frame), _) => Ok(frame),
        }))
    }
}
