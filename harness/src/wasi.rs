//! WASI as Envoy gives it: an environment, clocks, randomness, and two descriptors that log. No files, no sockets.

use wasmtime::Linker;

use crate::abi::LogLevel;
use crate::hostcalls::{Call, Fault, enter, memory};
use crate::state::{HostState, Phase};

const EBADF: u32 = 8;
const EFAULT: u32 = 21;
const EINVAL: u32 = 28;
const ENOENT: u32 = 44;
const ENOSYS: u32 = 52;
const ENOTDIR: u32 = 20;
const ENOTSUP: u32 = 58;

const MAX_RANDOM: u32 = 65_536;
/// A longer vector is refused: the host walks it without being interruptible.
const MAX_IOVECS: u32 = 1024;
const MAX_LINE: usize = 64 << 10;

const ALWAYS: &[Phase] = &[Phase::Startup, Phase::Allocating, Phase::Callback];
const NOT_ALLOCATING: &[Phase] = &[Phase::Startup, Phase::Callback];
const IN_CALLBACKS: &[Phase] = &[Phase::Callback];

macro_rules! link {
    ($linker:ident, $module:ident, $allowed:ident: $($name:literal($($arg:ident: $ty:ty),*) => $f:expr;)*) => {$(
        $linker.func_wrap($module, $name, |call: Call<'_>, $($arg: $ty),*| {
            enter(call, $allowed, EFAULT, |call| $f(call, $($arg),*))
        })?;
    )*};
}

/// Functions whose answer depends on nothing.
macro_rules! link_constant {
    ($linker:ident, $module:ident, $allowed:ident: $($name:literal($($arg:ident: $ty:ty),*) => $errno:expr;)*) => {$(
        $linker.func_wrap($module, $name, |call: Call<'_>, $($arg: $ty),*| {
            let _ = ($($arg,)*);
            enter(call, $allowed, EFAULT, |_| match $errno { 0 => Ok(()), errno => Err(Fault::Code(errno)) })
        })?;
    )*};
}

/// Defines the 45 functions under both of WASI's module names.
pub(crate) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        add(linker, module)?;
        add_files(linker, module)?;
    }
    Ok(())
}

fn add(linker: &mut Linker<HostState>, module: &str) -> wasmtime::Result<()> {
    link! { linker, module, ALWAYS:
        "fd_write"(fd: u32, iovecs: u32, count: u32, written: u32) => fd_write;
        "clock_time_get"(clock: u32, precision: u64, out: u32) => clock_time_get;
        "poll_oneoff"(input: u32, output: u32, count: u32, events: u32) => poll_oneoff;
    }
    link! { linker, module, NOT_ALLOCATING:
        "fd_pwrite"(fd: u32, iovecs: u32, count: u32, offset: u64, written: u32) => fd_pwrite;
        "environ_get"(pointers: u32, strings: u32) => environ_get;
        "environ_sizes_get"(count: u32, size: u32) => environ_sizes_get;
        "args_sizes_get"(count: u32, size: u32) => args_sizes_get;
        "clock_res_get"(clock: u32, out: u32) => clock_res_get;
        "random_get"(ptr: u32, len: u32) => random_get;
        "fd_fdstat_get"(fd: u32, out: u32) => fd_fdstat_get;
        "fd_tell"(fd: u32, out: u32) => write_zero_u64;
        "fd_readdir"(fd: u32, buf: u32, len: u32, cookie: u64, used: u32) => fd_readdir;
    }
    link_constant! { linker, module, NOT_ALLOCATING:
        "args_get"(pointers: u32, strings: u32) => 0;
        "sock_accept"(a: u32, b: u32, c: u32) => ENOTSUP;
        "sock_recv"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32) => ENOTSUP;
        "sock_send"(a: u32, b: u32, c: u32, d: u32, e: u32) => ENOTSUP;
        "sock_shutdown"(a: u32, b: u32) => ENOTSUP;
    }
    link_constant! { linker, module, IN_CALLBACKS:
        "sched_yield"() => 0;
    }
    linker.func_wrap(module, "proc_exit", |mut call: Call<'_>, code: u32| {
        call.data_mut().log(LogLevel::Error, &format!("proc_exit({code})"));
    })?;
    Ok(())
}

