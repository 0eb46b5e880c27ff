//! Pushing: blobs first, then the manifest that names them.

use crate::blob::{Blob, Image};
use crate::digest::Digest;
use crate::reference::ImageReference;

use super::session::{Actions, Session};
use super::{Client, RegistryError, manifests, parallel, upload};

impl Client {
    /// Push an image and give the digest of its manifest. Blobs that the registry has are not sent; those that this
    /// client has seen in another repository of the registry are mounted from there. A reference with a digest must
    /// name this very image; nothing is sent otherwise.
    pub fn push(&self, image: &Image, reference: &ImageReference) -> Result<Digest, RegistryError> {
        self.push_mounting(image, reference, None)
    }

    /// The same, and what `source`, another repository of the same registry, has is mounted from there (OCI distribution
    /// specification, "Mounting a blob from another repository"). What it does not have, or what may not be read from
    /// it, is uploaded.
    pub fn push_mounting(
        &self,
        image: &Image,
        reference: &ImageReference,
        source: Option<&str>,
    ) -> Result<Digest, RegistryError> {
        let actual = image.digest();
        if let Some(expected) = reference.digest().filter(|expected| **expected != actual) {
            let what = format!("the image for {reference}");
            return Err(RegistryError::DigestMismatch { what, expected: expected.clone(), actual });
        }
        let session = Session::open(self, reference, Actions::Push)?;
        blobs(&session, std::iter::once(&image.config).chain(&image.layers), source)?;
        manifests::put(&session, &image.media_type, &image.manifest)
    }
}

/// Upload blobs, several at a time.
pub(super) fn blobs<'a>(
    session: &Session<'_>,
    blobs: impl Iterator<Item = &'a Blob>,
    source: Option<&str>,
) -> Result<(), RegistryError> {
    let blobs = parallel::distinct(blobs, |blob| &blob.descriptor);
    parallel::each(&blobs, session.client.options.parallel, |blob| upload::upload(session, blob, source))
}
