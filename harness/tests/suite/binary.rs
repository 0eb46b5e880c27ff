//! `plugwright-harness serve`: its output, its exit codes, its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use mesh::plan::{Module, Plan};
use sha2::{Digest as _, Sha256};

use crate::support::{self, Guest, chain, wasm};

fn spawn(arguments: &[&str], input: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_plugwright-harness"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child
}

fn plan(directory: &Path, guest: Guest, listen: &str) -> Plan {
    let bytes = guest.build();
    let path = directory.join("a.wasm");
    std::fs::write(&path, &bytes).unwrap();
    let sha256 = Sha256::digest(&bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Plan {
        chain: chain(vec![wasm("a", |_| {})]),
        network: None,
        modules: BTreeMap::from([("WasmPlugin default/a".to_owned(), Module::File { path, sha256 })]),
        host_env: BTreeMap::new(),
        listen: listen.to_owned(),
        upstream: None,
        clusters: BTreeMap::new(),
        node: None,
        admin: None,
        ca_certificates: Vec::new(),
        workers: Some(1),
    }
}

fn json(plan: &Plan) -> String {
    serde_json::to_string(plan).unwrap()
}

#[track_caller]
fn check_refused(output: &Output, code: i32, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    assert_eq!(output.stdout, b"");
}

/// Waits for the one line on stdout.
fn address(child: &mut Child) -> SocketAddr {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}")).trim_end().parse().unwrap()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn it_serves_traces_and_ends_with_zero_on_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let mut child = spawn(&["serve"], &json(&plan(directory.path(), Guest::recorder("a"), "127.0.0.1:0")));
        let address = address(&mut child);
        let reply = support::send(address, "GET", "/x?secret=1", &[("authorization", "Basic c2VjcmV0")], "");
        assert_eq!(reply.unwrap().status, 200);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("[info][wasm] wasm log default.a: a request_headers"), "{stderr}");
        assert!(stderr.contains("GET /x → 200 (via_upstream) "), "{stderr}");
        assert!(!stderr.contains("secret") && !stderr.contains("c2VjcmV0"), "{stderr}");
    }
}

/// Serves one request and ends; what it printed and its exit code.
fn serve_one(arguments: &[&str], plan: &Plan) -> (String, Option<i32>) {
    let mut child = spawn(arguments, &json(plan));
    let address = address(&mut child);
    support::send(address, "POST", "/", &[], "body");
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[test]
fn strict_makes_hazards_the_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let guest = || {
        Guest::default().on("request_body", |g| {
            let name = g.text(":path");
            format!(
                "(drop (call $proxy_get_header_map_value (i32.const 0) {name} (i32.const 16) (i32.const 20))) (i32.const 0)"
            )
        })
    };
    let hazardous = plan(directory.path(), guest(), "127.0.0.1:0");
    let line = "hazard header-map-out-of-phase (default.a proxy_on_request_body proxy_get_header_map_value): the map \
                RequestHeaders is not there in this callback; in Envoy: the hostcall answers BadArgument, on which the \
                SDKs panic: 503";
    let (stderr, code) = serve_one(&["serve"], &hazardous);
    assert_eq!((code, stderr.matches(line).count()), (Some(0), 1), "{stderr}");
    let (stderr, code) = serve_one(&["serve", "--strict"], &hazardous);
    let summary = "error: hazards were met:\n  2 × header-map-out-of-phase default.a proxy_on_request_body \
                   proxy_get_header_map_value\n";
    assert_eq!((code, stderr.ends_with(summary)), (Some(1), true), "{stderr}");
    let harmless = plan(directory.path(), Guest::recorder("a"), "127.0.0.1:0");
    let (stderr, code) = serve_one(&["serve", "--strict"], &harmless);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn the_certificates_of_a_plan_are_those_that_keys_are_fetched_with() {
    let manifest = "---\n{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: jwt}, \
                    spec: {jwtRules: [{issuer: i, jwksUri: 'https://localhost:1/keys'}]}}\n";
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan(directory.path(), Guest::recorder("a"), "127.0.0.1:0");
    plan.chain = support::resolved(manifest);
    plan.ca_certificates = vec!["text".to_owned()];
    let output = spawn(&["serve"], &json(&plan)).wait_with_output().unwrap();
    check_refused(&output, 2, "read the certificates to trust: there is no PEM certificate in the text");
}

#[test]
fn network_plugins_of_a_plan_are_in_front() {
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest::default().on("new_connection", |g| format!("{} (i32.const 0)", g.say("connected")));
    let mut plan = plan(directory.path(), guest, "127.0.0.1:0");
    let mut network = chain(vec![support::network("a")]);
    network.listener.layer = mesh::model::Layer::Network;
    plan.chain = chain(vec![]);
    plan.network = Some(network);
    let (stderr, code) = serve_one(&["serve"], &plan);
    assert_eq!(code, Some(0), "{stderr}");
    let lines = ["wasm log default.a: connected", "POST / → 200 (via_upstream)", "bytes in, "];
    assert!(lines.iter().all(|line| stderr.contains(line)), "{stderr}");
}

#[test]
fn a_request_in_flight_ends_before_the_host_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = spawn(&["serve"], &json(&plan(directory.path(), Guest::recorder("a"), "127.0.0.1:0")));
    let mut client = TcpStream::connect(address(&mut child)).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nha").unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("request_body") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
    }
    signal(&child, "-TERM");
    client.write_all(b"lf").unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    assert_eq!(support::parse(&reply).unwrap().echo()["body"], "half");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_in_use_is_three_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let child = spawn(&["serve"], &json(&plan(directory.path(), Guest::default(), &listen)));
    let output = child.wait_with_output().unwrap();
    check_refused(&output, 3, &format!("error: listen on {listen}: Address already in use"));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("\n\nhint: give another address; port 0 takes a free one")
    );
}

