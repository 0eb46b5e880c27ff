//! From a module and what is known of it to an entry of a layout, in one step.

use std::path::PathBuf;

use oci_spec::image::Descriptor;

use super::assemble::assemble_in;
use super::depot::Depot;
use super::{AssembleError, CheckedModule, Metadata, Variant};
use crate::build::Built;
use crate::digest::Digest;
use crate::layout::{Layout, LayoutError};

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
            ..Self::default()
        }
    }
}

/// Make an image of a module and put it into a layout under `name`. The module goes from its file into the layout, and
/// not through memory as a whole. The layer is not flushed to the disk: after a power cut it may be damaged, which its
/// digest tells, and is made again.
pub fn package(
    variant: Variant,
    metadata: &Metadata,
    module: &CheckedModule<'_>,
    layout: &Layout,
    name: &str,
) -> Result<Packaged, PackageError> {
    let staging = layout.staging()?;
    let image = assemble_in(Depot::Folder(staging.path()), variant, metadata, module)?;
    let put = layout.put_staged(&image, name, &staging)?;
    let layers = image.layers.iter().map(|blob| &blob.descriptor);
    let config = Some(&image.config.descriptor).filter(|config| layers.clone().all(|l| l.digest() != config.digest()));
    let blobs = layers.chain(config).map(Descriptor::size).sum::<u64>();
    Ok(Packaged {
        name: name.to_owned(),
        layout: layout.root().to_owned(),
        digest: put.digest,
        size: blobs + image.manifest.len() as u64,
        unchanged: put.unchanged,
    })
}
