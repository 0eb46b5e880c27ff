//! Resources' modules through the command line: verified, cached, and safe from being killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{Ended, command, finish};

const MODULE: &str = r#"(module (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
    (func (export "malloc") (param i32) (result i32) i32.const 0))"#;

/// A web server that gives these bytes to whoever asks.
fn serve(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
            let _ = stream.write_all(&bytes);
        }
    });
    address
}

fn plugin(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n---\n"
    )
}

struct Place(tempfile::TempDir);

impl Place {
    fn new(resources: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("r.yaml"), resources).unwrap();
        Self(folder)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(self.0.path(), arguments);
        // Nothing is built here: a run ends when it would start the harness.
        command.env("XDG_CACHE_HOME", self.0.path()).env("CARGO", "/bin/false");
        command
    }

    fn verify(&self, more: &[&str]) -> Ended {
        finish(&mut self.command(&[&["verify", "-f", "r.yaml"], more].concat()))
    }

    fn modules(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.0.path().join("plugwright/modules"), &mut found);
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

#[test]
fn each_resource_is_verified_with_its_own_url_pin_and_secret() {
    let module = wat::parse_str(MODULE).unwrap();
    let url = format!("http://{}/x.wasm?sig=very-secret", serve(module));
    let good = plugin("good", &format!("url: '{url}'"));
    let place = Place::new(&good);
    let ended = place.verify(&["--explain-fetch"]).fine();
    assert!(
        ended.stdout.contains("WasmPlugin shop/good: http://") && ended.stdout.contains("pull-policy"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("will be asked for: its url was not pulled before"), "{ended:?}");
    assert!(!format!("{ended:?}").contains("very-secret"));

    let pin = "0".repeat(64);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\n\
                  type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"auths\": {\"x\": \"hunter2\"}}'}\n";
    let all = [
        &good,
        &plugin("pinned", &format!("url: '{url}', sha256: '{pin}'")),
        &plugin("broken", "url: ghcr.io/example/x, imagePullSecret: s"),
        secret,
    ];
    let place = Place::new(&all.concat());
    let ended = place
        .verify(&[])
        .refused(1, &["shop/pinned fails verification: pin", "shop/broken fails verification: pull-secret"]);
    assert!(!format!("{ended:?}").contains("hunter2") && !ended.stderr.contains("shop/good fails"), "{ended:?}");
    let ended = place.verify(&["--json"]).refused(1, &[]);
    let reports: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let names: Vec<_> = reports.as_array().unwrap().iter().map(|report| report["resource"].as_str().unwrap()).collect();
    assert_eq!(names, ["WasmPlugin shop/good", "WasmPlugin shop/pinned", "WasmPlugin shop/broken"]);
    place.verify(&["--extension", "shop/good"]).fine();
    place.verify(&["--extension", "shop/nobody"]).refused(2, &["shop/nobody", "shop/good, shop/pinned, shop/broken"]);
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() {
    let both = [
        plugin("http", "url: 'https://ann:very-secret@127.0.0.1:1/x.wasm?sig=very-secret'"),
        plugin("oci", "url: 'oci://ann:very-secret@127.0.0.1:1/x:1'"),
    ];
    let place = Place::new(&both.concat());
    for more in [&[][..], &["--json"], &["--explain-fetch"]] {
        let ended = place.verify(more).refused(1, &["shop/http fails verification: url", "shop/oci fails"]);
        assert!(!format!("{ended:?}").contains("very-secret"), "{ended:?}");
    }
    let ended = place.verify(&[]);
    assert!(ended.stdout.contains("FAILED         url"), "Istio has no objection: {}", ended.stdout);
    assert!(ended.stdout.contains("https://<redacted>@127.0.0.1:1/x.wasm"), "{}", ended.stdout);
    for command in ["run", "lint", "explain", "envoy"] {
        let ended = finish(&mut place.command(&[command, "-f", "r.yaml"]));
        assert!(!format!("{ended:?}").contains("very-secret"), "{ended:?}");
    }
}

#[test]
fn a_web_server_that_wants_a_password_is_no_reason_to_log_in_anywhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.wasm", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let head = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
    });
    let place = Place::new("");
    let ended = finish(&mut place.command(&["pull", &url, "--output", "x.wasm"]));
    server.join().unwrap();
    let ended = ended.refused(3, &["status 401", "hint: nobody shows a web server credentials"]);
    assert!(!ended.stderr.contains("docker login"), "{}", ended.stderr);
    assert!(!place.0.path().join("x.wasm").exists());
}

