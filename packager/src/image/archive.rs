//! Layers as they are written: a canonical tar, compressed by gzip.

use std::io::{self, Read as _, Write};

use super::checked::{CheckedModule, CopyError};
use super::gzip;
use crate::digest::{Digest, Hashing};

/// Tar's unit (POSIX, "ustar Interchange Format").
const RECORD: usize = 512;

/// A file of a layer.
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    Module(&'a CheckedModule<'a>),
}

impl Content<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Module(module) => module.size(),
        }
    }

    fn copy_to(&self, sink: &mut dyn Write) -> Result<(), CopyError> {
        match self {
            Self::Bytes(bytes) => Ok(sink.write_all(bytes)?),
            Self::Module(module) => module.copy_to(sink),
        }
    }
}

/// Write a compressed layer. Gives the digest of the tar within: the configuration's `diff_id`.
pub(super) fn layer(
    sink: &mut (dyn Write + Send),
    files: &[(&str, Content<'_>)],
    mtime: u64,
) -> Result<Digest, CopyError> {
    let size = files.iter().map(|(_, content)| content.size()).sum();
    gzip::compress(size, sink, |gzip| {
        let mut tar = Hashing::new(gzip);
        for (name, content) in files {
            tar.write_all(header(name, content.size(), mtime)?.as_bytes())?;
            content.copy_to(&mut tar)?;
            let over = content.size() % RECORD as u64;
            if over > 0 {
                io::copy(&mut io::repeat(0).take(RECORD as u64 - over), &mut tar)?;
            }
        }
        tar.write_all(&[0; 2 * RECORD])?;
        Ok(tar.finish().0)
    })
}

fn header(name: &str, size: u64, mtime: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}
