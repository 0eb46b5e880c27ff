//! Chain suites: an HTTP exchange through a whole resolved chain.

use serde::{Deserialize, Serialize};

/// A chain suite that is to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {}
