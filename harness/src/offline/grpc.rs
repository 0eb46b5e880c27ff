//! gRPC calls to backends in this process.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame};

use super::{GrpcEnd, NOBODY, VIA_UPSTREAM};
use crate::body::QueueBody;
use crate::cluster::Backends;
use crate::grpc::{Event, INTERNAL, broken, failed, messages, percent_encode, with_details};
use crate::header_map::HeaderMap;
use crate::upstream::Failure;

/// One call: a backend is asked when it begins, about each message as it is sent, and when no more will come.
pub(crate) async fn exchange(
    (cluster, backends): (&str, &dyn Backends),
    call: (u64, &HeaderMap),
    mut body: QueueBody,
    on: &mut impl FnMut(Event),
) {
    let mut sent = BytesMut::new();
    let (mut asked, mut begun) = (false, false);
    loop {
        let frame = if asked { poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await } else { first(&mut body).await };
        let mut parts = Vec::new();
        match frame {
            None => {}
            Some(Err(_)) => return broken(INTERNAL, on),
            Some(Ok(frame)) => {
                sent.extend_from_slice(&frame.into_data().unwrap_or_default());
                let mut keep = |event| {
                    if let Event::Message(message) = event {
                        parts.push(Some(message));
                    }
                };
                if messages(&mut sent, &mut keep).is_none() {
                    return broken(INTERNAL, on);
                }
            }
        }
        let end = body.is_end_stream();
        if parts.is_empty() && (!asked || end) {
            parts.push(None);
        }
        asked = true;
        let last = parts.len().saturating_sub(1);
        for (index, message) in parts.into_iter().enumerate() {
            let end = end && index == last;
            let reply = backends.grpc(cluster, call, message, end);
            tokio::time::sleep(reply.delay).await;
            let is_over = matches!(reply.end, GrpcEnd::Status(..)) || end && reply.end == GrpcEnd::WithClient;
            if !begun && (reply.metadata.is_some() || !reply.messages.is_empty() || is_over) {
                begun = true;
                on(Event::InitialMetadata(reply.metadata.unwrap_or_default()));
            }
            for message in reply.messages {
                on(Event::Message(message));
            }
            let (status, text) = match reply.end {
                GrpcEnd::Status(status, text) => (status, text),
                GrpcEnd::Closed => return failed(Failure::Terminated, begun, on),
                GrpcEnd::Refused => return failed(NOBODY, begun, on),
                GrpcEnd::WithClient if end => (0, String::new()),
                // Until the plugin or its timeout gives it up.
                GrpcEnd::Never if end => std::future::pending().await,
                GrpcEnd::WithClient | GrpcEnd::Never => continue,
            };
            on(Event::TrailingMetadata(reply.trailers));
            return on(Event::Close { status, message: with_details(&percent_encode(&text), VIA_UPSTREAM) });
        }
    }
}

/// What there is at once: a call has its message from the beginning, and a stream none.
async fn first(body: &mut QueueBody) -> Option<Result<Frame<Bytes>, crate::body::BrokenOff>> {
    match poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await {
        Poll::Ready(frame) => frame,
        Poll::Pending => Some(Ok(Frame::data(Bytes::new()))),
    }
}
