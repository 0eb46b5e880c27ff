//! The serialized form of header maps and property maps.

use bytes::Bytes;

/// Above this size a map from a guest counts as malformed, as in Envoy.
const MAX_SIZE: usize = 1 << 20;
/// Above this many pairs a map from a guest counts as malformed, as in Envoy.
const MAX_PAIRS: usize = 1024;

/// Writes pairs as `count, sizes…, (key NUL value NUL)…`.
pub fn serialize<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let (count, content) = pairs.clone().fold((0_u32, 0), |(n, size), (k, v)| (n + 1, size + k.len() + v.len() + 2));
    let mut out = Vec::with_capacity(4 + 8 * count as usize + content);
    out.extend_from_slice(&count.to_le_bytes());
    for (key, value) in pairs.clone() {
        out.extend_from_slice(&length(key).to_le_bytes());
        out.extend_from_slice(&length(value).to_le_bytes());
    }
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Reads pairs that a guest wrote. Malformed input is an empty list, which is what Envoy makes of it.
pub fn deserialize(bytes: &[u8]) -> Vec<(Bytes, Bytes)> {
    if bytes.len() > MAX_SIZE {
        return Vec::new();
    }
    parse(bytes).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Option<Vec<(Bytes, Bytes)>> {
    let mut sizes = bytes;
    let count = take_u32(&mut sizes)? as usize;
    if count > MAX_PAIRS {
        return None;
    }
    let mut content = sizes.get(count * 8..)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let key = take_u32(&mut sizes)? as usize;
        let value = take_u32(&mut sizes)? as usize;
        pairs.push((take_terminated(&mut content, key)?, take_terminated(&mut content, value)?));
    }
    content.is_empty().then_some(pairs)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (head, tail) = bytes.split_first_chunk::<4>()?;
    *bytes = tail;
    Some(u32::from_le_bytes(*head))
}

fn take_terminated(bytes: &mut &[u8], len: usize) -> Option<Bytes> {
    let (head, tail) = bytes.split_at_checked(len)?;
    let (nul, tail) = tail.split_first()?;
    *bytes = tail;
    (*nul == 0).then(|| Bytes::copy_from_slice(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let pairs: [(&[u8], &[u8]); 2] = [(b":path", b"/x"), (b"empty", b"")];
        let read = deserialize(&serialize(pairs.iter().copied()));
        assert_eq!(read, [(":path".into(), "/x".into()), ("empty".into(), Bytes::new())]);
    }

    #[test]
    fn malformed_maps_are_empty() {
        let good = serialize([(&b"a"[..], &b"b"[..])].iter().copied());
        let mut trailing = good.clone();
        trailing.push(0);
        let mut no_nul = good.clone();
        *no_nul.last_mut().unwrap() = 1;
        for bad in [&b"\xff\xff\xff\xff"[..], &good[..good.len() - 1], &trailing, &no_nul, b"", b"\x01\0\0\0"] {
            assert_eq!(deserialize(bad), [], "{bad:?}");
        }
    }
}
