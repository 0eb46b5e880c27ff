//! How header maps travel between host and module: count, lengths, then NUL-terminated names and values.

use crate::host::Header;

/// Reads a serialized map; none when it is malformed. No bytes are an empty map.
pub(crate) fn read_map(bytes: &[u8]) -> Option<Vec<Header>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = read_u32(bytes)?;
    let (mut lengths, mut text) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut headers = Vec::with_capacity(count);
    while !lengths.is_empty() {
        let name = take(&mut lengths, &mut text)?;
        let value = take(&mut lengths, &mut text)?;
        headers.push((name, value));
    }
    Some(headers)
}

/// Writes a map as the host reads it.
pub(crate) fn write_map(headers: &[(String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |length: usize| bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    push(headers.len());
    for (name, value) in headers {
        push(name.len());
        push(value.len());
    }
    for (name, value) in headers {
        for text in [name, value] {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

fn read_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*head)).ok()?, rest))
}

fn take(lengths: &mut &[u8], text: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = read_u32(lengths)?;
    *lengths = rest;
    let (field, rest) = text.split_at_checked(length)?;
    let (0, rest) = rest.split_first()? else { return None };
    *text = rest;
    Some(field.to_vec())
}

#[cfg(test)]
mod tests {
    use super::{read_map, write_map};

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_map_survives_the_way_there_and_back() {
        let headers = [pair(":path", "/"), pair("x", ""), pair("x", "é")];
        let expected: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        assert_eq!(read_map(&write_map(&headers)), Some(expected));
    }

    #[test]
    fn the_bytes_are_those_of_the_abi() {
        assert_eq!(write_map(&[pair("a", "bc")]), b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0bc\0");
        assert_eq!(write_map(&[]), b"\0\0\0\0");
        assert_eq!(read_map(b""), Some(vec![]));
    }

    #[test]
    fn malformed_maps_are_refused_and_never_read_past_their_end() {
        let whole = write_map(&[pair("a", "bc"), pair("d", "")]);
        for end in 1..whole.len() {
            assert_eq!(read_map(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(read_map(b"\xff\xff\xff\xff\0\0\0\0"), None);
        assert_eq!(read_map(b"\x01\0\0\0\x01\0\0\0\x02\0\0\0axbc\0"), None);
    }
}
