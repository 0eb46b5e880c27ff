//! From a module and what is known of it to an entry of a layout, in one step.

use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use serde_json::Value;

use super::assemble::assemble_in;
use super::depot::Depot;
use super::{AssembleError, CONFIG_SCHEMA, CheckedModule, Metadata, Variant};
use crate::build::Built;
use crate::digest::Digest;
use crate::layout::{Layout, LayoutError};

/// Every proxy that pulls the image pulls the schema as well.
const MAX_SCHEMA_SIZE: usize = 256 << 10;

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

/// The JSON Schema of a plugin's configuration cannot be put into its image.
#[derive(Debug, thiserror::Error)]
#[error("{}: the schema of the configuration: {reason}", path.display())]
pub struct SchemaError {
    /// The file that `package.metadata.plugin.config-schema` names.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// Reads a JSON Schema, which must be an object, as the configuration that it describes is one.
fn schema(path: &Path) -> Result<Value, SchemaError> {
    let wrong = |reason: String| SchemaError { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() > MAX_SCHEMA_SIZE {
        return Err(wrong(format!("it has {} bytes, more than {MAX_SCHEMA_SIZE}", bytes.len())));
    }
    match serde_json::from_slice(&bytes) {
        Ok(schema @ Value::Object(_)) => Ok(schema),
        Ok(_) => Err(wrong("it is not a JSON object".to_owned())),
        Err(error) => Err(wrong(format!("it is not JSON: {error}"))),
    }
}

impl Metadata {
    /// What the build knows, with the schema of the plugin's configuration if it has one; `revision` and
    /// `source_date_epoch` are the caller's to find out.
    pub fn of(built: &Built, revision: Option<String>, source_date_epoch: Option<u64>) -> Result<Self, SchemaError> {
        let plugin = &built.plugin;
        let schema = plugin.config_schema.as_deref().map(schema).transpose()?;
        Ok(Self {
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
            config: schema.into_iter().map(|schema| (CONFIG_SCHEMA.to_owned(), schema)).collect(),
            ..Self::default()
        })
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
