//! The shape of `runtime-config.json` (Wasm Image Specification v0.0.0, "Format"), which Istio never opens.

use std::io::{BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::blob::{Blob, Image};
use crate::image::{RUNTIME_CONFIG_FILE, RuntimeConfig, Variant, media_type};
use crate::module::{AbiVersion, MAX_MODULE_SIZE};
use crate::registry::printable;

use super::{Outcome, chain};

const LIMIT: u64 = 1 << 20;
const FIELDS: [&str; 4] = ["type", "abiVersions", "abi_version", "config"];

/// How the file came out, and why; and the root ids that it has. `abi` is the module's own version, which Envoy goes by.
pub(super) fn check(image: &Image, variant: Variant, abi: Option<AbiVersion>) -> (Outcome, String, Vec<String>) {
    let layer = match variant {
        Variant::Oci => {
            image.layers.iter().find(|layer| layer.descriptor.media_type().as_ref() == media_type::WASM_CONFIG)
        }
        _ => image.layers.last(),
    };
    let none = || (Outcome::Skipped, "the image has none".to_owned(), Vec::new());
    let Some(layer) = layer else { return none() };
    let bytes = match variant {
        Variant::Oci => layer.read(LIMIT).map(Some).map_err(|error| chain(&error)),
        _ => in_archive(layer),
    };
    match bytes {
        Ok(Some(bytes)) => {
            let root_ids = RuntimeConfig::parse(&bytes)
                .ok()
                .map(|config| config.root_ids().into_iter().map(str::to_owned).collect());
            let (outcome, detail) = check_bytes(&bytes, abi);
            (outcome, detail, root_ids.unwrap_or_default())
        }
        Ok(None) => none(),
        Err(reason) => (Outcome::Failed, reason, Vec::new()),
    }
}

fn in_archive(layer: &Blob) -> Result<Option<Vec<u8>>, String> {
    let reader = layer.open().map_err(|error| chain(&error))?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(reader)).take(2 * MAX_MODULE_SIZE));
    let failed = |error| format!("layer {} cannot be unpacked: {error}", layer.descriptor.digest());
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path_bytes().rsplit(|byte| *byte == b'/').next() != Some(RUNTIME_CONFIG_FILE.as_bytes()) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
        return if bytes.len() as u64 > LIMIT {
            Err(format!("`{RUNTIME_CONFIG_FILE}` has more than {LIMIT} bytes"))
        } else {
            Ok(Some(bytes))
        };
    }
    Ok(None)
}

fn check_bytes(bytes: &[u8], abi: Option<AbiVersion>) -> (Outcome, String) {
    let parsed = match RuntimeConfig::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return (Outcome::Failed, chain(&error)),
    };
    let fields = match serde_json::from_slice::<Map<String, Value>>(bytes) {
        Ok(fields) => fields,
        Err(error) => return (Outcome::Failed, error.to_string()),
    };
    if let Err(reason) = check_values(&parsed) {
        return (Outcome::Failed, reason);
    }
    let unknown: Vec<String> = fields
        .keys()
        .filter(|field| !FIELDS.contains(&field.as_str()))
        .map(|field| format!("`{}`", printable(field, 64)))
        .collect();
    if !unknown.is_empty() {
        return (Outcome::Warning, format!("the specification has no {}", unknown.join(", ")));
    }
    if fields.contains_key("abi_version") {
        return (
            Outcome::Warning,
            "`abi_version` is only in the specification's example: write `abiVersions`".to_owned(),
        );
    }
    // Some write the version with a `v`, some without.
    let says = |abi: &AbiVersion| {
        parsed.abi_versions.iter().any(|said| said.strip_prefix('v').unwrap_or(said) == abi.to_string())
    };
    if let Some(abi) = abi.filter(|abi| !says(abi)) {
        let said = printable(&parsed.abi_versions.join(", "), 100);
        return (Outcome::Warning, format!("`abiVersions` has {said}, and the module is written for {abi}"));
    }
    let roots = parsed.root_ids().join(", ");
    let roots = if roots.is_empty() { String::new() } else { format!(", root ids {}", printable(&roots, 200)) };
    (Outcome::Passed, format!("ABI {}{roots}", printable(&parsed.abi_versions.join(", "), 100)))
}

fn check_values(config: &RuntimeConfig) -> Result<(), String> {
    if config.runtime != "envoy_proxy" {
        return Err(format!("`type` is `{}`, for Envoy it is `envoy_proxy`", printable(&config.runtime, 64)));
    }
    if config.abi_versions.is_empty() {
        return Err("`abiVersions` is missing or empty".to_owned());
    }
    if config.abi_versions.iter().any(String::is_empty) {
        return Err("`abiVersions` has an empty string".to_owned());
    }
    let Some(roots) = config.config.get("root_ids") else { return Ok(()) };
    let strings = roots.as_array().map(|roots| roots.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(Some(mut roots)) = strings else { return Err("`config.root_ids` is not a list of strings".to_owned()) };
    let count = roots.len();
    roots.sort_unstable();
    roots.dedup();
    if roots.len() == count { Ok(()) } else { Err("`config.root_ids` has the same id twice".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_checked_strictly() {
        use Outcome::{Failed, Passed, Warning};
        for (text, outcome, detail) in [
            (r#"{"type":"envoy_proxy","abiVersions":["v0.2.1"]}"#, Passed, "ABI v0.2.1"),
            (
                r#"{"type":"envoy_proxy","abiVersions":["v0.2.1"],"config":{"root_ids":["a","b"]}}"#,
                Passed,
                "ABI v0.2.1, root ids a, b",
            ),
            (r#"{"type":"envoy_proxy","abi_version":"v0.2.1"}"#, Warning, "write `abiVersions`"),
            (r#"{"type":"envoy_proxy","abiVersions":["v0.2.1"],"extra":1}"#, Warning, "no `extra`"),
            (r#"{"type":"envoy_proxy","abiVersions":["0.1.0","0.2.1"]}"#, Passed, "ABI 0.1.0, 0.2.1"),
            (
                r#"{"type":"envoy_proxy","abiVersions":["v0.2.0"]}"#,
                Warning,
                "has v0.2.0, and the module is written for 0.2.1",
            ),
            (r#"{"type":"nginx","abiVersions":["v0.2.1"]}"#, Failed, "`type` is `nginx`"),
            (r#"{"type":"envoy_proxy"}"#, Failed, "`abiVersions` is missing"),
            (r#"{"type":"envoy_proxy","abiVersions":[""]}"#, Failed, "empty string"),
            (r#"{"type":"envoy_proxy","abiVersions":[1]}"#, Failed, "list of strings"),
            (r#"{"type":"envoy_proxy","abiVersions":["a"],"config":{"root_ids":[1]}}"#, Failed, "`config.root_ids`"),
            (r#"{"type":"envoy_proxy","abiVersions":["a"],"config":{"root_ids":["x","x"]}}"#, Failed, "twice"),
            (r#"{"type":"envoy_proxy","abiVersions":["a"],"config":[]}"#, Failed, "`config`"),
            ("[]", Failed, "object"),
            ("{", Failed, "JSON"),
        ] {
            let (found, said) = check_bytes(text.as_bytes(), Some(AbiVersion::V0_2_1));
            assert_eq!(found, outcome, "{text}: {said}");
            assert!(said.contains(detail), "{text}: {said}");
        }
    }
}
