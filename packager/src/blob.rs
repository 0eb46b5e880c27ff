//! Blobs and images as immutable views: where the bytes are is the source's business, what they are is the digest's.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::Descriptor;

use crate::digest::Digest;

/// Bytes that can be read more than once.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file, streamed on each use.
    File(PathBuf),
}

impl Content {
    /// Start reading from the beginning.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(Arc::clone(bytes))),
            Self::File(path) => Box::new(File::open(path)?),
        })
    }
}

/// A descriptor and the content it describes. The content is not trusted: whoever reads it checks it on the way.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Media type, digest, size, annotations.
    pub descriptor: Descriptor,
    /// The bytes.
    pub content: Content,
}

/// An image: one manifest and the blobs it names. The manifest's exact bytes are kept, since they are its identity.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest as stored.
    pub manifest: Arc<[u8]>,
    /// Its media type.
    pub media_type: String,
    /// The image configuration.
    pub config: Blob,
    /// Layers, first to last.
    pub layers: Vec<Blob>,
}

impl Image {
    /// The manifest's digest: what a reference pins.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
