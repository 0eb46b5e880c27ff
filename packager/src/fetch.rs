//! Module bytes by Istio's rules: what a pin is compared with, what an image may be, how large a module may be.

use std::fmt;
use std::path::PathBuf;

use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::image::{ExtractError, extract_module};
use crate::layout::{Layout, LayoutError};
use crate::module::{MAX_MODULE_SIZE, ReadError, WASM_MAGIC};
use crate::reference::{ImageReference, LayoutReference, Reference, ReferenceError, without_query};
use crate::registry::{Client, Manifest, RegistryError};

mod archive;
mod cache;
mod decide;
mod disk;
mod request;
mod why;

pub use cache::{Cache, CacheError, Cached};
pub use request::{ModuleRequest, PullPolicy};
pub use why::{Action, Explanation};

/// How to fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Who talks to registries and web servers.
    pub client: Client,
    /// The largest module taken, unpacked; Istio's limit by default.
    pub limit: u64,
}

impl FetchOptions {
    /// Istio's limit, and this client.
    pub fn new(client: Client) -> Self {
        Self { client, limit: MAX_MODULE_SIZE }
    }

    /// The same, with these credentials and no others.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { client: self.client.with_credentials(credentials), limit: self.limit }
    }
}

/// A module and where it came from.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The module's bytes, which start with WebAssembly's magic number.
    pub module: Vec<u8>,
    /// What Istio compares a pin with: an image's manifest digest, else the digest of the module itself.
    pub digest: Digest,
    /// Where it came from.
    pub source: Source,
}

/// Where a module came from, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The reference as asked for.
    pub reference: Reference,
    /// What a pin is compared with.
    pub digest: Digest,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = match &self.reference {
            Reference::Image(image) if image.digest().is_some() => return image.fmt(f),
            other => other.shown(),
        };
        write!(f, "{reference}@{}", self.digest)
    }
}

