//! A server that speaks HTTP/2, gRPC too, records what it is asked and answers as it is told.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};

use crate::http2::{block_on, map};
use crate::scenario::Http2Answer;
use crate::upstream::{Seen, shown};

/// Starts it. Answers are for requests in turn; the last is repeated.
pub(crate) fn start(answers: &[Http2Answer]) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let (record, answers) = (seen.clone(), Arc::new(Mutex::new(VecDeque::from(answers.to_vec()))));
    std::thread::spawn(move || {
        block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (record, answers) = (record.clone(), answers.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let answer = {
                            let mut answers = answers.lock().unwrap();
                            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
                        };
                        let record = record.clone();
                        tokio::spawn(async move {
                            // A client that goes away is what some scenarios are about.
                            let _ = serve(request, respond, answer.unwrap_or_default(), &record).await;
                        });
                    }
                });
            }
        });
    });
    (address, seen)
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: Http2Answer,
    seen: &Seen,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let mut text = format!("{} {}", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        text += &format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut initial = answer.initial.clone();
    if answer.grpc {
        initial.insert(0, ("content-type".to_owned(), "application/grpc".to_owned()));
    }
    let head = |fields: &[(String, String)]| {
        let mut response = Response::new(());
        *response.headers_mut() = map(fields);
        response
    };
    if !answer.echo && answer.messages.is_empty() && answer.initial.is_empty() && !answer.reset {
        // Trailers only, or no answer at all.
        let received = received(&mut body, None).await;
        seen.lock().unwrap().push(format!("{text}\n{received}"));
        match answer.trailers {
            Some(trailers) => {
                initial.extend(trailers);
                respond.send_response(head(&initial), true)?;
            }
            None => std::future::pending().await,
        }
        return Ok(());
    }
    let mut stream = respond.send_response(head(&initial), false)?;
    for (at, message) in answer.messages.iter().enumerate() {
        if at > 0 {
            // So that the proxy reads each piece by itself.
            tokio::time::sleep(PAUSE).await;
        }
        let piece = if answer.grpc { framed(message) } else { Bytes::from(message.clone()) };
        stream.send_data(piece, false)?;
    }
    let received = received(&mut body, answer.echo.then_some(&mut stream)).await;
    seen.lock().unwrap().push(format!("{text}\n{received}"));
    if answer.reset {
        tokio::time::sleep(PAUSE).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    } else if let Some(trailers) = &answer.trailers {
        stream.send_trailers(map(trailers))?;
    } else {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// What the client sends, whose messages come back in `echo`.
const PAUSE: Duration = Duration::from_millis(30);

async fn received(body: &mut RecvStream, mut echo: Option<&mut SendStream<Bytes>>) -> String {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else { return format!("incomplete {}", shown(&all)) };
        let _ = body.flow_control().release_capacity(chunk.len());
        all.extend_from_slice(&chunk);
        if let Some(stream) = &mut echo
            && !chunk.is_empty()
        {
            let _ = stream.send_data(chunk, false);
        }
    }
    format!("body {}", shown(&all))
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}
