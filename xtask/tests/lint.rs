//! `lint` on real files: errors, traps, and each pluginConfig against the schema in its plugin's image.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Ended, command, dist, plugwright, repository};

fn plugin(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}"
    )
}

fn lint(folder: &Path, arguments: &[&str]) -> Ended {
    plugwright(folder, &[&["lint"], arguments].concat())
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// `rule line` of each finding.
fn rules(document: &Value, of: &str) -> Vec<String> {
    let rule = |finding: &Value| format!("{} {}", finding["rule"].as_str().unwrap(), finding["line"]);
    document[of].as_array().unwrap().iter().map(rule).collect()
}

fn clean() -> String {
    plugin("clean", "  wasm: {url: 'oci://h/clean:1'}\n")
}

fn trap() -> String {
    plugin("trap", "  phase: AUTHN\n  wasm:\n    url: oci://h/trap:1\n    failStrategy: FAIL_OPEN\n")
}

#[test]
fn clean_resources_are_fine() {
    let folder = folder(&[("r.yaml", &clean())]);
    let ended = lint(folder.path(), &["-f", "r.yaml", "--deny", "warnings"]).fine();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", "nothing to say\n"));
}

#[test]
fn an_input_without_extensions_is_told_apart_from_one_that_is_fine() {
    let folder = folder(&[
        ("empty.yaml", "# nothing yet\n"),
        ("pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: p}}\n"),
    ]);
    for file in ["empty.yaml", "pod.yaml"] {
        let ended = lint(folder.path(), &["-f", file]).fine();
        assert_eq!(ended.stderr, "nothing to say: the input has no extension\n");
    }
}

#[test]
fn a_reason_is_said_once_for_errors_that_follow_each_other() {
    let folder = folder(&[("r.yaml", &plugin("a", "  phse: AUTHN\n  wasm: {ulr: x, url: 'ftp://h/x'}\n"))]);
    let ended = lint(folder.path(), &["-f", "r.yaml"]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stdout.matches(": error[").count(), 3, "{}", ended.stdout);
    assert_eq!(ended.stdout.matches("  why: a resource with an error is refused").count(), 1, "{}", ended.stdout);
}

#[test]
fn a_namespace_without_a_name_is_a_usage_error() {
    let folder = folder(&[("r.yaml", &clean())]);
    lint(folder.path(), &["-f", "r.yaml", "--root-namespace", ""]).refused(2, &["--root-namespace"]);
    let explain = ["explain", "-f", "r.yaml", "--kind", "sidecar", "--namespace", ""];
    plugwright(folder.path(), &explain).refused(2, &["--namespace"]);
}

#[test]
fn warnings_are_told_and_can_be_denied_or_allowed() {
    let folder = folder(&[("sub/r.yaml", &(clean() + &trap()))]);
    let ended = lint(folder.path(), &["-f", "sub"]).fine();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{}", ended.stdout);
    assert_eq!(
        lines[0],
        "sub/r.yaml:15:5: warning[fail-open-auth]: TrafficExtension shop/trap: `spec.wasm.failStrategy`: it is to fail \
         open, in phase AUTHN"
    );
    assert!(lines[1].starts_with("  why: ") && lines[2].starts_with("  fix: "));
    assert_eq!(ended.stderr, "2 warnings\n");
    lint(folder.path(), &["-f", "sub", "--deny", "warnings"]).refused(1, &["2 warnings"]);
    let allow = ["-f", "sub", "--deny", "warnings", "--allow", "fail-open-auth", "--allow", "fail-open-crash"];
    lint(folder.path(), &allow).fine();
    lint(folder.path(), &["-f", "sub", "--allow", "fail-open"]).refused(2, &["there is no rule `fail-open`"]);
}

#[test]
fn errors_and_warnings_come_together_in_the_order_of_the_file() {
    let bad = plugin("bad", "  phse: AUTHN\n  wasm:\n    url: registry:5000/x\n");
    let more = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m}}\n";
    let folder = folder(&[("r.yaml", &(trap() + &bad + more)), ("broken.yaml", "a: [")]);
    let ended = lint(folder.path(), &["-f", "r.yaml", "--json"]).refused(1, &["2 errors, 2 warnings"]);
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(rules(&document, "errors"), ["unknown-field 15", "url-host-port 17"]);
    assert_eq!(rules(&document, "warnings"), ["fail-open-auth 9", "fail-open-crash 9"]);
    assert_eq!(document["skipped"], json!({"ConfigMap": 1}));
    let error = &document["errors"][1];
    let expected = [
        ("file", json!("r.yaml")),
        ("column", json!(10)),
        ("resource", json!("TrafficExtension shop/bad")),
        ("path", json!("spec.wasm.url")),
        ("fix", json!("write `oci://registry:5000/x`")),
    ];
    for (key, value) in expected {
        assert_eq!(error[key], value, "{key}");
    }

    let ended = lint(folder.path(), &["-f", "r.yaml", "broken.yaml"]).refused(1, &["3 errors, 2 warnings"]);
    let heads: Vec<&str> = ended.stdout.lines().filter(|line| !line.starts_with("  ")).collect();
    assert_eq!(heads.len(), 5, "{}", ended.stdout);
    assert!(heads[0].starts_with("broken.yaml:") && heads[0].contains("error[syntax]"), "{}", heads[0]);
    assert!(heads[1].contains("r.yaml:9:5: warning[fail-open-auth]") && heads[3].contains("error[unknown-field]"));
}

