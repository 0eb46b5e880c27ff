//! Chains in this process: what both benchmarks measure.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harness::abi::LogLevel;
use harness::chain::Chain;
use harness::engine::Engine;
use harness::local::Local;
use harness::log::Silent;
use harness::server::Options;
use harness::source::{Fetched, ModuleSource, SourceError};
use http::Request;
use mesh::model::{FilterChain, Proxy, ProxyKind};
use mesh::{MeshOptions, Source};

/// As the harness's own binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often a guest that measures one hostcall makes it, for each request.
pub(crate) const CALLS: u32 = 1000;

/// What a chain consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Filters {
    /// The sample plugin `header-append`, so many times, each in a VM of its own.
    Plugin(usize),
    /// A guest whose callbacks do nothing, so many times: `context_create`, request headers, response headers, the
    /// response's body twice, `log`, `done`, `delete`.
    Empty(usize),
    /// A script that adds a response header, so many times.
    Lua(usize),
    /// A guest that makes a hostcall [`CALLS`] times.
    Hostcall(&'static str),
}

/// The chains whose requests are measured, by name.
pub(crate) const CHAINS: &[(&str, Filters)] = &[
    ("no filter", Filters::Plugin(0)),
    ("1 wasm", Filters::Plugin(1)),
    ("5 wasm", Filters::Plugin(5)),
    ("1 Lua", Filters::Lua(1)),
    ("5 Lua", Filters::Lua(5)),
    ("1 empty guest, 8 callbacks", Filters::Empty(1)),
    ("5 empty guests, 8 callbacks", Filters::Empty(5)),
];

/// The hostcalls that are measured, by name: which callback makes them, and how in WebAssembly text.
pub(crate) const HOSTCALLS: &[(&str, &str, &str)] = &[
    ("none", "request_headers", ""),
    (
        "get header",
        "request_headers",
        "(drop (call $get (i32.const 0) (i32.const 16) (i32.const 10) (i32.const 0) (i32.const 4)))",
    ),
    (
        "replace header",
        "request_headers",
        "(drop (call $replace (i32.const 0) (i32.const 32) (i32.const 7) (i32.const 48) (i32.const 5)))",
    ),
    ("log below the level", "request_headers", "(drop (call $log (i32.const 0) (i32.const 48) (i32.const 5)))"),
    ("log", "request_headers", "(drop (call $log (i32.const 2) (i32.const 48) (i32.const 5)))"),
    (
        "get property",
        "request_headers",
        "(drop (call $property (i32.const 64) (i32.const 12) (i32.const 0) (i32.const 4)))",
    ),
    (
        "get 1 KiB of body",
        "request_body",
        "(drop (call $buffer (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 0) (i32.const 4)))",
    ),
    ("get time", "request_headers", "(drop (call $time (i32.const 8)))"),
];

fn guest(functions: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "user-agent") (data (i32.const 32) "x-bench") (data (i32.const 48) "value")
            (data (i32.const 64) "request\00path")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 4096))
            {functions})"#
    );
    wat::parse_str(text).expect("the guest is well-formed")
}

fn empty() -> Vec<u8> {
    guest(
        r#"(func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_log") (param i32))
        (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
        (func (export "proxy_on_delete") (param i32))"#,
    )
}

fn calling(name: &str) -> Vec<u8> {
    let (_, callback, call) = HOSTCALLS.iter().find(|(known, ..)| *known == name).expect("a known hostcall");
    guest(&format!(
        r#"(func (export "proxy_on_{callback}") (param i32 i32 i32) (result i32) (local $left i32)
            (local.set $left (i32.const {CALLS}))
            (loop $again {call} (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (i32.const 0))"#
    ))
}

/// The sample plugin as `cargo xtask build` leaves it.
fn header_append() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins/header-append.wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; cargo xtask build header-append", path.display()))
}

/// One module for every extension.
struct Same(Vec<u8>);

impl ModuleSource for Same {
    fn module(&self, _: &str) -> Result<Fetched, SourceError> {
        Ok(Fetched::Bytes(self.0.clone()))
    }
}

const LUA: &str = "function envoy_on_response(handle) handle:headers():add('x-frame-options', 'DENY') end";

/// A chain that a resource for each filter makes, and the module of its plugins.
pub(crate) struct Resolved {
    chain: FilterChain,
    module: Vec<u8>,
}

impl Resolved {
    pub(crate) fn new(filters: Filters) -> Self {
        let mut text = String::new();
        let (wasm, lua, module) = match filters {
            Filters::Plugin(count) => (count, 0, if count == 0 { Vec::new() } else { header_append() }),
            Filters::Empty(count) => (count, 0, empty()),
            Filters::Lua(count) => (0, count, Vec::new()),
            Filters::Hostcall(name) => (1, 0, calling(name)),
        };
        for index in 0..wasm {
            let _ = write!(
                text,
                "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: w{index}, namespace: \
                 apps}}\nspec:\n  url: oci://bench.example/plugin:1\n  pluginConfig: {{x-w{index}: \"1\"}}\n  \
                 vmConfig: {{env: [{{name: INDEX, value: \"{index}\"}}]}}\n"
            );
        }
        for index in 0..lua {
            let _ = write!(
                text,
                "---\napiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: l{index}, \
                 namespace: apps}}\nspec: {{lua: {{inlineCode: \"{LUA}\"}}}}\n"
            );
        }
        let reading = mesh::read(&[Source { file: "bench".to_owned(), text }]);
        assert!(reading.errors.is_empty(), "{:?}", reading.errors);
        let proxy = Proxy {
            name: "web".to_owned(),
            namespace: "apps".to_owned(),
            labels: BTreeMap::new(),
            kind: ProxyKind::Sidecar,
        };
        let listener = mesh::assumed_listener(&reading.resources, &proxy);
        let chain = mesh::resolve(&reading.resources, &proxy, &listener, &MeshOptions::default());
        Self { chain, module }
    }

    /// Compiles, tries each configuration, and starts the filters.
    pub(crate) fn start(&self, engine: &Engine) -> Local {
        let source = Same(self.module.clone());
        let chain = Chain::load(engine, &self.chain, &source, &BTreeMap::new(), Arc::new(Silent), LogLevel::Info);
        let chain = chain.expect("the chain is accepted");
        Local::start(&chain, &Options::listen_on("")).expect("the chain starts")
    }
}

/// What a browser might send, or a POST of 1 KiB.
pub(crate) fn request(body: bool) -> Request<Bytes> {
    let body = if body { Bytes::from_static(&[b'x'; 1024]) } else { Bytes::new() };
    Request::builder()
        .method(if body.is_empty() { "GET" } else { "POST" })
        .uri("/productpage?u=normal")
        .header("host", "bookinfo.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64)")
        .header("accept", "text/html,application/xhtml+xml")
        .header("accept-encoding", "gzip, br")
        .header("cookie", "session=0123456789abcdef")
        .body(body)
        .expect("a request")
}

/// Serves a request and sees that it went well.
pub(crate) fn serve(local: &Local, request: &Request<Bytes>) {
    let response = local.request(request.clone()).expect("an answer");
    assert_eq!(response.status(), 200);
}
