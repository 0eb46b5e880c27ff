//! What Istio's fetcher does not look at, and what other readers, or Envoy, then stumble over.

use std::io::{BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use crate::blob::{Blob, Image};
use crate::digest::Digest;
use crate::image::{VARIANT_ANNOTATION, Variant, runtime_config};
use crate::module::{self, EnvoyVersion, MAX_MODULE_SIZE};

use super::{Checks, Outcome, chain};

const CONFIG_LIMIT: u64 = 4 << 20;

#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

pub(super) fn image(image: &Image, variant: Variant, checks: &mut Checks) {
    let mut add = |name, outcome, detail: String| checks.add(name, false, outcome, detail);
    let archives = variant != Variant::Oci;
    match (archives, check_diff_ids(image)) {
        (false, _) => add("diff-ids", Outcome::Skipped, "an artifact's configuration has none".to_owned()),
        (true, Ok(())) => add("diff-ids", Outcome::Passed, "digests of the unpacked layers".to_owned()),
        (true, Err(reason)) => add("diff-ids", Outcome::Failed, reason),
    }
    let annotation = serde_json::from_slice::<Annotated>(&image.manifest)
        .ok()
        .and_then(|manifest| manifest.annotations?.remove(VARIANT_ANNOTATION));
    match (variant, annotation.as_deref()) {
        (Variant::Compat, Some("compat")) => add("variant", Outcome::Passed, "annotated as compat".to_owned()),
        (Variant::Compat, None) => {
            add("variant", Outcome::Warning, format!("no annotation `{VARIANT_ANNOTATION}: compat`"));
        }
        (Variant::Compat, Some(other)) => {
            let other = crate::registry::printable(other, 64);
            add("variant", Outcome::Warning, format!("annotated as `{other}`, and it is a compat image"));
        }
        _ => add("variant", Outcome::Skipped, "only compat images are annotated".to_owned()),
    }
    match image.layers.len() {
        1 => add("layers", Outcome::Passed, "one".to_owned()),
        2 if !archives => add("layers", Outcome::Passed, "two".to_owned()),
        count => add("layers", Outcome::Warning, format!("{count}, of which only the last is read")),
    }
    match runtime_config(image) {
        Ok(Some(config)) => {
            let roots = config.root_ids().join(", ");
            add(
                "runtime-config",
                Outcome::Passed,
                if roots.is_empty() { "readable".to_owned() } else { format!("root ids: {roots}") },
            );
        }
        Ok(None) => add("runtime-config", Outcome::Skipped, "the image has none".to_owned()),
        Err(error) => add("runtime-config", Outcome::Failed, chain(&error)),
    }
}

fn check_diff_ids(image: &Image) -> Result<(), String> {
    let config = image.config.read(CONFIG_LIMIT).map_err(|error| chain(&error))?;
    let config: Configuration =
        serde_json::from_slice(&config).map_err(|error| format!("the configuration cannot be parsed: {error}"))?;
    let found = config.rootfs.diff_ids;
    if found.len() != image.layers.len() {
        return Err(format!("{} diff_ids for {} layers", found.len(), image.layers.len()));
    }
    for (layer, expected) in image.layers.iter().zip(found) {
        let actual = unpacked_digest(layer)?;
        if actual != expected {
            return Err(format!(
                "the configuration says {expected}, layer {} unpacks to {actual}",
                layer.descriptor.digest()
            ));
        }
    }
    Ok(())
}

fn unpacked_digest(layer: &Blob) -> Result<Digest, String> {
    let limit = 2 * MAX_MODULE_SIZE;
    let reader = layer.open().map_err(|error| chain(&error))?;
    let failed = |error| format!("layer {} cannot be unpacked: {error}", layer.descriptor.digest());
    let unpacked = MultiGzDecoder::new(BufReader::new(reader)).take(limit + 1);
    match Digest::of_reader(unpacked).map_err(failed)? {
        (_, size) if size > limit => {
            Err(format!("layer {} unpacks to more than {limit} bytes", layer.descriptor.digest()))
        }
        (digest, _) => Ok(digest),
    }
}

/// Whether Envoy will load the module; of several problems, each is a check of its own.
pub(super) fn module(bytes: &[u8], envoy: EnvoyVersion, checks: &mut Checks) {
    let report = module::check(bytes, envoy);
    if report.is_ok() {
        checks.add("loads", false, Outcome::Passed, format!("in Envoy {envoy}"));
    }
    for problem in &report.problems {
        let hint = problem.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        checks.add("loads", false, Outcome::Failed, format!("{}{hint}", chain(problem)));
    }
    for note in &report.notes {
        checks.add("loads", false, Outcome::Warning, note.to_string());
    }
}
