//! Plugin images: writing and reading the formats in which a proxy-wasm module is shipped.
//!
//! The formats are those of the Wasm Image Specification v0.0.0; reading follows Istio's fetcher.

mod archive;
mod assemble;
mod carry;
mod checked;
mod depot;
mod document;
mod extract;
mod form;
mod gzip;
mod index;
mod maistra;
mod manifest;
pub mod media_type;
mod package;
mod runtime_config;
mod survey;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod unpack;

use std::fmt;

pub use assemble::{AssembleError, Metadata, TOOLCHAIN_ANNOTATION, VARIANT_ANNOTATION, assemble};
pub use carry::{BesideError, Carried, CarryError, carry, carry_image, metadata_beside};
pub use checked::CheckedModule;
pub use extract::{ExtractError, extract_module, runtime_config, variant};
pub(crate) use extract::{Take, extract_module_to};
pub use form::{Form, recognise, recognise_with_manifest};
pub use maistra::{MaistraError, MaistraManifest, MaistraPhase};
pub use manifest::{MAX_MANIFEST_SIZE, ManifestError, parse};
pub use package::{PackageError, Packaged, SchemaError, package};
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};

/// The name of the module's file in a layer.
pub const MODULE_FILE: &str = "plugin.wasm";

/// The name of the runtime configuration's file in a layer.
pub const RUNTIME_CONFIG_FILE: &str = "runtime-config.json";

/// The key of the runtime configuration's `config` under which the JSON Schema of the plugin's own configuration is.
pub const CONFIG_SCHEMA: &str = "config_schema";

/// How an image carries its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Variant {
    /// An OCI image of one tar+gzip layer (Wasm Image Specification, "compat").
    #[default]
    Compat,
    /// The same with Docker's media types.
    Docker,
    /// An OCI artifact of two layers, not compressed (Wasm Image Specification).
    Oci,
    /// `OpenShift` Service Mesh before 2.2: as compat, with `manifest.yaml` beside the module.
    Maistra,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Compat, Self::Docker, Self::Oci, Self::Maistra];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compat => "compat",
            Self::Docker => "docker",
            Self::Oci => "oci",
            Self::Maistra => "maistra",
        })
    }
}
