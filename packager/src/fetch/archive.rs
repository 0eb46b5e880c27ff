//! What a web server gives: a module, gzipped or in a tar, as Istio's HTTP fetcher unpacks it.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use crate::module::WASM_MAGIC;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// The module in a body: as it is, out of gzip, or the first file of a tar; at most `limit` bytes at each step.
pub(super) fn unpack(body: Vec<u8>, limit: u64) -> Result<Vec<u8>, String> {
    let body = if body.starts_with(GZIP_MAGIC) {
        read(MultiGzDecoder::new(body.as_slice()), limit).map_err(|reason| format!("the gzip stream {reason}"))?
    } else {
        body
    };
    let is_tar = body.get(257..262) == Some(b"ustar");
    if body.starts_with(WASM_MAGIC) || !is_tar {
        return Ok(body);
    }
    let mut archive = tar::Archive::new(body.as_slice());
    for entry in archive.entries().map_err(|error| format!("the tar archive cannot be read: {error}"))? {
        let entry = entry.map_err(|error| format!("the tar archive cannot be read: {error}"))?;
        if entry.header().entry_type().is_file() {
            let size = entry.size();
            let bytes = read(entry, limit).map_err(|reason| format!("the tar archive {reason}"))?;
            // The archive's reader takes a file that is cut off for a shorter one.
            let whole = bytes.len() as u64 == size;
            return if whole { Ok(bytes) } else { Err("the tar archive is cut off".to_owned()) };
        }
    }
    Err("the tar archive holds no file".to_owned())
}

fn read(reader: impl Read, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > limit { Err(format!("unpacks to more than {limit} bytes")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn archive(bytes: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "any/name.wasm", bytes).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn modules_come_plain_gzipped_and_in_a_tar() {
        for body in [MODULE.to_vec(), gzip(MODULE), archive(MODULE), gzip(&archive(MODULE))] {
            assert_eq!(unpack(body, 10_000).unwrap(), MODULE);
        }
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        assert!(unpack(gzip(&vec![0; 100_000]), 1000).unwrap_err().contains("more than 1000"));
        assert!(unpack(gzip(MODULE)[..12].to_vec(), 1000).is_err());
        assert!(unpack(archive(MODULE)[..515].to_vec(), 1000).is_err());
    }
}
