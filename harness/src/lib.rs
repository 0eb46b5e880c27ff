//! Runs filter chains: a proxy-wasm host that behaves as Envoy's does, and the HTTP server around it.
//!
//! The layers, from the guest outwards: [`abi`] (numbers and formats), [`module`] (what is accepted), `vm` (one
//! instance and its callbacks), `hostcalls` and `wasi` (what a guest may ask), `stream` (one request in the filter
//! chain), [`chain`] (a resolved chain made executable), [`server`] (worker threads, each with its own VMs).
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
mod body;
mod buffer;
mod builtin;
pub mod chain;
mod cluster;
mod echo;
pub mod engine;
mod exchange;
mod header_map;
mod hostcalls;
pub mod log;
pub mod module;
mod native;
pub mod plugin;
mod properties;
mod request_path;
pub mod server;
mod shared;
pub mod source;
mod state;
mod stream;
mod upstream;
mod vm;
mod wasi;
mod worker;
