//! What of a published image is carried over into another: its module, and what is said about it.

use std::collections::BTreeMap;

use oci_spec::image::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_SOURCE, ANNOTATION_TITLE,
    ANNOTATION_VERSION,
};
use serde::Deserialize;
use serde_json::Value;

use super::extract::{self, MAX_RUNTIME_CONFIG_SIZE};
use super::form::type_of;
use super::survey::{Survey, file_at, survey};
use super::unpack::{is_wasm_name, through};
use super::{
    ExtractError, Form, MAX_MANIFEST_SIZE, MODULE_FILE, MaistraManifest, Metadata, RUNTIME_CONFIG_FILE, RuntimeConfig,
    TOOLCHAIN_ANNOTATION, VARIANT_ANNOTATION, Variant, extract_module, media_type,
};
use crate::blob::{Blob, Image};
use crate::module::WASM_MAGIC;

mod beside;
mod source;

pub use beside::{BesideError, metadata_beside};
pub use source::{CarryError, carry};

/// What is carried over.
#[derive(Debug, Clone)]
pub struct Carried {
    /// What the image is; `None` for a module that was in none.
    pub form: Option<Form>,
    /// The module, or whatever else starts with WebAssembly's magic number, such as a component.
    pub module: Vec<u8>,
    /// What is known of it. The name is empty where the image does not say it.
    pub metadata: Metadata,
}

/// Where the module was found, and what lies beside it.
struct Found {
    module: Vec<u8>,
    maistra: Option<MaistraManifest>,
    runtime_config: Option<RuntimeConfig>,
}

/// Take a module out of an image of any form, with what is known about it.
///
/// Where Istio finds a module, it is that one. Else it is the only bare module among the layers, or, from the last layer
/// to the first, the `plugin.wasm`, the one that Maistra's manifest names, or the only file named `*.wasm`. A layer may be
/// compressed by gzip or zstd, or not at all. At most `limit` bytes of module are taken.
pub fn carry_image(image: &Image, limit: u64) -> Result<Carried, ExtractError> {
    let form = Form::of(image);
    let (form, found) = match form {
        Form::Plugin(Variant::Oci) => {
            let runtime_config = extract::runtime_config(image)?;
            (form, Found { module: extract_module(image, limit)?, maistra: None, runtime_config })
        }
        Form::Signature => return Err(ExtractError::NoModule { form: Box::new(form) }),
        form => search(image, form, limit)?,
    };
    let mut metadata = Metadata::default();
    annotations(image, &mut metadata);
    if let Some(manifest) = found.maistra {
        manifest.complete(&mut metadata);
    }
    if let Some(config) = found.runtime_config {
        config.complete(&mut metadata);
    }
    Ok(Carried { form: Some(form), module: found.module, metadata })
}

fn search(image: &Image, form: Form, limit: u64) -> Result<(Form, Found), ExtractError> {
    let mut bare: Vec<&Blob> = image.layers.iter().filter(|layer| is_bare_module(layer)).collect();
    if bare.len() > 1 {
        let named: Vec<_> = bare.iter().filter(|layer| title(layer) == Some(MODULE_FILE)).copied().collect();
        match named[..] {
            [layer] => bare = vec![layer],
            _ => {
                let name = |layer: &&Blob| title(layer).map_or_else(|| digest(layer), str::to_owned);
                return Err(ExtractError::SeveralModules {
                    form: Box::new(form),
                    names: bare.iter().map(name).collect(),
                });
            }
        }
    }
    if let [layer] = bare[..] {
        match module_in(layer, limit)? {
            Some(module) => {
                return Ok((form, Found { module, maistra: None, runtime_config: artifact_config(image)? }));
            }
            None if is_archive(layer) => {}
            None => return Err(not_wasm(layer)),
        }
    }
    for layer in image.layers.iter().rev().filter(|layer| is_archive(layer)) {
        if let Some(found) = in_archive(layer, &form, limit)? {
            return Ok(found);
        }
    }
    // Artifacts of types that nobody knows: what counts is what is in them.
    if let [layer] = &image.layers[..]
        && !is_archive(layer)
        && let Some(module) = module_in(layer, limit)?
    {
        return Ok((form, Found { module, maistra: None, runtime_config: artifact_config(image)? }));
    }
    let form = if matches!(form, Form::Plugin(_)) { Form::Container } else { form };
    Err(ExtractError::NoModule { form: Box::new(form) })
}

