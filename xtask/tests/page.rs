//! The trace page and the report in a real browser: `run --page`, and what each shows of traffic that means it ill.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::talking::Talking;
use support::{command, exchange, finish, repository, request};

/// Two scripts in a row: one that adds, removes, changes and logs, and one that denies.
const RESOURCES: &str = r#"apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: "change", namespace: default}
spec:
  lua:
    inlineCode: |
      function envoy_on_request(h)
        h:headers():add('x-added', 'by <b>change</b>')
        local long = h:headers():get('x-long')
        if long then h:headers():replace('x-long', string.sub(long, 1, 2000) .. 'w') end
        h:logInfo('seen <script>alert(2)</script> ' .. h:headers():get(':path'))
      end
      function envoy_on_response(h)
        h:headers():replace('content-type', 'application/json; charset=utf-8')
        h:headers():add('x-frame-options', 'DENY')
      end
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: "deny", namespace: default}
spec:
  lua:
    inlineCode: |
      function envoy_on_request(h)
        if string.find(h:headers():get(':path'), 'deny') then
          h:respond({[':status'] = '403', ['content-type'] = 'text/plain'}, 'not today\nnor tomorrow')
        end
      end
---
"#;

#[track_caller]
fn start(folder: &Path, arguments: &[&str]) -> Talking {
    fs::write(folder.join("r.yaml"), RESOURCES).unwrap();
    let all = [&["run", "-f", "r.yaml", "--listen", "127.0.0.1:0", "--workers", "2"], arguments].concat();
    Talking::start(command(folder, &all).env("XDG_CACHE_HOME", folder.join("cache")))
}

/// A run of tests in which everything there is has happened.
fn report() -> String {
    let data = fs::read(repository().join("page/tests/report.json")).unwrap();
    page::report(&serde_json::from_slice(&data).unwrap())
}

#[test]
fn the_page_and_the_report_are_what_they_should_be_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = start(folder.path(), &["--page"]);
    let page = run.page();
    let report_file = folder.path().join("report.html");
    fs::write(&report_file, report()).unwrap();
    let modules = repository().join("target/tools/browser");
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&shots).unwrap();
    assert!(
        modules.join("node_modules").is_dir(),
        "no browser's driver in {}: run `cargo xtask ci --prepare`",
        modules.display()
    );
    // The script is read from standard input: so its modules are looked for in the working directory.
    let script = fs::File::open(repository().join("page/tests/browser/look.mjs")).unwrap();
    let mut node = Command::new("node");
    node.current_dir(&modules).args(["--input-type=module", "-"]).stdin(script).env_remove("NODE_OPTIONS");
    node.arg(format!("http://{page}/__plugwright")).arg(format!("http://{}", run.address));
    let ended = finish(node.arg(&report_file).arg(&shots));
    assert_eq!((ended.code, ended.stdout.trim()), (0, "fine"), "{}", ended.stderr);
}

#[test]
fn the_page_is_for_this_machine_by_its_own_names_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = start(folder.path(), &["--page"]);
    let page = run.page();
    let address = page.as_str();
    let reply = request(address, "GET", "/__plugwright", &[]);
    assert_eq!(reply.status, 200);
    let header = |wanted: &str| reply.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    assert!(header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    assert_eq!(header("cross-origin-resource-policy"), Some("same-origin"));
    for (host, status) in [("localhost:1", 200), ("evil.example", 403), ("127.0.0.1.evil.example:80", 403)] {
        for path in ["/__plugwright", "/__plugwright/nothing"] {
            let reply = exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
            let expected = if status == 200 && path.ends_with("nothing") { 404 } else { status };
            assert_eq!(reply.status, expected, "{host}{path}");
        }
    }
    assert_eq!(request(address, "POST", "/__plugwright", &[]).status, 405);
    // What only begins like it is something else, as are the metrics.
    assert_eq!(request(address, "GET", "/__plugwright2", &[]).status, 404);
    assert_eq!(request(address, "GET", "/stats/prometheus", &[]).status, 200);
}

#[test]
fn without_being_asked_for_the_page_takes_nothing_from_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let has_passed = |reply: &support::Response| reply.headers.iter().any(|(name, _)| name == "x-frame-options");
    for arguments in [&[][..], &["--page"][..]] {
        let run = start(folder.path(), arguments);
        let reply = request(&run.address, "GET", "/__plugwright", &[]);
        assert!(reply.status == 200 && has_passed(&reply) && reply.body.starts_with(b"{"), "{arguments:?}: {reply:?}");
    }
    let mut run = start(folder.path(), &["--page=listener"]);
    assert_eq!(run.page(), run.address);
    let reply = request(&run.address, "GET", "/__plugwright", &[]);
    assert!(reply.status == 200 && reply.body.starts_with(b"<!doctype html>"), "{reply:?}");
    let reply = request(&run.address, "GET", "/__plugwright2", &[]);
    assert!(has_passed(&reply) && reply.body.starts_with(b"{"), "{reply:?}");
}
