//! Every variant as it is written, and read back.

use super::*;

fn of(variant: Variant) -> Image {
    assemble(variant, &full(), &plugin("x"), EnvoyVersion::NEWEST).unwrap()
}

fn manifest_of(image: &Image) -> Value {
    serde_json::from_slice(&image.manifest).unwrap()
}

/// Names in a layer, in order.
fn names(layer: &Blob) -> Vec<String> {
    let gzipped = layer.read(1 << 20).unwrap();
    let mut archive = ::tar::Archive::new(GzDecoder::new(&gzipped[..]));
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_variant_round_trips() {
    for variant in Variant::ALL {
        let image = of(variant);
        assert_eq!(extract_module(&image, MAX_MODULE_SIZE).unwrap(), plugin("x"), "{variant}: Istio's rules");
        assert_eq!(recognise(&image).unwrap(), Form::Plugin(variant));
        let carried = carry_image(&image, MAX_MODULE_SIZE).unwrap();
        assert_eq!((carried.form, carried.module), (Some(Form::Plugin(variant)), plugin("x")));
        let mut expected = Metadata { source_date_epoch: None, ..full() };
        if variant == Variant::Maistra {
            expected.root_ids.clear();
        }
        assert_eq!(carried.metadata, expected, "{variant}");

        let folder = tempfile::tempdir().unwrap();
        let layout = crate::layout::Layout::open_or_create(&folder.path().join("dist")).unwrap();
        layout.put(&image, "x").unwrap();
        let read = layout.image("x").unwrap();
        assert_eq!((read.digest(), recognise(&read).unwrap()), (image.digest(), Form::Plugin(variant)));
        assert_eq!(extract_module(&read, MAX_MODULE_SIZE).unwrap(), plugin("x"));
    }
}

#[test]
fn repackaging_into_the_same_variant_gives_the_same_image() {
    for variant in [Variant::Compat, Variant::Docker, Variant::Oci] {
        let image = of(variant);
        let mut carried = carry_image(&image, MAX_MODULE_SIZE).unwrap();
        carried.metadata.source_date_epoch = full().source_date_epoch;
        let again = assemble(variant, &carried.metadata, &carried.module, EnvoyVersion::NEWEST).unwrap();
        assert_eq!(again.digest(), image.digest(), "{variant}");
    }
}

#[test]
fn docker_images_are_dockers_in_every_media_type_and_have_labels() {
    let image = of(Variant::Docker);
    let manifest = manifest_of(&image);
    assert_eq!(image.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["mediaType"], image.media_type);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(manifest.as_object().unwrap().len(), 4, "schema 2 has no annotations: {manifest}");
    let config = config_of(&image);
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
    assert_eq!(config["config"]["Labels"].get(VARIANT_ANNOTATION), None);
    let compat = of(Variant::Compat);
    assert_eq!(config["rootfs"], config_of(&compat)["rootfs"]);
    assert_eq!(image.layers[0].descriptor.digest(), compat.layers[0].descriptor.digest(), "the same layer");
    assert_eq!(config_of(&compat)["config"], json!({}));
}

#[test]
fn oci_images_have_exactly_two_bare_layers_with_titles() {
    let image = of(Variant::Oci);
    let manifest = manifest_of(&image);
    let layer = |index: usize| &manifest["layers"][index];
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    assert_eq!(layer(0)["mediaType"], "application/vnd.module.wasm.config.v1+json");
    assert_eq!(layer(0)["annotations"], json!({ "org.opencontainers.image.title": "runtime-config.json" }));
    assert_eq!(layer(1)["mediaType"], "application/vnd.module.wasm.content.layer.v1+wasm");
    assert_eq!(layer(1)["annotations"], json!({ "org.opencontainers.image.title": "plugin.wasm" }));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.module.wasm.config.v1+json");
    assert_eq!(image.layers[1].read(1 << 20).unwrap(), plugin("x"), "not compressed");
    assert_eq!(manifest["annotations"].get(VARIANT_ANNOTATION), None);
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "basic-auth");
    let config = runtime_config(&image).unwrap().unwrap();
    assert_eq!((config.abi_versions, config.runtime), (vec!["v0.2.1".to_owned()], "envoy_proxy".to_owned()));
}

#[test]
fn maistra_images_name_their_module_in_a_manifest() {
    let image = of(Variant::Maistra);
    assert_eq!(manifest_of(&image)["annotations"][VARIANT_ANNOTATION], "compat");
    assert_eq!(names(&image.layers[0]), ["manifest.yaml", "plugin.wasm"]);
    let gzipped = image.layers[0].read(1 << 20).unwrap();
    let mut archive = ::tar::Archive::new(GzDecoder::new(&gzipped[..]));
    let mut text = String::new();
    archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(
        text,
        "schemaVersion: 1\n\nname: \"basic-auth\"\ndescription: \"Asks for a password\"\nversion: \"1.2.3\"\n\
         phase: PreAuthN\npriority: 10\nmodule: \"plugin.wasm\"\n"
    );
}

#[test]
fn every_variant_is_the_same_bytes_for_the_same_input() {
    for variant in Variant::ALL {
        assert_eq!(of(variant).digest(), of(variant).digest());
    }
    // Pinned, as the one of compat is.
    assert_eq!(
        of(Variant::Docker).digest().as_str(),
        "sha256:c8a1e767181df9a31215017a8cddaf51db82e8151df54ea8976babbddc7802b5"
    );
    assert_eq!(
        of(Variant::Oci).digest().as_str(),
        "sha256:6877dfa1b623339e0716d520b02869a21ec4d917a366b836f5fda92ae8486c66"
    );
    assert_eq!(
        of(Variant::Maistra).digest().as_str(),
        "sha256:409679ca8a05b58262d8bb51fa65feb218d9d7d6377ecdd0b5a3e2fae29b9b1f"
    );
}

#[test]
fn further_annotations_and_configuration_are_written_and_never_win() {
    let mut metadata = full();
    metadata.annotations.insert("com.example.team".to_owned(), "edge".to_owned());
    metadata.annotations.insert(VARIANT_ANNOTATION.to_owned(), "other".to_owned());
    metadata.annotations.insert("org.opencontainers.image.version".to_owned(), "9".to_owned());
    metadata.config.insert("schema".to_owned(), json!({ "type": "object" }));
    metadata.config.insert("priority".to_owned(), json!("high"));
    let image = assemble(Variant::Compat, &metadata, &plugin("x"), EnvoyVersion::NEWEST).unwrap();
    let annotations = &manifest_of(&image)["annotations"];
    assert_eq!(annotations["com.example.team"], "edge");
    assert_eq!(annotations[VARIANT_ANNOTATION], "compat");
    assert_eq!(annotations["org.opencontainers.image.version"], "1.2.3");
    let config = runtime_config(&image).unwrap().unwrap().config;
    assert_eq!((&config["schema"], &config["priority"]), (&json!({ "type": "object" }), &json!(10)));
}
