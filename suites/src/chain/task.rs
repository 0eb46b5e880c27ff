//! What the runner is given: a suite, and for each of its tests the plan of its chain.

use std::path::PathBuf;

use mesh::plan::Plan;
use serde::{Deserialize, Serialize};

use super::model::ChainTest;

/// A suite that is ready to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// What its relative paths are relative to.
    pub folder: PathBuf,
    /// What it says.
    pub suite: ChainTest,
    /// Chains, each once.
    pub plans: Vec<Planned>,
    /// The tests to run, in the suite's order.
    pub tests: Vec<Chosen>,
}

/// A test that is to be run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Chosen {
    /// Its place among the suite's.
    pub test: usize,
    /// Its plan's place among the plans.
    pub plan: usize,
}

/// A chain as it was resolved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Planned {
    /// The plan. Addresses in it count for nothing.
    Ready(Box<Plan>),
    /// Why there is none, with what to do about it.
    Failed(String),
}
