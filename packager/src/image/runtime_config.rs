//! `runtime-config.json` (Wasm Image Specification v0.0.0, "Format").

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a runtime configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The runtime that the module is for: `envoy_proxy`.
    pub runtime: String,
    /// ABI versions, as written.
    pub abi_versions: Vec<String>,
    /// The runtime's own part.
    pub config: Map<String, Value>,
}

/// Why a runtime configuration cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeConfigError {
    /// Not JSON.
    #[error("is not JSON")]
    Json(#[from] serde_json::Error),
    /// A field has another type than the specification gives it.
    #[error("`{field}` is not {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl RuntimeConfig {
    /// Parse it. ABI versions are read from `abiVersions`, or from `abi_version`, which is what the specification's own
    /// example has.
    pub fn parse(bytes: &[u8]) -> Result<Self, RuntimeConfigError> {
        let wrong = |field, expected| RuntimeConfigError::Field { field, expected };
        let Value::Object(mut fields) = serde_json::from_slice(bytes)? else {
            return Err(wrong("runtime-config.json", "an object"));
        };
        let Some(Value::String(runtime)) = fields.remove("type") else {
            return Err(wrong("type", "a string"));
        };
        let abi_versions = match fields.remove("abiVersions") {
            Some(versions) => strings(versions).ok_or_else(|| wrong("abiVersions", "a list of strings"))?,
            None => match fields.remove("abi_version") {
                Some(Value::String(version)) => vec![version],
                Some(versions) => strings(versions).ok_or_else(|| wrong("abi_version", "a string"))?,
                None => Vec::new(),
            },
        };
        let config = match fields.remove("config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(config)) => config,
            Some(_) => return Err(wrong("config", "an object")),
        };
        Ok(Self { runtime, abi_versions, config })
    }

    /// Root ids that the module answers to, `config.root_ids` or, as wasme writes it, `config.rootIds`; none means any.
    pub fn root_ids(&self) -> Vec<&str> {
        let ids = self.config.get("root_ids").or_else(|| self.config.get("rootIds")).and_then(Value::as_array);
        ids.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

fn strings(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    items.into_iter().map(|item| if let Value::String(text) = item { Some(text) } else { None }).collect()
}

/// The file as it is written; the order of the fields is the order in the file.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    #[serde(rename = "type")]
    pub(super) runtime: &'static str,
    #[serde(rename = "abiVersions")]
    pub(super) abi_versions: [String; 1],
    pub(super) config: DocumentConfig<'a>,
}

#[derive(Serialize)]
pub(super) struct DocumentConfig<'a> {
    pub(super) root_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) toolchain: Option<&'a str>,
    #[serde(flatten)]
    pub(super) more: BTreeMap<&'a String, &'a Value>,
}

impl DocumentConfig<'_> {
    /// The keys that have a field of their own.
    pub(super) const KEYS: [&'static str; 4] = ["root_ids", "phase", "priority", "toolchain"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_abi_versions_are_read() {
        for text in [
            r#"{"type": "envoy_proxy", "abiVersions": ["v0.2.1"]}"#,
            r#"{"type": "envoy_proxy", "abi_version": "v0.2.1", "config": null}"#,
            r#"{"type": "envoy_proxy", "abi_version": ["v0.2.1"], "extra": 1}"#,
        ] {
            assert_eq!(RuntimeConfig::parse(text.as_bytes()).unwrap().abi_versions, ["v0.2.1"], "{text}");
        }
        let ids = RuntimeConfig::parse(br#"{"type": "x", "config": {"root_ids": ["a", 1, "b"]}}"#).unwrap();
        assert_eq!(ids.root_ids(), ["a", "b"]);
        let wasmes = RuntimeConfig::parse(br#"{"type": "x", "config": {"rootIds": ["a"]}}"#).unwrap();
        assert_eq!(wasmes.root_ids(), ["a"]);
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        for (text, message) in [
            ("[]", "`runtime-config.json` is not an object"),
            ("{}", "`type` is not a string"),
            (r#"{"type": "x", "abiVersions": "v0.2.1"}"#, "`abiVersions` is not a list of strings"),
            (r#"{"type": "x", "abi_version": 2}"#, "`abi_version` is not a string"),
            (r#"{"type": "x", "config": []}"#, "`config` is not an object"),
            ("{", "is not JSON"),
        ] {
            assert_eq!(RuntimeConfig::parse(text.as_bytes()).unwrap_err().to_string(), message);
        }
    }
}
