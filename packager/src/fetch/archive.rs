//! What a web server gives: a module, gzipped or in a tar, unpacked as Istio's HTTP fetcher does.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};

use flate2::bufread::MultiGzDecoder;

use crate::module::WASM_MAGIC;

/// What is read of a gzip stream at a time.
const BUFFER: usize = 64 << 10;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// Istio unpacks as long as there is something to unpack, and does not end on a stream that unpacks to itself.
const DEPTH: usize = 8;

/// The module in a body: as it is, or out of gzip streams and tar archives in any order, of an archive its first entry
/// (`pkg/wasm/httpfetcher.go`). At most `limit` bytes at each step. All of them are files, and the one that is given is at
/// its beginning.
pub(super) fn unpack(mut body: File, limit: u64) -> Result<File, String> {
    for _ in 0..DEPTH {
        let start = start(&mut body).map_err(|error| unreadable(&error))?;
        body = if start.starts_with(WASM_MAGIC) {
            return Ok(body);
        } else if start.starts_with(GZIP_MAGIC) {
            let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, body));
            copy(decoder, limit).map_err(|reason| format!("the gzip stream {reason}"))?
        } else if start.get(257..262) == Some(b"ustar") {
            first_entry(&body, limit).map_err(|reason| format!("the tar archive {reason}"))?
        } else {
            return Ok(body);
        };
    }
    Err(format!("it is packed more than {DEPTH} times"))
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// What tells what a file is; it is at its beginning before and afterwards.
fn start(file: &mut File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.rewind()?;
    Read::by_ref(file).take(512).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

fn first_entry(archive: &File, limit: u64) -> Result<File, String> {
    let mut archive = tar::Archive::new(archive);
    let first = archive.entries().map_err(|error| unreadable(&error))?.next().ok_or("holds no file")?;
    let entry = first.map_err(|error| unreadable(&error))?;
    if !entry.header().entry_type().is_file() {
        let name = crate::registry::printable(&String::from_utf8_lossy(&entry.path_bytes()), 64);
        return Err(format!("begins with `{name}`, which is no file; Istio takes the first entry, whatever it is"));
    }
    let size = entry.size();
    let file = copy(entry, limit)?;
    // The archive's reader takes a file that is cut off for a shorter one.
    if file.metadata().map_err(|error| unreadable(&error))?.len() == size {
        Ok(file)
    } else {
        Err("is cut off".to_owned())
    }
}

fn copy(reader: impl Read, limit: u64) -> Result<File, String> {
    let mut file = tempfile::tempfile().map_err(|error| format!("has no place to be unpacked to: {error}"))?;
    let copied = io::copy(&mut reader.take(limit + 1), &mut file).map_err(|error| unreadable(&error))?;
    if copied > limit { Err(format!("unpacks to more than {limit} bytes")) } else { Ok(file) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn unpack(body: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(body).unwrap();
        let mut bytes = Vec::new();
        super::unpack(file, limit)?.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

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
        let twice = gzip(&gzip(MODULE));
        let bodies =
            [MODULE.to_vec(), gzip(MODULE), archive(MODULE), gzip(&archive(MODULE)), archive(&gzip(MODULE)), twice];
        for body in bodies {
            assert_eq!(unpack(&body, 10_000).unwrap(), MODULE);
        }
    }

    #[test]
    fn of_an_archive_only_the_first_entry_is_looked_at() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, "./", [].as_slice()).unwrap();
        let mut body = builder.into_inner().unwrap();
        body.truncate(512);
        body.extend(archive(MODULE));
        assert!(unpack(&body, 10_000).unwrap_err().contains("begins with `./`"));
    }

    #[test]
    fn what_unpacks_for_ever_is_given_up() {
        let mut body = MODULE.to_vec();
        for _ in 0..DEPTH {
            body = gzip(&body);
        }
        assert_eq!(unpack(&body, 10_000).unwrap_err(), "it is packed more than 8 times");
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        assert!(unpack(&gzip(&vec![0; 100_000]), 1000).unwrap_err().contains("more than 1000"));
        assert!(unpack(&gzip(MODULE)[..12], 1000).is_err());
        assert!(unpack(&archive(MODULE)[..515], 1000).is_err());
    }
}
