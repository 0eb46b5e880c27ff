//! Versions: of Envoy, and of the proxy-wasm ABI.

use std::fmt;
use std::str::FromStr;

/// An Envoy release that modules can be checked against: 1.33 to 1.40.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvoyVersion {
    minor: u8,
}

impl EnvoyVersion {
    /// 1.33.
    pub const OLDEST: Self = Self { minor: 33 };
    /// 1.40.
    pub const NEWEST: Self = Self { minor: 40 };

    /// Every one of them, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::OLDEST.minor..=Self::NEWEST.minor).map(Self::v1)
    }

    pub(crate) const fn v1(minor: u8) -> Self {
        Self { minor }
    }
}

impl Default for EnvoyVersion {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// A text that names no Envoy release known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an Envoy version known here: {} to {}", EnvoyVersion::OLDEST, EnvoyVersion::NEWEST)]
pub struct UnknownEnvoyVersion {
    text: String,
}

impl FromStr for EnvoyVersion {
    type Err = UnknownEnvoyVersion;

    /// Parse `1.40`, `v1.40` or `1.40.2`; the patch release is ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.strip_prefix('v').unwrap_or(text).split('.').map(|part| {
            // `+5` parses as a number.
            if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse::<u8>().ok() } else { None }
        });
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(1)), Some(Some(minor)), None | Some(Some(_)), None)
                if (Self::OLDEST.minor..=Self::NEWEST.minor).contains(&minor) =>
            {
                Ok(Self { minor })
            }
            _ => Err(UnknownEnvoyVersion { text: text.to_owned() }),
        }
    }
}

/// A proxy-wasm ABI version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbiVersion {
    /// 0.1.0.
    V0_1_0,
    /// 0.2.0.
    V0_2_0,
    /// 0.2.1.
    V0_2_1,
}

impl AbiVersion {
    /// Every version that Envoy knows.
    pub const ALL: [Self; 3] = [Self::V0_1_0, Self::V0_2_0, Self::V0_2_1];

    /// The export that marks a module as written for this version, for example `proxy_abi_version_0_2_1`.
    pub fn marker(self) -> &'static str {
        match self {
            Self::V0_1_0 => "proxy_abi_version_0_1_0",
            Self::V0_2_0 => "proxy_abi_version_0_2_0",
            Self::V0_2_1 => "proxy_abi_version_0_2_1",
        }
    }

    /// The version that an export marks, if Envoy knows it.
    pub fn from_marker(export: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.marker() == export)
    }
}

/// `0.2.1`.
impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        })
    }
}
