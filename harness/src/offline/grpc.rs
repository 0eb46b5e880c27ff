//! gRPC calls to backends in this process.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame};

use crate::body::QueueBody;
use crate::cluster::Backends;
use crate::grpc::{Event, INTERNAL, broken, messages};
use crate::header_map::HeaderMap;

/// One call: a backend is asked when it begins, about each message as it is sent, and when no more will come.
pub(crate) async fn exchange(
    cluster: &str,
    backends: &dyn Backends,
    headers: &HeaderMap,
    mut body: QueueBody,
    on: &mut impl FnMut(Event),
) {
    let mut sent = BytesMut::new();
    let mut begun = false;
    loop {
        let frame = if begun { poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await } else { first(&mut body).await };
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
        if parts.is_empty() && (!begun || end) {
            parts.push(None);
        }
        let last = parts.len().saturating_sub(1);
        for (index, message) in parts.into_iter().enumerate() {
            let end = end && index == last;
            let reply = backends.grpc(cluster, headers, message, end);
            tokio::time::sleep(reply.delay).await;
            if !std::mem::replace(&mut begun, true) {
                on(Event::InitialMetadata(reply.metadata));
            }
            for message in reply.messages {
                on(Event::Message(message));
            }
            if let Some((status, text)) = reply.status.or_else(|| end.then(|| (0, String::new()))) {
                on(Event::TrailingMetadata(reply.trailers));
                return on(Event::Close { status, message: format!("{text}{{via_upstream}}") });
            }
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
