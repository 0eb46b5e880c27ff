//! Guests written as text, chains made of them, and a client that shows exactly what came back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::{Chain, ChainError, Given};
use harness::engine::{Engine, Limits};
use harness::hazard::Hazard;
use harness::log::{ConnectionSummary, RequestSummary, Sink};
use harness::server::{Options, Server};
use mesh::model::{
    Attach, Direction, EnvVar, Extension, ExtensionFilter, FailStrategy, Filter, FilterChain, FilterKind, Layer,
    Listener, Origin, Phase, Proxy, ProxyKind, PullPolicy, WasmFilter,
};
use mesh::policy::Policies;

/// Hostcalls a guest imports: module, name, and a letter for each parameter (`i` is i32, `l` is i64).
pub(crate) const IMPORTS: &[(&str, &str, &str)] = &[
    ("env", "proxy_log", "iii"),
    ("env", "proxy_get_log_level", "i"),
    ("env", "proxy_get_current_time_nanoseconds", "i"),
    ("env", "proxy_set_tick_period_milliseconds", "i"),
    ("env", "proxy_get_status", "iii"),
    ("env", "proxy_get_property", "iiii"),
    ("env", "proxy_set_property", "iiii"),
    ("env", "proxy_get_buffer_bytes", "iiiii"),
    ("env", "proxy_get_buffer_status", "iii"),
    ("env", "proxy_set_buffer_bytes", "iiiii"),
    ("env", "proxy_get_header_map_pairs", "iii"),
    ("env", "proxy_set_header_map_pairs", "iii"),
    ("env", "proxy_get_header_map_value", "iiiii"),
    ("env", "proxy_add_header_map_value", "iiiii"),
    ("env", "proxy_replace_header_map_value", "iiiii"),
    ("env", "proxy_remove_header_map_value", "iii"),
    ("env", "proxy_get_header_map_size", "ii"),
    ("env", "proxy_continue_stream", "i"),
    ("env", "proxy_close_stream", "i"),
    ("env", "proxy_send_local_response", "iiiiiiii"),
    ("env", "proxy_http_call", "iiiiiiiiii"),
    ("env", "proxy_grpc_call", "iiiiiiiiiiii"),
    ("env", "proxy_grpc_stream", "iiiiiiiii"),
    ("env", "proxy_grpc_send", "iiii"),
    ("env", "proxy_grpc_close", "i"),
    ("env", "proxy_grpc_cancel", "i"),
    ("env", "proxy_get_shared_data", "iiiii"),
    ("env", "proxy_set_shared_data", "iiiii"),
    ("env", "proxy_register_shared_queue", "iii"),
    ("env", "proxy_resolve_shared_queue", "iiiii"),
    ("env", "proxy_enqueue_shared_queue", "iii"),
    ("env", "proxy_dequeue_shared_queue", "iii"),
    ("env", "proxy_define_metric", "iiii"),
    ("env", "proxy_increment_metric", "il"),
    ("env", "proxy_record_metric", "il"),
    ("env", "proxy_get_metric", "ii"),
    ("env", "proxy_set_effective_context", "i"),
    ("env", "proxy_done", ""),
    ("env", "proxy_call_foreign_function", "iiiiii"),
    ("env", "envoy_resolve_dns", "iii"),
    ("wasi_snapshot_preview1", "fd_write", "iiii"),
    ("wasi_snapshot_preview1", "fd_pwrite", "iiili"),
    ("wasi_snapshot_preview1", "fd_read", "iiii"),
    ("wasi_snapshot_preview1", "fd_pread", "iiili"),
    ("wasi_snapshot_preview1", "fd_seek", "ilii"),
    ("wasi_snapshot_preview1", "fd_close", "i"),
    ("wasi_snapshot_preview1", "fd_advise", "illi"),
    ("wasi_snapshot_preview1", "fd_allocate", "ill"),
    ("wasi_snapshot_preview1", "fd_datasync", "i"),
    ("wasi_snapshot_preview1", "fd_sync", "i"),
    ("wasi_snapshot_preview1", "fd_tell", "ii"),
    ("wasi_snapshot_preview1", "fd_readdir", "iiili"),
    ("wasi_snapshot_preview1", "fd_renumber", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_set_flags", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_set_rights", "ill"),
    ("wasi_snapshot_preview1", "fd_filestat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_filestat_set_size", "il"),
    ("wasi_snapshot_preview1", "fd_filestat_set_times", "illi"),
    ("wasi_snapshot_preview1", "fd_prestat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_prestat_dir_name", "iii"),
    ("wasi_snapshot_preview1", "environ_get", "ii"),
    ("wasi_snapshot_preview1", "environ_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "args_get", "ii"),
    ("wasi_snapshot_preview1", "args_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "clock_time_get", "ili"),
    ("wasi_snapshot_preview1", "clock_res_get", "ii"),
    ("wasi_snapshot_preview1", "random_get", "ii"),
    ("wasi_snapshot_preview1", "sched_yield", ""),
    ("wasi_snapshot_preview1", "poll_oneoff", "iiii"),
    ("wasi_snapshot_preview1", "path_open", "iiiiillii"),
    ("wasi_snapshot_preview1", "path_filestat_get", "iiiii"),
    ("wasi_snapshot_preview1", "path_filestat_set_times", "iiiilli"),
    ("wasi_snapshot_preview1", "path_create_directory", "iii"),
    ("wasi_snapshot_preview1", "path_remove_directory", "iii"),
    ("wasi_snapshot_preview1", "path_unlink_file", "iii"),
    ("wasi_snapshot_preview1", "path_rename", "iiiiii"),
    ("wasi_snapshot_preview1", "path_link", "iiiiii"),
    ("wasi_snapshot_preview1", "path_symlink", "iiii"),
    ("wasi_snapshot_preview1", "path_readlink", "iiiiii"),
    ("wasi_snapshot_preview1", "sock_accept", "iii"),
    ("wasi_snapshot_preview1", "sock_recv", "iiiiii"),
    ("wasi_snapshot_preview1", "sock_send", "iiiii"),
    ("wasi_snapshot_preview1", "sock_shutdown", "ii"),
];

/// A plugin in WebAssembly text: callbacks are added, strings become data.
///
/// `$value` logs the bytes whose address and size are at 512 and 516, `$number` a number.
#[derive(Default, Clone)]
pub(crate) struct Guest {
    data: Vec<u8>,
    functions: BTreeMap<String, String>,
}

const DATA: usize = 4096;

impl Guest {
    /// Two constants: address and length of `text`.
    pub(crate) fn text(&mut self, text: &str) -> String {
        self.bytes(text.as_bytes())
    }

    /// Two constants: address and length of `bytes`.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> String {
        let at = DATA + self.data.len();
        self.data.extend_from_slice(bytes);
        format!("(i32.const {at}) (i32.const {})", bytes.len())
    }

    /// Adds a callback, or replaces it.
    pub(crate) fn on(mut self, callback: &str, body: impl FnOnce(&mut Self) -> String) -> Self {
        let body = body(&mut self);
        let (params, result) = match callback {
            "tick" | "log" | "delete" => (1, ""),
            "done" | "new_connection" => (1, "(result i32)"),
            "context_create" | "downstream_connection_close" | "upstream_connection_close" | "queue_ready" => (2, ""),
            "http_call_response" => (5, ""),
            "grpc_receive_initial_metadata"
            | "grpc_receive"
            | "grpc_receive_trailing_metadata"
            | "grpc_close"
            | "resolve_dns" => (3, ""),
            "vm_start" | "configure" | "request_trailers" | "response_trailers" => (2, "(result i32)"),
            _ => (3, "(result i32)"),
        };
        let params = "i32 ".repeat(params);
        let owner = if callback == "resolve_dns" { "envoy" } else { "proxy" };
        let function = format!("(func (export \"{owner}_on_{callback}\") (param {params}) {result} {body})");
        self.functions.insert(callback.to_owned(), function);
        self
    }

    /// A log line at level info.
    pub(crate) fn say(&mut self, text: &str) -> String {
        format!("(drop (call $proxy_log (i32.const 2) {}))", self.text(text))
    }

    /// A log line at level info that ends in a number below 1000, with three digits.
    pub(crate) fn say_number(&mut self, text: &str, number: &str) -> String {
        let line = self.text(&format!("{text} 000"));
        let end = DATA + self.data.len();
        let digit = |place: usize, divisor: u32| {
            format!(
                "(i32.store8 (i32.const {}) (i32.add (i32.const 48)
                    (i32.rem_u (i32.div_u {number} (i32.const {divisor})) (i32.const 10))))",
                end - place
            )
        };
        format!("{} {} {} (drop (call $proxy_log (i32.const 2) {line}))", digit(3, 100), digit(2, 10), digit(1, 1))
    }

    /// A guest whose every callback logs `name callback`.
    pub(crate) fn recorder(name: &str) -> Self {
        let mut guest = Self::default();
        for callback in
            ["request_headers", "request_body", "response_headers", "response_body", "log", "done", "delete"]
        {
            let result = match callback {
                "log" | "delete" => "",
                "done" => "(i32.const 1)",
                _ => "(i32.const 0)",
            };
            guest = guest.on(callback, |g| format!("{} {result}", g.say(&format!("{name} {callback}"))));
        }
        guest
    }

    pub(crate) fn build(self) -> Vec<u8> {
        let mut wat = String::from("(module\n");
        for (module, name, params) in IMPORTS {
            let params: String = params.chars().map(|c| if c == 'l' { "i64 " } else { "i32 " }).collect();
            let _ = writeln!(wat, "(import \"{module}\" \"{name}\" (func ${name} (param {params}) (result i32)))");
        }
        let data: String = self.data.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "\\{byte:02x}");
            out
        });
        let _ = write!(
            wat,
            r#"(memory (export "memory") 4)
            (global $heap (mut i32) (i32.const 65536))
            (global $count (mut i32) (i32.const 0))
            (func (export "proxy_abi_version_0_2_1"))
            (func $malloc (export "malloc") (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $heap))
                (global.set $heap (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $heap) (i32.const 250000)) (then (global.set $heap (i32.const 65536))))
                (local.get $at))
            (func $value
                (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 512)) (i32.load (i32.const 516)))))
            (func $number (param $n i32)
                (local $at i32)
                (local.set $at (i32.const 3016))
                (loop $more
                    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
                    (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
                    (br_if $more (local.get $n)))
                (drop (call $proxy_log (i32.const 2) (local.get $at) (i32.sub (i32.const 3016) (local.get $at)))))
            (data (i32.const {DATA}) "{data}")
            {}
            )"#,
            self.functions.into_values().collect::<Vec<_>>().join("\n")
        );
        wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}"))
    }
}

