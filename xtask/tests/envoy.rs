//! `cargo xtask envoy`, judged by a real Envoy.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Server, command, finish, plugwright, repository, request};

const SCRIPT: &str = "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: script}\nspec:\n  \
                      lua: {inlineCode: \"function envoy_on_request(handle) handle:headers():add('x-lua', '1') end\"}\n";

const NOBODY: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody}\n\
                      spec: {rules: [{to: [{operation: {paths: [/open]}}]}]}\n";

/// A module that Envoy accepts and that does nothing.
fn module() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 1024)))"#,
    )
    .unwrap()
}

#[test]
fn envoy_accepts_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = folder.path().join("probe.wasm");
    fs::write(&wasm, module()).unwrap();
    let golden = repository().join("mesh/src/envoy/golden");
    let mut seen = 0;
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).unwrap().replace("/modules/probe.wasm", wasm.to_str().unwrap());
            let file = folder.path().join("bootstrap.json");
            fs::write(&file, text).unwrap();
            let mut envoy = Command::new(support::envoy::program());
            envoy.args(["--mode", "validate", "--log-level", "warning", "--config-path"]).arg(&file);
            let ended = finish(&mut envoy).fine();
            assert!(!ended.stderr.contains("eprecated"), "{}: {}", path.display(), ended.stderr);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn the_file_is_private_and_nothing_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("script.yaml"), SCRIPT).unwrap();
    let ended = plugwright(folder.path(), &["envoy", "-f", "script.yaml", "--out", "bootstrap.yaml"]).fine();
    assert_eq!(ended.stdout, "");
    let file = folder.path().join("bootstrap.yaml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let printed = plugwright(folder.path(), &["envoy", "-f", "script.yaml"]).fine().stdout;
    assert_eq!(fs::read_to_string(file).unwrap(), printed);
}

#[test]
fn what_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("script.yaml"), SCRIPT).unwrap();
    let refused = |arguments: &[&str], code: i32, parts: &[&str]| {
        let arguments = [&["envoy", "-f", "script.yaml"], arguments].concat();
        plugwright(folder.path(), &arguments).refused(code, parts);
    };
    refused(&["--upstream", "ftp://x"], 2, &["the upstream ftp://x is not of the form"]);
    refused(&["--cluster", "a=http://h/path"], 2, &["the cluster a http://h/path is not of the form"]);
    refused(&["--cluster", "a"], 2, &["--cluster `a`: expected NAME=URL"]);
    refused(&["--cluster", "a=http://h", "--cluster", "a=http://i"], 2, &["`a` is given twice"]);
    refused(&["--listen", "example.com:80"], 2, &["example.com:80 is not an IP address and a port"]);
    refused(&["--out", "no/such/folder.json"], 3, &["write no/such/folder.json"]);
}

/// An Envoy that serves the resources in `folder`, and its address.
fn envoy(folder: &Path, arguments: &[&str]) -> (Child, String) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = ["envoy", "-f", "all.yaml", "--exec", "--workers", "1", "--listen", &address];
    let mut envoy = command(folder, &[&start, arguments].concat());
    envoy.env("ENVOY", support::envoy::program()).env("TMPDIR", folder);
    let mut child = envoy.stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(started.elapsed() < Duration::from_mins(1) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    (child, address)
}

fn end(mut child: Child) {
    finish(Command::new("kill").arg(child.id().to_string())).fine();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn exec_serves_the_chain_and_goes_away_with_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), format!("{SCRIPT}{NOBODY}")).unwrap();
    let (child, address) = envoy(folder.path(), &[]);
    let denied = request(&address, "GET", "/", &[]);
    assert_eq!((denied.status, denied.body.as_slice()), (403, "RBAC: access denied".as_bytes()));
    let allowed = request(&address, "GET", "/open", &[]);
    assert_eq!(allowed.status, 200);
    let echo: serde_json::Value = serde_json::from_slice(&allowed.body).unwrap();
    assert_eq!(echo["path"], "/open");
    assert!(echo["headers"].as_array().unwrap().contains(&serde_json::json!(["x-lua", "1"])), "{echo}");
    end(child);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the bootstrap is still there");
}

#[test]
fn a_fixed_response_is_the_same_from_both() {
    let folder = tempfile::tempdir().unwrap();
    let add = SCRIPT.replace("on_request", "on_response");
    fs::write(folder.path().join("all.yaml"), add).unwrap();
    for upstream in ["fixed:203:so be it", "fixed:404", "fixed:204"] {
        let seen = |address: &str| {
            let response = request(address, "GET", "/", &[]);
            let own = |(name, _): &&(String, String)| !["date", "server"].contains(&name.as_str());
            let mut headers: Vec<_> = response.headers.iter().filter(own).cloned().collect();
            headers.sort();
            (response.status, headers, response.body)
        };
        let (child, address) = envoy(folder.path(), &["--upstream", upstream]);
        let theirs = seen(&address);
        end(child);
        let run = ["run", "-f", "all.yaml", "--quiet", "--upstream", upstream, "--listen", "127.0.0.1:0"];
        let ours = Server::start(&mut command(folder.path(), &run));
        assert_eq!(seen(ours.address()), theirs, "{upstream}");
        assert!(theirs.1.contains(&("x-lua".to_owned(), "1".to_owned())), "{theirs:?}");
    }
}
