//! Reading images as Istio's fetcher does.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::runtime_config::{RuntimeConfig, RuntimeConfigError};
use super::{MODULE_FILE, ManifestError, RUNTIME_CONFIG_FILE, Variant, manifest, media_type};
use crate::blob::{Blob, BlobError, Image};
use crate::module::{MAX_MODULE_SIZE, WASM_MAGIC};

/// No runtime configuration is anywhere near this.
const MAX_RUNTIME_CONFIG_SIZE: u64 = 1 << 20;

/// What a layer may unpack to beyond the file that is looked for: tar's own headers, and small files before it.
const SLACK: u64 = 2 << 20;

/// Why an image yields no module.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The manifest is not an image's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A blob is not what its descriptor says.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An image without layers.
    #[error("the image has no layers")]
    NoLayers,
    /// The layers are not those of any variant that Istio reads.
    #[error(
        "not a plugin image: its layers are {}; Istio reads a last layer `{expected}`{}",
        listed(.layers),
        or_artifact(.expected)
    )]
    Layers {
        /// The layers' media types, first to last.
        layers: Vec<String>,
        /// What the last one must be for this kind of manifest.
        expected: &'static str,
    },
    /// The layer has no file of that name.
    #[error("layer {digest} holds no file named `{file}`")]
    NotFound {
        /// The file.
        file: &'static str,
        /// The layer.
        digest: String,
    },
    /// The layer is not a gzipped tar.
    #[error("layer {digest} cannot be unpacked")]
    Archive {
        /// The layer.
        digest: String,
        /// Why.
        source: io::Error,
    },
    /// More than the reader wants to hold.
    #[error("`{file}` in layer {digest} unpacks to more than {limit} bytes")]
    TooLarge {
        /// The file.
        file: &'static str,
        /// The layer.
        digest: String,
        /// The limit.
        limit: u64,
    },
    /// The layer is a gzip bomb, or holds large files before the one looked for.
    #[error("layer {digest} unpacks to more than {limit} bytes, and `{file}` is not in what comes before")]
    LayerTooLarge {
        /// The file.
        file: &'static str,
        /// The layer.
        digest: String,
        /// The limit.
        limit: u64,
    },
    /// The file found is not a WebAssembly binary.
    #[error("`plugin.wasm` in layer {digest} is not a WebAssembly binary: {size} bytes, without the magic number")]
    NotWasm {
        /// The layer.
        digest: String,
        /// The file's size.
        size: usize,
    },
    /// `runtime-config.json` cannot be understood.
    #[error("`runtime-config.json` in layer {digest} cannot be understood")]
    RuntimeConfig {
        /// The layer.
        digest: String,
        /// Why.
        source: RuntimeConfigError,
    },
}

impl ExtractError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Layers { layers, .. } if layers.iter().any(|layer| layer == "application/wasm") => {
                Some("this is wkg's layout, which Istio does not read: package it as `compat`")
            }
            Self::Layers { .. } | Self::NoLayers | Self::NotFound { .. } => {
                Some("package the module with `cargo xtask package`")
            }
            Self::NotWasm { .. } => Some("put the module itself into the image, not an archive or a text form of it"),
            _ => None,
        }
    }
}

fn listed(layers: &[String]) -> String {
    format!("`{}`", layers.join("`, `"))
}

fn or_artifact(expected: &str) -> &'static str {
    if expected == media_type::LAYER {
        ", or exactly two layers, one of them `application/vnd.module.wasm.content.layer.v1+wasm`"
    } else {
        ""
    }
}

/// Where a variant keeps its files.
enum Place<'a> {
    Archive(&'a Blob),
    Artifact { module: &'a Blob, config: Option<&'a Blob> },
}

/// The variant that Istio would read an image as, by its manifest alone. A Maistra image is told from a compat one only
/// by what is in its layer, and counts as compat here.
pub fn variant(image: &Image) -> Result<Variant, ExtractError> {
    let places = places(image)?;
    Ok(match places.first() {
        Some(Place::Artifact { .. }) => Variant::Oci,
        _ if is_docker(image)? => Variant::Docker,
        _ => Variant::Compat,
    })
}

fn is_docker(image: &Image) -> Result<bool, ExtractError> {
    Ok(manifest::claimed_media_type(&image.manifest)?.as_deref() == Some(media_type::DOCKER_MANIFEST))
}

/// Where to look, in the order in which Istio tries; never empty.
fn places(image: &Image) -> Result<Vec<Place<'_>>, ExtractError> {
    if media_type::is_index(&image.media_type) {
        return Err(ManifestError::Index { media_type: image.media_type.clone() }.into());
    }
    let of_type = |blob: &&Blob, media_type: &str| blob.descriptor.media_type().as_ref() == media_type;
    let last = image.layers.last().ok_or(ExtractError::NoLayers)?;
    let docker = is_docker(image)?;
    let expected = if docker { media_type::DOCKER_LAYER } else { media_type::LAYER };
    let mut places = Vec::new();
    if of_type(&last, expected) {
        places.push(Place::Archive(last));
    }
    if !docker && image.layers.len() == 2 {
        let find = |media_type| image.layers.iter().find(|layer| of_type(layer, media_type));
        if let Some(module) = find(media_type::WASM_MODULE) {
            places.push(Place::Artifact { module, config: find(media_type::WASM_CONFIG) });
        }
    }
    if places.is_empty() {
        let layers = image.layers.iter().map(|layer| layer.descriptor.media_type().to_string()).collect();
        return Err(ExtractError::Layers { layers, expected });
    }
    Ok(places)
}

