//! `test --coverage`: what was not reached is listed, nothing else is different, and what cannot be found out is said.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Ended, plugwright, probe as folder, repository};

const BODY: &str =
    "- name: with a body\n  request_body:\n  - {input: {content: abc}, result: {body: [{exact: \"a<>c\"}]}}\n";

fn test(folder: &Path, arguments: &[&str]) -> Ended {
    plugwright(folder, &[&["test", "--plugin", "probe.wasm", "--coverage"], arguments].concat())
}

/// The functions of the first module, and whether they were reached.
fn functions(report: &Value) -> Vec<(String, bool)> {
    let all = report["coverage"][0]["functions"].as_array().unwrap();
    all.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one["reached"] == true)).collect()
}

#[test]
fn a_callback_that_no_test_calls_is_not_reached_and_one_that_a_test_calls_is() {
    let folder = folder(&["reaches.yaml"]);
    let path = folder.path();
    let ended = test(path, &["reaches.yaml", "--coverage-min", "70"]);
    let expected = [
        "1 test: 1 passed, 0 failed, 0 broken",
        "coverage of probe.wasm (all functions: nothing tells the plugin's own): 5 of 8 functions reached, 62.5 %",
        "  not reached: malloc",
        "  not reached: proxy_abi_version_0_2_1",
        "  not reached: proxy_on_request_body",
    ];
    assert_eq!(ended.stdout.lines().skip(2).collect::<Vec<_>>(), expected);
    ended.refused(1, &["the coverage of probe.wasm is under 70 %"]);

    let suite = fs::read_to_string(path.join("reaches.yaml")).unwrap();
    fs::write(path.join("reaches.yaml"), format!("{suite}{BODY}")).unwrap();
    let ended = test(
        path,
        &["reaches.yaml", "--coverage-min", "70%", "--json", "--report", "report.html", "--junit", "junit.xml"],
    )
    .fine();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["coverage"][0]["summary"], serde_json::json!({"total": 8, "reached": 6, "percent": 75.0}));
    let reached = functions(&report);
    assert!(reached.contains(&("proxy_on_request_body".to_owned(), true)), "{reached:?}");
    assert!(reached.contains(&("proxy_abi_version_0_2_1".to_owned(), false)), "{reached:?}");
    assert!(fs::read_to_string(path.join("report.html")).unwrap().contains("\"coverage\":[{\"functions\":["));
    let junit = fs::read_to_string(path.join("junit.xml")).unwrap();
    assert!(junit.contains("<property name=\"coverage.probe.wasm.functions.percent\" value=\"75.00\"/>"), "{junit}");
    // Only the tests that run reach anything.
    let ended = test(path, &["reaches.yaml", "--filter", "with a body", "--json"]).fine();
    let reached = functions(&serde_json::from_str(&ended.stdout).unwrap());
    assert!(reached.contains(&("proxy_on_request_headers".to_owned(), false)), "{reached:?}");
}

/// Without times, which differ.
fn untimed(report: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" (") {
        Some((start, end)) if end.ends_with("s)") => format!("{start}\n"),
        _ => format!("{line}\n"),
    };
    report.lines().map(line).collect()
}

#[test]
fn results_are_those_without_coverage_traps_and_endless_loops_included() {
    let folder = folder(&["bad.yaml"]);
    for more in [&[][..], &["--coverage-out", "out.info"]] {
        let ended = test(folder.path(), &[&["bad.yaml", "--timeout", "1"], more].concat());
        let golden = fs::read_to_string(repository().join("xtask/tests/suites/bad.txt")).unwrap();
        let (tests, coverage) = ended.stdout.split_once("coverage of ").unwrap();
        assert_eq!(untimed(tests).replace(folder.path().to_str().unwrap(), ""), golden);
        // What trapped, and what was interrupted, has been reached.
        assert!(!coverage.contains("not reached: proxy_on_request_headers"), "{coverage}");
        ended.refused(1, &["7 tests did not pass"]);
    }
}

