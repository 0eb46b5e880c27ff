//! gRPC servers of a chain suite on loopback sockets, which answer what the test's stage says.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Error, RecvStream, SendStream};
use harness::offline::{Answer, GrpcEnd, GrpcReply, GrpcRequest, Headers, Message, Reply};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::servers::pairs;

/// So long after its last messages a connection is closed: what was written is on its way then.
const AFTER: Duration = Duration::from_millis(50);
/// What precedes each message: a flag and a length.
const PREFIX: usize = 5;

/// What a server answers.
pub(crate) trait Answers {
    /// To a part of a call. Status and text are among the trailers.
    fn part(&self, request: &GrpcRequest) -> GrpcReply;

    /// To what is no call.
    fn other(&self, request: &Message) -> Option<Reply>;
}

/// Starts a server that speaks HTTP/2 without asking.
pub(crate) async fn start(answers: impl Answers + 'static) -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| format!("failed to listen on the loopback address: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let server = Rc::new(Server { answers, calls: Cell::default() });
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What is written is there at once.
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(server.clone().serve(stream));
        }
    });
    Ok(address)
}

struct Server<A> {
    answers: A,
    calls: Cell<u64>,
}

impl<A: Answers + 'static> Server<A> {
    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        let close = Rc::new(Notify::new());
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                () = close.notified() => return,
            };
            let Some(Ok((request, respond))) = accepted else { return };
            let (server, close) = (self.clone(), close.clone());
            tokio::task::spawn_local(async move {
                // A client that goes away needs no answer.
                let _ = server.one(request, respond, &close).await;
            });
        }
    }

    async fn one(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        close: &Notify,
    ) -> Result<(), Error> {
        let (parts, mut body) = request.into_parts();
        let kind = parts.headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !kind.starts_with(b"application/grpc") {
            return self.other(&parts, body, respond).await;
        }
        let call = self.calls.get() + 1;
        self.calls.set(call);
        let own = |name: &[u8]| {
            name.starts_with(b"x-envoy-") || [&b"te"[..], b"content-type", b"grpc-timeout"].contains(&name)
        };
        let metadata = pairs(&parts.headers).into_iter().filter(|(name, _)| !own(name)).collect();
        let mut part = GrpcRequest { call, path: parts.uri.path().to_owned(), metadata, message: None, end: false };
        let mut stream: Option<SendStream<Bytes>> = None;
        let mut received = BytesMut::new();
        part.end = body.is_end_stream();
        loop {
            let reply = self.answers.part(&part);
            if send(reply, &mut respond, &mut stream, close).await? == Flow::Over {
                return Ok(());
            }
            if part.end {
                // Until the client gives it up.
                std::future::pending::<()>().await;
            }
            (part.message, part.end) = next(&mut body, &mut received).await?;
        }
    }

    /// As HTTP: what is no call is answered whole.
    async fn other(
        &self,
        parts: &http::request::Parts,
        mut body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), Error> {
        let mut received = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            received.extend_from_slice(&chunk);
        }
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let authority = parts.uri.authority().map_or("", http::uri::Authority::as_str);
        let mut headers =
            vec![pair(":method", parts.method.as_str()), pair(":path", target), pair(":authority", authority)];
        headers.extend(pairs(&parts.headers));
        let request = Message { headers, body: received, trailers: Vec::new() };
        let Some(Reply { answer: Answer::Whole(message), .. }) = self.answers.other(&request) else { return Ok(()) };
        let mut response = Response::new(());
        for (name, value) in &message.headers {
            if name == b":status" {
                *response.status_mut() = http::StatusCode::from_bytes(value).unwrap_or_default();
            }
        }
        respond.send_response(response, true)?;
        Ok(())
    }
}

/// The next message, and whether nothing follows.
async fn next(body: &mut RecvStream, received: &mut BytesMut) -> Result<(Option<Vec<u8>>, bool), Error> {
    loop {
        if let Some([_, length @ ..]) = received.first_chunk::<PREFIX>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if received.len() - PREFIX >= length {
                received.advance(PREFIX);
                let message = received.split_to(length).to_vec();
                return Ok((Some(message), received.is_empty() && body.is_end_stream()));
            }
        }
        match body.data().await {
            None => return Ok((None, true)),
            Some(chunk) => {
                let chunk = chunk?;
                // A window that is not given back stays closed, which the next message shows.
                let _ = body.flow_control().release_capacity(chunk.len());
                received.extend_from_slice(&chunk);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    GoesOn,
    Over,
}

async fn send(
    reply: GrpcReply,
    respond: &mut SendResponse<Bytes>,
    stream: &mut Option<SendStream<Bytes>>,
    close: &Notify,
) -> Result<Flow, Error> {
    tokio::time::sleep(reply.delay).await;
    if stream.is_none() && (reply.metadata.is_some() || !reply.messages.is_empty()) {
        *stream = Some(respond.send_response(head(&reply.metadata.unwrap_or_default()), false)?);
    }
    if let Some(stream) = stream {
        for message in &reply.messages {
            stream.send_data(framed(message), false)?;
        }
    }
    match (reply.end, stream) {
        (GrpcEnd::Status(..), Some(stream)) => stream.send_trailers(map(&reply.trailers))?,
        (GrpcEnd::Status(..), None) => drop(respond.send_response(head(&reply.trailers), true)?),
        (GrpcEnd::Closed | GrpcEnd::Refused, begun) => {
            if begun.is_some() {
                tokio::time::sleep(AFTER).await;
            }
            close.notify_one();
            // A stream that is dropped is reset before that.
            std::future::pending::<()>().await;
        }
        (GrpcEnd::WithClient | GrpcEnd::Never, _) => return Ok(Flow::GoesOn),
    }
    Ok(Flow::Over)
}

fn head(fields: &Headers) -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().extend(map(fields));
    response
}

/// What cannot be written is left out.
fn map(fields: &Headers) -> HeaderMap {
    let pair = |(name, value): &(Vec<u8>, Vec<u8>)| {
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().filter_map(pair) {
        map.append(name, value);
    }
    map
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}
