//! gRPC calls and streams to the proxy's clusters. Messages are bytes: which they are is the plugin's to know.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::executor::{Callout, Executor};
use super::host::{Active, AsyncHost as _, CalloutEvent, GrpcTarget};
use crate::host::HostError;
use crate::{HeaderMap, LocalResponse, is_token};

/// How long a response may take unless the plugin says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A gRPC call or stream to one of the proxy's clusters.
///
/// ```
/// use std::time::Duration;
/// use plugwright_sdk::GrpcCall;
///
/// let call = GrpcCall::new("policy.v1.Policy", "Check")
///     .metadata("x-tenant", "acme")
///     .message(b"\x0a\x03GET")
///     .timeout(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct GrpcCall {
    service: String,
    method: String,
    metadata: Vec<(String, Vec<u8>)>,
    message: Vec<u8>,
    timeout: Duration,
}

impl GrpcCall {
    /// Names the service, with its package, and the method.
    pub fn new(service: &str, method: &str) -> Self {
        let (service, method) = (service.to_owned(), method.to_owned());
        Self { service, method, metadata: Vec::new(), message: Vec::new(), timeout: DEFAULT_TIMEOUT }
    }

    /// Adds a piece of initial metadata. Bytes beyond visible ASCII need a name that ends in `-bin`.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.metadata.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the message, serialized. A stream sends its messages later, and not this one.
    #[must_use]
    pub fn message(mut self, message: impl Into<Vec<u8>>) -> Self {
        self.message = message.into();
        self
    }

    /// Sets how long the call may take; 5 seconds at first. A stream has no limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn target<'a>(&'a self, cluster: &'a str) -> Result<GrpcTarget<'a>, GrpcError> {
        let path = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        let plain = |value: &[u8]| value.iter().all(|b| (b' '..=b'~').contains(b));
        let fits = |(name, value): &(String, Vec<u8>)| is_token(name) && (name.ends_with("-bin") || plain(value));
        if !(path(&self.service) && path(&self.method) && self.metadata.iter().all(fits)) {
            return Err(GrpcError::Invalid);
        }
        Ok(GrpcTarget { cluster, service: &self.service, method: &self.method, metadata: &self.metadata })
    }
}

/// Why a gRPC call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcError {
    /// A name or a piece of metadata that gRPC does not allow.
    Invalid,
    /// The proxy did not make the call: most likely it has no such cluster.
    Refused(HostError),
    /// The call ended with a status other than OK. A server that cannot be reached is 14, and so is a timeout.
    Status {
        /// The status, numbered as in gRPC.
        code: u32,
        /// What the server says about it, percent-encoded as it was sent, and in braces what the proxy says.
        message: String,
    },
}

impl fmt::Display for GrpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("the call has a name or metadata that gRPC does not allow"),
            Self::Refused(error) => write!(f, "the proxy did not make the call: {error}"),
            Self::Status { code, message } => write!(f, "the call ended with status {code}: {message}"),
        }
    }
}

impl std::error::Error for GrpcError {}

impl From<HostError> for GrpcError {
    fn from(error: HostError) -> Self {
        Self::Refused(error)
    }
}

/// A call that failed answers the request with an empty 503.
impl From<GrpcError> for LocalResponse {
    fn from(error: GrpcError) -> Self {
        let details = match error {
            GrpcError::Invalid => "grpc_call_invalid",
            GrpcError::Refused(_) => "grpc_call_refused",
            GrpcError::Status { .. } => "grpc_call_failed",
        };
        Self::new(503).details(details)
    }
}

