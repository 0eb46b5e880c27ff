//! What Istio's fetcher does not look at, and what other readers, or Envoy, then stumble over.

use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use crate::blob::{Blob, Image};
use crate::digest::Digest;
use crate::image::{MODULE_FILE, RUNTIME_CONFIG_FILE, VARIANT_ANNOTATION, Variant, media_type};
use crate::module::{self, EnvoyVersion, MAX_MODULE_SIZE, Source};

use super::{Checks, FetchError, Outcome, chain, runtime_config};

const CONFIG_LIMIT: u64 = 4 << 20;
const TITLE: &str = "org.opencontainers.image.title";

#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Platform {
    os: Option<String>,
    architecture: Option<String>,
    created: Option<String>,
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// Gives the root ids that the image says its module answers to.
pub(super) fn image(
    image: &Image,
    variant: Variant,
    module: &Path,
    checks: &mut Checks,
) -> Result<Vec<String>, FetchError> {
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
    match foreign_layers(image, variant) {
        foreign if foreign.is_empty() => add("media-types", Outcome::Passed, "all of one kind".to_owned()),
        foreign => add("media-types", Outcome::Failed, foreign.join("; ")),
    }
    if archives {
        match check_configuration(image) {
            Ok(()) => add("config", Outcome::Passed, "has a platform and a date".to_owned()),
            Err(reason) => add("config", Outcome::Warning, reason),
        }
    } else {
        match untitled(image) {
            titles if titles.is_empty() => add("titles", Outcome::Passed, "each layer has one".to_owned()),
            titles => {
                add("titles", Outcome::Warning, format!("{}: oras pulls only what has a title", titles.join("; ")));
            }
        }
    }
    let abi = module::outline_source(Source::File(module))?.abi;
    let (outcome, detail, root_ids) = runtime_config::check(image, variant, abi);
    add("runtime-config", outcome, detail);
    Ok(root_ids)
}

/// Layers whose media type does not go with the variant. Istio looks at one layer, other readers at all.
fn foreign_layers(image: &Image, variant: Variant) -> Vec<String> {
    let known: &[&str] = match variant {
        Variant::Docker => &[media_type::DOCKER_LAYER],
        Variant::Oci => &[media_type::WASM_CONFIG, media_type::WASM_MODULE],
        Variant::Compat | Variant::Maistra => &[media_type::LAYER],
    };
    let count = image.layers.len();
    let layers = image.layers.iter().enumerate().filter_map(|(index, layer)| {
        let found = layer.descriptor.media_type().to_string();
        let place = index + 1;
        (!known.contains(&found.as_str()))
            .then(|| format!("layer {place} of {count} is `{}`, not `{}`", shown(&found), known.join("` or `")))
    });
    let mut foreign: Vec<String> = layers.collect();
    let config = image.config.descriptor.media_type().to_string();
    let expected = match variant {
        Variant::Docker => media_type::DOCKER_CONFIG,
        Variant::Compat | Variant::Maistra => media_type::CONFIG,
        Variant::Oci => return foreign,
    };
    if config != expected {
        foreign.push(format!("the configuration is `{}`, not `{expected}`", shown(&config)));
    }
    foreign
}

/// What engines that load images ask of a configuration, and Istio does not.
fn check_configuration(image: &Image) -> Result<(), String> {
    let config = image.config.read(CONFIG_LIMIT).map_err(|error| chain(&error))?;
    let platform: Platform =
        serde_json::from_slice(&config).map_err(|error| format!("the configuration cannot be parsed: {error}"))?;
    if platform.os.as_deref() != Some("linux") {
        let os = shown(platform.os.as_deref().unwrap_or_default());
        return Err(format!("`os` is `{os}`: umoci fails at anything but `linux`, buildah and podman warn"));
    }
    if platform.architecture.is_none_or(|architecture| architecture.is_empty()) {
        return Err("it has no `architecture`".to_owned());
    }
    if platform.created.is_none() {
        return Err("it has no `created`, without which umoci cannot show it".to_owned());
    }
    Ok(())
}

fn untitled(image: &Image) -> Vec<String> {
    let expected = |layer: &Blob| match layer.descriptor.media_type().as_ref() {
        media_type::WASM_CONFIG => RUNTIME_CONFIG_FILE,
        _ => MODULE_FILE,
    };
    let title = |layer: &Blob| layer.descriptor.annotations().as_ref().and_then(|all| all.get(TITLE).cloned());
    let layers = image.layers.iter().filter(|layer| title(layer).as_deref() != Some(expected(layer)));
    layers.map(|layer| format!("layer {} is not titled `{}`", layer.descriptor.digest(), expected(layer))).collect()
}

fn shown(text: &str) -> String {
    crate::registry::printable(text, 100)
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
pub(super) fn module(path: &Path, envoy: EnvoyVersion, checks: &mut Checks) -> Result<(), FetchError> {
    let (report, _) = module::check_source(Source::File(path), envoy)?;
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
    Ok(())
}
