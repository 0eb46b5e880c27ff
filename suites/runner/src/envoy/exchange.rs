//! One exchange over HTTP/2 through an Envoy, step by step, from a client to an upstream that are both here.
//!
//! With HTTP/2 what a test calls a chunk is a frame, and a frame is a callback; a message need not end with its headers.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use harness::callbacks::Headers;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Envoy;
use super::transcript::{self, Call};

/// Between a change and a look at it, so that many are looked at together.
const TOGETHER: Duration = Duration::from_millis(2);

/// What came to the two ends.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What the upstream got, with pseudo-headers.
    pub(crate) request: Option<Headers>,
    pub(crate) request_body: Vec<u8>,
    pub(crate) request_ended: bool,
    /// What the client got.
    pub(crate) response: Option<Headers>,
    pub(crate) response_body: Vec<u8>,
    /// To its end, or because it was broken off.
    pub(crate) response_ended: bool,
}

/// The upstream, and what both ends saw.
#[derive(Default)]
pub(crate) struct Ends {
    seen: RefCell<Seen>,
    changed: Notify,
    responds: RefCell<Option<SendResponse<Bytes>>>,
    request_stream: RefCell<Option<SendStream<Bytes>>>,
    response_stream: RefCell<Option<SendStream<Bytes>>>,
    too_long: Cell<bool>,
}

impl Ends {
    /// Starts the upstream.
    pub(crate) async fn start() -> Result<(Rc<Self>, SocketAddr), String> {
        let failed = |error: std::io::Error| format!("failed to listen on the loopback address: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let ends = Rc::new(Self::default());
        let upstream = ends.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(upstream.clone().serve(stream));
            }
        });
        Ok((ends, address))
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, responds))) = connection.accept().await {
            let (parts, body) = request.into_parts();
            let mut headers = vec![pair(":method", parts.method.as_str())];
            headers.extend(parts.uri.scheme_str().map(|scheme| pair(":scheme", scheme)));
            headers.extend(parts.uri.authority().map(|authority| pair(":authority", authority.as_str())));
            headers.extend(parts.uri.path_and_query().map(|path| pair(":path", path.as_str())));
            headers.extend(pairs(&parts.headers));
            self.seen.borrow_mut().request = Some(headers);
            *self.responds.borrow_mut() = Some(responds);
            self.changed.notify_one();
            tokio::task::spawn_local(self.clone().receive(body, true));
        }
    }

    async fn receive(self: Rc<Self>, mut body: RecvStream, is_request: bool) {
        while let Some(Ok(data)) = body.data().await {
            // A window that is not given back stays closed, which the next frame shows.
            let _ = body.flow_control().release_capacity(data.len());
            let seen = &mut *self.seen.borrow_mut();
            let kept = if is_request { &mut seen.request_body } else { &mut seen.response_body };
            kept.extend_from_slice(&data);
        }
        let whole = body.is_end_stream();
        {
            let seen = &mut *self.seen.borrow_mut();
            if is_request { seen.request_ended = whole } else { seen.response_ended = true }
        }
        self.changed.notify_one();
    }

    pub(crate) fn seen(&self) -> std::cell::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// All of it, once nothing more is to come.
    pub(crate) fn take(&self) -> Seen {
        self.seen.take()
    }

    /// Whether something did not come in time.
    pub(crate) fn too_long(&self) -> bool {
        self.too_long.get()
    }

    /// Sends the head of a request.
    pub(crate) async fn request(self: &Rc<Self>, to: SocketAddr, request: http::Request<()>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("failed to send the request to Envoy: {error}");
        let stream = TcpStream::connect(to).await.map_err(|error| failed(&error))?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(|error| failed(&error))?;
        tokio::task::spawn_local(async move {
            // How it ends is seen in the response.
            let _ = connection.await;
        });
        let mut send = send.ready().await.map_err(|error| failed(&error))?;
        let (response, body) = send.send_request(request, false).map_err(|error| failed(&error))?;
        *self.request_stream.borrow_mut() = Some(body);
        let client = self.clone();
        tokio::task::spawn_local(async move {
            // While it is held the connection is.
            let _send = send;
            if let Ok(response) = response.await {
                let (parts, body) = response.into_parts();
                let mut headers = vec![pair(":status", parts.status.as_str())];
                headers.extend(pairs(&parts.headers));
                client.seen.borrow_mut().response = Some(headers);
                client.changed.notify_one();
                client.receive(body, false).await;
            } else {
                client.seen.borrow_mut().response_ended = true;
                client.changed.notify_one();
            }
        });
        Ok(())
    }

    /// Sends a frame of the request's body. What Envoy does not take any more is seen at the other end.
    pub(crate) fn request_data(&self, data: Vec<u8>, end: bool) {
        if let Some(stream) = &mut *self.request_stream.borrow_mut() {
            let _ = stream.send_data(data.into(), end);
        }
    }

    /// Has the upstream send the head of a response.
    pub(crate) fn respond(&self, response: http::Response<()>) {
        let Some(responds) = &mut *self.responds.borrow_mut() else { return };
        // What Envoy does not take any more is seen at the other end.
        if let Ok(stream) = responds.send_response(response, false) {
            *self.response_stream.borrow_mut() = Some(stream);
        }
    }

    /// Has the upstream send a frame of the response's body.
    pub(crate) fn response_data(&self, data: Vec<u8>, end: bool) {
        if let Some(stream) = &mut *self.response_stream.borrow_mut() {
            let _ = stream.send_data(data.into(), end);
        }
    }

    /// Has the client leave: the stream is over, wherever it is.
    pub(crate) fn leave(&self) {
        if let Some(stream) = &mut *self.request_stream.borrow_mut() {
            stream.send_reset(Reason::CANCEL);
        }
    }

    /// Waits until it is so, by what came to the ends and what the plugin did; it is not when Envoy ends or takes too long.
    pub(crate) async fn until(
        &self,
        envoy: &Envoy,
        patience: Duration,
        is_so: impl Fn(&Seen, &[Call]) -> bool,
    ) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let count = envoy.log().len();
            let over = envoy.log().is_over();
            let calls = transcript::calls(&envoy.log().lines());
            if is_so(&self.seen.borrow(), &calls) {
                return true;
            }
            if over {
                return false;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = envoy.log().change(count) => {}
                () = tokio::time::sleep_until(deadline) => {
                    self.too_long.set(true);
                    return false;
                }
            }
            tokio::time::sleep(TOGETHER).await;
        }
    }
}

fn pair(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn pairs(map: &http::HeaderMap) -> Headers {
    map.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}
