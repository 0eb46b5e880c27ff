//! What others publish: named for what it is, refused in Istio's stead, and repackaged.

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

/// An image with a configuration of this type, and annotations.
fn published(config_type: &str, config: &[u8], layers: Vec<Blob>, more: &Value) -> Image {
    let config = Blob::from_bytes(config_type, config);
    let descriptors: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config.descriptor, "layers": descriptors,
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let manifest = manifest.to_string().into_bytes().into();
    Image { manifest, media_type: media_type::MANIFEST.to_owned(), config, layers }
}

fn bare(media_type: &str, title: Option<&str>, content: &[u8]) -> Blob {
    let mut blob = Blob::from_bytes(media_type, content);
    let titled = title.map(|title| [("org.opencontainers.image.title".to_owned(), title.to_owned())].into());
    blob.descriptor.set_annotations(titled);
    blob
}

/// As wkg 0.15 pushes: the CNCF's Wasm OCI Artifact.
fn wkg(content: &[u8]) -> Image {
    let config = json!({ "created": "2026-01-02T03:04:05.678Z", "author": null, "architecture": "wasm", "os": "wasip1",
        "layerDigests": [Digest::of(content)], "component": null });
    let annotations = json!({ "annotations": { "org.opencontainers.image.version": "0.3.0",
        "org.opencontainers.image.description": "adds a header", "org.opencontainers.image.licenses": "MIT" } });
    let layer = bare("application/wasm", None, content);
    published("application/vnd.wasm.config.v0+json", config.to_string().as_bytes(), vec![layer], &annotations)
}

