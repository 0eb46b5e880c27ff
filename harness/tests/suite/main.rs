//! The harness from outside: real wasm, real HTTP, the real binary.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod any_input;
mod binary;
#[path = "../boundary/mod.rs"]
mod boundary;
mod callouts;
mod code_cache;
mod contexts;
mod failure;
mod foreign;
mod grpc;
mod h2;
mod hazards;
mod hostcalls;
mod hostile;
mod http;
mod jwt;
mod lua;
mod module;
mod network;
mod offline;
mod page;
mod rbac;
mod reload;
mod shared;
mod streams;
mod support;
mod tls;
mod tokens;
mod trace;
mod wasi;
mod workers;
