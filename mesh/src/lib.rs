//! Extension resources: read, validated, normalised, and resolved into the filter chain that Istio would build.
//!
//! Pure functions, no I/O: callers read the files and print the results.
//!
//! [`read`] makes [`Resources`] of texts, [`assume_proxy`] or [`workload`] says for whom, [`resolve`] answers with a
//! [`FilterChain`](model::FilterChain).

mod attach;
mod chain;
mod config;
pub mod envoy;
mod extension;
mod fault;
mod fields;
mod metadata;
pub mod model;
mod order;
pub mod plan;
pub mod policy;
mod proxy;
mod resources;
mod scalar;
mod secret;
mod time;
mod url;
mod yaml;

pub use attach::{AttachedService, GATEWAY_NAME_LABEL, MeshOptions, ServiceKind, WAYPOINT_CLASS};
pub use chain::resolve;
pub use fault::{Fault, Place, Problem};
pub use proxy::{Assumption, ProxyError, assume_proxy, assumed_listener, services_of, workload};
pub use resources::{Gateway, Policy, PolicyKind, Reading, Resources, Service, Source, Workload, read};
pub use secret::{DockerConfig, PullSecret};