fn container(layers: Vec<Blob>) -> Image {
    let config = br#"{"architecture":"wasm","os":"wasi","config":{"Labels":{"maintainer":"ann"}}}"#;
    published(media_type::CONFIG, config, layers, &json!({}))
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// Name, what Istio says, and the module if there is one to carry over.
#[track_caller]
fn check(image: &Image, name: &str, istio: &str, module: Option<&[u8]>) {
    assert_eq!(recognise(image).unwrap().to_string(), name);
    let refused = extract_module(image, MAX_MODULE_SIZE).unwrap_err();
    assert!(refused.to_string().contains(istio), "{refused} is not: {istio}");
    match (carry_image(image, MAX_MODULE_SIZE), module) {
        (Ok(carried), Some(module)) => {
            assert_eq!(carried.module, module);
            assert_eq!(carried.form.unwrap().to_string(), name);
            assert!(refused.hint().is_some_and(|hint| hint.contains("package --from REF")), "{refused:?}");
        }
        (Err(error), None) => assert!(error.to_string().contains(name), "{error}"),
        (outcome, _) => panic!("{name}: {outcome:?}"),
    }
}

#[test]
fn artifacts_of_other_tools_are_named_and_their_module_is_carried_over() {
    let module = plugin("x");
    let last = "Istio reads a last layer `application/vnd.oci.image.layer.v1.tar+gzip`";
    check(&wkg(&module), "wkg's layout (a CNCF Wasm OCI artifact)", last, Some(&module));
    let wasm = "application/vnd.wasm.content.layer.v1+wasm";
    let name = "wasm-to-oci's layout (oci-client's WASM media types)";
    let layer = || bare(wasm, Some("module.wasm"), &module);
    let tool = published("application/vnd.wasm.config.v1+json", b"{}", vec![layer()], &json!({}));
    check(&tool, name, last, Some(&module));
    let oci_client = published(media_type::CONFIG, b"{}", vec![layer()], &json!({}));
    check(&oci_client, name, last, Some(&module));
    let spec = || bare(media_type::WASM_MODULE, None, &module);
    let one = published("application/vnd.oci.empty.v1+json", b"{}", vec![spec()], &json!({}));
    check(&one, "a plugin image of variant oci with one layer instead of two", "exactly two layers", Some(&module));
    let oras = |title, artifact_type: &Value| {
        let layer = bare("application/octet-stream", title, &module);
        published("application/vnd.oci.empty.v1+json", b"{}", vec![layer], artifact_type)
    };
    let typed = json!({ "artifactType": "application/vnd.acme.filter" });
    check(&oras(Some("a.wasm"), &typed), "an artifact of type `application/vnd.acme.filter`", last, Some(&module));
    check(&oras(None, &json!({})), "an artifact of type `application/octet-stream`", last, Some(&module));
    // What ORAS does without any media type given.
    let layer = bare(media_type::PLAIN_LAYER, Some("filter.wasm"), &module);
    let untyped = json!({ "artifactType": "application/vnd.unknown.artifact.v1" });
    let untyped = published("application/vnd.oci.empty.v1+json", b"{}", vec![layer], &untyped);
    check(&untyped, "an artifact of type `application/vnd.oci.image.layer.v1.tar`", last, Some(&module));
    let gzipped = published("x", b"{}", vec![bare("application/wasm", None, &gzip(&module))], &json!({}));
    check(&gzipped, "an artifact of type `x`", last, Some(&module));
}

#[test]
fn container_images_that_istio_does_not_read_are_named_and_carried_over() {
    let module = plugin("x");
    let whole = tar(&[("etc/x", b"1"), ("plugin.wasm", &module)]);
    let last = "Istio reads a last layer `application/vnd.oci.image.layer.v1.tar+gzip`";
    let name = "a container image with a zstd layer";
    let layer = |media_type, bytes: Vec<u8>| container(vec![Blob::from_bytes(media_type, bytes)]);
    check(&layer(media_type::ZSTD_LAYER, zstd(&whole)), name, last, Some(&module));
    // Several frames with one to be skipped, as `zstd:chunked` has them.
    let mut chunked = zstd(&whole[..700]);
    chunked.extend(b"\x50\x2a\x4d\x18\x05\0\0\0hello");
    chunked.extend(zstd(&whole[700..]));
    chunked.extend(b"\x5f\x2a\x4d\x18\0\0\0\0");
    check(&layer(media_type::ZSTD_LAYER, chunked.clone()), name, last, Some(&module));
    let plain = "a container image with a layer that is not compressed";
    check(&layer(media_type::PLAIN_LAYER, whole.clone()), plain, last, Some(&module));
    let other = container(vec![super::layer(&[("./app/hello.wasm", &module)])]);
    let name = "a container image whose module is `app/hello.wasm`, not `plugin.wasm`";
    check(&other, name, "holds no file named `plugin.wasm`; it has `app/hello.wasm`", Some(&module));
    for cut in [3, 20, 100, 200] {
        let damaged = layer(media_type::ZSTD_LAYER, chunked[..cut].to_vec());
        carry_image(&damaged, MAX_MODULE_SIZE).unwrap_err();
    }
}

#[test]
fn maistra_images_are_told_apart_and_their_manifest_is_carried_over() {
    let module = plugin("x");
    let manifest =
        b"schemaVersion: 1\nname: headers\nversion: 1.0.0\nphase: PostAuthZ\npriority: 100\nmodule: ./extension.wasm\n";
    let image = container(vec![layer(&[("manifest.yaml", manifest), ("extension.wasm", &module)])]);
    let name = "a Maistra image (OpenShift Service Mesh 2.2 and older)";
    check(&image, name, "it has `manifest.yaml`, `extension.wasm`", Some(&module));
    let metadata = carry_image(&image, MAX_MODULE_SIZE).unwrap().metadata;
    assert_eq!((metadata.name.as_str(), metadata.version.as_deref()), ("headers", Some("1.0.0")));
    assert_eq!((metadata.phase.as_deref(), metadata.priority), (Some("STATS"), Some(100)));

    let absent = container(vec![layer(&[("manifest.yaml", manifest), ("other.wasm", &module)])]);
    assert!(matches!(carry_image(&absent, MAX_MODULE_SIZE), Err(ExtractError::NoModule { .. })));
    let broken = container(vec![layer(&[("manifest.yaml", b"schemaVersion: 2\n"), ("extension.wasm", &module)])]);
    assert!(matches!(carry_image(&broken, MAX_MODULE_SIZE), Err(ExtractError::Maistra { .. })));
    // What Istio reads is a plugin, whatever else lies there.
    let both =
        container(vec![layer(&[("manifest.yaml", manifest), ("extension.wasm", b"x"), ("plugin.wasm", &module)])]);
    assert_eq!(carry_image(&both, MAX_MODULE_SIZE).unwrap().module, extract_module(&both, MAX_MODULE_SIZE).unwrap());
    let kubernetes = container(vec![layer(&[("manifest.yaml", b"kind: Pod\n"), ("plugin.wasm", &module)])]);
    assert_eq!(recognise(&kubernetes).unwrap(), Form::Plugin(Variant::Compat));
    assert_eq!(carry_image(&kubernetes, MAX_MODULE_SIZE).unwrap().module, module);
}

#[test]
fn what_holds_no_module_or_several_is_refused_by_name() {
    let module = plugin("x");
    let none = container(vec![layer(&[("etc/passwd", b"root")])]);
    check(&none, "a container image", "holds no file named `plugin.wasm`", None);
    let cosign = bare("application/vnd.dev.cosign.simplesigning.v1+json", None, b"{}");
    let signature = published(media_type::CONFIG, b"{}", vec![cosign], &json!({}));
    check(&signature, "a signature of another image", "a signature of another image", None);
    let chart = bare("application/vnd.cncf.helm.chart.content.v1.tar+gzip", None, &gzip(&tar(&[("x", b"")])));
    let chart = published("application/vnd.cncf.helm.config.v1+json", b"{}", vec![chart], &json!({}));
    check(&chart, "an artifact of type `application/vnd.cncf.helm.config.v1+json`", "Istio reads", None);
    let empty = published("application/vnd.oci.empty.v1+json", b"{}", vec![], &json!({}));
    check(&empty, "an artifact of type `application/vnd.oci.empty.v1+json`", "no layers", None);

    let two = container(vec![layer(&[("a.wasm", &module), ("b.wasm", &module)])]);
    assert_eq!(
        carry_image(&two, MAX_MODULE_SIZE).unwrap_err().to_string(),
        "a container image with several modules: `a.wasm`, `b.wasm`"
    );
    let layers =
        |one, other| vec![bare("application/wasm", Some(one), &module), bare("application/wasm", other, b"\0asm")];
    let two = published("x", b"{}", layers("a.wasm", None), &json!({}));
    assert!(matches!(carry_image(&two, MAX_MODULE_SIZE), Err(ExtractError::SeveralModules { .. })));
    let named = published("x", b"{}", layers("plugin.wasm", None), &json!({}));
    assert_eq!(carry_image(&named, MAX_MODULE_SIZE).unwrap().module, module);
}

#[test]
fn a_component_is_carried_over_and_refused_by_name_when_it_is_packaged() {
    let carried = carry_image(&wkg(b"\0asm\x0d\0\x01\0"), MAX_MODULE_SIZE).unwrap();
    let error = assemble(Variant::Compat, &carried.metadata, &carried.module, EnvoyVersion::NEWEST).unwrap_err();
    assert!(error.to_string().contains("a WebAssembly component, not a core module"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("wasm32-wasip1")));
    let text = wkg(b"(module)");
    assert!(matches!(carry_image(&text, MAX_MODULE_SIZE), Err(ExtractError::NotWasm { size: 8, .. })));
}

#[test]
fn annotations_labels_and_the_runtime_configuration_are_carried_over() {
    let annotations = json!({ "annotations": {
        "org.opencontainers.image.title": "auth", "org.opencontainers.image.created": "2020-01-01T00:00:00Z",
        "org.opencontainers.image.base.name": "scratch", "module.wasm.image/variant": "compat-smart",
        "org.opencontainers.image.vendor": "Acme", "com.acme.team": "edge", "io.buildah.version": "1.28",
    } });
    let runtime = br#"{"type":"envoy_proxy","abi_version":"v1","config":{"root_ids":["a","b"],"phase":"AUTHZ","priority":-3,"schema":{"x":1}}}"#;
    let layer = layer(&[("plugin.wasm", &plugin("x")), ("runtime-config.json", runtime)]);
    let config = br#"{"config":{"Labels":{"com.acme.team":"label","maintainer":"ann"}}}"#;
    let image = published(media_type::CONFIG, config, vec![layer], &annotations);
    let metadata = carry_image(&image, MAX_MODULE_SIZE).unwrap().metadata;
    let more: Vec<_> = metadata.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(more, [("com.acme.team", "edge"), ("maintainer", "ann"), ("org.opencontainers.image.vendor", "Acme")]);
    assert_eq!((metadata.name.as_str(), metadata.root_ids), ("auth", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((metadata.phase.as_deref(), metadata.priority), (Some("AUTHZ"), Some(-3)));
    assert_eq!(Value::Object(metadata.config), json!({ "schema": { "x": 1 } }));

    let solo = bare(media_type::WASM_MODULE, None, &plugin("x"));
    let one = published(media_type::WASM_CONFIG, runtime, vec![solo], &json!({}));
    assert_eq!(carry_image(&one, MAX_MODULE_SIZE).unwrap().metadata.root_ids, ["a", "b"]);
    let broken = super::layer(&[("plugin.wasm", &plugin("x")), ("runtime-config.json", b"{}")]);
    let broken = container(vec![broken]);
    assert!(matches!(carry_image(&broken, MAX_MODULE_SIZE), Err(ExtractError::RuntimeConfig { .. })));
}

#[test]
fn bombs_of_every_compression_are_stopped() {
    let zeros = tar(&[("zeros", &vec![0; 64 << 20])]);
    for bomb in [gzip(&zeros), zstd(&zeros)] {
        assert!(bomb.len() < 1 << 20);
        let image = container(vec![Blob::from_bytes(media_type::ZSTD_LAYER, bomb)]);
        let [layer] = &image.layers[..] else { panic!() };
        let read = |archive: &mut dyn Read| std::io::copy(archive, &mut std::io::sink());
        let error = unpack::through(layer, 1 << 20, read).unwrap_err();
        assert!(matches!(error, ExtractError::LayerTooLarge { limit: 1_048_576, .. }), "{error}");
    }
    let module = plugin(&"x".repeat(5000));
    let size = module.len() as u64;
    let image = container(vec![layer(&[("other.wasm", &module)])]);
    assert!(carry_image(&image, size).is_ok());
    assert!(matches!(carry_image(&image, size - 1), Err(ExtractError::TooLarge { .. })));
    let bare = bare("application/wasm", None, &gzip(&[&plugin("x")[..8], &vec![0; 8 << 20]].concat()));
    let bare = published("x", b"{}", vec![bare], &json!({}));
    assert!(matches!(carry_image(&bare, 1 << 20), Err(ExtractError::LayerTooLarge { .. })));
}

#[test]
fn a_damaged_layer_is_never_carried_over() {
    let module = plugin("x");
    for blob in [
        bare("application/wasm", None, &module),
        Blob::from_bytes(media_type::ZSTD_LAYER, zstd(&tar(&[("plugin.wasm", &module)]))),
        layer(&[("plugin.wasm", &module)]),
    ] {
        let Content::Bytes(bytes) = &blob.content else { panic!() };
        for position in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.to_vec();
            damaged[position] ^= 1;
            let damaged = Blob { content: Content::Bytes(damaged.into()), ..blob.clone() };
            let image = published("x", b"{}", vec![damaged], &json!({}));
            let error = carry_image(&image, MAX_MODULE_SIZE).unwrap_err();
            assert!(matches!(error, ExtractError::Blob(BlobError::Digest { .. })), "{position}: {error:?}");
        }
    }
}

#[test]
fn whatever_is_in_a_layer_is_an_answer_and_not_a_panic() {
    let manifest = b"schemaVersion: 1\nphase: PreAuthN\nmodule: plugin.wasm\n";
    let files = tar(&[("manifest.yaml", manifest), ("plugin.wasm", &plugin("x")), ("runtime-config.json", b"{}")]);
    let mut answers = [0; 2];
    for whole in [gzip(&files), zstd(&files), files[..2048].to_vec()] {
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 1 << (position % 8);
            for bytes in [flipped, whole[..position].to_vec()] {
                let image = container(vec![Blob::from_bytes(media_type::LAYER, bytes)]);
                let carried = carry_image(&image, 1 << 20).is_ok();
                answers[usize::from(carried)] += 1;
                let _ = (recognise(&image), extract_module(&image, 1 << 20));
            }
        }
    }
    assert!(answers[0] > 1000, "{answers:?}");
}
