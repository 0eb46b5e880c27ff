//! Manifests: from bytes to an [`Image`].

use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde::Deserialize;

use super::media_type;
use crate::blob::{Blob, BlobError, Content, Image, digest_of};
use crate::digest::Digest;

/// The size that registries and readers allow a manifest: 4 MiB (OCI distribution specification, "Pushing Manifests").
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// A manifest that is not an image's.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// An index of manifests, for several platforms.
    #[error("an image index (`{media_type}`), not an image; a sha256 pin to it always fails in Istio")]
    Index {
        /// Its media type.
        media_type: String,
    },
    /// Neither a manifest nor an index.
    #[error("media type `{media_type}` is not an image manifest's")]
    MediaType {
        /// Its media type.
        media_type: String,
    },
    /// The manifest says another media type than the source it came from.
    #[error("the manifest says it is `{actual}`, its source said `{expected}`")]
    Mismatch {
        /// What the source said.
        expected: String,
        /// What the manifest says.
        actual: String,
    },
    /// Both an image's and an index's, so that readers disagree about it.
    #[error("the manifest has both `layers` and `manifests`")]
    Ambiguous,
    /// Not a manifest's JSON.
    #[error("the manifest cannot be parsed")]
    Json(#[source] serde_json::Error),
    /// A descriptor's digest is not sha256.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl ManifestError {
    /// What to do about it; `REF` in it stands for the image.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Index { .. } => Some(
                "refer to the linux/amd64 manifest by its digest, or make a plain image of it: `cargo xtask package --from REF --format compat`",
            ),
            Self::MediaType { .. } => Some("package the module with `cargo xtask package`"),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// The media type that a manifest itself claims; Istio goes by this one.
pub(super) fn claimed_media_type(manifest: &[u8]) -> Result<Option<String>, ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Claim {
        media_type: Option<String>,
    }
    Ok(serde_json::from_slice::<Claim>(manifest).map_err(ManifestError::Json)?.media_type)
}

/// Parse a manifest; `media_type` is what the descriptor or the response's header says, `content` finds a blob.
///
/// The manifest's own digest is not checked here: the caller knows what it asked for.
pub fn parse(
    manifest: Arc<[u8]>,
    media_type: &str,
    content: impl Fn(&Digest) -> Content,
) -> Result<Image, ManifestError> {
    let parsed: Manifest = serde_json::from_slice(&manifest).map_err(ManifestError::Json)?;
    if let Some(actual) = parsed.media_type.filter(|actual| actual != media_type) {
        return Err(ManifestError::Mismatch { expected: media_type.to_owned(), actual });
    }
    match (&parsed.manifests, &parsed.layers) {
        (Some(_), Some(_)) => return Err(ManifestError::Ambiguous),
        _ if media_type::is_index(media_type) => {
            return Err(ManifestError::Index { media_type: media_type.to_owned() });
        }
        _ if !media_type::is_manifest(media_type) => {
            return Err(ManifestError::MediaType { media_type: media_type.to_owned() });
        }
        _ => {}
    }
    let missing = |field| ManifestError::Json(serde::de::Error::missing_field(field));
    let blob = |descriptor: Descriptor| {
        let digest = digest_of(&descriptor)?;
        Ok::<_, BlobError>(Blob { descriptor, content: content(&digest) })
    };
    let config = blob(parsed.config.ok_or_else(|| missing("config"))?)?;
    let layers = parsed.layers.ok_or_else(|| missing("layers"))?;
    let layers = layers.into_iter().map(blob).collect::<Result<_, _>>()?;
    Ok(Image { manifest, media_type: media_type.to_owned(), config, layers })
}
