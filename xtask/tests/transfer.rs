//! What the environment says about proxies, and what is said to places that nothing can be sent to.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::path::Path;

use support::{Ended, command, finish, plugwright};

const MODULE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 8))
    (func (export "_initialize")))"#;

/// Push a small image with these variables set and no others that name a proxy.
fn push(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    packaged(folder.path());
    let mut command = command(folder.path(), &[&["push", "m"], arguments].concat());
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    finish(command.envs(variables.iter().copied()))
}

fn packaged(folder: &Path) {
    std::fs::write(folder.join("m.wasm"), wat::parse_str(MODULE).unwrap()).unwrap();
    plugwright(folder, &["package", "--module", "m.wasm", "--name", "m", "--layout", "dist"]).fine();
}

#[test]
fn a_proxy_that_is_none_is_an_error_that_names_the_variable_and_not_the_password() {
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        let ended =
            push(&[(name, "ftp://ann:very-secret@proxy.lan")], &["127.0.0.1:1/x:t"]).refused(3, &[name, "http"]);
        assert!(!ended.stderr.contains("very-secret") && ended.stdout.is_empty(), "{ended:?}");
    }
}

const PROXY: &str = "http://ann:very-secret@127.0.0.1:1";

/// All at once, since each waits between its attempts.
fn each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

#[test]
fn a_proxy_that_is_not_there_is_named_without_its_password() {
    each(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"], |name| {
        let ended = push(&[(name, PROXY)], &["registry.nowhere.invalid/x:t"]);
        let ended =
            ended.refused(3, &["through the proxy http://127.0.0.1:1", "hint: ", "NO_PROXY", "trying again in"]);
        assert!(!ended.stderr.contains("very-secret"), "{}", ended.stderr);
        assert!(!ended.stderr.contains('\u{1b}'), "no bars where standard error is no terminal: {}", ended.stderr);
    });
}

#[test]
fn another_schemes_proxy_an_exception_and_this_machine_are_left_alone() {
    let (invalid, here) = ("registry.nowhere.invalid/x:t", "127.0.0.1:1/x:t");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("HTTP_PROXY", PROXY)], invalid),
        (&[("ALL_PROXY", PROXY), ("NO_PROXY", "a.io,.invalid")], invalid),
        (&[("ALL_PROXY", PROXY), ("no_proxy", "*")], invalid),
        (&[("ALL_PROXY", PROXY)], here),
    ];
    each(&cases, |(variables, place)| {
        let ended = push(variables, &[place]).refused(3, &["no answer from the registry"]);
        assert!(!ended.stderr.contains("proxy http://"), "{variables:?}: {}", ended.stderr);
    });
}

#[test]
fn what_is_mounted_from_is_a_repository_of_the_same_registry() {
    for bad in ["UPPER", "a b", "", "other.example.com:5000/x:t:u"] {
        push(&[], &["127.0.0.1:1/x:t", "--mount-from", bad]).refused(2, &["--mount-from"]);
    }
}
