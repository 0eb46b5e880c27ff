//! Images of every variant, and of forms that others publish, between our code, a registry, skopeo, umoci and buildah.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what suites share is not itself a test")]

#[expect(dead_code, reason = "each suite uses a part of it")]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use packager::blob::Image;
use packager::digest::Digest;
use packager::fetch::{FetchOptions, fetch_module};
use packager::image::{CarryError, Form, Metadata, Variant, assemble, carry, recognise};
use packager::layout::Layout;
use packager::module::EnvoyVersion;
use packager::reference::Reference;
use registry_tests::Registry;
use serde_json::json;

use support::{blob, client, image_of, reference};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The smallest module that Envoy loads.
fn module() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    wat::parse_str(text).unwrap()
}

fn plugin(variant: Variant) -> Image {
    let metadata = Metadata {
        name: "sample".to_owned(),
        version: Some("1.2.3".to_owned()),
        root_ids: vec!["root".to_owned()],
        priority: Some(5),
        ..Metadata::default()
    };
    assemble(variant, &metadata, &module(), EnvoyVersion::NEWEST).unwrap()
}

fn open() -> Registry {
    Registry::start(registry_tests::Options::default()).unwrap()
}

fn options() -> FetchOptions {
    FetchOptions::new(client())
}

fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask ci --prepare` installs it"))
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// That the program fails, and says this.
#[track_caller]
fn refuses(program: &str, arguments: &[&str], reason: &str) {
    let output = output(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(reason), "{program} {arguments:?}: {said}");
}

/// All variants, each in a layout under its own name.
fn layout(folder: &Path) -> (Layout, String) {
    let root = folder.join("dist");
    let layout = Layout::open_or_create(&root).unwrap();
    for variant in Variant::ALL {
        layout.put(&plugin(variant), &variant.to_string()).unwrap();
    }
    (layout, root.to_str().unwrap().to_owned())
}

/// The content of every file of that name below a folder.
fn files(folder: &Path, name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path(), name));
        } else if kind.is_file() && entry.file_name() == name {
            found.push(fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn every_variant_goes_through_a_registry_and_is_read_by_istios_rules() {
    let registry = open();
    for variant in Variant::ALL {
        let image = plugin(variant);
        let tagged = reference(&registry.host(), &format!("acme/x:{variant}"));
        client().push(&image, &tagged).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pulled = client().pull(&tagged, folder.path()).unwrap();
        assert_eq!((pulled.digest(), pulled.media_type.as_str()), (image.digest(), image.media_type.as_str()));
        assert_eq!(recognise(&pulled).unwrap(), Form::Plugin(variant));
        let tagged = Reference::Image(tagged);
        let fetched = fetch_module(&tagged, Some(image.digest().hex()), &options()).unwrap();
        assert_eq!(fetched.module, module(), "{variant}");
        let carried = carry(&tagged, &options()).unwrap();
        assert_eq!((carried.form, carried.module), (Some(Form::Plugin(variant)), module()));
    }
}

#[test]
fn skopeo_and_umoci_read_the_layout_as_far_as_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, root) = layout(folder.path());
    for variant in [Variant::Compat, Variant::Maistra] {
        let bundle = folder.path().join(variant.to_string());
        let image = format!("{root}:{variant}");
        run("umoci", &["stat", "--image", &image]);
        run("umoci", &["unpack", "--rootless", "--image", &image, bundle.to_str().unwrap()]);
        assert_eq!(files(&bundle, "plugin.wasm"), [module()], "{variant}");
    }
    for variant in [Variant::Compat, Variant::Oci, Variant::Maistra] {
        let copy = format!("oci:{}:{variant}", folder.path().join("copy").display());
        run("skopeo", &["copy", "--preserve-digests", &format!("oci:{root}:{variant}"), &copy]);
        let digest = layout.image(&variant.to_string()).unwrap().digest();
        let fetched = fetch_module(&copy.parse().unwrap(), Some(digest.hex()), &options()).unwrap();
        assert_eq!(fetched.module, module(), "{variant}");
    }
    let unknown = "application/vnd.module.wasm.config.v1+json";
    refuses("umoci", &["stat", "--image", &format!("{root}:oci")], unknown);
    refuses("skopeo", &["inspect", &format!("oci:{root}:docker")], "no descriptor found");
}

#[test]
fn skopeo_and_buildah_take_docker_images_from_a_registry() {
    let registry = open();
    let folder = tempfile::tempdir().unwrap();
    let image = plugin(Variant::Docker);
    client().push(&image, &reference(&registry.host(), "acme/x:docker")).unwrap();
    let source = format!("docker://{}/acme/x:docker", registry.host());
    let inspected = run("skopeo", &["inspect", "--tls-verify=false", &source]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], image.digest().as_str());
    assert_eq!(inspected["Labels"]["org.opencontainers.image.version"], "1.2.3");
    let archive = format!("docker-archive:{}:x:1", folder.path().join("docker.tar").display());
    run("skopeo", &["copy", "--src-tls-verify=false", &source, &archive]);
    assert_eq!(buildah(folder.path(), &source), Ok(module()));
}

/// The module that buildah has in its storage after pulling; or what it says.
fn buildah(folder: &Path, source: &str) -> Result<Vec<u8>, String> {
    let storage = tempfile::tempdir().unwrap();
    let path = |name: &str| storage.path().join(name);
    let output = Command::new("buildah")
        // It takes no layout whose path has an upper-case letter.
        .current_dir(folder)
        .args(["--storage-driver", "vfs", "--root"])
        .arg(path("root"))
        .arg("--runroot")
        .arg(path("run"))
        .args(["pull", "--tls-verify=false", source])
        .output()
        .unwrap_or_else(|error| panic!("buildah: {error}; `cargo xtask ci --prepare` installs it"));
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(files(&path("root").join("vfs"), "plugin.wasm").concat())
}

#[test]
fn buildah_pulls_container_images_from_the_layout_and_no_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    layout(folder.path());
    for variant in [Variant::Compat, Variant::Maistra] {
        assert_eq!(buildah(folder.path(), &format!("oci:dist:{variant}")), Ok(module()), "{variant}");
    }
    let refused = buildah(folder.path(), "oci:dist:oci").unwrap_err();
    assert!(refused.contains("application/vnd.module.wasm.config"), "{refused}");
}

#[test]
fn a_layer_that_skopeo_compressed_by_zstd_is_refused_and_repackaged_to_the_same_image() {
    let registry = open();
    let folder = tempfile::tempdir().unwrap();
    let (layout, root) = layout(folder.path());
    let there = format!("docker://{}/acme/x:zstd", registry.host());
    let flags = ["copy", "--dest-tls-verify=false", "--dest-compress-format", "zstd"];
    run("skopeo", &[&flags[..], &[&format!("oci:{root}:compat"), &there]].concat());
    let tagged = Reference::Image(reference(&registry.host(), "acme/x:zstd"));
    let error = fetch_module(&tagged, None, &options()).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains(&format!("--from {tagged} --format compat"))), "{error:?}");
    let carried = carry(&tagged, &options()).unwrap();
    assert_eq!(carried.form, Some(Form::Zstd));
    let again = assemble(Variant::Compat, &carried.metadata, &carried.module, EnvoyVersion::NEWEST).unwrap();
    assert_eq!(again.digest(), layout.image("compat").unwrap().digest());
}

fn entry(image: &Image, os: &str, architecture: &str) -> serde_json::Value {
    json!({"mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
        "platform": {"os": os, "architecture": architecture}})
}

/// An index in a registry, of images that are there too.
fn index(registry: &Registry, images: &[(&Image, &str, &str)]) -> Reference {
    for (number, (image, ..)) in images.iter().enumerate() {
        client().push(image, &reference(&registry.host(), &format!("acme/x:{number}"))).unwrap();
    }
    let entries: Vec<_> = images.iter().map(|(image, os, architecture)| entry(image, os, architecture)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let tagged = reference(&registry.host(), "acme/x:index");
    client().put_manifest(&tagged, INDEX, index.as_bytes()).unwrap();
    Reference::Image(tagged)
}

#[test]
fn of_an_index_the_image_that_holds_a_module_is_carried_over() {
    let registry = open();
    let (compat, wkg) = (plugin(Variant::Compat), image_of(vec![blob("application/wasm", &module())]));
    let none = image_of(vec![blob("application/octet-stream", b"something else")]);
    let form = |images: &[(&Image, &str, &str)]| {
        let carried = carry(&index(&registry, images), &options()).unwrap();
        assert_eq!(carried.module, module());
        carried.form.unwrap().to_string()
    };
    assert_eq!(form(&[(&wkg, "wasi", "wasm"), (&compat, "linux", "amd64")]), "a plugin image of variant compat");
    assert_eq!(form(&[(&none, "linux", "amd64"), (&wkg, "wasi", "wasm")]), "a container image");
    assert_eq!(form(&[(&compat, "linux", "arm64"), (&none, "unknown", "unknown")]), "a plugin image of variant compat");
    let several = index(&registry, &[(&compat, "linux", "arm64"), (&compat, "linux", "s390x")]);
    assert!(matches!(carry(&several, &options()), Err(CarryError::Index { .. })));
    let without = index(&registry, &[(&none, "linux", "amd64")]);
    assert!(matches!(carry(&without, &options()), Err(CarryError::Extract { .. })));
}

#[test]
fn an_index_in_a_layout_is_named_and_repackaged() {
    let folder = tempfile::tempdir().unwrap();
    let (_, root) = layout(folder.path());
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&plugin(Variant::Compat), "linux", "amd64")]})
    .to_string();
    let digest = Digest::of(index.as_bytes());
    fs::write(format!("{root}/blobs/sha256/{}", digest.hex()), &index).unwrap();
    let listed = fs::read_to_string(format!("{root}/index.json")).unwrap();
    let mut listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    listed["manifests"].as_array_mut().unwrap().push(json!({"mediaType": INDEX, "digest": digest, "size": index.len(),
        "annotations": {"org.opencontainers.image.ref.name": "multi"}}));
    fs::write(format!("{root}/index.json"), listed.to_string()).unwrap();
    let multi: Reference = format!("oci:{root}:multi").parse().unwrap();
    let error = fetch_module(&multi, None, &options()).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains(&format!("--from {multi} --format compat"))), "{error:?}");
    assert_eq!(carry(&multi, &options()).unwrap().module, module());
}

#[test]
fn a_module_file_brings_what_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wasm");
    fs::write(&path, module()).unwrap();
    let reference: Reference = path.to_str().unwrap().parse().unwrap();
    let metadata = || carry(&reference, &options()).unwrap().metadata;
    assert_eq!(metadata(), Metadata::default());
    let config = folder.path().join("runtime-config.json");
    fs::write(&config, r#"{"type":"envoy_proxy","config":{"root_ids":["a"],"schema":{}}}"#).unwrap();
    assert_eq!(metadata().root_ids, ["a"]);
    let manifest = "schemaVersion: 1\nname: n\nphase: PreAuthN\npriority: 7\nmodule: ";
    fs::write(folder.path().join("manifest.yaml"), format!("{manifest}other.wasm\n")).unwrap();
    assert_eq!(metadata().priority, None, "another module's");
    fs::write(folder.path().join("manifest.yaml"), format!("{manifest}x.wasm\n")).unwrap();
    assert_eq!((metadata().priority, metadata().phase.as_deref()), (Some(7), Some("AUTHN")));
    fs::write(&config, "{").unwrap();
    let error = carry(&reference, &options()).unwrap_err();
    assert!(error.is_bad_content() && error.to_string().contains("runtime-config.json, beside the module"), "{error}");
}
