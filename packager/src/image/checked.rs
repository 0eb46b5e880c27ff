//! A module that has been checked, and can be read again as long as it stays what it was.

use std::io::{self, Write};

use super::AssembleError;
use crate::module::{self, AbiVersion, Checksum, EnvoyVersion, ReadError, Source};

/// What is read at a time.
const BUFFER: usize = 128 << 10;

/// A module that [`module::check`] has nothing against.
#[derive(Debug, Clone)]
pub struct CheckedModule<'a> {
    source: Source<'a>,
    checksum: Checksum,
    pub(super) abi: AbiVersion,
}

/// Why a module was not copied.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(ReadError),
    Write(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl<'a> CheckedModule<'a> {
    /// Check the module of the plugin `name` against `envoy`. A file is not taken into memory as a whole.
    pub fn new(name: &str, source: impl Into<Source<'a>>, envoy: EnvoyVersion) -> Result<Self, AssembleError> {
        let source = source.into();
        let (report, checksum) = module::check_source(source, envoy)?;
        match report.info.as_ref().and_then(|info| info.abi).filter(|_| report.is_ok()) {
            Some(abi) => Ok(Self { source, checksum, abi }),
            None => Err(AssembleError::Refused { name: name.to_owned(), report: Box::new(report) }),
        }
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.checksum.size()
    }

    /// Write all of it. A file that is not what was checked is an error, which comes after what was written of it.
    pub(super) fn copy_to(&self, sink: &mut dyn Write) -> Result<(), CopyError> {
        let changed = || CopyError::Read(self.source.changed());
        let (mut reader, size) = self.source.open().map_err(CopyError::Read)?;
        if size != self.size() {
            return Err(changed());
        }
        let mut again = self.checksum.again();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(self.source.failed(error))),
            };
            if !again.feed(&buffer[..read]) {
                return Err(changed());
            }
            sink.write_all(&buffer[..read])?;
        }
        if again.is_same() { Ok(()) } else { Err(changed()) }
    }
}
