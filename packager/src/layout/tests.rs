//! Layouts under replacement, concurrency, corruption and sudden death.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::blob::Image;
use crate::image::extract_module;
use crate::image::tests::{plugin, sample};
use crate::module::MAX_MODULE_SIZE;

struct Folder {
    _temporary: tempfile::TempDir,
    layout: Layout,
}

fn folder() -> Folder {
    let temporary = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(&temporary.path().join("dist")).unwrap();
    Folder { _temporary: temporary, layout }
}

impl Folder {
    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.layout.root().join(INDEX_FILE)).unwrap()).unwrap()
    }

    fn set_index(&self, index: &Value) {
        fs::write(self.layout.root().join(INDEX_FILE), index.to_string()).unwrap();
    }

    fn blobs(&self) -> Vec<String> {
        disk::names(&self.layout.blobs()).unwrap()
    }

    /// Store some bytes as a blob, as another tool would.
    fn foreign_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(self.layout.blob_path(&digest), bytes).unwrap();
        digest
    }
}

fn module_of(image: &Image) -> Vec<u8> {
    extract_module(image, MAX_MODULE_SIZE).unwrap()
}

fn digests(image: &Image) -> Vec<String> {
    let mut digests = vec![image.digest().hex().to_owned(), image.config.digest().unwrap().hex().to_owned()];
    digests.extend(image.layers.iter().map(|layer| layer.digest().unwrap().hex().to_owned()));
    digests.sort();
    digests
}

#[test]
fn an_image_put_is_the_image_read() {
    let folder = folder();
    let put = folder.layout.put(&sample("a"), "a").unwrap();
    assert_eq!(put, Put { digest: sample("a").digest(), unchanged: false, collected: Some(0) });
    let image = Layout::open(folder.layout.root()).unwrap().image("a").unwrap();
    assert_eq!((image.digest(), module_of(&image)), (put.digest.clone(), plugin("a")));
    assert_eq!(folder.layout.by_digest(&put.digest).unwrap().digest(), put.digest);
    let size = image.manifest.len();
    assert_eq!(
        folder.index(),
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": put.digest,
                "size": size,
                "platform": { "architecture": "amd64", "os": "linux" },
                "annotations": { "org.opencontainers.image.ref.name": "a" },
            }],
        })
    );
    let marker = fs::read_to_string(folder.layout.root().join(MARKER_FILE)).unwrap();
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn putting_the_same_image_again_changes_nothing() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    let before = (folder.index(), folder.blobs());
    assert!(folder.layout.put(&sample("a"), "a").unwrap().unchanged);
    assert_eq!((folder.index(), folder.blobs()), before);
    assert!(!folder.layout.put(&sample("a"), "b").unwrap().unchanged);
}

#[test]
fn a_name_put_again_is_replaced_and_its_old_blobs_are_removed() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    folder.layout.put(&sample("b"), "b").unwrap();
    let put = folder.layout.put(&sample("c"), "a").unwrap();
    // The configuration differs by its diff_id.
    assert_eq!((put.unchanged, put.collected), (false, Some(3)));
    let names: Vec<_> = folder.layout.entries().unwrap().into_iter().filter_map(|entry| entry.name).collect();
    assert_eq!(names, ["a", "b"]);
    let mut expected = [digests(&sample("b")), digests(&sample("c"))].concat();
    expected.sort();
    assert_eq!(folder.blobs(), expected);
    assert_eq!(module_of(&folder.layout.image("a").unwrap()), plugin("c"));
}

#[test]
fn an_unknown_name_lists_those_there_are() {
    let folder = folder();
    assert!(folder.layout.image("x").unwrap_err().to_string().ends_with("; it has none"));
    folder.layout.put(&sample("a"), "a").unwrap();
    folder.layout.put(&sample("b"), "b:1.0").unwrap();
    assert!(folder.layout.image("x").unwrap_err().to_string().ends_with("; it has `a`, `b:1.0`"));
    let nothing = Digest::of(b"");
    assert!(matches!(folder.layout.by_digest(&nothing), Err(LayoutError::NotFound { .. })));
}

#[test]
fn names_are_those_that_the_specification_allows() {
    let folder = folder();
    for good in ["a", "basic-auth", "ghcr.io/acme/x:1.2.3", "a--b", "a_b", "x@sha256:0"] {
        assert!(folder.layout.put(&sample("a"), good).is_ok(), "{good}");
    }
    for bad in ["", "/", "a/", "-a", "a-", "a..b", "a---b", "a b", "ä", "../x", "a//b"] {
        assert!(matches!(folder.layout.put(&sample("a"), bad), Err(LayoutError::Name { .. })), "{bad}");
    }
}

