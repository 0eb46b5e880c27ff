//! Reading images as Istio's fetcher does.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::form::Form;
use super::runtime_config::{RuntimeConfig, RuntimeConfigError};
use super::unpack::{Bounded, SLACK, base_name};
use super::{MODULE_FILE, MaistraError, ManifestError, RUNTIME_CONFIG_FILE, Variant, maistra, manifest, media_type};
use crate::blob::{Blob, BlobError, Image};
use crate::module::{MAX_MODULE_SIZE, WASM_MAGIC};

/// No runtime configuration is anywhere near this.
pub(super) const MAX_RUNTIME_CONFIG_SIZE: u64 = 1 << 20;

/// How many names of files are kept to be shown.
pub(super) const MAX_NAMES: usize = 32;

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
        "{form}, not a plugin image: its layers are {}; Istio reads a last layer `{expected}`{}",
        listed(.layers),
        or_artifact(.expected)
    )]
    Layers {
        /// What it is instead.
        form: Box<Form>,
        /// The layers' media types, first to last.
        layers: Vec<String>,
        /// What the last one must be for this kind of manifest.
        expected: &'static str,
    },
    /// The layer has no file of that name.
    #[error("layer {digest} holds no file named `{file}`{}", instead(.found))]
    NotFound {
        /// The file.
        file: &'static str,
        /// The layer.
        digest: String,
        /// What it holds that may have been meant: modules of other names, and Maistra's manifest.
        found: Vec<String>,
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
    /// Nothing in the image is a module, wherever one looks.
    #[error("{form}, and nothing in it is a module")]
    NoModule {
        /// What the image is.
        form: Box<Form>,
    },
    /// More than one module, and nothing says which.
    #[error("{form} with several modules: {}", listed(.names))]
    SeveralModules {
        /// What the image is.
        form: Box<Form>,
        /// Their names, or their layers' digests.
        names: Vec<String>,
    },
    /// `manifest.yaml` cannot be understood.
    #[error("`manifest.yaml` in layer {digest} cannot be understood")]
    Maistra {
        /// The layer.
        digest: String,
        /// Why.
        source: MaistraError,
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

/// `REF` stands for the image, whose name is not known here.
const REPACKAGE: &str = "repackage it: `cargo xtask package --from REF --format compat`";

impl ExtractError {
    /// What to do about it; `REF` in it stands for the image.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Layers { form, .. } if form.may_hold_a_module() => Some(REPACKAGE),
            Self::NotFound { found, .. } if !found.is_empty() => Some(REPACKAGE),
            Self::Layers { .. } | Self::NoLayers | Self::NotFound { .. } | Self::NoModule { .. } => {
                Some("package the module with `cargo xtask package`")
            }
            Self::SeveralModules { .. } => {
                Some("take the right one out and package it with `cargo xtask package --module FILE --name NAME`")
            }
            Self::NotWasm { .. } => Some("put the module itself into the image, not an archive or a text form of it"),
            _ => None,
        }
    }
}

pub(super) fn listed(layers: &[String]) -> String {
    let shown: Vec<_> =
        layers.iter().take(8).map(|text| format!("`{}`", crate::registry::printable(text, 100))).collect();
    let more = if layers.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn instead(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!("; it has {}", listed(found)) }
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
    variant_of(&places(image)?, image)
}

/// The same, or `None` where Istio would read nothing.
pub(super) fn plugin_variant(image: &Image) -> Option<Variant> {
    let (places, _) = possible_places(image).ok()?;
    if places.is_empty() { None } else { variant_of(&places, image).ok() }
}

