//! `run --reload` and `run --trace` as a person uses them: a real process, files that change, requests meanwhile.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use support::talking::{Talking, module};
use support::{command, finish, plugwright, request};

fn resource(url: &str, more: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: a, namespace: default}}\n\
         spec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}}]\n  url: {url}\n{more}---\n"
    )
}

fn script(name: &str, header: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}}]\n  lua:\n    \
         inlineCode: |\n      function envoy_on_response(h) h:headers():add('x-{name}', '{header}') end\n---\n"
    )
}

/// A `run` whose standard error is read line by line.
#[track_caller]
fn start(folder: &Path, arguments: &[&str]) -> Talking {
    let all = [&["run", "--listen", "127.0.0.1:0", "--workers", "2"], arguments].concat();
    Talking::start(command(folder, &all).env("XDG_CACHE_HOME", folder.join("cache")))
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("a.wasm", module("one"));
        place.write("r.yaml", place.resource(""));
        place
    }

    fn resource(&self, more: &str) -> String {
        resource(&format!("file://{}", self.0.path().join("a.wasm").display()), more)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Talking {
        start(self.0.path(), &[&["-f", "r.yaml", "--reload"], arguments].concat())
    }
}

#[test]
fn a_module_that_is_built_anew_is_served_and_a_request_in_flight_is_not_dropped() {
    let place = Place::new();
    let mut run = place.run(&[]);
    let mut client = TcpStream::connect(&run.address).unwrap();
    client.set_read_timeout(Some(Duration::from_mins(5))).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 4\r\n\r\nha").unwrap();
    run.wait_for("body of one");
    // As compilers and editors do: another file of the same name.
    place.write("b.wasm", module("two"));
    fs::rename(place.0.path().join("b.wasm"), place.0.path().join("a.wasm")).unwrap();
    run.wait_for("reloaded in ");
    run.wait_for("  ~ WasmPlugin default/a: another module, ");
    assert_eq!(run.version().as_deref(), Some("two"));
    client.write_all(b"lf").unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("x-version: one"), "{reply}");
    let (code, said) = run.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_bad_file_leaves_what_is_served_and_says_why() {
    let place = Place::new();
    let mut run = place.run(&[]);
    place.write("r.yaml", "kind: WasmPlugin\n  x: [");
    run.wait_for("not reloaded, what was served before still is:");
    run.wait_for("error: r.yaml:2:");
    assert_eq!(run.version().as_deref(), Some("one"));
    // A module that is none; then one whose plugin cannot be accepted.
    place.write("r.yaml", place.resource(""));
    run.wait_for("reloaded in ");
    place.write("a.wasm", "not wasm");
    run.wait_for("not reloaded, what was served before still is:");
    run.wait_for("a.wasm");
    assert_eq!(run.version().as_deref(), Some("one"));
    place.write("a.wasm", &module("x")[..40]);
    run.wait_for("not reloaded, what was served before still is:");
    run.wait_for("error: ");
    assert_eq!(run.version().as_deref(), Some("one"));
    fs::remove_file(place.0.path().join("a.wasm")).unwrap();
    run.wait_for("not reloaded, what was served before still is:");
    place.write("a.wasm", module("two"));
    run.wait_for("reloaded in ");
    assert_eq!(run.version().as_deref(), Some("two"));
    let (code, said) = run.stop("INT");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_changes_in_the_chain_is_told() {
    let place = Place::new();
    fs::create_dir(place.0.path().join("more")).unwrap();
    place.write("more/s.yaml", script("first", "1"));
    let mut run = start(place.0.path(), &["-f", "r.yaml", "more", "--reload"]);
    // A comment, which changes no more than where things are.
    place.write("r.yaml", format!("# hello\n{}", place.resource("")));
    assert!(run.wait_for("reloaded in ").ends_with("; nothing changes in the chain"));
    place.write("more/t.yaml", script("second", "2"));
    run.wait_for("reloaded in ");
    run.wait_for("  + added default/second at ");
    assert_eq!((run.header("x-first").as_deref(), run.header("x-second").as_deref()), (Some("1"), Some("2")));
    place.write("more/t.yaml", script("second", "3"));
    run.wait_for("  ~ changed default/second at ");
    assert_eq!(run.header("x-second").as_deref(), Some("3"));
    fs::remove_file(place.0.path().join("more/s.yaml")).unwrap();
    run.wait_for("  - removed default/first from ");
    assert_eq!((run.header("x-first"), run.header("x-second").as_deref()), (None, Some("3")));
    place.write("r.yaml", place.resource("  pluginConfig: {password: hunter2}\n"));
    run.wait_for("  ~ changed default/a at ");
    let (_, said) = run.stop("TERM");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn layouts_and_clusters_are_followed() {
    let place = Place::new();
    let package = |version: &str| {
        place.write("m.wasm", module(version));
        let arguments = ["package", "--module", "m.wasm", "--name", "a", "--layout", "dist"];
        plugwright(place.0.path(), &arguments).fine();
    };
    package("one");
    place.write("r.yaml", resource("oci://ghcr.io/example/a:1", ""));
    place.write("c.yaml", "auth: http://127.0.0.1:1\n");
    let arguments = ["--image", "oci://ghcr.io/example/a:1=oci:dist:a", "--clusters", "c.yaml"];
    let mut run = place.run(&arguments);
    assert_eq!(run.version().as_deref(), Some("one"));
    package("two");
    run.wait_for("another module, ");
    assert_eq!(run.version().as_deref(), Some("two"));
    place.write("c.yaml", "auth: http://127.0.0.1:2\nother: http://127.0.0.1:3\n");
    run.wait_for("  ~ cluster auth");
    run.wait_for("  + cluster other");
    assert_eq!(run.version().as_deref(), Some("two"));
    let (code, said) = run.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_chain_that_cannot_begin_ends_as_without_reload() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let mut command = command(place.0.path(), &[&["run", "--reload"], arguments].concat());
        finish(command.env("XDG_CACHE_HOME", place.0.path().join("cache")))
    };
    run(&["-f", "missing.yaml"]).refused(3, &["missing.yaml"]);
    run(&["-f", "-"]).refused(2, &["--reload: standard input cannot be watched"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    run(&["-f", "r.yaml", "--listen", &listen]).refused(3, &[&format!("listen on {listen}")]);
    place.write("a.wasm", "\0asm");
    run(&["-f", "r.yaml"]).refused(1, &["a.wasm"]);
}

#[test]
fn a_harness_that_is_killed_leaves_nobody_behind() {
    let place = Place::new();
    let run = place.run(&[]);
    // Standard error ends when the last process that has it does.
    let (code, _) = run.stop("KILL");
    assert_eq!(code, None);
}

#[test]
fn a_trace_is_as_much_as_was_asked_for() {
    let place = Place::new();
    let ask = |arguments: &[&str]| {
        let run = start(place.0.path(), &[&["-f", "r.yaml"], arguments].concat());
        let headers = [("authorization", "Bearer very-secret-token"), ("x-a", "b")];
        assert_eq!(request(&run.address, "GET", "/p?access_token=very-secret-token", &headers).status, 200);
        run.stop("TERM").1
    };
    for arguments in [&[][..], &["--trace", "line"]] {
        let said = ask(arguments);
        assert!(said.contains("GET /p → 200 (via_upstream) ") && !said.contains("x-version"), "{said}");
    }
    for arguments in [&["--trace", "off"][..], &["--quiet"]] {
        assert!(!ask(arguments).contains("GET /p"));
    }
    let said = ask(&["--trace", "full"]);
    let parts = [
        "GET /p?access_token=<redacted> → 200 (via_upstream) ",
        "\n  chain: default.a",
        "\n    authorization: Bearer <redacted>\n",
        "\n  default.a: proxy_on_response_headers → Continue ",
        "\n    + x-version: one\n",
    ];
    assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("very-secret"), "{said}");
    assert!(ask(&["--trace", "full", "--show-secrets"]).contains("\n    authorization: Bearer very-secret-token\n"));
    let said = ask(&["--trace", "json"]);
    let json: Vec<serde_json::Value> =
        said.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((json.len(), json[0]["status"].as_u64()), (1, Some(200)), "{said}");
    assert!(!said.contains("very-secret"), "{said}");
    plugwright(place.0.path(), &["run", "-f", "r.yaml", "--quiet", "--trace", "full"]).refused(2, &["--quiet"]);
}