/// Why a module could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is not one that Istio reads.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// `sha256` is not 64 lower-case hexadecimal digits.
    #[error("sha256 `{sha256}` is not 64 lower-case hexadecimal digits")]
    BadPin {
        /// The field as given.
        sha256: String,
    },
    /// The digest in the URL and the field `sha256` differ.
    #[error("the digest in `{reference}` and sha256 differ\n  url     {url}\n  sha256  {sha256}")]
    PinsDiffer {
        /// The reference.
        reference: String,
        /// The URL's digest.
        url: Digest,
        /// The field's.
        sha256: Digest,
    },
    /// What came is not what was pinned.
    #[error("{what} has another digest than pinned\n  expected {expected}\n  actual   {actual}")]
    DigestMismatch {
        /// What was compared.
        what: String,
        /// The pin.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The registry or the web server.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The file.
    #[error(transparent)]
    File(#[from] ReadError),
    /// The image has no module that Istio would find.
    #[error("{reference} has no module that Istio would find")]
    Extract {
        /// The image.
        reference: String,
        /// Why.
        source: ExtractError,
    },
    /// What a URL or a file gave is not a module.
    #[error("{place} is not a module: {reason}")]
    NotAModule {
        /// The file, or the URL without its query.
        place: String,
        /// Why not.
        reason: String,
    },
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No place for the blobs of an image.
    #[error("failed to create a temporary folder in {}", directory.display())]
    Temporary {
        /// Where it was tried.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl FetchError {
    /// Whether what was asked for is bad in itself; otherwise it is the network or this machine.
    pub fn is_bad_content(&self) -> bool {
        match self {
            Self::Reference(_)
            | Self::BadPin { .. }
            | Self::PinsDiffer { .. }
            | Self::DigestMismatch { .. }
            | Self::Extract { .. }
            | Self::NotAModule { .. } => true,
            Self::Registry(error) => error.is_bad_content(),
            Self::Layout(error) => !matches!(error, LayoutError::Io { .. } | LayoutError::NotALayout { .. }),
            Self::File(_) | Self::Cache(_) | Self::Temporary { .. } => false,
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Reference(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Layout(error) => error.hint(),
            Self::Extract { reference, source } => source.hint().map(|hint| hint.replace("REF", reference)),
            _ => None,
        }
    }
}

/// Fetch a module. `sha256` is the resource's field: of an image it is the manifest's digest, of a URL's module the
/// module's own, of a file it is not looked at. A digest in the reference has to be the same.
///
/// ```
/// use packager::fetch::{FetchOptions, fetch_module};
/// use packager::registry::{Client, Options};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("empty.wasm");
/// # std::fs::write(&path, b"\0asm\x01\0\0\0")?;
/// let options = FetchOptions::new(Client::new(Options::default())?);
/// let fetched = fetch_module(&path.display().to_string().parse()?, None, &options)?;
/// assert!(fetched.module.starts_with(b"\0asm"));
/// # Ok(())
/// # }
/// ```
pub fn fetch_module(
    reference: &Reference,
    sha256: Option<&str>,
    options: &FetchOptions,
) -> Result<Fetched, FetchError> {
    let pin = sha256.filter(|text| !text.is_empty()).map(pin).transpose()?;
    let (module, digest) = match reference {
        Reference::Image(image) => from_registry(image, pin, options)?,
        Reference::Layout(layout) => from_layout(layout, pin.as_ref(), options)?,
        Reference::File(path) => {
            let module = crate::module::read(path)?;
            check_magic(&path.display().to_string(), &module)?;
            let digest = Digest::of(&module);
            (module, digest)
        }
        Reference::Url(url) => from_url(url, pin.as_ref(), options)?,
    };
    let source = Source { reference: reference.clone(), digest: digest.clone() };
    Ok(Fetched { module, digest, source })
}

pub(crate) fn pin(sha256: &str) -> Result<Digest, FetchError> {
    format!("sha256:{sha256}").parse().map_err(|_| FetchError::BadPin { sha256: sha256.to_owned() })
}

fn from_registry(
    image: &ImageReference,
    pin: Option<Digest>,
    options: &FetchOptions,
) -> Result<(Vec<u8>, Digest), FetchError> {
    let pin = match (image.digest(), pin) {
        (Some(url), Some(sha256)) if *url != sha256 => {
            return Err(FetchError::PinsDiffer { reference: image.to_string(), url: url.clone(), sha256 });
        }
        (Some(pin), _) => Some(pin.clone()),
        (None, pin) => pin,
    };
    let manifest = resolve(image, pin.as_ref(), options)?;
    let digest = manifest.digest.clone();
    Ok((pull_module(image, manifest, options)?, digest))
}

/// The manifest of the image that a reference stands for, against the pin. Of an index it is that of linux/amd64, whose
/// digest is the one that Istio compares.
fn resolve(image: &ImageReference, pin: Option<&Digest>, options: &FetchOptions) -> Result<Manifest, FetchError> {
    let mut manifest = options.client.manifest(image)?;
    if manifest.is_index() {
        manifest = options.client.platform_manifest(image, &manifest)?;
    }
    compare(&format!("the manifest of {image}"), pin, &manifest.digest)?;
    Ok(manifest)
}

fn pull_module(image: &ImageReference, manifest: Manifest, options: &FetchOptions) -> Result<Vec<u8>, FetchError> {
    let directory =
        tempfile::tempdir().map_err(|source| FetchError::Temporary { directory: std::env::temp_dir(), source })?;
    let pulled = options.client.pull_manifest(image, manifest, directory.path())?;
    extract_module(&pulled, options.limit)
        .map_err(|source| FetchError::Extract { reference: image.to_string(), source })
}

fn from_layout(
    layout: &LayoutReference,
    pin: Option<&Digest>,
    options: &FetchOptions,
) -> Result<(Vec<u8>, Digest), FetchError> {
    let image = Layout::open(&layout.directory)?.image(&layout.name)?;
    let reference = Reference::Layout(layout.clone()).to_string();
    let digest = image.digest();
    compare(&format!("the manifest of {reference}"), pin, &digest)?;
    let module = extract_module(&image, options.limit).map_err(|source| FetchError::Extract { reference, source })?;
    Ok((module, digest))
}

/// What a URL gives, unpacked; it need not be a module.
pub(crate) fn download(url: &str, options: &FetchOptions) -> Result<Vec<u8>, FetchError> {
    let place = without_query(url);
    let body = options.client.download(url, options.limit)?;
    archive::unpack(body, options.limit).map_err(|reason| FetchError::NotAModule { place, reason })
}

fn from_url(url: &str, pin: Option<&Digest>, options: &FetchOptions) -> Result<(Vec<u8>, Digest), FetchError> {
    let shown = without_query(url);
    let module = download(url, options)?;
    let digest = Digest::of(&module);
    compare(&format!("the module of {shown}"), pin, &digest)?;
    check_magic(&shown, &module)?;
    Ok((module, digest))
}

fn check_magic(place: &str, module: &[u8]) -> Result<(), FetchError> {
    if module.len() >= 8 && module.starts_with(WASM_MAGIC) {
        return Ok(());
    }
    let reason = format!("it has {} bytes and not WebAssembly's magic number", module.len());
    Err(FetchError::NotAModule { place: place.to_owned(), reason })
}

pub(crate) fn compare(what: &str, expected: Option<&Digest>, actual: &Digest) -> Result<(), FetchError> {
    match expected {
        Some(expected) if expected != actual => Err(FetchError::DigestMismatch {
            what: what.to_owned(),
            expected: expected.clone(),
            actual: actual.clone(),
        }),
        _ => Ok(()),
    }
}
