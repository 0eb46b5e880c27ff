//! Another chain in the place of the one that is served: who gets which, what goes on, what ends when.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use harness::chain::ChainError;
use harness::engine::Engine;
use harness::server::{Options, ServeError};
use mesh::model::{ExtensionFilter, Filter, FilterChain, Layer};

use crate::support::{
    Guest, Harness, Recorder, Reply, add_header, chain, extension, limits, load_chain, network, pairs, parse, send,
    wasm,
};

/// Serves one chain after another.
struct Reloading {
    harness: Harness,
    engine: Engine,
}

fn modules(of: &[(&str, &Guest)]) -> Vec<(String, Vec<u8>)> {
    of.iter().map(|(name, guest)| ((*name).to_owned(), (*guest).clone().build())).collect()
}

impl Reloading {
    fn new(filters: Vec<Filter>, of: &[(&str, &Guest)], adjust: impl FnOnce(&mut Options)) -> Self {
        Self::of(&chain(filters), of, adjust)
    }

    fn of(chain: &FilterChain, of: &[(&str, &Guest)], adjust: impl FnOnce(&mut Options)) -> Self {
        let modules = modules(of);
        let borrowed: Vec<_> = modules.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let log = Arc::new(Recorder::default());
        let loaded = load_chain(chain, &borrowed, log.clone()).unwrap();
        Self { harness: Harness::serve(loaded, log, adjust), engine: Engine::new(limits()).unwrap() }
    }

    fn swap(&self, filters: Vec<Filter>, of: &[(&str, &Guest)]) -> Result<(), Refused> {
        self.swap_with(&chain(filters), of, BTreeMap::new())
    }

    fn swap_with(
        &self,
        chain: &FilterChain,
        of: &[(&str, &Guest)],
        clusters: BTreeMap<String, String>,
    ) -> Result<(), Refused> {
        let modules: BTreeMap<_, _> =
            modules(of).into_iter().map(|(name, bytes)| (format!("WasmPlugin default/{name}"), bytes)).collect();
        let reloader = self.harness.server.reloader();
        let served = reloader.chain();
        let next =
            served.succeed(&self.engine, (chain, None), &modules, &BTreeMap::new(), None).map_err(Refused::Chain)?;
        reloader.swap(next, clusters).map_err(Refused::Server)
    }

    fn get(&self) -> Reply {
        self.harness.get("/")
    }
}

#[derive(Debug)]
enum Refused {
    Chain(ChainError),
    Server(ServeError),
}

/// Says which one it is in a response header, and tells its life.
fn version(name: &str) -> Guest {
    Guest::default()
        .on("configure", |g| format!("{} (i32.const 1)", g.say(&format!("{name} configure"))))
        .on("request_headers", |_| "(i32.const 0)".to_owned())
        .on("request_body", |g| format!("{} (i32.const 0)", g.say(&format!("{name} body"))))
        .on("response_headers", |g| format!("{} (i32.const 0)", add_header(g, 2, "x-version", name)))
        .on("done", |g| format!("{} (i32.const 1)", by_context(g, &format!("{name} done"))))
        .on("delete", |g| by_context(g, &format!("{name} delete")))
}

/// Says of which context it is told: the first one of a VM is a plugin's.
fn by_context(g: &mut Guest, what: &str) -> String {
    let (root, stream) = (g.say(&format!("root {what}")), g.say(&format!("stream {what}")));
    format!("(if (i32.eq (local.get 0) (i32.const 1)) (then {root}) (else {stream}))")
}

/// Answers the how manyth request of its VM it was.
fn counting() -> Guest {
    Guest::default()
        .on("request_headers", |_| {
            "(global.set $count (i32.add (global.get $count) (i32.const 1))) (call $number (global.get $count)) (i32.const 0)".to_owned()
        })
        .on("done", |g| format!("{} (i32.const 1)", by_context(g, "counting done")))
}

fn a() -> Vec<Filter> {
    vec![wasm("a", |_| {})]
}

