//! Removing blobs that nothing refers to.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::index::Index;
use super::{Layout, LayoutError, disk};
use crate::digest::Digest;
use crate::image::MAX_MANIFEST_SIZE;

/// Remove temporary files that stopped writers left, and blobs that the index does not lead to. The lock is held, so no
/// other writer's blobs are waiting for their index.
///
/// Everything is kept, and `None` returned, where a manifest that the index leads to cannot be read: what it refers to
/// is not known then.
pub(super) fn collect(layout: &Layout, index: &Index) -> Result<Option<usize>, LayoutError> {
    let blobs = layout.blobs();
    for folder in [layout.root(), &blobs] {
        for name in disk::names(folder)?.iter().filter(|name| disk::is_temporary(name)) {
            disk::remove(&folder.join(name))?;
        }
    }
    let Some(referred) = reachable(layout, index) else { return Ok(None) };
    let mut removed = 0;
    for name in disk::names(&blobs)? {
        // Files of other names are none of ours.
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        if !referred.contains(&digest) {
            disk::remove(&blobs.join(name))?;
            removed += 1;
        }
    }
    Ok(Some(removed))
}

/// All digests that the index leads to: through indexes and manifests of any kind, known or not.
fn reachable(layout: &Layout, index: &Index) -> Option<HashSet<Digest>> {
    let mut pending: Vec<Reference> = Vec::new();
    for entry in index.manifests() {
        references(entry, &mut pending);
    }
    // An entry of the index is a document, whatever its media type; another blob only if its media type says so.
    for reference in &mut pending {
        reference.maybe_document = true;
    }
    let mut referred = HashSet::new();
    let mut followed = HashSet::new();
    while let Some(reference) = pending.pop() {
        referred.insert(reference.digest.clone());
        if !(reference.document || reference.maybe_document) || !followed.insert(reference.digest.clone()) {
            continue;
        }
        let path = layout.blob_path(&reference.digest);
        // A manifest that is not in the layout refers to nothing in it.
        if !path.exists() {
            continue;
        }
        match document(&path, &reference.digest) {
            Some(document) => references(&document, &mut pending),
            None if reference.document => return None,
            None => {}
        }
    }
    Some(referred)
}

fn document(path: &Path, digest: &Digest) -> Option<Value> {
    let bytes = disk::read(path, MAX_MANIFEST_SIZE).ok()?;
    if Digest::of(&bytes) == *digest { serde_json::from_slice(&bytes).ok() } else { None }
}

struct Reference {
    digest: Digest,
    /// Whether its media type says that it may refer to others, which layers and configurations do not.
    document: bool,
    maybe_document: bool,
}

/// Every descriptor in a document, at whatever depth: `layers`, `manifests`, `blobs`, `subject`, and kinds yet to come.
fn references(value: &Value, found: &mut Vec<Reference>) {
    match value {
        Value::Object(fields) => {
            if let Some(digest) = fields.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok()) {
                let media_type = fields.get("mediaType").and_then(Value::as_str).unwrap_or_default();
                let document =
                    media_type.ends_with("json") && ["manifest", "index"].iter().any(|kind| media_type.contains(kind));
                found.push(Reference { digest, document, maybe_document: false });
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}
