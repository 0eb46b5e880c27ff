//! Indexes: which of the images of several platforms may hold a plugin.

use oci_spec::image::{Arch, Descriptor, Os};
use serde::Deserialize;

use super::{ManifestError, media_type};

#[derive(Deserialize)]
struct Index {
    manifests: Option<Vec<Descriptor>>,
}

/// The images of an index that may hold a plugin, best first: the one that Istio would take, which is the first for
/// linux/amd64 or without a platform; those for WebAssembly; and where there is only one image, that one.
pub(super) fn candidates(index: &[u8]) -> Result<Vec<Descriptor>, ManifestError> {
    let index: Index = serde_json::from_slice(index).map_err(ManifestError::Json)?;
    let mut images = index.manifests.unwrap_or_default();
    images.retain(|entry| media_type::is_manifest(entry.media_type().as_ref()) && !is_attestation(entry));
    let mut found: Vec<Descriptor> = images.iter().find(|entry| is_istios(entry)).into_iter().cloned().collect();
    found.extend(images.iter().filter(|entry| is_for_wasm(entry)).cloned());
    if found.is_empty() && images.len() == 1 {
        found = images;
    }
    found.dedup();
    Ok(found)
}

fn is_istios(entry: &Descriptor) -> bool {
    let amd64 = |os: &Os, architecture: &Arch| *os == Os::Linux && *architecture == Arch::Amd64;
    entry.platform().as_ref().is_none_or(|platform| amd64(platform.os(), platform.architecture()))
}

fn is_for_wasm(entry: &Descriptor) -> bool {
    let wasm = |text: &str| text.starts_with("wasm") || text.starts_with("wasi");
    entry
        .platform()
        .as_ref()
        .is_some_and(|platform| wasm(&platform.architecture().to_string()) || wasm(&platform.os().to_string()))
}

/// What buildx puts beside each image: about it, and of platform unknown/unknown.
fn is_attestation(entry: &Descriptor) -> bool {
    let annotated = entry.annotations().as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    let unknown = |platform: &oci_spec::image::Platform| platform.os().to_string() == "unknown";
    annotated || entry.platform().as_ref().is_some_and(unknown)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(entries: &[Value], expected: &[u64]) {
        let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        let found: Vec<u64> = candidates(index.as_bytes()).unwrap().iter().map(Descriptor::size).collect();
        assert_eq!(found, expected, "{index}");
    }

    /// An entry, told by its size.
    fn entry(size: u64, os: &str, architecture: &str) -> Value {
        json!({ "mediaType": media_type::MANIFEST, "digest": format!("sha256:{size:064}"), "size": size,
            "platform": { "os": os, "architecture": architecture } })
    }

    #[test]
    fn istios_choice_comes_before_webassembly_and_a_lonely_image_is_taken() {
        let (arm, amd, wasm) = (entry(1, "linux", "arm64"), entry(2, "linux", "amd64"), entry(3, "wasi", "wasm"));
        let attestation = entry(4, "unknown", "unknown");
        check(&[arm.clone(), amd.clone(), wasm.clone(), attestation.clone()], &[2, 3]);
        check(&[arm.clone(), wasm.clone()], &[3]);
        check(&[arm.clone(), entry(5, "wasip1", "wasm")], &[5]);
        check(&[arm.clone(), attestation.clone()], &[1]);
        check(&[arm.clone(), entry(6, "linux", "s390x")], &[]);
        let mut bare = entry(7, "", "");
        bare.as_object_mut().unwrap().remove("platform");
        check(&[arm, bare, amd], &[7]);
        let mut list = entry(8, "linux", "amd64");
        list["mediaType"] = json!(media_type::INDEX);
        check(&[list, attestation], &[]);
        check(&[], &[]);
        assert!(candidates(b"[]").is_err());
    }
}
