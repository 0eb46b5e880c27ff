//! Extension resources: read, validated, normalised, and resolved into the filter chain that Istio would build.
//!
//! Pure functions, no I/O: callers read the files and print the results.

pub mod model;
pub mod plan;
