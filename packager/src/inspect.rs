//! Everything that can be said of an image or a module, whether or not Istio and Envoy take it.
//!
//! ```
//! use packager::inspect::inspect;
//! use packager::fetch::FetchOptions;
//! use packager::registry::{Client, Options};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("empty.wasm");
//! # std::fs::write(&path, b"\0asm\x01\0\0\0")?;
//! let options = FetchOptions::new(Client::new(Options::default())?);
//! let found = inspect(&path.display().to_string().parse()?, &options)?;
//! assert_eq!(found.module.as_ref().map(|module| module.size_bytes), Some(8));
//! assert!(!found.is_ok(), "it has no ABI version");
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use oci_spec::image::{Descriptor, ImageIndex};
use serde::Serialize;

use crate::blob::{Content, Image, digest_of};
use crate::digest::Digest;
use crate::fetch::{self, FetchError, FetchOptions};
use crate::image::{ExtractError, Form, ManifestError, TOOLCHAIN_ANNOTATION, carry_image, extract_module, variant};
use crate::layout::{Layout, LayoutError};
use crate::module::{self, ReadError};
use crate::reference::{ImageReference, LayoutReference, Reference};
use crate::registry::{Manifest, RegistryError};

mod contents;
mod image;
mod istio;
mod loads;
pub(crate) mod sections;
pub(crate) mod size;
pub(crate) mod symbols;
#[cfg(test)]
mod tests;

pub use contents::{Format, ImportedModule, Item, Language, MemoryReport, ModuleReport, ProducerReport};
pub use image::{BlobReport, ImageReport, IndexEntry, IndexReport, MaistraReport, RuntimeConfigReport};
pub use istio::{IstioRelease, RELEASES};
pub use loads::{EnvoyRange, Finding, IstioVerdict, Loads};
pub use size::{Contributor, Part, Size};

/// The version of [`Inspection`]'s JSON. It grows when a field goes or changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// What was found. As JSON: sizes in bytes (`…_bytes`), memory in pages of 64 KiB (`…_pages`), digests as
/// `sha256:…`; what is unknown or absent is `null`, never left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was inspected; of a URL, without its query.
    pub reference: String,
    /// What a resource's `sha256` is compared with.
    pub pin: Pin,
    /// The index, where the reference names one.
    pub index: Option<IndexReport>,
    /// The image, where the reference names one.
    pub image: Option<ImageReport>,
    /// The module, where there is one.
    pub module: Option<ModuleReport>,
    /// What keeps Istio from taking it, apart from what single Envoy versions object to.
    pub problems: Vec<Finding>,
    /// What is worth knowing but keeps nobody from anything.
    pub notes: Vec<String>,
}

/// What Istio compares a pin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Whose digest it is.
    pub of: Pinned,
    /// The digest, where it is known.
    pub digest: Option<Digest>,
}

/// Whose digest a pin has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pinned {
    /// An image's manifest; of an index, the manifest that is taken from it.
    Manifest,
    /// The module itself, unpacked.
    Module,
    /// Nothing: a file on the proxy is not compared with a pin.
    Nothing,
}

impl Inspection {
    /// Whether Istio would take it and at least one Envoy known here loads it.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty() && self.module.as_ref().is_some_and(|module| module.loads.any())
    }
}

