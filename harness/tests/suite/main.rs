//! The harness from outside: real wasm, real HTTP, the real binary.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod binary;
mod failure;
mod hazards;
mod hostcalls;
mod http;
mod jwt;
mod module;
mod rbac;
mod support;
mod tokens;
