//! Module bytes by Istio's rules: what a pin is compared with, what an image may be, how large a module may be.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use crate::credentials::Credentials;
use crate::digest::{Digest, HashingReader};
use crate::file::{Output, output};
use crate::image::{ExtractError, Take, extract_module_to};
use crate::layout::{Layout, LayoutError};
use crate::module::{MAX_MODULE_SIZE, ReadError, WASM_MAGIC};
use crate::reference::{ImageReference, LayoutReference, Reference, ReferenceError, without_secrets};
use crate::registry::{Client, Manifest, RegistryError};

mod archive;
mod cache;
mod decide;
mod disk;
mod into;
mod request;
mod why;

pub(crate) use into::IntoFile;

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
    /// The file that the module was to go into.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
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
        source: io::Error,
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
            Self::File(error) => !matches!(error, ReadError::Read { .. }),
            Self::Write { .. } | Self::Cache(_) | Self::Temporary { .. } => false,
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
    let mut module = Vec::new();
    let digest = fetch(reference, sha256, options, &mut |reader| {
        module.clear();
        reader.read_to_end(&mut module).map(drop)
    })?;
    let source = Source { reference: reference.clone(), digest: digest.clone() };
    Ok(Fetched { module, digest, source })
}

/// The same into a file, which appears or is replaced once all of it is on the disk; the module is never in memory as a
/// whole. A device or a pipe is given the module once all of it is there. Gives its size too.
pub fn fetch_module_to(
    path: &Path,
    reference: &Reference,
    sha256: Option<&str>,
    options: &FetchOptions,
) -> Result<(Source, u64), FetchError> {
    let failed = |source| FetchError::Write { path: path.to_owned(), source };
    let target = match output(path).map_err(failed)? {
        Output::Replace(target) => target,
        Output::Stream(mut stream) => {
            let mut temporary = tempfile::tempfile().map_err(no_place)?;
            let (digest, size) = fetch_into((&mut temporary, path), reference, sha256, options)?;
            temporary.rewind().map_err(no_place)?;
            io::copy(&mut temporary, &mut stream).map_err(failed)?;
            return Ok((Source { reference: reference.clone(), digest }, size));
        }
    };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut temporary = crate::file::temporary(folder).map_err(failed)?;
    let (digest, size) = fetch_into((temporary.as_file_mut(), path), reference, sha256, options)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(&target).map_err(|error| failed(error.error))?;
    Ok((Source { reference: reference.clone(), digest }, size))
}

/// The same into a file that is open and empty, and has this path.
pub(crate) fn fetch_into(
    (file, path): (&mut File, &Path),
    reference: &Reference,
    sha256: Option<&str>,
    options: &FetchOptions,
) -> Result<(Digest, u64), FetchError> {
    let mut into = IntoFile::new(file);
    let fetched = fetch(reference, sha256, options, &mut |reader| into.take(reader));
    let (_, size) = into.finish().map_err(|source| FetchError::Write { path: path.to_owned(), source })?;
    Ok((fetched?, size))
}

/// Hands a module to `take`, and gives what a pin is compared with.
fn fetch(
    reference: &Reference,
    sha256: Option<&str>,
    options: &FetchOptions,
    take: &mut Take<'_>,
) -> Result<Digest, FetchError> {
    let pin = sha256.filter(|text| !text.is_empty()).map(pin).transpose()?;
    match reference {
        Reference::Image(image) => from_registry(image, pin, options, take),
        Reference::Layout(layout) => from_layout(layout, pin.as_ref(), options, take),
        Reference::File(path) => {
            let source = crate::module::Source::File(path);
            let (reader, size) = source.open()?;
            let place = path.display().to_string();
            hand_over(&place, reader.take(size), size, take).map_err(|error| error.or(|error| source.failed(error)))
        }
        Reference::Url(url) => from_url(url, pin.as_ref(), options, take),
    }
}

pub(crate) fn pin(sha256: &str) -> Result<Digest, FetchError> {
    format!("sha256:{sha256}").parse().map_err(|_| FetchError::BadPin { sha256: sha256.to_owned() })
}

