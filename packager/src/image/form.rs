//! What an image is, as its publisher would call it: a variant that Istio reads, or what other tools publish.

use std::fmt;

use serde::Deserialize;

use super::survey::survey;
use super::{ExtractError, MODULE_FILE, MaistraManifest, Variant, extract, media_type};
use crate::blob::{Blob, Image};
use crate::registry::printable;

/// The form in which something was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A plugin image.
    Plugin(Variant),
    /// wkg's, which is the CNCF's "Wasm OCI Artifact": for components, though a module may be in it.
    Wkg,
    /// wasm-to-oci's, with the media types that oci-client calls `WASM_LAYER_MEDIA_TYPE` and `WASM_CONFIG_MEDIA_TYPE`.
    WasmToOci,
    /// The media types of [`Variant::Oci`], and not the two layers that make one.
    LooseOci {
        /// How many layers there are.
        layers: usize,
    },
    /// A container image whose last layer is compressed by zstd.
    Zstd,
    /// A container image whose last layer is not compressed.
    PlainTar,
    /// A container image with a module of another name than `plugin.wasm`.
    OtherName {
        /// The module's path in the layer.
        path: String,
    },
    /// A container image without a module, or with media types that do not go together.
    Container,
    /// A signature or an attestation about another image.
    Signature,
    /// An artifact of another kind, as ORAS pushes them.
    Artifact {
        /// Its `artifactType`, or its configuration's media type, or the first layer's.
        kind: String,
    },
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(Variant::Maistra) => f.write_str("a Maistra image (OpenShift Service Mesh 2.2 and older)"),
            Self::Plugin(variant) => write!(f, "a plugin image of variant {variant}"),
            Self::Wkg => f.write_str("wkg's layout (a CNCF Wasm OCI artifact)"),
            Self::WasmToOci => f.write_str("wasm-to-oci's layout (oci-client's WASM media types)"),
            Self::LooseOci { layers: 1 } => f.write_str("a plugin image of variant oci with one layer instead of two"),
            Self::LooseOci { layers } => {
                write!(f, "the layers of variant oci in an image that is none, with {layers} layers")
            }
            Self::Zstd => f.write_str("a container image with a zstd layer"),
            Self::PlainTar => f.write_str("a container image with a layer that is not compressed"),
            Self::OtherName { path } => {
                write!(f, "a container image whose module is `{}`, not `{MODULE_FILE}`", printable(path, 100))
            }
            Self::Container => f.write_str("a container image"),
            Self::Signature => f.write_str("a signature of another image"),
            Self::Artifact { kind } => write!(f, "an artifact of type `{}`", printable(kind, 100)),
        }
    }
}

/// What a manifest says of itself beside its layers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    artifact_type: Option<String>,
}

impl Form {
    /// By the manifest alone: what Istio would read counts as a plugin, whatever is in its layers.
    pub fn of(image: &Image) -> Self {
        let types: Vec<&str> = image.layers.iter().map(type_of).collect();
        let has = |media_type: &str| types.contains(&media_type);
        let config = type_of(&image.config);
        if let Some(variant) = extract::plugin_variant(image) {
            return Self::Plugin(variant);
        }
        if has(media_type::WASM_MODULE) {
            return Self::LooseOci { layers: types.len() };
        }
        if config == media_type::WKG_CONFIG {
            return Self::Wkg;
        }
        if config == media_type::WASM_TO_OCI_CONFIG || has(media_type::WASM_TO_OCI_LAYER) {
            return Self::WasmToOci;
        }
        let signature = |media_type: &&str| media_type.contains("cosign") || media_type.contains("sigstore");
        if types.iter().any(signature) || types.contains(&"application/vnd.in-toto+json") {
            return Self::Signature;
        }
        if !matches!(config, media_type::CONFIG | media_type::DOCKER_CONFIG) {
            let claim = serde_json::from_slice::<Claim>(&image.manifest).ok().and_then(|claim| claim.artifact_type);
            let claim = claim.filter(|claim| claim != media_type::UNKNOWN_ARTIFACT);
            let empty = [media_type::EMPTY, media_type::UNKNOWN_CONFIG].contains(&config);
            let kind = types.last().filter(|_| empty).unwrap_or(&config);
            return Self::Artifact { kind: claim.unwrap_or_else(|| (*kind).to_owned()) };
        }
        match types.last() {
            Some(last) if last.ends_with("tar+zstd") || last.ends_with("tar.zstd") => Self::Zstd,
            Some(&(media_type::PLAIN_LAYER | media_type::DOCKER_PLAIN_LAYER)) => Self::PlainTar,
            _ => Self::Container,
        }
    }

    /// Whether it is worth looking for a module in it.
    pub(super) fn may_hold_a_module(&self) -> bool {
        !matches!(self, Self::Signature)
    }
}

pub(super) fn type_of(blob: &Blob) -> &str {
    blob.descriptor.media_type().as_ref()
}

/// What an image is, its layers' content included: this tells a Maistra image from a compat one, and a container image
/// with a module of any name from one without.
///
/// What Istio reads is a [`Form::Plugin`] here; a Maistra image may be one that Istio does not, which is for
/// [`extract_module`](super::extract_module) to say.
pub fn recognise(image: &Image) -> Result<Form, ExtractError> {
    recognise_with_manifest(image).map(|(form, _)| form)
}

/// The same, with what a Maistra image's `manifest.yaml` says.
pub fn recognise_with_manifest(image: &Image) -> Result<(Form, Option<MaistraManifest>), ExtractError> {
    let form = Form::of(image);
    let (Form::Plugin(Variant::Compat | Variant::Docker), Some(layer)) = (&form, image.layers.last()) else {
        return Ok((form, None));
    };
    let survey = survey(layer)?;
    if let Some(Ok(manifest)) = survey.manifest.as_deref().map(MaistraManifest::parse) {
        return Ok((Form::Plugin(Variant::Maistra), Some(manifest)));
    }
    let form = match survey.modules.as_slice() {
        _ if survey.plugin.is_some() => form,
        [path] => Form::OtherName { path: path.clone() },
        _ => Form::Container,
    };
    Ok((form, None))
}
