//! Runs a command and prints how long it took, in nanoseconds, and the peak memory of its largest process, in KiB.
//!
//! Linux carries the peak of the process that starts another over to that one; this program is small, so that it does not
//! count: about 2 MiB.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { return ExitCode::from(2) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status();
    let elapsed = started.elapsed();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).map(|usage| usage.max_rss());
    match (status, peak) {
        (Ok(status), Ok(peak)) => {
            println!("{} {peak}", elapsed.as_nanos());
            ExitCode::from(u8::from(!status.success()))
        }
        (Err(_), _) => ExitCode::from(127),
        (_, Err(_)) => ExitCode::from(3),
    }
}
