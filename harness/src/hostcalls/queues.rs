//! Shared queues.

use super::{Call, Fault, memory};
use crate::abi::Status;
use crate::shared::QueueTarget;

pub(super) fn register(call: &mut Call<'_>, name: u32, len: u32, token: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let name = memory::range(memory, name, len)?;
    // The owner is a root context, whichever context of it asks.
    let owner = state.host.as_ref().zip(state.root_id()).map(|(host, root)| QueueTarget {
        worker: host.queue_ready.clone(),
        vm: host.id,
        root,
    });
    let registered = state.shared.register_queue(&state.vm.vm_id, name, owner)?;
    memory::write_u32(memory, token, registered)
}

pub(super) fn resolve(call: &mut Call<'_>, vm: u32, vm_len: u32, name: u32, len: u32, token: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let (vm, name) = (memory::range(memory, vm, vm_len)?, memory::range(memory, name, len)?);
    let vm = if vm.is_empty() { Ok(state.vm.vm_id.as_str()) } else { std::str::from_utf8(vm) };
    let resolved = vm.ok().and_then(|vm| state.shared.resolve_queue(vm, name)).ok_or(Status::NotFound)?;
    memory::write_u32(memory, token, resolved)
}

pub(super) fn enqueue(call: &mut Call<'_>, token: u32, value: u32, len: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    Ok(state.shared.enqueue(token, memory::range(memory, value, len)?)?)
}

pub(super) fn dequeue(call: &mut Call<'_>, token: u32, ptr: u32, size: u32) -> Result<(), Fault> {
    let value = call.data().shared.dequeue(token)?;
    memory::give(call, &value, ptr, size)
}