/// The module in an image, exactly as Istio's fetcher finds it:
///
/// - Docker's schema 2: `plugin.wasm` in the last layer, which must be Docker's tar.gzip;
/// - else `plugin.wasm` in the last layer, if that is OCI's tar+gzip;
/// - else, of exactly two layers, the one that is a bare module.
///
/// The first file whose base name fits is taken, wherever in the layer it lies. It must start with WebAssembly's magic
/// number. What is read is verified against its descriptor, and unpacking stops once the module exceeds `limit` bytes
/// (Istio: [`MAX_MODULE_SIZE`]).
pub fn extract_module(image: &Image, limit: u64) -> Result<Vec<u8>, ExtractError> {
    let mut first_failure = None;
    for place in places(image)? {
        let (layer, found) = match place {
            Place::Archive(layer) => (layer, unpack(layer, MODULE_FILE, limit, limit)),
            Place::Artifact { module, .. } => (module, whole(module, MODULE_FILE, limit)),
        };
        match found {
            Ok(bytes) if bytes.len() >= 8 && bytes.starts_with(WASM_MAGIC) => return Ok(bytes),
            Ok(bytes) => return Err(ExtractError::NotWasm { digest: name(layer), size: bytes.len() }),
            Err(error @ (ExtractError::NotFound { .. } | ExtractError::Archive { .. })) => {
                first_failure.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_failure.unwrap_or(ExtractError::NoLayers))
}

/// The runtime configuration in an image, if it has one (Wasm Image Specification, "Format").
pub fn runtime_config(image: &Image) -> Result<Option<RuntimeConfig>, ExtractError> {
    for place in places(image)? {
        let (layer, found) = match place {
            Place::Archive(layer) => {
                (layer, unpack(layer, RUNTIME_CONFIG_FILE, MAX_RUNTIME_CONFIG_SIZE, MAX_MODULE_SIZE))
            }
            Place::Artifact { config: Some(config), .. } => {
                (config, whole(config, RUNTIME_CONFIG_FILE, MAX_RUNTIME_CONFIG_SIZE))
            }
            Place::Artifact { config: None, .. } => continue,
        };
        match found {
            Ok(bytes) => {
                return RuntimeConfig::parse(&bytes)
                    .map(Some)
                    .map_err(|source| ExtractError::RuntimeConfig { digest: name(layer), source });
            }
            Err(ExtractError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn name(blob: &Blob) -> String {
    blob.descriptor.digest().to_string()
}

fn whole(layer: &Blob, file: &'static str, limit: u64) -> Result<Vec<u8>, ExtractError> {
    layer.read(limit).map_err(|error| match error {
        BlobError::TooLarge { .. } => ExtractError::TooLarge { file, digest: name(layer), limit },
        error => error.into(),
    })
}

/// One file of a tar+gzip layer, found by its base name, at most `limit` bytes long; `allowed` is what may be unpacked
/// before it is found.
fn unpack(layer: &Blob, file: &'static str, limit: u64, allowed: u64) -> Result<Vec<u8>, ExtractError> {
    let mut reader = layer.open()?;
    let allowed = allowed.saturating_add(SLACK);
    let mut bounded = Bounded { inner: MultiGzDecoder::new(BufReader::new(&mut reader)), left: allowed, hit: false };
    let found = search(&mut bounded, file, limit);
    if bounded.hit {
        return Err(ExtractError::LayerTooLarge { file, digest: name(layer), limit: allowed });
    }
    drop(bounded);
    // A damaged blob explains whatever went wrong in unpacking it.
    reader.finish()?;
    match found {
        Ok(Found::File(bytes)) => Ok(bytes),
        Ok(Found::TooLarge) => Err(ExtractError::TooLarge { file, digest: name(layer), limit }),
        Ok(Found::Nothing) => Err(ExtractError::NotFound { file, digest: name(layer) }),
        Err(source) => Err(ExtractError::Archive { digest: name(layer), source }),
    }
}

enum Found {
    File(Vec<u8>),
    TooLarge,
    Nothing,
}

fn search(archive: impl Read, file: &str, limit: u64) -> io::Result<Found> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if base_name(&entry.path_bytes()) != file.as_bytes() {
            continue;
        }
        let size = entry.size();
        if size > limit {
            return Ok(Found::TooLarge);
        }
        // Not reserved: the size is only a claim.
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(Found::File(bytes));
    }
    Ok(Found::Nothing)
}

/// The last element of a path, as Go's `filepath.Base` has it.
fn base_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    &path[path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1)..]
}

/// Stops after so many bytes, and remembers having done so.
struct Bounded<R> {
    inner: R,
    left: u64,
    hit: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            self.hit = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "unpacks to more than is allowed"));
        };
        self.left = left;
        Ok(read)
    }
}