fn in_archive(layer: &Blob, form: &Form, limit: u64) -> Result<Option<(Form, Found)>, ExtractError> {
    let Survey { plugin, modules, manifest, runtime_config } = survey(layer)?;
    let (manifest, refused) = match manifest.as_deref().map(MaistraManifest::parse) {
        Some(Ok(manifest)) => (Some(manifest), None),
        Some(Err(source)) => (None, Some(ExtractError::Maistra { digest: digest(layer), source })),
        None => (None, None),
    };
    let mut form = match (&manifest, form) {
        (Some(_), Form::Plugin(_)) => Form::Plugin(Variant::Maistra),
        _ => form.clone(),
    };
    let path = match (plugin, &manifest, modules.as_slice()) {
        (Some(path), _, _) => path,
        (None, Some(manifest), _) => manifest.module.clone(),
        // A `manifest.yaml` that would name the module, were it readable.
        (None, None, [_, ..]) if let Some(refused) = refused => return Err(refused),
        (None, None, []) => return Ok(None),
        (None, None, [path]) => {
            if matches!(form, Form::Plugin(_)) {
                form = Form::OtherName { path: path.clone() };
            }
            path.clone()
        }
        (None, None, names) => {
            return Err(ExtractError::SeveralModules { form: Box::new(Form::Container), names: names.to_vec() });
        }
    };
    let Some(module) = file_at(layer, &path, limit)? else {
        return Err(ExtractError::NoModule { form: Box::new(form) });
    };
    if !module.starts_with(WASM_MAGIC) || module.len() < 8 {
        return Err(ExtractError::NotWasm { digest: digest(layer), size: module.len() });
    }
    let runtime_config = runtime_config.map(|bytes| parse_config(layer, &bytes)).transpose()?;
    Ok(Some((form, Found { module, maistra: manifest, runtime_config })))
}

fn digest(blob: &Blob) -> String {
    blob.descriptor.digest().to_string()
}

fn not_wasm(layer: &Blob) -> ExtractError {
    let size = usize::try_from(layer.descriptor.size()).unwrap_or(usize::MAX);
    ExtractError::NotWasm { digest: digest(layer), size }
}

fn title(layer: &Blob) -> Option<&str> {
    layer.descriptor.annotations().as_ref()?.get(ANNOTATION_TITLE).map(String::as_str)
}

fn is_bare_module(layer: &Blob) -> bool {
    let known = [media_type::WASM_MODULE, media_type::WKG_LAYER, media_type::WASM_TO_OCI_LAYER];
    // ORAS pushes any file as a layer of type tar unless it is told otherwise; the title is the file's name.
    known.contains(&type_of(layer)) || title(layer).is_some_and(is_wasm_name)
}

fn is_archive(layer: &Blob) -> bool {
    let types = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    types.iter().any(|start| type_of(layer).starts_with(start))
}

/// A bare module, compressed or not; `None` if it is something else.
fn module_in(layer: &Blob, limit: u64) -> Result<Option<Vec<u8>>, ExtractError> {
    through(layer, limit, |content| {
        let mut start = [0; 8];
        let mut filled = 0;
        while filled < start.len() {
            match content.read(&mut start[filled..])? {
                0 => return Ok(None),
                read => filled += read,
            }
        }
        if !start.starts_with(WASM_MAGIC) {
            return Ok(None);
        }
        let mut module = start.to_vec();
        content.read_to_end(&mut module)?;
        Ok(Some(module))
    })
}

