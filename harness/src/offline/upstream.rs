//! An upstream in this process, as the router meets one.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

use super::{Answer, Message, NOBODY, Servers, list, map};
use crate::header_map::HeaderMap;
use crate::upstream::{Event, Failure};

/// One request: the server is asked when all of it is there.
pub(crate) struct Exchange {
    servers: Rc<dyn Servers>,
    request: Message,
    promised: Option<u64>,
    stage: Stage,
}

enum Stage {
    Receiving,
    Complete,
    Waiting { until: Pin<Box<Sleep>>, since: Instant, answer: Answer },
    Answering(VecDeque<Event>),
}

impl Exchange {
    /// `None`: the headers cannot be written as HTTP.
    pub(crate) fn start(servers: Rc<dyn Servers>, headers: &HeaderMap, end: bool) -> Option<Self> {
        let written = headers.to_http().ok()?;
        let mut seen = Vec::new();
        for name in [":method", ":path", ":authority"] {
            seen.push((name.as_bytes().to_vec(), headers.get(name.as_bytes())?.to_vec()));
        }
        seen.extend(written.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())));
        let bodiless = ["GET", "HEAD", "DELETE", "CONNECT", "TRACE"].contains(&headers.text(":method")?);
        if end && !bodiless && !written.contains_key(http::header::CONTENT_LENGTH) {
            seen.push((b"content-length".to_vec(), b"0".to_vec()));
        }
        let promised = headers.text("content-length").and_then(|length| length.parse().ok());
        let request = Message { headers: seen, ..Message::default() };
        let stage = if end { Stage::Complete } else { Stage::Receiving };
        Some(Self { servers, request, promised, stage })
    }

    pub(crate) fn data(&mut self, bytes: &[u8], end: bool) {
        self.request.body.extend_from_slice(bytes);
        if end {
            self.stage = Stage::Complete;
        }
    }

    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        self.request.trailers = list(trailers);
        self.stage = Stage::Complete;
    }

    /// What content-length promises, and what has been sent.
    pub(crate) fn length(&self) -> (Option<u64>, u64) {
        (self.promised, self.request.body.len() as u64)
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match &mut self.stage {
                Stage::Receiving => return Poll::Pending,
                Stage::Complete => {
                    let since = Instant::now();
                    let reply = self.servers.upstream(&self.request);
                    let until = Box::pin(tokio::time::sleep(reply.delay));
                    self.stage = Stage::Waiting { until, since, answer: reply.answer };
                }
                Stage::Waiting { until, since, answer } => {
                    ready!(until.as_mut().poll(cx));
                    let is_head =
                        self.request.headers.iter().any(|(name, value)| name == b":method" && value == b"HEAD");
                    let answer = std::mem::replace(answer, Answer::Closed);
                    self.stage = Stage::Answering(events(answer, since.elapsed().as_millis(), is_head));
                }
                Stage::Answering(events) => return events.pop_front().map_or(Poll::Pending, Poll::Ready),
            }
        }
    }
}

fn events(answer: Answer, took: u128, is_head: bool) -> VecDeque<Event> {
    let (message, whole) = match answer {
        Answer::Closed => return [Event::Failed(Failure::Terminated)].into(),
        Answer::Refused => return [Event::Failed(NOBODY)].into(),
        Answer::Whole(message) => (message, true),
        Answer::BrokenOff(message) => (message, false),
    };
    let mut headers = map(&message.headers);
    // What does not fit is left out: the map has the same bound for everyone.
    let _ = headers.replace(b"x-envoy-upstream-service-time", took.to_string().as_bytes());
    let mut body = message.body;
    if !whole {
        body.truncate(body.len() / 2);
    }
    let end = whole && (is_head || body.is_empty() && message.trailers.is_empty());
    let mut events = VecDeque::from([Event::Headers { headers, end }]);
    if end {
        return events;
    }
    if !body.is_empty() {
        events.push_back(Event::Data(body.into()));
    }
    events.push_back(match (whole, message.trailers.is_empty()) {
        (false, _) => Event::Failed(Failure::Terminated),
        // On HTTP/1.1, which an upstream is spoken to in, Envoy drops trailers.
        (true, _) => Event::End,
    });
    events
}
