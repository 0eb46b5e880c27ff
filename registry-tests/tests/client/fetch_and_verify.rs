//! Modules out of registries by Istio's rules, and what `verify` says about images.

use packager::blob::{Blob, Image};
use packager::credentials::Credentials;
use packager::digest::Digest;
use packager::fetch::{FetchError, FetchOptions, ModuleRequest, fetch_module};
use packager::image::{Metadata, Variant, assemble};
use packager::layout::Layout;
use packager::module::EnvoyVersion;
use packager::reference::Reference;
use packager::verify::{Asked, Outcome, Report, verify, verify_request};
use registry_tests::{Does, Fault, Operation, Registry};
use serde_json::{Value, json};

use crate::support::{LAYER, MANIFEST, blob, client, image_of, reference};

/// The smallest module that Envoy loads.
fn module() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1")) (func (export "_initialize"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
        (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
    wat::parse_str(text).unwrap()
}

fn plugin() -> Image {
    let metadata = Metadata { name: "sample".to_owned(), ..Metadata::default() };
    assemble(Variant::Compat, &metadata, &module(), EnvoyVersion::NEWEST).unwrap()
}

/// The same image with its manifest changed.
fn changed(image: &Image, change: impl FnOnce(&mut Value)) -> Image {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    Image { manifest: manifest.to_string().into_bytes().into(), ..image.clone() }
}

fn options() -> FetchOptions {
    FetchOptions::new(client())
}

fn open() -> Registry {
    Registry::start(registry_tests::Options::default()).unwrap()
}

/// A registry with this image as `acme/x:t`.
fn with(image: &Image) -> (Registry, Reference) {
    let registry = open();
    let tagged = reference(&registry.host(), "acme/x:t");
    client().push(image, &tagged).unwrap();
    (registry, Reference::Image(tagged))
}

#[test]
fn an_images_pin_is_its_manifests_digest() {
    let image = plugin();
    let (registry, tagged) = with(&image);
    let fetched = fetch_module(&tagged, Some(image.digest().hex()), &options()).unwrap();
    assert_eq!((fetched.module, &fetched.digest), (module(), &image.digest()));
    assert_eq!(fetched.source.to_string(), format!("{tagged}@{}", image.digest()));

    let other = Digest::of(&module());
    let before = registry.operations().len();
    let error = fetch_module(&tagged, Some(other.hex()), &options()).unwrap_err();
    let FetchError::DigestMismatch { expected, actual, .. } = &error else { panic!("{error:?}") };
    assert_eq!((expected, actual), (&other, &image.digest()));
    assert_eq!(registry.operations()[before..], [Operation::ManifestGet], "no layer is fetched for a wrong pin");
}

#[test]
fn a_digest_in_the_reference_and_the_pin_have_to_agree() {
    let image = plugin();
    let (registry, tagged) = with(&image);
    let Reference::Image(plain) = &tagged else { unreachable!() };
    let pinned = Reference::Image(plain.with_digest(image.digest()));
    fetch_module(&pinned, Some(image.digest().hex()), &options()).unwrap();
    let before = registry.seen().len();
    let error = fetch_module(&pinned, Some(Digest::of(b"").hex()), &options()).unwrap_err();
    assert!(matches!(error, FetchError::PinsDiffer { .. }), "{error:?}");
    let error = fetch_module(&pinned, Some("ABC"), &options()).unwrap_err();
    assert!(matches!(error, FetchError::BadPin { .. }), "{error:?}");
    assert_eq!(registry.seen().len(), before, "nothing is asked");
}

#[test]
fn a_pin_to_an_index_always_fails() {
    let image = plugin();
    let (registry, _) = with(&image);
    let media_type = "application/vnd.oci.image.index.v1+json";
    let entry = json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]}).to_string();
    let tagged = reference(&registry.host(), "acme/x:index");
    client().put_manifest(&tagged, media_type, index.as_bytes()).unwrap();
    let index = Digest::of(index.as_bytes());
    let tagged = Reference::Image(tagged);
    assert_eq!(fetch_module(&tagged, None, &options()).unwrap().module, module());
    fetch_module(&tagged, Some(image.digest().hex()), &options()).unwrap();
    let error = fetch_module(&tagged, Some(index.hex()), &options()).unwrap_err();
    assert!(matches!(error, FetchError::DigestMismatch { .. }), "{error:?}");
    let unpinned = report(&tagged, None);
    assert!(unpinned.is_ok(), "{unpinned:#?}");
    let warned = unpinned.checks.iter().find(|check| check.name == "not-index").unwrap();
    assert_eq!(warned.outcome, Outcome::Warning);
    assert!(warned.detail.contains("always fails"), "{}", warned.detail);
    assert_eq!(unpinned.digest, Some(image.digest()));
    failed(&report(&tagged, Some(index.hex())), "pin", "expected");
}

