//! A header map as the host wrote it, looked at without copies.

use std::fmt;

use crate::host::Header;
use crate::wire;

/// All headers of a map, in one piece of memory: names and values are parts of it.
///
/// ```
/// use plugwright_sdk::HeaderMap;
///
/// let map: HeaderMap = [("accept", "text/html"), ("Accept", "*/*")].into_iter().collect();
/// assert_eq!(map.get("ACCEPT"), Some(&b"text/html"[..]));
/// assert_eq!(map.values("accept").count(), 2);
/// assert_eq!(map.iter().next(), Some((&b"accept"[..], &b"text/html"[..])));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderMap {
    /// Serialized as in the ABI, and well-formed; nothing is an empty map.
    bytes: Vec<u8>,
}

impl HeaderMap {
    /// Takes a serialized map; none when it is malformed.
    #[cfg(any(test, target_family = "wasm"))]
    pub(crate) fn read(bytes: Vec<u8>) -> Option<Self> {
        let fields = wire::Fields::new(&bytes)?;
        let expected = fields.left();
        (fields.count() == expected).then_some(Self { bytes })
    }

    pub(crate) fn of(headers: &[Header]) -> Self {
        Self { bytes: wire::write(headers) }
    }

    /// Returns the headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        wire::Fields::new(&self.bytes).into_iter().flatten()
    }

    /// Returns the first header called `name`, in any case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// Returns the first header called `name`, in any case, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Returns the values of all headers called `name`, in any case, in their order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Returns how many headers there are.
    pub fn len(&self) -> usize {
        wire::Fields::new(&self.bytes).map_or(0, |fields| fields.left())
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of each header.
    pub fn to_vec(&self) -> Vec<Header> {
        self.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }
}

/// No headers.
impl Default for HeaderMap {
    fn default() -> Self {
        Self { bytes: Vec::new() }
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderMap {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let own = |(name, value): (N, V)| (name.as_ref().to_vec(), value.as_ref().to_vec());
        Self::of(&headers.into_iter().map(own).collect::<Vec<_>>())
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for HeaderMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}
