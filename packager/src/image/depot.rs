//! Where the blobs of an image are made: in memory, or in a folder under their digests.

use std::io::{self, Write};
use std::path::Path;

use crate::blob::{Blob, Content, describe};
use crate::digest::Hashing;

/// A place for blobs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Depot<'a> {
    Memory,
    /// Files get their names once they are whole. They are not flushed to the disk.
    Folder(&'a Path),
}

impl Depot<'_> {
    /// Make a blob of what `fill` writes; what it gives comes with it.
    pub(super) fn blob<T, E: From<io::Error>>(
        self,
        media_type: &str,
        fill: impl FnOnce(&mut (dyn Write + Send)) -> Result<T, E>,
    ) -> Result<(Blob, T), E> {
        match self {
            Self::Memory => {
                let mut bytes = Vec::new();
                let given = fill(&mut bytes)?;
                Ok((Blob::from_bytes(media_type, bytes), given))
            }
            Self::Folder(folder) => {
                let mut hashing = Hashing::new(crate::file::temporary(folder)?);
                let given = fill(&mut hashing)?;
                let (digest, size, temporary) = hashing.finish();
                let path = folder.join(digest.hex());
                temporary.persist(&path).map_err(|error| error.error)?;
                let content = Content::File(path);
                Ok((Blob { descriptor: describe(media_type, &digest, size), content }, given))
            }
        }
    }
}
