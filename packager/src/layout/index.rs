//! `index.json`, keeping what others wrote into it.

use std::path::{Path, PathBuf};

use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::LayoutError;
use crate::image::media_type;

/// An index as JSON, so that fields and entries unknown here survive.
pub(super) struct Index {
    path: PathBuf,
    document: Map<String, Value>,
    manifests: Vec<Value>,
}

impl Index {
    pub(super) fn empty(path: &Path) -> Self {
        let mut document = Map::new();
        document.insert("schemaVersion".to_owned(), json!(2));
        document.insert("mediaType".to_owned(), json!(media_type::INDEX));
        Self { path: path.to_owned(), document, manifests: Vec::new() }
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LayoutError> {
        let invalid = |reason: String| LayoutError::Parse { path: path.to_owned(), reason };
        let mut document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let manifests = match document.remove("manifests") {
            Some(Value::Array(manifests)) => manifests,
            // Go's encoder writes an empty list so.
            Some(Value::Null) => Vec::new(),
            Some(_) => return Err(invalid("`manifests` is not a list".to_owned())),
            None => return Err(invalid("`manifests` is missing".to_owned())),
        };
        Ok(Self { path: path.to_owned(), document, manifests })
    }

    pub(super) fn descriptors(&self) -> Result<Vec<Descriptor>, LayoutError> {
        let descriptor = |(position, entry)| {
            Descriptor::deserialize(entry).map_err(|error| LayoutError::Parse {
                path: self.path.clone(),
                reason: format!("`manifests[{position}]`: {error}"),
            })
        };
        self.manifests.iter().enumerate().map(descriptor).collect()
    }

    /// Whether exactly one entry has this name, and it is of this manifest.
    pub(super) fn names_only(&self, name: &str, digest: &str) -> bool {
        let mut named = self.manifests.iter().filter(|entry| name_of(entry) == Some(name));
        named.next().is_some_and(|entry| entry.get("digest").and_then(Value::as_str) == Some(digest))
            && named.next().is_none()
    }

    /// Replace all entries of a name by one, in the place of the first.
    pub(super) fn replace(&mut self, name: &str, entry: Value) {
        let place = self.manifests.iter().position(|entry| name_of(entry) == Some(name));
        let place = place.unwrap_or(self.manifests.len());
        self.manifests.retain(|entry| name_of(entry) != Some(name));
        self.manifests.insert(place, entry);
    }

    pub(super) fn manifests(&self) -> &[Value] {
        &self.manifests
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut document = self.document.clone();
        document.insert("manifests".to_owned(), Value::Array(self.manifests.clone()));
        let mut text = format!("{:#}", Value::Object(document));
        text.push('\n');
        text.into_bytes()
    }
}

/// The value of `org.opencontainers.image.ref.name`.
fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(ANNOTATION_REF_NAME)?.as_str()
}
