//! Dynamic metadata: what filters say about a request to the filters after them, by filter name.

use serde_json::{Map, Value};

/// A filter's name, and the fields it set.
pub(crate) type DynamicMetadata = Map<String, Value>;

/// Sets one field of a filter's metadata.
pub(crate) fn set(metadata: &mut DynamicMetadata, filter: &str, field: &str, value: Value) {
    if let Value::Object(fields) = metadata.entry(filter).or_insert_with(|| Value::Object(Map::new())) {
        fields.insert(field.to_owned(), value);
    }
}

/// The value at a path.
pub(crate) fn at<'m>(metadata: &'m DynamicMetadata, filter: &str, path: &[impl AsRef<str>]) -> Option<&'m Value> {
    path.iter().try_fold(metadata.get(filter)?, |value, name| value.get(name.as_ref()))
}
