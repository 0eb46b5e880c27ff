//! Plugins to wasm modules: crates by discovery, toolchain and cargo, others by what their `plugin.toml` names.

mod compile;
mod covered;
mod develop;
mod discover;
mod foreign;
pub mod fresh;
mod toolchain;

pub use compile::{CompileError, Profile, compile, compile_examples};
pub use covered::covered;
pub use develop::{Developed, develop};
pub use discover::{DiscoverError, Workspace, discover};
pub use foreign::{Foreign, ForeignError, Found, find_foreign};
pub use toolchain::{Installer, Kind, Preference, Probe, Toolchain, ToolchainError, Tools, prepare};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The target every plugin is built for: a WASI preview 1 reactor.
pub const TARGET: &str = "wasm32-wasip1";

/// What `[package]` and `[package.metadata.plugin]` say about a plugin crate, or `plugin.toml` about another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Package name; also the plugin's name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// `package.description`, or the plugin table's own.
    pub description: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// `package.repository`.
    pub source: Option<String>,
    /// Folder of the crate.
    pub root: PathBuf,
    /// Root ids the module answers to; empty means any.
    pub root_ids: Vec<String>,
    /// Phase it is meant for: `AUTHN`, `AUTHZ`, `STATS` or none.
    pub phase: Option<String>,
    /// Priority it is meant for.
    pub priority: Option<i32>,
    /// Image repository, for example `ghcr.io/acme/plugins/basic-auth`.
    pub image: Option<String>,
    /// The file with the JSON Schema of its configuration.
    #[serde(default)]
    pub config_schema: Option<PathBuf>,
}

/// A module that was built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Built {
    /// Whose it is.
    pub plugin: Plugin,
    /// `target/plugins/<name>.wasm`, or where `plugin.toml` says.
    pub module: PathBuf,
    /// Where whatever built it left it.
    pub(crate) artifact: PathBuf,
    /// What built it, for example `rustc 1.95.0 (59807616e 2026-04-14), prebuilt std`, when that is known.
    pub toolchain: Option<String>,
}
