//! Runs filter chains: a proxy-wasm host that behaves as Envoy's does, and the HTTP server around it.
//!
//! The layers, from the guest outwards: [`abi`] (numbers and formats), [`module`] (what is accepted), `vm` (one
//! instance and its callbacks), `hostcalls` and `wasi` (what a guest may ask), `stream` (one request in the filter
//! chain), `network` (one connection in the network chain), [`chain`] (a resolved chain made executable), `upstream`
//! (where requests go), [`server`] (worker threads, each with its own VMs). [`hazard`] is what none of them imitates,
//! [`trace`] what each request met, [`page`](mod@page) shows it, [`offline`] a proxy without sockets, for the tests of
//! plugins, [`callbacks`] a plugin whose callbacks are driven by hand.
//!
//! ```
//! use harness::engine::{Engine, Limits};
//! use harness::module::{LoadError, Module};
//!
//! let engine = Engine::new(Limits::default())?;
//! assert!(matches!(Module::compile(&engine, b"not wasm"), Err(LoadError::Corrupted(_))));
//! # Ok::<(), harness::engine::EngineError>(())
//! ```

pub mod abi;
mod admin;
mod admission;
mod body;
mod buffer;
mod builtin;
pub mod callbacks;
mod callouts;
mod cel;
pub mod chain;
mod cluster;
pub mod code_cache;
mod connection;
pub mod coverage;
mod crypto;
mod echo;
pub mod engine;
mod exchange;
pub mod exercise;
mod grpc;
pub mod hazard;
mod header_map;
mod hostcalls;
mod listener;
pub mod local;
pub mod log;
mod lua;
pub mod module;
mod native;
pub mod nature;
mod network;
pub mod offline;
pub mod page;
pub mod plugin;
mod properties;
mod proto;
pub mod reload;
mod request_path;
pub mod server;
mod shared;
pub mod source;
mod state;
mod stream;
pub mod trace;
mod upstream;
mod vm;
mod wasi;
mod worker;
