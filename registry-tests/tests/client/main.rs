//! The client against the registry in this process: what works, what it is shown, and how it takes lies and failures.

#![expect(clippy::unwrap_used, reason = "what suites share is not itself a test")]

#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod cache;
mod cache_decisions;
mod failures;
mod fetch_and_verify;
mod matrix;
mod proxies;
mod push_and_pull;
mod redirects;
mod referrers;
mod transfers;
