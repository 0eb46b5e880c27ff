//! Time, ticks, and which context hostcalls act on.

use std::time::{Duration, SystemTime};

use super::{Call, Fault, memory};
use crate::abi::Status;
use crate::state::Tick;

pub(super) fn get_current_time(call: &mut Call<'_>, out: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    memory::write_u64(memory, out, nanoseconds(state.nature.now()))
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn set_tick_period(call: &mut Call<'_>, period: u32) {
    let state = call.data_mut();
    if let Some(root) = state.root_mut() {
        root.tick = if period == 0 { None } else { Tick::from_now(Duration::from_millis(period.into())) };
    }
    if let Some(host) = &state.host {
        host.ticks.notify_one();
    }
}

pub(super) fn set_effective_context(call: &mut Call<'_>, id: u32) -> Result<(), Fault> {
    let state = call.data_mut();
    if id != 0 && !state.contexts.contains_key(&id) {
        return Err(Status::BadArgument.into());
    }
    state.effective = id;
    state.visit();
    Ok(())
}

/// The root context is done, after `on_done` said that it is not yet: it is deleted once this callback returns.
pub(super) fn done(call: &mut Call<'_>) -> Result<(), Fault> {
    let state = call.data_mut();
    let id = state.root_id().ok_or(Status::NotFound)?;
    match state.root_by_id(id) {
        Some(root) if root.pending_done => {
            root.pending_done = false;
            state.finished.push(id);
            Ok(())
        }
        _ => Err(Status::NotFound.into()),
    }
}

/// The status of the root context's last callout that has one.
pub(super) fn get_status(call: &mut Call<'_>, code: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let (status, message) = state.root().map(|root| root.status.clone()).unwrap_or_default();
    memory::write_u32(memory, code, status)?;
    memory::give(call, message.as_bytes(), ptr, size)
}
