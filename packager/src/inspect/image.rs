//! What an image is made of: manifest, configuration, layers, annotations.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::blob::{Blob, Image};
use crate::digest::Digest;
use crate::image::{Form, MaistraManifest, RuntimeConfig, recognise_with_manifest, runtime_config};

/// No image configuration is anywhere near this.
const MAX_CONFIG_SIZE: u64 = 4 << 20;

/// An image; of an index, the one that Istio takes from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageReport {
    /// The manifest.
    pub manifest: BlobReport,
    /// What it is, in words: a plugin image of a variant, wkg's layout, a container image, …
    pub form: String,
    /// The variant that it is: `compat`, `docker`, `oci` or `maistra`. None where it is none of them.
    pub variant: Option<String>,
    /// The manifest's `artifactType`.
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: BlobReport,
    /// The configuration's `os/architecture`.
    pub platform: Option<String>,
    /// The configuration's `created`.
    pub created: Option<String>,
    /// Layers, first to last.
    pub layers: Vec<BlobReport>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// `runtime-config.json`, where the image has one that can be read.
    pub runtime_config: Option<RuntimeConfigReport>,
    /// Why the one that it has cannot be read. Istio does not look at it.
    pub runtime_config_error: Option<String>,
    /// A Maistra image's `manifest.yaml`.
    pub maistra: Option<MaistraReport>,
}

/// `manifest.yaml` (`OpenShift` Service Mesh 2.2, "`ServiceMeshExtension` container format").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MaistraReport {
    /// The extension's name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Path of the module in the layer.
    pub module: String,
    /// The phase where a `ServiceMeshExtension` has none, in Maistra's words.
    pub phase: &'static str,
    /// Istio's phase for it; none is unspecified.
    pub istio_phase: Option<&'static str>,
    /// The priority where a `ServiceMeshExtension` has none.
    pub priority: i32,
}

/// An index of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexReport {
    /// The index itself.
    pub index: BlobReport,
    /// What it lists.
    pub manifests: Vec<IndexEntry>,
}

/// A manifest in an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// The manifest.
    pub manifest: BlobReport,
    /// `os/architecture`, where it is given.
    pub platform: Option<String>,
    /// Whether this is the one that Istio takes.
    pub taken: bool,
}

/// Something with a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlobReport {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size in bytes, as stored or transferred.
    pub size_bytes: u64,
    /// Its descriptor's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// `runtime-config.json` (Wasm Image Specification v0.0.0).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuntimeConfigReport {
    /// `type`.
    pub runtime: String,
    /// ABI versions as written.
    pub abi_versions: Vec<String>,
    /// Root ids that the module answers to; empty means any.
    pub root_ids: Vec<String>,
    /// The whole of `config`.
    pub config: Map<String, Value>,
}

impl From<&Descriptor> for BlobReport {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type().to_string(),
            digest: descriptor.digest().to_string(),
            size_bytes: descriptor.size(),
            annotations: descriptor.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

impl From<&Blob> for BlobReport {
    fn from(blob: &Blob) -> Self {
        Self::from(&blob.descriptor)
    }
}

/// A manifest or an index, told apart by nothing here.
pub(super) fn document(media_type: &str, bytes: &[u8]) -> BlobReport {
    BlobReport {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes).to_string(),
        size_bytes: bytes.len() as u64,
        annotations: BTreeMap::new(),
    }
}

/// `os/architecture` of a descriptor in an index.
pub(super) fn platform(descriptor: &Descriptor) -> Option<String> {
    let platform = descriptor.platform().as_ref()?;
    Some(format!("{}/{}", platform.os(), platform.architecture()))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Extras {
    annotations: Option<BTreeMap<String, String>>,
    artifact_type: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Configuration {
    os: Option<String>,
    architecture: Option<String>,
    created: Option<String>,
}

fn named(form: &Form) -> (String, Option<String>) {
    let variant = if let Form::Plugin(variant) = form { Some(variant.to_string()) } else { None };
    (form.to_string(), variant)
}

/// Say what the image is by its layers' content too, which must be there.
pub(super) fn recognised(report: &mut ImageReport, image: &Image) {
    if let Ok((form, manifest)) = recognise_with_manifest(image) {
        (report.form, report.variant) = named(&form);
        report.maistra = manifest.map(MaistraReport::from);
    }
}

/// What the manifest alone says.
pub(super) fn outline(image: &Image) -> ImageReport {
    let extras: Extras = serde_json::from_slice(&image.manifest).unwrap_or_default();
    let (form, variant) = named(&Form::of(image));
    ImageReport {
        manifest: document(&image.media_type, &image.manifest),
        form,
        variant,
        artifact_type: extras.artifact_type,
        config: BlobReport::from(&image.config),
        platform: None,
        created: None,
        layers: image.layers.iter().map(BlobReport::from).collect(),
        annotations: extras.annotations.unwrap_or_default(),
        runtime_config: None,
        runtime_config_error: None,
        maistra: None,
    }
}

/// Add what the configuration says, which must be there. An artifact's is often `{}`, or no JSON at all.
pub(super) fn configuration(report: &mut ImageReport, image: &Image) {
    let Ok(bytes) = image.config.read(MAX_CONFIG_SIZE) else { return };
    let config: Configuration = serde_json::from_slice(&bytes).unwrap_or_default();
    report.created = config.created;
    report.platform = config.os.zip(config.architecture).map(|(os, architecture)| format!("{os}/{architecture}"));
}

/// Add what lies beside the module.
pub(super) fn runtime(report: &mut ImageReport, image: &Image) {
    match runtime_config(image) {
        Ok(config) => report.runtime_config = config.map(RuntimeConfigReport::from),
        Err(error) => report.runtime_config_error = Some(crate::verify::chain(&error)),
    }
}

impl From<RuntimeConfig> for RuntimeConfigReport {
    fn from(config: RuntimeConfig) -> Self {
        let root_ids = config.root_ids().into_iter().map(str::to_owned).collect();
        Self { runtime: config.runtime, abi_versions: config.abi_versions, root_ids, config: config.config }
    }
}

impl From<MaistraManifest> for MaistraReport {
    fn from(manifest: MaistraManifest) -> Self {
        let MaistraManifest { name, description, version, phase, priority, module } = manifest;
        Self { name, description, version, module, phase: phase.name(), istio_phase: phase.istio(), priority }
    }
}
