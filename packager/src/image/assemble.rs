//! Writing images: a module and what is known of it, to a manifest, a configuration and a layer.

use std::collections::{BTreeMap, HashMap};
use std::io;

use oci_spec::image::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_SOURCE, ANNOTATION_TITLE,
    ANNOTATION_VERSION,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::archive::Content;
use super::checked::{CheckedModule, CopyError};
use super::depot::Depot;
use super::document::{Configuration, Manifest};
use super::runtime_config::{Document, DocumentConfig};
use super::{
    MAX_MANIFEST_SIZE, MODULE_FILE, MaistraManifest, RUNTIME_CONFIG_FILE, Variant, archive, maistra, media_type, time,
};
use crate::blob::{Blob, Image};
use crate::module::{self, AbiVersion, EnvoyVersion, ReadError, Report};

/// The annotation that tells a compat image from others (Wasm Image Specification, "compat").
pub const VARIANT_ANNOTATION: &str = "module.wasm.image/variant";

/// The annotation that says what compiled the module.
pub const TOOLCHAIN_ANNOTATION: &str = "dev.plugwright.toolchain";

/// What is known of a plugin beside its module. What is absent or empty is left out of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The plugin's name; the image's title.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// One line on what it does.
    pub description: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// URL of the source repository.
    pub source: Option<String>,
    /// Revision of the source, for example a commit.
    pub revision: Option<String>,
    /// Root ids that the module answers to; empty means any.
    pub root_ids: Vec<String>,
    /// Phase it is meant for.
    pub phase: Option<String>,
    /// Priority it is meant for.
    pub priority: Option<i32>,
    /// What compiled the module.
    pub toolchain: Option<String>,
    /// Further annotations; what the fields above say goes before them.
    pub annotations: BTreeMap<String, String>,
    /// Further keys of the runtime configuration's `config`; what the fields above say goes before them.
    pub config: Map<String, Value>,
    /// `SOURCE_DATE_EPOCH`: the time, in seconds, that the image claims to be of; the epoch if absent.
    pub source_date_epoch: Option<u64>,
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Envoy would not load the module.
    #[error("module of `{name}` is refused: {}", problems(.report))]
    Refused {
        /// The plugin.
        name: String,
        /// Everything that is wrong with the module.
        report: Box<Report>,
    },
    /// The module cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Annotations and the like are more than readers take.
    #[error("the {part} would have {size} bytes, more than the {MAX_MANIFEST_SIZE} that registries take")]
    TooLarge {
        /// `manifest` or `image configuration`.
        part: &'static str,
        /// Its size.
        size: usize,
    },
    /// `SOURCE_DATE_EPOCH` is after the year 9999.
    #[error("source date epoch {seconds} is after the year 9999")]
    Time {
        /// The seconds.
        seconds: u64,
    },
    /// Compressing or encoding failed.
    #[error("cannot write the {part}")]
    Write {
        /// `layer`, `manifest`, ….
        part: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl AssembleError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { report, .. } => report.problems.iter().find_map(module::Problem::hint),
            Self::Read(error) => error.hint().map(str::to_owned),
            Self::Time { .. } => Some("set SOURCE_DATE_EPOCH to seconds, not milliseconds".to_owned()),
            Self::TooLarge { .. } => Some("shorten the description and the annotations".to_owned()),
            Self::Write { .. } => None,
        }
    }
}

fn problems(report: &Report) -> String {
    let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}

/// Make an image of a module, once [`module::check`] has nothing against it on `envoy`.
///
/// The same input gives the same bytes, on any machine. What a variant has no place for is left out: `docker` manifests
/// have no annotations, so they become the configuration's labels; `maistra` has no runtime configuration.
pub fn assemble(
    variant: Variant,
    metadata: &Metadata,
    module: &[u8],
    envoy: EnvoyVersion,
) -> Result<Image, AssembleError> {
    assemble_in(Depot::Memory, variant, metadata, &CheckedModule::new(&metadata.name, module, envoy)?)
}

/// The same, its layers being made in `depot`.
pub(super) fn assemble_in(
    depot: Depot<'_>,
    variant: Variant,
    metadata: &Metadata,
    module: &CheckedModule<'_>,
) -> Result<Image, AssembleError> {
    let runtime_config = json("runtime configuration", &runtime_config(metadata, module.abi))?;
    let (contained, runtime_file) = ((MODULE_FILE, Content::Module(module)), Content::Bytes(&runtime_config));
    match variant {
        Variant::Compat | Variant::Docker => {
            container(depot, variant, metadata, &[contained, (RUNTIME_CONFIG_FILE, runtime_file)])
        }
        // The module has the name that Istio looks for, so that it reads this variant as well.
        Variant::Maistra => {
            let manifest = MaistraManifest::of(metadata, MODULE_FILE).to_yaml();
            container(depot, variant, metadata, &[(maistra::FILE, Content::Bytes(manifest.as_bytes())), contained])
        }
        Variant::Oci => artifact(depot, metadata, module, runtime_config),
    }
}