#[test]
fn what_others_wrote_survives_a_put() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    let leaf = folder.foreign_blob(b"a layer");
    let manifest = json!({ "layers": [{ "digest": leaf, "size": 7 }] }).to_string();
    let manifest = folder.foreign_blob(manifest.as_bytes());
    let nested = json!({ "manifests": [{ "mediaType": media_type::MANIFEST, "digest": manifest, "size": 1 }] });
    let nested = folder.foreign_blob(nested.to_string().as_bytes());
    let strange = folder.foreign_blob(json!({ "blobs": [{ "digest": Digest::of(b"inner") }] }).to_string().as_bytes());
    folder.foreign_blob(b"inner");
    let orphan = folder.foreign_blob(b"orphan");
    fs::write(folder.layout.blobs().join("not-a-digest"), "").unwrap();

    let mut index = folder.index();
    index["annotations"] = json!({ "mine": "1" });
    index["x-unknown"] = json!({ "deep": [1, 2.5, null] });
    let foreign = json!([
        { "mediaType": media_type::INDEX, "digest": nested, "size": 1, "x-unknown": true },
        { "mediaType": "application/x-strange", "digest": strange, "size": 1, "annotations": { "k": "v" } },
        { "mediaType": media_type::MANIFEST, "digest": Digest::of(b"elsewhere"), "size": 1 },
        { "mediaType": media_type::MANIFEST, "digest": format!("sha512:{}", "0".repeat(128)), "size": 1 },
    ]);
    index["manifests"].as_array_mut().unwrap().extend(foreign.as_array().unwrap().clone());
    folder.set_index(&index);

    let put = folder.layout.put(&sample("b"), "a").unwrap();
    assert_eq!(put.collected, Some(4), "the three blobs of the old image, and the orphan");
    let after = folder.index();
    assert_eq!(after["manifests"].as_array().unwrap()[1..], *foreign.as_array().unwrap());
    assert_eq!((&after["annotations"], &after["x-unknown"]), (&index["annotations"], &index["x-unknown"]));
    for kept in [&leaf, &manifest, &nested, &strange, &Digest::of(b"inner")] {
        assert!(folder.layout.blob_path(kept).exists(), "{kept}");
    }
    assert!(!folder.layout.blob_path(&orphan).exists());
    assert!(folder.layout.blobs().join("not-a-digest").exists());
}

#[test]
fn nothing_is_removed_while_a_manifest_cannot_be_read() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    fs::write(folder.layout.blob_path(&sample("a").digest()), "damaged").unwrap();
    let before = folder.blobs();
    let put = folder.layout.put(&sample("b"), "b").unwrap();
    assert_eq!(put.collected, None);
    assert!(before.iter().all(|blob| folder.blobs().contains(blob)));
}

#[test]
fn an_image_inside_a_nested_index_is_found_by_digest_only() {
    let folder = folder();
    let put = folder.layout.put(&sample("a"), "a").unwrap();
    let mut nested = folder.index();
    nested["manifests"][0].as_object_mut().unwrap().remove("annotations");
    let nested = nested.to_string();
    let digest = folder.foreign_blob(nested.as_bytes());
    let entry = json!({
        "mediaType": media_type::INDEX, "digest": digest, "size": nested.len(),
        "annotations": { "org.opencontainers.image.ref.name": "many" },
    });
    folder.set_index(&json!({ "schemaVersion": 2, "manifests": [entry] }));
    assert_eq!(module_of(&folder.layout.by_digest(&put.digest).unwrap()), plugin("a"));
    let refused = folder.layout.image("many").unwrap_err();
    assert!(matches!(refused, LayoutError::Manifest { source: ManifestError::Index { .. }, .. }), "{refused}");
    assert!(refused.hint().is_some());
}

#[test]
fn a_damaged_blob_is_named_and_a_put_replaces_it() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    let layer = sample("a").layers[0].digest().unwrap();
    let path = folder.layout.blob_path(&layer);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = extract_module(&folder.layout.image("a").unwrap(), MAX_MODULE_SIZE).unwrap_err();
    let actual = Digest::of(&bytes);
    let expected = format!("blob file `{}` is corrupt: expected {layer}, its content has {actual}", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(folder.layout.put(&sample("a"), "a").unwrap().unchanged);
    assert_eq!(module_of(&folder.layout.image("a").unwrap()), plugin("a"));

    fs::write(folder.layout.blob_path(&sample("a").digest()), b"{}").unwrap();
    assert!(matches!(folder.layout.image("a"), Err(LayoutError::Blob(BlobError::Size { .. }))));
}

#[test]
fn an_image_that_is_not_what_it_says_leaves_the_layout_as_it_was() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    let before = (folder.index(), folder.blobs());
    let mut liar = sample("b");
    liar.layers[0].content = Content::Bytes(Arc::new(*b"something else"));
    assert!(matches!(folder.layout.put(&liar, "a"), Err(LayoutError::Blob(_))));
    liar.layers[0].content = Content::File(folder.layout.root().join("nowhere"));
    assert!(matches!(folder.layout.put(&liar, "a"), Err(LayoutError::Blob(BlobError::Read { .. }))));
    assert_eq!((folder.index(), folder.blobs()), before);
}

