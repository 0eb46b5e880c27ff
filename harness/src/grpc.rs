//! gRPC calls to clusters: HTTP/2 with prior knowledge, and what Envoy's gRPC client makes of the answers.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderValue;
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};

use crate::body::QueueBody;
use crate::cluster::Backends;
use crate::header_map::HeaderMap;
use crate::offline::{self, GrpcEnd};
use crate::proto::{self, Field};
use crate::upstream::{Address, Dialer, Failure, Pool, Scheme, broken as reset, response_headers};

/// A longer message ends the stream.
const MAX_MESSAGE: usize = 32 << 20;
/// What precedes each message: a flag and a length.
const PREFIX: usize = 5;

const UNKNOWN: u32 = 2;
pub(crate) const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

/// Where a call goes, as a plugin names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) cluster: String,
    pub(crate) authority: Option<String>,
    pub(crate) metadata: Vec<(Bytes, Bytes)>,
}

/// Why a service is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ServiceError {
    /// Neither a `GrpcService` nor, so far as it is text, anything but a cluster's name.
    NotAMessage,
    /// A `GrpcService` without `envoy_grpc`.
    NotEnvoyGrpc,
}

impl Service {
    /// Reads a serialized `envoy.config.core.v3.GrpcService`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ServiceError> {
        let fields = proto::parse(bytes).ok_or(ServiceError::NotAMessage)?;
        let mut service = Self::default();
        let mut found = false;
        for (number, field) in fields {
            match number {
                1 => {
                    found = true;
                    service.envoy_grpc(field).ok_or(ServiceError::NotAMessage)?;
                }
                2 => found = false,
                5 => service.metadata.push(header_value(field).ok_or(ServiceError::NotAMessage)?),
                _ => {}
            }
        }
        if found { Ok(service) } else { Err(ServiceError::NotEnvoyGrpc) }
    }

    fn envoy_grpc(&mut self, field: Field<'_>) -> Option<()> {
        for (number, field) in proto::parse(field.bytes()?)? {
            match number {
                1 => field.text()?.clone_into(&mut self.cluster),
                2 => self.authority = Some(field.text()?.to_owned()).filter(|authority| !authority.is_empty()),
                _ => {}
            }
        }
        Some(())
    }
}

fn header_value(field: Field<'_>) -> Option<(Bytes, Bytes)> {
    let (mut key, mut value) = (Bytes::new(), Bytes::new());
    for (number, field) in proto::parse(field.bytes()?)? {
        match number {
            1 => key = Bytes::copy_from_slice(field.text()?.as_bytes()),
            2 | 3 => value = Bytes::copy_from_slice(field.bytes()?),
            _ => {}
        }
    }
    Some((key, value))
}

/// What happens to a call, in the order in which it does.
#[derive(Debug)]
pub(crate) enum Event {
    InitialMetadata(HeaderMap),
    Message(Bytes),
    TrailingMetadata(HeaderMap),
    Close { status: u32, message: String },
}

/// A message with its prefix.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.extend_from_slice(&[0]);
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out.freeze()
}

/// A worker's connection to one cluster, opened when it is first needed.
#[derive(Clone)]
pub(crate) struct Client(Kind);

#[derive(Clone)]
enum Kind {
    Pool(Pool),
    /// The cluster, and the number of the call.
    Scripted(String, u64, Rc<dyn Backends>),
}

/// What a backend in this process does with one part of a call.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    pub(crate) delay: Duration,
    /// With which it begins; without, it begins with a message or the end.
    pub(crate) metadata: Option<HeaderMap>,
    pub(crate) messages: Vec<Bytes>,
    pub(crate) trailers: HeaderMap,
    pub(crate) end: GrpcEnd,
}

impl Client {
    /// A cluster in the clear is spoken to in HTTP/2 without asking first.
    pub(crate) fn new(mut address: Address, dialer: Dialer) -> Self {
        if address.scheme == Scheme::Http {
            address.scheme = Scheme::H2c;
        }
        Self(Kind::Pool(Pool::new(address, dialer)))
    }