/// What has come and not been taken.
#[derive(Default)]
struct Inbox {
    metadata: Option<HeaderMap>,
    messages: VecDeque<Vec<u8>>,
    trailers: HeaderMap,
    end: Option<Result<(), GrpcError>>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Slot(RefCell<Inbox>);

impl Callout for Slot {
    fn on_event(&self, event: CalloutEvent) {
        let mut inbox = self.0.borrow_mut();
        match event {
            CalloutEvent::Response { .. } => return,
            CalloutEvent::GrpcMetadata => inbox.metadata = Some(Active.grpc_metadata(false).unwrap_or_default()),
            CalloutEvent::GrpcMessage { size } | CalloutEvent::GrpcAnswer { size } => match Active.grpc_message(size) {
                Ok(message) => inbox.messages.push_back(message),
                Err(error) => inbox.end = Some(Err(error.into())),
            },
            CalloutEvent::GrpcTrailers => inbox.trailers = Active.grpc_metadata(true).unwrap_or_default(),
            CalloutEvent::GrpcClose { status: 0 } => {
                inbox.end.get_or_insert(Ok(()));
            }
            CalloutEvent::GrpcClose { status: code } => {
                let message = Active.grpc_status_message();
                inbox.end.get_or_insert(Err(GrpcError::Status { code, message }));
            }
        }
        if let Some(waker) = inbox.waker.take() {
            waker.wake();
        }
    }
}

fn register(token: u32) -> Rc<Slot> {
    let slot = Rc::new(Slot::default());
    if let Some(executor) = Executor::current() {
        let callout: Rc<dyn Callout> = slot.clone();
        executor.add_callout(token, &callout);
    }
    slot
}

/// Makes a call and waits for its one message. Dropping the future only stops waiting.
pub(super) async fn call(cluster: &str, call: GrpcCall) -> Result<Vec<u8>, GrpcError> {
    let slot = register(Active.grpc_call(call.target(cluster)?, &call.message, call.timeout)?);
    poll_fn(|cx| {
        let mut inbox = slot.0.borrow_mut();
        match (inbox.messages.pop_front(), inbox.end.take()) {
            (Some(message), _) => Poll::Ready(Ok(message)),
            (None, Some(Err(error))) => Poll::Ready(Err(error)),
            // A call that ends well has a message, be it an empty one.
            (None, Some(Ok(()))) => Poll::Ready(Ok(Vec::new())),
            (None, None) => {
                inbox.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await
}

pub(super) fn open(cluster: &str, call: &GrpcCall) -> Result<GrpcStream, GrpcError> {
    let token = Active.grpc_stream(call.target(cluster)?)?;
    Ok(GrpcStream { token, slot: register(token), finished: false })
}

/// An open gRPC stream. Dropping it cancels what is left of it.
///
/// ```
/// # use plugwright_sdk::{GrpcCall, GrpcError, Root};
/// # async fn watch(root: Root) -> Result<(), GrpcError> {
/// let mut stream = root.grpc_stream("policies", &GrpcCall::new("policy.v1.Policies", "Watch"))?;
/// stream.send(b"\x0a\x03all")?;
/// while let Some(message) = stream.next().await? {
///     root.host().info(&format!("a policy of {} bytes", message.len()));
/// }
/// # Ok(())
/// # }
/// # use plugwright_sdk::Host;
/// ```
pub struct GrpcStream {
    token: u32,
    slot: Rc<Slot>,
    finished: bool,
}

impl fmt::Debug for GrpcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcStream").field("token", &self.token).finish_non_exhaustive()
    }
}

impl GrpcStream {
    /// Sends a message. One for a stream that has ended is dropped.
    pub fn send(&mut self, message: &[u8]) -> Result<(), GrpcError> {
        if self.is_over() { Ok(()) } else { Ok(Active.grpc_send(self.token, message)?) }
    }

    /// Says that no more messages are sent; the server's still come.
    pub fn finish(&mut self) -> Result<(), GrpcError> {
        if self.is_over() || std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        Ok(Active.grpc_close(self.token)?)
    }

    /// Waits for the server's next message; none when the stream has ended with the status OK.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, GrpcError> {
        poll_fn(|cx| {
            let mut inbox = self.slot.0.borrow_mut();
            if let Some(message) = inbox.messages.pop_front() {
                return Poll::Ready(Ok(Some(message)));
            }
            match &inbox.end {
                Some(end) => Poll::Ready(end.clone().map(|()| None)),
                None => {
                    inbox.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits for the server's initial metadata; there is none when the stream ends without.
    pub async fn metadata(&mut self) -> HeaderMap {
        poll_fn(|cx| {
            let mut inbox = self.slot.0.borrow_mut();
            match &inbox.metadata {
                Some(metadata) => Poll::Ready(metadata.clone()),
                None if inbox.end.is_some() => Poll::Ready(HeaderMap::default()),
                None => {
                    inbox.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Returns the trailing metadata, which comes at the end.
    pub fn trailers(&self) -> HeaderMap {
        self.slot.0.borrow().trailers.clone()
    }

    fn is_over(&self) -> bool {
        self.slot.0.borrow().end.is_some()
    }
}

impl Drop for GrpcStream {
    fn drop(&mut self) {
        if !self.is_over() {
            Active.grpc_cancel(self.token);
            if let Some(executor) = Executor::current() {
                executor.remove_callout(self.token);
            }
        } else if !self.finished {
            // The proxy keeps a stream until both sides have ended it. One that is gone already is as good.
            let _ = Active.grpc_close(self.token);
        }
    }
}
