//! `proxy_log` and the level it is filtered by.

use super::{Call, Fault, memory};
use crate::abi::{LogLevel, Status};

/// A longer message is cut: it must not cost the host more than this.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;

pub(super) fn log(call: &mut Call<'_>, level: u32, ptr: u32, len: u32) -> Result<(), Fault> {
    let level = LogLevel::from_u32(level).ok_or(Status::BadArgument)?;
    let (memory, state) = memory::split(call)?;
    let message = memory::range(memory, ptr, len)?;
    state.log(level, &String::from_utf8_lossy(&message[..message.len().min(MAX_MESSAGE)]));
    Ok(())
}

pub(super) fn get_level(call: &mut Call<'_>, out: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    memory::write_u32(memory, out, state.log_level as u32)
}
