//! gRPC backends of tests.

use std::time::Duration;

use crate::asynchronous::GrpcTarget;
use crate::host::Header;

/// What a gRPC backend is asked.
///
/// A call is one request, with its message and `end`. A stream is one when it opens, without a message, one for each
/// message, and one with `end` when the plugin has finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcRequest {
    /// The service, with its package.
    pub service: String,
    /// The method.
    pub method: String,
    /// The initial metadata.
    pub metadata: Vec<(String, Vec<u8>)>,
    /// The message, serialized.
    pub message: Option<Vec<u8>>,
    /// No more messages come.
    pub end: bool,
}

impl GrpcRequest {
    pub(super) fn new(target: &GrpcTarget<'_>) -> Self {
        let (service, method) = (target.service.to_owned(), target.method.to_owned());
        Self { service, method, metadata: target.metadata.to_vec(), message: None, end: false }
    }
}

/// What a gRPC backend answers to one request: messages, and perhaps the end of it all.
///
/// ```
/// use plugwright_sdk::testing::GrpcReply;
///
/// let one = GrpcReply::message(b"\x08\x01");
/// let denied = GrpcReply::status(7, "not yours");
/// let nothing_yet = GrpcReply::default();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcReply {
    pub(super) delay: Duration,
    pub(super) metadata: Vec<Header>,
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) trailers: Vec<Header>,
    pub(super) status: Option<(u32, String)>,
}

impl GrpcReply {
    /// Sends a message. A call then ends with the status OK, and so does a stream that the plugin has finished.
    pub fn message(message: impl Into<Vec<u8>>) -> Self {
        Self::default().and(message)
    }

    /// Ends with a status, numbered as in gRPC; 0 is OK.
    pub fn status(code: u32, text: &str) -> Self {
        Self { status: Some((code, text.to_owned())), ..Self::default() }
    }

    /// Sends one more message.
    #[must_use]
    pub fn and(mut self, message: impl Into<Vec<u8>>) -> Self {
        self.messages.push(message.into());
        self
    }

    /// Ends a stream with the status OK after the messages.
    #[must_use]
    pub fn done(mut self) -> Self {
        self.status = Some((0, String::new()));
        self
    }

    /// Adds initial metadata, which counts in the answer to a stream's opening.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.metadata.push((name.to_ascii_lowercase().into_bytes(), value.as_ref().to_vec()));
        self
    }

    /// Adds trailing metadata, which counts where a stream ends.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push((name.to_ascii_lowercase().into_bytes(), value.as_ref().to_vec()));
        self
    }

    /// Answers after a while.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}
