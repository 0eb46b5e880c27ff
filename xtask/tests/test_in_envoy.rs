//! `test --envoy`: suites in the harness and in a real Envoy, beside each other.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Ended, command, finish, repository};

/// A folder with a plugin suite, and the plugin that it is for.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = repository().join("xtask/tests/suites");
    let probe = wat::parse_file(from.join("probe.wat")).unwrap();
    fs::write(folder.path().join("probe.wasm"), probe).unwrap();
    fs::copy(from.join("envoy.yaml"), folder.path().join("envoy.yaml")).unwrap();
    folder
}

fn test(folder: &Path, envoy: &Path, arguments: &[&str]) -> Ended {
    let arguments = [&["test", "--envoy", "--timeout", "1"], arguments].concat();
    finish(command(folder, &arguments).env("ENVOY", envoy))
}

/// Without times and addresses, which differ.
fn untimed(report: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" (") {
        Some((start, end)) if end.ends_with("s)") || end.ends_with("not run in Envoy)") => format!("{start}\n"),
        _ => format!("{}\n", line.split(" address 0x").next().unwrap_or_default()),
    };
    report.lines().map(line).collect()
}

#[test]
fn what_differs_is_shown_and_the_rest_still_runs() {
    let folder = folder();
    let files = ["--junit", "junit.xml", "--report", "report.html"];
    let arguments = [&["envoy.yaml", "--plugin", "probe.wasm"], &files[..]].concat();
    let ended = test(folder.path(), &support::envoy::program(), &arguments).refused(1, &["7 tests did not pass"]);
    let golden = fs::read_to_string(repository().join("xtask/tests/suites/envoy.txt")).unwrap();
    assert_eq!(untimed(&ended.stdout), golden);
    let junit = fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    let counts = "<testsuite name=\"envoy.yaml\" tests=\"28\" failures=\"6\" errors=\"5\" skipped=\"3\"";
    assert!(junit.contains(counts), "{junit}");
    let skipped =
        "<testcase classname=\"envoy.yaml in Envoy\" name=\"properties\" time=\"0.000000\"><skipped message=\"it sets ";
    assert!(junit.contains(skipped), "{junit}");
    let report = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(report.contains(r#""not_run":"it sets `properties`"#), "{report}");
}

#[test]
fn a_chain_is_the_same_in_both_down_to_what_its_servers_saw() {
    let suite = repository().join("xtask/tests/suites/envoy-chain/agrees.yaml");
    let arguments = [suite.to_str().unwrap(), "--json"];
    let ended = test(repository(), &support::envoy::program(), &arguments).fine();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["envoy"], serde_json::json!({"agreed": 8, "differed": 0, "not_run": 2}));
    let first = &report["suites"][0]["tests"][0]["envoy"];
    assert_eq!(first["verdict"], "passed");
    assert_eq!(first["logs"].as_array().unwrap().len(), 2, "{first}");
    let date = "tests[0].requests[0].expect.response.headers[2]: Envoy's clock is real";
    assert_eq!(first["not_compared"][0], date);
    let last = &report["suites"][0]["tests"][7]["envoy"];
    assert_eq!(*last, serde_json::json!({"verdict": "not_run", "reason": "it is about the harness"}));
}

#[test]
fn grpc_servers_are_the_same_in_both() {
    support::examples::modules();
    let arguments = ["sdk/tests/chains/grpc.yaml", "--json"];
    let ended = test(repository(), &support::envoy::program(), &arguments).fine();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["envoy"], serde_json::json!({"agreed": 5, "differed": 0, "not_run": 2}));
}

#[test]
fn a_grpc_stream_is_the_same_in_both_down_to_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let suites = repository().join("xtask/tests/suites");
    fs::create_dir(folder.path().join("resources")).unwrap();
    for file in ["grpc.yaml", "resources/plugin.yaml"] {
        fs::copy(suites.join("envoy-chain").join(file), folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join("grpc.wasm"), wat::parse_file(suites.join("grpc.wat")).unwrap()).unwrap();
    let ended = test(folder.path(), &support::envoy::program(), &["grpc.yaml"]).fine();
    let last = "in Envoy and the harness: 8 agreed, 0 differed, 0 not run in Envoy\n";
    assert!(ended.stdout.ends_with(last), "{}", ended.stdout);
}

#[test]
fn connections_are_the_same_in_both() {
    support::examples::modules();
    let arguments = ["sdk/tests/chains/network.yaml", "--json"];
    let ended = test(repository(), &support::envoy::program(), &arguments).fine();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["envoy"], serde_json::json!({"agreed": 7, "differed": 0, "not_run": 0}));
}

