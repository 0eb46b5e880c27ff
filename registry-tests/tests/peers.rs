//! Istio's own fetcher and the tools that others move images with: they read what we write, and we read what they write.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what suites share is not itself a test")]

#[expect(dead_code, reason = "each suite uses a part of it")]
#[path = "support/real.rs"]
mod real;
mod support;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use packager::blob::Image;
use packager::digest::Digest;
use packager::fetch::{FetchOptions, fetch_module};
use packager::image::{Metadata, Variant, assemble};
use packager::layout::Layout;
use packager::module::EnvoyVersion;
use packager::reference::{ImageReference, Reference};
use packager::verify::{Outcome, verify};
use registry_tests::Registry;
use serde_json::{Value, json};

use real::{PASSWORD, Program, RealRegistry, tool};
use support::{LAYER, MANIFEST, blob, client, image, image_of, reference, same};

const VARIANTS: [Variant; 4] = [Variant::Compat, Variant::Docker, Variant::Oci, Variant::Maistra];

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const WASM: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// The smallest module that Envoy loads.
fn module() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    wat::parse_str(text).unwrap()
}

fn plugin(variant: Variant) -> Image {
    let metadata = Metadata { name: "sample".to_owned(), ..Metadata::default() };
    assemble(variant, &metadata, &module(), EnvoyVersion::NEWEST).unwrap()
}

/// The same image with its manifest changed.
fn changed(image: &Image, change: impl FnOnce(&mut Value)) -> Image {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    Image { manifest: manifest.to_string().into_bytes().into(), ..image.clone() }
}

