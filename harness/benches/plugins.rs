//! What the sample plugins cost: `cargo xtask build`, then `cargo bench -p harness --bench plugins`.
//!
//! Prints a table: size, the median time of 10 000 requests in this process, and instructions (in valgrind), each beside
//! a guest that does nothing; and how long the openid plugin takes from its configuration to its first answer, the
//! provider's being there at once.

#![expect(clippy::print_stdout, clippy::expect_used, clippy::panic, reason = "a benchmark prints, or fails")]

#[path = "common/callgrind.rs"]
mod callgrind;
#[path = "plugins/provider.rs"]
mod provider;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callgrind::{INSIDE, counted};
use harness::engine::{Engine, Limits};
use harness::log::Silent;
use harness::module::Module;
use harness::offline::{Answer, Backends, GrpcReply, GrpcRequest, Message, Outcome, Proxy, Reply, Setup, World};
use provider::{NOW, Provider};

/// As the harness's own binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: u32 = 10_000;
const STARTS: usize = 21;

const NOTHING: &str = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;

/// A measured case: its name, the plugin, the status that shows that it went as meant.
const CASES: [(&str, &str, u16); 7] = [
    ("a guest that does nothing", "", 200),
    ("header-append: two headers", "header-append", 200),
    ("basic-auth: the right password", "basic-auth", 200),
    ("check-header: an HS256 token", "check-header", 200),
    ("acl-check: a call to the policy server", "acl-check", 200),
    ("openid: to the provider", "openid", 302),
    ("openid: a session", "openid", 200),
];

struct Answers(Provider);

impl Backends for Answers {
    fn http(&self, _: &str, request: &Message) -> Option<Reply> {
        Some(Reply { delay: Duration::ZERO, answer: Answer::Whole(self.0.answer(request)) })
    }

    fn has_grpc(&self, _: &str) -> bool {
        false
    }

    fn grpc(&self, _: &str, _: &GrpcRequest) -> GrpcReply {
        GrpcReply::default()
    }
}

fn path(plugin: &str) -> PathBuf {
    PathBuf::from(format!("{}/../target/plugins/{plugin}.wasm", env!("CARGO_MANIFEST_DIR")))
}

fn module(engine: &Engine, plugin: &str) -> Arc<Module> {
    let bytes = if plugin.is_empty() {
        wat::parse_str(NOTHING).expect("the guest is well-formed")
    } else {
        let path = path(plugin);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; cargo xtask build", path.display()))
    };
    Arc::new(Module::compile(engine, &bytes).expect("the module is accepted"))
}

fn configuration(plugin: &str) -> Vec<u8> {
    match plugin {
        "" => Vec::new(),
        "openid" => Provider::CONFIGURATION.as_bytes().to_vec(),
        _ => {
            let path = format!("{}/../plugins/{plugin}/tests/config.example.json", env!("CARGO_MANIFEST_DIR"));
            std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        }
    }
}

struct Bench {
    proxy: Proxy,
    provider: Provider,
    upstream: Message,
}

impl Bench {
    fn start(module: Arc<Module>, plugin: &str) -> Self {
        let provider = Provider::default();
        let env = Provider::ENV.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let setup = Setup { module, configuration: configuration(plugin), network: false, env };
        let world = Arc::new(World::new(Duration::from_secs(NOW), 1, []));
        let backends = Rc::new(Answers(provider.clone()));
        let mut proxy = Proxy::new(setup, &world, Arc::new(Silent), backends).expect("the configuration is accepted");
        proxy.start().expect("the plugin starts");
        let upstream = provider::message(&[(":status", "200"), ("content-type", "text/html")], "page");
        Self { proxy, provider, upstream }
    }

    async fn send(&mut self, request: &Message) -> Outcome {
        self.proxy.send(request, &self.upstream, None).await
    }

    /// The request that a case is about.
    async fn request(&mut self, name: &str, plugin: &str) -> Message {
        let mut request = provider::get("/productpage?u=normal");
        match plugin {
            "basic-auth" => provider::add(&mut request, "authorization", "Basic b2s6dGVzdA=="),
            "check-header" => provider::add(&mut request, "authz_complete", &provider::permission()),
            "acl-check" => provider::add(&mut request, "authorization", &format!("Bearer {}", provider::permission())),
            "openid" if name.contains("session") => {
                let login = self.send(&request).await;
                let callback = self.provider.signed_in(&login);
                let done = self.send(&callback).await;
                provider::add(&mut request, "cookie", &provider::cookies(&done));
            }
            _ => {}
        }
        request
    }
}

fn served(outcome: &Outcome, expected: u16) {
    let status = outcome.response.as_ref().and_then(|response| provider::value(response, ":status"));
    assert_eq!(status, Some(expected.to_string()), "{}", outcome.details);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn run<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

async fn requests(name: &str, plugin: &str, expected: u16, count: u32) -> Vec<Duration> {
    let engine = Engine::new(Limits::default()).expect("an engine");
    let mut bench = Bench::start(module(&engine, plugin), plugin);
    let request = bench.request(name, plugin).await;
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let outcome = bench.send(&request).await;
        times.push(started.elapsed());
        served(&outcome, expected);
    }
    times
}

/// From the plugin's configuration, tried once and then taken, to the answer of the first request.
async fn first_answer(module: &Arc<Module>) -> Duration {
    let started = Instant::now();
    let mut bench = Bench::start(module.clone(), "openid");
    let outcome = bench.send(&provider::get("/")).await;
    let took = started.elapsed();
    served(&outcome, 302);
    took
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [inside, name, count] = given.as_slice()
        && inside == INSIDE
    {
        let (name, plugin, expected) = CASES.iter().find(|(known, ..)| known == name).expect("a known case");
        run(requests(name, plugin, *expected, count.parse().expect("a number")));
        return;
    }
    println!("| | size | time, median of {REQUESTS} | instructions |\n|---|---|---|---|");
    for (name, plugin, expected) in CASES {
        let size = std::fs::metadata(path(plugin)).map_or_else(|_| "-".to_owned(), |file| file.len().to_string());
        let time = median(run(requests(name, plugin, expected, REQUESTS)));
        let (few, many) = (20, 220);
        let instructions = (counted(name, many, "/dev/null") - counted(name, few, "/dev/null")) / u64::from(many - few);
        println!("| {name} | {size} | {:.1} µs | {instructions} |", time.as_secs_f64() * 1e6);
    }
    let engine = Engine::new(Limits::default()).expect("an engine");
    let module = module(&engine, "openid");
    let times = (0..STARTS).map(|_| run(first_answer(&module))).collect();
    println!("\nopenid, configured to first answer: {:.2} ms, median of {STARTS}", median(times).as_secs_f64() * 1e3);
}
