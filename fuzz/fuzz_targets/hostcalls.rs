//! Any input, as what a guest does to its host: `cargo fuzz run hostcalls`.

#![no_main]
#![allow(clippy::unwrap_used, reason = "what is set up for an input does not depend on it")]

use libfuzzer_sys::fuzz_target;

#[path = "../../harness/tests/boundary/mod.rs"]
mod boundary;

fuzz_target!(|bytes: &[u8]| boundary::run(bytes));
