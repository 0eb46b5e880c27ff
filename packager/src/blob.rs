//! Blobs and images as immutable views: where the bytes are is the source's business, what they are is the digest's.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::Descriptor;
use sha2::{Digest as _, Sha256};

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

/// Content that is not what its descriptor says, or that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Reading failed.
    #[error("cannot read {place}")]
    Read {
        /// The file, or the digest of a blob in memory.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The content has another size.
    #[error("{place} has {} bytes; its descriptor says {expected}", longer(*.actual, *.expected))]
    Size {
        /// The file, or the digest of a blob in memory.
        place: String,
        /// The descriptor's size.
        expected: u64,
        /// How many bytes there were; one more than expected where reading stopped there.
        actual: u64,
    },
    /// The content has another digest.
    #[error("{place} is corrupt: expected {expected}, its content has {actual}")]
    Digest {
        /// The file, or the digest of a blob in memory.
        place: String,
        /// The descriptor's digest.
        expected: Digest,
        /// The content's.
        actual: Digest,
    },
    /// The descriptor's digest is not sha256.
    #[error("digest `{digest}` is not supported; only sha256 is")]
    Algorithm {
        /// The descriptor's digest.
        digest: String,
    },
    /// Larger than the reader wants to hold.
    #[error("{place} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The file, or the digest of a blob in memory.
        place: String,
        /// The descriptor's size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

fn longer(actual: u64, expected: u64) -> String {
    if actual > expected { format!("more than {expected}") } else { actual.to_string() }
}

/// A descriptor and the content it describes. The content is not trusted: whoever reads it checks it on the way.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Media type, digest, size, annotations.
    pub descriptor: Descriptor,
    /// The bytes.
    pub content: Content,
}

/// A descriptor's digest, which must be sha256.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest, BlobError> {
    let digest = descriptor.digest().to_string();
    digest.parse().map_err(|_| BlobError::Algorithm { digest })
}

/// The descriptor of some content.
#[expect(clippy::expect_used, reason = "a Digest is well-formed by construction")]
pub(crate) fn describe(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
    let digest: oci_spec::image::Digest = digest.as_str().parse().expect("well-formed");
    Descriptor::new(media_type.into(), size, digest)
}

impl Blob {
    /// Bytes in memory, described.
    pub fn from_bytes(media_type: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let descriptor = describe(media_type, &Digest::of(&bytes), bytes.len() as u64);
        Self { descriptor, content: Content::Bytes(bytes) }
    }

    /// The descriptor's digest.
    pub fn digest(&self) -> Result<Digest, BlobError> {
        digest_of(&self.descriptor)
    }

    /// Start reading; the reader fails at the end, or before, where the content is not what the descriptor says.
    pub fn open(&self) -> Result<BlobReader, BlobError> {
        let expected = self.digest()?;
        let place = match &self.content {
            Content::Bytes(_) => format!("blob {expected}"),
            Content::File(path) => format!("blob file `{}`", path.display()),
        };
        match self.content.open() {
            Ok(reader) => Ok(BlobReader {
                reader,
                place,
                expected,
                size: self.descriptor.size(),
                hasher: Some(Sha256::new()),
                read: 0,
                failure: None,
            }),
            Err(source) => Err(BlobError::Read { place, source }),
        }
    }

    /// Read all of it, if it has at most `limit` bytes, and verify it.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, BlobError> {
        let mut reader = self.open()?;
        let size = self.descriptor.size();
        if size > limit {
            return Err(BlobError::TooLarge { place: reader.place, size, limit });
        }
        let mut bytes = Vec::new();
        // Its failure is kept and reported by `finish`.
        let _ = reader.read_to_end(&mut bytes);
        reader.finish().map(|()| bytes)
    }
}

/// Reads a [`Blob`] and verifies size and digest on the way.
pub struct BlobReader {
    reader: Box<dyn Read + Send>,
    place: String,
    expected: Digest,
    size: u64,
    /// `None` once the end has been verified.
    hasher: Option<Sha256>,
    read: u64,
    failure: Option<BlobError>,
}

impl BlobReader {
    /// Read the rest, if any, and say whether the whole was what the descriptor says.
    pub fn finish(mut self) -> Result<(), BlobError> {
        let _ = io::copy(&mut self, &mut io::sink());
        self.failure.map_or(Ok(()), Err)
    }

    fn fail(&mut self, failure: BlobError) -> io::Error {
        let message = failure.to_string();
        self.failure.get_or_insert(failure);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::new(io::ErrorKind::InvalidData, failure.to_string()));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = match self.reader.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(source) => {
                let place = self.place.clone();
                return Err(self.fail(BlobError::Read { place, source }));
            }
        };
        self.read += read as u64;
        if self.read > self.size || (read == 0 && self.read < self.size) {
            let (place, expected, actual) = (self.place.clone(), self.size, self.read.min(self.size.saturating_add(1)));
            return Err(self.fail(BlobError::Size { place, expected, actual }));
        }
        if read > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..read]);
            }
        } else if let Some(hasher) = self.hasher.take() {
            let actual = Digest::finish(hasher);
            if actual != self.expected {
                let (place, expected) = (self.place.clone(), self.expected.clone());
                return Err(self.fail(BlobError::Digest { place, expected, actual }));
            }
        }
        Ok(read)
    }
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

#[cfg(test)]
mod tests {
    use oci_spec::image::MediaType;

    use super::*;

    fn blob(content: &[u8], size: u64, digest: &[u8]) -> Blob {
        let digest: oci_spec::image::Digest = Digest::of(digest).as_str().parse().unwrap();
        Blob {
            descriptor: Descriptor::new(MediaType::ImageLayer, size, digest),
            content: Content::Bytes(content.into()),
        }
    }

    #[test]
    fn content_that_is_not_what_the_descriptor_says_is_refused() {
        assert_eq!(blob(b"abc", 3, b"abc").read(3).unwrap(), b"abc");
        assert!(matches!(blob(b"abc", 3, b"abc").read(2), Err(BlobError::TooLarge { size: 3, limit: 2, .. })));
        assert!(matches!(blob(b"abc", 4, b"abc").read(9), Err(BlobError::Size { expected: 4, actual: 3, .. })));
        assert!(matches!(blob(b"abc", 2, b"abc").read(9), Err(BlobError::Size { expected: 2, actual: 3, .. })));
        assert!(matches!(blob(b"abd", 3, b"abc").read(9), Err(BlobError::Digest { .. })));
        let missing = Blob { content: Content::File("/nowhere".into()), ..blob(b"", 0, b"") };
        assert!(matches!(missing.read(9), Err(BlobError::Read { .. })));
    }

    #[test]
    fn a_reader_that_stops_early_still_verifies_the_rest() {
        let mut reader = blob(b"abcd", 4, b"abcx").open().unwrap();
        reader.read_exact(&mut [0; 2]).unwrap();
        assert!(matches!(reader.finish(), Err(BlobError::Digest { .. })));
    }
}
