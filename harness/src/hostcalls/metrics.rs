//! Metric hostcalls.

use super::{Call, Fault, memory};
use crate::abi::Status;
use crate::shared::MetricType;

pub(super) fn define(call: &mut Call<'_>, kind: u32, name: u32, name_len: u32, id: u32) -> Result<(), Fault> {
    let kind = match kind {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Histogram,
        _ => return Err(Status::BadArgument.into()),
    };
    let (memory, state) = memory::split(call)?;
    let name = memory::range(memory, name, name_len)?;
    let defined = state.metrics.define(&state.shared, kind, name)?;
    memory::write_u32(memory, id, defined)
}

pub(super) fn increment(call: &mut Call<'_>, id: u32, offset: i64) -> Result<(), Fault> {
    let state = call.data();
    Ok(state.metrics.increment(&state.shared, id, offset)?)
}

pub(super) fn record(call: &mut Call<'_>, id: u32, value: u64) -> Result<(), Fault> {
    let state = call.data();
    Ok(state.metrics.record(&state.shared, id, value)?)
}

pub(super) fn get(call: &mut Call<'_>, id: u32, out: u32) -> Result<(), Fault> {
    let state = call.data();
    let value = state.metrics.get(&state.shared, id)?;
    let (memory, _) = memory::split(call)?;
    memory::write_u64(memory, out, value)
}
