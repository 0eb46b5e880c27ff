//! Extension resources: read, validated, normalised, and resolved into the filter chain that Istio would build.
//!
//! Pure functions, no I/O: callers read the files and print the results.
//!
//! [`read`] makes [`Resources`] of texts, [`assume_proxy`] or [`workload`] says for whom, [`resolve`] answers with a
//! [`FilterChain`](model::FilterChain).

mod attach;
mod brief;
mod chain;
mod clusters;
mod config;
mod diff;
mod document;
pub mod envoy;
mod extension;
mod fault;
mod fields;
mod locate;
mod maistra;
mod metadata;
pub mod migrate;
pub mod model;
mod order;
pub mod plan;
pub mod policy;
mod ports;
mod proxy;
mod resources;
mod rule;
mod scalar;
mod secret;
mod tetrate;
mod time;
mod url;
pub mod warnings;
mod yaml;

pub use attach::{AttachedService, GATEWAY_NAME_LABEL, MeshOptions, ServiceKind, WAYPOINT_CLASS};
pub use chain::{resolve, resolve_in_front};
pub use clusters::clusters;
pub use diff::{Change, ChangeKind, diff};
pub use document::{Document, documents, each_document};
pub use fault::{Fault, Place, Problem, nearest};
pub use locate::{FieldPath, Locator, Step, wasm_field};
pub use ports::{DeclaredPort, PortOwner, protocol};
pub use proxy::{
    Ambient, Assumption, ProxyError, WaypointBefore, assume_proxy, assumed_listener, services_of, stated, workload,
};
pub use resources::{
    Gateway, GatewayClass, Policy, PolicyKind, Reading, Resources, Service, Source, Workload, read, read_located,
    read_some,
};
pub use secret::{DockerConfig, PullSecret};
pub use url::shown_url;
