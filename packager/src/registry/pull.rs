//! Pulling: the manifest, then the blobs that it names, into files.

use std::path::Path;

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};

use crate::blob::{Blob, Image};
use crate::reference::ImageReference;

use super::manifests::{Document, Manifest};
use super::session::{Actions, Session};
use super::{Client, RegistryError, blobs, manifests};

/// No plugin image has that many; a manifest that does is there to keep us busy.
const LAYER_LIMIT: usize = 128;

impl Client {
    /// Pull an image; its blobs become files in `directory`, which has to outlive the image. An index is resolved to
    /// its linux/amd64 image, as Istio does, so that the image's digest is then another one than the reference's.
    pub fn pull(&self, reference: &ImageReference, directory: &Path) -> Result<Image, RegistryError> {
        let session = Session::open(self, reference, Actions::Pull)?;
        let manifest = manifests::manifest(&session, reference.identifier())?;
        pull(&session, manifest, directory)
    }

    /// Go on from a manifest or index that has been fetched.
    pub fn pull_manifest(
        &self,
        reference: &ImageReference,
        manifest: Manifest,
        directory: &Path,
    ) -> Result<Image, RegistryError> {
        pull(&Session::open(self, reference, Actions::Pull)?, manifest, directory)
    }
}

fn pull(session: &Session<'_>, manifest: Manifest, directory: &Path) -> Result<Image, RegistryError> {
    let reference = session.image;
    let unusable =
        |reason: &str| RegistryError::Manifest { reference: reference.to_string(), reason: reason.to_owned() };
    let Manifest { bytes, media_type, document, .. } = manifest;
    let (bytes, media_type, image) = match document {
        Document::Image(image) => (bytes, media_type, image),
        Document::Index(index) => {
            let child =
                platform(&index).ok_or_else(|| RegistryError::NoPlatform { reference: reference.to_string() })?;
            let digest = super::verified::digest_of(child).map_err(|reason| unusable(&reason))?;
            let child = manifests::manifest(session, digest.as_str())?;
            match child.document {
                Document::Image(image) => (child.bytes, child.media_type, image),
                Document::Index(_) => return Err(unusable("an index inside an index is not followed")),
            }
        }
    };
    check_size(session, &image)?;
    let fetch = |descriptor: &Descriptor| blobs::download(session, descriptor, directory);
    let config = fetch(image.config())?;
    let layers = image.layers().iter().map(fetch).collect::<Result<Vec<Blob>, _>>()?;
    Ok(Image { manifest: bytes, media_type, config, layers })
}

/// What go-containerregistry, and with it Istio, takes from an index.
fn platform(index: &ImageIndex) -> Option<&Descriptor> {
    index.manifests().iter().find(|descriptor| match descriptor.platform() {
        Some(platform) => *platform.os() == Os::Linux && *platform.architecture() == Arch::Amd64,
        None => true,
    })
}

fn check_size(session: &Session<'_>, image: &ImageManifest) -> Result<(), RegistryError> {
    let what = format!("the image {}", session.image);
    if image.layers().len() > LAYER_LIMIT {
        let reason = format!("{} layers are more than {LAYER_LIMIT}", image.layers().len());
        return Err(RegistryError::Manifest { reference: session.image.to_string(), reason });
    }
    let sizes = std::iter::once(image.config()).chain(image.layers()).map(Descriptor::size);
    let limit = session.client.options.image_limit;
    match sizes.fold(0_u64, u64::saturating_add) {
        size if size > limit => Err(RegistryError::TooLarge { what, limit }),
        _ => Ok(()),
    }
}
