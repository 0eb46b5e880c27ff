//! Responses made on this side: by a plugin, by a failure, by a limit.

use bytes::Bytes;

use super::state::{Direction, LocalReply, StreamState};
use super::{Frame, Stream};
use crate::abi::LogLevel;
use crate::header_map::HeaderMap;
use crate::properties::grpc_status_of_http;

impl Stream {
    /// Answers with `reply`: through the filters when no response has begun, directly when filters are at one, and by
    /// breaking off when its head is already with the client.
    pub(crate) fn send_local_reply(&mut self, filter: Option<usize>, reply: LocalReply) {
        if self.response_ended {
            return;
        }
        self.request_stopped = true;
        if let Some(filter) = filter {
            self.answered_by = Some(self.filters[filter].name.clone());
        }
        if self.head_sent {
            self.reset(&reply.details);
            return;
        }
        self.record(|trace, _| trace.local_reply(filter, &reply));
        let direct = self.state().response_headers.is_some();
        let (headers, body, dropped) = compose(&self.state(), reply.status, &reply);
        for name in dropped {
            self.host_log(LogLevel::Error, &format!("dropped from a local response, not a valid header: {name:?}"));
        }
        if !(200..=599).contains(&reply.status) {
            let line = format!("a local response had the status {}, which is not one; 503 was sent", reply.status);
            self.host_log(LogLevel::Error, &line);
        }
        let end = body.is_empty() || self.state().method() == "HEAD";
        {
            let mut state = self.state_mut();
            state.response_headers = Some(headers);
            state.response_trailers = None;
            state.details = reply.details;
            state.code = state.status();
        }
        self.record(|trace, state| trace.answer(state, end));
        if direct {
            self.emit(Direction::Response, Frame::Headers { end });
            if !end {
                self.emit(Direction::Response, Frame::Data { bytes: body, end: true });
            }
        } else {
            self.headers(Direction::Response, None, end);
            if !end && !self.response_ended {
                self.data(Direction::Response, None, body, true);
            }
        }
    }
}

/// The reply's headers and body, and the names of headers that had to be dropped.
fn compose(state: &StreamState, status: u32, reply: &LocalReply) -> (HeaderMap, Bytes, Vec<String>) {
    let status = if (200..=599).contains(&status) { status } else { 503 };
    let mut headers = HeaderMap::default();
    let mut add = |name: &[u8], value: &[u8]| {
        // What does not fit is left out: the map has the same bound for everyone.
        let _ = headers.add(name, value);
    };
    let grpc = state.is_grpc();
    let shown = if grpc { 200 } else { status };
    add(b":status", shown.to_string().as_bytes());
    for (name, value) in &reply.headers {
        if !name.starts_with(b":") {
            add(name, value);
        }
    }
    let dropped = headers.remove_invalid();
    headers.remove(b"content-length");
    if grpc {
        let grpc_status = reply.grpc_status.unwrap_or_else(|| grpc_status_of_http(status));
        let _ = headers.replace(b"content-type", b"application/grpc");
        let _ = headers.replace(b"grpc-status", grpc_status.to_string().as_bytes());
        if !reply.body.is_empty() {
            let _ = headers.replace(b"grpc-message", percent_encode(&reply.body).as_bytes());
        }
        return (headers, Bytes::new(), dropped);
    }
    if reply.body.is_empty() {
        headers.remove(b"content-type");
        return (headers, Bytes::new(), dropped);
    }
    let _ = headers.add(b"content-length", reply.body.len().to_string().as_bytes());
    if headers.get(b"content-type").is_none() {
        let _ = headers.add(b"content-type", b"text/plain");
    }
    (headers, reply.body.clone(), dropped)
}

fn percent_encode(message: &[u8]) -> String {
    use std::fmt::Write as _;
    message.iter().fold(String::new(), |mut out, byte| {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}
