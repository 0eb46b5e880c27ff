//! Values that all workers and plugins of a VM id share.

use std::fmt;

use crate::host::{Host, HostError};

/// How often a change is tried again that another one came before.
const MOST_TRIES: usize = 32;
const CAS_MISMATCH: u32 = 8;

/// A value that all plugins with the same VM id share, in all workers. It outlives the plugin.
///
/// ```
/// use plugwright_sdk::SharedData;
/// use plugwright_sdk::testing::InMemoryHost;
///
/// # fn main() -> Result<(), plugwright_sdk::SharedDataError> {
/// let mut host = InMemoryHost::default();
/// let seen = SharedData::new("seen");
/// seen.set(&mut host, b"1")?;
/// seen.update(&mut host, |value| Some([value.unwrap_or_default(), b"1"].concat()))?;
/// assert_eq!(seen.get(&host)?.as_deref(), Some(&b"11"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedData<'a> {
    key: &'a str,
}

/// Why a shared value cannot be had or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedDataError {
    /// The proxy refused.
    Host(HostError),
    /// Others changed it again and again meanwhile.
    Contended,
}

impl From<HostError> for SharedDataError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl fmt::Display for SharedDataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Contended => f.write_str("others changed the shared value again and again"),
        }
    }
}

impl std::error::Error for SharedDataError {}

impl<'a> SharedData<'a> {
    /// Names a value.
    pub const fn new(key: &'a str) -> Self {
        Self { key }
    }

    /// Returns the value; none when nobody has set it.
    pub fn get(self, host: &impl Host) -> Result<Option<Vec<u8>>, SharedDataError> {
        Ok(host.shared_data(self.key)?.map(|(value, _)| value))
    }

    /// Sets the value, whatever it was.
    pub fn set(self, host: &mut impl Host, value: &[u8]) -> Result<(), SharedDataError> {
        Ok(host.set_shared_data(self.key, value, 0)?)
    }

    /// Changes the value into what `change` makes of it, and returns that; none leaves it as it is.
    ///
    /// No change of another worker is lost: when there was one meanwhile, `change` is called again with it. Only the
    /// very first value of a key is not protected, since the proxy has no version for what is not there.
    pub fn update(
        self,
        host: &mut impl Host,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, SharedDataError> {
        for _ in 0..MOST_TRIES {
            let (value, version) = host.shared_data(self.key)?.unzip();
            let Some(changed) = change(value.as_deref()) else { return Ok(None) };
            match host.set_shared_data(self.key, &changed, version.unwrap_or(0)) {
                Ok(()) => return Ok(Some(changed)),
                Err(error) if error.status() == CAS_MISMATCH => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SharedDataError::Contended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::InMemoryHost;

    #[test]
    fn a_change_that_another_came_before_is_made_again() {
        let mut host = InMemoryHost::default();
        let mut other = host.sharing();
        let number = SharedData::new("n");
        number.set(&mut host, &[1]).unwrap();
        let mut interfere = true;
        let changed = number.update(&mut host, |value| {
            if std::mem::replace(&mut interfere, false) {
                number.set(&mut other, &[10]).unwrap();
            }
            Some(vec![value?.first()? + 1])
        });
        assert_eq!(changed, Ok(Some(vec![11])));
        assert_eq!(number.get(&host), Ok(Some(vec![11])));
        assert_eq!(number.update(&mut host, |_| None), Ok(None));
    }

    #[test]
    fn a_value_that_never_stands_still_is_given_up() {
        let mut host = InMemoryHost::default();
        let mut other = host.sharing();
        let number = SharedData::new("n");
        number.set(&mut host, &[1]).unwrap();
        let changed = number.update(&mut host, |_| {
            number.set(&mut other, &[7]).unwrap();
            Some(vec![2])
        });
        assert_eq!(changed, Err(SharedDataError::Contended));
        assert_eq!(number.get(&host), Ok(Some(vec![7])));
    }
}
