//! Requests over HTTP/2, frame by frame as told.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpStream;

use crate::client::REQUEST_ID;
use crate::scenario::Request;
use crate::upstream::shown;

/// Runs a client's or a server's side of a connection.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Sends a request on a connection of its own; the response as text. The last frame of the body ends the stream, or
/// its trailers do.
pub(crate) fn send(address: SocketAddr, request: &Request, logged: &dyn Fn(&str)) -> String {
    block_on(async {
        let patience = Duration::from_millis(request.patience_ms);
        match tokio::time::timeout(patience, exchange(address, request, logged)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => format!("no response: {}", reason(&error)),
            Err(_) => "nothing".to_owned(),
        }
    })
}

async fn exchange(address: SocketAddr, request: &Request, logged: &dyn Fn(&str)) -> Result<String, h2::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let mut head = http::Request::builder().method(request.method.as_str()).version(http::Version::HTTP_2);
    let authority = request.headers.iter().find(|(name, _)| name == "host").map_or("example.com", |(_, value)| value);
    head = head.uri(format!("http://{authority}{}", request.path));
    if !request.headers.iter().any(|(name, _)| name == "x-request-id") {
        head = head.header("x-request-id", REQUEST_ID);
    }
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
        head = head.header(name, value);
    }
    let mut send = send.ready().await?;
    let ends = request.body.is_empty() && request.trailers.is_empty();
    let (response, mut body) = send.send_request(head.body(()).unwrap(), ends)?;
    let last = request.body.len().saturating_sub(1);
    for (at, piece) in request.body.iter().enumerate() {
        if at > 0 {
            // So that the proxy reads each frame by itself.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        // The proxy may have answered already.
        if body.send_data(Bytes::from(piece.clone()), at == last && request.trailers.is_empty()).is_err() {
            break;
        }
    }
    if !request.trailers.is_empty() {
        let _ = body.send_trailers(map(&request.trailers));
    }
    if let Some(line) = &request.hangup {
        // What was sent is written by the connection's task.
        tokio::time::sleep(Duration::from_millis(50)).await;
        logged(line);
        connection.abort();
        return Ok("hung up".to_owned());
    }
    received(response).await
}

async fn received(response: ResponseFuture) -> Result<String, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut text = format!("HTTP/2 {}", parts.status.as_u16());
    for (name, value) in &parts.headers {
        // As on HTTP/1, where these stand is the codec's business.
        if !["date", "server", "x-envoy-upstream-service-time"].contains(&name.as_str()) {
            text += &format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    if let Some(server) = parts.headers.get("server") {
        text += &format!("\n(server: {})", server.to_str().unwrap());
    }
    let mut body = Vec::new();
    let mut broken = String::new();
    while let Some(chunk) = stream.data().await {
        match chunk {
            Ok(chunk) => {
                let _ = stream.flow_control().release_capacity(chunk.len());
                body.extend_from_slice(&chunk);
            }
            Err(error) => {
                broken = format!(" broken off: {}", reason(&error));
                break;
            }
        }
    }
    text += &format!("\nbody {}{broken}", shown(&body));
    if broken.is_empty()
        && let Some(trailers) = stream.trailers().await?
    {
        for (name, value) in &trailers {
            text += &format!("\ntrailer {name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    Ok(text)
}

pub(crate) fn map(fields: &[(String, String)]) -> HeaderMap {
    let field = |(name, value): &(String, String)| -> (HeaderName, HeaderValue) {
        (name.parse().unwrap(), value.parse().unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        map.append(name, value);
    }
    map
}

fn reason(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_reset() => format!("reset with {reason:?}"),
        Some(reason) if error.is_go_away() => format!("go away with {reason:?}"),
        _ => "the connection ended".to_owned(),
    }
}
