//! Where a module's bytes are.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::MAX_MODULE_SIZE;
use super::window::Input;

/// A module's bytes, or the file that they are in, which is read as often as it is needed.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file.
    File(&'a Path),
}

/// Tells whether what was looked at of a module is still what it was: not for ever, nor against anybody, but while it is
/// packaged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checksum {
    crc: u32,
    size: u64,
    /// What was not looked at, in order.
    skipped: Vec<Range<u64>>,
}

impl Checksum {
    pub(super) fn new(crc: &Crc, size: u64, skipped: Vec<Range<u64>>) -> Self {
        Self { crc: crc.sum(), size, skipped }
    }

    /// Of the whole, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// To compare with a module that is read from beginning to end.
    pub(crate) fn again(&self) -> Again<'_> {
        Again { expected: self, crc: Crc::new(), position: 0, skipped: &self.skipped }
    }
}

/// A module that is read once more, compared with its [`Checksum`].
pub(crate) struct Again<'a> {
    expected: &'a Checksum,
    crc: Crc,
    position: u64,
    /// What lies ahead of those.
    skipped: &'a [Range<u64>],
}

impl Again<'_> {
    /// Some bytes come next; false where there are more than there were.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let (end, counts) = match self.skipped.first() {
                Some(range) if self.position >= range.end => {
                    self.skipped = &self.skipped[1..];
                    continue;
                }
                Some(range) if self.position >= range.start => (range.end, false),
                Some(range) => (range.start, true),
                None => (u64::MAX, true),
            };
            let here = usize::try_from(end - self.position).unwrap_or(usize::MAX).min(bytes.len());
            if counts {
                self.crc.update(&bytes[..here]);
            }
            self.position += here as u64;
            bytes = &bytes[here..];
        }
        self.position <= self.expected.size
    }

    /// Whether it is what it was.
    pub(crate) fn is_same(&self) -> bool {
        self.position == self.expected.size && self.crc.sum() == self.expected.crc
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Source<'a> {
    fn from(bytes: &'a T) -> Self {
        Self::Bytes(bytes.as_ref())
    }
}

impl<'a> Source<'a> {
    /// Start reading, and say how many bytes there are. A file is refused before it is read where it is none, or larger
    /// than [`MAX_MODULE_SIZE`].
    pub(crate) fn open(self) -> Result<(Box<dyn Input + 'a>, u64), ReadError> {
        Ok(match self {
            Self::Bytes(bytes) => (Box::new(Cursor::new(bytes)), bytes.len() as u64),
            Self::File(path) => {
                let (file, size) = open(path)?;
                (Box::new(file), size)
            }
        })
    }

    /// What reading has failed with, once it had begun.
    pub(crate) fn failed(self, source: std::io::Error) -> ReadError {
        ReadError::Read { path: self.path(), source }
    }

    /// It is not what it was when it was read before.
    pub(crate) fn changed(self) -> ReadError {
        ReadError::Changed { path: self.path() }
    }

    fn path(self) -> PathBuf {
        match self {
            Self::Bytes(_) => PathBuf::from("memory"),
            Self::File(path) => path.to_owned(),
        }
    }
}

/// A module's file that cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read module `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("cannot read module `{}`: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It was read twice, and was not the same.
    #[error("module `{}` was changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Larger than Istio accepts.
    #[error("module `{}` has {size} bytes; Istio loads at most {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl ReadError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("build it first, or name the file that the build makes")
            }
            Self::TooLarge { .. } => Some("strip the module and build it with optimisations"),
            Self::Changed { .. } => Some("do it again once nobody writes to the file"),
            Self::Read { .. } | Self::NotAFile { .. } => None,
        }
    }
}

/// Read a module's file, unless it is larger than [`MAX_MODULE_SIZE`]: such a file is refused before it is read.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let (file, size) = open(path)?;
    // The file may grow while it is read.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(MAX_MODULE_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        size if size > MAX_MODULE_SIZE => {
            Err(ReadError::TooLarge { path: path.to_owned(), size, limit: MAX_MODULE_SIZE })
        }
        _ => Ok(bytes),
    }
}

/// Open a module's file; gives its size too. Devices and pipes are not even opened.
fn open(path: &Path) -> Result<(File, u64), ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > MAX_MODULE_SIZE {
        return Err(ReadError::TooLarge { path: path.to_owned(), size: metadata.len(), limit: MAX_MODULE_SIZE });
    }
    Ok((File::open(path).map_err(failed)?, metadata.len()))
}
