//! Hostcalls that act on an HTTP stream. All of them take effect once the running callback has returned.

use bytes::Bytes;

use super::{Call, Fault, memory};
use crate::abi::{Status, pairs};
use crate::buffer;
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
    let details = String::from_utf8_lossy(&details[..details.len().min(MAX_DETAILS)])
        .replace(|c: char| c.is_ascii_whitespace(), "_");
    let Some((stream, filter)) = state.stream() else { return Ok(()) };
    let mut stream = stream.borrow_mut();
    let Some(view) = stream.view(filter).filter(|view| !view.logging) else { return Ok(()) };
    match &mut view.local_reply {
        // The first reply wins; only the details are the last one's.
        Some(first) => first.details = details,
        none => {
            *none = Some(LocalReply {
                status: code,
                details,
                headers,
                body: Bytes::copy_from_slice(body),
                grpc_status: u32::try_from(grpc_status).ok().filter(|status| *status <= 16),
            });
        }
    }
    stream.wake();
    Ok(())
}

pub(super) fn continue_stream(call: &mut Call<'_>, stream: u32) -> Result<(), Fault> {
    match stream {
        0 => resume(call.data(), Direction::Request),
        1 => resume(call.data(), Direction::Response),
        2 => {}
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

pub(super) fn close_stream(call: &mut Call<'_>, stream: u32) -> Result<(), Fault> {
    if stream > 3 {
        return Err(Status::BadArgument.into());
    }
    if stream > 1 {
        return Ok(());
    }
    let Some((stream, filter)) = call.data().stream() else { return Ok(()) };
    let mut stream = stream.borrow_mut();
    if let Some(view) = stream.view(filter) {
        view.close = true;
    }
    stream.wake();
    Ok(())
}
