//! From a Rust crate to an OCI image that Istio loads, and between layouts, registries and files.
//!
//! Nothing here prints, parses a command line, or reads the process environment: callers pass what is needed.

pub mod blob;
pub mod build;
pub mod coverage;
pub mod credentials;
pub mod digest;
pub mod fetch;
pub mod file;
pub mod image;
pub mod inspect;
pub mod layout;
pub mod module;
pub mod reference;
pub mod registry;
pub mod verify;