/// An artifact's runtime configuration: a layer of its type or title, or the manifest's configuration.
fn artifact_config(image: &Image) -> Result<Option<RuntimeConfig>, ExtractError> {
    let is_one = |blob: &&Blob| type_of(blob) == media_type::WASM_CONFIG || title(blob) == Some(RUNTIME_CONFIG_FILE);
    let found = image.layers.iter().chain([&image.config]).find(is_one);
    found.map(|blob| parse_config(blob, &blob.read(MAX_RUNTIME_CONFIG_SIZE)?)).transpose()
}

fn parse_config(layer: &Blob, bytes: &[u8]) -> Result<RuntimeConfig, ExtractError> {
    RuntimeConfig::parse(bytes).map_err(|source| ExtractError::RuntimeConfig { digest: digest(layer), source })
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Configured {
    #[serde(default)]
    config: Option<Labelled>,
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// Annotations of the image that was, which say nothing true of the one that is made.
const NOT_CARRIED: [&str; 3] =
    ["org.opencontainers.image.created", "org.opencontainers.image.ref.name", VARIANT_ANNOTATION];
/// The same, by how their names start: the base image, and what builders and signers note for themselves.
const NOT_CARRIED_PREFIXES: [&str; 6] = [
    "org.opencontainers.image.base.",
    "io.buildah.",
    "com.docker.",
    "vnd.docker.",
    "dev.cosignproject.",
    "dev.sigstore.",
];

/// The manifest's annotations and a container configuration's labels, where Docker images have theirs.
fn annotations(image: &Image, metadata: &mut Metadata) {
    let mut all = BTreeMap::new();
    if matches!(type_of(&image.config), media_type::CONFIG | media_type::DOCKER_CONFIG) {
        let config = image.config.read(MAX_MANIFEST_SIZE).unwrap_or_default();
        let labels = serde_json::from_slice::<Configured>(&config).ok().and_then(|parsed| parsed.config?.labels);
        all.extend(labels.unwrap_or_default());
    }
    let manifest = serde_json::from_slice::<Annotated>(&image.manifest).ok();
    all.extend(manifest.and_then(|parsed| parsed.annotations).unwrap_or_default());
    all.retain(|key, _| {
        !NOT_CARRIED.contains(&key.as_str()) && !NOT_CARRIED_PREFIXES.iter().any(|start| key.starts_with(start))
    });
    let mut take = |key: &str| all.remove(key).filter(|text| !text.trim().is_empty());
    metadata.name = take(ANNOTATION_TITLE).unwrap_or_default();
    metadata.description = take(ANNOTATION_DESCRIPTION);
    metadata.version = take(ANNOTATION_VERSION);
    metadata.source = take(ANNOTATION_SOURCE);
    metadata.revision = take(ANNOTATION_REVISION);
    metadata.license = take(ANNOTATION_LICENSES);
    metadata.toolchain = take(TOOLCHAIN_ANNOTATION);
    metadata.annotations = all;
}

impl MaistraManifest {
    /// Add what is not known yet.
    pub fn complete(self, metadata: &mut Metadata) {
        if metadata.name.is_empty() {
            metadata.name = self.name.unwrap_or_default();
        }
        metadata.description = metadata.description.take().or(self.description);
        metadata.version = metadata.version.take().or(self.version);
        metadata.phase = metadata.phase.take().or(self.phase.istio().map(str::to_owned));
        metadata.priority = metadata.priority.or(Some(self.priority));
    }
}

impl RuntimeConfig {
    /// Add what is not known yet; what has no field of its own is kept as it is.
    pub fn complete(self, metadata: &mut Metadata) {
        if metadata.root_ids.is_empty() {
            metadata.root_ids = self.root_ids().into_iter().map(str::to_owned).collect();
        }
        let mut config = self.config;
        config.remove("root_ids");
        config.remove("rootIds");
        let mut text = |key| match config.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let (phase, toolchain) = (text("phase"), text("toolchain"));
        metadata.phase = metadata.phase.take().or(phase);
        metadata.toolchain = metadata.toolchain.take().or(toolchain);
        let priority = config.remove("priority").and_then(|value| value.as_i64()).and_then(|n| i32::try_from(n).ok());
        metadata.priority = metadata.priority.or(priority);
        for (key, value) in config {
            metadata.config.entry(key).or_insert(value);
        }
    }
}
