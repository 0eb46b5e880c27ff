//! Chain suites from the command line: the documented one, the examples', and what is said of bad ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;

use support::{dist, plugwright, repository};

/// The block of the documentation behind this text.
fn block(before: &str) -> String {
    let text = fs::read_to_string(repository().join("docs/chain-tests.md")).unwrap();
    let (_, rest) = text.split_once(&format!("{before}:\n\n```yaml\n")).unwrap();
    rest.split_once("```\n").unwrap().0.to_owned()
}

fn documented(folder: &Path) -> String {
    fs::write(folder.join("gateway.yaml"), block("for example")).unwrap();
    block("\nA suite")
}

#[test]
fn the_documented_suite_passes_and_fails_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let suite = documented(folder.path());
    let file = folder.path().join("tests.yaml");
    fs::write(&file, &suite).unwrap();
    let passed = plugwright(repository(), &["test", file.to_str().unwrap()]).fine();
    assert!(passed.stdout.contains("  ok     a visitor is asked for credentials ("), "{}", passed.stdout);

    let spoilt = suite.replace("status: 401", "status: 403").replace("-> basic-auth ->", "->");
    fs::write(&file, spoilt).unwrap();
    let failed = plugwright(repository(), &["test", file.to_str().unwrap()]);
    let expected = "
         tests[0].requests[0].expect.response.status: response status
           - 403
           + 401
         tests[0].expect.chain: chain
           - -> router
           + -> basic-auth -> router
1 test: 0 passed, 1 failed, 0 broken
";
    assert!(failed.stdout.ends_with(expected), "{}", failed.stdout);
    failed.refused(1, &["1 test did not pass"]);
}

#[test]
fn the_examples_suites_pass() {
    for suite in ["examples/ambient/tests", "examples/openid/tests"] {
        let ran = plugwright(repository(), &["test", suite]).fine();
        assert!(ran.stdout.lines().count() > 3, "{}", ran.stdout);
    }
}

#[test]
fn a_configuration_that_is_not_what_its_plugins_schema_says_is_a_warning_of_its_suite() {
    let folder = tempfile::tempdir().unwrap();
    let suite = documented(folder.path());
    let resource = fs::read_to_string(folder.path().join("gateway.yaml")).unwrap();
    fs::write(folder.path().join("gateway.yaml"), resource.replace("request_methods", "request_method")).unwrap();
    let image = format!("reference: oci:{}:basic-auth", dist().display());
    for suite in [suite.clone(), suite.replace("plugin: basic-auth", &image)] {
        let file = folder.path().join("tests.yaml");
        fs::write(&file, suite).unwrap();
        let ended = plugwright(repository(), &["test", file.to_str().unwrap(), "--json"]);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let warnings: Vec<&str> = report["suites"][0]["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|warning| warning.as_str().unwrap())
            .collect();
        let start = "WasmPlugin istio-ingress/basic-auth: `basic_auth_rules[0].request_method";
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with(start)), "{warnings:?}");
        assert!(!ended.stdout.contains("admin:secret"), "{}", ended.stdout);
    }
}

#[test]
fn a_suite_has_grpc_servers() {
    support::examples::modules();
    let ran = plugwright(repository(), &["test", "sdk/tests/chains/grpc.yaml"]).fine();
    assert!(ran.stdout.ends_with("7 tests: 7 passed, 0 failed, 0 broken\n"), "{}", ran.stdout);
}

#[test]
fn a_suite_has_connections() {
    support::examples::modules();
    let ran = plugwright(repository(), &["test", "sdk/tests/chains/network.yaml"]).fine();
    assert!(ran.stdout.ends_with("7 tests: 7 passed, 0 failed, 0 broken\n"), "{}", ran.stdout);
}

