//! Layers as they are written: a canonical tar, compressed by gzip.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// On an 88 kB module, 6 takes 1 ms; 9 takes 3.6 ms and saves 1.5 %. On 64 MiB of machine code: 0.8 s, and 1.8 s for 4.5 %.
const GZIP_LEVEL: u32 = 6;

/// The compressed layer, and the digest of the tar within: the configuration's `diff_id`.
pub(super) fn layer(files: &[(&str, &[u8])], mtime: u64) -> io::Result<(Vec<u8>, Digest)> {
    // With the operating system "unknown", no name and no time the header is the same everywhere.
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(GZIP_LEVEL));
    let mut archive = tar::Builder::new(Hashing { inner: gzip, hasher: Sha256::new() });
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        archive.append(&header, *content)?;
    }
    let Hashing { inner, hasher } = archive.into_inner()?;
    Ok((inner.finish()?, Digest::finish(hasher)))
}

struct Hashing<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
