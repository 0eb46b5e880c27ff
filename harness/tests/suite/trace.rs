//! Traces: what is recorded of a request or connection, how it is shown, and what is never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::abi::LogLevel;
use harness::chain::Chain;
use harness::engine::Engine;
use harness::log::Sink;
use harness::server::{Options, Server};
use harness::trace::{Settings, Trace, json, text};
use mesh::model::{EnvValue, ExtensionFilter, Filter, FilterChain, Layer};

use crate::support::{
    self, Guest, add_header, env, extension, limits, local_response, network, pairs, replace_body, resolved, send, wasm,
};
use crate::tokens::{KEY, now, token};

#[derive(Default)]
struct Traces {
    all: Mutex<Vec<Trace>>,
    more: Condvar,
    lines: Mutex<Vec<String>>,
    takes_lines: bool,
}

impl Sink for Traces {
    fn log(&self, _: LogLevel, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn trace(&self, trace: &Trace) {
        self.all.lock().unwrap().push(trace.clone());
        self.more.notify_all();
    }

    fn takes_traced_lines(&self) -> bool {
        self.takes_lines
    }
}

struct Traced {
    server: Server,
    sink: Arc<Traces>,
}

impl Traced {
    fn new(filters: Vec<Filter>, modules: &[(&str, Guest)]) -> Self {
        Self::of(&support::chain(filters), None, modules, |_| {})
    }

    fn of(
        chain: &FilterChain,
        in_front: Option<&FilterChain>,
        modules: &[(&str, Guest)],
        adjust: impl FnOnce(&mut Options),
    ) -> Self {
        let modules: BTreeMap<String, Vec<u8>> =
            modules.iter().map(|(name, guest)| (format!("WasmPlugin default/{name}"), guest.clone().build())).collect();
        let sink = Arc::new(Traces::default());
        let engine = Engine::new(limits()).unwrap();
        let host_env = BTreeMap::from([("ON_HOST".to_owned(), "from-the-host".to_owned())]);
        let mut loaded = Chain::load(&engine, chain, &modules, &host_env, sink.clone(), LogLevel::Info).unwrap();
        if let Some(network) = in_front {
            loaded = loaded.in_front(&engine, network, &modules, &host_env).unwrap();
        }
        let mut options =
            Options { workers: Some(1), trace: Some(Settings::default()), ..Options::listen_on("127.0.0.1:0") };
        adjust(&mut options);
        Self { server: Server::start(loaded, options).unwrap(), sink }
    }

    /// The trace of the request just sent: there is one of each.
    fn next(&self) -> Trace {
        let traces = self.sink.all.lock().unwrap();
        let (mut traces, waited) =
            self.sink.more.wait_timeout_while(traces, Duration::from_secs(20), |traces| traces.is_empty()).unwrap();
        assert!(!waited.timed_out(), "no trace");
        traces.remove(0)
    }

