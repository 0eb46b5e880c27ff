//! `test` as it is called: suites in both formats, what fails, what cannot be run, reports, updates.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Ended, plugwright, probe as folder, repository};

fn test(folder: &Path, arguments: &[&str]) -> Ended {
    plugwright(folder, &[&["test", "--plugin", "probe.wasm"], arguments].concat())
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
fn a_textproto_suite_of_the_testers_users_runs_as_it_is() {
    let folder = folder(&["good.textproto", "body.data", "expected.data"]);
    let ended = test(folder.path(), &["--proto", "good.textproto"]).fine();
    let expected = "good.textproto\n  ok     HeadersAreSortedAndJoined\n  ok     ALocalResponseStopsWhateverIsReturned\n  \
                    ok     BodiesAreCutAndJoined\n3 tests: 3 passed, 0 failed, 0 broken\n";
    assert_eq!(untimed(&ended.stdout), expected);
}

#[test]
fn the_testers_flags_for_what_is_run_are_known() {
    let folder = folder(&["good.textproto", "body.data", "expected.data"]);
    let measured = |flags: &[&str]| {
        let ended = test(folder.path(), &[&["good.textproto", "--json"], flags].concat()).fine();
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let tests = report["suites"][0]["tests"].as_array().unwrap().clone();
        (tests.len(), tests.iter().filter(|test| !test["iterations"].is_null()).count())
    };
    assert_eq!(measured(&["--bench"]), (3, 1));
    assert_eq!(measured(&["--bench", "--notest"]), (1, 1));
    assert_eq!(measured(&["--bench", "--nobench"]), (3, 0));
    assert_eq!(measured(&["--nobench"]), (3, 0));
}

#[test]
fn what_fails_is_shown_and_the_rest_still_runs() {
    let folder = folder(&["bad.yaml"]);
    let ended = test(folder.path(), &["bad.yaml", "--timeout", "1"]).refused(1, &["7 tests did not pass"]);
    let golden = fs::read_to_string(repository().join("xtask/tests/suites/bad.txt")).unwrap();
    assert_eq!(untimed(&ended.stdout).replace(folder.path().to_str().unwrap(), ""), golden);
}

#[test]
fn reports_are_for_programs_too() {
    let folder = folder(&["bad.yaml"]);
    let filter = ["bad.yaml", "--filter", "/differs|still/", "--threads", "1", "--json", "--junit", "junit.xml"];
    let ended = test(folder.path(), &filter).refused(1, &["2 tests did not pass"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let tests = report["suites"][0]["tests"].as_array().unwrap();
    let verdicts: Vec<&str> = tests.iter().map(|test| test["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["failed", "failed", "passed"]);
    assert_eq!(tests[0]["mismatches"][0]["path"], "test[0].request_headers.result.has_header[0]");
    // How it came to that, of those that did not pass.
    let (trace, kept) = (&tests[0]["traces"][0], tests[2]["traces"].as_array().unwrap());
    assert!(kept.is_empty() && trace["filters"][0]["name"] == "test", "{trace}");
    let added =
        serde_json::json!({"map": "request_headers", "name": "X-Probe", "change": "added", "from": null, "to": "no"});
    assert!(trace.to_string().contains(&added.to_string()), "{trace}");
    let changed = &tests[1]["traces"][0]["events"][0]["bodies"][0];
    assert_eq!((&changed["from"]["excerpt"], &changed["to"]["excerpt"]), (&"abc".into(), &"a<>c".into()), "{tests:?}");
    let ended = test(folder.path(), &["bad.yaml", "--filter", "traps", "--json"]);
    assert!(ended.stdout.contains("\"callback\":\"proxy_on_request_headers\",\"end_of_stream\":false,\"event\":\"callback\",\"events\":[],\"failed\":true"));
    let junit = fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    assert!(junit.contains("<testsuite name=\"bad.yaml\" tests=\"3\" failures=\"2\" errors=\"0\""), "{junit}");
    test(folder.path(), &["bad.yaml", "--filter", "nothing has this"]).refused(2, &["no test has such a name"]);
    test(folder.path(), &["bad.yaml", "--filter", "/(/"]).refused(2, &["unclosed group"]);
}

#[test]
fn a_report_is_a_page_with_everything_that_the_run_came_to() {
    let folder = folder(&["bad.yaml"]);
    let path = folder.path().join("report.html");
    fs::write(&path, "before").unwrap();
    let arguments = ["bad.yaml", "--filter", "/differs|still/", "--json", "--report", "report.html"];
    let ended = test(folder.path(), &arguments).refused(1, &["2 tests did not pass"]);
    let html = fs::read_to_string(&path).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("<title>Tests of bad.yaml</title>"), "{html}");
    // What the page shows is what is printed for programs.
    let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
    let start = html.find("type=\"application/json\"").unwrap();
    let data = html[start..].split_once('>').unwrap().1.split("</script>").next().unwrap();
    let shown: Value = serde_json::from_str(data).unwrap();
    let names = |suites: &Value, tests: &str| -> Vec<String> {
        let tests = suites["suites"][0][tests].as_array().unwrap_or_else(|| panic!("no {tests}: {suites}"));
        tests.iter().map(|test| test["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&shown, "cases"), names(&printed, "tests"));
    assert!(data.contains("test[0].request_headers.result.has_header[0]"), "{data}");
    // One that cannot be written changes nothing.
    test(folder.path(), &["bad.yaml", "--filter", "still", "--report", "no/report.html"])
        .refused(3, &["failed to write no/report.html: "]);
    fs::create_dir(folder.path().join("folder")).unwrap();
    test(folder.path(), &["bad.yaml", "--filter", "still", "--report", "folder"])
        .refused(3, &["failed to write folder: "]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "no temporary file stays");
}

#[test]
fn an_update_changes_the_values_that_differ_and_nothing_else() {
    let folder = folder(&["bad.yaml", "good.textproto", "body.data", "expected.data"]);
    let path = folder.path();
    let before = fs::read_to_string(path.join("bad.yaml")).unwrap();
    test(path, &["bad.yaml", "--filter", "differs", "--update"]).fine();
    let after = before.replace("value: \"2\"}] # kept", "value: \"1\"}] # kept");
    let after = after.replace("X-Probe: yes", "X-Probe: no").replace("{exact: \"abc\"}", "{exact: \"a<>c\"}");
    assert_eq!(fs::read_to_string(path.join("bad.yaml")).unwrap(), after);
    test(path, &["bad.yaml", "--filter", "differs"]).fine();

    let before = fs::read_to_string(path.join("good.textproto")).unwrap();
    fs::write(path.join("good.textproto"), before.replace("\"0<>23<>56<>89\"", "\"?\" # all\n 'more'")).unwrap();
    fs::write(path.join("expected.data"), "?").unwrap();
    test(path, &["good.textproto", "--update"]).fine();
    assert_eq!(fs::read_to_string(path.join("good.textproto")).unwrap(), before);
    assert_eq!(fs::read_to_string(path.join("expected.data")).unwrap(), "0<>23<>56<>89");

    let ended = test(path, &["bad.yaml", "--filter", "pauses", "--update"]);
    ended.refused(1, &["not updated: bad.yaml: `test[4].request_headers.result`", "1 of what is not as expected"]);
}

#[track_caller]
fn broken(name: &str, text: &str, expected: &str) {
    let folder = folder(&[]);
    fs::write(folder.path().join(name), text).unwrap();
    let ended = test(folder.path(), &[name]).refused(1, &["did not pass"]);
    assert_eq!(ended.stdout.lines().nth(1).unwrap(), format!("  BROKEN {expected}"), "{}", ended.stdout);
}

#[test]
fn a_suite_that_is_none_is_said_with_its_place() {
    let known = "an unknown field; did you mean";
    broken(
        "a.yaml",
        "test:\n- name: x\n  request_header: {}\n",
        &format!("a.yaml:3:3: `test[0].request_header`: {known} `request_headers`?"),
    );
    broken("a.textpb", "test { nam: 'x' }", &format!("a.textpb:1:8: `test[0].nam`: {known} `name`?"));
    broken("a.textpb", "test { name: 'x' name: 'y' }", "a.textpb:1:18: `test[0].name`: given twice, first at 1:8");
    broken("a.textpb", "test {", "a.textpb:1:7: the message that begins at 1:6 has no end");
    broken(
        "a.yaml",
        "test: [{name: x}, {name: x, name: y}]\n",
        "a.yaml:1:29: the key `name` is given twice, first at 1:20",
    );
    broken("a.yaml", "test: {name: x}\n", "a.yaml:1:7: `test`: must be a list, is a message; begin it with `- `");
    broken("a.yaml", "test: [{benchmark: 7}]\n", "a.yaml:1:20: `test[0].benchmark`: must be true or false, is `7`");
    broken("a.yaml", "env: {}\n", "a.yaml:1:1: the suite has no `test`");
    broken(
        "a.yaml",
        "env: {log_level: LOUD}\ntest: [{benchmark: true}]",
        "a.yaml:1:18: `env.log_level`: `LOUD` is no level; there are TRACE, DEBUG, INFO, WARN, ERROR, CRITICAL",
    );
    broken(
        "a.yaml",
        "test: [{num_chunks: 0, benchmark: true}]",
        "a.yaml:1:21: `test[0].num_chunks`: must be a whole number from 1 to 2147483647, is `0`",
    );
    broken(
        "a.yaml",
        "test: [{request_headers: {result: {body: [{exact: a, regex: b}]}}}]",
        "a.yaml:1:54: `test[0].request_headers.result.body[0].regex`: given beside `exact`; there may be one of exact, regex, file",
    );
    broken(
        "a.textproto",
        "test { name: a benchmark: true }",
        "a.textproto:1:14: `test[0].name`: must be text; write `\"a\"`",
    );
    broken(
        "a.textproto",
        "test { name: 'a' benchmark: 'true' }",
        "a.textproto:1:29: `test[0].benchmark`: must not be in quotes; write `true`",
    );
    let nothing = "no test of the suite expects anything; add what is expected to a `result`, for example `has_header`, or say `benchmark: true`";
    broken("a.yaml", "test: [{name: x, request_headers: {}}]", &format!("a.yaml:1:1: {nothing}"));
    broken("a.yaml", "a: 1\n", "it is no suite: a plugin suite has `test` at its top, a chain suite `kind: ChainTest`");
}

#[test]
fn what_is_not_there_is_said() {
    let folder = folder(&["bad.yaml"]);
    test(folder.path(), &["none.yaml"]).refused(2, &["failed to read none.yaml"]);
    let ended = plugwright(folder.path(), &["test", "bad.yaml", "--filter", "still"]).refused(1, &[]);
    assert!(ended.stdout.contains("there is no module: give `env.wasm_path` or --plugin"), "{}", ended.stdout);
    let ended = test(folder.path(), &["bad.yaml", "--filter", "still", "--config", "none"]).refused(1, &[]);
    assert!(ended.stdout.contains("failed to read the configuration none: No such file"), "{}", ended.stdout);
    plugwright(repository(), &["test", "nothing-of-that-name"]).refused(2, &["nothing-of-that-name"]);
}

#[test]
fn suites_are_found_by_the_folder_that_they_are_in_and_by_their_plugins() {
    let folder = folder(&["good.textproto", "body.data", "expected.data"]);
    let tests = folder.path().join("plugin/tests");
    fs::create_dir_all(&tests).unwrap();
    for name in ["good.textproto", "body.data", "expected.data"] {
        fs::rename(folder.path().join(name), tests.join(name)).unwrap();
    }
    let passes = |from: &Path, named: &str| {
        let module = folder.path().join("probe.wasm");
        let ended = plugwright(from, &["test", "--plugin", module.to_str().unwrap(), named]).fine();
        assert!(ended.stdout.contains("3 tests: 3 passed"), "{named}: {}", ended.stdout);
    };
    passes(folder.path(), "plugin");
    passes(folder.path(), "plugin/tests");
    passes(&folder.path().join("plugin"), ".");
    passes(&folder.path().join("plugin"), "tests");
    passes(&tests, ".");
    passes(&tests, "..");
}

#[test]
fn a_suite_that_is_named_from_outside_has_the_module_of_its_own_project() {
    let outside = tempfile::tempdir().unwrap();
    let suites = repository().join("plugins/header-append/tests");
    let ended = plugwright(outside.path(), &["test", suites.to_str().unwrap()]).fine();
    assert!(ended.stdout.contains(" passed, 0 failed, 0 broken"), "{}", ended.stdout);
}

#[test]
fn a_configuration_that_is_not_what_the_schema_says_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let schema = r#"{"type": "object", "properties": {"realm": {"type": "string"}}, "additionalProperties": false}"#;
    let probe = wat::parse_file(repository().join("xtask/tests/suites/probe.wat")).unwrap();
    let table = "name = \"probe\"\nmodule = \"probe.wasm\"\nconfig-schema = \"schema.json\"\n";
    let suite = "env: {config_path: c.json}\ntest: [{name: x, plugin_init: {log: [{exact: started}]}}]\n";
    for (name, text) in [("plugin.toml", table), ("schema.json", schema), ("tests/s.yaml", suite)] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    fs::write(folder.join("probe.wasm"), probe).unwrap();
    // Twice each: what was good is not asked again.
    for (config, expected) in [
        (r#"{"realm": "x"}"#, None),
        (r#"{"relm": "hunter2"}"#, Some("`relm` is not a field here; known is realm (write `realm`)")),
        ("relm", Some("it is not JSON: expected value at line 1 column 1")),
    ] {
        fs::write(folder.join("tests/c.json"), config).unwrap();
        for _ in 0..2 {
            let ended = plugwright(folder, &["test", "probe"]).fine();
            let warnings: Vec<&str> = ended.stdout.lines().filter(|line| line.contains("warning:")).collect();
            let expected: Vec<String> =
                expected.iter().map(|what| format!("  warning: tests/c.json: {what}")).collect();
            assert_eq!(warnings, expected);
        }
    }
    let report = plugwright(folder, &["test", "probe", "--json"]).fine().stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["suites"][0]["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn the_sample_plugins_pass_their_suites() {
    let ended = plugwright(repository(), &["test", "--json"]).fine();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["passed"].as_u64().unwrap() >= 19, "{}", report["passed"]);
    let suites = report["suites"].as_array().unwrap();
    assert!(suites.iter().all(|suite| suite["warnings"] == serde_json::json!([])), "{suites:?}");
}
