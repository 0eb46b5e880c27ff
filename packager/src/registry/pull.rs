//! Pulling: the manifest, then the blobs that it names, into files.

use std::path::Path;

use oci_spec::image::Descriptor;

use crate::blob::{Content, Image};
use crate::digest::Digest;
use crate::reference::ImageReference;

use super::manifests::{Manifest, unusable};
use super::session::{Actions, Session};
use super::{Client, RegistryError, blobs, manifests, parallel};

/// No plugin image has that many; a manifest that does is there to keep us busy.
const LAYER_LIMIT: usize = 128;

impl Client {
    /// Pull an image; its blobs become files in `directory`, which has to outlive the image. A blob that has a file there
    /// is not fetched; files have been checked, and are not flushed to the disk. An index is resolved to
    /// its linux/amd64 image, as Istio does, so that the image's digest is then another one than the reference's.
    pub fn pull(&self, reference: &ImageReference, directory: &Path) -> Result<Image, RegistryError> {
        self.pull_missing(reference, directory, &|_, _| false)
    }

    /// The same, but each blob is asked for from `provide` first: whether it has put it, checked, at the path.
    pub fn pull_missing(
        &self,
        reference: &ImageReference,
        directory: &Path,
        provide: &(dyn Fn(&Descriptor, &Path) -> bool + Sync),
    ) -> Result<Image, RegistryError> {
        let session = Session::open(self, reference, Actions::Pull)?;
        let manifest = manifests::manifest(&session, reference.identifier())?;
        pull(&session, manifest, directory, provide)
    }

    /// The manifest of the image that Istio takes from an index: that of linux/amd64.
    pub fn platform_manifest(&self, reference: &ImageReference, index: &Manifest) -> Result<Manifest, RegistryError> {
        child(&Session::open(self, reference, Actions::Pull)?, index)
    }

    /// Go on from a manifest or index that has been fetched.
    pub fn pull_manifest(
        &self,
        reference: &ImageReference,
        manifest: Manifest,
        directory: &Path,
    ) -> Result<Image, RegistryError> {
        pull(&Session::open(self, reference, Actions::Pull)?, manifest, directory, &|_, _| false)
    }
}

fn pull(
    session: &Session<'_>,
    manifest: Manifest,
    directory: &Path,
    provide: &(dyn Fn(&Descriptor, &Path) -> bool + Sync),
) -> Result<Image, RegistryError> {
    let reference = session.image;
    let manifest = if manifest.is_index() { child(session, &manifest)? } else { manifest };
    let image = manifest
        .image(|digest: &Digest| Content::File(directory.join(digest.hex())))
        .map_err(|error| unusable(reference, &error))?;
    check_size(session, &image)?;
    let blobs = std::iter::once(&image.config).chain(&image.layers);
    let blobs = parallel::distinct(blobs.map(|blob| &blob.descriptor), |descriptor| descriptor);
    parallel::each(&blobs, session.client.options.parallel, |descriptor| {
        blobs::download(session, descriptor, directory, provide)
    })?;
    Ok(image)
}

fn child(session: &Session<'_>, index: &Manifest) -> Result<Manifest, RegistryError> {
    let reference = session.image;
    let found = index.platform().map_err(|error| unusable(reference, &error))?;
    let child = found.ok_or_else(|| RegistryError::NoPlatform { reference: reference.to_string() })?;
    let digest = crate::blob::digest_of(&child).map_err(|error| unusable(reference, &error.into()))?;
    let child = manifests::manifest(session, digest.as_str())?;
    if child.is_index() {
        let reason = "an index inside an index is not followed".to_owned();
        return Err(RegistryError::Manifest { reference: reference.to_string(), reason });
    }
    Ok(child)
}

fn check_size(session: &Session<'_>, image: &Image) -> Result<(), RegistryError> {
    let layers = image.layers.len();
    if layers > LAYER_LIMIT {
        let reason = format!("{layers} layers are more than {LAYER_LIMIT}");
        return Err(RegistryError::Manifest { reference: session.image.to_string(), reason });
    }
    let descriptors = std::iter::once(&image.config).chain(&image.layers).map(|blob| &blob.descriptor);
    let limit = session.client.options.image_limit;
    match descriptors.map(Descriptor::size).fold(0_u64, u64::saturating_add) {
        size if size > limit => Err(RegistryError::TooLarge { what: format!("the image {}", session.image), limit }),
        _ => Ok(()),
    }
}