/// Address and length of a serialized map. Its sizes are below 128, so that it is text.
pub(crate) fn pairs(guest: &mut Guest, pairs: &[(&str, &str)]) -> String {
    let number = |n: usize| char::from(u8::try_from(n).unwrap());
    let mut text = format!("{}\0\0\0", number(pairs.len()));
    for (k, v) in pairs {
        let _ = write!(text, "{}\0\0\0{}\0\0\0", number(k.len()), number(v.len()));
    }
    for (k, v) in pairs {
        let _ = write!(text, "{k}\0{v}\0");
    }
    guest.text(&text)
}

/// `proxy_send_local_response` without headers.
pub(crate) fn local_response(guest: &mut Guest, status: u32, details: &str, body: &str) -> String {
    let (details, body) = (guest.text(details), guest.text(body));
    format!(
        "(drop (call $proxy_send_local_response (i32.const {status}) {details} {body}
            (i32.const 0) (i32.const 0) (i32.const -1)))"
    )
}

/// `proxy_add_header_map_value`.
pub(crate) fn add_header(guest: &mut Guest, map: u32, name: &str, value: &str) -> String {
    let (name, value) = (guest.text(name), guest.text(value));
    format!("(drop (call $proxy_add_header_map_value (i32.const {map}) {name} {value}))")
}