fn add_files(linker: &mut Linker<HostState>, module: &str) -> wasmtime::Result<()> {
    link_constant! { linker, module, IN_CALLBACKS:
        "fd_read"(a: u32, b: u32, c: u32, d: u32) => ENOSYS;
        "fd_seek"(a: u32, b: i64, c: u32, d: u32) => 0;
        "fd_close"(a: u32) => 0;
        "path_open"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u64, g: u64, h: u32, i: u32) => ENOENT;
    }
    link_constant! { linker, module, NOT_ALLOCATING:
        "fd_fdstat_set_flags"(a: u32, b: u32) => ENOSYS;
        "fd_pread"(a: u32, b: u32, c: u32, d: u64, e: u32) => ENOSYS;
        "fd_prestat_dir_name"(a: u32, b: u32, c: u32) => ENOSYS;
        "fd_prestat_get"(a: u32, b: u32) => EBADF;
        "fd_filestat_get"(a: u32, b: u32) => EBADF;
        "fd_advise"(a: u32, b: u64, c: u64, d: u32) => 0;
        "fd_allocate"(fd: u32, b: u64, c: u64) => standard_stream(fd);
        "fd_datasync"(fd: u32) => standard_stream(fd);
        "fd_sync"(fd: u32) => standard_stream(fd);
        "fd_fdstat_set_rights"(fd: u32, b: u64, c: u64) => standard_stream(fd);
        "fd_filestat_set_size"(fd: u32, b: u64) => standard_stream(fd);
        "fd_filestat_set_times"(fd: u32, b: u64, c: u64, d: u32) => standard_stream(fd);
        "fd_renumber"(fd: u32, b: u32) => if standard_stream(fd) == 0 { ENOTSUP } else { EBADF };
        "path_filestat_get"(a: u32, b: u32, c: u32, d: u32, e: u32) => ENOTSUP;
        "path_filestat_set_times"(a: u32, b: u32, c: u32, d: u32, e: u64, f: u64, g: u32) => ENOTSUP;
        "path_create_directory"(a: u32, b: u32, c: u32) => ENOTSUP;
        "path_remove_directory"(a: u32, b: u32, c: u32) => ENOTSUP;
        "path_unlink_file"(a: u32, b: u32, c: u32) => ENOTSUP;
        "path_rename"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32) => ENOTSUP;
        // Envoy registers these two with fewer parameters than WASI has: a standard import does not link there.
        "path_link"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32) => ENOTSUP;
        "path_symlink"(a: u32, b: u32, c: u32, d: u32) => ENOTSUP;
    }
    link! { linker, module, NOT_ALLOCATING:
        "path_readlink"(fd: u32, path: u32, path_len: u32, buf: u32, len: u32, used: u32) => path_readlink;
    }
    Ok(())
}

fn standard_stream(fd: u32) -> u32 {
    if fd == 1 || fd == 2 { 0 } else { EBADF }
}

fn fd_pwrite(call: &mut Call<'_>, fd: u32, iovecs: u32, count: u32, _: u64, written: u32) -> Result<(), Fault> {
    fd_write(call, fd, iovecs, count, written)
}

