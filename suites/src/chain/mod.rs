//! Chain suites: requests and connections through a whole resolved chain, with scripted servers around it.
//!
//! [`model`] is what an operator writes, [`read`] reads it and says everything that is wrong with it, [`Task`] is what the
//! runner is given.

mod check;
pub mod model;
pub mod octets;
mod read;
mod task;
pub mod template;
pub mod units;

pub use check::HAZARDS;
pub use read::{Mistake, is_chain_suite, read, read_if_meant};
pub use task::{Chosen, Planned, Task};

/// The JSON Schema of a suite, as it is published in `docs/chain-test.schema.json`.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(model::ChainTest);
    schema.insert("$id".to_owned(), "https://plugwright.dev/schemas/chain-test.v1alpha1.json".into());
    schema.insert("title".to_owned(), "Plugwright chain test".into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