fn from_registry(
    image: &ImageReference,
    pin: Option<Digest>,
    options: &FetchOptions,
    take: &mut Take<'_>,
) -> Result<Digest, FetchError> {
    let pin = match (image.digest(), pin) {
        (Some(url), Some(sha256)) if *url != sha256 => {
            return Err(FetchError::PinsDiffer { reference: image.to_string(), url: url.clone(), sha256 });
        }
        (Some(pin), _) => Some(pin.clone()),
        (None, pin) => pin,
    };
    let manifest = resolve(image, pin.as_ref(), options)?;
    let digest = manifest.digest.clone();
    pull_module(image, manifest, options, take)?;
    Ok(digest)
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

fn pull_module(
    image: &ImageReference,
    manifest: Manifest,
    options: &FetchOptions,
    take: &mut Take<'_>,
) -> Result<(), FetchError> {
    let directory = tempfile::tempdir().map_err(no_place)?;
    let pulled = options.client.pull_manifest(image, manifest, directory.path())?;
    let extracted = extract_module_to(&pulled, options.limit, take);
    extracted.map(drop).map_err(|source| FetchError::Extract { reference: image.to_string(), source })
}

fn from_layout(
    layout: &LayoutReference,
    pin: Option<&Digest>,
    options: &FetchOptions,
    take: &mut Take<'_>,
) -> Result<Digest, FetchError> {
    let image = Layout::open(&layout.directory)?.image(&layout.name)?;
    let reference = Reference::Layout(layout.clone()).to_string();
    let digest = image.digest();
    compare(&format!("the manifest of {reference}"), pin, &digest)?;
    extract_module_to(&image, options.limit, take).map_err(|source| FetchError::Extract { reference, source })?;
    Ok(digest)
}

fn no_place(source: io::Error) -> FetchError {
    FetchError::Temporary { directory: std::env::temp_dir(), source }
}

/// What a URL gives, unpacked, in a file without a name; it need not be a module.
fn unpacked(url: &str, options: &FetchOptions) -> Result<File, FetchError> {
    let place = without_secrets(url);
    let mut body = tempfile::tempfile().map_err(no_place)?;
    options.client.download(url, options.limit, &mut body)?;
    archive::unpack(body, options.limit).map_err(|reason| FetchError::NotAModule { place, reason })
}

/// What a URL gives, unpacked; it need not be a module.
pub(crate) fn download(url: &str, options: &FetchOptions) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    unpacked(url, options)?.read_to_end(&mut bytes).map_err(no_place)?;
    Ok(bytes)
}

fn from_url(
    url: &str,
    pin: Option<&Digest>,
    options: &FetchOptions,
    take: &mut Take<'_>,
) -> Result<Digest, FetchError> {
    let shown = without_secrets(url);
    let mut module = unpacked(url, options)?;
    let (digest, size) = Digest::of_reader(&module).map_err(no_place)?;
    compare(&format!("the module of {shown}"), pin, &digest)?;
    module.rewind().map_err(no_place)?;
    hand_over(&shown, module, size, take).map_err(|error| error.or(no_place))
}

/// What handing over has failed with.
enum HandOver {
    NotAModule(FetchError),
    Io(io::Error),
}

impl HandOver {
    fn or<E: Into<FetchError>>(self, of: impl FnOnce(io::Error) -> E) -> FetchError {
        match self {
            Self::NotAModule(error) => error,
            Self::Io(error) => of(error).into(),
        }
    }
}

/// Give a file to `take` if it is a module; gives its digest.
fn hand_over(place: &str, mut file: impl Read, size: u64, take: &mut Take<'_>) -> Result<Digest, HandOver> {
    let mut start = Vec::with_capacity(8);
    (&mut file).take(8).read_to_end(&mut start).map_err(HandOver::Io)?;
    if start.len() < 8 || !start.starts_with(WASM_MAGIC) {
        let reason = format!("it has {size} bytes and not WebAssembly's magic number");
        return Err(HandOver::NotAModule(FetchError::NotAModule { place: place.to_owned(), reason }));
    }
    let mut hashing = HashingReader::new(start.as_slice().chain(file));
    take(&mut hashing).map_err(HandOver::Io)?;
    Ok(hashing.finish())
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