/// Run a program to its end, away from this machine's own containers and credentials.
fn run(program: impl AsRef<OsStr>, home: &Path, arguments: &[&str]) -> Result<String, String> {
    // buildah and podman want the file to exist.
    let _ = std::fs::write(home.join("config.json"), "{}");
    let mut command = Command::new(&program);
    command.args(arguments).env("HOME", home).env("XDG_RUNTIME_DIR", home).env("DOCKER_CONFIG", home);
    let output = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask ci --prepare` installs it", program.as_ref().display())
    });
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What Istio's agent makes of an image.
fn istio(reference: &ImageReference, sha256: Option<&str>) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugin.wasm");
    let url = format!("oci://{reference}");
    let mut arguments = vec![url.as_str(), file.to_str().unwrap()];
    arguments.extend(sha256);
    run(tool("istio-fetch"), folder.path(), &arguments).map(|_| std::fs::read(file).unwrap())
}

fn open() -> Registry {
    Registry::start(registry_tests::Options::default()).unwrap()
}

fn options() -> FetchOptions {
    FetchOptions::new(client())
}

#[test]
fn istio_extracts_every_variant_to_the_module_that_went_in() {
    for program in Program::ALL {
        let registry = RealRegistry::open(program);
        for variant in VARIANTS {
            let tagged = registry.reference(&format!("acme/{variant}:v1"));
            let image = plugin(variant);
            client().push(&image, &tagged).unwrap();
            let digest = image.digest();
            for pin in [None, Some(digest.hex())] {
                assert_eq!(istio(&tagged, pin).unwrap(), module(), "{program:?} {variant}");
            }
            assert_eq!(istio(&tagged.with_digest(digest), None).unwrap(), module(), "{program:?} {variant}");
        }
    }
}

/// A layer of several blocks, some compressed and some as they are: one gzip member all the same, since there are readers
/// that stop after the first.
#[test]
fn layers_of_many_blocks_are_read_by_all() {
    let mut large = module();
    let noise = image(3, 600_000).layers[0].read(1 << 20).unwrap();
    let text: Vec<u8> = noise.iter().map(|byte| byte & 0x0f).collect();
    let content = [b"\x04data".as_slice(), &text, &noise, &text].concat();
    let size = content.len();
    large.push(0);
    large.extend([size | 0x80, size >> 7 | 0x80, size >> 14 & 0x7f].map(|byte| byte.to_le_bytes()[0]));
    large.extend(content);
    let made = assemble(Variant::Compat, &Metadata::default(), &large, EnvoyVersion::NEWEST).unwrap();
    assert!(made.layers[0].descriptor.size() < large.len() as u64 - 500_000, "it is compressed");

    let registry = RealRegistry::open(Program::Debian);
    let tagged = registry.reference("acme/large:v1");
    client().push(&made, &tagged).unwrap();
    assert!(istio(&tagged, None).unwrap() == large);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    run(tool("debian-forky/usr/bin/crane"), folder.path(), &["validate", "--remote", &tagged.to_string()]).unwrap();
    let (remote, layout) = (format!("docker://{tagged}"), format!("oci:{}:large", path("layout")));
    run("skopeo", folder.path(), &["copy", "--src-tls-verify=false", &remote, &layout]).unwrap();
    for (umoci, into) in [("umoci".into(), "old"), (tool("debian-forky/usr/bin/umoci"), "new")] {
        let image = format!("{}:large", path("layout"));
        run(umoci, folder.path(), &["unpack", "--rootless", "--image", &image, &path(into)]).unwrap();
        assert!(std::fs::read(Path::new(&path(into)).join("rootfs/plugin.wasm")).unwrap() == large, "{into}");
    }
}

/// Whether Istio takes it, whether its own checks in `verify` pass, and whether our fetch takes it: all three alike.
#[track_caller]
fn agree(reference: &ImageReference, sha256: Option<&str>, loads: bool, what: &str) {
    let istio = istio(reference, sha256);
    assert_eq!(istio.is_ok(), loads, "{what}: istio: {istio:?}");
    let reference = Reference::Image(reference.clone());
    let fetched = fetch_module(&reference, sha256, &options());
    assert_eq!(fetched.as_ref().map(|fetched| &fetched.module).ok(), istio.as_ref().ok(), "{what}: {fetched:?}");
    let report = verify(&reference, sha256, &options(), EnvoyVersion::NEWEST).unwrap();
    let failed: Vec<_> = report.checks.iter().filter(|check| check.istio && check.outcome == Outcome::Failed).collect();
    assert_eq!(failed.is_empty(), loads, "{what}: istio: {istio:?}; verify: {failed:#?}");
}

#[test]
fn verify_and_fetch_decide_as_istio_does_about_layers() {
    let registry = open();
    let check = |image: &Image, loads: bool, what: &str| {
        let tagged = reference(&registry.host(), "acme/x:t");
        client().push(image, &tagged).unwrap();
        agree(&tagged, None, loads, what);
    };
    for variant in VARIANTS {
        check(&plugin(variant), true, &variant.to_string());
    }
    let compat = plugin(Variant::Compat);
    let layer = compat.layers[0].clone();
    let other = blob(LAYER, b"something else");
    let typed = |media_type: &str| image_of(vec![blob(media_type, &layer.read(1 << 20).unwrap())]);
    check(&image_of(vec![other.clone(), layer.clone()]), true, "plugin.wasm in the last of two layers");
    check(&image_of(vec![layer.clone(), other.clone()]), false, "plugin.wasm in the first of two layers");
    check(&image_of(Vec::new()), false, "no layers");
    check(&typed("application/vnd.docker.image.rootfs.diff.tar.gzip"), false, "Docker's layer in an OCI manifest");
    check(&typed("application/vnd.oci.image.layer.v1.tar"), false, "a layer of another type");
    check(&typed("application/vnd.oci.image.layer.v1.tar+zstd"), false, "a layer said to be zstd");
    check(&image_of(vec![blob("application/wasm", &module())]), false, "wkg's layer");
    check(&image_of(vec![blob(WASM, &module())]), false, "one layer of the oci variant");
    let config = blob("application/vnd.module.wasm.config.v1+json", b"{}");
    let bare = blob(WASM, &module());
    check(&image_of(vec![bare.clone(), config.clone()]), true, "the oci variant, the other way round");
    check(&image_of(vec![config.clone(), bare, other.clone()]), false, "three layers, the module among them");
    check(&image_of(vec![config.clone(), blob(WASM, b"#!/bin/sh, no module")]), false, "no wasm in the oci variant");
    check(&image_of(vec![config, blob(WASM, b"\0asm\x01")]), false, "a module cut off in its magic");
    check(&image_of(vec![blob(LAYER, b"no gzip")]), false, "a layer that is no gzip");
    let docker = plugin(Variant::Docker);
    let as_oci = changed(&docker, |manifest| manifest["layers"][0]["mediaType"] = json!(LAYER));
    check(&as_oci, false, "OCI's layer in Docker's manifest");
    let untyped = changed(&compat, |manifest| {
        manifest.as_object_mut().unwrap().remove("mediaType");
    });
    check(&untyped, true, "a manifest that does not say what it is");
}

#[test]
fn verify_and_fetch_decide_as_istio_does_about_pins_and_tags() {
    let registry = open();
    let image = plugin(Variant::Compat);
    let latest = reference(&registry.host(), "acme/x");
    let tagged = latest.with_tag("t").unwrap();
    client().push(&image, &tagged).unwrap();
    agree(&tagged, Some(image.digest().hex()), true, "the right pin");
    agree(&tagged, Some(Digest::of(&module()).hex()), false, "the module's digest as the pin");
    agree(&tagged, Some("abc"), false, "no digest at all");
    agree(&tagged.with_digest(image.digest()), Some(image.digest().hex()), true, "two pins that agree");
    agree(&tagged.with_digest(image.digest()), Some(Digest::of(b"").hex()), false, "two pins that differ");

    let entry = json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let listed = latest.with_tag("index").unwrap();
    client().put_manifest(&listed, INDEX, index.as_bytes()).unwrap();
    agree(&listed, Some(Digest::of(index.as_bytes()).hex()), false, "a pin to an index");

    let missing = istio(&latest, None).unwrap_err();
    assert!(missing.contains("latest") || missing.contains("MANIFEST_UNKNOWN"), "{missing}");
    assert!(fetch_module(&Reference::Image(latest.clone()), None, &options()).is_err());
    client().push(&image, &latest.with_tag("latest").unwrap()).unwrap();
    agree(&latest, None, true, "no tag is `latest`");
}

/// Where Istio is stricter than a client has to be: any 401 whose realm is no public URL ends the fetch.
#[test]
fn istio_refuses_a_registry_whose_basic_realm_is_a_name() {
    let registry = RealRegistry::with_password(Program::Debian);
    let tagged = registry.reference("acme/x:t");
    let credentials = support::basic(&registry.host, "ann", PASSWORD);
    let known = packager::registry::Client::new(packager::registry::Options { credentials, ..support::options() });
    known.unwrap().push(&plugin(Variant::Compat), &tagged).unwrap();
    let refused = istio(&tagged, None).unwrap_err();
    assert!(refused.contains("rejected unsafe bearer realm"), "{refused}");
}

/// Each tool copies from a registry to a folder or another name; the bytes have to stay.
#[test]
fn crane_skopeo_and_oras_carry_every_variant_unchanged() {
    let home = tempfile::tempdir().unwrap();
    for program in Program::ALL {
        let registry = RealRegistry::open(program);
        for variant in VARIANTS {
            let image = plugin(variant);
            let ours = registry.reference(&format!("acme/{variant}:ours"));
            client().push(&image, &ours).unwrap();
            let source = ours.to_string();
            let copy = |name: &str| registry.reference(&format!("{name}/{variant}:copy"));
            let (by_crane, by_skopeo, by_oras) = (copy("crane"), copy("skopeo"), copy("oras"));
            let go = |tool: &Path, arguments: &[&str]| {
                run(tool, home.path(), arguments).unwrap_or_else(|error| panic!("{program:?} {variant}: {error}"))
            };
            let crane = tool("debian-forky/usr/bin/crane");
            assert_eq!(go(&crane, &["digest", &source]), image.digest().to_string());
            go(&crane, &["copy", &source, &by_crane.to_string()]);
            let (from, to) = (format!("docker://{source}"), format!("docker://{by_skopeo}"));
            let plain = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
            go(Path::new("skopeo"), &[&["copy"], &plain[..], &[&from, &to]].concat());
            let flags = ["copy", "--from-plain-http", "--to-plain-http", &source];
            go(&tool("debian-forky/usr/bin/oras"), &[&flags[..], &[&by_oras.to_string()]].concat());
            for copy in [by_crane, by_skopeo, by_oras] {
                let folder = tempfile::tempdir().unwrap();
                same(&client().pull(&copy, folder.path()).unwrap(), &image);
            }
        }
    }
}

#[test]
fn oras_and_crane_take_apart_what_we_pushed() {
    let registry = RealRegistry::open(Program::Distribution);
    let home = tempfile::tempdir().unwrap();
    let artifact = registry.reference("acme/oci:v1");
    client().push(&plugin(Variant::Oci), &artifact).unwrap();
    let output = home.path().join("by-oras");
    let arguments = ["pull", "--plain-http", "--output", output.to_str().unwrap(), &artifact.to_string()];
    run(tool("debian-forky/usr/bin/oras"), home.path(), &arguments).unwrap();
    assert_eq!(std::fs::read(output.join("plugin.wasm")).unwrap(), module());
    assert!(output.join("runtime-config.json").is_file());

    let crane = tool("debian-forky/usr/bin/crane");
    for variant in [Variant::Compat, Variant::Docker, Variant::Maistra] {
        let container = registry.reference(&format!("acme/{variant}:v1"));
        client().push(&plugin(variant), &container).unwrap();
        // It checks digests, sizes and diff_ids.
        run(&crane, home.path(), &["validate", "--remote", &container.to_string()]).unwrap();
        let tar = home.path().join("image.tar");
        run(&crane, home.path(), &["export", &container.to_string(), tar.to_str().unwrap()]).unwrap();
        let archive = ["-xf", tar.to_str().unwrap(), "-C", home.path().to_str().unwrap(), "plugin.wasm"];
        run("tar", home.path(), &archive).unwrap();
        assert_eq!(std::fs::read(home.path().join("plugin.wasm")).unwrap(), module(), "{variant}");
    }
}

#[test]
fn buildah_and_podman_pull_container_images_and_push_what_we_and_istio_read() {
    let registry = RealRegistry::open(Program::Distribution);
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (root, runroot) = (place("root"), place("run"));
    for (name, variant) in [("buildah", Variant::Compat), ("podman", Variant::Docker), ("podman", Variant::Maistra)] {
        let ours = registry.reference(&format!("acme/{variant}:v1"));
        let theirs = registry.reference(&format!("{name}/{variant}:v1"));
        client().push(&plugin(variant), &ours).unwrap();
        let go = |arguments: &[&str]| {
            let storage = ["--storage-driver", "vfs", "--root", &root, "--runroot", &runroot];
            run(name, home.path(), &[&storage[..], arguments].concat())
                .unwrap_or_else(|error| panic!("{name} {variant} {arguments:?}: {error}"))
        };
        go(&["pull", "--tls-verify=false", &ours.to_string()]);
        go(&["push", "--tls-verify=false", &ours.to_string(), &format!("docker://{theirs}")]);
        // They compress again: other bytes, the same module.
        let fetched = fetch_module(&Reference::Image(theirs.clone()), None, &options()).unwrap();
        assert_eq!(fetched.module, module(), "{name} {variant}");
        assert_eq!(istio(&theirs, None).unwrap(), module(), "{name} {variant}");
    }
}

#[test]
fn umoci_old_and_new_unpacks_ours_and_repacks_what_we_read() {
    let home = tempfile::tempdir().unwrap();
    let newer = tool("debian-forky/usr/bin/umoci");
    for (name, umoci) in [("old", Path::new("umoci")), ("new", &newer)] {
        let root = home.path().join(name);
        Layout::open_or_create(&root).unwrap().put(&plugin(Variant::Compat), "ours").unwrap();
        let (ours, bundle) = (format!("{}:ours", root.display()), home.path().join(format!("{name}-bundle")));
        let bundle = bundle.to_str().unwrap();
        run(umoci, home.path(), &["unpack", "--rootless", "--image", &ours, bundle]).unwrap();
        let file = Path::new(bundle).join("rootfs/plugin.wasm");
        assert_eq!(std::fs::read(&file).unwrap(), module());
        // Each change becomes a layer of its own on top: the last, where Istio looks.
        let mut other = module();
        other.extend([0, 2, 1, b'x']);
        std::fs::write(&file, &other).unwrap();
        let theirs = format!("{}:theirs", root.display());
        run(umoci, home.path(), &["repack", "--image", &theirs, bundle]).unwrap();
        let reference = Reference::parse(&format!("oci:{theirs}")).unwrap();
        assert_eq!(fetch_module(&reference, None, &options()).unwrap().module, other, "{name}");
    }
}