#[test]
fn what_cannot_be_reached_is_not_called_bad() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::new(&plugin("gone", &format!("url: 'oci://{gone}/example/x:1'")));
    place.verify(&[]).refused(3, &["WasmPlugin shop/gone", "no answer"]);
}

#[test]
fn a_run_says_why_it_pulled_and_does_not_pull_twice() {
    let url = format!("http://{}/x.wasm", serve(wat::parse_str(MODULE).unwrap()));
    let place = Place::new(&plugin("a", &format!("url: '{url}'")));
    let run = || finish(&mut place.command(&["run", "-f", "r.yaml", "--explain-fetch"])).stderr;
    assert!(run().contains("WasmPlugin shop/a: pulled: its url was not pulled before"));
    assert!(run().contains("WasmPlugin shop/a: not pulled: its url was pulled before"));
}

#[test]
fn a_run_that_is_killed_leaves_no_half_of_a_module() {
    let mut module = wat::parse_str(MODULE).unwrap();
    module.resize(96 << 20, 0);
    let place = Place::new(&plugin("a", "url: 'oci://ghcr.io/example/x:1'"));
    fs::write(place.0.path().join("m.wasm"), &module).unwrap();
    let arguments = ["run", "-f", "r.yaml", "--image", "oci://ghcr.io/example/x:1=m.wasm"];
    let is_half = |path: &PathBuf| {
        path.to_string_lossy().contains(".tmp-") && fs::metadata(path).is_ok_and(|file| file.len() > 1 << 20)
    };
    let half = |found: &[PathBuf]| found.iter().any(is_half);
    for _ in 0..3 {
        let mut child = place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It is writing when there is a large file without a name of its own.
        while !half(&place.modules()) && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for path in place.modules().iter().filter(|path| path.extension().is_some_and(|end| end == "wasm")) {
            assert!(fs::read(path).unwrap() == module, "{}", path.display());
        }
    }
    assert!(half(&place.modules()), "none of them was killed while it wrote");
    let ended = finish(&mut place.command(&arguments));
    assert!(ended.stderr.contains("could not build `plugwright-harness`"), "{}", ended.stderr);
    let found = place.modules();
    let whole = found.iter().find(|path| path.extension().is_some_and(|end| end == "wasm"));
    assert!(fs::read(whole.unwrap_or_else(|| panic!("{found:?}"))).unwrap() == module);
}

#[test]
fn several_processes_and_some_that_are_killed_share_one_cache() {
    let mut module = wat::parse_str(MODULE).unwrap();
    // A custom section, so that there is something to write for a while.
    module.extend([0, 0x81, 0x80, 0x80, 0x04, 0]);
    module.resize(module.len() + (8 << 20), b'x');
    let url = format!("http://{}/x.wasm", serve(module.clone()));
    let mut resources = String::new();
    for name in ["a", "b", "c"] {
        resources += &plugin(name, &format!("url: '{url}?{name}'"));
    }
    let place = Place::new(&resources);
    let start = || {
        let mut command = place.command(&["run", "-f", "r.yaml", "--explain-fetch"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for round in 0..3 {
        let mut children: Vec<_> = (0..4).map(|_| start()).collect();
        // Two are killed as soon as something is on its way, whatever they are doing then.
        while place.modules().is_empty() && round == 0 && children[0].try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        for child in &mut children[..2] {
            child.kill().unwrap();
        }
        for child in children {
            let ended = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(said.is_empty() || !said.contains("panicked"), "{said}");
            // Killed, or at the harness, which is not to be had here.
            assert!(ended.status.code().is_none() || said.contains("could not build `plugwright-harness`"), "{said}");
        }
        for path in place.modules().iter().filter(|path| path.extension().is_some_and(|end| end == "wasm")) {
            assert!(fs::read(path).unwrap() == module, "{}", path.display());
        }
    }
    let last = finish(&mut place.command(&["run", "-f", "r.yaml", "--explain-fetch"])).stderr;
    for name in ["a", "b", "c"] {
        assert!(last.contains(&format!("WasmPlugin shop/{name}: not pulled: its url was pulled before")), "{last}");
    }
}
