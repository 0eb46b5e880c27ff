//! What a plugin under test waits for: callouts that a test's backends answer, queues, and a clock that jumps.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::response;
use super::{Clock, GrpcReply, GrpcRequest, Message};
use crate::HeaderMap;
use crate::asynchronous::{CalloutEvent, GrpcTarget, Received};
use crate::host::HostError;

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const PARSE_FAILURE: u32 = 4;
/// What Envoy makes of a timeout, and what it adds to the text of a status.
const UNAVAILABLE: u32 = 14;
const VIA_UPSTREAM: &str = "via_upstream";

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
    pub(super) delay: Duration,
    /// None breaks off.
    pub(super) message: Option<Message>,
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
type GrpcBackend = Box<dyn FnMut(&GrpcRequest) -> GrpcReply>;

#[derive(Default)]
pub(super) struct Waits {
    backends: BTreeMap<String, Backend>,
    grpc_backends: BTreeMap<String, GrpcBackend>,
    streams: BTreeMap<u32, (String, GrpcRequest)>,
    pending: Vec<Pending>,
    tokens: [u32; 3],
    tick: Option<(Duration, Duration)>,
    pub(super) calls: Vec<(String, Message)>,
    received: Arrival,
}

struct Pending {
    due: Duration,
    token: u32,
    arrival: Arrival,
}

/// What the running callback is about.
#[derive(Clone, Debug, Default)]
enum Arrival {
    #[default]
    Nothing,
    Response(Option<Message>),
    Answer(Vec<u8>),
    Metadata(HeaderMap),
    Message(Vec<u8>),
    Trailers(HeaderMap),
    Close(u32, String),
    Queue,
}

/// What happens next.
pub(super) enum Event {
    Callout(u32, CalloutEvent),
    Queue(u32),
    Tick,
}

/// The classes of tokens are told by what is left of them divided by 4, as in Envoy.
#[derive(Clone, Copy)]
enum Class {
    Http = 0,
    GrpcCall = 1,
    GrpcStream = 2,
}

/// The text of a status as a plugin is told it: percent-encoded, as servers send it.
fn with_details(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let told: String = text.bytes().map(byte).collect();
    if told.is_empty() { VIA_UPSTREAM.to_owned() } else { format!("{told}{{{VIA_UPSTREAM}}}") }
}

impl Waits {
    pub(super) fn backend(&mut self, cluster: &str, backend: Backend) {
        self.backends.insert(cluster.to_owned(), backend);
    }

    pub(super) fn grpc_backend(&mut self, cluster: &str, backend: GrpcBackend) {
        self.grpc_backends.insert(cluster.to_owned(), backend);
    }

    fn token(&mut self, class: Class) -> u32 {
        self.tokens[class as usize] += 4;
        self.tokens[class as usize] + class as u32
    }

    fn push(&mut self, due: Duration, token: u32, arrival: Arrival) {
        self.pending.push(Pending { due, token, arrival });
    }

    /// Asks the backend of a cluster; none when there is none.
    pub(super) fn ask(&mut self, cluster: &str, request: Message) -> Option<Reply> {
        let reply = self.backends.get_mut(cluster)?(&request);
        self.calls.push((cluster.to_owned(), request));
        Some(reply)
    }

    pub(super) fn has_grpc(&self, cluster: &str) -> bool {
        self.grpc_backends.contains_key(cluster)
    }

    /// As [`ask`](Self::ask), in gRPC.
    pub(super) fn ask_grpc(&mut self, cluster: &str, request: &GrpcRequest) -> Option<GrpcReply> {
        self.grpc_backends.get_mut(cluster).map(|backend| backend(request))
    }

    pub(super) fn call(
        &mut self,
        clock: &Clock,
        cluster: &str,
        request: Message,
        timeout: Duration,
    ) -> Result<u32, HostError> {
        let reply = self.ask(cluster, request).ok_or(HostError::new("proxy_http_call", BAD_ARGUMENT))?;
        let token = self.token(Class::Http);
        let (delay, response) = if reply.delay > timeout {
            (timeout, Some(response(504).body("upstream request timeout")))
        } else {
            (reply.delay, reply.message)
        };
        self.push(clock.since_epoch().saturating_add(delay), token, Arrival::Response(response));
        Ok(token)
    }

    pub(super) fn grpc_call(
        &mut self,
        clock: &Clock,
        target: GrpcTarget<'_>,
        message: &[u8],
        timeout: Duration,
    ) -> Result<u32, HostError> {
        let mut request = GrpcRequest::new(&target);
        request.message = Some(message.to_vec());
        request.end = true;
        let reply = self.ask_grpc(target.cluster, &request).ok_or(HostError::new("proxy_grpc_call", PARSE_FAILURE))?;
        let token = self.token(Class::GrpcCall);
        let now = clock.since_epoch();
        if reply.delay > timeout {
            self.push(
                now.saturating_add(timeout),
                token,
                Arrival::Close(UNAVAILABLE, "upstream request timeout{response_timeout}".to_owned()),
            );
            return Ok(token);
        }
        let due = now.saturating_add(reply.delay);
        let arrival = match (reply.status, reply.messages.into_iter().next()) {
            (None | Some((0, _)), message) => Arrival::Answer(message.unwrap_or_default()),
            (Some((code, text)), _) => Arrival::Close(code, with_details(&text)),
        };
        self.push(due, token, arrival);
        Ok(token)
    }