#[test]
fn what_cannot_take_notes_is_said_and_its_tests_say_what_they_always_say() {
    let folder = folder(&["reaches.yaml"]);
    let path = folder.path();
    fs::write(path.join("probe.wasm"), b"\0asm\x01\0\0\0\x01\xff").unwrap();
    let with = test(path, &["reaches.yaml"]);
    let without = plugwright(path, &["test", "--plugin", "probe.wasm", "reaches.yaml"]);
    let (tests, coverage) = with.stdout.split_once("coverage of ").unwrap();
    assert_eq!(untimed(tests), untimed(&without.stdout));
    assert!(coverage.starts_with("probe.wasm: none: the module is not valid: "), "{coverage}");
    with.refused(1, &["1 test did not pass"]);

    let twice = "(module (memory (export \"memory\") 1) (global (export \"plugwright.reached.7\") i64 (i64.const 0)) \
                 (func (export \"proxy_abi_version_0_2_1\")) (func (export \"malloc\") (param i32) (result i32) i32.const 0))";
    fs::write(path.join("probe.wasm"), wat::parse_str(twice).unwrap()).unwrap();
    fs::write(path.join("logs.yaml"), "test: [{name: x, plugin_init: {log: [{exact: x, invert: true}]}}]\n").unwrap();
    let ended = test(path, &["logs.yaml", "--coverage-min", "0"]);
    assert!(ended.stdout.contains("none: the module exports `plugwright.reached.7`: it takes notes already"));
    ended.refused(1, &["the coverage of probe.wasm is under 0 %"]);

    for (arguments, part) in [
        (&["--coverage", "--coverage-min", "101"][..], "a number from 0 to 100"),
        (&["--coverage=some"], "possible values: own, all"),
        (&["--coverage-out", "x"], "--coverage"),
        (&["--coverage-min", "1"], "--coverage"),
    ] {
        plugwright(path, &[&["test", "reaches.yaml"], arguments].concat()).refused(2, &[part]);
    }
}

#[test]
fn a_crate_has_its_own_functions_and_lines_and_the_packaged_module_stays() {
    let root = repository();
    plugwright(root, &["build", "basic-auth"]).fine();
    let packaged = fs::read(root.join("target/plugins/basic-auth.wasm")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.info");
    let arguments = ["test", "basic-auth", "--coverage", "--coverage-out", out.to_str().unwrap(), "--json"];
    let ended = plugwright(root, &arguments).fine();
    assert_eq!(fs::read(root.join("target/plugins/basic-auth.wasm")).unwrap(), packaged);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let coverage = &report["coverage"][0];
    assert_eq!((&coverage["plugin"], &coverage["own"]), (&"basic-auth".into(), &"crate basic_auth".into()));
    let all = coverage["functions"].as_array().unwrap();
    assert!(all.len() > 40 && all.iter().all(|one| one["origin"] == "basic_auth"), "{coverage}");
    let find = |name: &str| all.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(find("basic_auth::config::default_realm")["reached"], true);
    // No rule of the suite's configuration has a host.
    assert_eq!(find("basic_auth::host::Pattern::matches")["reached"], false);
    assert_eq!(find("basic_auth::host::Pattern::matches")["file"], "plugins/basic-auth/src/host.rs");
    assert!(coverage["others"].as_array().unwrap().iter().any(|group| group["origin"] == "core"));

    // Lines that are known to be reached and not to be.
    let lcov = fs::read_to_string(out).unwrap();
    let source = fs::read_to_string(root.join("plugins/basic-auth/src/host.rs")).unwrap();
    let body = 2 + source.lines().position(|line| line.contains("fn matches(")).unwrap();
    let host = lcov.split("SF:").find(|record| record.starts_with("plugins/basic-auth/src/host.rs\n")).unwrap();
    assert!(host.contains(&format!("\nDA:{body},0\n")), "{host}");
    assert!(host.contains(",1\n") && host.ends_with("end_of_record\nTN:\n"), "{host}");
    let sources = lcov.lines().filter_map(|line| line.strip_prefix("SF:"));
    assert!(sources.into_iter().all(|path| root.join(path).is_file() && path.starts_with("plugins/")), "{lcov}");
}

#[test]
fn a_chain_suite_has_the_coverage_of_each_plugin_of_its_chain() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(repository().join("docs/chain-tests.md")).unwrap();
    // The suite, and then the resource that it is about.
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).map(|rest| rest.split("```\n").next().unwrap()).collect();
    fs::write(folder.path().join("gateway.yaml"), blocks[1]).unwrap();
    let file = folder.path().join("tests.yaml");
    fs::write(&file, blocks[0]).unwrap();
    let ended = plugwright(repository(), &["test", file.to_str().unwrap(), "--coverage", "--json"]).fine();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["coverage"].as_array().unwrap().len(), 1);
    assert_eq!(report["coverage"][0]["plugin"], "basic-auth");
    let reached = functions(&report);
    assert!(reached.contains(&("basic_auth::config::default_realm".to_owned(), true)), "{reached:?}");
    assert!(reached.iter().any(|(_, reached)| !reached));
}
