//! Time for a request, a callback, a hostcall and a start, in this process: `cargo bench -p harness --bench proxy`.
//!
//! Needs the sample plugin: `cargo xtask build header-append`. The difference between two chains is what a filter costs;
//! an empty guest's eighth is a callback. Of a hostcall the figure is for a thousand, so that µs read as ns; that of
//! `none` is what the request and the guest's loop take.

#![expect(clippy::expect_used, reason = "a benchmark fails")]

mod common;

use std::sync::Arc;

use common::request as a_request;
use common::{CHAINS, Filters, HOSTCALLS, Resolved, serve};
use divan::Bencher;
use harness::code_cache::CodeCache;
use harness::engine::{Engine, Limits};

fn main() {
    divan::main();
}

fn engine() -> Engine {
    Engine::new(Limits::default()).expect("an engine")
}

#[divan::bench(args = CHAINS.iter().map(|(name, _)| *name))]
fn request(bencher: Bencher<'_, '_>, chain: &str) {
    let (_, filters) = CHAINS.iter().find(|(name, _)| *name == chain).expect("a known chain");
    let local = Resolved::new(*filters).start(&engine());
    let request = a_request(false);
    bencher.bench_local(|| serve(&local, &request));
}

#[divan::bench(args = HOSTCALLS.iter().map(|(name, ..)| *name))]
fn a_thousand_hostcalls(bencher: Bencher<'_, '_>, hostcall: &'static str) {
    let local = Resolved::new(Filters::Hostcall(hostcall)).start(&engine());
    let request = a_request(true);
    bencher.bench_local(|| serve(&local, &request));
}

/// From modules' bytes to the first response of five plugins, nothing compiled before.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn cold_start(bencher: Bencher<'_, '_>) {
    let (resolved, folder) = (Resolved::new(Filters::Plugin(5)), tempfile::tempdir().expect("a folder"));
    let mut round = 0;
    bencher.bench_local(|| {
        round += 1;
        let cache = CodeCache::open(&folder.path().join(round.to_string())).expect("a cache");
        serve(&resolved.start(&engine().with_code_cache(Arc::new(cache))), &a_request(false));
    });
}

/// The same with everything compiled before.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn warm_start(bencher: Bencher<'_, '_>) {
    let (resolved, folder) = (Resolved::new(Filters::Plugin(5)), tempfile::tempdir().expect("a folder"));
    let start = || {
        let cache = CodeCache::open(&folder.path().join("code")).expect("a cache");
        serve(&resolved.start(&engine().with_code_cache(Arc::new(cache))), &a_request(false));
    };
    start();
    bencher.bench_local(start);
}
