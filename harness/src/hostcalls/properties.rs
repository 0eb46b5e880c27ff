//! `proxy_get_property` and `proxy_set_property`.

use bytes::Bytes;

use super::{Call, Fault, memory};
use crate::abi::Status;
use crate::properties::{self, Scope};
use crate::stream::state::MAX_FILTER_STATE;

const MAX_PATH: usize = 64 << 10;

pub(super) fn get(call: &mut Call<'_>, path: u32, len: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let path = memory::range(memory, path, len)?;
    if path.len() > MAX_PATH {
        return Err(Status::NotFound.into());
    }
    let plugin = &state.root().ok_or(Status::NotFound)?.plugin;
    let value = match state.stream() {
        Some((stream, filter)) => properties::get(path, &Scope { plugin, stream: Some((&stream.borrow(), filter)) })?,
        None => properties::get(path, &Scope { plugin, stream: None })?,
    };
    memory::give(call, &value, ptr, size)
}

pub(super) fn set(call: &mut Call<'_>, path: u32, path_len: u32, value: u32, value_len: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let path = memory::range(memory, path, path_len)?;
    let value = memory::range(memory, value, value_len)?;
    let (stream, _) = state.stream().ok_or(Status::NotFound)?;
    let stream = &mut *stream.borrow_mut();
    let old = stream.filter_state.get(path).map_or(0, |old| path.len() + old.len());
    let bytes = stream.filter_state_bytes - old + path.len() + value.len();
    if bytes + stream.filter_state.len() * 64 > MAX_FILTER_STATE {
        return Err(Status::InternalFailure.into());
    }
    stream.filter_state_bytes = bytes;
    stream.filter_state.insert(path.to_vec(), Bytes::copy_from_slice(value));
    Ok(())
}