#[test]
fn standard_input_is_linted_too() {
    let mut child = command(repository(), &["lint", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(trap().as_bytes()).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.starts_with("-:9:5: warning[fail-open-auth]"), "{text}");
}

#[test]
fn usage_and_missing_files() {
    let folder = folder(&[("empty/readme.txt", "")]);
    lint(folder.path(), &[]).refused(2, &["--filename"]);
    lint(folder.path(), &["-f", "empty"]).refused(2, &["no .yaml"]);
    lint(folder.path(), &["-f", "none.yaml"]).refused(3, &["none.yaml"]);
    lint(folder.path(), &["-f", "x", "--deny", "errors"]).refused(2, &["warnings"]);
    lint(folder.path(), &["-f", "x", "--image", "a=b"]).refused(2, &["--fetch"]);
}

const URL: &str = "oci://ghcr.io/acme/basic-auth:1";

/// Lints resources whose image is the packaged basic-auth.
fn lint_packaged(resources: &str, more: &[&str]) -> Ended {
    let folder = folder(&[("r.yaml", resources)]);
    let image = format!("{URL}=oci:{}:basic-auth", dist().display());
    lint(folder.path(), &[&["-f", "r.yaml", "--fetch", "--image", &image], more].concat())
}

#[test]
fn a_plugin_config_is_held_against_the_schema_of_its_image() {
    let config = |rule: &str| {
        plugin("auth", &format!("  wasm:\n    url: {URL}\n    pluginConfig:\n      basic_auth_rules:\n{rule}"))
    };
    let good = config("      - {prefix: /a, request_methods: [GET], credentials: ['hunter2:x']}\n");
    lint_packaged(&good, &["--allow", "secret-in-config", "--deny", "warnings"]).fine();

    let typo = config("      - prefix: /a\n        request_method: [GET]\n        credentials: hunter2\n      - {}\n");
    let ended = lint_packaged(&typo, &["--json"]).refused(1, &["error"]);
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    let errors: Vec<String> = document["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            let text = |key: &str| error[key].as_str().unwrap_or("-");
            format!("{} {} {}: {}; {}", text("rule"), error["line"], text("path"), text("what"), text("fix"))
        })
        .collect();
    for expected in [
        "plugin-config 11 spec.wasm.pluginConfig.basic_auth_rules[0].request_method: is not a field here; known are \
         credentials, exact, hosts, prefix, request_methods, suffix; write `request_methods`",
        "plugin-config 12 spec.wasm.pluginConfig.basic_auth_rules[0].credentials: must be of type array, is a string; -",
        "plugin-config 10 spec.wasm.pluginConfig.basic_auth_rules[0].request_methods: is missing; -",
        "plugin-config 13 spec.wasm.pluginConfig.basic_auth_rules[1].credentials: is missing; -",
    ] {
        assert!(errors.iter().any(|error| error == expected), "{expected}\nis not in {errors:#?}");
    }
    assert!(!ended.stdout.contains("hunter2"));

    // Of each kind the configuration is where that kind has it.
    let wasm_plugin = format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: auth}}\nspec:\n  url: {URL}\n  \
         pluginConfig:\n    realm: 1\n"
    );
    let ended = lint_packaged(&wasm_plugin, &["--allow", "wasm-plugin-superseded"]).refused(1, &["1 error"]);
    assert!(
        ended
            .stdout
            .starts_with("r.yaml:7:5: error[plugin-config]: WasmPlugin default/auth: `spec.pluginConfig.realm`: "),
        "{}",
        ended.stdout
    );
}

