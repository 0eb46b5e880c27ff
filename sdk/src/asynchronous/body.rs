//! Bodies, piece by piece or whole, and what follows them.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::exchange::Shared;
use super::executor::Waiting;
use super::host::{Active, Direction};
use crate::host::HostError;
use crate::{BufferType, Host as _, LocalResponse, MapType, Trailers};

/// The body of a request or a response, whose headers have gone on.
pub struct Body {
    shared: Rc<Shared>,
    direction: Direction,
}

/// Why there is no more of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The request was answered before its body had ended.
    Answered,
    /// The proxy refused access.
    Host(HostError),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("the request was answered before its body had ended"),
            Self::Host(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BodyError {}

impl From<HostError> for BodyError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

/// A body that cannot be read answers with an empty 500, if it is not too late for that.
impl From<BodyError> for LocalResponse {
    fn from(_: BodyError) -> Self {
        Self::new(500).details("body_unavailable")
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("direction", &self.direction).finish_non_exhaustive()
    }
}

impl Body {
    pub(super) fn new(shared: &Rc<Shared>, direction: Direction) -> Self {
        Self { shared: Rc::clone(shared), direction }
    }

    /// The next piece, as it arrives; none at the end. The piece before goes on when this is asked for.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        poll_fn(|cx| self.poll(cx, false)).await
    }

    /// All of it that has not been had as a piece. The proxy keeps it meanwhile, up to its limit (1 MiB in Envoy); beyond
    /// that it answers 413 itself.
    pub async fn whole(&mut self) -> Result<Vec<u8>, BodyError> {
        poll_fn(|cx| self.poll(cx, true)).await.map(Option::unwrap_or_default)
    }

    /// Puts `bytes` in the place of what [`chunk`](Self::chunk) or [`whole`](Self::whole) returned last.
    ///
    /// `content-length` went on with the headers: remove it before asking for the body, or the length must stay. A message
    /// that ended with its headers cannot be given a body.
    pub fn replace(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        let progress = self.shared.progress(self.direction);
        if bytes.is_empty() && !progress.begun.get() {
            return Ok(());
        }
        progress.held.set(bytes.len());
        progress.seen.set(bytes.len());
        Ok(Active.replace_body(self.buffer(), bytes)?)
    }

    /// Lets the rest of the body go on and waits for its end, where the trailers are: those that came, or, after a body
    /// that ended without, those that are set. A message that ended with its headers cannot be given any.
    pub async fn trailers(&mut self) -> Result<Trailers, BodyError> {
        poll_fn(|cx| {
            let progress = self.shared.progress(self.direction);
            if !progress.ended.get() {
                return self.wait(cx, false).map(Err);
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        let request = self.direction == Direction::Request;
        Ok(Trailers::new(if request { MapType::RequestTrailers } else { MapType::ResponseTrailers }))
    }

    pub(super) fn shared(self) -> Rc<Shared> {
        self.shared
    }

    fn buffer(&self) -> BufferType {
        match self.direction {
            Direction::Request => BufferType::RequestBody,
            Direction::Response => BufferType::ResponseBody,
            Direction::Downstream => BufferType::DownstreamData,
        }
    }

    fn poll(&mut self, cx: &Context<'_>, whole: bool) -> Poll<Result<Option<Vec<u8>>, BodyError>> {
        let progress = self.shared.progress(self.direction);
        let (held, seen) = (progress.held.get(), progress.seen.get());
        let ready = if whole { progress.ended.get() } else { held > seen };
        if ready {
            progress.whole.set(false);
            let bytes = if held > seen { Active.body(self.buffer(), seen..held)? } else { Vec::new() };
            progress.seen.set(held);
            return Poll::Ready(Ok(Some(bytes)));
        }
        if progress.ended.get() {
            return Poll::Ready(Ok(None));
        }
        self.wait(cx, whole).map(Err)
    }

    /// Waits for more; ready when there can be none.
    fn wait(&self, cx: &Context<'_>, whole: bool) -> Poll<BodyError> {
        let waiting = match self.direction {
            Direction::Request if self.shared.answered.get() => return Poll::Ready(BodyError::Answered),
            Direction::Request | Direction::Downstream => Waiting::RequestBody,
            Direction::Response => Waiting::ResponseBody,
        };
        self.shared.progress(self.direction).whole.set(whole);
        self.shared.wait(waiting, cx.waker());
        Poll::Pending
    }
}