#[test]
fn a_request_in_flight_ends_in_its_chain_and_the_next_one_has_the_new() {
    let (one, two) = (version("one"), version("two"));
    let reloading = Reloading::new(a(), &[("a", &one)], |_| {});
    let mut client = TcpStream::connect(reloading.harness.server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nha").unwrap();
    reloading.harness.log.wait_for("one body");
    reloading.swap(a(), &[("a", &two)]).unwrap();
    assert_eq!(reloading.get().header("x-version"), Some("two"));
    assert!(
        !reloading.harness.log.lines().iter().any(|line| line.ends_with("root one delete")),
        "its stream is not over"
    );
    client.write_all(b"lf").unwrap();
    let mut reply = BufReader::new(client.try_clone().unwrap());
    assert_eq!(head(&mut reply).header("x-version"), Some("one"));
    // The plugin's end comes when its last stream has ended, and once.
    reloading.harness.log.wait_for("root one delete");
    // The connection is the same, the chain is not.
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    reply.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("x-version: two"), "{rest}");
    let said = reloading.harness.log.messages();
    let ends = said.iter().filter(|line| line.contains(" one d")).collect::<Vec<_>>();
    assert_eq!(ends, ["stream one done", "stream one delete", "root one done", "root one delete"], "{said:?}");
}

/// The head of a response on a connection that goes on.
fn head(reader: &mut BufReader<TcpStream>) -> Reply {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut text).unwrap(), 0, "{text}");
    }
    parse(text.as_bytes()).unwrap()
}

#[test]
fn a_plugin_that_stays_as_it_is_keeps_its_memory() {
    let (counting, one, two) = (counting(), version("one"), version("two"));
    let filters = || vec![wasm("a", |_| {}), wasm("b", |_| {})];
    let reloading = Reloading::new(filters(), &[("a", &counting), ("b", &one)], |_| {});
    reloading.get();
    reloading.swap(filters(), &[("a", &counting), ("b", &two)]).unwrap();
    // It may also stand elsewhere.
    reloading.get();
    let turned = vec![wasm("b", |_| {}), wasm("a", |_| {})];
    reloading.swap(turned, &[("a", &counting), ("b", &two)]).unwrap();
    reloading.get();
    let numbers = |said: Vec<String>| said.into_iter().filter(|line| line.parse::<u32>().is_ok()).collect::<Vec<_>>();
    assert_eq!(numbers(reloading.harness.log.messages()), ["1", "2", "3"]);
    // With other settings it is another plugin, in the same VM, as the code is the same.
    let configured = vec![wasm("a", |wasm| wasm.plugin_config = Some("{}".to_owned()))];
    reloading.swap(configured, &[("a", &counting)]).unwrap();
    reloading.get();
    reloading.harness.log.wait_for("root two delete");
    let said = reloading.harness.log.messages();
    assert_eq!(numbers(said.clone()), ["4"]);
    assert!(said.contains(&"root counting done".to_owned()), "{said:?}");
    // In another environment it is another VM.
    let moved = vec![wasm("a", |wasm| {
        wasm.env = vec![crate::support::env("E", mesh::model::EnvValue::Inline("e".to_owned()))];
    })];
    reloading.swap(moved, &[("a", &counting)]).unwrap();
    reloading.get();
    assert_eq!(numbers(reloading.harness.log.messages()), ["1"]);
}

#[test]
fn a_script_that_stays_as_it_is_keeps_its_globals() {
    let lua = |code: &str| extension("l", ExtensionFilter::Lua { inline_code: code.to_owned() });
    let code = "n = 0 function envoy_on_response(h) n = n + 1 h:headers():add('x-n', n) end";
    let one = version("one");
    let reloading = Reloading::new(vec![lua(code)], &[], |_| {});
    assert_eq!(reloading.get().header("x-n"), Some("1"));
    reloading.swap(vec![lua(code), wasm("a", |_| {})], &[("a", &one)]).unwrap();
    let reply = reloading.get();
    assert_eq!((reply.header("x-n"), reply.header("x-version")), (Some("2"), Some("one")));
    reloading.swap(vec![lua(&format!("{code} "))], &[]).unwrap();
    assert_eq!(reloading.get().header("x-n"), Some("1"));
    let refused = reloading.swap(vec![lua("function (")], &[]).unwrap_err();
    assert!(matches!(refused, Refused::Chain(ChainError::Script { .. })), "{refused:?}");
    assert_eq!(reloading.get().header("x-n"), Some("2"));
}