fn variant_of(places: &[Place<'_>], image: &Image) -> Result<Variant, ExtractError> {
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
    let (places, expected) = possible_places(image)?;
    if places.is_empty() {
        let layers = image.layers.iter().map(|layer| layer.descriptor.media_type().to_string()).collect();
        return Err(ExtractError::Layers { form: Box::new(Form::of(image)), layers, expected });
    }
    Ok(places)
}

/// The places that there are, and the media type that the last layer has to be of to be one.
fn possible_places(image: &Image) -> Result<(Vec<Place<'_>>, &'static str), ExtractError> {
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
    Ok((places, expected))
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
    let mut module = Vec::new();
    extract_module_to(image, limit, &mut |reader| {
        module.clear();
        reader.read_to_end(&mut module).map(drop)
    })?;
    Ok(module)
}

/// The same, read by `take`, and never in memory as a whole. It is called again, from the beginning, where it was given
/// something that turned out damaged and there is another place to look. What it has been given counts only once this
/// returns: its digest is known at its end. Gives the module's size.
pub(crate) fn extract_module_to(image: &Image, limit: u64, take: &mut Take<'_>) -> Result<u64, ExtractError> {
    let mut first_failure = None;
    for place in places(image)? {
        let mut taken = Ok(0);
        let mut taking = |file: &mut dyn Read| {
            let mut start = Vec::with_capacity(8);
            (&mut *file).take(8).read_to_end(&mut start)?;
            let mut counted = Counted { inner: start.as_slice().chain(file), size: 0 };
            if start.len() == 8 && start.starts_with(WASM_MAGIC) {
                take(&mut counted)?;
            }
            // Whatever is left is counted, and checked.
            io::copy(&mut counted, &mut io::sink())?;
            let size = counted.size;
            taken = if start.len() == 8 && start.starts_with(WASM_MAGIC) { Ok(size) } else { Err(size) };
            Ok(size)
        };
        let (layer, found) = match place {
            Place::Archive(layer) => (layer, unpack(layer, MODULE_FILE, limit, limit, &mut taking)),
            Place::Artifact { module, .. } => (module, all_of(module, MODULE_FILE, limit, &mut taking)),
        };
        match found {
            Ok(()) => {
                return taken.map_err(|size| ExtractError::NotWasm {
                    digest: name(layer),
                    size: usize::try_from(size).unwrap_or(usize::MAX),
                });
            }
            Err(error @ (ExtractError::NotFound { .. } | ExtractError::Archive { .. })) => {
                first_failure.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_failure.unwrap_or(ExtractError::NoLayers))
}

/// What is done with a file, as it is read.
pub(crate) type Take<'a> = dyn FnMut(&mut dyn Read) -> io::Result<()> + 'a;

/// The same, and how large it was.
type TakeWhole<'a> = dyn FnMut(&mut dyn Read) -> io::Result<u64> + 'a;

struct Counted<R> {
    inner: R,
    size: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.size += read as u64;
        Ok(read)
    }
}

/// The runtime configuration in an image, if it has one (Wasm Image Specification, "Format").
pub fn runtime_config(image: &Image) -> Result<Option<RuntimeConfig>, ExtractError> {
    for place in places(image)? {
        let mut bytes = Vec::new();
        let mut taking = |file: &mut dyn Read| file.read_to_end(&mut bytes).map(|size| size as u64);
        let (layer, found) = match place {
            Place::Archive(layer) => {
                (layer, unpack(layer, RUNTIME_CONFIG_FILE, MAX_RUNTIME_CONFIG_SIZE, MAX_MODULE_SIZE, &mut taking))
            }
            Place::Artifact { config: Some(config), .. } => {
                (config, all_of(config, RUNTIME_CONFIG_FILE, MAX_RUNTIME_CONFIG_SIZE, &mut taking))
            }
            Place::Artifact { config: None, .. } => continue,
        };
        match found {
            Ok(()) => {
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

fn all_of(layer: &Blob, file: &'static str, limit: u64, take: &mut TakeWhole<'_>) -> Result<(), ExtractError> {
    let mut reader = layer.open()?;
    if layer.descriptor.size() > limit {
        return Err(ExtractError::TooLarge { file, digest: name(layer), limit });
    }
    let taken = take(&mut reader);
    // A damaged blob explains whatever went wrong in reading it.
    reader.finish()?;
    taken.map(drop).map_err(|source| ExtractError::Archive { digest: name(layer), source })
}

/// One file of a tar+gzip layer, found by its base name, at most `limit` bytes long; `allowed` is what may be unpacked
/// before it is found.
fn unpack(
    layer: &Blob,
    file: &'static str,
    limit: u64,
    allowed: u64,
    take: &mut TakeWhole<'_>,
) -> Result<(), ExtractError> {
    let mut reader = layer.open()?;
    let allowed = allowed.saturating_add(SLACK);
    let buffered = BufReader::with_capacity(BUFFER, &mut reader);
    let mut bounded = Bounded::new(MultiGzDecoder::new(buffered), allowed);
    let found = search(&mut bounded, file, limit, take);
    if bounded.hit {
        return Err(ExtractError::LayerTooLarge { file, digest: name(layer), limit: allowed });
    }
    drop(bounded);
    // A damaged blob explains whatever went wrong in unpacking it.
    reader.finish()?;
    match found {
        Ok(Found::Taken) => Ok(()),
        Ok(Found::TooLarge) => Err(ExtractError::TooLarge { file, digest: name(layer), limit }),
        Ok(Found::Nothing { instead }) => Err(ExtractError::NotFound { file, digest: name(layer), found: instead }),
        Err(source) => Err(ExtractError::Archive { digest: name(layer), source }),
    }
}

/// What is read of a blob at a time.
const BUFFER: usize = 64 << 10;

enum Found {
    Taken,
    TooLarge,
    Nothing { instead: Vec<String> },
}

fn search(archive: impl Read, file: &str, limit: u64, take: &mut TakeWhole<'_>) -> io::Result<Found> {
    let mut instead = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if base_name(&entry.path_bytes()) == file.as_bytes() {
            if entry.size() > limit {
                return Ok(Found::TooLarge);
            }
            // An archive that is cut off is an error, and not a shorter file.
            let size = entry.size();
            return if take(&mut entry)? == size { Ok(Found::Taken) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let path = entry.path_bytes();
        if instead.len() < MAX_NAMES && (path.ends_with(b".wasm") || base_name(&path) == maistra::FILE.as_bytes()) {
            instead.push(String::from_utf8_lossy(&path).into_owned());
        }
    }
    Ok(Found::Nothing { instead })
}
