//! The JSON documents of an image as they are written: their fields, in this order.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use serde::Serialize;

use crate::digest::Digest;

/// An image's manifest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<'a> {
    pub(super) schema_version: u8,
    pub(super) media_type: &'static str,
    pub(super) config: &'a Descriptor,
    pub(super) layers: Vec<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A container image's configuration.
#[derive(Serialize)]
pub(super) struct Configuration<'a> {
    created: &'a str,
    architecture: &'static str,
    os: &'static str,
    config: Container,
    rootfs: RootFs<'a>,
    history: [History<'a>; 1],
}

#[derive(Serialize)]
struct Container {
    #[serde(rename = "Labels", skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [&'a Digest; 1],
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'static str,
}

impl<'a> Configuration<'a> {
    /// The platform is what container tools expect of an image; the module itself runs on any.
    pub(super) fn new(diff_id: &'a Digest, created: &'a str, labels: BTreeMap<String, String>) -> Self {
        Self {
            created,
            architecture: "amd64",
            os: "linux",
            config: Container { labels },
            rootfs: RootFs { kind: "layers", diff_ids: [diff_id] },
            history: [History { created, created_by: "plugwright" }],
        }
    }
}