/// One call is one log line: info for descriptor 1, error for 2.
fn fd_write(call: &mut Call<'_>, fd: u32, iovecs: u32, count: u32, written: u32) -> Result<(), Fault> {
    let level = match fd {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Err(Fault::Code(EBADF)),
    };
    if count > MAX_IOVECS {
        return Err(Fault::Code(EINVAL));
    }
    let (memory, state) = memory::split(call)?;
    let mut line = Vec::new();
    let mut total = 0_u32;
    for iovec in memory::range(memory, iovecs, count * 8)?.chunks_exact(8) {
        let (ptr, len) = (memory::read_u32(iovec, 0)?, memory::read_u32(iovec, 4)?);
        let part = memory::range(memory, ptr, len)?;
        line.extend_from_slice(&part[..part.len().min(MAX_LINE - line.len())]);
        total = total.wrapping_add(len);
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    if !line.is_empty() {
        state.log(level, &String::from_utf8_lossy(line));
    }
    memory::write_u32(memory, written, total)
}

fn environ_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    let bytes: usize = state.vm.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    memory::write_u32(memory, count, u32::try_from(state.vm.env.len()).unwrap_or(u32::MAX))?;
    memory::write_u32(memory, size, u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn environ_get(call: &mut Call<'_>, mut pointers: u32, mut strings: u32) -> Result<(), Fault> {
    let (memory, state) = memory::split(call)?;
    for (name, value) in &state.vm.env {
        memory::write_u32(memory, pointers, strings)?;
        let entry = format!("{name}={value}\0");
        memory::write(memory, strings, entry.as_bytes())?;
        pointers = pointers.checked_add(4).ok_or(Fault::OutOfBounds)?;
        strings = u32::try_from(entry.len()).ok().and_then(|n| strings.checked_add(n)).ok_or(Fault::OutOfBounds)?;
    }
    Ok(())
}

fn args_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, count, 0)?;
    memory::write_u32(memory, size, 0)
}

fn clock_time_get(call: &mut Call<'_>, clock: u32, _: u64, out: u32) -> Result<(), Fault> {
    let now = match clock {
        0 => crate::hostcalls::nanoseconds(call.data().nature.now()),
        1 => {
            let state = call.data();
            let shown = state.nature.monotonic().unwrap_or_else(|| state.shared.uptime());
            u64::try_from(shown.as_nanos()).unwrap_or(u64::MAX)
        }
        _ => return Err(Fault::Code(ENOTSUP)),
    };
    let (memory, _) = memory::split(call)?;
    memory::write_u64(memory, out, now)
}

fn clock_res_get(call: &mut Call<'_>, clock: u32, out: u32) -> Result<(), Fault> {
    if clock > 1 {
        return Err(Fault::Code(ENOTSUP));
    }
    let (memory, _) = memory::split(call)?;
    memory::write_u64(memory, out, 1)
}

fn random_get(call: &mut Call<'_>, ptr: u32, len: u32) -> Result<(), Fault> {
    if len > MAX_RANDOM {
        return Err(Fault::Code(EINVAL));
    }
    let (memory, state) = memory::split(call)?;
    let filled = state.nature.random(memory::range_mut(memory, ptr, len)?);
    if filled { Ok(()) } else { Err(Fault::Code(ENOSYS)) }
}

fn poll_oneoff(call: &mut Call<'_>, _: u32, _: u32, _: u32, events: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, events, 0)
}

/// A character device that can only be written to.
fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Fault> {
    const FD_WRITE: u64 = 64;
    if standard_stream(fd) != 0 {
        return Err(Fault::Code(EBADF));
    }
    let (memory, _) = memory::split(call)?;
    memory::write(memory, out, &[0; 24])?;
    memory::write_u64(memory, out.wrapping_add(8), FD_WRITE)
}

fn write_zero_u64(call: &mut Call<'_>, _: u32, out: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u64(memory, out, 0)
}

fn fd_readdir(call: &mut Call<'_>, _: u32, _: u32, _: u32, _: u64, used: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, used, 0)?;
    Err(Fault::Code(ENOTDIR))
}

fn path_readlink(call: &mut Call<'_>, _: u32, _: u32, _: u32, _: u32, _: u32, used: u32) -> Result<(), Fault> {
    let (memory, _) = memory::split(call)?;
    memory::write_u32(memory, used, 0)?;
    Err(Fault::Code(ENOTSUP))
}