/// Look at what a reference names. An error means that it could not be looked at; whatever is wrong with the thing
/// itself is in the result. The module is in memory once, an image's blobs are in files.
pub fn inspect(reference: &Reference, options: &FetchOptions) -> Result<Inspection, FetchError> {
    let mut found = Inspection {
        schema: SCHEMA,
        reference: reference.shown(),
        pin: Pin { of: Pinned::Manifest, digest: None },
        index: None,
        image: None,
        module: None,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    match reference {
        Reference::Image(image) => {
            let folder = tempfile::tempdir()
                .map_err(|source| FetchError::Temporary { directory: std::env::temp_dir(), source })?;
            found.look_in_registry(image, options, folder.path())?;
        }
        Reference::Layout(layout) => found.look_in_layout(layout, options)?,
        Reference::File(path) => {
            found.pin.of = Pinned::Nothing;
            match module::read(path) {
                Ok(bytes) => found.module = Some(contents::contents(&bytes)),
                Err(error @ ReadError::TooLarge { .. }) => found.problem(&error, error.hint()),
                Err(error) => return Err(error.into()),
            }
        }
        Reference::Url(url) => {
            found.pin.of = Pinned::Module;
            let module = contents::contents(&fetch::download(url, options)?);
            found.pin.digest = Some(module.digest.clone());
            found.module = Some(module);
        }
    }
    Ok(found)
}

impl Inspection {
    fn problem(&mut self, error: &dyn std::error::Error, hint: Option<impl Into<String>>) {
        let hint = hint.map(|hint| hint.into().replace("REF", &self.reference));
        self.problems.push(Finding::new(error, hint));
    }

    fn look_in_registry(
        &mut self,
        reference: &ImageReference,
        options: &FetchOptions,
        folder: &Path,
    ) -> Result<(), FetchError> {
        let unusable = |source: ManifestError| FetchError::Extract {
            reference: reference.to_string(),
            source: ExtractError::Manifest(source),
        };
        let mut manifest = options.client.manifest(reference)?;
        if manifest.is_index() {
            let taken = manifest.platform().map_err(unusable)?;
            let report = indexed(&manifest, taken.as_ref()).map_err(unusable)?;
            self.of_index(report, reference.to_string());
            let Some(taken) = taken else { return Ok(()) };
            let digest = digest_of(&taken).map_err(|error| unusable(error.into()))?;
            manifest = options.client.manifest(&reference.with_digest(digest))?;
        }
        let image = manifest.image(|digest| Content::File(folder.join(digest.hex()))).map_err(unusable)?;
        let report = image::outline(&image);
        if worth_fetching(&Form::of(&image)) {
            match options.client.pull_manifest(reference, manifest, folder) {
                Ok(_) => {
                    self.of_image(report, &image, options);
                    return Ok(());
                }
                Err(error) if error.is_bad_content() => self.problem(&error, error.hint()),
                Err(error) => return Err(error.into()),
            }
        } else if let Err(error) = variant(&image) {
            self.problem(&error, error.hint());
        }
        self.pin.digest = Some(image.digest());
        self.image = Some(report);
        Ok(())
    }

    fn look_in_layout(&mut self, reference: &LayoutReference, options: &FetchOptions) -> Result<(), FetchError> {
        let layout = Layout::open(&reference.directory)?;
        let image = match layout.image(&reference.name) {
            Ok(image) => image,
            Err(LayoutError::Manifest { source: ManifestError::Index { .. }, .. }) => {
                let named = |entry: &crate::layout::Entry| entry.name.as_deref() == Some(reference.name.as_str());
                let Some(entry) = layout.entries()?.into_iter().find(named) else { return Ok(()) };
                let shown = Reference::Layout(reference.clone()).to_string();
                let unusable = |source: ManifestError| FetchError::Extract {
                    reference: shown.clone(),
                    source: ExtractError::Manifest(source),
                };
                let bytes = layout.document(&entry.descriptor)?;
                let manifest =
                    Manifest::parse(bytes, Some(entry.descriptor.media_type().as_ref())).map_err(unusable)?;
                let taken = manifest.platform().map_err(unusable)?;
                let report = indexed(&manifest, taken.as_ref()).map_err(unusable)?;
                self.of_index(report, shown);
                let Some(taken) = taken else { return Ok(()) };
                layout.by_digest(&digest_of(&taken).map_err(LayoutError::from)?)?
            }
            Err(error) => return Err(error.into()),
        };
        self.of_image(image::outline(&image), &image, options);
        Ok(())
    }

    /// An index is no problem in itself: Istio looks into it. A pin to it is one, and so is one without linux/amd64.
    fn of_index(&mut self, index: IndexReport, reference: String) {
        if index.manifests.iter().any(|entry| entry.taken) {
            self.notes.push(format!(
                "an image index: Istio takes its linux/amd64 manifest and compares a pin with that one's digest, so a \
                 pin to {} always fails",
                index.index.digest
            ));
        } else {
            let error = RegistryError::NoPlatform { reference };
            self.problem(&error, error.hint());
        }
        self.index = Some(index);
    }

    /// An image whose blobs are there.
    fn of_image(&mut self, mut report: ImageReport, image: &Image, options: &FetchOptions) {
        image::recognised(&mut report, image);
        image::configuration(&mut report, image);
        self.pin.digest = Some(image.digest());
        let module = match extract_module(image, options.limit) {
            Ok(module) => {
                image::runtime(&mut report, image);
                Some(module)
            }
            Err(error) => {
                self.problem(&error, error.hint());
                // What Istio does not find may be there all the same.
                carry_image(image, options.limit).ok().map(|carried| carried.module)
            }
        };
        self.module = module.map(|module| contents::contents(&module));
        if let Some(module) = &mut self.module
            && module.language.is_none()
        {
            module.language = built_with(&report);
        }
        self.image = Some(report);
    }
}

/// What the packager recorded, for modules that are stripped of everything that tells.
fn built_with(image: &ImageReport) -> Option<Language> {
    let annotated = image.annotations.get(TOOLCHAIN_ANNOTATION).map(String::as_str);
    let configured = image
        .runtime_config
        .as_ref()
        .and_then(|config| config.config.get("toolchain"))
        .and_then(|value| value.as_str());
    let rust = |toolchain: Option<&str>| toolchain.is_some_and(|text| text.starts_with("rustc"));
    let told_by = match () {
        () if rust(annotated) => "toolchain annotation",
        () if rust(configured) => "runtime configuration",
        () => return None,
    };
    Some(Language { name: "Rust".to_owned(), told_by })
}

/// Whether an image may hold a module. Others are told by their manifest: they may be anything, of any size.
fn worth_fetching(form: &Form) -> bool {
    match form {
        Form::Container | Form::Signature => false,
        Form::Artifact { kind } => kind.contains("wasm"),
        _ => true,
    }
}

fn indexed(index: &Manifest, taken: Option<&Descriptor>) -> Result<IndexReport, ManifestError> {
    let parsed: ImageIndex = serde_json::from_slice(&index.bytes).map_err(ManifestError::Json)?;
    let entry = |descriptor: &Descriptor| IndexEntry {
        manifest: BlobReport::from(descriptor),
        platform: image::platform(descriptor),
        taken: taken == Some(descriptor),
    };
    let manifests = parsed.manifests().iter().map(entry).collect();
    Ok(IndexReport { index: image::document(&index.media_type, &index.bytes), manifests })
}
