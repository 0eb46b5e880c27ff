//! `proxy_get_property` and `proxy_set_property`.

use bytes::Bytes;

use super::{Call, Fault, memory};
use crate::abi::Status;
use crate::properties::{self, Scope};
use crate::state::HostState;
use crate::stream::state::TooMuchState;

impl From<TooMuchState> for Fault {
    fn from(_: TooMuchState) -> Self {
        Status::InternalFailure.into()
    }
}

const MAX_PATH: usize = 64 << 10;

pub(super) fn get(call: &mut Call<'_>, path: u32, len: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let path = memory::range(memory, path, len)?;
    if path.len() > MAX_PATH {
        return Err(Status::NotFound.into());
    }
    if let Some(by_hand) = &state.by_hand
        && let Some((stream, _)) = state.stream()
    {
        let stream = stream.borrow();
        let kept = || stream.filter_state.get(path.strip_suffix(b"\0").unwrap_or(path));
        let value = by_hand.property(path).map(<[u8]>::to_vec).or_else(|| kept().map(|kept| kept.to_vec()));
        drop(stream);
        return memory::give(call, &value.ok_or(Status::NotFound)?, ptr, size);
    }
    if let Some(value) = state.nature.property(path) {
        return memory::give(call, &value, ptr, size);
    }
    let value = scoped(state, |scope| properties::get(path, scope))?.serialize()?;
    memory::give(call, &value, ptr, size)
}

/// Runs `f` with what the calling context's properties are read from.
pub(super) fn scoped<T>(state: &HostState, f: impl FnOnce(&Scope<'_>) -> Result<T, Status>) -> Result<T, Status> {
    let plugin = &state.root().ok_or(Status::NotFound)?.plugin;
    match state.stream() {
        Some((stream, filter)) => {
            let stream = &stream.borrow();
            f(&Scope { plugin, proxy: &stream.proxy, stream: Some((stream, filter)) })
        }
        None => f(&Scope { plugin, proxy: &state.proxy, stream: None }),
    }
}

pub(super) fn set(call: &mut Call<'_>, path: u32, path_len: u32, value: u32, value_len: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let path = memory::range(memory, path, path_len)?;
    let value = memory::range(memory, value, value_len)?;
    let (stream, _) = state.stream().ok_or(Status::NotFound)?;
    let declared = state.root().and_then(|root| root.declared.get(path)).copied().unwrap_or_default();
    let stream = &mut *stream.borrow_mut();
    if declared.read_only && stream.filter_state.contains_key(path) {
        return Err(Status::BadArgument.into());
    }
    if declared.text {
        stream.text_state.insert(path.to_vec());
    }
    Ok(stream.keep(path, Bytes::copy_from_slice(value))?)
}
