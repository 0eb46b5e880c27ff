//! What `inspect` prints, as text and as JSON, for modules and images of every kind.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{dist, plugwright, repository};

/// Functions of two crates with names and one without, data, producers: something of everything.
const NAMED: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_sync" (func $sync (param i32) (result i32)))
    (memory $memory (export "memory") 2 4)
    (func $_ZN7my_auth7on_tick17h0123456789abcdefE (export "proxy_on_tick") (param i32)
        (drop (call $log (i32.const 1) (i32.const 0) (i32.const 5))) (drop (call $sync (i32.const 1))))
    (func $_ZN52_$LT$my_auth..Auth$u20$as$u20$core..clone..Clone$GT$5clone17h0123456789abcdefE (nop) (nop))
    (func $_ZN4core3fmt5write17h0123456789abcdefE (nop) (nop) (nop))
    (func $malloc (export "malloc") (param i32) (result i32) (i32.const 8))
    (func (export "proxy_abi_version_0_2_1"))
    (func $_initialize (export "_initialize"))
    (data $.rodata (i32.const 0) "hello, this is data")
    (@producers (language "Rust" "") (processed-by "rustc" "1.95.0")))"#;

/// Compare with a file in `tests/golden`. With `UPDATE_GOLDEN` set, write it.
#[track_caller]
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "left: now, right: {}; UPDATE_GOLDEN=1 writes it anew", path.display());
}

fn json(folder: &Path, reference: &str, code: i32) -> Value {
    let ended = plugwright(folder, &["inspect", "--json", reference]);
    assert_eq!(ended.code, code, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_module_with_names_is_shown_crate_by_crate() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("named.wasm"), wat::parse_str(NAMED).unwrap()).unwrap();
    let text = plugwright(folder.path(), &["inspect", "named.wasm"]).fine().stdout;
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    golden("inspect.txt", &text);
    golden("inspect.json", &plugwright(folder.path(), &["inspect", "--json", "named.wasm"]).fine().stdout);
}

#[test]
fn the_sample_plugins_are_told_from_their_images() {
    for name in ["basic-auth", "header-append"] {
        let reference = format!("oci:{}:{name}", dist().display());
        let found = json(repository(), &reference, 0);
        assert_eq!(found["image"]["variant"], "compat");
        assert_eq!(found["pin"]["of"], "manifest");
        assert_eq!(found["pin"]["digest"], found["image"]["manifest"]["digest"]);
        assert_ne!(found["pin"]["digest"], found["module"]["digest"]);
        assert_eq!(found["image"]["annotations"]["org.opencontainers.image.title"], name);
        assert_eq!(found["image"]["platform"], "linux/amd64");
        assert_eq!(found["image"]["runtime_config"]["abi_versions"], serde_json::json!(["v0.2.1"]));
        assert_eq!(found["module"]["abi_version"], "0.2.1");
        assert_eq!(found["module"]["language"]["name"], "Rust");
        let modules: Vec<_> =
            found["module"]["imports"].as_array().unwrap().iter().map(|from| &from["module"]).collect();
        assert_eq!(modules, ["env", "wasi_snapshot_preview1"]);
        assert_eq!(found["module"]["loads"]["envoy"].as_array().unwrap().len(), 1);
        assert_eq!(found["module"]["size"]["total_bytes"], found["module"]["size_bytes"]);

        let text = plugwright(repository(), &["inspect", &reference]).fine().stdout;
        let digest = found["pin"]["digest"].as_str().unwrap();
        for line in [
            "variant      compat\n".to_owned(),
            format!("manifest     {digest}\n"),
            "root ids     any\n".to_owned(),
            "ABI version  0.2.1\n".to_owned(),
            "language     Rust (by its toolchain annotation)\n".to_owned(),
            "envoy        1.33 to 1.40: loads\n".to_owned(),
            "istio        1.25 to 1.31: loads (Envoy 1.33 to 1.39)\n".to_owned(),
        ] {
            assert!(text.contains(&line), "`{line}` is not in:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

#[test]
fn what_is_broken_is_still_shown_with_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let whole = wat::parse_str(NAMED).unwrap();
    let check = |bytes: &[u8], shown: &[&str], said: &str| {
        fs::write(folder.path().join("x.wasm"), bytes).unwrap();
        let ended = plugwright(folder.path(), &["inspect", "x.wasm"]).refused(1, &["x.wasm", said]);
        for part in shown {
            assert!(ended.stdout.contains(part), "`{part}` is not in:\n{}", ended.stdout);
        }
        assert_eq!(json(folder.path(), "x.wasm", 1)["module"]["size_bytes"], bytes.len());
    };
    check(&whole[..whole.len() - 9], &["proxy_on_tick", "ABI version  0.2.1"], "truncated");
    check(b"#!/bin/sh", &["not WebAssembly, 9 bytes", "sha256:"], "`#!/bin/s`");
    check(b"\0asm\x0d\0\x01\0", &["a component, 8 bytes"], "wasip1");
    check(
        b"\0asm\x01\0\0\0",
        &["ABI version  none", "1.33 to 1.40: refused"],
        "no export names a proxy-wasm ABI version",
    );
}

#[test]
fn names_from_a_module_cannot_steer_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let text = NAMED.replacen("\"proxy_log\"", "\"\\1b[31mred\\e2\\80\\ae\"", 1);
    fs::write(folder.path().join("x.wasm"), wat::parse_str(text).unwrap()).unwrap();
    let ended = plugwright(folder.path(), &["inspect", "x.wasm"]).refused(1, &["missing import"]);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("\\u{1b}[31mred\\u{202e}") && !said.contains(['\u{1b}', '\u{202e}']), "{said}");
}

#[test]
fn a_folder_and_a_missing_file_are_named() {
    let dist = dist().display().to_string();
    plugwright(repository(), &["inspect", &dist]).refused(2, &["name an image in it", &format!("oci:{dist}:NAME")]);
    plugwright(repository(), &["inspect", "nowhere.wasm"]).refused(3, &["nowhere.wasm"]);
    plugwright(repository(), &["inspect", &format!("oci:{dist}:nope")]).refused(1, &["nope", "basic-auth"]);
}

/// Every key below `value`, but not those that are an image's own.
fn keys<'a>(value: &'a Value, into: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                into.insert(key);
                if key != "annotations" && key != "config" {
                    keys(value, into);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_json_is_documented() {
    let document = fs::read_to_string(repository().join("docs/inspect.md")).unwrap();
    let found = json(repository(), &format!("oci:{}:basic-auth", dist().display()), 0);
    let mut names = BTreeSet::new();
    keys(&found, &mut names);
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(
            document.contains(&format!("`{name}`")) || document.contains(&format!(".{name}`")),
            "`{name}` is not in docs/inspect.md"
        );
    }
}
