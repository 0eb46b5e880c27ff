//! Images written and read, by Istio's rules and beyond them.

mod foreign;
mod variants;

use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::*;
use crate::blob::{Blob, BlobError, Content, Image};
use crate::digest::Digest;
use crate::module::{EnvoyVersion, MAX_MODULE_SIZE, Problem};

/// The smallest module that Envoy loads, told apart by a data segment.
pub(crate) fn plugin(data: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (memory (export "memory") 1) (data (i32.const 0) "{data}")
            (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
            (func (export "malloc") (param i32) (result i32) i32.const 0))"#
    ))
    .unwrap()
}

/// The image of [`plugin`].
pub(crate) fn sample(data: &str) -> Image {
    let metadata = Metadata { name: "sample".to_owned(), ..Metadata::default() };
    assemble(Variant::Compat, &metadata, &plugin(data), EnvoyVersion::NEWEST).unwrap()
}

fn full() -> Metadata {
    Metadata {
        name: "basic-auth".to_owned(),
        version: Some("1.2.3".to_owned()),
        description: Some("Asks for a password".to_owned()),
        license: Some("Apache-2.0".to_owned()),
        source: Some("https://example.com/x".to_owned()),
        revision: Some("0123abc".to_owned()),
        root_ids: vec!["basic-auth".to_owned()],
        phase: Some("AUTHN".to_owned()),
        priority: Some(10),
        toolchain: Some("rustc 1.95.0".to_owned()),
        source_date_epoch: Some(1_735_689_600),
        ..Metadata::default()
    }
}

fn config_of(image: &Image) -> Value {
    serde_json::from_slice(&image.config.read(1 << 20).unwrap()).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn layer(files: &[(&str, &[u8])]) -> Blob {
    Blob::from_bytes(media_type::LAYER, gzip(&tar(files)))
}

fn image(manifest_type: &str, layers: Vec<Blob>) -> Image {
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type }).to_string().into_bytes();
    let config = Blob::from_bytes(media_type::CONFIG, *b"{}");
    Image { manifest: manifest.into(), media_type: manifest_type.to_owned(), config, layers }
}

fn refusal(image: &Image, limit: u64) -> String {
    extract_module(image, limit).unwrap_err().to_string()
}

