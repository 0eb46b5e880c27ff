//! Buffer hostcalls: bodies while a callback is about them, configurations.

use bytes::Bytes;

use super::{Call, Fault, memory};
use crate::abi::{BufferType, Status};
use crate::buffer::{Buffer, SetError};
use crate::callouts::Received;
use crate::state::HostState;
use crate::stream::state::{Body, View};

fn body(view: &mut View, buffer: BufferType) -> Option<&mut Body> {
    match buffer {
        BufferType::RequestBody => view.request_body.as_mut(),
        BufferType::ResponseBody => view.response_body.as_mut(),
        BufferType::DownstreamData => view.downstream_data.as_mut(),
        BufferType::UpstreamData => view.upstream_data.as_mut(),
        _ => None,
    }
}

/// The buffer's content; a body outside its phase is empty, other buffers are not found.
fn content(state: &HostState, buffer: BufferType) -> Result<Bytes, Fault> {
    match buffer {
        BufferType::RequestBody | BufferType::ResponseBody | BufferType::DownstreamData | BufferType::UpstreamData => {
            let Some((stream, filter)) = state.stream() else { return Ok(Bytes::new()) };
            let mut stream = stream.borrow_mut();
            let body = stream.view(filter).and_then(|view| body(view, buffer));
            if body.is_none() && state.by_hand.is_some() {
                return Err(Status::NotFound.into());
            }
            Ok(body.map(|body| body.buffer.contiguous()).unwrap_or_default())
        }
        BufferType::HttpCallResponseBody => match state.received() {
            Received::Http(response) => Ok(response.body.clone()),
            _ => Err(Status::NotFound.into()),
        },
        BufferType::GrpcMessage => match state.received() {
            Received::Message(message) => Ok(message.clone()),
            _ => Ok(Bytes::new()),
        },
        BufferType::CallData => match state.received() {
            Received::Addresses(addresses) => Ok(addresses.clone()),
            _ => Ok(Bytes::new()),
        },
        BufferType::VmConfiguration => Ok(state.vm.configuration.clone()),
        BufferType::PluginConfiguration => match state.root() {
            Some(root) if root.configuring || state.by_hand.is_some() => Ok(root.plugin.configuration.clone()),
            _ => Err(Status::NotFound.into()),
        },
    }
}

pub(super) fn get(call: &mut Call<'_>, buffer: u32, start: u32, len: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let buffer = BufferType::from_u32(buffer).ok_or(Status::BadArgument)?;
    let content = content(call.data(), buffer)?;
    let start = (start as usize).min(content.len());
    let end = start.saturating_add(len as usize).min(content.len());
    memory::give(call, &content[start..end], ptr, size)
}

pub(super) fn status(call: &mut Call<'_>, buffer: u32, len: u32, flags: u32) -> Result<(), Fault> {
    let buffer = BufferType::from_u32(buffer).ok_or(Status::BadArgument)?;
    let content = content(call.data(), buffer)?;
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, len, u32::try_from(content.len()).unwrap_or(u32::MAX))?;
    memory::write_u32(memory, flags, 0)
}

pub(super) fn set(call: &mut Call<'_>, buffer: u32, start: u32, len: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let buffer = BufferType::from_u32(buffer).ok_or(Status::BadArgument)?;
    // What is not there at all is not found; what is there and is not the plugin's to write is a bad argument.
    if matches!(buffer, BufferType::HttpCallResponseBody | BufferType::PluginConfiguration) {
        content(call.data(), buffer)?;
    }
    let (memory, state) = memory::split(call)?;
    let bytes = memory::range(memory, ptr, size)?;
    let by_hand = state.by_hand.is_some();
    let (stream, filter) = state.stream().ok_or(Status::BadArgument)?;
    let mut stream = stream.borrow_mut();
    let body = stream.view(filter).and_then(|view| body(view, buffer)).ok_or(Status::BadArgument)?;
    let set = if by_hand { Buffer::splice } else { Buffer::set };
    set(&mut body.buffer, start as usize, len as usize, bytes).map_err(|error| match error {
        SetError::Start => Status::BadArgument,
        SetError::TooLarge => Status::InternalFailure,
    })?;
    match buffer {
        BufferType::RequestBody => stream.request_body_set_by = Some(filter),
        BufferType::ResponseBody => stream.response_body_set_by = Some(filter),
        _ => {}
    }
    Ok(())
}

/// ABI 0.1.0: the plugin configuration within `on_configure`, the VM configuration otherwise.
pub(super) fn get_configuration(call: &mut Call<'_>, ptr: u32, size: u32) -> Result<(), Fault> {
    let configuration = content(call.data(), BufferType::PluginConfiguration)
        .or_else(|_| content(call.data(), BufferType::VmConfiguration))?;
    memory::give(call, &configuration, ptr, size)
}
