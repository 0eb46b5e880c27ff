//! Size and digest, checked while content streams by.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, SyncSender};

use sha2::{Digest as _, Sha256};

use crate::blob::{Blob, digest_of};
use crate::digest::Digest;

use super::{Progress, RegistryError};

/// What is read at a time: enough that neither the system nor the hash is kept waiting.
pub(super) const BUFFER: usize = 128 * 1024;

const BUFFERS: usize = 4;

/// Content against its descriptor, as far as it has been seen.
#[derive(Clone)]
pub(super) struct Check {
    hasher: Sha256,
    expected: Digest,
    size: u64,
    seen: u64,
}

/// Hands buffers to a check on another thread, and gets them back.
pub(super) struct Feeder {
    full: SyncSender<(Vec<u8>, usize)>,
    empty: Receiver<Vec<u8>>,
}

impl Feeder {
    /// A buffer to fill; nothing once the check has found something wrong.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.empty.recv().ok()
    }

    /// The first `size` bytes of a buffer come next.
    pub(super) fn give(&self, buffer: Vec<u8>, size: usize) {
        let _ = self.full.send((buffer, size));
    }
}

/// How content differs from its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mismatch {
    Size { expected: u64, actual: u64 },
    Digest { expected: Digest, actual: Digest },
}

impl Mismatch {
    pub(super) fn into_error(self, what: String) -> RegistryError {
        match self {
            Self::Size { expected, actual } => RegistryError::SizeMismatch { what, expected, actual },
            Self::Digest { expected, actual } => RegistryError::DigestMismatch { what, expected, actual },
        }
    }
}

impl Check {
    pub(super) fn new(expected: Digest, size: u64) -> Self {
        Self { hasher: Sha256::new(), expected, size, seen: 0 }
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err(Mismatch::Size { expected: self.size, actual: self.seen });
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Run `work` and check what it feeds beside it, on another thread: hashing takes as long as all the rest. Gives what
    /// the work came to, and what the check found; all that was fed has been checked.
    pub(super) fn beside<T>(&mut self, work: impl FnOnce(&Feeder) -> T) -> (T, Result<(), Mismatch>) {
        let (full, filled) = mpsc::sync_channel(BUFFERS);
        let (back, empty) = mpsc::channel();
        for _ in 0..BUFFERS {
            let _ = back.send(vec![0; BUFFER]);
        }
        let feeder = Feeder { full, empty };
        let check = self;
        std::thread::scope(move |scope| {
            let checking = scope.spawn(move || {
                for (buffer, size) in filled {
                    let buffer: Vec<u8> = buffer;
                    check.feed(&buffer[..size])?;
                    // Nobody takes it any more once the work is done.
                    let _ = back.send(buffer);
                }
                Ok(())
            });
            let outcome = work(&feeder);
            drop(feeder);
            let checked = checking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (outcome, checked)
        })
    }

    pub(super) fn finish(self) -> Result<(), Mismatch> {
        if self.seen != self.size {
            return Err(Mismatch::Size { expected: self.size, actual: self.seen });
        }
        let actual = Digest::finish(self.hasher);
        if actual == self.expected { Ok(()) } else { Err(Mismatch::Digest { expected: self.expected, actual }) }
    }
}

/// Why an upload was given up on this side.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("the blob is not what its descriptor says")]
    Mismatch(Mismatch),
    #[error("the blob cannot be read")]
    Read(io::Error),
}

impl From<Unsent> for io::Error {
    fn from(unsent: Unsent) -> Self {
        Self::other(unsent)
    }
}

/// A blob on its way out. Its last bytes are held back until they are known to be right.
pub(super) struct Upload<'a> {
    blob: &'a Blob,
    content: Box<dyn Read + Send>,
    check: Check,
    digest: Digest,
    progress: &'a dyn Progress,
}

