//! Time, ticks, and which context hostcalls act on.

use std::time::{Duration, SystemTime};

use super::{Call, Fault, memory};
use crate::abi::Status;

pub(super) fn get_current_time(call: &mut Call<'_>, out: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u64(memory, out, nanoseconds(SystemTime::now()))
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn set_tick_period(call: &mut Call<'_>, period: u32) {
    if let Some(root) = call.data_mut().root_mut() {
        root.tick = (period > 0).then(|| Duration::from_millis(period.into()));
    }
}

pub(super) fn set_effective_context(call: &mut Call<'_>, id: u32) -> Result<(), Fault> {
    let state = call.data_mut();
    if id != 0 && !state.contexts.contains_key(&id) {
        return Err(Status::BadArgument.into());
    }
    state.effective = id;
    Ok(())
}

pub(super) fn done(call: &mut Call<'_>) -> Result<(), Fault> {
    match call.data_mut().root_mut() {
        Some(root) if root.pending_done => {
            root.pending_done = false;
            Ok(())
        }
        _ => Err(Status::NotFound.into()),
    }
}

/// The status of the last callout: there are none yet, so it is the initial one.
pub(super) fn get_status(call: &mut Call<'_>, code: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, code, 0)?;
    memory::give(call, b"", ptr, size)
}
