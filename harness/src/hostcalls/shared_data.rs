//! Shared data, keyed by `vm_id` in the whole process.

use super::{Call, Fault, memory};
use crate::abi::Status;
use crate::shared::SharedError;

impl From<SharedError> for Fault {
    fn from(error: SharedError) -> Self {
        match error {
            SharedError::Unknown => Status::NotFound,
            SharedError::CasMismatch => Status::CasMismatch,
            SharedError::NotForThisType => Status::BadArgument,
            SharedError::Empty => Status::Empty,
            SharedError::TooMuch => Status::InternalFailure,
        }
        .into()
    }
}

pub(super) fn get(call: &mut Call<'_>, k: u32, k_len: u32, ptr: u32, size: u32, cas: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let key = memory::range(memory, k, k_len)?;
    let (value, current) = state.shared.data(&state.vm.vm_id, key).ok_or(Status::NotFound)?;
    memory::give(call, &value, ptr, size)?;
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, cas, current)
}

pub(super) fn set(call: &mut Call<'_>, k: u32, k_len: u32, v: u32, v_len: u32, cas: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let (key, value) = (memory::range(memory, k, k_len)?, memory::range(memory, v, v_len)?);
    Ok(state.shared.set_data(&state.vm.vm_id, key, value, cas)?)
}
