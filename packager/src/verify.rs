//! Everything that Istio's fetcher checks of an image, in its order, and then what it does not check but should.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::blob::Image;
use crate::digest::Digest;
use crate::fetch::{Explanation, FetchError, FetchOptions, IntoFile, fetch_into};
use crate::image::{ExtractError, Form, extract_module_to, recognise, variant};
use crate::layout::{Layout, LayoutError};
use crate::module::{EnvoyVersion, ReadError};
use crate::reference::{ImageReference, LayoutReference, Reference};
use crate::registry::{Manifest, RegistryError};

mod beyond;
mod resource;
mod runtime_config;

pub use resource::{Asked, verify_request};

/// What was checked, and how it came out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was verified: a reference, or a resource's `url`, without a query.
    pub reference: String,
    /// What asks for it, where a resource does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Whether the cache would be taken, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// What a pin has to be: the manifest's digest.
    pub digest: Option<Digest>,
    /// How the image carries its module, where that could be told.
    pub variant: Option<String>,
    /// The checks in order, up to the first failure that makes further ones impossible.
    pub checks: Vec<Check>,
}

impl Report {
    fn of(reference: String) -> Self {
        Self { reference, resource: None, explanation: None, digest: None, variant: None, checks: Vec::new() }
    }

    /// Whether nothing failed.
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.outcome != Outcome::Failed)
    }
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name, which stays the same from version to version.
    pub name: &'static str,
    /// Whether Istio's fetcher makes it too.
    pub istio: bool,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, or the reason.
    pub detail: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is right.
    Passed,
    /// It loads, and someone may trip over it.
    Warning,
    /// It is wrong.
    Failed,
    /// There was nothing to check.
    Skipped,
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, name: &'static str, istio: bool, outcome: Outcome, detail: impl Into<String>) {
        self.0.push(Check { name, istio, outcome, detail: detail.into() });
    }

    fn passed(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, true, Outcome::Passed, detail);
    }

    fn failed(&mut self, name: &'static str, error: &dyn std::error::Error) {
        self.add(name, true, Outcome::Failed, chain(error));
    }
}

/// An error and its causes, without saying anything twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Verify what a reference names, without having its module in memory as a whole. An error means that it could not be looked at: the network, a registry that refuses,
/// this machine. Whatever is wrong with the thing itself is in the report.
pub fn verify(
    reference: &Reference,
    sha256: Option<&str>,
    options: &FetchOptions,
    envoy: EnvoyVersion,
) -> Result<Report, FetchError> {
    let mut report = Report::of(reference.shown());
    let mut checks = Checks::default();
    let folder =
        tempfile::tempdir().map_err(|source| FetchError::Temporary { directory: std::env::temp_dir(), source })?;
    match reference {
        Reference::Image(image) => {
            checks.passed("reference", format!("`oci://{image}` in a resource"));
            let image = from_registry(image, sha256, options, folder.path(), &mut checks, &mut report)?;
            if let Some(image) = image {
                check_image(&image, options, envoy, folder.path(), &mut checks, &mut report)?;
            }
        }
        Reference::Layout(layout) => {
            checks.passed("reference", "an image in a layout");
            if let Some(image) = from_layout(layout, sha256, &mut checks, &mut report)? {
                check_image(&image, options, envoy, folder.path(), &mut checks, &mut report)?;
            }
        }
        Reference::File(_) | Reference::Url(_) => {
            let is_url = matches!(reference, Reference::Url(_));
            checks.passed("reference", "a plain module");
            let (mut file, module) = place(folder.path())?;
            match fetch_into((&mut file, &module), reference, sha256.filter(|_| is_url), options) {
                Ok((digest, size)) => {
                    checks.passed("download", format!("{size} bytes"));
                    let pin = sha256.filter(|text| is_url && !text.is_empty());
                    let detail = pin.map_or_else(|| pin_hint(&digest, is_url), str::to_owned);
                    let outcome = if pin.is_some() { Outcome::Passed } else { Outcome::Skipped };
                    checks.add("pin", true, outcome, detail);
                    checks.passed("magic", "WebAssembly's magic number");
                    report.digest = Some(digest);
                    beyond::module(&module, envoy, &mut checks)?;
                }
                Err(error) if error.is_bad_content() => checks.failed(stopped_at(&error), &error),
                Err(error) => return Err(error),
            }
        }
    }
    report.checks = checks.0;
    Ok(report)
}

