//! Images arrive as they were sent.

use std::sync::{Arc, Mutex};

use packager::blob::Content;
use packager::digest::Digest;
use packager::registry::{Client, Moved, Options, Progress, RegistryError};
use registry_tests::{Operation, Registry};

use crate::support::{LAYER, blob, client, image, image_of, options, reference, same};

fn open() -> Registry {
    Registry::start(registry_tests::Options::default()).unwrap()
}

#[test]
fn a_pushed_image_is_pulled_byte_for_byte() {
    let registry = open();
    let image = image(1, 300_000);
    let tagged = reference(&registry.host(), "acme/auth:v1");
    let digest = client().push(&image, &tagged).unwrap();
    assert_eq!(digest, image.digest());
    let directory = tempfile::tempdir().unwrap();
    same(&client().pull(&tagged, directory.path()).unwrap(), &image);
    let pinned = tagged.with_digest(digest.clone());
    same(&client().pull(&pinned, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    assert_eq!(client().resolve(&tagged).unwrap(), digest);
}

#[test]
fn locations_may_be_absolute() {
    let options = registry_tests::Options { absolute_locations: true, ..registry_tests::Options::default() };
    let registry = Registry::start(options).unwrap();
    client().push(&image(2, 1000), &reference(&registry.host(), "x:t")).unwrap();
}

#[test]
fn empty_blobs_and_repeated_layers_are_moved() {
    let registry = open();
    let image = image_of(vec![blob(LAYER, b""), blob(LAYER, b"same"), blob(LAYER, b"same")]);
    let reference = reference(&registry.host(), "x:t");
    client().push(&image, &reference).unwrap();
    same(&client().pull(&reference, tempfile::tempdir().unwrap().path()).unwrap(), &image);
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let registry = open();
    let image = image(3, 1000);
    client().push(&image, &reference(&registry.host(), "x:a")).unwrap();
    client().push(&image, &reference(&registry.host(), "x:b")).unwrap();
    let uploads = registry.operations().into_iter().filter(|operation| *operation == Operation::UploadFinish).count();
    assert_eq!(uploads, 2, "config and layer, once each");
    let operations = registry.operations();
    let head = operations.iter().position(|operation| *operation == Operation::BlobHead);
    let post = operations.iter().position(|operation| *operation == Operation::UploadStart);
    assert!(head < post, "a blob is looked for before it is sent");
    assert_eq!(operations.last(), Some(&Operation::ManifestPut), "the manifest comes last");
}

#[test]
fn a_manifest_can_be_given_more_tags() {
    let registry = open();
    let image = image(4, 10);
    client().push(&image, &reference(&registry.host(), "x:v1.2.3")).unwrap();
    for tag in ["x:v1.2", "x:latest"] {
        let reference = reference(&registry.host(), tag);
        client().put_manifest(&reference, &image.media_type, &image.manifest).unwrap();
        assert_eq!(client().resolve(&reference).unwrap(), image.digest());
    }
}

#[test]
fn a_destination_pinned_to_another_digest_gets_nothing() {
    let registry = open();
    let pinned = reference(&registry.host(), "x:t").with_digest(Digest::of(b"other"));
    let error = client().push(&image(5, 10), &pinned).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    assert!(registry.seen().is_empty());
}

#[test]
fn a_local_blob_that_is_not_its_digest_is_never_completed() {
    let registry = open();
    let mut image = image(6, 1000);
    image.layers[0].content = Content::Bytes([0; 1000].as_slice().into());
    let error = client().push(&image, &reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    assert!(!registry.operations().contains(&Operation::ManifestPut));
}

#[test]
fn a_missing_local_blob_is_told_apart_from_network_trouble() {
    let registry = open();
    let mut image = image(7, 1000);
    image.layers[0].content = Content::File("/nonexistent/blob".into());
    let error = client().push(&image, &reference(&registry.host(), "x:t")).unwrap_err();
    assert!(matches!(error, RegistryError::Local { .. }), "{error:?}");
}

#[test]
fn an_index_is_resolved_to_linux_amd64() {
    let registry = open();
    let (image, other) = (image(8, 100), image(9, 100));
    let place = reference(&registry.host(), "x:amd64");
    client().push(&image, &place).unwrap();
    client().push(&other, &reference(&registry.host(), "x:arm64")).unwrap();
    let entry = |image: &packager::blob::Image, architecture: &str| {
        serde_json::json!({"mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type,
        "manifests": [entry(&other, "arm64"), entry(&image, "amd64")]});
    let tagged = reference(&registry.host(), "x:all");
    client().put_manifest(&tagged, media_type, index.to_string().as_bytes()).unwrap();
    same(&client().pull(&tagged, tempfile::tempdir().unwrap().path()).unwrap(), &image);
    assert_ne!(client().resolve(&tagged).unwrap(), image.digest(), "the index has a digest of its own");

    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry(&other, "arm64")]});
    client().put_manifest(&tagged, media_type, index.to_string().as_bytes()).unwrap();
    let error = client().pull(&tagged, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(matches!(error, RegistryError::NoPlatform { .. }), "{error}");
}

#[test]
fn a_folder_keeps_images_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        registry_tests::Options { directory: Some(directory.path().to_owned()), ..registry_tests::Options::default() };
    let image = image(10, 1000);
    let registry = Registry::start(options.clone()).unwrap();
    client().push(&image, &reference(&registry.host(), "acme/x:t")).unwrap();
    drop(registry);
    let registry = Registry::start(options).unwrap();
    let pulled = client().pull(&reference(&registry.host(), "acme/x:t"), tempfile::tempdir().unwrap().path()).unwrap();
    assert_eq!(pulled.manifest, image.manifest);
}

#[derive(Default)]
struct Watch(Mutex<Vec<(Digest, Moved)>>, Mutex<u64>);

impl Progress for Watch {
    fn advance(&self, _: &Digest, bytes: u64) {
        *self.1.lock().unwrap() += bytes;
    }

    fn finish(&self, digest: &Digest, outcome: Moved) {
        self.0.lock().unwrap().push((digest.clone(), outcome));
    }
}

#[test]
fn progress_tells_every_byte_and_every_blob() {
    let registry = open();
    let watch = Arc::new(Watch::default());
    let client = Client::new(Options { progress: Arc::clone(&watch) as Arc<dyn Progress>, ..options() }).unwrap();
    let image = image(11, 200_000);
    let reference = reference(&registry.host(), "x:t");
    client.push(&image, &reference).unwrap();
    let total = image.config.descriptor.size() + 200_000;
    assert_eq!(*watch.1.lock().unwrap(), total);
    client.push(&image, &reference).unwrap();
    client.pull(&reference, tempfile::tempdir().unwrap().path()).unwrap();
    assert_eq!(*watch.1.lock().unwrap(), 2 * total);
    let outcomes: Vec<Moved> = watch.0.lock().unwrap().iter().map(|(_, outcome)| *outcome).collect();
    assert_eq!(
        outcomes,
        [
            Moved::Uploaded,
            Moved::Uploaded,
            Moved::AlreadyThere,
            Moved::AlreadyThere,
            Moved::Downloaded,
            Moved::Downloaded,
        ]
    );
}