/// `proxy_set_buffer_bytes` over everything.
pub(crate) fn replace_body(guest: &mut Guest, buffer: u32, body: &str) -> String {
    format!(
        "(drop (call $proxy_set_buffer_bytes (i32.const {buffer}) (i32.const 0) (i32.const 0x7fffffff) {}))",
        guest.text(body)
    )
}

pub(crate) fn wasm(name: &str, adjust: impl FnOnce(&mut WasmFilter)) -> Filter {
    let mut wasm = WasmFilter {
        url: "oci://example.com/plugin".to_owned(),
        sha256: None,
        pull_policy: PullPolicy::Unspecified,
        pull_secret: None,
        plugin_config: None,
        plugin_name: String::new(),
        fail_strategy: FailStrategy::FailClose,
        env: Vec::new(),
        layer: Layer::Http,
    };
    adjust(&mut wasm);
    extension(name, ExtensionFilter::Wasm(Box::new(wasm)))
}

pub(crate) fn extension(name: &str, filter: ExtensionFilter) -> Filter {
    let extension = Extension {
        origin: Origin { kind: "WasmPlugin".to_owned(), file: "test".to_owned(), document: 0, line: 1 },
        name: name.to_owned(),
        namespace: "default".to_owned(),
        created: None,
        resource_version: None,
        phase: Phase::Unspecified,
        priority: None,
        attach: Attach::Namespace,
        traffic: Vec::new(),
        filter,
        dialect: mesh::model::Dialect::Istio,
    };
    Filter { kind: FilterKind::Extension(Box::new(extension)), reason: String::new() }
}

