//! The client against the registry in this process: what works, what it is shown, and how it takes lies and failures.

#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod failures;
mod push_and_pull;
mod redirects;
