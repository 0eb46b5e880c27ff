//! Which of a module's code has been executed: a module that notes it, and what its functions are called.
//!
//! Nothing that a module's own code can see is different in a module that takes notes: no function, import, memory or
//! table is added, and no index changes. Globals are appended, which its code cannot name.

mod functions;
mod instrument;
mod lines;
#[cfg(test)]
mod tests;

pub use functions::{Function, Functions, Own, functions};
pub use instrument::{Detail, FLAGS, InstrumentError, Instrumented, Probe, instrument};
pub use lines::{Line, Lines};