    /// A client for one call that asks in this process.
    pub(crate) fn scripted(cluster: &str, number: u64, backends: Rc<dyn Backends>) -> Self {
        Self(Kind::Scripted(cluster.to_owned(), number, backends))
    }

    /// Makes one call. Dropping the future cancels it.
    pub(crate) async fn exchange(
        self,
        headers: HeaderMap,
        body: QueueBody,
        timeout: Option<Duration>,
        mut on: impl FnMut(Event),
    ) {
        let exchange = self.run(headers, body, &mut on);
        match timeout {
            None => exchange.await,
            Some(timeout) => {
                if tokio::time::timeout(timeout, exchange).await.is_err() {
                    local_reply("upstream request timeout", "response_timeout", &mut on);
                }
            }
        }
    }

    async fn run(self, headers: HeaderMap, body: QueueBody, on: &mut impl FnMut(Event)) {
        let pool = match self.0 {
            Kind::Pool(pool) => pool,
            Kind::Scripted(cluster, number, backends) => {
                return offline::grpc::exchange((&cluster, &*backends), (number, &headers), body, on).await;
            }
        };
        let Some((request, authority)) = request(&headers, body) else {
            return failed(Failure::Request, false, on);
        };
        let (started, end) = (Instant::now(), request.body().end());
        match pool.send(request, Some(authority)).await {
            Ok(answer) => {
                let took = end.has_come().then(|| started.elapsed());
                receive(answer.response, took, on).await;
            }
            Err(failure) => failed(failure, false, on),
        }
    }
}

fn request(headers: &HeaderMap, body: QueueBody) -> Option<(Request<QueueBody>, HeaderValue)> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = headers.text(":path")?.parse().ok()?;
    *request.headers_mut() = headers.to_http().ok()?;
    Some((request, HeaderValue::from_bytes(headers.get(b":authority")?).ok()?))
}

async fn receive(response: Response<Incoming>, took: Option<Duration>, on: &mut impl FnMut(Event)) {
    let (parts, mut body) = response.into_parts();
    let Some(headers) = response_headers(&parts, took) else {
        return broken(INTERNAL, on);
    };
    if body.is_end_stream() {
        on(Event::InitialMetadata(HeaderMap::default()));
        if parts.status != 200 && headers.get(b"grpc-status").is_none() {
            return broken(status_of_http(parts.status.as_u16()), on);
        }
        return trailers(headers, on);
    }
    on(Event::InitialMetadata(headers));
    if parts.status != 200 {
        return broken(status_of_http(parts.status.as_u16()), on);
    }
    let mut received = BytesMut::new();
    loop {
        let frame = match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return broken(UNKNOWN, on),
            Some(Err(error)) => {
                on(Event::TrailingMetadata(HeaderMap::default()));
                return on(Event::Close { status: INTERNAL, message: reset(&error).details(true) });
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(bytes) => {
                received.extend_from_slice(&bytes);
                if messages(&mut received, on).is_none() {
                    return broken(INTERNAL, on);
                }
            }
            Err(frame) => {
                let mut map = HeaderMap::default();
                let fits = frame.into_trailers().is_ok_and(|received| map.extend_from_http(&received).is_ok());
                return if fits { trailers(map, on) } else { broken(INTERNAL, on) };
            }
        }
    }
}

/// Hands out the complete messages; `None` when one is compressed or too long.
pub(crate) fn messages(received: &mut BytesMut, on: &mut impl FnMut(Event)) -> Option<()> {
    while let Some([flag, length @ ..]) = received.first_chunk::<PREFIX>() {
        let length = u32::from_be_bytes(*length) as usize;
        if *flag != 0 && length > 0 || length > MAX_MESSAGE {
            return None;
        }
        if received.len() < PREFIX + length {
            break;
        }
        received.advance(PREFIX);
        on(Event::Message(received.split_to(length).freeze()));
    }
    Some(())
}

fn trailers(trailers: HeaderMap, on: &mut impl FnMut(Event)) {
    close(trailers, "via_upstream", on);
}

