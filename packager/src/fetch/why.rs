//! Why a module was pulled or not, for people and for scripts.

use std::fmt;

use serde::Serialize;

use super::request::PullPolicy;
use crate::digest::Digest;

/// What was done to have a module, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// First half of the key: the image without tag and digest, or the URL, which is shown without its query.
    pub name: String,
    /// Second half of the key: a manifest's digest, or of a URL the module's own; unknown before anything was asked.
    pub checksum: Option<Digest>,
    /// What was done.
    pub action: Action,
    /// Why, as a sentence without its full stop.
    pub reason: String,
}

/// What was done to have a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Taken from the cache; nothing was asked.
    FromCache,
    /// The registry was asked for the manifest, and the cache had what it names.
    Unchanged,
    /// Pulled.
    Pulled,
    /// Read where it is: a file or a layout, which no cache is for.
    Read,
    /// The registry or the web server will be asked.
    WillAsk,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromCache => "not pulled",
            Self::Unchanged => "asked for, not pulled",
            Self::Pulled => "pulled",
            Self::Read => "read",
            Self::WillAsk => "will be asked for",
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; key ({}, ", self.action, self.reason, self.name)?;
        match &self.checksum {
            Some(checksum) => write!(f, "{})", checksum.hex()),
            None => f.write_str("not known yet)"),
        }
    }
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    Pinned,
    PinNotThere,
    NeverPulled,
    PulledBefore(PullPolicy),
    VersionUnchanged(String),
    VersionChanged { before: Option<String>, now: String },
    Gone,
    Damaged,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("it is pinned and in the cache, so the pull policy does not count"),
            Self::PinNotThere => f.write_str("it is pinned and not in the cache"),
            Self::NeverPulled => f.write_str("its url was not pulled before"),
            Self::PulledBefore(PullPolicy::Unspecified) => f.write_str(
                "its url was pulled before, and without a pull policy that is enough unless it ends in `:latest`",
            ),
            Self::PulledBefore(policy) => {
                write!(f, "its url was pulled before, and with the pull policy {policy} that is enough")
            }
            Self::VersionUnchanged(version) => {
                write!(f, "its url was pulled before, and the resource still has version {}", shown(version))
            }
            Self::VersionChanged { before: None, now } => {
                write!(f, "its url was pulled before, but not for this resource, which has version {}", shown(now))
            }
            Self::VersionChanged { before: Some(before), now } => {
                write!(f, "the resource has version {} and had {} before", shown(now), shown(before))
            }
            Self::Gone => f.write_str("its url was pulled before, and the module is no longer in the cache"),
            Self::Damaged => f.write_str("the module in the cache is damaged"),
        }
    }
}

fn shown(version: &str) -> String {
    format!("`{}`", crate::registry::printable(version, 64))
}