#[test]
fn an_image_itself_is_looked_at() {
    let module = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
            (func (export "malloc") (param i32) (result i32) i32.const 0))"#,
    );
    let folder = folder(&[("r.yaml", &clean())]);
    fs::write(folder.path().join("m.wasm"), module.unwrap()).unwrap();
    let image = "oci://h/clean:1=file:m.wasm";
    let ended = lint(folder.path(), &["-f", "r.yaml", "--fetch", "--image", image]).fine();
    assert!(ended.stderr.contains("TrafficExtension shop/clean: its image has no schema"), "{}", ended.stderr);

    let digest = "0".repeat(64);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream.try_clone().unwrap()));
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
        }
    });
    let pinned = plugin("pinned", &format!("  wasm: {{url: 'http://{address}/x', sha256: '{digest}'}}\n"));
    fs::write(folder.path().join("r.yaml"), pinned).unwrap();
    let ended = lint(folder.path(), &["-f", "r.yaml", "--fetch"]).refused(1, &["error"]);
    assert!(ended.stdout.starts_with("r.yaml:6:10: error["), "{}", ended.stdout);

    let gone = plugin("gone", "  wasm: {url: 'http://127.0.0.1:1/x'}\n");
    fs::write(folder.path().join("r.yaml"), gone).unwrap();
    lint(folder.path(), &["-f", "r.yaml", "--fetch"]).refused(3, &["TrafficExtension shop/gone"]);
}

#[test]
fn a_root_id_that_the_module_does_not_answer_to_is_named_with_the_nearest() {
    let resource = |spec: &str| plugin("x", &format!("  wasm:\n    url: oci://h/rooted:1\n{spec}"));
    let maistras = "apiVersion: maistra.io/v1\nkind: ServiceMeshExtension\nmetadata: {name: x, namespace: shop}\n\
                    spec: {image: 'h/rooted:1'}\n";
    let answers = "image's module, which answers to `greeter`, `parser`";
    for (text, expected) in [
        (resource("    pluginName: greeter\n"), None),
        (
            resource("    pluginName: greter\n"),
            Some(format!("r.yaml:8:5: `spec.wasm.pluginName`: `greter` is no root id of the {answers}; write `greeter`")),
        ),
        (
            resource(""),
            Some("r.yaml:6:3: `spec.wasm.pluginName`: is not set, and the image's module answers to `greeter`, `parser`; -"
                .to_owned()),
        ),
        (
            maistras.to_owned(),
            Some(format!(
                "r.yaml:3:12: `metadata.name`: the root id that is made of it, `x_root`, is none of the {answers}; -"
            )),
        ),
    ] {
        let folder = folder(&[("r.yaml", &text)]);
        let module = wat::parse_str(
            r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
                (func (export "_initialize")) (func (export "malloc") (param i32) (result i32) i32.const 0))"#,
        );
        fs::write(folder.path().join("m.wasm"), module.unwrap()).unwrap();
        let package = ["package", "--module", "m.wasm", "--name", "rooted", "--root-id", "greeter", "--root-id", "parser"];
        plugwright(folder.path(), &package).fine();
        let arguments = ["-f", "r.yaml", "--fetch", "--image", "oci://h/rooted:1=oci:dist:rooted", "--json"];
        let document: Value = serde_json::from_str(&lint(folder.path(), &arguments).fine().stdout).unwrap();
        let warnings = document["warnings"].as_array().unwrap();
        let found = warnings.iter().find(|warning| warning["rule"] == "unknown-root-id").map(|warning| {
            let text = |key: &str| warning[key].as_str().unwrap_or("-");
            let place = format!("{}:{}:{}", text("file"), warning["line"], warning["column"]);
            format!("{place}: `{}`: {}; {}", text("path"), text("what"), text("fix"))
        });
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn the_examples_have_no_errors() {
    lint(repository(), &["-f", "examples/ambient"]).fine();
}
