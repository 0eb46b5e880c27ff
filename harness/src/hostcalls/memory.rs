//! Reading and writing a guest's memory: every range is checked, and no pointer outlives a call into the guest.

use super::{Call, Fault};
use crate::state::{HostState, Phase};

/// The guest's memory and the host's state, side by side.
pub(crate) fn split<'a>(call: &'a mut Call<'_>) -> Result<(&'a mut [u8], &'a mut HostState), Fault> {
    let memory = call.data().memory.ok_or(Fault::OutOfBounds)?;
    Ok(memory.data_and_store_mut(call))
}

pub(crate) fn range(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8], Fault> {
    memory.get(ptr as usize..ptr as usize + len as usize).ok_or(Fault::OutOfBounds)
}

pub(crate) fn range_mut(memory: &mut [u8], ptr: u32, len: u32) -> Result<&mut [u8], Fault> {
    memory.get_mut(ptr as usize..ptr as usize + len as usize).ok_or(Fault::OutOfBounds)
}

pub(crate) fn write(memory: &mut [u8], ptr: u32, bytes: &[u8]) -> Result<(), Fault> {
    let end = (ptr as usize).checked_add(bytes.len()).ok_or(Fault::OutOfBounds)?;
    memory.get_mut(ptr as usize..end).ok_or(Fault::OutOfBounds)?.copy_from_slice(bytes);
    Ok(())
}

pub(crate) fn read_u32(memory: &[u8], ptr: u32) -> Result<u32, Fault> {
    let bytes = range(memory, ptr, 4)?.first_chunk::<4>().ok_or(Fault::OutOfBounds)?;
    Ok(u32::from_le_bytes(*bytes))
}

pub(crate) fn write_u32(memory: &mut [u8], ptr: u32, value: u32) -> Result<(), Fault> {
    write(memory, ptr, &value.to_le_bytes())
}

pub(crate) fn write_u64(memory: &mut [u8], ptr: u32, value: u64) -> Result<(), Fault> {
    write(memory, ptr, &value.to_le_bytes())
}

/// Hands bytes to the guest: memory from its own allocator, address and size through its out pointers. Nothing is
/// allocated for nothing: an empty value is address 0, size 0.
pub(crate) fn give(call: &mut Call<'_>, bytes: &[u8], ptr: u32, size: u32) -> Result<(), Fault> {
    let len = u32::try_from(bytes.len()).map_err(|_| Fault::OutOfBounds)?;
    let address = place(call, bytes)?;
    let (memory, _) = split(call)?;
    write_u32(memory, ptr, address)?;
    write_u32(memory, size, len)
}

/// Copies bytes to where the guest's allocator says, and returns their address.
pub(crate) fn place(call: &mut Call<'_>, bytes: &[u8]) -> Result<u32, Fault> {
    let len = u32::try_from(bytes.len()).map_err(|_| Fault::OutOfBounds)?;
    if len == 0 {
        return Ok(0);
    }
    let address = allocate(call, len)?;
    let (memory, _) = split(call)?;
    write(memory, address, bytes)?;
    Ok(address)
}

fn allocate(call: &mut Call<'_>, len: u32) -> Result<u32, Fault> {
    let malloc = call.data().malloc.clone().ok_or(Fault::OutOfBounds)?;
    let phase = std::mem::replace(&mut call.data_mut().phase, Phase::Allocating);
    let address = malloc.call(&mut *call, len).map_err(Fault::Trap);
    call.data_mut().phase = phase;
    match address? {
        0 => Err(Fault::OutOfBounds),
        address => Ok(address),
    }
}
