//! The harness from outside: real wasm, real HTTP, the real binary.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod binary;
mod failure;
mod h2;
mod hazards;
mod hostcalls;
mod hostile;
mod http;
mod module;
mod network;
mod streams;
mod support;
mod tls;
mod workers;
