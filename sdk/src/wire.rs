//! How header maps travel between host and module: count, lengths, then NUL-terminated names and values.

/// The fields of a serialized map, without copies. Ends early where the bytes are malformed.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    lengths: &'a [u8],
    text: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads the count; none when there are not that many lengths. No bytes are an empty map.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self { lengths: &[], text: &[] });
        }
        let (count, rest) = read_u32(bytes)?;
        let (lengths, text) = rest.split_at_checked(count.checked_mul(8)?)?;
        Some(Self { lengths, text })
    }

    /// How many fields there are, if they are well-formed.
    pub(crate) fn left(&self) -> usize {
        self.lengths.len() / 8
    }

    fn take(&mut self) -> Option<&'a [u8]> {
        let (length, lengths) = read_u32(self.lengths)?;
        let (field, rest) = self.text.split_at_checked(length)?;
        let (0, rest) = rest.split_first()? else { return None };
        (self.lengths, self.text) = (lengths, rest);
        Some(field)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    // A module has it once.
    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.take()?, self.take()?))
    }
}

/// Writes a map as the host reads it.
pub(crate) fn write<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |length: usize| bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    push(headers.len());
    for (name, value) in headers {
        push(name.as_ref().len());
        push(value.as_ref().len());
    }
    for (name, value) in headers {
        for text in [name.as_ref(), value.as_ref()] {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
    }
    bytes
}

fn read_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*head)).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::HeaderMap;
    use crate::host::Header;

    fn read(bytes: &[u8]) -> Option<Vec<Header>> {
        HeaderMap::read(bytes.to_vec()).map(|map| map.to_vec())
    }

    #[test]
    fn a_map_survives_the_way_there_and_back() {
        let headers = [(":path", "/"), ("x", ""), ("x", "é")];
        let expected: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        assert_eq!(read(&write(&headers)), Some(expected));
    }

    #[test]
    fn the_bytes_are_those_of_the_abi() {
        assert_eq!(write(&[("a", "bc")]), b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0bc\0");
        assert_eq!(write::<&str, &str>(&[]), b"\0\0\0\0");
        assert_eq!(read(b""), Some(vec![]));
        assert_eq!(read(b"\0\0\0\0"), Some(vec![]));
    }

    #[test]
    fn malformed_maps_are_refused_and_never_read_past_their_end() {
        let whole = write(&[("a", "bc"), ("d", "")]);
        for end in 1..whole.len() {
            assert_eq!(read(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(read(b"\xff\xff\xff\xff\0\0\0\0"), None);
        assert_eq!(read(b"\x01\0\0\0\x01\0\0\0\x02\0\0\0axbc\0"), None);
    }
}
