//! From a built module to an entry of a layout, in one step.

use std::path::PathBuf;

use super::{AssembleError, Metadata, Variant, assemble};
use crate::build::Built;
use crate::digest::Digest;
use crate::layout::{Layout, LayoutError};
use crate::module::{self, EnvoyVersion, ReadError};

/// A packaged plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packaged {
    /// Its name in the layout.
    pub name: String,
    /// The layout.
    pub layout: PathBuf,
    /// The manifest's digest: what a resource pins.
    pub digest: Digest,
    /// Size of the image in bytes: manifest, configuration and layers.
    pub size: u64,
    /// Whether the layout had exactly this image under that name already.
    pub unchanged: bool,
}

/// Why a module was not packaged. The layout is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The module cannot be taken in.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No image can be made of it.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The layout cannot take the image.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl PackageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.hint().map(str::to_owned),
            Self::Assemble(error) => error.hint(),
            Self::Layout(error) => error.hint(),
        }
    }
}

impl Metadata {
    /// What the build knows; `revision` and `source_date_epoch` are the caller's to find out.
    pub fn of(built: &Built, revision: Option<String>, source_date_epoch: Option<u64>) -> Self {
        let plugin = &built.plugin;
        Self {
            name: plugin.name.clone(),
            version: Some(plugin.version.clone()),
            description: plugin.description.clone(),
            license: plugin.license.clone(),
            source: plugin.source.clone(),
            revision,
            root_ids: plugin.root_ids.clone(),
            phase: plugin.phase.clone(),
            priority: plugin.priority,
            toolchain: built.toolchain.clone(),
            source_date_epoch,
        }
    }
}

/// Make a [`Variant::Compat`] image of a built module, checked against `envoy`, and put it into a layout under
/// `name`.
pub fn package(
    built: &Built,
    revision: Option<String>,
    source_date_epoch: Option<u64>,
    envoy: EnvoyVersion,
    layout: &Layout,
    name: &str,
) -> Result<Packaged, PackageError> {
    let module = module::read(&built.module)?;
    let metadata = Metadata::of(built, revision, source_date_epoch);
    let image = assemble(Variant::Compat, &metadata, &module, envoy)?;
    let put = layout.put(&image, name)?;
    let blobs = image.layers.iter().chain([&image.config]).map(|blob| blob.descriptor.size()).sum::<u64>();
    Ok(Packaged {
        name: name.to_owned(),
        layout: layout.root().to_owned(),
        digest: put.digest,
        size: blobs + image.manifest.len() as u64,
        unchanged: put.unchanged,
    })
}