#[test]
fn the_layer_is_a_canonical_tar_of_both_files() {
    let module = plugin("x");
    let image = assemble(Variant::Compat, &full(), &module, EnvoyVersion::NEWEST).unwrap();
    let [layer] = &image.layers[..] else { panic!("{} layers", image.layers.len()) };
    assert_eq!(layer.descriptor.media_type().as_ref(), media_type::LAYER);
    let gzipped = layer.read(1 << 20).unwrap();
    // RFC 1952: no flags, no time, operating system unknown.
    assert_eq!((gzipped[3], &gzipped[4..8], gzipped[9]), (0, &[0; 4][..], 255));
    let mut unpacked = Vec::new();
    GzDecoder::new(&gzipped[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(config_of(&image)["rootfs"]["diff_ids"], json!([Digest::of(&unpacked)]));
    let mut names = Vec::new();
    for entry in tar::Archive::new(&unpacked[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap(), header.mtime().unwrap());
        assert_eq!(owner, (0, 0, 0o644, 1_735_689_600));
        assert_eq!((header.username().unwrap(), header.groupname().unwrap()), (Some(""), Some("")));
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        names.push((entry.path().unwrap().to_str().unwrap().to_owned(), content));
    }
    let runtime_config = br#"{"type":"envoy_proxy","abiVersions":["v0.2.1"],"config":{"root_ids":["basic-auth"],"phase":"AUTHN","priority":10,"toolchain":"rustc 1.95.0"}}"#;
    assert_eq!(
        names,
        [("plugin.wasm".to_owned(), module), ("runtime-config.json".to_owned(), runtime_config.to_vec())]
    );
}

#[test]
fn configuration_and_manifest_say_what_readers_insist_on() {
    let image = assemble(Variant::Compat, &full(), &plugin("x"), EnvoyVersion::NEWEST).unwrap();
    let config = config_of(&image);
    assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("amd64")));
    let created = json!("2025-01-01T00:00:00Z");
    assert_eq!((&config["created"], &config["history"][0]["created"]), (&created, &created));
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    assert_eq!(
        manifest["annotations"],
        json!({
            "dev.plugwright.toolchain": "rustc 1.95.0",
            "module.wasm.image/variant": "compat",
            "org.opencontainers.image.description": "Asks for a password",
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.revision": "0123abc",
            "org.opencontainers.image.source": "https://example.com/x",
            "org.opencontainers.image.title": "basic-auth",
            "org.opencontainers.image.version": "1.2.3",
        })
    );
    let bare = sample("x");
    assert_eq!(config_of(&bare)["created"], "1970-01-01T00:00:00Z");
    let manifest: Value = serde_json::from_slice(&bare.manifest).unwrap();
    assert_eq!(manifest["annotations"].as_object().unwrap().len(), 2);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let module = plugin("x");
    let of = |metadata: &Metadata| assemble(Variant::Compat, metadata, &module, EnvoyVersion::NEWEST).unwrap().digest();
    assert_eq!(of(&full()), of(&full()));
    assert_ne!(of(&full()), of(&Metadata { source_date_epoch: None, ..full() }));
    // Pinned: a change here changes the digest of every image that anyone rebuilds.
    assert_eq!(of(&full()).as_str(), "sha256:2f62e7d96976ad21962dcb028fc23f7fde1013c5351354819516e1e4e58df21d");
}

#[test]
fn a_module_that_envoy_refuses_makes_no_image() {
    let module = wat::parse_str("(module (import \"env\" \"foo\" (func)))").unwrap();
    let error = assemble(Variant::Compat, &full(), &module, EnvoyVersion::NEWEST).unwrap_err();
    assert!(error.to_string().starts_with("module of `basic-auth` is refused: no export names"), "{error}");
    let AssembleError::Refused { report, .. } = error else { panic!("{error}") };
    assert!(report.problems.contains(&Problem::NoAllocator));
    let late = Metadata { source_date_epoch: Some(u64::MAX), ..full() };
    assert!(matches!(
        assemble(Variant::Compat, &late, &plugin("x"), EnvoyVersion::NEWEST),
        Err(AssembleError::Time { .. })
    ));
    let large = Metadata { description: Some("x".repeat(5 << 20)), ..full() };
    assert!(matches!(
        assemble(Variant::Compat, &large, &plugin("x"), EnvoyVersion::NEWEST),
        Err(AssembleError::TooLarge { part: "manifest", .. })
    ));
}

#[test]
fn what_is_written_is_read_back() {
    let image = assemble(Variant::Compat, &full(), &plugin("x"), EnvoyVersion::NEWEST).unwrap();
    assert_eq!(extract_module(&image, MAX_MODULE_SIZE).unwrap(), plugin("x"));
    let config = runtime_config(&image).unwrap().unwrap();
    assert_eq!((config.runtime.as_str(), config.root_ids()), ("envoy_proxy", vec!["basic-auth"]));
    assert_eq!(config.abi_versions, ["v0.2.1"]);
    let parsed = parse(Arc::clone(&image.manifest), &image.media_type, |digest| {
        let blob = image.layers.iter().chain([&image.config]).find(|blob| blob.digest().unwrap() == *digest);
        blob.unwrap().content.clone()
    });
    assert_eq!(extract_module(&parsed.unwrap(), MAX_MODULE_SIZE).unwrap(), plugin("x"));
}

