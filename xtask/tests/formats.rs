//! `package --format`, `--module` and `--from`: what is written, what is said, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use packager::blob::{Blob, Image};
use packager::layout::Layout;
use serde_json::{Value, json};

use support::{command, finish, plugwright};

/// A folder with the smallest module that Envoy loads, as `m.wasm`.
fn folder() -> tempfile::TempDir {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.wasm"), wat::parse_str(text).unwrap()).unwrap();
    folder
}

const ABOUT: [&str; 18] = [
    "--module-version",
    "1.2.3",
    "--description",
    "Adds things",
    "--root-id",
    "one",
    "--root-id",
    "two",
    "--phase",
    "AUTHZ",
    "--priority",
    "-5",
    "--license",
    "MIT",
    "--source",
    "https://example.com/x",
    "--revision",
    "0123abc",
];

#[track_caller]
fn package(folder: &Path, arguments: &[&str]) -> support::Ended {
    plugwright(folder, &[&["package"], arguments].concat())
}

/// What `package` printed: name, digest, size.
fn digest(stdout: &str) -> String {
    stdout.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn every_format_verifies_and_says_what_has_to_be_known_about_it() {
    let folder = folder();
    for (format, words) in
        [("compat", ""), ("docker", "cargo xtask push oci:dist:docker"), ("oci", ""), ("maistra", "OpenShift")]
    {
        let arguments = [&["--module", "m.wasm", "--name", format, "--format", format], &ABOUT[..]].concat();
        let ended = package(folder.path(), &arguments).fine();
        assert!(ended.stderr.contains(words) && (ended.stderr.is_empty() == words.is_empty()), "{}", ended.stderr);
        let reference = format!("oci:dist:{format}");
        let report = plugwright(folder.path(), &["verify", "--json", &reference]).fine().stdout;
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!((&report["variant"], &report["digest"]), (&json!(format), &json!(digest(&ended.stdout))));
        plugwright(folder.path(), &["pull", &reference, "--output", "out.wasm"]).fine();
        assert_eq!(fs::read(folder.path().join("out.wasm")).unwrap(), fs::read(folder.path().join("m.wasm")).unwrap());
    }
}

#[test]
fn the_manifest_of_a_maistra_image_is_shown() {
    let folder = folder();
    let arguments = [&["--module", "m.wasm", "--name", "m", "--format", "maistra"], &ABOUT[..]].concat();
    package(folder.path(), &arguments).fine();
    let text = plugwright(folder.path(), &["inspect", "oci:dist:m"]).fine().stdout;
    for line in ["manifest.yaml m 1.2.3\n", "phase PreAuthZ (Istio: AUTHZ), priority -5\n", "Adds things\n"] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
    let report = plugwright(folder.path(), &["inspect", "--json", "oci:dist:m"]).fine().stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    let expected = json!({"name": "m", "description": "Adds things", "version": "1.2.3", "module": "plugin.wasm",
        "phase": "PreAuthZ", "istio_phase": "AUTHZ", "priority": -5});
    assert_eq!(report["image"]["maistra"], expected);
}

#[test]
fn what_the_flags_say_of_a_module_is_in_the_image() {
    let folder = folder();
    package(folder.path(), &[&["--module", "m.wasm", "--name", "m"], &ABOUT[..]].concat()).fine();
    let image = Layout::open(&folder.path().join("dist")).unwrap().image("m").unwrap();
    let config = packager::image::runtime_config(&image).unwrap().unwrap();
    assert_eq!(config.root_ids(), ["one", "two"]);
    assert_eq!((&config.config["phase"], &config.config["priority"]), (&json!("AUTHZ"), &json!(-5)));
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let annotation = |name: &str| manifest["annotations"][format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(["title", "version", "description"].map(annotation), ["m", "1.2.3", "Adds things"]);
    assert_eq!(["licenses", "source", "revision"].map(annotation), ["MIT", "https://example.com/x", "0123abc"]);
}

#[test]
fn any_format_is_repackaged_to_the_image_that_the_module_would_have_made() {
    let folder = folder();
    let direct = package(folder.path(), &[&["--module", "m.wasm", "--name", "m"], &ABOUT[..]].concat()).fine().stdout;
    for format in ["compat", "docker", "oci"] {
        package(folder.path(), &["--from", "oci:dist:m", "--format", format, "--layout", format]).fine();
        let back = package(folder.path(), &["--from", &format!("oci:{format}:m"), "--layout", "back"]).fine();
        assert_eq!(back.stdout, direct, "{format}");
        assert!(back.stderr.contains(&format!("is a plugin image of variant {format}")), "{}", back.stderr);
    }
    let named = package(folder.path(), &["--from", "m.wasm", "--name", "other", "--priority", "1"]).fine();
    assert!(named.stdout.starts_with("other "));
}

/// A layout `wkg` with what wkg publishes.
fn wkg(folder: &Path, content: &[u8]) {
    let config = Blob::from_bytes("application/vnd.wasm.config.v0+json", *b"{}");
    let layer = Blob::from_bytes("application/wasm", content);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config.descriptor,
        "layers": [layer.descriptor], "annotations": {"org.opencontainers.image.version": "0.4.0"}});
    let manifest = manifest.to_string().into_bytes().into();
    let image = Image { manifest, media_type: media_type.to_owned(), config, layers: vec![layer] };
    Layout::open_or_create(&folder.join("wkg")).unwrap().put(&image, "x").unwrap();
}