#[test]
fn a_chain_that_differs_fails() {
    let suite = repository().join("xtask/tests/suites/envoy-chain/differs.yaml");
    let ended = test(repository(), &support::envoy::program(), &[suite.to_str().unwrap()]);
    let expected = "  FAILED a script sees the machine
         harness: passed
         harness's log: info envoy_on_response() function not found. Lua filter will not hook responses.
         harness's log: info script log: asked for /io
         Envoy: failed
         tests[0].requests[0].expect.upstream.headers[0]: upstream's request header x-io
           - false
           + true
         Envoy's log: info envoy_on_response() function not found. Lua filter will not hook responses.
         Envoy's log: info script log: asked for /io
  ok     and this one does not look
2 tests: 1 passed, 1 failed, 0 broken
in Envoy and the harness: 1 agreed, 1 differed, 0 not run in Envoy
";
    assert!(untimed(&ended.stdout).ends_with(expected), "{}", ended.stdout);
    ended.refused(1, &["1 test did not pass"]);
}

#[test]
fn a_plugin_in_a_chain_is_told_from_its_other_vms() {
    let folder = folder();
    fs::create_dir(folder.path().join("resources")).unwrap();
    for file in ["plugin.yaml", "resources/plugin.yaml"] {
        let from = repository().join("xtask/tests/suites/envoy-chain").join(file);
        fs::copy(from, folder.path().join(file)).unwrap();
    }
    let ended = test(folder.path(), &support::envoy::program(), &["plugin.yaml"]);
    let report = untimed(&ended.stdout);
    for expected in [
        "plugin.yaml\n  ok     it logs, counts and answers\n  ok     it traps\n  BROKEN it crashes Envoy, and not the harness\n",
        "`tests[2].requests[0]`: Envoy ended with signal 6\n           panic: unset oneof\n",
        "`tests[3].requests[0]`: Envoy does not answer, and was ended\n",
        "in Envoy and the harness: 2 agreed, 2 differed, 0 not run in Envoy\n",
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
    ended.refused(1, &["2 tests did not pass"]);
}

#[test]
fn the_sample_plugins_and_the_ambient_guide_agree() {
    let suites = ["basic-auth", "acl-check", "check-header", "header-append", "examples/ambient/tests"];
    let ended = test(repository(), &support::envoy::program(), &suites).fine();
    assert!(ended.stdout.ends_with("agreed, 0 differed, 0 not run in Envoy\n"), "{}", ended.stdout);
}

/// A program that says it is an Envoy, and what it does otherwise.
fn script(folder: &Path, does: &str) -> PathBuf {
    let path = folder.join("envoy");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'envoy  version: 0/1.40.0/Clean/RELEASE/x'; exit; fi\n{does}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_envoy_that_is_not_there_is_said_before_anything_runs() {
    let folder = folder();
    let arguments = ["envoy.yaml", "--plugin", "probe.wasm"];
    let run = |envoy: &str| test(folder.path(), Path::new(envoy), &arguments);
    run("/no/such/envoy").refused(3, &["failed to run Envoy: /no/such/envoy is no program", "hint: "]);
    run("/bin/true").refused(3, &["/bin/true does not say which Envoy it is", "hint: "]);
    let both = ["envoy.yaml", "--plugin", "probe.wasm", "--update"];
    test(folder.path(), &support::envoy::program(), &both).refused(2, &["cannot be used with '--update'"]);
}

#[test]
fn an_envoy_that_refuses_or_ends_says_why_in_each_test() {
    let folder = folder();
    let arguments = ["envoy.yaml", "--plugin", "probe.wasm", "--filter", "/both see|rest/"];
    let refuses = "echo '[[1|critical|main]] error initializing configuration: no good' >&2; exit 1";
    let ended = test(folder.path(), &script(folder.path(), refuses), &arguments);
    let said = "         Envoy refuses the chain:\n           error initializing configuration: no good\n";
    assert_eq!(ended.stdout.matches(said).count(), 2, "{}", ended.stdout);
    ended.refused(1, &["2 tests did not pass"]);

    let ended = test(folder.path(), &script(folder.path(), "kill -SEGV $$"), &arguments);
    assert_eq!(ended.stdout.matches("Envoy ended with signal 11 before it served").count(), 2, "{}", ended.stdout);

    fs::write(folder.path().join("probe.wasm"), wat::parse_str("(module)").unwrap()).unwrap();
    let ended = test(folder.path(), &support::envoy::program(), &arguments);
    assert!(ended.stdout.contains("failed to load the module probe.wasm"), "{}", ended.stdout);
    assert!(ended.stdout.contains("Envoy refuses the chain:\n           "), "{}", ended.stdout);
}