#[test]
fn what_does_not_start_changes_nothing() {
    let (one, counting) = (version("one"), counting());
    let filters = || vec![wasm("a", |_| {}), wasm("b", |_| {})];
    let reloading = Reloading::new(filters(), &[("a", &counting), ("b", &one)], |options| options.workers = Some(2));
    reloading.get();
    let refusing = Guest::default().on("configure", |_| "(i32.const 0)".to_owned());
    let refused = reloading.swap(filters(), &[("a", &counting), ("b", &refusing)]).unwrap_err();
    assert!(matches!(refused, Refused::Chain(ChainError::Start { .. })), "{refused:?}");
    // One that is fine when it is tried, and not on a worker.
    let late = Guest::default().on("configure", |g| {
        let key = g.text("tried");
        format!(
            "(if (i32.eqz (call $proxy_get_shared_data {key} (i32.const 512) (i32.const 516) (i32.const 520)))
                (then (return (i32.const 0))))
             (drop (call $proxy_set_shared_data {key} {key} (i32.const 0))) (i32.const 1)"
        )
    });
    let before = vec![wasm("c", |_| {}), wasm("b", |_| {})];
    let refused = reloading.swap(before, &[("c", &version("never")), ("b", &late)]).unwrap_err();
    assert!(
        matches!(&refused, Refused::Server(ServeError::Plugin { plugin, .. }) if plugin == "default.b"),
        "{refused:?}"
    );
    // What had started for it is done.
    reloading.harness.log.wait_for("root never delete");
    assert_eq!(reloading.get().header("x-version"), Some("one"));
    let said = reloading.harness.log.messages();
    assert!(
        !said.contains(&"root counting done".to_owned()) && !said.contains(&"root one delete".to_owned()),
        "{said:?}"
    );
}

#[test]
fn a_plugin_may_take_its_time_to_be_done() {
    let slow = Guest::default()
        .on("configure", |_| "(drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1)".to_owned())
        .on("done", |g| format!("(global.set $count (i32.const 1)) {} (i32.const 0)", g.say("not yet")))
        .on("tick", |g| format!("(if (global.get $count) (then {} (drop (call $proxy_done))))", g.say("now")))
        .on("delete", |g| g.say("deleted"));
    let reloading = Reloading::new(a(), &[("a", &slow)], |_| {});
    reloading.swap(a(), &[("a", &version("two"))]).unwrap();
    reloading.harness.log.wait_for("deleted");
    let said = reloading.harness.log.messages();
    let said: Vec<_> = said.iter().filter(|line| !line.contains("two")).collect();
    assert_eq!(said, ["not yet", "now", "deleted"]);
}