pub(crate) fn built_in(name: &str) -> Filter {
    Filter { kind: FilterKind::BuiltIn(name.to_owned()), reason: String::new() }
}

/// A plugin of type NETWORK.
pub(crate) fn network(name: &str) -> Filter {
    wasm(name, |wasm| wasm.layer = Layer::Network)
}

pub(crate) fn env(name: &str, value: mesh::model::EnvValue) -> EnvVar {
    EnvVar { name: name.to_owned(), value }
}

pub(crate) fn chain(mut filters: Vec<Filter>) -> FilterChain {
    filters.push(built_in("envoy.filters.http.router"));
    FilterChain {
        proxy: Proxy {
            name: "waypoint".to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            kind: ProxyKind::Waypoint,
        },
        listener: Listener { direction: None, port: None, layer: Layer::Http, protocol: None },
        filters,
        left_out: Vec::new(),
        policies: Policies::default(),
    }
}

/// The inbound HTTP chain of the sidecar `default/web` on port 8080 under these manifests.
pub(crate) fn resolved(manifests: &str) -> FilterChain {
    let reading = mesh::read(&[mesh::Source { file: "test".to_owned(), text: manifests.to_owned() }]);
    assert_eq!(reading.errors, [], "{manifests}");
    let proxy = Proxy {
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        kind: ProxyKind::Sidecar,
    };
    let listener =
        Listener { direction: Some(Direction::Inbound), port: Some(8080), layer: Layer::Http, protocol: None };
    mesh::resolve(&reading.resources, &proxy, &listener, &mesh::MeshOptions::default())
}

#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>, Condvar, Mutex<Vec<String>>);

impl Sink for Recorder {
    fn log(&self, level: LogLevel, line: &str) {
        self.0.lock().unwrap().push(format!("{}: {line}", level.as_str()));
        self.1.notify_all();
    }

    fn hazard(&self, hazard: &Hazard<'_>) {
        let Hazard { kind, filter, callback, hostcall, explanation } = hazard;
        let hostcall = hostcall.unwrap_or("-");
        self.2.lock().unwrap().push(format!("{} {filter} {callback} {hostcall}: {explanation}", kind.name()));
    }

    fn connection(&self, connection: &ConnectionSummary<'_>) {
        let ConnectionSummary { received, sent, closed_by, by_client, .. } = connection;
        let line = format!("connection {received} in {sent} out by {closed_by:?} by client {by_client}");
        self.0.lock().unwrap().push(line);
        self.1.notify_all();
    }

    fn request(&self, request: &RequestSummary<'_>) {
        let line = format!(
            "{} {} {:?} by {:?} {}",
            request.method, request.path, request.status, request.answered_by, request.details
        );
        self.0.lock().unwrap().push(line);
        self.1.notify_all();
    }
}

impl Recorder {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Hazards so far: kind, filter, callback, hostcall, explanation.
    pub(crate) fn hazards(&self) -> Vec<String> {
        self.2.lock().unwrap().clone()
    }

    /// Blocks until a line that ends so has been logged.
    pub(crate) fn wait_for(&self, end: &str) {
        let lines = self.0.lock().unwrap();
        let missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.ends_with(end));
        let (lines, waited) = self.1.wait_timeout_while(lines, Duration::from_secs(20), missing).unwrap();
        assert!(!waited.timed_out(), "no {end:?} in {lines:?}");
    }

    /// Plugins' own lines since the last time, without the prefix.
    pub(crate) fn messages(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        lines.iter().filter_map(|line| Some(line.split_once("wasm log")?.1.split_once(": ")?.1.to_owned())).collect()
    }
}

pub(crate) struct Harness {
    pub(crate) server: Server,
    pub(crate) log: Arc<Recorder>,
}

pub(crate) fn limits() -> Limits {
    Limits { callback: Duration::from_millis(500), ..Limits::default() }
}

pub(crate) fn load(filters: Vec<Filter>, modules: &[(&str, Vec<u8>)], log: Arc<Recorder>) -> Result<Chain, ChainError> {
    load_chain(&chain(filters), modules, log)
}