#[test]
fn a_url_gives_a_module_whose_own_digest_is_the_pin() {
    let registry = open();
    let serve = |body: &str| {
        registry.set_faults([Fault::everywhere(Does::StatusBody(200, body.to_owned()))]);
        Reference::parse(&format!("{}/x.wasm?token=very-secret", registry.url())).unwrap()
    };
    let body = "\0asm\u{1}\0\0\0";
    let url = serve(body);
    let digest = Digest::of(body.as_bytes());
    let fetched = fetch_module(&url, Some(digest.hex()), &options()).unwrap();
    assert_eq!(fetched.digest, digest);
    assert!(!fetched.source.to_string().contains("very-secret"));
    let error = fetch_module(&url, Some(Digest::of(b"").hex()), &options()).unwrap_err();
    assert!(matches!(error, FetchError::DigestMismatch { .. }), "{error:?}");
    let error = fetch_module(&serve("<html>"), None, &options()).unwrap_err();
    assert!(matches!(error, FetchError::NotAModule { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("very-secret"), "{error:?}");
}

#[test]
fn layouts_and_files_give_modules_too() {
    let folder = tempfile::tempdir().unwrap();
    let image = plugin();
    Layout::open_or_create(&folder.path().join("dist")).unwrap().put(&image, "x").unwrap();
    let layout = Reference::parse(&format!("oci:{}:x", folder.path().join("dist").display())).unwrap();
    assert_eq!(fetch_module(&layout, None, &options()).unwrap().digest, image.digest());
    assert!(report(&layout, Some(image.digest().hex())).is_ok());
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, module()).unwrap();
    let file = Reference::parse(file.to_str().unwrap()).unwrap();
    assert_eq!(fetch_module(&file, Some(Digest::of(b"").hex()), &options()).unwrap().module, module());
}

fn report(reference: &Reference, sha256: Option<&str>) -> Report {
    verify(reference, sha256, &options(), EnvoyVersion::NEWEST).unwrap()
}

/// That check failed and no other, with that reason.
#[track_caller]
fn failed(report: &Report, name: &str, reason: &str) {
    let failed: Vec<_> = report.checks.iter().filter(|check| check.outcome == Outcome::Failed).collect();
    assert_eq!(failed.iter().map(|check| check.name).collect::<Vec<_>>(), [name], "{report:#?}");
    assert!(failed[0].detail.contains(reason), "{}", failed[0].detail);
}

#[test]
fn a_packaged_image_passes_every_check_in_istios_order() {
    let image = plugin();
    let (_registry, tagged) = with(&image);
    let report = report(&tagged, Some(image.digest().hex()));
    let istio: Vec<_> = report.checks.iter().filter(|check| check.istio).map(|check| check.name).collect();
    let expected = ["reference", "manifest", "pin", "layer-media-type", "layer-digest", "plugin.wasm", "magic", "size"];
    assert_eq!(istio, expected);
    let bad: Vec<_> = report.checks.iter().filter(|check| check.outcome != Outcome::Passed).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["variant"], "compat");
    assert_eq!(json["checks"][0]["outcome"], "passed");
}

#[test]
fn what_istio_would_refuse_fails_the_check_that_it_would_stop_at() {
    let check = |image: &Image, name: &str, reason: &str| {
        let (_registry, tagged) = with(image);
        failed(&report(&tagged, None), name, reason);
    };
    let wkg = "application/wasm";
    check(&image_of(vec![blob(wkg, &module())]), "layer-media-type", wkg);
    check(&image_of(vec![blob(LAYER, b"no gzip")]), "plugin.wasm", "unpacked");
    let (registry, tagged) = with(&plugin());
    failed(&report(&tagged, Some(Digest::of(b"").hex())), "pin", "expected");
    failed(&report(&tagged, Some("x")), "pin", "64");
    registry.set_faults([Fault::always(Operation::BlobGet, Does::WrongContent)]);
    failed(&report(&tagged, None), "layer-digest", "another digest");
    registry.set_faults([Fault::always(Operation::ManifestGet, Does::Status(404))]);
    failed(&report(&tagged, None), "manifest", "not found");
    registry.set_faults([Fault::always(Operation::ManifestGet, Does::Status(401))]);
    let error = verify(&tagged, None, &options(), EnvoyVersion::NEWEST).unwrap_err();
    assert!(!error.is_bad_content(), "what could not be looked at is not called bad: {error:?}");
}

