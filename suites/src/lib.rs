//! Declarative tests as data: what a suite says, what came of it, and how that is reported. Nothing here runs a plugin.
//!
//! [`outcome`] is what every kind of suite ends in, so that one report serves them all. The command line reads suites and
//! resolves what they name; the crate `suite-runner`, which has the engine, runs them.

pub mod chain;
pub mod job;
pub mod outcome;
