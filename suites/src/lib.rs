//! Declarative tests as data: what a suite says, what came of it, and how that is reported. Nothing here runs a plugin.
//!
//! [`tree`] reads the formats, [`plugin`] and [`chain`] make suites of them, [`job`] is what is to be run. [`outcome`] is
//! what every kind of suite ends in, so that one [`report`] serves them all. The command line reads suites and resolves
//! what they name; the crate `suite-runner`, which has the engine, runs them.

pub mod bytes;
pub mod chain;
pub mod coverage;
pub mod job;
pub mod outcome;
pub mod plugin;
pub mod re2;
pub mod report;
pub mod tree;
pub mod update;