/// Calls `auth` and lets the request go on.
fn calling() -> Guest {
    Guest::default()
        .on("request_headers", |g| {
            let headers = pairs(g, &[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
            format!(
                "(global.set $count (local.get 0))
                 (if (call $proxy_http_call {} {headers} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 5000) (i32.const 520)) (then {} (return (i32.const 0))))
                 (i32.const 1)",
                g.text("auth"),
                g.say("refused")
            )
        })
        .on("http_call_response", |g| {
            let name = g.text("x-version");
            format!(
                "(drop (call $proxy_get_header_map_value (i32.const 6) {name} (i32.const 512) (i32.const 516))) (call $value)
                 (drop (call $proxy_set_effective_context (global.get $count)))
                 (drop (call $proxy_continue_stream (i32.const 0)))"
            )
        })
}

#[test]
fn clusters_change_under_a_plugin_that_stays() {
    let backend = |name: &'static str| Reloading::new(a(), &[("a", &version(name))], |_| {});
    let (one, two) = (backend("one"), backend("two"));
    let url = |backend: &Reloading| format!("http://{}", backend.harness.server.address());
    let calling = calling();
    let reloading = Reloading::new(a(), &[("a", &calling)], |_| {});
    for clusters in [vec![("auth", url(&one))], vec![("auth", url(&two))], vec![]] {
        reloading.get();
        let clusters = clusters.into_iter().map(|(name, url)| (name.to_owned(), url)).collect();
        reloading.swap_with(&chain(a()), &[("a", &calling)], clusters).unwrap();
    }
    reloading.get();
    assert_eq!(reloading.harness.log.messages(), ["refused", "one", "two", "refused"]);
    let bad = BTreeMap::from([("auth".to_owned(), "ftp://x".to_owned())]);
    let refused = reloading.swap_with(&chain(a()), &[("a", &calling)], bad).unwrap_err();
    assert!(matches!(refused, Refused::Server(ServeError::Upstream { .. })), "{refused:?}");
}

#[test]
fn shared_data_and_metrics_outlive_a_chain() {
    let writing = Guest::default().on("request_headers", |g| {
        let key = g.text("key");
        format!("(drop (call $proxy_set_shared_data {key} {key} (i32.const 0))) (i32.const 0)")
    });
    let reading = Guest::default().on("request_headers", |g| {
        let key = g.text("key");
        format!(
            "(drop (call $proxy_get_shared_data {key} (i32.const 512) (i32.const 516) (i32.const 520))) (call $value)
             (i32.const 0)"
        )
    });
    let reloading = Reloading::new(a(), &[("a", &writing)], |_| {});
    reloading.get();
    reloading.swap(a(), &[("a", &reading)]).unwrap();
    reloading.get();
    assert_eq!(reloading.harness.log.messages(), ["key"]);
}

#[test]
fn another_proxy_starts_everything_anew() {
    let counting = counting();
    let reloading = Reloading::new(a(), &[("a", &counting)], |_| {});
    reloading.get();
    let mut other = chain(a());
    other.proxy.labels.insert("app".to_owned(), "other".to_owned());
    reloading.swap_with(&other, &[("a", &counting)], BTreeMap::new()).unwrap();
    reloading.get();
    reloading.harness.log.wait_for("root counting done");
    let said = reloading.harness.log.messages();
    assert_eq!(said.iter().filter(|line| *line == "1").count(), 2, "{said:?}");
    // And what runs there goes on in the next chain.
    reloading.swap_with(&other, &[("a", &counting)], BTreeMap::new()).unwrap();
    reloading.get();
    assert!(reloading.harness.log.messages().contains(&"2".to_owned()));
}

#[test]
fn a_connection_keeps_the_network_filters_that_it_began_with() {
    let plugin = |name: &str| {
        Guest::default()
            .on("new_connection", |g| format!("{} (i32.const 0)", g.say(&format!("{name} new"))))
            .on("downstream_data", |g| format!("{} (i32.const 0)", g.say(&format!("{name} data"))))
            .on("done", |g| format!("{} (i32.const 1)", g.say(&format!("{name} done"))))
    };
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let accepted = std::thread::spawn(move || (0..2).map(|_| upstream.accept().unwrap().0).collect::<Vec<_>>());
    let mut tcp = chain(vec![network("a")]);
    tcp.listener.layer = Layer::Network;
    let reloading = Reloading::of(&tcp, &[("a", &plugin("one"))], |options| {
        options.upstream = Some(format!("tcp://{address}"));
    });
    let log = &reloading.harness.log;
    let mut first = TcpStream::connect(reloading.harness.server.address()).unwrap();
    log.wait_for("one new");
    reloading.swap_with(&tcp, &[("a", &plugin("two"))], BTreeMap::new()).unwrap();
    let second = TcpStream::connect(reloading.harness.server.address()).unwrap();
    log.wait_for("two new");
    first.write_all(b"x").unwrap();
    log.wait_for("one data");
    assert!(!log.lines().iter().any(|line| line.ends_with("one done")));
    let mut upstreams = accepted.join().unwrap();
    drop((first, upstreams.remove(0)));
    log.wait_for("one done");
    drop((second, upstreams));
    let http = reloading.swap_with(&chain(a()), &[("a", &version("three"))], BTreeMap::new()).unwrap_err();
    assert!(matches!(http, Refused::Server(ServeError::Layer)), "{http:?}");
}

#[test]
fn hundreds_of_requests_meet_a_dozen_chains_and_none_is_lost() {
    let guests = [version("0"), version("1"), version("2")];
    let reloading = Reloading::new(a(), &[("a", &guests[0])], |options| options.workers = Some(2));
    let address = reloading.harness.server.address();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let one = |_| {
                    send(address, "POST", "/", &[], "body")
                        .map(|reply| (reply.status, reply.header("x-version").is_some()))
                };
                (0..60).map(one).collect::<Vec<_>>()
            })
        })
        .collect();
    for round in 1..=12 {
        reloading.swap(a(), &[("a", &guests[round % 3])]).unwrap();
    }
    for client in clients {
        assert_eq!(client.join().unwrap(), [Some((200, true)); 60]);
    }
}

#[test]
fn a_server_that_has_ended_takes_no_chain() {
    let one = version("one");
    let reloading = Reloading::new(a(), &[("a", &one)], |_| {});
    let Reloading { harness, engine } = reloading;
    let reloader = harness.server.reloader();
    let modules = BTreeMap::from([("WasmPlugin default/a".to_owned(), one.build())]);
    let next = reloader.chain().succeed(&engine, (&chain(a()), None), &modules, &BTreeMap::new(), None).unwrap();
    harness.server.shut_down();
    assert!(matches!(reloader.swap(next, BTreeMap::new()), Err(ServeError::Ended)));
}
