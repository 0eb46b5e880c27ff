//! What a plugin under test waits for: calls that a test's backends answer, and a clock that jumps.

use std::time::Duration;

use super::Message;
use super::message::response;
use crate::host::{Header, HostError};

const BAD_ARGUMENT: u32 = 2;

/// What a backend does with a call.
///
/// ```
/// use std::time::Duration;
/// use plugwright_sdk::testing::{Reply, response};
///
/// let slow = Reply::after(Duration::from_secs(3), response(200));
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    delay: Duration,
    /// None breaks off.
    message: Option<Message>,
}

impl From<Message> for Reply {
    fn from(message: Message) -> Self {
        Self { delay: Duration::ZERO, message: Some(message) }
    }
}

impl Reply {
    /// Answers after a while. When the call's timeout is shorter, the proxy answers 504 by then.
    pub fn after(delay: Duration, message: Message) -> Self {
        Self { delay, message: Some(message) }
    }

    /// Never answers: the call's timeout decides.
    pub fn never() -> Self {
        Self::after(Duration::MAX, response(504))
    }

    /// Breaks off within the response.
    pub fn broken() -> Self {
        Self { delay: Duration::ZERO, message: None }
    }

    /// Cannot be reached: what the proxy makes of that is a 503.
    pub fn unreachable() -> Self {
        let body = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
        response(503).body(body).into()
    }
}

type Backend = Box<dyn FnMut(&Message) -> Reply>;

#[derive(Default)]
pub(super) struct Waits {
    backends: Vec<(String, Backend)>,
    pending: Vec<Pending>,
    tokens: u32,
    tick: Option<(Duration, Duration)>,
    pub(super) resumed: [bool; 2],
    pub(super) calls: Vec<(String, Message)>,
    response: Option<(Vec<Header>, Vec<u8>)>,
}

struct Pending {
    token: u32,
    due: Duration,
    response: Option<Message>,
}

/// What happens next.
pub(super) enum Event {
    Response { token: u32, headers: usize, body_size: usize },
    Tick,
}

impl std::fmt::Debug for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waits").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Waits {
    pub(super) fn backend(&mut self, cluster: &str, backend: Backend) {
        self.backends.retain(|(name, _)| name != cluster);
        self.backends.push((cluster.to_owned(), backend));
    }

    pub(super) fn call(
        &mut self,
        now: Duration,
        cluster: &str,
        request: Message,
        timeout: Duration,
    ) -> Result<u32, HostError> {
        let refused = HostError::new("proxy_http_call", BAD_ARGUMENT);
        let (_, backend) = self.backends.iter_mut().find(|(name, _)| name == cluster).ok_or(refused)?;
        let reply = backend(&request);
        self.calls.push((cluster.to_owned(), request));
        self.tokens += 4;
        let (delay, response) = if reply.delay > timeout {
            (timeout, Some(response(504).body("upstream request timeout")))
        } else {
            (reply.delay, reply.message)
        };
        self.pending.push(Pending { token: self.tokens, due: now.saturating_add(delay), response });
        Ok(self.tokens)
    }

    pub(super) fn set_tick_period(&mut self, now: Duration, period: Duration) {
        self.tick = (!period.is_zero()).then(|| (period, now.saturating_add(period)));
    }

    /// When the next event happens.
    pub(super) fn due(&self) -> Option<Duration> {
        let call = self.pending.iter().map(|pending| pending.due).min();
        call.into_iter().chain(self.tick.map(|(_, at)| at)).min()
    }

    /// Takes the next event and the time at which it happens; none when there is nothing to wait for.
    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        let call = self.pending.iter().enumerate().min_by_key(|(_, pending)| pending.due).map(|(i, p)| (i, p.due));
        match (call, self.tick) {
            (Some((_, due)), Some((period, tick))) if tick < due => {
                self.tick = Some((period, tick + period));
                Some((tick, Event::Tick))
            }
            (Some((index, due)), _) => {
                let pending = self.pending.remove(index);
                self.response = pending.response.map(|message| (message.headers, message.body));
                let (headers, body_size) = self.response.as_ref().map_or((0, 0), |(h, b)| (h.len(), b.len()));
                Some((due, Event::Response { token: pending.token, headers, body_size }))
            }
            (None, Some((period, tick))) => {
                self.tick = Some((period, tick + period));
                Some((tick, Event::Tick))
            }
            (None, None) => None,
        }
    }

    pub(super) fn response(&self) -> Option<(Vec<Header>, Vec<u8>)> {
        self.response.clone()
    }
}