fn layer_error(error: CopyError) -> AssembleError {
    match error {
        CopyError::Read(error) => error.into(),
        CopyError::Write(source) => AssembleError::Write { part: "layer", source },
    }
}

/// An image of one layer with these files, which are sorted by name.
fn container(
    depot: Depot<'_>,
    variant: Variant,
    metadata: &Metadata,
    files: &[(&str, Content<'_>)],
) -> Result<Image, AssembleError> {
    let seconds = metadata.source_date_epoch.unwrap_or(0);
    let created = time::rfc3339(seconds).ok_or(AssembleError::Time { seconds })?;
    let docker = variant == Variant::Docker;
    let (manifest_type, config_type, layer_type) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER)
    } else {
        (media_type::MANIFEST, media_type::CONFIG, media_type::LAYER)
    };
    let mut annotations = annotations(metadata);
    if !docker {
        annotations.insert(VARIANT_ANNOTATION.to_owned(), Variant::Compat.to_string());
    }
    let (labels, annotations) = if docker { (annotations, BTreeMap::new()) } else { (BTreeMap::new(), annotations) };
    let layer = depot.blob(layer_type, |sink| archive::layer(sink, files, seconds));
    let (layer, diff_id) = layer.map_err(layer_error)?;
    let config = json("image configuration", &Configuration::new(&diff_id, &created, labels))?;
    finish(manifest_type, Blob::from_bytes(config_type, config), vec![layer], annotations)
}

/// An image of the module and the runtime configuration as they are. The latter is the manifest's configuration too, so
/// that readers who go by that one find it.
fn artifact(
    depot: Depot<'_>,
    metadata: &Metadata,
    module: &CheckedModule<'_>,
    runtime_config: Vec<u8>,
) -> Result<Image, AssembleError> {
    let titled = |mut blob: Blob, title: &str| {
        let title = HashMap::from([(ANNOTATION_TITLE.to_owned(), title.to_owned())]);
        blob.descriptor.set_annotations(Some(title));
        blob
    };
    let (module, ()) = depot.blob(media_type::WASM_MODULE, |sink| module.copy_to(sink)).map_err(layer_error)?;
    let config = Blob::from_bytes(media_type::WASM_CONFIG, runtime_config);
    let layers = vec![titled(config.clone(), RUNTIME_CONFIG_FILE), titled(module, MODULE_FILE)];
    finish(media_type::MANIFEST, config, layers, annotations(metadata))
}

fn finish(
    media_type: &'static str,
    config: Blob,
    layers: Vec<Blob>,
    annotations: BTreeMap<String, String>,
) -> Result<Image, AssembleError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type,
        config: &config.descriptor,
        layers: layers.iter().map(|layer| &layer.descriptor).collect(),
        annotations,
    };
    let manifest = json("manifest", &manifest)?;
    Ok(Image { manifest: manifest.into(), media_type: media_type.to_owned(), config, layers })
}

fn present(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn runtime_config(metadata: &Metadata, abi: AbiVersion) -> Document<'_> {
    Document {
        runtime: "envoy_proxy",
        // The proxy-wasm specification's folders are named so.
        abi_versions: [format!("v{abi}")],
        config: DocumentConfig {
            root_ids: &metadata.root_ids,
            phase: present(metadata.phase.as_ref()),
            priority: metadata.priority,
            toolchain: present(metadata.toolchain.as_ref()),
            more: metadata.config.iter().filter(|(key, _)| !DocumentConfig::KEYS.contains(&key.as_str())).collect(),
        },
    }
}

fn annotations(metadata: &Metadata) -> BTreeMap<String, String> {
    let known = [
        (ANNOTATION_TITLE, Some(&metadata.name)),
        (ANNOTATION_DESCRIPTION, metadata.description.as_ref()),
        (ANNOTATION_VERSION, metadata.version.as_ref()),
        (ANNOTATION_SOURCE, metadata.source.as_ref()),
        (ANNOTATION_REVISION, metadata.revision.as_ref()),
        (ANNOTATION_LICENSES, metadata.license.as_ref()),
        (TOOLCHAIN_ANNOTATION, metadata.toolchain.as_ref()),
    ];
    let known = known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), present(value)?.to_owned())));
    let mut annotations = metadata.annotations.clone();
    annotations.extend(known);
    annotations
}

fn json(part: &'static str, document: &impl Serialize) -> Result<Vec<u8>, AssembleError> {
    match serde_json::to_vec(document) {
        Ok(bytes) if bytes.len() as u64 > MAX_MANIFEST_SIZE => Err(AssembleError::TooLarge { part, size: bytes.len() }),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(AssembleError::Write { part, source: error.into() }),
    }
}
