//! Which modules load, and with which words the others are refused.

use std::fmt::Write as _;

use harness::abi::AbiVersion;
use harness::engine::Engine;
use harness::module::Module;

use crate::support::{self, Harness, limits, wasm};

const MARKER: &str = r#"(func (export "proxy_abi_version_0_2_1"))"#;
const MALLOC: &str = r#"(func (export "malloc") (param i32) (result i32) (i32.const 0))"#;

fn module(parts: &[&str]) -> Vec<u8> {
    let mut wat = String::from("(module ");
    for part in parts {
        let _ = write!(wat, "{part} ");
    }
    wat::parse_str(wat + ")").unwrap()
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let engine = Engine::new(limits()).unwrap();
    assert_eq!(Module::compile(&engine, bytes).unwrap_err().to_string(), expected);
}

#[track_caller]
fn check_loads(bytes: &[u8], abi: AbiVersion) {
    let engine = Engine::new(limits()).unwrap();
    assert_eq!(Module::compile(&engine, bytes).unwrap().abi(), abi);
}

#[test]
fn what_is_not_a_module_is_refused() {
    check(b"not wasm", "Failed to parse corrupted Wasm module");
    check(b"", "Failed to parse corrupted Wasm module");
    check(b"\0asm\x0d\0\x01\0", "the file is a WebAssembly component, not a core module; build it for wasm32-wasip1");
}

#[test]
fn the_first_marker_is_the_abi_version() {
    check(&module(&[MALLOC]), "Missing or unknown Proxy-Wasm ABI version");
    let old = r#"(func (export "proxy_abi_version_0_1_0"))"#;
    check_loads(&module(&[MALLOC, old, MARKER]), AbiVersion::V0_1_0);
    check_loads(&module(&[MALLOC, MARKER, old]), AbiVersion::V0_2_1);
}

#[test]
fn imports_must_exist_with_their_type() {
    check(
        &module(&[r#"(import "env" "foo" (func))"#, MARKER, MALLOC]),
        "Failed to load Wasm module due to a missing import: env.foo",
    );
    check(
        &module(&[r#"(import "env" "g" (global i32))"#, MARKER, MALLOC]),
        "Failed to load Wasm module due to a missing import: env.g",
    );
    check(
        &module(&[r#"(import "env" "proxy_log" (func (param i32 i32) (result i32)))"#, MARKER, MALLOC]),
        "Failed to load Wasm module due to an import type mismatch: env.proxy_log, want: i32 i32 -> i32, but host \
         exports: i32 i32 i32 -> i32",
    );
    check(
        &module(&[r#"(import "env" "proxy_continue_request" (func (result i32)))"#, MARKER, MALLOC]),
        "Failed to load Wasm module due to a missing import: env.proxy_continue_request",
    );
    check_loads(&module(&[r#"(import "env" "memory" (memory 1))"#, MARKER, MALLOC]), AbiVersion::V0_2_1);
}

#[test]
fn known_exports_must_have_their_type() {
    check(&module(&[MARKER]), "Wasm module is missing malloc function.");
    check(
        &module(&[MARKER, MALLOC, r#"(func (export "proxy_on_done") (param i32))"#]),
        "Bad function signature for: proxy_on_done, want: i32 -> i32, but the module exports: i32 -> void",
    );
    let allocate = r#"(func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))"#;
    check_loads(&module(&[MARKER, allocate, r#"(func (export "unknown") (param f64))"#]), AbiVersion::V0_2_1);
}

#[track_caller]
fn start_error(parts: &[&str]) -> String {
    let modules = [("a", module(&[&[MARKER, MALLOC], parts].concat()))];
    let error = support::load(vec![wasm("a", |_| {})], &modules, std::sync::Arc::default()).err().unwrap();
    std::error::Error::source(&error).unwrap().to_string()
}

#[test]
fn memory_above_the_limit_is_refused() {
    assert_eq!(start_error(&["(memory 16385)"]), "Failed to create new Wasm instance");
}

#[test]
fn start_functions_may_only_log() {
    let restricted = [r#"(func (export "_initialize") (drop (call 0 (i32.const 5))))"#];
    let import = r#"(import "env" "proxy_set_tick_period_milliseconds" (func (param i32) (result i32)))"#;
    let bytes = module(&[import, MARKER, MALLOC, restricted[0]]);
    let error = support::load(vec![wasm("a", |_| {})], &[("a", bytes)], std::sync::Arc::default()).err().unwrap();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(text, "Function: _initialize failed: Uncaught Error: restricted_callback");
}

#[test]
fn start_is_called_only_without_initialize_and_main_only_with_it() {
    let trap = |name: &str, ty: &str| format!("(func (export \"{name}\") {ty} unreachable)");
    let start = trap("_start", "");
    let main = trap("main", "(param i32 i32) (result i32)");
    let initialize = r#"(func (export "_initialize"))"#;
    assert_eq!(start_error(&[&start]), "Function: _start failed: Uncaught RuntimeError: unreachable");
    assert_eq!(start_error(&[initialize, &main]), "Function: main failed: Uncaught RuntimeError: unreachable");
    for parts in [&[initialize, start.as_str()][..], &[main.as_str()]] {
        let bytes = module(&[&[MARKER, MALLOC], parts].concat());
        assert_eq!(Harness::new(vec![wasm("a", |_| {})], &[("a", bytes)]).get("/").status, 200);
    }
}