#[test]
fn a_folder_with_anything_else_in_it_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    assert!(matches!(Layout::open(temporary.path()), Err(LayoutError::NotALayout { .. })));
    assert!(matches!(Layout::open(&temporary.path().join("none")), Err(LayoutError::NotALayout { .. })));
    let file = temporary.path().join("thesis.txt");
    fs::write(&file, "x").unwrap();
    let error = Layout::open_or_create(temporary.path()).unwrap_err();
    assert!(error.to_string().ends_with("and not empty: it has `thesis.txt`"), "{error}");
    assert_eq!(disk::names(temporary.path()).unwrap(), ["thesis.txt"]);
    assert!(Layout::open_or_create(&file).is_err());
    // Another tool's blobs without its marker are not ours to adopt either.
    fs::remove_file(&file).unwrap();
    fs::create_dir(temporary.path().join("blobs")).unwrap();
    assert!(matches!(Layout::open_or_create(temporary.path()), Err(LayoutError::Occupied { .. })));
}

#[test]
fn a_layout_of_another_version_or_shape_is_refused() {
    let folder = folder();
    let marker = folder.layout.root().join(MARKER_FILE);
    for (text, message) in [
        (r#"{"imageLayoutVersion": "2.0.0"}"#, "has layout version `2.0.0`; expected 1.0.0"),
        ("{}", "cannot be parsed: `imageLayoutVersion` is not a string"),
        ("{", "cannot be parsed: EOF"),
    ] {
        fs::write(&marker, text).unwrap();
        let error = Layout::open_or_create(folder.layout.root()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    for (index, message) in [
        (json!({}), "`manifests` is missing"),
        (json!({ "manifests": {} }), "`manifests` is not a list"),
        (json!({ "manifests": [{}] }), "`manifests[0]`: missing field `mediaType`"),
    ] {
        folder.set_index(&index);
        let error = folder.layout.entries().unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    folder.set_index(&json!({ "manifests": null }));
    assert_eq!(folder.layout.entries().unwrap(), []);
}

#[test]
fn a_creation_that_was_stopped_is_finished() {
    let folder = folder();
    fs::remove_file(folder.layout.root().join(MARKER_FILE)).unwrap();
    fs::write(folder.layout.root().join(".plugwright-x.tmp"), "").unwrap();
    // The lock file tells that it was begun here.
    fs::write(folder.layout.root().join(".plugwright.lock"), "").unwrap();
    let layout = Layout::open_or_create(folder.layout.root()).unwrap();
    layout.put(&sample("a"), "a").unwrap();
    assert!(!folder.layout.root().join(".plugwright-x.tmp").exists());
}

#[test]
fn what_a_stopped_writer_left_is_removed_by_the_next() {
    let folder = folder();
    fs::write(folder.layout.blobs().join(".plugwright-abc.tmp"), "half").unwrap();
    folder.foreign_blob(b"written, but its index never was");
    let put = folder.layout.put(&sample("a"), "a").unwrap();
    assert_eq!((put.collected, folder.blobs()), (Some(1), digests(&sample("a"))));
}

#[test]
fn two_entries_of_one_name_are_not_guessed_between() {
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    let mut index = folder.index();
    let twin = index["manifests"][0].clone();
    index["manifests"].as_array_mut().unwrap().push(twin);
    folder.set_index(&index);
    assert!(matches!(folder.layout.image("a"), Err(LayoutError::SeveralNamed { count: 2, .. })));
    assert!(!folder.layout.put(&sample("a"), "a").unwrap().unchanged);
    assert!(folder.layout.image("a").is_ok());
}

#[test]
fn concurrent_writers_lose_nothing() {
    let folder = folder();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let layout = &folder.layout;
            scope.spawn(move || {
                for round in 0..5 {
                    layout.put(&sample(&format!("{writer} {round}")), &format!("plugin-{writer}")).unwrap();
                }
            });
        }
    });
    let mut expected: Vec<_> = (0..4).flat_map(|writer| digests(&sample(&format!("{writer} 4")))).collect();
    expected.sort();
    assert_eq!(folder.blobs(), expected);
    for writer in 0..4 {
        let image = folder.layout.image(&format!("plugin-{writer}")).unwrap();
        assert_eq!(module_of(&image), plugin(&format!("{writer} 4")));
    }
}

#[cfg(unix)]
#[test]
fn files_are_as_readable_as_any_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    folder.layout.put(&sample("a"), "a").unwrap();
    let plain = folder.layout.root().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    for name in folder.blobs() {
        assert_eq!(mode(&folder.layout.blobs().join(name)), mode(&plain));
    }
    assert_eq!(mode(&folder.layout.root().join(INDEX_FILE)), mode(&plain));
}
