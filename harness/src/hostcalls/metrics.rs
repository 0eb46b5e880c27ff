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
    let defined = state.shared.define_metric(kind, memory::range(memory, name, name_len)?)?;
    memory::write_u32(memory, id, defined)
}

pub(super) fn increment(call: &mut Call<'_>, id: u32, offset: i64) -> Result<(), Fault> {
    Ok(call.data().shared.increment_metric(id, offset)?)
}

pub(super) fn record(call: &mut Call<'_>, id: u32, value: u64) -> Result<(), Fault> {
    Ok(call.data().shared.record_metric(id, value)?)
}

pub(super) fn get(call: &mut Call<'_>, id: u32, out: u32) -> Result<(), Fault> {
    let value = call.data().shared.metric_value(id)?;
    let (memory, _) = memory::split(call)?;
    memory::write_u64(memory, out, value)
}
