//! The part of a file that is looked at, which moves forward.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use flate2::Crc;

use super::source::Checksum;

/// What is read at a time, at most.
const STEP: usize = 128 << 10;

/// What a module is read from.
pub(crate) trait Input: Read + Seek {}
impl<T: Read + Seek> Input for T {}

/// A file, some of which is at hand.
pub(super) struct Window<'r> {
    source: &'r mut dyn Input,
    size: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    consumed: u64,
    crc: Crc,
    skipped: Vec<Range<u64>>,
}

impl<'r> Window<'r> {
    /// At the beginning of a file of so many bytes.
    pub(super) fn new(source: &'r mut dyn Input, size: u64) -> Self {
        let (buffer, crc, skipped) = (vec![0; 2 * STEP], Crc::new(), Vec::new());
        Self { source, size, buffer, start: 0, end: 0, at_end: false, consumed: 0, crc, skipped }
    }

    /// What is at hand.
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether nothing comes after that.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// How many bytes are behind.
    pub(super) fn position(&self) -> u64 {
        self.consumed
    }

    /// What was looked at.
    pub(super) fn checksum(self) -> Checksum {
        Checksum::new(&self.crc, self.size, self.skipped)
    }

    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.consumed += count as u64;
    }

    /// Have at least so many bytes at hand, or all that there are.
    pub(super) fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.end - self.start < wanted && !self.at_end {
            if self.buffer.len() - self.end < STEP {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                if self.buffer.len() - self.end < STEP {
                    // By what has come, not by what is wanted: that is only a claim.
                    self.buffer.resize(self.buffer.len() * 2, 0);
                }
            }
            let into = &mut self.buffer[self.end..];
            let into = &mut into[..STEP];
            match self.source.read(into) {
                Ok(0) => self.at_end = true,
                Ok(read) => {
                    self.crc.update(&into[..read]);
                    self.end += read;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Go past so many bytes without reading those that are not at hand; false where there are fewer.
    pub(super) fn skip(&mut self, count: usize) -> io::Result<bool> {
        let here = count.min(self.end - self.start);
        self.consume(here);
        let (from, left) = (self.consumed, (count - here) as u64);
        if left == 0 {
            return Ok(true);
        }
        let to = from.saturating_add(left).min(self.size);
        self.source.seek(SeekFrom::Start(to))?;
        self.skipped.push(from..to);
        self.consumed = to;
        Ok(to - from == left)
    }
}