fn close(trailers: HeaderMap, details: &str, on: &mut impl FnMut(Event)) {
    let status = trailers.text("grpc-status").and_then(|status| status.trim().parse().ok()).unwrap_or(UNKNOWN);
    let message = trailers.text("grpc-message").unwrap_or_default().to_owned();
    on(Event::TrailingMetadata(trailers));
    on(Event::Close { status, message: with_details(&message, details) });
}

/// What Envoy makes of a status' text.
pub(crate) fn with_details(text: &str, details: &str) -> String {
    if text.is_empty() { details.to_owned() } else { format!("{text}{{{details}}}") }
}

/// Ends a call that fails, with or without the beginning of an answer.
pub(crate) fn failed(failure: Failure, begun: bool, on: &mut impl FnMut(Event)) {
    if begun {
        on(Event::TrailingMetadata(HeaderMap::default()));
        on(Event::Close { status: INTERNAL, message: failure.details(true) });
    } else {
        local_reply(&failure.message(), &failure.details(false), on);
    }
}

pub(crate) fn broken(status: u32, on: &mut impl FnMut(Event)) {
    on(Event::TrailingMetadata(HeaderMap::default()));
    on(Event::Close { status, message: String::new() });
}

/// What stands for a response when there is none: trailers only, as the router answers a gRPC request.
fn local_reply(message: &str, details: &str, on: &mut impl FnMut(Event)) {
    let mut map = HeaderMap::default();
    let status = UNAVAILABLE.to_string();
    for (name, value) in
        [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", &status), ("grpc-message", message)]
    {
        // Four short headers fit any map.
        let _ = map.add(name.as_bytes(), value.as_bytes());
    }
    on(Event::InitialMetadata(HeaderMap::default()));
    close(map, details, on);
}

/// The gRPC status for an answer that is none of gRPC's.
fn status_of_http(status: u16) -> u32 {
    crate::properties::grpc_status_of_http(u32::from(status))
}

/// A status' text as it is sent, which is how Envoy passes it on.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.extend(['%', digit(byte >> 4), digit(byte & 0xf)]),
        }
    }
    encoded
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_read_from_its_message() {
        let mut envoy = Vec::new();
        proto::put_bytes(&mut envoy, 1, b"backend");
        proto::put_bytes(&mut envoy, 2, b"api.example.com");
        let mut header = Vec::new();
        proto::put_bytes(&mut header, 1, b"x-k");
        proto::put_bytes(&mut header, 2, b"v");
        let mut message = Vec::new();
        proto::put_bytes(&mut message, 1, &envoy);
        proto::put_bytes(&mut message, 5, &header);
        let expected = Service {
            cluster: "backend".into(),
            authority: Some("api.example.com".into()),
            metadata: vec![("x-k".into(), "v".into())],
        };
        assert_eq!(Service::parse(&message), Ok(expected));
        assert_eq!(Service::parse(b"\x12\x00"), Err(ServiceError::NotEnvoyGrpc));
        for name in ["grpc_backend", "outbound|80||host.ns.svc.cluster.local"] {
            assert_eq!(Service::parse(name.as_bytes()), Err(ServiceError::NotAMessage));
        }
    }

    #[test]
    fn messages_come_out_whole_and_compressed_ones_are_refused() {
        let mut seen = Vec::new();
        let mut on = |event| {
            if let Event::Message(message) = event {
                seen.push(message);
            }
        };
        let mut received = BytesMut::from(&[frame(b"one"), frame(b"")].concat()[..]);
        received.extend_from_slice(&frame(b"two")[..6]);
        assert_eq!(messages(&mut received, &mut on), Some(()));
        received.extend_from_slice(b"wo");
        assert_eq!(messages(&mut received, &mut on), Some(()));
        assert_eq!(messages(&mut BytesMut::from(&b"\x01\0\0\0\x01x"[..]), &mut on), None);
        assert_eq!(messages(&mut BytesMut::from(&b"\0\xff\xff\xff\xff"[..]), &mut on), None);
        assert_eq!(seen, ["one", "", "two"]);
    }

    #[test]
    fn texts_of_a_status_are_percent_encoded() {
        assert_eq!(percent_encode("a bé%~\n"), "a b%C3%A9%25~%0A");
    }
}
