//! Hostcalls that act on an HTTP stream. All of them take effect once the running callback has returned.

use bytes::Bytes;

use super::{Call, Fault, memory};
use crate::abi::{Status, pairs};
use crate::buffer;
use crate::callbacks::Reply;
use crate::hazard::{self, HazardKind};
use crate::state::HostState;
use crate::stream::state::{Direction, LocalReply};

const MAX_DETAILS: usize = 4096;

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub(super) fn send_local_response(
    call: &mut Call<'_>,
    code: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    grpc_status: i32,
) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let details = memory::range(memory, details, details_len)?;
    let body = memory::range(memory, body, body_len)?;
    let headers = pairs::deserialize(memory::range(memory, headers, headers_len)?);
    if body.len() > buffer::MAX_SIZE {
        return Err(Status::InternalFailure.into());
    }
    if let Some(mut by_hand) = state.by_hand.take() {
        let (details, body) = (details.to_vec(), body.to_vec());
        let reply = Reply { status: code, grpc_status: grpc_status.cast_unsigned(), details, body };
        if let Some((stream, _)) = state.stream() {
            by_hand.answer(&mut stream.borrow_mut(), reply, &headers);
        }
        state.by_hand = Some(by_hand);
        return Ok(());
    }
    let details = String::from_utf8_lossy(&details[..details.len().min(MAX_DETAILS)])
        .replace(|c: char| c.is_ascii_whitespace(), "_");
    let Some((stream, filter)) = state.stream() else { return Ok(()) };
    let mut stream = stream.borrow_mut();
    if stream.network {
        return Ok(());
    }
    let Some(view) = stream.view(filter) else { return Ok(()) };
    let done = view.logging || view.over;
    let second = view.local_reply.is_some();
    match &mut view.local_reply {
        _ if done => {}
        // The first reply wins; only the details are the last one's.
        Some(first) => first.details = details,
        none => {
            *none = Some(LocalReply {
                status: code,
                details,
                headers: headers.clone(),
                body: Bytes::copy_from_slice(body),
                grpc_status: u32::try_from(grpc_status).ok().filter(|status| *status <= 16),
            });
        }
    }
    stream.wake();
    drop(stream);
    report_reply(call.data(), code, &headers, done, second);
    Ok(())
}

fn report_reply(state: &HostState, code: u32, headers: &[(Bytes, Bytes)], done: bool, second: bool) {
    let report = |kind, explanation: &str| state.hazard(kind, Some("proxy_send_local_response"), explanation);
    if done {
        report(HazardKind::ReplyWhenDone, "the stream is over");
    }
    if second {
        report(HazardKind::DoubleReply, "this stream has a local response already");
    }
    if !(200..=599).contains(&code) {
        report(HazardKind::Status, &format!("a local response has the status {code}"));
    }
    let broken =
        |(name, value): &&(Bytes, Bytes)| hazard::has_control_character(name) || hazard::has_control_character(value);
    for (name, _) in headers.iter().filter(broken) {
        let name = String::from_utf8_lossy(name);
        report(HazardKind::HeaderControlCharacter, &format!("the header {name:?} has a CR, LF or NUL"));
    }
}

pub(super) fn continue_stream(call: &mut Call<'_>, stream: u32) -> Result<(), Fault> {
    match stream {
        0 => resume(call.data(), Direction::Request),
        1 => resume(call.data(), Direction::Response),
        2 => resume_downstream(call.data()),
        3 => return Err(Status::Unimplemented.into()),
        _ => return Err(Status::BadArgument.into()),
    }
    Ok(())
}

pub(super) fn resume(state: &HostState, direction: Direction) {
    let Some((stream, filter)) = state.stream() else { return };
    let mut stream = stream.borrow_mut();
    if let Some(view) = stream.view(filter) {
        match direction {
            Direction::Request => view.resume_request = true,
            Direction::Response => view.resume_response = true,
        }
        // Envoy takes the request's maps away at once, whichever direction is resumed.
        view.request_headers = false;
        view.request_trailers = false;
    }
    stream.wake();
}

/// Only a connection has it; for a request it is nothing.
fn resume_downstream(state: &HostState) {
    let Some((stream, filter)) = state.stream() else { return };
    let mut stream = stream.borrow_mut();
    if let Some(view) = stream.view(filter) {
        view.resume_downstream = true;
    }
    stream.wake();
}

pub(super) fn close_stream(call: &mut Call<'_>, stream: u32) -> Result<(), Fault> {
    if stream > 3 {
        return Err(Status::BadArgument.into());
    }
    let of_connection = stream > 1;
    let Some((stream, filter)) = call.data().stream() else { return Ok(()) };
    let mut stream = stream.borrow_mut();
    if stream.network != of_connection {
        return Ok(());
    }
    if let Some(view) = stream.view(filter) {
        view.close = true;
    }
    stream.wake();
    Ok(())
}
