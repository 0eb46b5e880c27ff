//! Dynamic metadata of one stream: what filters leave for the filters after them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// All names and values of one stream together.
const MAX_BYTES: usize = 1 << 20;

/// Values by the name of the filter they are about, then by key.
#[derive(Debug, Default)]
pub(crate) struct DynamicMetadata {
    filters: BTreeMap<String, Map<String, Value>>,
    bytes: usize,
}

/// A stream's metadata is full.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request's dynamic metadata may take {} KiB", MAX_BYTES >> 10)]
pub(crate) struct Full;

impl DynamicMetadata {
    /// A filter's values.
    pub(crate) fn get(&self, filter: &str) -> Option<&Map<String, Value>> {
        self.filters.get(filter)
    }

    /// The filters that values are about.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(String::as_str)
    }

    /// Everything, by filter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.filters.iter().map(|(name, fields)| (name.as_str(), fields))
    }

    /// The value at a path within a filter's values.
    pub(crate) fn at(&self, filter: &str, path: &[impl AsRef<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.get(filter)?.get(first.as_ref())?, |value, name| value.get(name.as_ref()))
    }

    /// Keeps what the proxy itself says, whose size is bounded where it comes from: a decision may rest on it.
    pub(crate) fn put(&mut self, filter: &str, key: &str, value: Value) {
        self.bytes += filter.len() + key.len() + size(&value);
        self.filters.entry(filter.to_owned()).or_default().insert(key.to_owned(), value);
    }

    /// Keeps a value in place of the key's old one. What was replaced still counts against the limit.
    pub(crate) fn set(&mut self, filter: String, key: String, value: Value) -> Result<(), Full> {
        let bytes = self.bytes + filter.len() + key.len() + size(&value);
        if bytes > MAX_BYTES {
            return Err(Full);
        }
        self.bytes = bytes;
        self.filters.entry(filter).or_default().insert(key, value);
        Ok(())
    }
}

/// About what a value takes.
fn size(value: &Value) -> usize {
    32 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
    }
}