    pub(super) fn grpc_stream(&mut self, clock: &Clock, target: GrpcTarget<'_>) -> Result<u32, HostError> {
        let request = GrpcRequest::new(&target);
        let reply =
            self.ask_grpc(target.cluster, &request).ok_or(HostError::new("proxy_grpc_stream", PARSE_FAILURE))?;
        let token = self.token(Class::GrpcStream);
        self.streams.insert(token, (target.cluster.to_owned(), request));
        let metadata = Arrival::Metadata(reply.metadata.iter().map(|(name, value)| (name, value)).collect());
        self.push(clock.since_epoch().saturating_add(reply.delay), token, metadata);
        self.answer(clock, token, reply, false);
        Ok(token)
    }

    pub(super) fn grpc_send(&mut self, clock: &Clock, token: u32, message: &[u8]) -> Result<(), HostError> {
        self.on_stream("proxy_grpc_send", clock, token, |request| request.message = Some(message.to_vec()))
    }

    pub(super) fn grpc_close(&mut self, clock: &Clock, token: u32) -> Result<(), HostError> {
        self.on_stream("proxy_grpc_close", clock, token, |request| request.end = true)
    }

    fn on_stream(
        &mut self,
        call: &'static str,
        clock: &Clock,
        token: u32,
        change: impl FnOnce(&mut GrpcRequest),
    ) -> Result<(), HostError> {
        let (cluster, request) = self.streams.get(&token).ok_or(HostError::new(call, NOT_FOUND))?;
        let (cluster, mut request) = (cluster.clone(), request.clone());
        change(&mut request);
        let end = request.end;
        if let Some(reply) = self.ask_grpc(&cluster, &request) {
            self.answer(clock, token, reply, end);
        }
        Ok(())
    }

    fn answer(&mut self, clock: &Clock, token: u32, reply: GrpcReply, end: bool) {
        let due = clock.since_epoch().saturating_add(reply.delay);
        for message in reply.messages {
            self.push(due, token, Arrival::Message(message));
        }
        let status = reply.status.or_else(|| end.then(|| (0, String::new())));
        if let Some((code, text)) = status {
            self.push(
                due,
                token,
                Arrival::Trailers(reply.trailers.iter().map(|(name, value)| (name, value)).collect()),
            );
            self.push(due, token, Arrival::Close(code, with_details(&text)));
        }
    }

    pub(super) fn grpc_cancel(&mut self, token: u32) {
        self.streams.remove(&token);
        self.pending.retain(|pending| matches!(pending.arrival, Arrival::Queue) || pending.token != token);
    }

    pub(super) fn queue_ready(&mut self, clock: &Clock, queue: u32) {
        self.push(clock.since_epoch(), queue, Arrival::Queue);
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
        let first = self.pending.iter().enumerate().min_by_key(|(_, pending)| pending.due).map(|(i, p)| (i, p.due));
        if let Some((period, tick)) = self.tick
            && first.is_none_or(|(_, due)| tick < due)
        {
            self.tick = Some((period, tick + period));
            return Some((tick, Event::Tick));
        }
        let (index, due) = first?;
        let Pending { token, arrival, .. } = self.pending.remove(index);
        let event = match &arrival {
            Arrival::Nothing => return self.next(),
            Arrival::Queue => Event::Queue(token),
            Arrival::Response(message) => {
                let (headers, body_size, trailers) =
                    message.as_ref().map_or((0, 0, 0), |m| (m.headers.len(), m.body.len(), m.trailers.len()));
                Event::Callout(token, CalloutEvent::Response { headers, body_size, trailers })
            }
            Arrival::Answer(message) => Event::Callout(token, CalloutEvent::GrpcAnswer { size: message.len() }),
            Arrival::Metadata(_) => Event::Callout(token, CalloutEvent::GrpcMetadata),
            Arrival::Message(message) => Event::Callout(token, CalloutEvent::GrpcMessage { size: message.len() }),
            Arrival::Trailers(_) => Event::Callout(token, CalloutEvent::GrpcTrailers),
            Arrival::Close(status, _) => {
                self.streams.remove(&token);
                Event::Callout(token, CalloutEvent::GrpcClose { status: *status })
            }
        };
        self.received = arrival;
        Some((due, event))
    }

    pub(super) fn response(&self) -> Option<Received> {
        let Arrival::Response(Some(message)) = &self.received else { return None };
        let (headers, trailers) = (HeaderMap::of(&message.headers), HeaderMap::of(&message.trailers));
        Some((headers, message.body.clone(), trailers))
    }

    pub(super) fn message(&self) -> Vec<u8> {
        match &self.received {
            Arrival::Answer(message) | Arrival::Message(message) => message.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn metadata(&self) -> HeaderMap {
        match &self.received {
            Arrival::Metadata(metadata) | Arrival::Trailers(metadata) => metadata.clone(),
            _ => HeaderMap::default(),
        }
    }

    pub(super) fn status(&self) -> String {
        if let Arrival::Close(_, text) = &self.received { text.clone() } else { String::new() }
    }
}