#[test]
fn the_module_is_found_as_istio_finds_it() {
    let module = plugin("x");
    let good = || layer(&[("some/folder/plugin.wasm", &module)]);
    let docker = |media_type| Blob::from_bytes(media_type, gzip(&tar(&[("./plugin.wasm", &module)])));
    let bare = || Blob::from_bytes(media_type::WASM_MODULE, module.clone());
    let config = || Blob::from_bytes(media_type::WASM_CONFIG, *br#"{"type": "envoy_proxy", "abi_version": "v1"}"#);
    let empty = || layer(&[("other", b"")]);
    for (expected, image) in [
        (Variant::Compat, image(media_type::MANIFEST, vec![good()])),
        (Variant::Compat, image(media_type::MANIFEST, vec![empty(), empty(), good()])),
        (Variant::Docker, image(media_type::DOCKER_MANIFEST, vec![docker(media_type::DOCKER_LAYER)])),
        (Variant::Oci, image(media_type::MANIFEST, vec![config(), bare()])),
        (Variant::Oci, image(media_type::MANIFEST, vec![bare(), config()])),
        // The last layer is tried as compat first.
        (Variant::Compat, image(media_type::MANIFEST, vec![bare(), empty()])),
    ] {
        assert_eq!(extract_module(&image, MAX_MODULE_SIZE).unwrap(), module);
        assert_eq!(variant(&image).unwrap(), expected);
    }
    let artifact = image(media_type::MANIFEST, vec![config(), bare()]);
    assert_eq!(runtime_config(&artifact).unwrap().unwrap().abi_versions, ["v1"]);
    assert_eq!(runtime_config(&image(media_type::MANIFEST, vec![good()])).unwrap(), None);

    let last = "not a plugin image: its layers are ";
    for (message, image) in [
        ("the image has no layers", image(media_type::MANIFEST, vec![])),
        ("holds no file named `plugin.wasm`", image(media_type::MANIFEST, vec![good(), empty()])),
        (last, image(media_type::MANIFEST, vec![bare()])),
        (last, image(media_type::MANIFEST, vec![bare(), config(), config()])),
        (last, image(media_type::MANIFEST, vec![docker(media_type::DOCKER_LAYER)])),
        (last, image(media_type::DOCKER_MANIFEST, vec![good()])),
        (last, image(media_type::DOCKER_MANIFEST, vec![config(), bare()])),
        ("an image index", image(media_type::INDEX, vec![good()])),
    ] {
        let refusal = refusal(&image, MAX_MODULE_SIZE);
        assert!(refusal.contains(message), "{refusal} is not: {message}");
    }
}

#[test]
fn what_is_in_the_image_must_be_a_module() {
    for content in [&b""[..], b"\0asm", b"not wasm at all"] {
        let image = image(media_type::MANIFEST, vec![layer(&[("plugin.wasm", content)])]);
        assert!(refusal(&image, MAX_MODULE_SIZE).contains("is not a WebAssembly binary"));
    }
    let garbage = image(media_type::MANIFEST, vec![Blob::from_bytes(media_type::LAYER, *b"no gzip")]);
    assert!(refusal(&garbage, MAX_MODULE_SIZE).ends_with("cannot be unpacked"));
    let whole = tar(&[("plugin.wasm", &plugin(&"x".repeat(5000)))]);
    let cut = image(media_type::MANIFEST, vec![Blob::from_bytes(media_type::LAYER, gzip(&whole[..2000]))]);
    assert!(refusal(&cut, MAX_MODULE_SIZE).ends_with("cannot be unpacked"));
}

#[test]
fn a_module_over_the_limit_is_refused_before_it_is_unpacked() {
    let module = plugin(&"x".repeat(5000));
    let size = module.len() as u64;
    let compat = image(media_type::MANIFEST, vec![layer(&[("plugin.wasm", &module)])]);
    let config = Blob::from_bytes(media_type::WASM_CONFIG, *b"{}");
    let artifact = image(media_type::MANIFEST, vec![config, Blob::from_bytes(media_type::WASM_MODULE, module)]);
    for image in [compat, artifact] {
        assert!(extract_module(&image, size).is_ok());
        assert!(refusal(&image, size - 1).ends_with(&format!("unpacks to more than {} bytes", size - 1)));
    }
}

#[test]
fn a_gzip_bomb_is_stopped() {
    // 64 MiB of zeros, in a file that is not the one looked for.
    let bomb = layer(&[("zeros", &vec![0; 64 << 20])]);
    assert!(bomb.descriptor.size() < 1 << 20);
    let image = image(media_type::MANIFEST, vec![bomb]);
    assert!(matches!(extract_module(&image, 1 << 20), Err(ExtractError::LayerTooLarge { .. })));
}

#[test]
fn a_layer_that_is_not_what_its_descriptor_says_is_refused() {
    let mut image = sample("x");
    let Content::Bytes(bytes) = &image.layers[0].content else { panic!() };
    let mut damaged = bytes.to_vec();
    // The last byte is gzip's own length field, which is not read: only the digest tells.
    *damaged.last_mut().unwrap() ^= 1;
    image.layers[0].content = Content::Bytes(damaged.into());
    assert!(matches!(extract_module(&image, MAX_MODULE_SIZE), Err(ExtractError::Blob(BlobError::Digest { .. }))));
}

#[test]
fn manifests_that_are_not_an_images_are_named() {
    let parse = |media_type: &str, manifest: Value| {
        let content = |_: &Digest| Content::Bytes(Arc::new([]));
        parse(manifest.to_string().into_bytes().into(), media_type, content).unwrap_err().to_string()
    };
    let index = json!({ "schemaVersion": 2, "manifests": [] });
    assert!(parse(media_type::INDEX, index.clone()).starts_with("an image index"));
    assert!(parse(media_type::DOCKER_INDEX, index).contains("manifest.list"));
    assert_eq!(parse("text/html", json!({})), "media type `text/html` is not an image manifest's");
    let both = json!({ "manifests": [], "layers": [] });
    assert_eq!(parse(media_type::MANIFEST, both), "the manifest has both `layers` and `manifests`");
    let liar = json!({ "mediaType": media_type::INDEX, "layers": [] });
    assert!(parse(media_type::MANIFEST, liar).starts_with("the manifest says it is"));
    assert_eq!(parse(media_type::MANIFEST, json!([])), "the manifest cannot be parsed");
    let foreign = json!({ "mediaType": "x", "size": 1, "digest": format!("sha512:{}", "0".repeat(128)) });
    let foreign = json!({ "config": foreign, "layers": [] });
    assert!(parse(media_type::MANIFEST, foreign).ends_with("is not supported; only sha256 is"));
}

#[test]
fn packaging_again_changes_nothing_and_a_refused_module_leaves_the_layout_alone() {
    let folder = tempfile::tempdir().unwrap();
    let layout = crate::layout::Layout::open_or_create(&folder.path().join("dist")).unwrap();
    for variant in Variant::ALL {
        let package = |module: &[u8]| -> Result<_, PackageError> {
            let module = CheckedModule::new("basic-auth", module, EnvoyVersion::NEWEST)?;
            package(variant, &full(), &module, &layout, "basic-auth")
        };
        let first = package(&plugin("x")).unwrap();
        assert!(!first.unchanged);
        assert_eq!(package(&plugin("x")).unwrap(), Packaged { unchanged: true, ..first.clone() });
        let image = layout.image("basic-auth").unwrap();
        assert_eq!(image.digest(), first.digest);
        let stored: u64 = std::fs::read_dir(layout.root().join("blobs/sha256"))
            .unwrap()
            .map(|blob| blob.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(first.size, stored);

        let refused = package(b"not wasm").unwrap_err();
        assert!(refused.to_string().starts_with("module of `basic-auth` is refused: not a WebAssembly module"));
        assert_eq!(layout.image("basic-auth").unwrap().digest(), first.digest);
    }
}