    /// Sends a request; its tree without times.
    fn tree(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        send(self.server.address(), method, path, headers, body);
        timeless(&text::tree(&self.next()))
    }
}

/// A tree with `T` in the place of times and `P` of the ports of this run.
fn timeless(tree: &str) -> String {
    let words = |line: &str| {
        let line: Vec<&str> = line.split(' ').collect();
        let mut shown: Vec<String> = Vec::new();
        for (index, word) in line.iter().enumerate() {
            let is_time = line.get(index + 1).is_some_and(|unit| unit.trim_end_matches(',') == "ms");
            shown.push(match word.split_once("127.0.0.1:") {
                Some((before, after)) => {
                    format!("{before}127.0.0.1:P{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
                }
                None if is_time => "T".to_owned(),
                None => (*word).to_owned(),
            });
        }
        shown.join(" ")
    };
    tree.lines().map(words).collect::<Vec<_>>().join("\n") + "\n"
}

fn editing() -> Guest {
    Guest::default()
        .on("request_headers", |g| {
            let (key, path, new) = (g.text("x-old"), g.text(":path"), g.text("/new"));
            format!(
                "{} {} (drop (call $proxy_remove_header_map_value (i32.const 0) {key}))
                 (drop (call $proxy_replace_header_map_value (i32.const 0) {path} {new})) (i32.const 0)",
                g.say("seen"),
                add_header(g, 0, "x-new", "1")
            )
        })
        .on("request_body", |g| format!("{} (i32.const 0)", replace_body(g, 0, "changed body")))
        .on("response_headers", |_| "(i32.const 0)".to_owned())
}

#[test]
fn a_request_is_told_filter_by_filter() {
    let traced =
        Traced::new(vec![wasm("a", |_| {}), wasm("b", |_| {})], &[("a", editing()), ("b", Guest::recorder("b"))]);
    let tree = traced.tree("POST", "/old", &[("x-old", "0"), ("transfer-encoding", "chunked")], "");
    // The body is empty and chunked: what a filter makes of it is seen all the same.
    assert!(tree.starts_with("POST /old → "), "{tree}");
    let mut client = TcpStream::connect(traced.server.address()).unwrap();
    let head = "POST /old HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-old: 0\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).unwrap();
    client.write_all(b"0\r\n\r\n").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    let tree = timeless(&text::tree(&traced.next()));
    for part in [
        "POST /old → 200 (via_upstream) T ms\n  chain: default.a → default.b\n  request from the client\n",
        "    x-old: 0\n",
        "  default.a: proxy_on_request_headers → Continue T ms\n    log info: seen\n    ~ :path: /old → /new\n    - x-old: 0\n    + x-new: 1\n",
        "  default.b: proxy_on_request_headers → Continue T ms\n    log info: b request_headers\n",
        "  default.a: proxy_on_request_body 5 bytes → Continue T ms\n    ~ request_body: 5 bytes \"hello\" → 12 bytes \"changed body\"\n",
        "  default.b: proxy_on_request_body 12 bytes → Continue T ms\n    log info: b request_body\n",
        "  response from the upstream (built-in echo) after T ms\n",
        "  default.b: proxy_on_response_headers → Continue T ms\n",
        "  default.b: proxy_on_log T ms\n    log info: b log\n",
        "  default.b: proxy_on_done T ms\n    log info: b done\n    log info: b delete\n",
        "  time: default.a T ms, default.b T ms, upstream T ms, total T ms\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }
    // Requests meet the filters first to last, responses last to first.
    let places: Vec<_> = [
        "a: proxy_on_request_headers",
        "b: proxy_on_request_headers",
        "b: proxy_on_response_headers",
        "a: proxy_on_response_headers",
    ]
    .iter()
    .map(|callback| tree.find(&format!("default.{callback}")).unwrap())
    .collect();
    assert!(places.is_sorted(), "{tree}");
    // A callback that the module does not have did not run.
    assert!(!tree.contains("default.a: proxy_on_response_body") && !tree.contains("default.a: proxy_on_log"), "{tree}");
    assert_eq!(*traced.sink.lines.lock().unwrap(), [""; 0], "the lines of a request are in its trace");
}

#[test]
fn an_answer_a_pause_and_a_hazard_are_where_they_happened() {
    let guest = Guest::default().on("request_headers", |_| "(i32.const 0)".to_owned()).on("request_body", |g| {
        format!(
            "(if (i32.eqz (local.get 2)) (then (return (i32.const 1)))) {} {} (i32.const 1)",
            local_response(g, 403, "no", "denied"),
            local_response(g, 404, "again", "")
        )
    });
    let traced = Traced::new(vec![wasm("a", |_| {})], &[("a", guest)]);
    let tree = traced.tree("POST", "/", &[], "body");
    for part in [
        "POST / → 403 by default.a (again) T ms\n",
        "  default.a: proxy_on_request_headers → Continue T ms\n",
        ", end → StopIterationAndBuffer T ms\n    hazard double-local-response (proxy_on_request_body proxy_send_local_response): this stream has a local response already\n",
        "  default.a: local reply 403 (again), 6 bytes \"denied\"\n  response from the proxy\n    :status: 403\n",
        "total T ms\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }
    // Its headers had gone there.
    assert!(tree.contains("default.a T ms, upstream no answer, total"), "{tree}");
}

#[test]
fn a_plugin_that_traps_is_told_as_failed_and_later_as_skipped() {
    let guest = Guest::default().on("request_headers", |_| "unreachable".to_owned());
    let filter = wasm("a", |wasm| wasm.fail_strategy = mesh::model::FailStrategy::FailOpen);
    let traced = Traced::new(vec![filter], &[("a", guest)]);
    let tree = traced.tree("GET", "/", &[], "");
    assert!(tree.contains("  default.a: proxy_on_request_headers → failed T ms\n"), "{tree}");
    assert!(tree.contains("local reply 503 (wasm_fail_stream)\n"), "{tree}");
    let tree = traced.tree("GET", "/", &[], "");
    assert!(tree.contains("  chain: default.a (skipped, its VM has failed)\n"), "{tree}");
}

/// A guest that calls `cluster` and adds a header once it is answered.
fn calling(cluster: &str) -> Guest {
    Guest::default()
        .on("request_headers", |g| {
            let headers = pairs(g, &[(":method", "GET"), (":path", "/check?token=abcdefgh"), (":authority", "auth")]);
            format!(
                "(global.set $count (local.get 0))
                 (if (call $proxy_http_call {} {headers} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 5000) (i32.const 520)) (then (return (i32.const 0))))
                 (i32.const 1)",
                g.text(cluster)
            )
        })
        .on("http_call_response", |g| {
            format!(
                "(drop (call $proxy_set_effective_context (global.get $count))) {} {}
                 (drop (call $proxy_continue_stream (i32.const 0)))",
                add_header(g, 0, "x-checked", "yes"),
                g.say("checked")
            )
        })
}

#[test]
fn a_call_has_its_answer_and_the_callback_that_it_led_to() {
    let backend = support::Harness::new(vec![], &[]);
    let chain = support::chain(vec![wasm("a", |_| {})]);
    let traced = Traced::of(&chain, None, &[("a", calling("auth"))], |options| {
        options.clusters.insert("auth".to_owned(), format!("http://{}", backend.server.address()));
    });
    let tree = traced.tree("GET", "/", &[], "");
    for part in [
        "  default.a: proxy_on_request_headers → StopIteration T ms\n    callout http auth: GET /check?token=<redacted> → 200 after T ms\n",
        "  default.a: proxy_on_http_call_response T ms\n    log info: checked\n    + x-checked: yes\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }
    let traced = Traced::of(&chain, None, &[("a", calling("nobody"))], |_| {});
    let tree = traced.tree("GET", "/", &[], "");
    assert!(tree.contains("callout http nobody: GET /check?token=<redacted> → refused\n"), "{tree}");
}

#[test]
fn a_call_without_an_answer_says_so() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let chain = support::chain(vec![wasm("a", |_| {})]);
    let traced = Traced::of(&chain, None, &[("a", calling("auth"))], |options| {
        options.clusters.insert("auth".to_owned(), format!("http://{}", silent.local_addr().unwrap()));
        options.idle_timeout = Duration::from_millis(100);
    });
    let tree = traced.tree("GET", "/", &[], "");
    assert!(tree.contains("/check?token=<redacted> → no answer before the end\n"), "{tree}");
    assert!(
        tree.contains("hazard pause-without-resume (proxy_on_request_headers): the request was still paused"),
        "{tree}"
    );
}

#[test]
fn scripts_are_told_like_plugins() {
    let backend = support::Harness::new(vec![], &[]);
    let code = "function envoy_on_request(h)
  h:logInfo('asking')
  local headers, body = h:httpCall('auth', {[':method'] = 'GET', [':path'] = '/', [':authority'] = 'a'}, '', 5000)
  h:headers():add('x-lua', headers[':status'])
  error('boom')
end
function envoy_on_response(h) h:body():setBytes('short') end";
    let chain = support::chain(vec![extension("l", ExtensionFilter::Lua { inline_code: code.to_owned() })]);
    let traced = Traced::of(&chain, None, &[], |options| {
        options.clusters.insert("auth".to_owned(), format!("http://{}", backend.server.address()));
    });
    let tree = traced.tree("GET", "/", &[], "");
    for part in [
        "  chain: default.l\n",
        "  default.l: request_headers → StopIteration T ms\n    log info: asking\n    callout http auth: GET / → 200 after T ms\n",
        "  default.l: httpCall answered T ms\n    log error: [string \"function envoy_on_request(h)...\"]:5: boom\n    + x-lua: 200\n",
        "→ 5 bytes \"short\"\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }
}

#[test]
fn the_proxys_own_filters_are_in_the_chain() {
    let manifests = format!(
        "{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: jwt}}, \
         spec: {{jwtRules: [{{issuer: 'https://i', jwks: '{}'}}]}}}}\n---\n\
         {{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p}}, \
         spec: {{rules: [{{to: [{{operation: {{paths: ['/open']}}}}]}}]}}}}\n",
        KEY.jwks()
    );
    let traced = Traced::of(&resolved(&manifests), None, &[], |_| {});
    let tree = traced.tree("GET", "/closed", &[], "");
    for part in [
        "GET /closed → 403 by envoy.filters.http.rbac (rbac_access_denied_matched_policy[none]) T ms\n",
        "envoy.filters.http.jwt_authn → envoy.filters.http.rbac",
        "istio.stats",
        "  envoy.filters.http.rbac: request_headers → Continue T ms\n",
        "  envoy.filters.http.rbac: local reply 403 (rbac_access_denied_matched_policy[none]), 19 bytes \"RBAC: access denied\"\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }
    let jwt = token(&serde_json::json!({"iss": "https://i", "exp": now() + 600}));
    let tree = traced.tree("GET", "/open", &[("authorization", &format!("Bearer {jwt}"))], "");
    let part =
        "  envoy.filters.http.jwt_authn: request_headers → Continue T ms\n    - authorization: Bearer <redacted>\n";
    assert!(tree.contains(part) && tree.contains("→ 200 (via_upstream)"), "{tree}");
    assert!(!tree.contains(&jwt[..20]), "{tree}");
}

#[test]
fn connections_are_told_too() {
    let guest = Guest::default()
        .on("new_connection", |g| format!("{} (i32.const 0)", g.say("new")))
        .on("downstream_data", |g| {
            let text = g.text("!");
            format!(
                "(drop (call $proxy_set_buffer_bytes (i32.const 2) (i32.const 1000) (i32.const 0) {text})) (i32.const 0)"
            )
        });
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    });
    let mut chain = support::chain(vec![network("a")]);
    chain.listener.layer = Layer::Network;
    let traced = Traced::of(&chain, None, &[("a", guest.clone())], |options| {
        options.upstream = Some(format!("tcp://{address}"));
    });
    let mut client = TcpStream::connect(traced.server.address()).unwrap();
    client.write_all(b"password=hunter2").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answering.join().unwrap();
    drop(client);
    let tree = timeless(&text::tree(&traced.next()));
    for part in [
        "connection 1: 16 bytes in, 18 out, closed by ",
        "  chain: default.a\n  default.a: proxy_on_new_connection → Continue T ms\n    log info: new\n",
        "~ downstream_data: 16 bytes \"password=<redacted>\" → 17 bytes \"password=<redacted>\"\n",
        "  time: default.a T ms, total T ms\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }

    // In front of HTTP there is one of the connection and one of each request.
    let mut in_front = support::chain(vec![network("a")]);
    in_front.listener.layer = Layer::Network;
    let new_only = Guest::default().on("new_connection", |g| format!("{} (i32.const 0)", g.say("new")));
    let modules = [("a", new_only), ("b", Guest::recorder("b"))];
    let traced = Traced::of(&support::chain(vec![wasm("b", |_| {})]), Some(&in_front), &modules, |_| {});
    let tree = traced.tree("GET", "/", &[], "");
    assert!(tree.starts_with("GET / → 200") && tree.contains("chain: default.b\n"), "{tree}");
    assert!(text::tree(&traced.next()).starts_with("connection 1: "));
}

const SECRETS: [&str; 7] =
    ["b2s6c3VwZXItc2VjcmV0", "super-secret", "session-value", "set-value", "key-value", "query-value", "env-value-1"];

/// A guest that repeats credentials in every way it has.
fn leaking() -> Guest {
    Guest::default()
        .on("request_headers", |g| {
            let name = g.text("authorization");
            format!(
                "(drop (call $proxy_get_header_map_value (i32.const 0) {name} (i32.const 512) (i32.const 516))) (call $value)
                 {} {} {} {} {} (i32.const 0)",
                g.say("user ok has super-secret"),
                g.say("with env-value-1 and from-the-host"),
                g.say("{\"access_token\": \"query-value\"}"),
                add_header(g, 0, "x-note", "session-value"),
                add_header(g, 0, "x-plugin-secret", "key-value")
            )
        })
        .on("response_headers", |g| {
            format!("{} (i32.const 0)", add_header(g, 2, "set-cookie", "id=set-value; HttpOnly"))
        })
        .on("response_body", |g| format!("{} (i32.const 0)", replace_body(g, 1, "key-value set-value super-secret")))
}

fn leak(settings: Settings) -> (String, String) {
    let filter = wasm("a", |wasm| {
        wasm.env = vec![env("E", EnvValue::Inline("env-value-1".to_owned())), env("ON_HOST", EnvValue::Host)];
    });
    let chain = support::chain(vec![filter]);
    let traced = Traced::of(&chain, None, &[("a", leaking())], |options| options.trace = Some(settings));
    let headers = [
        ("authorization", "Basic b2s6c3VwZXItc2VjcmV0"),
        ("cookie", "s=session-value"),
        ("x-api-key", "key-value"),
        ("x-jwt", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."),
    ];
    send(traced.server.address(), "GET", "/a?access_token=query-value&q=1", &headers, "");
    let trace = traced.next();
    (text::tree(&trace), json::line(&trace))
}

#[test]
fn secrets_are_masked_wherever_they_turn_up() {
    let (tree, json) = leak(Settings::default());
    for shown in [&tree, &json] {
        for secret in SECRETS.iter().chain(&["eyJhbGci", "from-the-host"]) {
            assert!(!shown.contains(secret), "{secret} in\n{shown}");
        }
    }
    for part in [
        "GET /a?access_token=<redacted>&q=1 → 200",
        "    authorization: Basic <redacted>\n",
        "    cookie: s=<redacted>\n",
        "    x-api-key: <redacted>\n",
        "    log info: Basic <redacted>\n",
        "    log info: user ok has <redacted>\n",
        "    log info: with <redacted> and <redacted>\n",
        "    + x-note: <redacted>\n",
        "    + set-cookie: id=<redacted>; HttpOnly\n",
    ] {
        assert!(tree.contains(part), "no {part:?} in\n{tree}");
    }
    let (tree, json) = leak(Settings { show_secrets: true, ..Settings::default() });
    for secret in SECRETS {
        assert!(tree.contains(secret) && json.contains(secret), "no {secret} in\n{tree}");
    }
}

#[test]
fn what_a_plugin_writes_cannot_move_the_cursor() {
    let guest = Guest::default().on("request_headers", |g| {
        let escape = "a\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\r\nGET /forged → 200";
        format!("{} {} (i32.const 0)", g.say(escape), add_header(g, 0, "x-a", "b\u{1b}]0;c\u{9c}"))
    });
    let traced = Traced::new(vec![wasm("a", |_| {})], &[("a", guest)]);
    send(traced.server.address(), "GET", "/%1b", &[], "");
    let trace = traced.next();
    let (tree, json) = (text::tree(&trace), json::line(&trace));
    for shown in [&tree, &json] {
        let obeyed = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!shown.contains(obeyed), "{shown:?}");
    }
    assert!(!json.contains('\n') && !tree.contains("\nGET /forged"), "{tree}");
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    let message = &read["events"][1]["events"][0]["message"];
    assert_eq!(message, "a\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\r\nGET /forged → 200");
}

#[test]
fn a_trace_has_a_bound() {
    let guest = Guest::default().on("request_headers", |g| {
        let say = g.say("again");
        format!(
            "(local $n i32) (loop $more {say} (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const 5000)))) (i32.const 0)"
        )
    });
    let traced = Traced::new(vec![wasm("a", |_| {})], &[("a", guest)]);
    send(traced.server.address(), "GET", "/", &[], "");
    let trace = traced.next();
    assert!(trace.omitted > 4000, "{}", trace.omitted);
    assert!(text::tree(&trace).contains(&format!("\n  … and {} events more\n", trace.omitted)));
}

#[test]
fn nothing_is_recorded_that_was_not_asked_for() {
    let chain = support::chain(vec![wasm("a", |_| {})]);
    let traced = Traced::of(&chain, None, &[("a", Guest::recorder("a"))], |options| options.trace = None);
    assert_eq!(send(traced.server.address(), "GET", "/", &[], "").unwrap().status, 200);
    let Traced { server, sink } = traced;
    server.shut_down();
    assert!(sink.all.lock().unwrap().is_empty());
    assert!(!sink.lines.lock().unwrap().is_empty());
}

fn keys(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_documents_name_every_field() {
    let documents = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/trace.md")).unwrap();
    let mut found = BTreeSet::new();
    let backend = support::Harness::new(vec![], &[]);
    let chain = support::chain(vec![wasm("a", |_| {}), wasm("b", |_| {})]);
    let refusing = Guest::default().on("response_headers", |g| {
        format!("{} {} (i32.const 0)", local_response(g, 500, "", "x"), local_response(g, 500, "", "x"))
    });
    let modules = [("a", calling("auth")), ("b", refusing)];
    let traced = Traced::of(&chain, None, &modules, |options| {
        options.clusters.insert("auth".to_owned(), format!("http://{}", backend.server.address()));
    });
    send(traced.server.address(), "GET", "/", &[], "");
    keys(&serde_json::from_str(&json::line(&traced.next())).unwrap(), &mut found);
    let traced = Traced::new(vec![wasm("a", |_| {})], &[("a", editing())]);
    send(traced.server.address(), "POST", "/", &[], "body");
    keys(&serde_json::from_str(&json::line(&traced.next())).unwrap(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for key in found {
        assert!(documents.contains(&format!("`{key}`")), "docs/trace.md does not name `{key}`");
    }
}
