//! A module on its way into a file.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// What is read at a time.
const BUFFER: usize = 64 << 10;

/// Writes what it is given, from the file's beginning each time, and tells its own failures from those of reading.
pub(crate) struct IntoFile<'f> {
    file: &'f mut File,
    hasher: Sha256,
    size: u64,
    failure: Option<io::Error>,
}

impl<'f> IntoFile<'f> {
    /// Into an empty file.
    pub(crate) fn new(file: &'f mut File) -> Self {
        Self { file, hasher: Sha256::new(), size: 0, failure: None }
    }

    pub(crate) fn take(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        if self.size > 0 {
            self.own(|file| file.set_len(0).and_then(|()| file.rewind()))?;
            (self.hasher, self.size) = (Sha256::new(), 0);
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.own(|file| file.write_all(&buffer[..read]))?;
            self.hasher.update(&buffer[..read]);
            self.size += read as u64;
        }
    }

    /// Remember what goes wrong here.
    fn own(&mut self, work: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        work(self.file).map_err(|error| {
            let told = io::Error::new(error.kind(), "the module cannot be written");
            self.failure.get_or_insert(error);
            told
        })
    }

    /// The digest and the size of what is in the file, unless writing it has failed.
    pub(crate) fn finish(self) -> io::Result<(Digest, u64)> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok((Digest::finish(self.hasher), self.size)),
        }
    }
}