/// A file for the module.
fn place(folder: &Path) -> Result<(File, PathBuf), FetchError> {
    let path = folder.join("module.wasm");
    match File::create_new(&path) {
        Ok(file) => Ok((file, path)),
        Err(source) => Err(FetchError::Write { path, source }),
    }
}

fn from_registry(
    reference: &ImageReference,
    sha256: Option<&str>,
    options: &FetchOptions,
    folder: &Path,
    checks: &mut Checks,
    report: &mut Report,
) -> Result<Option<Image>, FetchError> {
    let manifest = match options.client.manifest(reference) {
        Ok(manifest) => manifest,
        Err(error) if error.is_bad_content() => {
            checks.failed("manifest", &error);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    checks.passed("manifest", format!("{}, {} bytes", manifest.digest, manifest.bytes.len()));
    if let Some(objection) = options.client.refused_by_istio(reference)? {
        let detail = format!(
            "Istio refuses to pull from this registry: {objection}, and it takes every realm, a password's too, for where \
             tokens are given; let the registry name an https URL of its own as its realm, or let images be pulled from \
             it without a password"
        );
        checks.add("realm", true, Outcome::Warning, detail);
    }
    let manifest = match not_an_index(reference, manifest, options, checks) {
        Ok(manifest) => manifest,
        Err(error) if error.is_bad_content() => {
            checks.failed("manifest", &error);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    report.digest = Some(manifest.digest.clone());
    if !check_pin(reference.digest(), sha256, &manifest.digest, checks) {
        return Ok(None);
    }
    // What kind of layers these are is in the manifest, and Istio looks before it fetches any.
    let placeholder = |_: &Digest| crate::blob::Content::Bytes(std::sync::Arc::from([]));
    match manifest.image(placeholder).map_err(ExtractError::from).and_then(|image| variant(&image)) {
        Ok(_) => {}
        Err(error) => {
            checks.failed("layer-media-type", &error);
            return Ok(None);
        }
    }
    match options.client.pull_manifest(reference, manifest, folder) {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.is_bad_content() => {
            checks.passed("layer-media-type", "one that Istio reads");
            checks.failed(if is_size_limit(&error) { "size" } else { "layer-digest" }, &error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The manifest that Istio goes on with. An index loads, as long as nobody pins it.
fn not_an_index(
    reference: &ImageReference,
    manifest: Manifest,
    options: &FetchOptions,
    checks: &mut Checks,
) -> Result<Manifest, RegistryError> {
    if !manifest.is_index() {
        checks.add("not-index", false, Outcome::Passed, format!("`{}`", manifest.media_type));
        return Ok(manifest);
    }
    let child = options.client.platform_manifest(reference, &manifest)?;
    let detail = format!(
        "an image index (`{}`): Istio takes its linux/amd64 manifest {} and compares a pin with that one, so a pin to {} always fails; publish a plain manifest",
        manifest.media_type, child.digest, manifest.digest
    );
    checks.add("not-index", false, Outcome::Warning, detail);
    Ok(child)
}

/// The check that a module from a file or a URL does not pass.
fn stopped_at(error: &FetchError) -> &'static str {
    match error {
        FetchError::BadPin { .. } | FetchError::DigestMismatch { .. } => "pin",
        FetchError::NotAModule { .. } => "magic",
        FetchError::File(ReadError::TooLarge { .. }) => "size",
        _ => "download",
    }
}

fn pin_hint(digest: &Digest, is_url: bool) -> String {
    if is_url {
        format!("none given; `sha256: {}` would pin it", digest.hex())
    } else {
        "Istio compares a file with nothing".to_owned()
    }
}

fn is_size_limit(error: &RegistryError) -> bool {
    matches!(error, RegistryError::TooLarge { .. })
}

fn from_layout(
    reference: &LayoutReference,
    sha256: Option<&str>,
    checks: &mut Checks,
    report: &mut Report,
) -> Result<Option<Image>, FetchError> {
    let image = match Layout::open(&reference.directory).and_then(|layout| layout.image(&reference.name)) {
        Ok(image) => image,
        Err(error @ (LayoutError::Io { .. } | LayoutError::NotALayout { .. })) => return Err(error.into()),
        Err(error) => {
            checks.failed("manifest", &error);
            return Ok(None);
        }
    };
    let digest = image.digest();
    checks.passed("manifest", format!("{digest}, {} bytes", image.manifest.len()));
    checks.add("not-index", false, Outcome::Passed, format!("`{}`", image.media_type));
    report.digest = Some(digest.clone());
    Ok(check_pin(None, sha256, &digest, checks).then_some(image))
}

/// Whether the digest is what the reference and the resource's field pin it to.
fn check_pin(in_reference: Option<&Digest>, sha256: Option<&str>, actual: &Digest, checks: &mut Checks) -> bool {
    let field = match sha256.filter(|text| !text.is_empty()).map(crate::fetch::pin).transpose() {
        Ok(field) => field,
        Err(error) => {
            checks.failed("pin", &error);
            return false;
        }
    };
    if in_reference.is_none() && field.is_none() {
        checks.add("pin", true, Outcome::Skipped, format!("none given; `sha256: {}` would pin it", actual.hex()));
        return true;
    }
    for pin in [in_reference, field.as_ref()] {
        if let Err(error) = crate::fetch::compare("the manifest", pin, actual) {
            checks.failed("pin", &error);
            return false;
        }
    }
    checks.passed("pin", actual.as_str());
    true
}

fn check_image(
    image: &Image,
    options: &FetchOptions,
    envoy: EnvoyVersion,
    folder: &Path,
    checks: &mut Checks,
    report: &mut Report,
) -> Result<(), FetchError> {
    let variant = match variant(image) {
        Ok(variant) => variant,
        Err(error) => {
            checks.failed("layer-media-type", &error);
            return Ok(());
        }
    };
    report.variant = Some(variant.to_string());
    let last = image.layers.last().map(|layer| layer.descriptor.media_type().to_string()).unwrap_or_default();
    checks.passed("layer-media-type", format!("`{last}`: variant {variant}"));
    for blob in std::iter::once(&image.config).chain(&image.layers) {
        if let Err(error) = blob.open().and_then(crate::blob::BlobReader::finish) {
            checks.failed("layer-digest", &error);
            return Ok(());
        }
    }
    checks.passed("layer-digest", format!("{} and the configuration are what their descriptors say", layers(image)));
    let (mut file, module) = place(folder)?;
    let mut into = IntoFile::new(&mut file);
    let extracted = extract_module_to(image, options.limit, &mut |reader| into.take(reader));
    into.finish().map_err(|source| FetchError::Write { path: module.clone(), source })?;
    let size = match extracted {
        Ok(size) => size,
        Err(error) => {
            let name = match &error {
                ExtractError::NotWasm { .. } => "magic",
                ExtractError::TooLarge { .. } => "size",
                _ => "plugin.wasm",
            };
            let detail = chain(&error) + &earlier_layer(image, options.limit).unwrap_or_default();
            checks.add(name, true, Outcome::Failed, detail);
            return Ok(());
        }
    };
    checks.passed("plugin.wasm", "found");
    checks.passed("magic", "WebAssembly's magic number");
    checks.passed("size", format!("{size} bytes, of at most {}", options.limit));
    // Only what lies beside the module tells this variant.
    let variant = match recognise(image) {
        Ok(Form::Plugin(variant)) => variant,
        _ => variant,
    };
    report.variant = Some(variant.to_string());
    beyond::image(image, variant, &module, checks)?;
    beyond::module(&module, envoy, checks)
}

/// Where the module is that Istio does not find, if one layer or more were put on top of it.
fn earlier_layer(image: &Image, limit: u64) -> Option<String> {
    let count = image.layers.len();
    let without_last = |kept: usize| Image { layers: image.layers[..kept].to_vec(), ..image.clone() };
    let is_in = |image: &Image| {
        let found = extract_module_to(image, limit, &mut |reader| io::copy(reader, &mut io::sink()).map(drop));
        found.is_ok()
    };
    let kept = (1..count).rev().find(|kept| is_in(&without_last(*kept)))?;
    Some(format!("; layer {kept} of {count} holds it, and Istio looks into the last one only"))
}

fn layers(image: &Image) -> String {
    match image.layers.len() {
        1 => "the layer".to_owned(),
        count => format!("{count} layers"),
    }
}