/// The network filters in front of HTTP, or of a TCP upstream.
pub(crate) fn load_network(
    filters: Vec<Filter>,
    http: Option<Vec<Filter>>,
    modules: &[(&str, Vec<u8>)],
    log: Arc<Recorder>,
) -> Result<Chain, ChainError> {
    let mut network = chain(filters);
    network.listener.layer = Layer::Network;
    network.filters.pop();
    let Some(http) = http else { return load_chain(&network, modules, log) };
    let chain = load_chain(&chain(http), modules, log)?;
    chain.in_front(&Engine::new(limits()).unwrap(), &network, &sources(modules), &BTreeMap::new())
}

fn sources(modules: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    modules.iter().map(|(name, bytes)| (format!("WasmPlugin default/{name}"), bytes.clone())).collect()
}

pub(crate) fn load_chain(
    chain: &FilterChain,
    modules: &[(&str, Vec<u8>)],
    log: Arc<Recorder>,
) -> Result<Chain, ChainError> {
    load_chain_with(chain, modules, log, Given::default())
}

pub(crate) fn load_chain_with(
    chain: &FilterChain,
    modules: &[(&str, Vec<u8>)],
    log: Arc<Recorder>,
    given: Given,
) -> Result<Chain, ChainError> {
    let modules = sources(modules);
    let engine = Engine::new(limits()).unwrap();
    let host_env = BTreeMap::from([("ON_HOST".to_owned(), "from the host".to_owned())]);
    Chain::load_with(&engine, chain, &modules, &host_env, log, LogLevel::Info, given)
}

impl Harness {
    pub(crate) fn new(filters: Vec<Filter>, modules: &[(&str, Vec<u8>)]) -> Self {
        Self::with(filters, modules, |_| {})
    }

    pub(crate) fn with(filters: Vec<Filter>, modules: &[(&str, Vec<u8>)], adjust: impl FnOnce(&mut Options)) -> Self {
        let log = Arc::new(Recorder::default());
        let chain = load(filters, modules, log.clone()).unwrap_or_else(|error| panic!("{error:?}"));
        Self::serve(chain, log, adjust)
    }

    /// Network filters in front of an HTTP chain, or, without one, of a TCP upstream.
    pub(crate) fn network(
        filters: Vec<Filter>,
        http: Option<Vec<Filter>>,
        modules: &[(&str, Vec<u8>)],
        adjust: impl FnOnce(&mut Options),
    ) -> Self {
        let log = Arc::new(Recorder::default());
        let chain = load_network(filters, http, modules, log.clone()).unwrap_or_else(|error| panic!("{error:?}"));
        Self::serve(chain, log, adjust)
    }

    /// What these manifests make of the sidecar `default/web`.
    pub(crate) fn of_manifests(manifests: &str, adjust: impl FnOnce(&mut Options)) -> Self {
        let log = Arc::new(Recorder::default());
        let chain = load_chain(&resolved(manifests), &[], log.clone()).unwrap_or_else(|error| panic!("{error:?}"));
        Self::serve(chain, log, adjust)
    }

    pub(crate) fn serve(chain: Chain, log: Arc<Recorder>, adjust: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options { workers: Some(1), ..Options::listen_on("127.0.0.1:0") };
        adjust(&mut options);
        let server = Server::start(chain, options).unwrap();
        Self { server, log }
    }

    /// One filter, default settings.
    pub(crate) fn of(guest: Guest) -> Self {
        Self::new(vec![wasm("a", |_| {})], &[("a", guest.build())])
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        send(self.server.address(), method, path, headers, body).expect("a response")
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The request that reached the echo.
    pub(crate) fn echo(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// All values of a header that reached the echo.
    pub(crate) fn echoed(&self, name: &str) -> Vec<String> {
        let echo = self.echo();
        let pairs = echo["headers"].as_array().unwrap();
        pairs.iter().filter(|p| p[0] == name).map(|p| p[1].as_str().unwrap().to_owned()).collect()
    }
}

/// Sends one request on a connection of its own; `None` when the connection ends without a response.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Reply> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(request, "content-length: {}\r\n", body.len());
    }
    let _ = write!(request, "\r\n{body}");
    exchange(address, request.as_bytes())
}

/// Sends bytes as they are, on a connection that the server closes.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut start = lines.next()?.splitn(3, ' ').skip(1);
    let status = start.next()?.parse().ok()?;
    let reason = start.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
    let body = &bytes[end + 4..];
    let body = if chunked { dechunk(body) } else { body.to_vec() };
    Some(Reply { status, reason, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 || bytes.len() < size + 2 {
            break;
        }
        out.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
    out
}
