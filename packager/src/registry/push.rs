//! Pushing: blobs first, then the manifest that names them.

use crate::blob::Image;
use crate::digest::Digest;
use crate::reference::ImageReference;

use super::session::{Actions, Session};
use super::{Client, RegistryError, blobs, manifests};

impl Client {
    /// Push an image and give the digest of its manifest. Blobs that the registry has are not sent. A reference with a
    /// digest must name this very image; nothing is sent otherwise.
    pub fn push(&self, image: &Image, reference: &ImageReference) -> Result<Digest, RegistryError> {
        let actual = image.digest();
        if let Some(expected) = reference.digest().filter(|expected| **expected != actual) {
            let what = format!("the image for {reference}");
            return Err(RegistryError::DigestMismatch { what, expected: expected.clone(), actual });
        }
        let session = Session::open(self, reference, Actions::Push)?;
        for blob in std::iter::once(&image.config).chain(&image.layers) {
            blobs::upload(&session, blob)?;
        }
        manifests::put(&session, &image.media_type, &image.manifest)
    }
}