impl<'a> Upload<'a> {
    /// Start at a position. What is before it is read and checked as well.
    pub(super) fn open(blob: &'a Blob, position: u64, progress: &'a dyn Progress) -> Result<Self, RegistryError> {
        let action = format!("read blob {}", blob.descriptor.digest());
        let local = |source| RegistryError::Local { action: action.clone(), source };
        let digest = digest_of(&blob.descriptor).map_err(|error| local(io::Error::other(error)))?;
        let content = blob.content.open().map_err(local)?;
        let mut check = Check::new(digest.clone(), blob.descriptor.size());
        let mut before = content.take(position);
        let mut buffer = vec![0; if position == 0 { 0 } else { BUFFER }];
        while check.seen() < position {
            let read = match before.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(local)?,
            };
            if read == 0 {
                let (expected, actual) = (blob.descriptor.size(), check.seen());
                return Err(Mismatch::Size { expected, actual }.into_error(format!("local blob {digest}")));
            }
            let fed = check.feed(&buffer[..read]);
            fed.map_err(|mismatch| mismatch.into_error(format!("local blob {digest}")))?;
        }
        Ok(Self { blob, content: before.into_inner(), check, digest, progress })
    }

    /// Go on from there, which is where reading stopped unless something went wrong.
    pub(super) fn seek(&mut self, position: u64) -> Result<(), RegistryError> {
        if self.check.seen() != position {
            *self = Self::open(self.blob, position, self.progress)?;
        }
        Ok(())
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer).map_err(Unsent::Read)?;
        self.check.feed(&buffer[..read]).map_err(Unsent::Mismatch)?;
        if read == 0 || self.check.seen() == self.check.size {
            self.check.clone().finish().map_err(Unsent::Mismatch)?;
        }
        self.progress.advance(&self.digest, read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_right_shorter_longer_or_other() {
        let check = |bytes: &[u8]| {
            let mut check = Check::new(Digest::of(b"abc"), 3);
            check.feed(bytes)?;
            check.finish()
        };
        assert_eq!(check(b"abc"), Ok(()));
        assert_eq!(check(b"ab"), Err(Mismatch::Size { expected: 3, actual: 2 }));
        assert_eq!(check(b"abcd"), Err(Mismatch::Size { expected: 3, actual: 4 }));
        let (expected, actual) = (Digest::of(b"abc"), Digest::of(b"abd"));
        assert_eq!(check(b"abd"), Err(Mismatch::Digest { expected, actual }));
    }

    #[test]
    fn the_last_bytes_of_a_wrong_blob_are_never_sent() {
        let descriptor = oci_spec::image::Descriptor::new(
            oci_spec::image::MediaType::ImageLayer,
            3,
            Digest::of(b"abc").as_str().parse::<oci_spec::image::Digest>().unwrap(),
        );
        for wrong in [&b"abd"[..], b"ab", b""] {
            let content = crate::blob::Content::Bytes(wrong.into());
            let blob = Blob { descriptor: descriptor.clone(), content };
            let mut upload = Upload::open(&blob, 0, &()).unwrap();
            let mut sent = Vec::new();
            let mut byte = [0];
            while let Ok(1) = upload.read(&mut byte) {
                sent.push(byte[0]);
            }
            assert!(sent.len() < 3, "{wrong:?}: {sent:?}");
        }
    }

    #[test]
    fn a_part_of_a_blob_is_checked_with_what_is_before_it() {
        let blob = Blob::from_bytes("x", b"abcdef".as_slice());
        let mut upload = Upload::open(&blob, 2, &()).unwrap();
        let mut part = [0; 2];
        upload.read_exact(&mut part).unwrap();
        assert_eq!(&part, b"cd");
        upload.seek(3).unwrap();
        let mut rest = Vec::new();
        upload.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"def");
        let spoilt = Blob { content: crate::blob::Content::Bytes(b"xbcdef".as_slice().into()), ..blob };
        assert!(Upload::open(&spoilt, 2, &()).unwrap().read_to_end(&mut rest).is_err());
        assert!(matches!(Upload::open(&spoilt, 7, &()), Err(RegistryError::SizeMismatch { .. })));
    }
}