#[test]
fn wkgs_layout_is_named_wherever_it_is_met_and_its_module_repackaged() {
    let folder = folder();
    wkg(folder.path(), &fs::read(folder.path().join("m.wasm")).unwrap());
    let repackage = "package --from oci:wkg:x --format compat";
    plugwright(folder.path(), &["pull", "oci:wkg:x", "--output", "x.wasm"])
        .refused(1, &["wkg's layout", "`application/wasm`; Istio reads", repackage]);
    let verified = plugwright(folder.path(), &["verify", "oci:wkg:x"]);
    assert!(verified.stdout.contains("wkg's layout"), "{}", verified.stdout);
    verified.refused(1, &[repackage]);
    let ended = package(folder.path(), &["--from", "oci:wkg:x", "--format", "compat"]).fine();
    assert!(ended.stderr.contains("oci:wkg:x is wkg's layout"), "{}", ended.stderr);
    plugwright(folder.path(), &["verify", "oci:dist:x"]).fine();
}

#[test]
fn a_component_is_refused_by_name_and_nothing_is_written() {
    let folder = folder();
    wkg(folder.path(), b"\0asm\x0d\0\x01\0");
    package(folder.path(), &["--from", "oci:wkg:x"])
        .refused(1, &["oci:wkg:x, wkg's layout", "a WebAssembly component, not a core module", "wasm32-wasip1"]);
    assert!(!folder.path().join("dist/index.json").exists() || !names(folder.path()).contains("\"x\""));
}

fn names(folder: &Path) -> String {
    fs::read_to_string(folder.join("dist/index.json")).unwrap()
}

#[test]
fn what_lies_beside_a_module_is_taken_into_account_and_said() {
    let folder = folder();
    let config = folder.path().join("runtime-config.json");
    fs::write(&config, r#"{"type":"envoy_proxy","config":{"root_ids":["beside"],"priority":3}}"#).unwrap();
    let ended = package(folder.path(), &["--module", "m.wasm", "--name", "m", "--priority", "4"]).fine();
    assert!(ended.stderr.contains("runtime-config.json: taken into account"), "{}", ended.stderr);
    let image = Layout::open(&folder.path().join("dist")).unwrap().image("m").unwrap();
    let read = packager::image::runtime_config(&image).unwrap().unwrap();
    assert_eq!((read.root_ids(), &read.config["priority"]), (vec!["beside"], &json!(4)));
    fs::write(&config, "[]").unwrap();
    package(folder.path(), &["--module", "m.wasm", "--name", "m"]).refused(1, &["runtime-config.json", "an object"]);
}

#[test]
fn flags_that_do_not_go_together_and_missing_sources_are_told_apart() {
    let folder = folder();
    for arguments in [
        &["--priority", "3"][..],
        &["--name", "m"],
        &["--module", "m.wasm"],
        &["--module", "m.wasm", "--name", "m", "--from", "m.wasm"],
        &["--from", "m.wasm", "basic-auth"],
        &["--from", "m.wasm", "--format", "zip"],
        &["--from", "m.wasm", "--phase", "authn"],
        &["--from", "oci:dist"],
        &["--from", ""],
    ] {
        package(folder.path(), arguments).refused(2, &[]);
    }
    package(folder.path(), &["--from", "none.wasm"]).refused(3, &["none.wasm"]);
    package(folder.path(), &["--module", "none.wasm", "--name", "m"]).refused(3, &["none.wasm"]);
    package(folder.path(), &["--from", "oci:none:m"]).refused(3, &["none"]);
    assert!(!folder.path().join("dist").exists());
}

#[test]
fn what_is_refused_leaves_no_new_layout() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.wasm"), "not a module").unwrap();
    package(folder.path(), &["--module", "bad.wasm", "--name", "m"]).refused(1, &["not a WebAssembly module"]);
    package(folder.path(), &["--from", "bad.wasm"]).refused(1, &["bad.wasm"]);
    assert!(!folder.path().join("dist").exists());
}

/// A module of 128 MiB, most of which is a custom section.
fn large() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8) (func (export "_initialize")))"#;
    let mut module = wat::parse_str(text).unwrap();
    // Its length, 2^27, in LEB128; and its name, which is empty.
    module.extend([0, 0x80, 0x80, 0x80, 0x40, 0]);
    module.resize(module.len() + (1 << 27) - 1, 0);
    module
}

#[cfg(unix)]
#[test]
fn verify_has_no_module_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large.wasm"), large()).unwrap();
    let arguments = ["package", "--module", "large.wasm", "--name", "large", "--layout", "dist", "--format", "oci"];
    plugwright(folder.path(), &arguments).fine();
    for reference in ["oci:dist:large", "large.wasm"] {
        let verify = command(folder.path(), &["verify", reference]);
        let mut within = Command::new("sh");
        // As many KiB of addresses as it may have.
        within.current_dir(folder.path()).args(["-c", "ulimit -v 110000 && exec \"$0\" \"$@\""]);
        let ended = finish(within.arg(verify.get_program()).args(verify.get_args())).fine();
        assert!(ended.stdout.contains("loads             in Envoy "), "{}", ended.stdout);
    }
}