#[test]
fn what_istio_does_not_look_at_is_looked_at() {
    let good = plugin();
    let mut wrong = good.clone();
    let config = String::from_utf8(good.config.read(1 << 20).unwrap()).unwrap();
    let diff_id = config.split("sha256:").nth(1).unwrap()[..64].to_owned();
    wrong.config =
        blob("application/vnd.oci.image.config.v1+json", config.replace(&diff_id, &"0".repeat(64)).as_bytes());
    let wrong = changed(&wrong, |manifest| manifest["config"] = json!(wrong.config.descriptor));
    let (_registry, tagged) = with(&wrong);
    failed(&report(&tagged, None), "diff-ids", &diff_id);

    let bare = changed(&good, |manifest| {
        manifest.as_object_mut().unwrap().remove("annotations");
    });
    let (_registry, tagged) = with(&bare);
    let report = report(&tagged, None);
    assert!(report.is_ok());
    let variant = report.checks.iter().find(|check| check.name == "variant").unwrap();
    assert_eq!(variant.outcome, Outcome::Warning);
}

/// The image with these layers, whatever its configuration says of them.
fn with_layers(image: &Image, layers: Vec<Blob>) -> Image {
    let descriptors: Vec<_> = layers.iter().map(|layer| json!(layer.descriptor)).collect();
    Image { layers, ..changed(image, |manifest| manifest["layers"] = json!(descriptors)) }
}

#[track_caller]
fn says(report: &Report, name: &str, outcome: Outcome, detail: &str) {
    let found = report.checks.iter().find(|check| check.name == name);
    assert!(
        found.is_some_and(|check| check.outcome == outcome && check.detail.contains(detail)),
        "`{name}` is not {outcome:?} with `{detail}`: {report:#?}"
    );
}

#[test]
fn a_layer_on_top_of_the_modules_hides_it_and_is_named() {
    let good = plugin();
    let top = assemble(Variant::Compat, &Metadata::default(), &module(), EnvoyVersion::NEWEST).unwrap();
    let on_top = blob(LAYER, &gzip(&[0; 1024]));
    let (_registry, tagged) = with(&with_layers(&good, vec![good.layers[0].clone(), on_top]));
    failed(&report(&tagged, None), "plugin.wasm", "layer 1 of 2 holds it");
    let (_registry, tagged) = with(&with_layers(&good, vec![good.layers[0].clone(), top.layers[0].clone()]));
    says(&report(&tagged, None), "layers", Outcome::Warning, "only the last is read");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // A stored block, which needs no compressor.
    let (length, crc) = (u16::try_from(bytes.len()).unwrap(), crc32(bytes));
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    gzip.extend(length.to_le_bytes());
    gzip.extend((!length).to_le_bytes());
    gzip.extend(bytes);
    gzip.extend(crc.to_le_bytes());
    gzip.extend(u32::from(length).to_le_bytes());
    gzip
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn media_types_of_layers_that_istio_skips_are_looked_at_too() {
    let good = plugin();
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let (_registry, tagged) = with(&with_layers(&good, vec![blob(zstd, b"x"), good.layers[0].clone()]));
    let first = report(&tagged, None);
    says(&first, "plugin.wasm", Outcome::Passed, "found");
    says(&first, "media-types", Outcome::Failed, zstd);
    let (_registry, tagged) = with(&with_layers(&good, vec![good.layers[0].clone(), blob(zstd, b"x")]));
    failed(&report(&tagged, None), "layer-media-type", zstd);
}

#[test]
fn what_a_resource_asks_for_is_verified_with_its_secret_and_no_other() {
    let auth = registry_tests::Auth::Basic { username: "robot".to_owned(), password: "hunter2".to_owned() };
    let registry = Registry::start(registry_tests::Options { auth, ..registry_tests::Options::default() }).unwrap();
    let host = registry.host();
    let mut full = crate::support::options();
    full.credentials = crate::support::basic(&host, "robot", "hunter2");
    let full = packager::registry::Client::new(full).unwrap();
    full.push(&plugin(), &reference(&host, "acme/x:1")).unwrap();
    let text = format!(r#"{{"auths": {{"{host}": {{"username": "robot", "password": "hunter2"}}}}}}"#);
    let secret = Credentials::from_docker_config("Secret ns/s", text.as_bytes()).unwrap();
    let ask = |url: &str, credentials: Option<Credentials>| {
        let request = ModuleRequest { url: url.to_owned(), credentials, ..ModuleRequest::default() };
        let asked = Asked { request, pull_secret: Some("ns/s".to_owned()), secret_error: None };
        verify_request(&asked, &options(), EnvoyVersion::NEWEST)
    };
    let url = format!("oci://{host}/acme/x:1");
    let report = ask(&url, Some(secret)).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    let names: Vec<_> = report.checks.iter().take(4).map(|check| check.name).collect();
    assert_eq!(names, ["url", "pull-secret", "pull-policy", "manifest"]);
    says(&report, "realm", Outcome::Warning, "the realm `plugwright` is no http or https URL");
    assert!(!ask(&url, None).unwrap_err().is_bad_content(), "nothing is said of what cannot be looked at");
    says(&ask(&format!("{host}/acme/x:1"), None).unwrap(), "url", Outcome::Failed, "write `oci://");
    let report = ask("file:///nowhere/x.wasm", None).unwrap();
    says(&report, "download", Outcome::Warning, "on the proxy");
}
