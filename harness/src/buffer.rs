//! A body buffer: chunks kept as they came until a guest looks at them.

use bytes::{Bytes, BytesMut};

/// More than this cannot be put into one buffer by a guest.
pub(crate) const MAX_SIZE: usize = 64 << 20;
const MAX_CHUNKS: usize = 256;

/// Most bodies are one chunk, for which nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

/// Why [`Buffer::set`] refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SetError {
    /// The range starts inside the buffer, which Envoy does not support.
    Start,
    /// The buffer would exceed [`MAX_SIZE`].
    TooLarge,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.len == 0 {
            self.first = chunk;
            self.len = self.first.len();
            return;
        }
        self.len += chunk.len();
        self.rest.push(chunk);
        // A guest that appends single bytes must not cost the host an allocation for each.
        if self.rest.len() > MAX_CHUNKS {
            self.join();
        }
    }

    /// The content as one slice.
    pub(crate) fn contiguous(&mut self) -> Bytes {
        self.join();
        self.first.clone()
    }

    pub(crate) fn take(&mut self) -> Bytes {
        self.join();
        self.len = 0;
        std::mem::take(&mut self.first)
    }

    fn join(&mut self) {
        if self.rest.is_empty() {
            return;
        }
        let mut all = BytesMut::with_capacity(self.len);
        all.extend_from_slice(&self.first);
        for chunk in self.rest.drain(..) {
            all.extend_from_slice(&chunk);
        }
        self.first = all.freeze();
    }

    /// Writes `content` over `len` bytes from anywhere.
    pub(crate) fn splice(&mut self, start: usize, len: usize, content: &[u8]) -> Result<(), SetError> {
        let whole = self.contiguous();
        let start = start.min(whole.len());
        let after = start.saturating_add(len).min(whole.len());
        let (before, after) = (&whole[..start], &whole[after..]);
        if before.len() + content.len() + after.len() > MAX_SIZE {
            return Err(SetError::TooLarge);
        }
        *self = Self::default();
        self.push([before, content, after].concat().into());
        Ok(())
    }

    /// Writes `content` over `len` bytes from `start`, with the ranges Envoy supports: prepend, replace a prefix or
    /// everything, append.
    pub(crate) fn set(&mut self, start: usize, len: usize, content: &[u8]) -> Result<(), SetError> {
        if start > 0 && start < self.len {
            return Err(SetError::Start);
        }
        let kept = if start == 0 { self.len - len.min(self.len) } else { self.len };
        if kept + content.len() > MAX_SIZE {
            return Err(SetError::TooLarge);
        }
        let content = Bytes::copy_from_slice(content);
        if start > 0 || self.len == 0 {
            self.push(content);
            return Ok(());
        }
        let whole = self.take();
        self.push(content);
        self.push(whole.slice(len.min(whole.len())..));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start: usize, len: usize, expected: Option<&[u8]>) {
        let mut buffer = Buffer::default();
        buffer.push("abc".into());
        buffer.push("def".into());
        let result = buffer.set(start, len, b"XY");
        assert_eq!(result, expected.map(|_| ()).ok_or(SetError::Start));
        let content = expected.unwrap_or(b"abcdef");
        assert_eq!((buffer.contiguous().as_ref(), buffer.len()), (content, content.len()));
    }

    #[test]
    fn set_takes_the_ranges_envoy_takes() {
        check(0, 0, Some(b"XYabcdef"));
        check(0, 4, Some(b"XYef"));
        check(0, 6, Some(b"XY"));
        check(0, usize::MAX, Some(b"XY"));
        check(6, 0, Some(b"abcdefXY"));
        check(99, 7, Some(b"abcdefXY"));
        check(3, 1, None);
    }

    #[test]
    fn a_buffer_does_not_grow_without_bound() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.set(0, 0, &vec![0; MAX_SIZE]), Ok(()));
        assert_eq!(buffer.set(0, 0, b"x"), Err(SetError::TooLarge));
        assert_eq!(buffer.set(0, usize::MAX, b"x"), Ok(()));
    }
}
