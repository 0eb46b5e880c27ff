//! HTTP calls to the proxy's clusters.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::executor::{Callout, Executor};
use super::host::{Active, AsyncHost as _, CalloutEvent};
use crate::host::HostError;
use crate::{HeaderMap, LocalResponse, is_field_value, is_token};

/// How long a response may take unless the plugin says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP request to one of the proxy's clusters.
///
/// ```
/// use std::time::Duration;
/// use plugwright_sdk::Call;
///
/// let call = Call::post("auth.example", "/token")
///     .header("content-type", "application/x-www-form-urlencoded")
///     .body("grant_type=refresh_token")
///     .timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
pub struct Call {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
}

impl Call {
    /// A GET for `path`, query included, at the host `authority`.
    pub fn get(authority: &str, path: &str) -> Self {
        Self::new("GET", authority, path)
    }

    /// A POST.
    pub fn post(authority: &str, path: &str) -> Self {
        Self::new("POST", authority, path)
    }

    /// A request with any method.
    pub fn new(method: &str, authority: &str, path: &str) -> Self {
        let pseudo = [(":method", method), (":path", path), (":authority", authority), (":scheme", "http")];
        let headers = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { headers, body: Vec::new(), timeout: DEFAULT_TIMEOUT }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body; the proxy adds its `content-length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets how long the response may take; 5 seconds at first.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Header names and values that HTTP does not allow would let one request become two.
    fn check(&self) -> Result<(), CallError> {
        let pseudo = self.headers.iter().take(4).all(|(_, value)| is_field_value(value) && !value.is_empty());
        let rest = self.headers.iter().skip(4).all(|(name, value)| is_token(name) && is_field_value(value));
        if pseudo && rest { Ok(()) } else { Err(CallError::Invalid) }
    }
}

/// Why a call has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The call has a header that HTTP does not allow, or no path or authority.
    Invalid,
    /// The proxy did not make the call: most likely it has no such cluster.
    Refused(HostError),
    /// The connection broke off within the response.
    Broken,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("the call has a header that HTTP does not allow"),
            Self::Refused(error) => write!(f, "the proxy did not make the call: {error}"),
            Self::Broken => f.write_str("the response broke off"),
        }
    }
}

impl std::error::Error for CallError {}

/// A call that failed answers the request with an empty 503.
impl From<CallError> for LocalResponse {
    fn from(error: CallError) -> Self {
        let details = match error {
            CallError::Invalid => "call_invalid",
            CallError::Refused(_) => "call_refused",
            CallError::Broken => "call_broken",
        };
        Self::new(503).details(details)
    }
}

/// What a cluster answered.
///
/// A connection that failed is a 503 that the proxy made, and a call that took too long a 504: plugins cannot tell them
/// from the cluster's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResponse {
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl CallResponse {
    /// The status code; 0 when the response has none.
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The first header called `name`, in any case, if it is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get_str(name)
    }

    /// All headers, in order.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// All trailers, in order; mostly there are none.
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Where a response is put for the future that waits for it.
#[derive(Default)]
pub(super) struct Slot {
    response: RefCell<Option<Result<CallResponse, CallError>>>,
    waker: RefCell<Option<Waker>>,
}

impl Callout for Slot {
    fn on_event(&self, event: CalloutEvent) {
        let CalloutEvent::Response { headers, body_size, trailers } = event else { return };
        let received = Active.call_response(headers, body_size, trailers);
        let response = received.map(|(headers, body, trailers)| CallResponse { headers, body, trailers });
        self.response.replace(Some(response.ok_or(CallError::Broken)));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Makes a call. The proxy sends it at once; dropping the future only stops waiting.
pub(super) async fn call(cluster: &str, call: Call) -> Result<CallResponse, CallError> {
    call.check()?;
    let slot = Rc::new(Slot::default());
    let token = Active.http_call(cluster, &call.headers, &call.body, call.timeout).map_err(CallError::Refused)?;
    if let Some(executor) = Executor::current() {
        let callout: Rc<dyn Callout> = slot.clone();
        executor.add_callout(token, &callout);
    }
    poll_fn(|cx| match slot.response.take() {
        Some(response) => Poll::Ready(response),
        None => {
            slot.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        }
    })
    .await
}
