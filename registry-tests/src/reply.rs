//! Answers: bodies that can break off, and the specification's error JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use serde_json::json;

/// A body of known length that may end too early.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Bytes,
    /// What `Content-Length` says, where that is more than will come.
    pub(crate) promised: Option<u64>,
    /// Whether the connection then stays open instead of being closed.
    pub(crate) stalls: bool,
    /// How long to wait before each single byte, where the body comes that slowly.
    pub(crate) drips: Option<Duration>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    sent: Sent,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sent {
    #[default]
    Nothing,
    Bytes,
    All,
}

/// The connection is to be closed in the middle of a body.
#[derive(Debug)]
pub(crate) struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off on purpose")
    }
}

impl std::error::Error for BrokenOff {}

impl From<Infallible> for BrokenOff {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Content {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(interval) = self.drips {
            if self.bytes.is_empty() {
                return Poll::Ready(None);
            }
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
            return Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(1)))));
        }
        match (self.sent, self.promised) {
            (Sent::Nothing, _) if !self.bytes.is_empty() => {
                self.sent = Sent::Bytes;
                Poll::Ready(Some(Ok(Frame::data(self.bytes.clone()))))
            }
            (_, None) => Poll::Ready(None),
            _ if self.stalls => Poll::Pending,
            (Sent::All, Some(_)) => Poll::Ready(Some(Err(BrokenOff))),
            // What there is goes out on its way to us again; only then is the connection closed.
            (_, Some(_)) => {
                self.sent = Sent::All;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.promised.is_none() && self.drips.is_none() && (self.sent != Sent::Nothing || self.bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised.unwrap_or(self.bytes.len() as u64))
    }
}

pub(crate) type Reply = Response<Content>;

/// An answer with headers and a body.
pub(crate) fn reply(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Content::new(body));
    *reply.status_mut() = status;
    let standing = [("docker-distribution-api-version", "registry/2.0")];
    for (name, value) in headers.iter().copied().chain(standing) {
        if let (Ok(name), Ok(value)) = (name.parse::<hyper::header::HeaderName>(), value.parse()) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

/// An error as the specification wants it.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let body = json!({"errors": [{"code": code, "message": message, "detail": {}}]}).to_string();
    reply(status, &[("content-type", "application/json")], body)
}

pub(crate) fn json(headers: &[(&str, &str)], body: &serde_json::Value) -> Reply {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    reply(StatusCode::OK, &all, body.to_string())
}

/// The code that goes with a status when nothing more is known.
pub(crate) fn code_for(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "NAME_UNKNOWN",
        429 => "TOOMANYREQUESTS",
        _ => "UNKNOWN",
    }
}