#[test]
fn what_is_wrong_with_a_suite_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tests.yaml");
    let suite = documented(folder.path());
    let refused = |from: &str, to: &str, words: &[&str]| {
        fs::write(&file, suite.replacen(from, to, 1)).unwrap();
        let ran = plugwright(repository(), &["test", file.to_str().unwrap()]);
        for word in words {
            assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
        }
        ran.refused(1, &["1 test did not pass"]);
    };
    refused(
        "upstream:",
        "upstraem:",
        &["tests.yaml:20:7: `tests[0].requests[0].expect.upstraem`: unknown field, did you mean `upstream`?"],
    );
    refused("  plugin: basic-auth\n", "", &["`images[0]`: one of plugin, module, reference must be given"]);
    refused("tests:", "tests: [", &["not valid YAML"]);
}

#[test]
fn a_chain_that_cannot_be_had_breaks_its_tests_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    documented(folder.path());
    let file = folder.path().join("tests.yaml");
    let lua = "{apiVersion: extensions.istio.io/v1alpha1, kind: TrafficExtension, metadata: {name: l, namespace: istio-ingress}, \
               spec: {selector: {matchLabels: {istio: ingressgateway}}, lua: {inlineCode: 'function envoy_on_request(h) end'}}}";
    fs::write(folder.path().join("lua.yaml"), lua).unwrap();
    let text = "apiVersion: plugwright.dev/v1alpha1
kind: ChainTest
resources: [lua.yaml]
tests:
- {name: no file, resources: [nothing.yaml], requests: [{expect: {response: {status: 200}}}]}
- {name: no module, resources: [gateway.yaml], requests: [{expect: {response: {status: 200}}}]}
- {name: fine, requests: [{expect: {response: {status: 200}}}]}
";
    fs::write(
        &file,
        text.replace(
            "resources: [lua",
            "images: [{url: 'oci://registry.example/plugins/basic-auth:1.0.0', module: no.wasm}]\nresources: [lua",
        ),
    )
    .unwrap();
    let ran = plugwright(repository(), &["test", file.to_str().unwrap()]);
    assert!(ran.stdout.contains("  BROKEN no file (") && ran.stdout.contains("nothing.yaml"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  BROKEN no module (") && ran.stdout.contains("no.wasm"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  ok     fine ("), "{}", ran.stdout);
    ran.refused(1, &["2 tests did not pass"]);
}

/// The suites of a script and a module, beside the module.
fn fixtures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let suites = repository().join("xtask/tests/suites");
    for entry in fs::read_dir(suites.join("chain")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(folder.path().join("probe.wasm"), wat::parse_file(suites.join("probe.wat")).unwrap()).unwrap();
    folder
}

#[test]
fn a_suite_has_scripts_and_modules_and_servers_that_do_what_servers_do() {
    let ran = plugwright(fixtures().path(), &["test", "features.yaml"]).fine();
    assert!(ran.stdout.ends_with("7 tests: 7 passed, 0 failed, 0 broken\n"), "{}", ran.stdout);
}

#[test]
fn what_does_not_end_or_is_not_there_is_said_of_its_test_and_the_rest_runs() {
    let folder = fixtures();
    let arguments = ["test", "bad.yaml", "--timeout", "1", "--json", "--report", "report.html"];
    let ran = plugwright(folder.path(), &arguments);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let tests = report["suites"][0]["tests"].as_array().unwrap();
    let verdicts: Vec<_> = tests.iter().map(|test| test["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["failed", "failed", "broken", "broken", "broken", "passed"], "{}", ran.stdout);
    let said = |test: usize| tests[test].to_string();
    for (test, part) in [
        (0, "stream_idle_timeout"),
        (1, "the callback exceeded its time limit"),
        (2, "127.0.0.1:1"),
        (3, "nothing.bin"),
        (4, "nothing.yaml"),
    ] {
        assert!(said(test).contains(part), "{part}: {}", said(test));
    }
    // What the log of a start says is there once.
    assert_eq!(tests[5]["logs"], serde_json::json!(["info wasm log: started"]));
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("a port that nobody listens on") && page.contains("\"traces\":[{"), "{}", page.len());
    ran.refused(1, &["5 tests did not pass"]);
}