#[test]
fn a_refused_configuration_is_one_and_in_the_plugins_words() {
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest::default().on("configure", |g| {
        let text = g.text("rules[1].prefix: missing");
        format!("(drop (call $proxy_log (i32.const 4) {text})) (i32.const 0)")
    });
    let child = spawn(&["serve"], &json(&plan(directory.path(), guest, "127.0.0.1:0")));
    let message = "error: configure the plugin WasmPlugin default/a: Failed to configure base Wasm plugin; the plugin logged: \
                   rules[1].prefix: missing";
    check_refused(&child.wait_with_output().unwrap(), 1, message);
}

#[test]
fn a_module_that_changed_or_is_gone_is_three() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(directory.path(), Guest::default(), "127.0.0.1:0");
    let file = directory.path().join("a.wasm");
    std::fs::write(&file, "other").unwrap();
    check_refused(
        &spawn(&["serve"], &json(&plan)).wait_with_output().unwrap(),
        3,
        "a.wasm has sha256 d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, expected",
    );
    std::fs::remove_file(&file).unwrap();
    check_refused(
        &spawn(&["serve"], &json(&plan)).wait_with_output().unwrap(),
        3,
        "get the module of WasmPlugin default/a: read ",
    );
}

#[test]
fn other_arguments_and_other_input_are_two() {
    for (arguments, input, message) in [
        (&["serve"][..], "{", "error: the plan on stdin: "),
        (&["sing"], "", "error: unknown subcommand `sing`"),
        (&[], "", "error: a subcommand is missing"),
        (&["serve", "--loud"], "", "error: unknown argument `--loud`"),
        (&["serve", "--log-level", "x"], "", "error: `--log-level` takes one of"),
    ] {
        check_refused(&spawn(arguments, input).wait_with_output().unwrap(), 2, message);
    }
}

#[test]
fn a_plan_has_clusters_a_node_and_an_administration_endpoint() {
    let backend = support::Harness::new(vec![], &[]);
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest::default()
        .on("request_headers", |g| {
            let cluster = g.text("outbound|80||auth.ns.svc.cluster.local");
            let headers = support::pairs(g, &[(":method", "GET"), (":path", "/"), (":authority", "h")]);
            let (none, wanted) = ("(i32.const 0) (i32.const 0)", g.text("xds\0node\0id"));
            format!(
                "(drop (call $proxy_get_property {wanted} (i32.const 512) (i32.const 516))) (call $value)
                 (drop (call $proxy_http_call {cluster} {headers} {none} {none} (i32.const 0) (i32.const 520)))
                 (global.set $count (local.get 0)) (i32.const 1)"
            )
        })
        .on("http_call_response", |g| {
            let name = g.text("answers");
            format!(
                "(drop (call $proxy_define_metric (i32.const 0) {name} (i32.const 520)))
                 (drop (call $proxy_increment_metric (i32.load (i32.const 520)) (i64.const 1)))
                 (drop (call $proxy_set_effective_context (global.get $count)))
                 (drop (call $proxy_continue_stream (i32.const 0)))"
            )
        });
    let mut plan = plan(directory.path(), guest, "127.0.0.1:0");
    plan.clusters
        .insert("outbound|80||auth.ns.svc.cluster.local".to_owned(), format!("http://{}", backend.server.address()));
    plan.node = Some(serde_json::json!({"id": "the-node"}));
    plan.admin = Some("127.0.0.1:0".to_owned());
    let mut child = spawn(&["serve"], &json(&plan));
    let address = address(&mut child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let admin =
        line.trim_end().strip_prefix("metrics on http://").and_then(|rest| rest.strip_suffix("/stats/prometheus"));
    let admin: SocketAddr = admin.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    assert_eq!(support::send(address, "GET", "/", &[], "").unwrap().status, 200);
    line.clear();
    stderr.read_line(&mut line).unwrap();
    assert!(line.ends_with(": the-node\n"), "{line:?}");
    let metrics = support::send(admin, "GET", "/stats/prometheus", &[], "").unwrap();
    assert_eq!(metrics.body, "# TYPE answers counter\nanswers 1\n");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
