//! Media types of manifests, configurations and layers.

/// OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, tar and gzip.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Docker's image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer, tar and gzip.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Wasm Image Specification: the module, as it is.
pub const WASM_MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// Wasm Image Specification: the runtime configuration.
pub const WASM_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
/// OCI layer, a tar that is not compressed.
pub const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, tar and zstd.
pub const ZSTD_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's layer, a tar that is not compressed.
pub const DOCKER_PLAIN_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// OCI: a configuration of an artifact that has none.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// ORAS before OCI 1.1: a configuration of an artifact that has none.
pub const UNKNOWN_CONFIG: &str = "application/vnd.unknown.config.v1+json";
/// ORAS: the type of an artifact that was given none.
pub const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";
/// wkg and the CNCF's "Wasm OCI Artifact": the configuration.
pub const WKG_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// wkg and the CNCF's "Wasm OCI Artifact": a component or a module, as it is.
pub const WKG_LAYER: &str = "application/wasm";
/// wasm-to-oci: the configuration; oci-client's `WASM_CONFIG_MEDIA_TYPE`.
pub const WASM_TO_OCI_CONFIG: &str = "application/vnd.wasm.config.v1+json";
/// wasm-to-oci: a module, as it is; oci-client's `WASM_LAYER_MEDIA_TYPE`.
pub const WASM_TO_OCI_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// Whether a media type is that of an index of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Whether a media type is that of an image manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}
