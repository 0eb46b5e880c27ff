//! Where a published image is carried over from: a registry, a layout, a file or a URL.

use super::{BesideError, Carried, carry_image, metadata_beside};
use crate::blob::{Image, digest_of};
use crate::fetch::{FetchError, FetchOptions, fetch_module};
use crate::image::{ExtractError, ManifestError, Metadata, index, media_type};
use crate::layout::{Layout, LayoutError};
use crate::reference::{ImageReference, LayoutReference, Reference};
use crate::registry::{Client, RegistryError};

/// Why nothing was carried over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// It could not be fetched, or what came is not what was asked for.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No module can be taken out of it.
    #[error("no module can be taken out of {reference}")]
    Extract {
        /// The image.
        reference: String,
        /// Why.
        source: ExtractError,
    },
    /// What lies beside the file.
    #[error(transparent)]
    Beside(#[from] BesideError),
    /// An index without an image that may hold a plugin.
    #[error("{reference} is an image index without an image for linux/amd64 or WebAssembly")]
    Index {
        /// The index.
        reference: String,
    },
}

impl CarryError {
    /// Whether what was asked for is bad in itself; otherwise it is the network or this machine.
    pub fn is_bad_content(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_bad_content(),
            Self::Beside(error) => matches!(error, BesideError::RuntimeConfig { .. }),
            Self::Extract { .. } | Self::Index { .. } => true,
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Extract { source, .. } => source.hint().map(str::to_owned),
            Self::Beside(_) => None,
            Self::Index { .. } => Some("name one of its images by digest".to_owned()),
        }
    }
}

impl From<RegistryError> for CarryError {
    fn from(error: RegistryError) -> Self {
        Self::Fetch(error.into())
    }
}

impl From<LayoutError> for CarryError {
    fn from(error: LayoutError) -> Self {
        Self::Fetch(error.into())
    }
}

/// Take a module, and what is known about it, out of whatever a reference names, whether Istio would read it or not.
/// Of an index, the image for linux/amd64 is taken, else one for WebAssembly, else the only one.
pub fn carry(reference: &Reference, options: &FetchOptions) -> Result<Carried, CarryError> {
    match reference {
        Reference::Image(image) => from_registry(image, options),
        Reference::Layout(layout) => from_layout(layout, options.limit),
        Reference::File(path) => {
            let module = fetch_module(reference, None, options)?.module;
            Ok(Carried { form: None, module, metadata: metadata_beside(path)?.0 })
        }
        Reference::Url(_) => {
            let module = fetch_module(reference, None, options)?.module;
            Ok(Carried { form: None, module, metadata: Metadata::default() })
        }
    }
}

fn from_registry(reference: &ImageReference, options: &FetchOptions) -> Result<Carried, CarryError> {
    let client = &options.client;
    let manifest = client.manifest(reference)?;
    if !manifest.is_index() {
        let folder = folder()?;
        let image = client.pull_manifest(reference, manifest, folder.path())?;
        return carry_image(&image, options.limit)
            .map_err(|source| CarryError::Extract { reference: reference.to_string(), source });
    }
    first_that_has_one(&reference.to_string(), &manifest.bytes, options.limit, |digest, folder| {
        Ok(pull(client, &reference.with_digest(digest), folder)?)
    })
}

fn pull(client: &Client, child: &ImageReference, folder: &std::path::Path) -> Result<Image, RegistryError> {
    let manifest = client.manifest(child)?;
    client.pull_manifest(child, manifest, folder)
}

fn from_layout(reference: &LayoutReference, limit: u64) -> Result<Carried, CarryError> {
    let layout = Layout::open(&reference.directory)?;
    let named = Reference::Layout(reference.clone()).to_string();
    match layout.image(&reference.name) {
        Ok(image) => carry_image(&image, limit).map_err(|source| CarryError::Extract { reference: named, source }),
        Err(LayoutError::Manifest { source: ManifestError::Index { .. }, .. }) => {
            let entries = layout.entries()?;
            let is_it = |entry: &&crate::layout::Entry| {
                entry.name.as_deref() == Some(&reference.name)
                    && media_type::is_index(entry.descriptor.media_type().as_ref())
            };
            let Some(entry) = entries.iter().find(is_it) else { return Err(CarryError::Index { reference: named }) };
            let index = layout.document(&entry.descriptor)?;
            first_that_has_one(&named, &index, limit, |digest, _| Ok(layout.by_digest(&digest)?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Of the images of an index, the first that a module can be taken out of; if none, why not out of the best one.
fn first_that_has_one(
    reference: &str,
    index: &[u8],
    limit: u64,
    image: impl Fn(crate::digest::Digest, &std::path::Path) -> Result<Image, CarryError>,
) -> Result<Carried, CarryError> {
    let refused = |source: ExtractError| CarryError::Extract { reference: reference.to_owned(), source };
    let mut first = None;
    for child in index::candidates(index).map_err(|error| refused(error.into()))? {
        let digest = digest_of(&child).map_err(|error| refused(error.into()))?;
        let folder = folder()?;
        match carry_image(&image(digest, folder.path())?, limit) {
            Ok(carried) => return Ok(carried),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.map_or_else(|| CarryError::Index { reference: reference.to_owned() }, refused))
}

fn folder() -> Result<tempfile::TempDir, FetchError> {
    tempfile::tempdir().map_err(|source| FetchError::Temporary { directory: std::env::temp_dir(), source })
}
