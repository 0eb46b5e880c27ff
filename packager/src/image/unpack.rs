//! Layers of any kind unpacked: what is compressed how is seen from the bytes, and everything is bounded.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{ExtractError, MODULE_FILE};
use crate::blob::Blob;

/// What a layer may unpack to beyond the file that is looked for: tar's own headers, and small files before it.
pub(super) const SLACK: u64 = 2 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The largest window of a zstd frame: what zstd itself takes without being asked to take more.
const ZSTD_WINDOW: u64 = 128 << 20;

/// Read a layer through `work`, unpacked, at most `allowed` bytes of it; what is stored is verified to its end.
pub(super) fn through<T>(
    layer: &Blob,
    allowed: u64,
    work: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Result<T, ExtractError> {
    let digest = || layer.descriptor.digest().to_string();
    let mut reader = layer.open()?;
    let done = decoded(BufReader::new(&mut reader)).map(|decoded| {
        let mut bounded = Bounded::new(decoded, allowed);
        let done = work(&mut bounded);
        (done, bounded.hit)
    });
    let (done, hit) = match done {
        Ok((done, hit)) => (done, hit),
        Err(error) => (Err(error), false),
    };
    if hit {
        return Err(ExtractError::LayerTooLarge { file: MODULE_FILE, digest: digest(), limit: allowed });
    }
    // A damaged blob explains whatever went wrong in unpacking it.
    reader.finish()?;
    done.map_err(|source| ExtractError::Archive { digest: digest(), source })
}

/// Undo gzip or zstd, if the content starts so.
fn decoded<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(reader))
    } else if start.starts_with(ZSTD) {
        Box::new(Zstd::new(reader))
    } else {
        Box::new(reader)
    })
}

/// All frames of a zstd stream (RFC 8878, section 3), one after the other. Those to be skipped hold what container
/// tools say about the stream.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        Self { source, decoder, in_frame: false }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.in_frame && self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.in_frame && !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, strategy).map_err(io::Error::other)?;
                continue;
            }
            self.in_frame = false;
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => self.in_frame = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

/// The last element of a path, as Go's `filepath.Base` has it.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    &path[path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1)..]
}

/// Whether a file's name says that it is a module.
pub(super) fn is_wasm_name(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|end| end.eq_ignore_ascii_case("wasm"))
}

/// All of an entry, whose size is only a claim; an archive that is cut off is an error, and not a shorter file.
pub(super) fn whole(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    let size = entry.size();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Stops after so many bytes, and remembers having done so.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    pub(super) hit: bool,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, allowed: u64) -> Self {
        Self { inner, left: allowed, hit: false }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            self.hit = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "unpacks to more than is allowed"));
        };
        self.left = left;
        Ok(read)
    }
}
