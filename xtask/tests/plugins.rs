//! What plugins' own tests say natively, they say of the modules in the harness as well.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use support::{finish, plugwright, repository};

/// The harness's program that runs modules for tests.
fn test_host() -> &'static Path {
    static HOST: LazyLock<PathBuf> = LazyLock::new(|| {
        let arguments = ["build", "--package", "harness", "--bin", "plugwright-test-host"];
        let format = ["--message-format", "json-render-diagnostics"];
        let built = finish(support::cargo(&arguments).args(format)).fine().stdout;
        let executable = built.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            message.get("executable")?.as_str().map(PathBuf::from)
        });
        executable.unwrap()
    });
    &HOST
}

/// Runs tests whose plugins are modules, and returns how many passed.
fn passed_in_the_harness(modules: &Path, arguments: &[&str]) -> usize {
    let mut command = support::cargo(&["test", "--quiet"]);
    command.args(arguments).env("PLUGWRIGHT_TEST_HOST", test_host()).env("PLUGWRIGHT_TEST_MODULES", modules);
    let ended = finish(&mut command).fine();
    let passed = |line: &str| line.strip_prefix("test result: ok. ")?.split_once(' ')?.0.parse::<usize>().ok();
    ended.stdout.lines().filter_map(passed).sum()
}

#[test]
fn plugins_pass_their_tests_as_modules() {
    plugwright(repository(), &["build"]).fine();
    let modules = repository().join("target/plugins");
    for (plugin, at_least) in
        [("basic-auth", 15), ("header-append", 9), ("acl-check", 15), ("check-header", 10), ("openid", 30)]
    {
        let passed = passed_in_the_harness(&modules, &["--package", plugin, "--tests"]);
        assert!(passed >= at_least, "{plugin}: {passed}");
    }
}

#[test]
fn the_sdks_examples_pass_their_tests_as_modules() {
    let modules = support::examples::modules();
    let sources = std::fs::read_dir(repository().join("sdk/examples")).unwrap().count();
    assert_eq!(modules.len(), sources, "{modules:?}");
    let modules = repository().join("target/plugins");
    let passed = passed_in_the_harness(&modules, &["--package", "plugwright-sdk", "--examples", "--features", "log"]);
    assert!(passed >= 28, "{passed}");
}

#[test]
fn a_test_that_only_a_native_plugin_passes_fails_in_the_harness() {
    // The modules of a folder that has none cannot be what passed.
    let empty = tempfile::tempdir().unwrap();
    let mut command = support::cargo(&["test", "--quiet", "--package", "header-append", "--test", "traffic"]);
    command.env("PLUGWRIGHT_TEST_HOST", test_host()).env("PLUGWRIGHT_TEST_MODULES", empty.path());
    let ended = finish(&mut command);
    assert_ne!(ended.code, 0);
    assert!(ended.stdout.contains("failed to read"), "{}", ended.stdout);
}
